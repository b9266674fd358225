"""The messages of Twilio Media Streams that come in: JSON to values. `tts/twilio_streaming.py` makes what goes out.

Source: twilio.com/docs/voice/media-streams/websocket-messages. Numbers come as strings; fields that are not named here
are left alone, for Twilio adds some now and then.
"""

import msgspec

from app.audio.twilio_audio import RATE_HZ
from app.core.errors import ProtocolError

MAX_MESSAGE_BYTES = 65_536
MAX_PAYLOAD_BYTES = RATE_HZ
"""A second of audio; Twilio sends 20 ms."""
ENCODING = "audio/x-mulaw"


class _Message(msgspec.Struct, frozen=True, tag_field="event"):
    pass


class Connected(_Message, frozen=True, tag="connected"):
    """The first message: which protocol this is."""

    protocol: str


class MediaFormat(msgspec.Struct, frozen=True, rename="camel"):
    """How the audio is coded."""

    encoding: str
    sample_rate: int
    channels: int


class StartDetails(msgspec.Struct, frozen=True, rename="camel"):
    """Whose stream it is."""

    stream_sid: str
    account_sid: str
    call_sid: str
    media_format: MediaFormat
    custom_parameters: dict[str, str] = {}


class Start(_Message, frozen=True, tag="start", rename="camel"):
    """The second message, once."""

    stream_sid: str
    start: StartDetails


class MediaDetails(msgspec.Struct, frozen=True):
    """20 ms of audio; `chunk` counts from 1."""

    chunk: str
    payload: bytes
    """mu-law bytes (base64 on the wire)."""
    track: str = "inbound"


class Media(_Message, frozen=True, tag="media", rename="camel"):
    """Audio of the caller."""

    stream_sid: str
    media: MediaDetails


class Digit(msgspec.Struct, frozen=True):
    """A key: 0 to 9, *, #, A to D."""

    digit: str


class Dtmf(_Message, frozen=True, tag="dtmf", rename="camel"):
    """The caller pressed a key."""

    stream_sid: str
    dtmf: Digit


class MarkName(msgspec.Struct, frozen=True):
    """The name that the mark was sent with."""

    name: str


class Mark(_Message, frozen=True, tag="mark", rename="camel"):
    """Everything that was sent before this mark has been played, or was cleared."""

    stream_sid: str
    mark: MarkName


class Stop(_Message, frozen=True, tag="stop", rename="camel"):
    """The stream is over: the caller hung up, or the call was moved elsewhere."""

    stream_sid: str


Incoming = Connected | Start | Media | Dtmf | Mark | Stop
_DECODER = msgspec.json.Decoder(Incoming)


def parse(message: bytes | str) -> Incoming:
    """The message. Raises ProtocolError for one that cannot be used; what was said in it is not in the error."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"A message of {len(message)} bytes is too long.", code="message_too_large")
    try:
        value: Incoming = _DECODER.decode(message)
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: what is no UTF-8
        raise ProtocolError(f"This is no message of Media Streams: {error}") from None
    if isinstance(value, Media) and len(value.media.payload) > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"A payload of {len(value.media.payload)} bytes is too long.", code="message_too_large")
    return value
