"""A model setting holds a name of the manifest or a local path, and a wrong one is explained."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from app.core.errors import ModelError
from app.inference.location import resolve
from app.inference.manifest import MANIFEST, Role, load_manifest
from app.inference.store import ModelStore, default_root


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "cache")


def fill(directory: Path, *names: str) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"GGUF and more" if name.endswith(".gguf") else b"\x08content")
    return directory


@pytest.mark.parametrize(
    ("role", "files", "named"),
    [
        ("vad", ["a.onnx"], "a.onnx"),
        ("turn", ["a.onnx"], "a.onnx"),
        ("llm", ["a.gguf"], "a.gguf"),
        ("stt", ["model.bin", "config.json", "tokenizer.json", "vocabulary.txt"], ""),
        ("stt", ["model.bin", "config.json", "tokenizer.json", "vocabulary.json"], ""),
        ("tts", ["k.onnx", "vocab.json", "voices/af_heart.bin"], ""),
    ],
)
def test_a_local_path_that_fits_its_role_is_taken(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: Role, files: list[str], named: str
) -> None:
    target = fill(tmp_path / "local", *files) / named
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for value in (str(target), f"./local/{named}", f"~/local/{named}", f"local/{named}"):
        location = resolve(value, role, store)
        assert (location.path, location.name) == (target, None)


@pytest.mark.parametrize(
    ("role", "files", "named", "message"),
    [
        ("llm", ["a.bin"], "a.bin", "is not a .gguf file"),
        ("llm", ["a.gguf"], "", "is not a .gguf file"),
        ("vad", ["a.pt"], "a.pt", "is not a .onnx file"),
        ("stt", ["model.bin"], "model.bin", "is not a directory"),
        ("stt", ["model.bin", "config.json", "vocabulary.txt"], "", "has no tokenizer.json"),
        ("stt", ["model.bin", "config.json", "tokenizer.json"], "", "has no vocabulary.json or vocabulary.txt"),
        ("tts", ["k.onnx", "vocab.json"], "", "has no voices/"),
        ("llm", [], "missing.gguf", "does not exist: use smollm2-135m or the path of a .gguf file"),
    ],
)
def test_a_local_path_that_does_not_fit_is_explained(
    store: ModelStore, tmp_path: Path, role: Role, files: list[str], named: str, message: str
) -> None:
    target = fill(tmp_path / "local", *files) / named
    with pytest.raises(ModelError) as caught:
        resolve(str(target), role, store)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<html>", "does not begin with GGUF"),
    ],
)
def test_a_file_that_is_not_the_model_is_recognised(
    store: ModelStore, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        resolve(str(tmp_path / "a.gguf"), "llm", store)


def test_a_name_must_be_known_fit_the_role_and_be_downloaded(store: ModelStore) -> None:
    with pytest.raises(
        ModelError, match=r"no speech recognition model 'whisper-huge': use whisper-tiny\.en or whisper"
    ):
        resolve("whisper-huge", "stt", store)
    with pytest.raises(ModelError, match="'smart-turn' is for end-of-turn detection"):
        resolve("smart-turn", "vad", store)
    with pytest.raises(ModelError, match="'silero-vad' is not downloaded: run `ahoy models pull silero-vad`"):
        resolve("silero-vad", "vad", store)


def test_a_downloaded_model_resolves_to_what_its_role_loads(tmp_path: Path) -> None:
    directory = fill(tmp_path / "m", "a.gguf")
    data = (directory / "a.gguf").read_bytes()
    entry = MANIFEST["smollm2-135m"]
    file = replace(entry.files[0], path="a.gguf", size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    store = ModelStore(tmp_path, manifest={"m": replace(entry, name="m", files=(file,))})
    location = resolve("m", "llm", store)
    assert (location.path, location.name) == (directory / "a.gguf", "m")


def test_the_manifest_lists_every_model_with_what_makes_it_acceptable() -> None:
    assert {name: entry.role for name, entry in MANIFEST.items()} == {
        "silero-vad": "vad",
        "smart-turn": "turn",
        "whisper-tiny.en": "stt",
        "whisper-base": "stt",
        "smollm2-135m": "llm",
        "kokoro": "tts",
        "test-speech": "test",
    }
    for entry in MANIFEST.values():
        assert entry.licence in {"MIT", "BSD-2-Clause", "Apache-2.0"}
        assert len(entry.description) < 90
        assert not [file.path for file in entry.files if file.path.endswith((".py", ".pt", ".pth", ".pkl", ".ckpt"))]
        assert entry.archives_for(entry.files) == entry.archives
    assert len([file for file in MANIFEST["kokoro"].files if file.path.startswith("voices/")]) == 28


@pytest.mark.parametrize(
    "change",
    [
        ('role = "vad"', 'role = "cook"'),
        ('path = "silero_vad.onnx"', 'path = "../silero_vad.onnx"'),
        ("bytes = 11317527", "bytes = 0"),
        ('parts = ["silero-vad:', 'parts = ["another:'),
        ('parts = ["silero-vad:', 'parts = ["'),
        ('licence = "MIT"', ""),
        ("[silero-vad]", '["../x"]'),
        ('filename = "silero_vad', 'filename = "../silero_vad'),
    ],
)
def test_a_manifest_with_a_fault_is_refused(tmp_path: Path, change: tuple[str, str]) -> None:
    source = Path(load_manifest.__code__.co_filename).with_name("models.toml").read_text()
    first = source[: source.index("[smart-turn]")]
    broken = first.replace(*change)
    assert broken != first
    if change[0] == "[silero-vad]":
        broken = broken.replace("[[silero-vad.", '[["../x".')
    (tmp_path / "models.toml").write_text(broken)
    with pytest.raises(ModelError, match=r"manifest|no archive|roles are"):
        load_manifest(tmp_path / "models.toml")


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AHOY_MODELS_DIR", str(tmp_path / "here"))
    assert default_root() == ModelStore().root == tmp_path / "here"
    monkeypatch.delenv("AHOY_MODELS_DIR")
    assert default_root().parts[-2:] == ("ahoy", "models")
