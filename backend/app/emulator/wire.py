"""The messages of Twilio Media Streams, both ways (twilio.com/docs/voice/media-streams/websocket-messages).

Strict about what a server sends: exactly the documented fields, the stream's own SID, base64 without anything else.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import orjson

from app.emulator.faults import STREAM_INVALID, TwilioFault

MAX_MARK = 1024
"""Characters of a mark's name; not Twilio's number, but a bound."""
_FILE_HEADERS = (b"RIFF", b"ID3", b"OggS", b"fLaC", b".snd")
_FIELDS = {"media": {"event", "streamSid", "media"}, "mark": {"event", "streamSid", "mark"}}


@dataclass(frozen=True, slots=True)
class Media:
    """Audio to be played: mu-law, 8 kHz."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the audio that the server wants to hear of."""

    name: str


@dataclass(frozen=True, slots=True)
class Clear:
    """What has not been played is to be forgotten."""


def parse(text: str, stream_sid: str) -> Media | Mark | Clear:
    """What a server's text message says. Raises TwilioFault (31951) for all that is not exactly as documented."""
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise _invalid("not a JSON object")
    event = message.get("event")
    if event not in {"media", "mark", "clear"}:
        raise _invalid(f"the event {event!r} is not one of media, mark, clear")
    if message.get("streamSid") != stream_sid:
        raise _invalid(f"the streamSid of this {event} is not that of the stream")
    _only(message, _FIELDS.get(event, {"event", "streamSid"}), event)
    if event == "clear":
        return Clear()
    inner = message[event]
    if not isinstance(inner, dict):
        raise _invalid(f"{event} is not an object")
    if event == "mark":
        _only(inner, {"name"}, "mark")
        name = inner["name"]
        if not isinstance(name, str) or not 0 < len(name) <= MAX_MARK:
            raise _invalid("the name of a mark is not a text")
        return Mark(name)
    _only(inner, {"payload"}, "media")
    return Media(_audio(inner["payload"]))


def _only(fields: dict[str, Any], wanted: set[str], of: str) -> None:
    if fields.keys() != wanted:
        missing, more = sorted(wanted - fields.keys()), sorted(fields.keys() - wanted)
        raise _invalid(f"{of}: missing {missing}, unexpected {more}")


def _audio(payload: Any) -> bytes:
    if not isinstance(payload, str) or not payload:
        raise _invalid("the payload of a media message is not a text, or empty")
    try:
        audio = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(f"the payload of a media message is not base64: {error}") from None
    if audio.startswith(_FILE_HEADERS):
        raise _invalid("the payload of a media message is a sound file; only mu-law without a header can be played")
    return audio


def _invalid(why: str) -> TwilioFault:
    return TwilioFault(STREAM_INVALID, f"Stream - Protocol - Invalid Message: {why}")


CONNECTED = '{"event":"connected","protocol":"Call","version":"1.0.0"}'


def start(sequence: int, stream_sid: str, account_sid: str, call_sid: str, parameters: dict[str, str]) -> str:
    """The first message about the stream."""
    return _dump(
        {
            "event": "start",
            "sequenceNumber": str(sequence),
            "start": {
                "accountSid": account_sid,
                "streamSid": stream_sid,
                "callSid": call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": parameters,
            },
            "streamSid": stream_sid,
        }
    )


def media(sequence: int, stream_sid: str, chunk: int, timestamp_ms: int, payload: str) -> str:
    """20 ms of the caller; put together as text, since there are 50 a second and call."""
    return (
        f'{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"inbound","chunk":"{chunk}",'
        f'"timestamp":"{timestamp_ms}","payload":"{payload}"}},"streamSid":"{stream_sid}"}}'
    )


def dtmf(sequence: int, stream_sid: str, digit: str) -> str:
    """A key that the caller pressed."""
    return _dump(
        {
            "event": "dtmf",
            "streamSid": stream_sid,
            "sequenceNumber": str(sequence),
            "dtmf": {"track": "inbound_track", "digit": digit},
        }
    )


def mark(sequence: int, stream_sid: str, name: str) -> str:
    """A mark that was reached (or cleared)."""
    return _dump({"event": "mark", "sequenceNumber": str(sequence), "streamSid": stream_sid, "mark": {"name": name}})


def stop(sequence: int, stream_sid: str, account_sid: str, call_sid: str) -> str:
    """The last message."""
    return _dump(
        {
            "event": "stop",
            "sequenceNumber": str(sequence),
            "streamSid": stream_sid,
            "stop": {"accountSid": account_sid, "callSid": call_sid},
        }
    )


def _dump(message: dict[str, Any]) -> str:
    return orjson.dumps(message).decode()
