"""What a model setting may hold: the name of a model in the manifest, or the path of a local file or directory.

A path is checked for what its role needs before anything tries to load it, so that a wrong setting is explained in a
sentence and not by a stack trace out of a library.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import ModelError
from app.inference.manifest import ModelEntry, Role
from app.inference.store import ModelStore

_ROLE_NAMES: dict[Role, str] = {
    "vad": "voice activity detection",
    "turn": "end-of-turn detection",
    "stt": "speech recognition",
    "llm": "language",
    "tts": "speech synthesis",
    "test": "test speech",
}

_GGUF_MAGIC = b"GGUF"
"""First bytes of a GGUF file (ggml's docs/gguf.md)."""

_LFS_MAGIC = b"version https://git-lfs"
"""First bytes of a Git LFS pointer, which stands where the file itself should be."""


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """Where the model of a setting is."""

    path: Path
    """The `.onnx` file for vad and turn, the `.gguf` file for llm, the directory for stt, tts and test."""
    name: str | None
    """The model's name in the manifest; None for a local path."""


def resolve(value: str, role: Role, store: ModelStore) -> ModelLocation:
    """Find the model that the setting `value` names for `role`. It does not fetch anything.

    A value that the manifest knows is a name; an absolute path, or one that begins with ~ or . or holds a slash, is a
    path. Raises ModelError when the model is not downloaded, has another role, or is not what the role needs.
    """
    if value in store.manifest:
        entry = store.entry(value)
        if entry.role != role:
            raise ModelError(
                f"'{value}' is for {_ROLE_NAMES[entry.role]}, and a model for {_ROLE_NAMES[role]} is needed: "
                f"{_choices(role, store)}"
            )
        return ModelLocation(_for_role(entry, store.path(value)), value)
    if not _is_path(value):
        raise ModelError(
            f"there is no {_ROLE_NAMES[role]} model '{value}': {_choices(role, store)}", code="model_unknown"
        )
    path = Path(value).expanduser().absolute()
    if not path.exists():
        raise ModelError(f"the {_ROLE_NAMES[role]} model '{value}' does not exist: {_choices(role, store)}")
    try:
        _CHECKS[role](path)
    except OSError as error:
        raise ModelError(f"'{value}' cannot be read ({error.strerror}): check its permissions") from error
    return ModelLocation(path, None)


def _is_path(value: str) -> bool:
    return value.startswith(("~", ".")) or "/" in value or "\\" in value


def _choices(role: Role, store: ModelStore) -> str:
    names = [name for name, entry in store.manifest.items() if entry.role == role]
    return f"use {' or '.join([*names, _WANTED[role]])}"


def _for_role(entry: ModelEntry, directory: Path) -> Path:
    return directory / entry.files[0].path if entry.role in {"vad", "turn", "llm"} else directory


def _check_onnx(path: Path) -> None:
    _check_file(path, ".onnx", b"")


def _check_gguf(path: Path) -> None:
    _check_file(path, ".gguf", _GGUF_MAGIC)


def _check_ctranslate2(path: Path) -> None:
    _check_directory(path, ("model.bin",), ("config.json",), ("tokenizer.json",), ("vocabulary.json", "vocabulary.txt"))


def _check_kokoro(path: Path) -> None:
    _check_directory(path, ("*.onnx",), ("vocab.json",), ("voices/*.bin",))


def _check_recordings(path: Path) -> None:
    _check_directory(path, ("*.wav", "*.flac"))


def _check_file(path: Path, suffix: str, magic: bytes) -> None:
    if not path.is_file() or path.suffix.lower() != suffix:
        raise ModelError(f"{path} is not a {suffix} file: name the file itself")
    _check_content(path, magic)


def _check_directory(path: Path, *needs: tuple[str, ...]) -> None:
    """Each of `needs` are patterns of which one must match a file."""
    if not path.is_dir():
        raise ModelError(f"{path} is not a directory: name the directory that holds the model's files")
    for patterns in needs:
        found = sorted(match for pattern in patterns for match in path.glob(pattern) if match.is_file())
        if not found:
            raise ModelError(f"{path} has no {' or '.join(patterns)}: the directory must hold all files of the model")
        for file in found:
            _check_content(file, b"")


def _check_content(path: Path, magic: bytes) -> None:
    with path.open("rb") as file:
        start = file.read(len(_LFS_MAGIC))
    if start.startswith(_LFS_MAGIC):
        raise ModelError(f"{path} is a Git LFS pointer, not the model itself: fetch it with `git lfs pull`")
    if not start:
        raise ModelError(f"{path} is empty: copy the model again")
    if not start.startswith(magic):
        raise ModelError(f"{path} does not begin with {magic.decode()}: it is damaged or another kind of file")


_CHECKS: dict[Role, Callable[[Path], None]] = {
    "vad": _check_onnx,
    "turn": _check_onnx,
    "stt": _check_ctranslate2,
    "llm": _check_gguf,
    "tts": _check_kokoro,
    "test": _check_recordings,
}

_WANTED: dict[Role, str] = {
    "vad": "the path of an .onnx file",
    "turn": "the path of an .onnx file",
    "stt": "the path of a CTranslate2 Whisper directory",
    "llm": "the path of a .gguf file",
    "tts": "the path of a directory with an .onnx file, vocab.json and voices/",
    "test": "the path of a directory with recordings",
}
