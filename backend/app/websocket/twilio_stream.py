"""One media stream of a call, without its socket: messages of Twilio in, conversation out, and back.

`take` is given every message as it comes, and everything happens in it at once: at 50 frames a second and call, a task
or a queue for each frame would cost more than the audio work. A message that cannot be used costs that message; too
many of them end the stream.
"""

import asyncio
import logging
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from app.audio.g711 import decode_mulaw
from app.audio.twilio_audio import FRAME, RATE_HZ
from app.conversation import messages as msg
from app.conversation.session import Conversation
from app.core.errors import OverloadedError, ProtocolError
from app.tts.twilio_streaming import TwilioFrames, heard_mark
from app.twilio.calls import Call
from app.twilio.telephone import Telephone
from app.websocket import twilio_media as wire
from app.websocket.direct import Line

MAX_MISTAKES = 100
GAP_LIMIT = 50
"""Frames that are missing are taken for silence, up to this many (1 s); beyond, time has stood still."""
DIGITS_PAUSE_S = 2.0
"""Digits belong together until no key was pressed for so long, or # was."""
MAX_DIGITS = 64
log = logging.getLogger(__name__)


@dataclass(slots=True)
class StreamCounts:
    """What came in."""

    frames: int = 0
    missing: int = 0
    """Frames that never came."""
    repeated: int = 0
    """Frames that came twice, or too late."""
    garbled: int = 0
    """Messages that could not be used."""


