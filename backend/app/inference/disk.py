"""Files on the disk: what they are, and what the disk may refuse while they are written, told in plain words."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from app.core.errors import ModelError

_MARGIN_BYTES = 16 * 1024 * 1024
"""Left free beyond what is needed, so that a download is not what fills the disk to the last byte."""


def human_size(count: int) -> str:
    """`count` bytes as people read it: "512 bytes", "93.1 MB" (a megabyte is 10**6 bytes)."""
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """The size of a file in bytes; 0 when it does not exist."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def ensure_space(directory: Path, needed_bytes: int) -> None:
    """Raise ModelError when the disk of `directory` (which exists) has no room for `needed_bytes` more."""
    free = shutil.disk_usage(directory).free
    if free < needed_bytes + _MARGIN_BYTES:
        raise _disk_full(directory, f"{human_size(needed_bytes)} are needed and {human_size(free)} are free")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system says while `path` is written into a ModelError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            with contextlib.suppress(OSError):
                free = human_size(shutil.disk_usage(path if path.is_dir() else path.parent).free)
                raise _disk_full(path, f"{free} are free") from error
            raise _disk_full(path, error.strerror or "no space left") from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise ModelError(
                f"no permission to write {path} ({error.strerror}): change its owner or set AHOY_MODELS_DIR to a "
                "directory that can be written",
                code="model_permission",
            ) from error
        raise ModelError(
            f"{path} cannot be written ({error.strerror or error}): set AHOY_MODELS_DIR to a directory that can be",
            code="model_disk",
        ) from error


def sync_directory(directory: Path) -> None:
    """Make a rename inside `directory` survive a power cut; not needed, and not possible, on Windows."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _disk_full(path: Path, detail: str) -> ModelError:
    return ModelError(
        f"the disk is full at {path}: {detail}; free some space or set AHOY_MODELS_DIR to a directory on another disk",
        code="model_disk_full",
    )
