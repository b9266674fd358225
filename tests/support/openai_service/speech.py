"""POST /v1/audio/speech: a tone as long as the text, in pieces."""

import base64
import json
from typing import Any

from aiohttp import web
from openai.types.audio.speech_create_params import SpeechCreateParams

from openai_service.chat_rules import check_range
from openai_service.endpoint import Endpoint
from openai_service.exchange import Answer, Exchange, House, Piece, event, read_json
from openai_service.names import SPEECH_MODELS
from openai_service.refusals import (
    RefusedError,
    invalid_value,
    model_not_found,
    refuse,
    unknown,
    unsupported,
    unsupported_value,
)
from openai_service.schema import check
from openai_service.tones import RATE_HZ, encode, tone

LONGEST_INPUT = 4096
OLD_VOICES = ("alloy", "ash", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer")
"""Those that tts-1 and tts-1-hd have, by OpenAI's guide."""
VOICES = (*OLD_VOICES, "ballad", "verse", "marin", "cedar")
OLD_FIELDS = frozenset({"input", "model", "voice", "response_format", "speed"})
"""What servers that are merely compatible know."""
_TYPES = {"pcm": "audio/pcm", "wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "opus": "audio/opus"}


class Speech(Endpoint):
    """Speaks with a tone of 60 ms for each character (see `tones.py`). Every request is answered like this."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.first_s = 0.0
        """Delay before the first piece."""
        self.pace_s = 0.0
        """Delay before each of the others."""
        self.piece_bytes = RATE_HZ * 2 // 10
        """Size of a piece: 100 ms of PCM."""
        self.odd_pieces = False
        """Send pieces that are one byte shorter, so that samples are torn apart."""

    async def answer(self, request: web.Request, exchange: Exchange) -> Answer:
        """Checks the request and speaks."""
        exchange.body = body = await read_json(request)
        self._check(body)
        kind = body.get("response_format", "mp3")
        whole = encode(tone(len(body["input"]), body.get("speed", 1.0)), kind)
        size = self.piece_bytes - (1 if self.odd_pieces else 0)
        parts = [whole[at : at + size] for at in range(0, len(whole), size)]
        content_type = _TYPES[kind]
        if body.get("stream_format") == "sse":
            parts, content_type = _as_events(parts, len(body["input"])), "text/event-stream; charset=utf-8"
        pieces = [Piece(part, self.pace_s if index else self.first_s) for index, part in enumerate(parts)]
        return Answer(content_type, pieces)

    def _check(self, body: dict[str, Any]) -> None:
        if self.house.compatible:
            for name in body.keys() - OLD_FIELDS:
                raise unknown(name)
        check(body, SpeechCreateParams)
        if not body["input"]:
            raise refuse("string_below_min_length", "Invalid 'input': empty string.", "input")
        if len(body["input"]) > LONGEST_INPUT:
            message = f"Invalid 'input': string too long. Expected a maximum of {LONGEST_INPUT} characters."
            raise refuse("string_above_max_length", message, "input")
        check_range("speed", body.get("speed"), 0.25, 4.0)
        if body.get("response_format") == "aac":
            raise unsupported_value("response_format", "aac", "this test server cannot encode it")
        if not self.house.compatible:
            _check_model(body, self.house.models)


def _check_model(body: dict[str, Any], models: list[str]) -> None:
    model, voice = body["model"], body["voice"]
    if model not in SPEECH_MODELS or model not in models:
        raise RefusedError(model_not_found(model))
    old = model.startswith("tts-1")
    voices = OLD_VOICES if old else VOICES
    if isinstance(voice, str) and voice not in voices:
        raise invalid_value("voice", voice, ", ".join(map(repr, voices)))
    if old and "instructions" in body:
        raise unsupported("instructions")
    if old and body.get("stream_format") == "sse":
        raise unsupported_value("stream_format", "sse", "this model streams audio only")


def _as_events(parts: list[bytes], characters: int) -> list[bytes]:
    """The audio as server-sent events, and at the end what it cost."""
    deltas = [{"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()} for part in parts]
    usage = {"input_tokens": characters, "output_tokens": len(parts), "total_tokens": characters + len(parts)}
    return [event(json.dumps(one)) for one in (*deltas, {"type": "speech.audio.done", "usage": usage})]
