"""What a pull reports while it runs; the command line draws it, the server and the tests may ignore it."""

from typing import Protocol


class PullProgress(Protocol):
    """Called from the pulling thread; a call must return at once."""

    def waiting(self, model: str) -> None:
        """Another process is fetching `model`; this one waits for it."""
        ...

    def file_started(self, filename: str, total_bytes: int, done_bytes: int) -> None:
        """A download begins; `done_bytes` are left over from an earlier one that was cut off."""
        ...

    def file_advanced(self, filename: str, done_bytes: int) -> None:
        """`done_bytes` of the file are on the disk now; this falls back to 0 when the download has to start over."""
        ...

    def file_finished(self, filename: str) -> None:
        """The file is complete and its hash is right."""
        ...

    def model_ready(self, model: str, *, fetched: bool) -> None:
        """`model` is complete; `fetched` says whether this pull did any work for it."""
        ...


class Silence:
    """A PullProgress that tells nobody."""

    def waiting(self, model: str) -> None:
        """Nothing."""

    def file_started(self, filename: str, total_bytes: int, done_bytes: int) -> None:
        """Nothing."""

    def file_advanced(self, filename: str, done_bytes: int) -> None:
        """Nothing."""

    def file_finished(self, filename: str) -> None:
        """Nothing."""

    def model_ready(self, model: str, *, fetched: bool) -> None:
        """Nothing."""
