"""The wire protocol of the browser, both ways: JSON to values, messages to JSON. See `docs/asyncapi.yaml`."""

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.conversation import messages as msg
from app.core.errors import ProtocolError
from app.usage.ledger import USD_DIGITS

PROTOCOL = 1
RATE_HZ = 16_000
MAX_AUDIO_BYTES = 960_000
"""30 s of audio in one message."""
MAX_TEXT_BYTES = 65_536
ERROR_CODES = frozenset(
    {
        "bad_json",
        "bad_message",
        "unknown_type",
        "not_started",
        "already_started",
        "odd_audio",
        "message_too_large",
        "audio_overrun",
        "too_many_messages",
        "too_many_errors",
        "server_full",
        "budget_spent",
        "overloaded",
        "provider_failed",
        "language_not_spoken",
        "internal_error",
    }
)
"""The codes a client may see; what else is inside the server comes to it as one of these."""
AUDIO_FORMAT = {"encoding": "pcm_s16le", "rate_hz": RATE_HZ, "channels": 1}


class _Incoming(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Start(_Incoming):
    """Begin the conversation."""

    type: Literal["start"]
    voice: str | None = Field(None, max_length=100)
    language: str | None = Field(None, max_length=20)
    greeting: bool = True


class Text(_Incoming):
    """A typed turn."""

    type: Literal["text"]
    text: str = Field(min_length=1, max_length=4000)


class Interrupt(_Incoming):
    """Stop the reply."""

    type: Literal["interrupt"]


class Playback(_Incoming):
    """How much of a reply was heard."""

    type: Literal["playback"]
    reply: int = Field(ge=0)
    played_ms: float = Field(ge=0, le=86_400_000, allow_inf_nan=False)


class Mute(_Incoming):
    """The microphone was turned off or on."""

    type: Literal["mute"]
    muted: bool


class Bye(_Incoming):
    """The user ends the conversation."""

    type: Literal["bye"]


Incoming = Start | Text | Interrupt | Playback | Mute | Bye
_INCOMING: TypeAdapter[Incoming] = TypeAdapter(Annotated[Incoming, Field(discriminator="type")])
_TYPES = ("start", "text", "interrupt", "playback", "mute", "bye")


def parse(text: str) -> Incoming:
    """The client's message in `text`. Raises ProtocolError with a code of the protocol."""
    if len(text) > MAX_TEXT_BYTES:
        raise ProtocolError(
            f"A JSON message of {len(text)} characters is too long; at most {MAX_TEXT_BYTES} are read.",
            code="message_too_large",
        )
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"This is not JSON: {error}. Text messages are JSON objects.", code="bad_json") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"A JSON {type(value).__name__} is not a message; send an object.", code="bad_json")
    kind = value.get("type")
    if kind not in _TYPES:
        raise ProtocolError(
            f"The message type {str(kind)[:50]!r} is not known; it is one of {', '.join(_TYPES)}.", code="unknown_type"
        )
    try:
        return _INCOMING.validate_python(value)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'message'}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)[:5]
        )
        raise ProtocolError(f"The {kind} message cannot be used: {faults}.", code="bad_message") from None


def encode(message: msg.Message) -> str | None:
    """The JSON of a conversation's message; None for one that is not for browsers."""
    value = _object(message)
    return dump(value) if value else None


def dump(value: dict[str, Any]) -> str:
    """JSON text."""
    return orjson.dumps(value).decode()


def _object(message: msg.Message) -> dict[str, Any] | None:
    match message:
        case msg.SpeechShown(turn, speaking, at_ms):
            kind = "speech.started" if speaking else "speech.stopped"
            return {"type": kind, "turn": turn, "at_ms": round(at_ms, 1)}
        case msg.TranscriptShown(turn, text, final):
            return {"type": "transcript.final" if final else "transcript.partial", "turn": turn, "text": text}
        case msg.TurnReopened(turn):
            return {"type": "turn.reopened", "turn": turn}
        case msg.ReplyText(turn, reply, text):
            return {"type": "reply.text", "turn": turn, "reply": reply, "text": text}
        case msg.ReplyRewritten(turn, reply, text):
            return {"type": "reply.rewritten", "turn": turn, "reply": reply, "text": text}
        case msg.ReplyDone(turn, reply, text, heard, interrupted):
            parts = {"text": text, "heard": heard, "interrupted": interrupted}
            return {"type": "reply.done", "turn": turn, "reply": reply, **parts}
        case msg.AudioStarted(turn, reply):
            return {"type": "audio.start", "turn": turn, "reply": reply}
        case msg.AudioReached():  # browsers report what was heard without being asked
            return None
        case msg.AudioEnded(reply, duration_ms):
            return {"type": "audio.end", "reply": reply, "duration_ms": round(duration_ms, 1)}
        case msg.AudioHeld(reply, held):
            return {"type": "audio.hold" if held else "audio.resume", "reply": reply}
        case msg.AudioCleared(reply):
            return {"type": "clear", "reply": reply}
        case msg.LatencyShown():
            return _latency(message)
        case msg.UsageShown():
            return _usage(message)
        case msg.Trouble(code, text, fatal):
            code = code if code in ERROR_CODES else "provider_failed"
            return {"type": "error", "code": code, "message": text, "fatal": fatal}


def _latency(message: msg.LatencyShown) -> dict[str, Any]:
    stages = ("endpointing_ms", "stt_ms", "llm_ms", "tts_ms", "engine_ms")
    return {
        "type": "latency",
        "turn": message.turn,
        "reply": message.reply,
        "voice_to_voice_ms": round(message.voice_to_voice_ms, 1),
        "speculative": message.speculative,
        "stages": {stage: round(getattr(message, stage), 1) for stage in stages},
    }


def _usage(message: msg.UsageShown) -> dict[str, Any]:
    sums = ("turn_usd", "conversation_usd", "wasted_usd")
    return {
        "type": "usage",
        "turn": message.turn,
        **{name: round(getattr(message, name), USD_DIGITS) for name in sums},
        "priced": message.priced,
        "services": message.services.shown(),
    }
