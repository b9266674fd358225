"""Fetching models in front of a person: bars on a terminal, lines in a log."""

import sys
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from app.core.config import Settings
from app.inference.disk import human_size
from app.inference.progress import PullProgress
from app.inference.store import ModelStore


def fetch_missing(settings: Settings) -> None:
    """Fetch the models that the settings need and that are not here yet. Raises ModelError."""
    store = ModelStore()
    missing = tuple(name for name in models_of_settings(settings, store) if not store.present(name))
    if missing:
        size = sum(archive.size_bytes for name in missing for archive in store.entry(name).archives)
        print(f"Fetching models that are not here yet ({human_size(size)}): {', '.join(missing)}", flush=True)
        pull_with_progress(store, missing)


def models_of_settings(settings: Settings, store: ModelStore) -> tuple[str, ...]:
    """The models of the manifest that the settings need; files of the user's own are left out."""
    return tuple(name for name in settings.needed_models.values() if name in store.manifest)


def pull_with_progress(store: ModelStore, names: tuple[str, ...]) -> None:
    """Pull `names` into `store`, drawing bars on a terminal and printing lines elsewhere. Raises ModelError."""
    if sys.stdout.isatty():
        with Bars() as bars:
            store.pull(names, bars)
    else:
        store.pull(names, Lines())


class Lines(PullProgress):
    """One line for each thing that is done, for logs."""

    def waiting(self, model: str) -> None:
        print(f"{model}: another process is fetching it, waiting")

    def file_started(self, filename: str, total_bytes: int, done_bytes: int) -> None:
        if done_bytes:
            print(f"{filename}: going on at {human_size(done_bytes)} of {human_size(total_bytes)}")

    def file_advanced(self, filename: str, done_bytes: int) -> None:
        """Nothing: a log wants no bars."""

    def file_finished(self, filename: str) -> None:
        print(f"{filename}: fetched", flush=True)

    def model_ready(self, model: str, *, fetched: bool) -> None:
        print(f"{model}: ready" if fetched else f"{model}: already here")


class Bars(PullProgress):
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
