"""`ahoy models`: see, fetch and check the model files.

Errors are one red line on standard error and exit code 1. On a terminal each download has a progress bar; elsewhere (a
log, a container build) there is one line for each finished file.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "for", "provider", "model", "first", "what happened"):
        table.add_column(heading, justify="right" if heading == "first" else "left", no_wrap=heading != "what happened")
    for one in findings:
        first = "" if one.first_ms is None else f"{one.first_ms:.0f} ms"
        state = "[green]works[/]" if one.works else "[red]fails[/]"
        table.add_row(state, WORK[one.capability], escape(one.provider), escape(one.model), first, escape(one.words))
    Console().print(table)
    if not all(one.works for one in findings):
        raise typer.Exit(1)


async def _check(settings: Settings) -> list[Finding]:
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
