"""What may be sent to a transcription session of the Realtime API, by the SDK's types and OpenAI's guide."""

import base64
import binascii
import copy
from typing import Any

from openai.types.realtime import (
    InputAudioBufferAppendEventParam,
    InputAudioBufferClearEventParam,
    InputAudioBufferCommitEventParam,
    SessionUpdateEventParam,
)

from openai_service.chat_rules import check_range
from openai_service.names import LANGUAGES, LIVE_MODELS, SESSION_MODELS
from openai_service.refusals import RefusedError, invalid_value, missing, refuse, unsupported
from openai_service.schema import check
from openai_service.uploads import check_language

MAX_APPEND_BYTES = 15 << 20
SHORTEST_COMMIT_MS = 100
EVENTS: dict[str, Any] = {
    "session.update": SessionUpdateEventParam,
    "input_audio_buffer.append": InputAudioBufferAppendEventParam,
    "input_audio_buffer.clear": InputAudioBufferClearEventParam,
    "input_audio_buffer.commit": InputAudioBufferCommitEventParam,
}
DEFAULTS: dict[str, Any] = {
    "type": "transcription",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24_000},
            "noise_reduction": None,
            "transcription": None,
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
            },
        }
    },
    "include": None,
}
"""A session that has not been updated yet."""
BYTES_PER_MS = {"audio/pcm": 48, "audio/pcmu": 8, "audio/pcma": 8}
_HINTS = ("keywords", "languages")
_WITH_HINTS = ("gpt-transcribe", "gpt-live-transcribe")
_MAY_BE_NULL = ("noise_reduction", "transcription")


def check_event(event: dict[str, Any]) -> None:
    """Raises RefusedError when a client event is not one that a transcription session knows."""
    kind = event.get("type")
    if kind is None:
        raise missing("type")
    if not isinstance(kind, str) or kind not in EVENTS:
        raise invalid_value("type", kind, ", ".join(map(repr, EVENTS)))
    if kind != "session.update":
        check(event, EVENTS[kind])
        return
    event = copy.deepcopy(event)
    session = event.get("session")
    if isinstance(session, dict):
        if "type" not in session:
            raise missing("session.type")
        if session["type"] != "transcription":
            raise invalid_value("session.type", session["type"], "'transcription'")
        for name in _MAY_BE_NULL:  # the reference allows null where the SDK's types do not
            given = _input(session)
            if name in given and given[name] is None:
                del given[name]
    check(event, SessionUpdateEventParam)


def updated(configuration: dict[str, Any], session: dict[str, Any], models: list[str]) -> dict[str, Any]:
    """The configuration after an update: what the update does not name stays. Raises RefusedError."""
    merged = copy.deepcopy(configuration)
    merged["audio"]["input"].update(_input(session))
    if "include" in session:
        merged["include"] = session["include"]
    given = merged["audio"]["input"]
    _check_format(given["format"])
    noise = given["noise_reduction"]
    if noise is not None and "type" not in noise:
        raise missing("session.audio.input.noise_reduction.type")
    if given["transcription"] is not None:
        _check_transcription(given["transcription"], models)
        if given["transcription"]["model"] in LIVE_MODELS:
            if _input(session).get("turn_detection") is not None:
                raise unsupported("session.audio.input.turn_detection")
            given["turn_detection"] = None
    for name, least, most in (("threshold", 0, 1), ("prefix_padding_ms", 0, None), ("silence_duration_ms", 0, None)):
        value = (given["turn_detection"] or {}).get(name)
        check_range(f"session.audio.input.turn_detection.{name}", value, least, most)
    return merged


def audio_of(event: dict[str, Any], kind: str) -> bytes:
    """The audio in an append event of a session whose format is `kind`. Raises RefusedError."""
    try:
        audio = base64.b64decode(event["audio"], validate=True)
    except (binascii.Error, ValueError):
        raise refuse("invalid_value", "Invalid 'audio'. Expected base64-encoded audio bytes.", "audio") from None
    if not audio:
        raise refuse("invalid_value", "Invalid 'audio'. Expected at least one sample.", "audio")
    if len(audio) > MAX_APPEND_BYTES:
        raise refuse("string_above_max_length", "Invalid 'audio': more than 15 MiB.", "audio")
    if kind == "audio/pcm" and len(audio) % 2:
        raise refuse("invalid_value", "Invalid 'audio': the last sample of PCM16 is incomplete.", "audio")
    return audio


def too_short(buffered_ms: float) -> RefusedError:
    """A commit of less than SHORTEST_COMMIT_MS."""
    message = (
        "Error committing input audio buffer: buffer too small. "
        f"Expected at least {SHORTEST_COMMIT_MS}ms of audio, but buffer only has {buffered_ms:.2f}ms of audio."
    )
    return refuse("input_audio_buffer_commit_empty", message)


def _input(session: dict[str, Any]) -> dict[str, Any]:
    audio = session.get("audio")
    given = audio.get("input") if isinstance(audio, dict) else None
    return given if isinstance(given, dict) else {}


def _check_format(form: dict[str, Any]) -> None:
    if "type" not in form:
        raise missing("session.audio.input.format.type")
    if form["type"] == "audio/pcm" and "rate" not in form:
        raise missing("session.audio.input.format.rate")


def _check_transcription(asked: dict[str, Any], models: list[str]) -> None:
    where = "session.audio.input.transcription."
    if "model" not in asked:
        raise missing(where + "model")
    model = asked["model"]
    if model not in SESSION_MODELS or model not in models:
        raise refuse("invalid_model", f'Model "{model}" is not supported in transcription mode.', where + "model")
    if "delay" in asked and model != "gpt-realtime-whisper":
        raise unsupported(where + "delay")
    if "prompt" in asked and model in {"gpt-realtime-whisper", "gpt-4o-transcribe-diarize"}:
        raise unsupported(where + "prompt")
    for name in _HINTS:
        if name in asked and model not in _WITH_HINTS:
            raise unsupported(where + name)
    if "language" in asked:
        check_language(asked["language"], LANGUAGES, where + "language")
    for index, language in enumerate(asked.get("languages", ())):
        check_language(language, LANGUAGES, f"{where}languages[{index}]")
