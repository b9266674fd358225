"""The model cache: a directory for each model, filled by `pull`, trusted only after its hashes were checked.

    <cache>/<model>/<file>              the model's files
    <cache>/<model>/.verified.json      which hash each file had when it was last checked, at which size and mtime
    <cache>/<model>/.download/          archives on their way; removed when the model is complete
    <cache>/.locks/<model>.lock         held while a process fills the model's directory

On start a look at sizes and times is enough; `verify` reads everything again. A cache that cannot be written serves
well as long as it is complete.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from app.core.errors import ModelError
from app.inference.disk import disk_errors, ensure_space, sha256_of, size_of
from app.inference.download import Downloader
from app.inference.extract import extract
from app.inference.manifest import MANIFEST, Archive, ModelEntry, ModelFile
from app.inference.progress import PullProgress, Silence
from app.inference.registries import Registries, read_registries

_STAMP = ".verified.json"
_DOWNLOADS = ".download"


def default_root() -> Path:
    """The cache directory: AHOY_MODELS_DIR, else the user's cache directory of this platform."""
    chosen = os.environ.get("AHOY_MODELS_DIR")
    return (
        Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("ahoy", False), "models")
    )


class ModelStore:
    """The models in `root` (see `default_root`). Every method blocks; several processes may use the same directory.

    `manifest` and `registries` are for tests; by default they are Ahoy's own list and the user's own settings.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        manifest: Mapping[str, ModelEntry] = MANIFEST,
        registries: Registries | None = None,
    ) -> None:
        self.root = default_root() if root is None else root
        self.manifest = manifest
        self._registries = registries

    def entry(self, name: str) -> ModelEntry:
        """What the manifest says about `name`. Raises ModelError for a name it does not have."""
        try:
            return self.manifest[name]
        except KeyError:
            raise ModelError(
                f"there is no model '{name}'; models are {', '.join(self.manifest)}", code="model_unknown"
            ) from None

    def directory(self, name: str) -> Path:
        """Where the files of `name` are, or will be."""
        return self.root / self.entry(name).name

    def path(self, name: str) -> Path:
        """The directory of a model that is complete and unchanged.

        Raises ModelError, naming the command that helps, when it is missing or was changed.
        """
        entry = self.entry(name)
        faults = self._faults(entry)
        if faults:
            if self.has_files(name):
                raise ModelError(f"model '{name}' is damaged ({faults[0][1]}): run `ahoy models pull {name}`")
            raise ModelError(f"model '{name}' is not downloaded: run `ahoy models pull {name}`")
        return self.directory(name)

    def present(self, name: str) -> bool:
        """Whether `name` is complete and unchanged."""
        return not self._faults(self.entry(name))

    def has_files(self, name: str) -> bool:
        """Whether any file of `name` is in the cache, in whatever state."""
        directory = self.directory(name)
        return any((directory / file.path).exists() for file in self.entry(name).files)

    def pull(self, names: Iterable[str], progress: PullProgress | None = None) -> tuple[str, ...]:
        """Fetch what is missing or damaged of the models `names`; return the names that needed work.

        Another process that pulls the same model is waited for, and its work is used. Raises ModelError for an unknown
        name (before anything is fetched), no network, no space, no permission, or a hash that differs.
        """
        told: PullProgress = Silence() if progress is None else progress
        entries = [self.entry(name) for name in dict.fromkeys(names)]
        fetched: list[str] = []
        with ExitStack() as stack:
            downloader: Downloader | None = None
            for entry in entries:
                if not self.present(entry.name):
                    with self._lock(entry, told):
                        bad = tuple(file for file, _ in self._faults(entry))
                        if bad:
                            if downloader is None:
                                registries = self._registries or read_registries()
                                downloader = stack.enter_context(Downloader(registries, told))
                            self._fetch(entry, bad, downloader)
                            fetched.append(entry.name)
                told.model_ready(entry.name, fetched=entry.name in fetched)
        return tuple(fetched)

    def verify(self, name: str) -> tuple[str, ...]:
        """Read every file of `name` again; return one sentence for each problem, none when all is well.

        A model with a problem counts as not present from then on, until `pull` has repaired it.
        """
        entry = self.entry(name)
        if not self.has_files(name):
            return (f"model '{name}' is not downloaded: run `ahoy models pull {name}`",)
        faults = self._faults(entry, reread=True)
        return tuple(f"model '{name}': {fault}: run `ahoy models pull {name}`" for _, fault in faults)

    def _fetch(self, entry: ModelEntry, bad: tuple[ModelFile, ...], downloader: Downloader) -> None:
        directory = self.root / entry.name
        downloads = directory / _DOWNLOADS
        archives = [(archive, _part(downloads, archive)) for archive in entry.archives_for(bad)]
        with disk_errors(directory):
            downloads.mkdir(parents=True, exist_ok=True)
            left = sum(max(0, archive.size_bytes - size_of(part)) for archive, part in archives)
            ensure_space(directory, left + sum(file.size_bytes for file in bad))
        for archive, part in archives:
            downloader.fetch(archive, part)
        try:
            extract(bad, archives, directory)
        finally:
            shutil.rmtree(downloads, ignore_errors=True)
        self._faults(entry)  # the stamp is written from what is on the disk now

    def _faults(self, entry: ModelEntry, *, reread: bool = False) -> list[tuple[ModelFile, str]]:
        """The files that are missing or not what the manifest says, each with what is wrong.

        A file whose size and time are as stamped is trusted unless `reread`; any other file of the right size is hashed
        and, when it is right, stamped.
        """
        directory = self.root / entry.name
        old = _read_stamp(directory)
        new: dict[str, dict[str, Any]] = {}
        faults: list[tuple[ModelFile, str]] = []
        for file in entry.files:
            path = directory / file.path
            try:
                status = path.stat()
                stamp = {"sha256": file.sha256, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
                if status.st_size != file.size_bytes:
                    faults.append((file, f"{path} has {status.st_size} bytes instead of {file.size_bytes}"))
                elif (reread or old.get(file.path) != stamp) and (found := sha256_of(path)) != file.sha256:
                    faults.append((file, f"{path} has SHA-256 {found} instead of {file.sha256}"))
                else:
                    new[file.path] = stamp
            except FileNotFoundError:
                faults.append((file, f"{path} is missing"))
            except OSError as error:
                faults.append((file, f"{path} cannot be read ({error.strerror})"))
        if new != old:
            _write_stamp(directory, new)
        return faults

    @contextlib.contextmanager
    def _lock(self, entry: ModelEntry, progress: PullProgress) -> Iterator[None]:
        """Hold the model's lock. It goes when its process ends, however that ends, so waiting is safe."""
        path = self.root / ".locks" / f"{entry.name}.lock"
        with ExitStack() as stack:
            with disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(path)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    progress.waiting(entry.name)
                    lock.acquire()
                stack.callback(lock.release)
            yield


def _part(downloads: Path, archive: Archive) -> Path:
    """Where an archive is collected; the hash in the name keeps a newer manifest from going on with an old file."""
    return downloads / f"{archive.sha256[:16]}-{archive.filename}.part"


def _read_stamp(directory: Path) -> dict[str, Any]:
    try:
        stamp = json.loads((directory / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _write_stamp(directory: Path, stamp: dict[str, dict[str, Any]]) -> None:
    """Replace the stamp in one step. A cache that cannot be written goes without and is hashed on each start."""
    temporary = directory / f"{_STAMP}.{os.getpid()}"
    with contextlib.suppress(OSError):
        try:
            temporary.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
            temporary.replace(directory / _STAMP)
        finally:
            temporary.unlink(missing_ok=True)
