"""Reads a form with a recording in it, strictly: each field once, none unknown, and a WAV file that is what it says."""

import io
import struct
import wave
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiohttp import BodyPartReader, web
from numpy.typing import NDArray

from openai_service.refusals import invalid_value, missing, refuse, unknown

MAX_FILE_BYTES = 25_000_000
SHORTEST_S = 0.1
_HEADER_BYTES = 44
_EXTENSIONS = ("flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "wav", "webm")
_LISTS = ("include", "timestamp_granularities", "keywords", "languages")
_NUMBERS = ("temperature",)
_FLAGS = {"true": True, "false": False}
_MAX_FIELD_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Upload:
    """A form: its fields but for the file, the file's name, and the recording in it (mono)."""

    fields: dict[str, Any]
    filename: str
    samples: NDArray[np.int16]
    rate_hz: int

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return len(self.samples) / self.rate_hz


async def read_upload(request: web.Request) -> Upload:
    """The form in the body of a request. Raises RefusedError."""
    if request.content_type != "multipart/form-data":
        raise refuse("invalid_content_type", f"Expected multipart/form-data, not {request.content_type!r}.")
    fields: dict[str, Any] = {}
    file: tuple[str, bytes] | None = None
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or not part.name:
                raise refuse("invalid_form", "Each part of the form needs a name.")
            content = bytes(await part.read(decode=True))
            if part.name == "file":
                if file is not None:
                    raise refuse("duplicate_parameter", "'file' is given twice.", "file")
                file = (part.filename or "", content)
            elif part.filename:
                raise refuse("invalid_type", f"'{part.name}' must not be a file.", part.name)
            else:
                _add(fields, part.name, content)
    except ValueError:
        raise refuse("invalid_form", "We could not parse the multipart form of your request.") from None
    if file is None:
        raise missing("file")
    samples, rate_hz = _recording(*file)
    return Upload(fields, file[0], samples, rate_hz)


def _add(fields: dict[str, Any], name: str, content: bytes) -> None:
    if len(content) > _MAX_FIELD_BYTES:
        raise refuse("string_above_max_length", f"'{name}' is too long.", name)
    text = content.decode()
    if name.endswith("[]"):
        if name[:-2] not in _LISTS:
            raise unknown(name)
        fields.setdefault(name[:-2], []).append(text)
        return
    if name in _LISTS:
        raise refuse("invalid_type", f"Invalid type for '{name}': use '{name}[]'.", name)
    if name in fields:
        raise refuse("duplicate_parameter", f"'{name}' is given twice.", name)
    fields[name] = _value(name, text)


def _value(name: str, text: str) -> Any:
    """Forms carry text only: numbers and flags are read where the field is one."""
    if name in _NUMBERS:
        try:
            return float(text)
        except ValueError:
            return text
    return _FLAGS.get(text, text) if name == "stream" else text


def _recording(filename: str, content: bytes) -> tuple[NDArray[np.int16], int]:
    extension = filename.rpartition(".")[2].lower() if "." in filename else ""
    if extension not in _EXTENSIONS:
        allowed = ", ".join(_EXTENSIONS)
        raise refuse("invalid_value", f"Unrecognized file format of {filename!r}. Supported formats: {allowed}", "file")
    if extension != "wav":
        raise refuse("unsupported_value", "This test server reads WAV files only.", "file")
    if len(content) > MAX_FILE_BYTES:
        raise refuse("file_too_large", "Maximum content size limit exceeded.", "file", status=413)
    try:
        samples, rate_hz = _wav(content)
    except (wave.Error, EOFError, ValueError, struct.error) as error:
        message = f"Audio file might be corrupted or unsupported ({error})"
        raise refuse("invalid_value", message, "file") from None
    if len(samples) < SHORTEST_S * rate_hz:
        message = f"Audio file is too short. Minimum audio length is {SHORTEST_S} seconds."
        raise refuse("audio_too_short", message, "file")
    return samples, rate_hz


def _wav(content: bytes) -> tuple[NDArray[np.int16], int]:
    """Raises ValueError and others when it is not mono PCM16 whose header gives its true length."""
    with wave.open(io.BytesIO(content)) as file:
        shape = (file.getnchannels(), file.getsampwidth(), file.getcomptype())
        rate_hz, frames = file.getframerate(), file.getnframes()
        pcm = file.readframes(frames)
    if shape != (1, 2, "NONE"):
        raise ValueError(f"channels, bytes and compression are {shape}, not mono PCM16")
    if not 8_000 <= rate_hz <= 48_000:
        raise ValueError(f"a rate of {rate_hz} Hz")
    (said,) = struct.unpack_from("<I", content, 4)
    if said != len(content) - 8:
        raise ValueError(f"the header says {said} bytes, there are {len(content) - 8}")
    if len(pcm) != frames * 2 or len(content) < _HEADER_BYTES + len(pcm):
        raise ValueError(f"the header says {frames} samples, there are {len(pcm) / 2:g}")
    return np.frombuffer(pcm, "<i2").astype(np.int16), rate_hz


def check_language(value: str, languages: frozenset[str], param: str) -> None:
    """Raises RefusedError when `value` is not an ISO 639-1 code."""
    if value not in languages:
        raise invalid_value(param, value, "ISO 639-1 codes such as 'en'")
