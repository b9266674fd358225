"""What can go wrong on the way, for one request each: queue them with `service.chat.fault(...)` and the like.

A piece is what the service sends in one go: an event of a stream, some milliseconds of speech, or a whole body that is
not streamed. `after=n` means: when n pieces have been sent. The request itself is checked before its fault comes.
"""

import json
from dataclasses import dataclass, field
from typing import Literal

from openai_service.refusals import Status, server_error


@dataclass(frozen=True, slots=True)
class Page:
    """Some other answer, whatever it is."""

    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: int = 200


@dataclass(frozen=True, slots=True)
class Empty:
    """200 and the right content type, but no body."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing more is sent until the test calls `release()` or the client leaves; `after=None`: not even the head."""

    after: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends: before the head, after `after` pieces, or after `after_bytes` bytes of the body.

    `reset` ends it with RST, as when a process dies over unread bytes, otherwise with FIN.
    """

    after: int | None = None
    after_bytes: int | None = None
    reset: bool = True


@dataclass(frozen=True, slots=True)
class HalfCharacter:
    """The first character that takes several bytes is sent in halves: then the connection ends, or the rest follows in
    the next TCP segment. The reply must contain such a character."""

    then: Literal["cut", "rest"] = "cut"


@dataclass(frozen=True, slots=True)
class Insert:
    """Other bytes are sent after `after` pieces; `ends`: the answer ends with them (in good order, as HTTP goes)."""

    data: bytes
    after: int = 0
    ends: bool = False


@dataclass(frozen=True, slots=True)
class OddLength:
    """The last byte of the body is left out, so that a sample of 16-bit audio is incomplete."""


Fault = Status | Page | Empty | Stall | Cut | HalfCharacter | Insert | OddLength


def login_page() -> Page:
    """200 with HTML: a proxy or a hotel wants a login."""
    return Page(b"<!doctype html><title>Sign in</title><h1>Please sign in to use this network</h1>")


def broken_json(after: int = 1) -> Insert:
    """An event of the stream that is no JSON; nothing follows."""
    return Insert(b'data: {"id":"chatcmpl-1","object":"chat.comp\n\n', after, ends=True)


def error_event(after: int = 1, error: Status | None = None) -> Insert:
    """An error as an event in the middle of a stream; nothing follows."""
    body = json.dumps((error or server_error()).body())
    return Insert(f"data: {body}\n\n".encode(), after, ends=True)


def comment(after: int = 0, text: str = "keep-alive") -> Insert:
    """A comment between the events of a stream, which says nothing (gateways send them to keep connections open)."""
    return Insert(f": {text}\n\n".encode(), after)


Moment = Literal["session.update", "input_audio_buffer.append", "input_audio_buffer.commit"]


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """Instead of doing what the event `on` asks, the realtime session says that something is wrong, and then closes
    with `close` if that is given."""

    code: str | None = "session_expired"
    message: str = "Something went wrong."
    type: str = "server_error"
    on: Moment = "input_audio_buffer.commit"
    close: int | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """The realtime session ends with a close frame when the event `on` arrives."""

    code: int = 1011
    reason: str = "keepalive ping timeout"
    on: Moment = "input_audio_buffer.commit"


@dataclass(frozen=True, slots=True)
class Silence:
    """The event `on` is never answered; the session stays open."""

    on: Moment = "input_audio_buffer.commit"


@dataclass(frozen=True, slots=True)
class Drop:
    """The connection of the realtime session ends without a close frame when the event `on` arrives."""

    on: Moment = "input_audio_buffer.commit"
    reset: bool = True


@dataclass(frozen=True, slots=True)
class FailedTranscription:
    """The item is committed, but its transcription fails."""

    code: str | None = "audio_unintelligible"
    message: str = "The audio could not be transcribed."
    type: str = "transcription_error"
    on: Moment = field(default="input_audio_buffer.commit", init=False)


SessionFault = ErrorEvent | Close | Silence | Drop | FailedTranscription
"""What goes wrong within a realtime session; the handshake knows Status, Page, Stall and Cut."""
