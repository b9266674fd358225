"""The command `ahoy`."""

import sys

import typer

from app.cli.models import models_app
from app.cli.phone import phone
from app.cli.serve import serve
from app.cli.talk import talk
from app.core.errors import AhoyError

app = typer.Typer(
    help="Ahoy, a self-hosted voice assistant.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(serve)
app.command()(talk)
app.command()(phone)
app.add_typer(models_app, name="models")


def main() -> None:
    """Run the command line. What goes wrong on purpose is one clear message and exit code 2, never a trace."""
    try:
        app()
    except AhoyError as error:
        sys.stderr.write(f"{error.message}\n")
        raise SystemExit(2) from None