class TwilioStream:
    """Implements Outlet. What it says goes out on `line`; `over` is set when nothing more is
    expected from the other side, `refused` says why a stream was not admitted."""

    def __init__(self, telephone: Telephone, line: Line) -> None:
        self.counts = StreamCounts()
        self.call: Call | None = None
        self.conversation: Conversation | None = None
        self.started = asyncio.Event()
        """The conversation can run, or there will be none."""
        self.over = asyncio.Event()
        self.refused = ""
        self._telephone = telephone
        self._line = line
        self._send = line.send
        self._stream_sid = ""
        self._frames = TwilioFrames("")
        self._chunk = 0
        self._digits = ""
        self._digits_end: asyncio.TimerHandle | None = None

    # --- from Twilio

    def take(self, message: bytes | str) -> None:
        """A text message has come."""
        if self.over.is_set():
            return
        try:
            self._handle(wire.parse(message))
        except ProtocolError as error:
            self._mistake(error)

    def take_binary(self) -> None:
        """A binary message has come, which the protocol does not know."""
        if not self.over.is_set():
            self._mistake(ProtocolError("Media Streams sends text messages only."))

    def gone(self) -> None:
        """The connection is gone, or the call has ended: nothing more will come."""
        if self._digits_end:
            self._digits_end.cancel()
        self.started.set()
        self.over.set()

    def _handle(self, message: wire.Incoming) -> None:
        match message:
            case wire.Media():
                self._hear(message)
            case wire.Mark(stream_sid, mark):
                self._check(stream_sid)
                if (heard := heard_mark(mark.name)) and self.conversation:
                    self.conversation.played(*heard)
            case wire.Dtmf(stream_sid, dtmf):
                self._check(stream_sid)
                self._press(dtmf.digit)
            case wire.Start():
                self._start(message)
            case wire.Stop(stream_sid):
                self._check(stream_sid)
                if self.conversation:
                    self.conversation.end("hangup")
                self.gone()
            case wire.Connected(protocol):
                if protocol != "Call":
                    raise ProtocolError(f"The protocol {protocol!r:.50} is not spoken here; it is Call.")

    def _hear(self, message: wire.Media) -> None:
        self._check(message.stream_sid)
        media = message.media
        if media.track != "inbound" or self.conversation is None:
            return
        if not media.chunk.isascii() or not media.chunk.isdigit() or not 0 < len(media.chunk) < 18:
            raise ProtocolError(f"The chunk number {media.chunk!r:.50} is no number.")
        chunk = int(media.chunk)
        if chunk <= self._chunk:
            self.counts.repeated += 1
            return
        missing = chunk - self._chunk - 1
        if missing and self._chunk:
            self.counts.missing += missing
            self.conversation.hear(np.zeros(min(missing, GAP_LIMIT) * FRAME, np.int16))
        self._chunk = chunk
        self.counts.frames += 1
        self.conversation.hear(decode_mulaw(media.payload))

    def _start(self, message: wire.Start) -> None:
        if self._stream_sid:
            raise ProtocolError("The stream has started already.")
        details = message.start
        self._stream_sid = details.stream_sid
        if not self._stream_sid.isalnum() or message.stream_sid != self._stream_sid:
            return self._refuse("its stream SID is not one")
        account = self._telephone.settings.twilio_account_sid
        if account and details.account_sid != account:
            return self._refuse("it belongs to another account")
        token = details.custom_parameters.get("token", "")
        call = self._telephone.calls.get(details.call_sid)
        if not self._telephone.tokens.redeem(token, details.call_sid) or call is None or call.status.final:
            return self._refuse("its token is not one, was used already, is too old, or is for another call")
        form = details.media_format
        if (form.encoding, form.sample_rate, form.channels) != (wire.ENCODING, RATE_HZ, 1):
            return self._refuse(f"it is not {wire.ENCODING}, {RATE_HZ} Hz, one channel")
        call.spent.add(call.webhook_signature)
        self.call = call
        self._frames = TwilioFrames(self._stream_sid)
        try:
            self.conversation = self._telephone.open(call, self)
        except OverloadedError as error:
            log.warning("A call found no room: %s", error.message)
            call.outcome = "full"
            return self.gone()
        return self.started.set()

    def _refuse(self, why: str) -> None:
        self.refused = why
        self.gone()

    def _check(self, stream_sid: str) -> None:
        if not self._stream_sid:
            raise ProtocolError("The stream has not started yet.")
        if stream_sid != self._stream_sid:
            raise ProtocolError("The message is for another stream.")

    def _mistake(self, error: ProtocolError) -> None:
        self.counts.garbled += 1
        if self.counts.garbled == 1:
            log.warning("A media stream sent a message that cannot be used: %s", error.message)
        if self.counts.garbled > MAX_MISTAKES:
            log.warning("A media stream sent more than %d messages that cannot be used, and was ended", MAX_MISTAKES)
            if self.conversation:
                self.conversation.end("lost")
            self.gone()

    # --- keys

    def _press(self, digit: str) -> None:
        """Collect what is typed on the telephone's keys; the first of them silences the assistant."""
        if self.conversation is None or digit not in set("0123456789*#ABCD"):
            return
        if not self._digits:
            self.conversation.interrupt()
        if self._digits_end:
            self._digits_end.cancel()
        if digit != "#":
            self._digits += digit
        if digit == "#" or len(self._digits) >= MAX_DIGITS:
            self._enter_digits()
        else:
            self._digits_end = asyncio.get_running_loop().call_later(DIGITS_PAUSE_S, self._enter_digits)

    def _enter_digits(self) -> None:
        digits, self._digits, self._digits_end = self._digits, "", None
        if digits and self.conversation:
            self.conversation.type(f"I pressed {' '.join(digits)} on my keypad.")

    # --- to Twilio

    def tell(self, message: msg.Message) -> None:
        """What the conversation tells: to the line, if it is about the audio, and to whoever watches the call."""
        match message:
            case msg.AudioReached(reply, at_ms):
                self._send(self._frames.mark(reply, at_ms))
            case msg.AudioEnded(reply, duration_ms):
                self._send([*self._frames.mark(reply, duration_ms), *self._frames.end()])
            case msg.AudioHeld(held=True):
                self._send(self._frames.end())
            case msg.AudioCleared():
                self._send(self._frames.clear())
            case _ if self.call:
                self.call.told(message)

    def play(self, samples: NDArray[np.int16]) -> None:
        """Reply audio: int16 mono 8 kHz [n]."""
        self._send(self._frames.audio(samples))

    def account(self) -> str:
        """What came in, and what the other side did not take, in a line for the log."""
        counts = {**asdict(self.counts), "unsent": self._line.dropped}
        return ", ".join(f"{number} {name}" for name, number in counts.items())
