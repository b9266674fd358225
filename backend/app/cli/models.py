"""`ahoy models`: see, fetch and check the model files.

Errors are one red line on standard error and exit code 1. On a terminal each download has a progress bar; elsewhere (a
log, a container build) there is one line for each finished file.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.checkup import Finding, check
from app.core.config import Settings, load_settings
from app.core.errors import AhoyError
from app.engine import Engine
from app.inference.console import fetch_missing, models_of_settings, pull_with_progress
from app.inference.disk import human_size
from app.inference.store import ModelStore
from app.providers import WORK

FOR_TESTS = ("test-speech", "whisper-base", "kokoro")
"""What the tests and benchmarks need besides."""

models_app = typer.Typer(help="See, fetch and check the model files.", no_args_is_help=True)

_Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", show_default=False)]


@models_app.command("list")
def list_models() -> None:
    """Show every model: what it is for, its size, its licence, and whether it is here."""
    store = ModelStore()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "role", "size", "licence", "here", "description"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=heading != "description")
    with clean_errors():
        for entry in store.manifest.values():
            table.add_row(
                entry.name,
                entry.role,
                human_size(entry.total_bytes),
                entry.licence,
                _state(store, entry.name),
                entry.description,
            )
    console = Console()
    console.print(table)
    console.print(f"cache: {store.root}", highlight=False, soft_wrap=True)


@models_app.command("pull")
def pull_models(
    names: _Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Fetch every model of the list.")] = False,
    for_tests: Annotated[bool, typer.Option("--for-tests", help="Also what tests and benchmarks need.")] = False,
) -> None:
    """Fetch models, or go on with a download that was cut off. Without a name: what the settings need."""
    store = ModelStore()
    with clean_errors():
        if everything and names:
            raise AhoyError("give either names or --all, not both")
        wanted = tuple(store.manifest) if everything else tuple(names or models_of_settings(load_settings(), store))
        pull_with_progress(store, (*wanted, *FOR_TESTS) if for_tests else wanted)


@models_app.command("verify")
def verify_models(names: _Names = None) -> None:
    """Read model files again and compare their hashes. Without a name: every model that is here."""
    store = ModelStore()
    sound = True
    with clean_errors():
        for name in names or [name for name in store.manifest if store.has_files(name)]:
            problems = store.verify(name)
            for problem in problems:
                _print_error(problem)
            if problems:
                sound = False
            else:
                typer.echo(f"{name}: all hashes are right")
    if not sound:
        raise typer.Exit(1)


@models_app.command("check")
def check_models() -> None:
    """Try everybody who may do the work, embedded models and services: does it work, how soon, and what is wrong."""
    with clean_errors():
        findings = asyncio.run(_check(load_settings()))
    _print_findings(findings)
    if not all(one.works for one in findings):
        raise typer.Exit(1)


def _print_findings(findings: list[Finding]) -> None:
    """A row for each and what happened below it: beside it, long names of models would leave no room for that."""
    rows = [
        (
            "works" if one.works else "fails",
            WORK[one.capability],
            one.provider,
            one.model,
            "" if one.first_ms is None else f"{one.first_ms:.0f} ms",
        )
        for one in findings
    ]
    heading = ("", "for", "provider", "model", "first")
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]

    def line(row: tuple[str, ...]) -> str:
        *names, first = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        return "  ".join((*names, first.strip().rjust(widths[-1])))

    console = Console()
    console.print(line(heading).rstrip(), style="bold", markup=False, highlight=False, soft_wrap=True)
    for row, one in zip(rows, findings, strict=True):
        text = Text(f"{line(row).rstrip()}\n{' ' * (widths[0] + 2)}{one.words}")
        text.stylize("green" if one.works else "red", 0, widths[0])
        console.print(text, soft_wrap=True)


async def _check(settings: Settings) -> list[Finding]:
    # The findings say who fails: that it is left alone from now on is of no use to a process that ends here.
    logging.getLogger("app.remote.health").setLevel(logging.ERROR)
    fetch_missing(settings)
    engine = Engine(settings)
    try:
        await engine.start()
        return await check(engine)
    finally:
        await engine.close()


def _state(store: ModelStore, name: str) -> str:
    if store.present(name):
        return "yes"
    return "damaged" if store.has_files(name) else "no"


@contextmanager
def clean_errors() -> Iterator[None]:
    """Print an AhoyError as one red line and leave with exit code 1."""
    try:
        yield
    except AhoyError as error:
        _print_error(error.message)
        raise typer.Exit(1) from error


def _print_error(message: str) -> None:
    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
