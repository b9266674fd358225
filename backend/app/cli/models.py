"""`ahoy models`: see, fetch and check the model files.

Errors are one red line on standard error and exit code 1. On a terminal each download has a progress bar; elsewhere (a
log, a container build) there is one line for each finished file.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from app.core.config import load_settings
from app.core.errors import AhoyError
from app.inference.disk import human_size
from app.inference.progress import PullProgress
from app.inference.store import ModelStore

FOR_TESTS = ("test-speech", "whisper-base")
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
        wanted = tuple(store.manifest) if everything else tuple(names or models_of_settings(store))
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


def models_of_settings(store: ModelStore) -> tuple[str, ...]:
    """The models of the manifest that the settings need; files of the user's own are left out."""
    return tuple(name for name in load_settings().needed_models.values() if name in store.manifest)


def pull_with_progress(store: ModelStore, names: tuple[str, ...]) -> None:
    """Pull `names` into `store`, drawing bars on a terminal and printing lines elsewhere. Raises ModelError."""
    if sys.stdout.isatty():
        with _Bars() as bars:
            store.pull(names, bars)
    else:
        store.pull(names, _Lines())


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


class _Lines(PullProgress):
    """One line for each thing that is done, for logs."""

    def waiting(self, model: str) -> None:
        typer.echo(f"{model}: another process is fetching it, waiting")

    def file_started(self, filename: str, total_bytes: int, done_bytes: int) -> None:
        if done_bytes:
            typer.echo(f"{filename}: going on at {human_size(done_bytes)} of {human_size(total_bytes)}")

    def file_advanced(self, filename: str, done_bytes: int) -> None:
        """Nothing: a log wants no bars."""

    def file_finished(self, filename: str) -> None:
        typer.echo(f"{filename}: fetched")

    def model_ready(self, model: str, *, fetched: bool) -> None:
        typer.echo(f"{model}: ready" if fetched else f"{model}: already here")


class _Bars(PullProgress):
    """A bar for each file on a terminal."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def waiting(self, model: str) -> None:
        self._progress.console.print(f"{model}: another process is fetching it, waiting", highlight=False)

    def file_started(self, filename: str, total_bytes: int, done_bytes: int) -> None:
        self._tasks[filename] = self._progress.add_task(filename, total=total_bytes, completed=done_bytes)

    def file_advanced(self, filename: str, done_bytes: int) -> None:
        self._progress.update(self._tasks[filename], completed=done_bytes)

    def file_finished(self, filename: str) -> None:
        task = self._tasks.pop(filename)
        total = next(item.total for item in self._progress.tasks if item.id == task)
        self._progress.update(task, completed=total)

    def model_ready(self, model: str, *, fetched: bool) -> None:
        self._progress.console.print(f"{model}: {'ready' if fetched else 'already here'}", highlight=False)
