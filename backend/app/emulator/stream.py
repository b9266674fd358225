"""One media stream: Twilio's end of the WebSocket (twilio.com/docs/voice/twiml/stream)."""

import asyncio
import base64
import secrets
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import aiohttp

from app.emulator import wire
from app.emulator.faults import (
    STREAM_CLOSED,
    STREAM_DISCARDED,
    STREAM_HANDSHAKE,
    STREAM_MALFORMED,
    STREAM_NOT_TLS,
    STREAM_PROTOCOL,
    STREAM_UNREACHABLE,
    Fault,
    TwilioFault,
)
from app.emulator.line import Line
from app.emulator.mouth import FRAME_BYTES, FRAME_MS
from app.emulator.playback import Gap, Playback
from app.emulator.twiml import Stream

if TYPE_CHECKING:
    from app.emulator.webhooks import Webhooks

MAX_BUFFER_BYTES = 10 * 60 * 8000
"""Ten minutes: more is discarded (31931)."""
MAX_UNSENT = 1500
"""Messages (30 s) that a server may leave unread before the stream is given up."""
CLOSE_S = 2.0
CONNECT_S = 5.0
Mishap = Literal["drop", "duplicate", "swap", "garble"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A media message of the server: when it came (ms of the line), how much it held, what was waiting before it."""

    at_ms: float
    audio_bytes: int
    waiting_bytes: int


@dataclass(frozen=True, slots=True)
class Marked:
    """A mark: when the server sent it, when it was given back, and whether a clear did that."""

    name: str
    sent_ms: float
    returned_ms: float
    cleared: bool


@dataclass(frozen=True, slots=True)
class Cleared:
    """A clear: when it came, how many bytes had not been heard."""

    at_ms: float
    dropped_bytes: int


class MediaStream:
    """A bidirectional stream of a call, and all that was seen of it."""

    def __init__(self, line: Line, noun: Stream, account_sid: str, webhooks: "Webhooks") -> None:
        self.sid = "MZ" + secrets.token_hex(16)
        self.url = noun.url
        self.parameters = noun.parameters
        self.live = False
        self.opened_ms: float | None = None
        self.ended_ms: float | None = None
        self.close_code: int | None = None
        self.arrivals: list[Arrival] = []
        self.marks: list[Marked] = []
        self.clears: list[Cleared] = []
        self.lost_bytes = 0
        """What was waiting when the stream ended, and was never heard."""
        self.mishaps: deque[Mishap] = deque()
        """What is to go wrong with the next frames to the server, one each."""
        self._line = line
        self._noun = noun
        self._account_sid = account_sid
        self._webhooks = webhooks
        self._playback = Playback()
        self._pending: list[tuple[str, float]] = []
        self._outbox: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self._sequence = 0
        self._chunk = 0
        self._held: str | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._fault: Fault | None = None

    @property
    def gaps(self) -> list[Gap]:
        """The times between two pieces of the server's audio in which it had sent nothing to play."""
        return self._playback.gaps

    def underruns(self, up_to_ms: float = 1000) -> list[Gap]:
        """Gaps of at most `up_to_ms` that no mark and no clear announces."""
        return [gap for gap in self.gaps if not gap.after_mark and not gap.cleared and gap.ms <= up_to_ms]

    @property
    def waiting_ms(self) -> float:
        """How much audio waits to be heard."""
        return self._playback.waiting / 8

    @property
    def pending_marks(self) -> list[str]:
        """Marks that have not come back."""
        return [name for name, _ in self._pending]

    # --- the call's side

    async def run(self) -> None:
        """Open the stream and hold it until the server closes it, breaks a rule, or this is cancelled (the call ends
        or moves on: then the server is sent `stop`)."""
        try:
            self._socket = await self._open()
        except TwilioFault as error:
            self._break(error.fault)
            await self._report()
            return
        self.live = True
        self.opened_ms = self._line.now_ms
        self._line.streams.append(self)
        self._outbox.put_nowait(wire.CONNECTED)
        self._outbox.put_nowait(
            wire.start(self._next(), self.sid, self._account_sid, self._line.sid, self._noun.parameters)
        )
        writer = asyncio.create_task(self._write(self._socket))
        self._line.connect(self)
        self._line.event("stream", f"open {self.url}")
        self._notify("stream-started")
        try:
            await self._read(self._socket)
        finally:
            await self._close(writer)

    def feed(self, frame: bytes) -> None:
        """Send 20 ms of the caller to the server."""
        if not self.live:
            return
        self._chunk += 1
        payload = base64.b64encode(frame).decode()
        mishap = self.mishaps.popleft() if self.mishaps else None
        if mishap == "garble":
            payload = payload[:7] + "*" + payload[8:-5]
        message = wire.media(self._next(), self.sid, self._chunk, (self._chunk - 1) * FRAME_MS, payload)
        if mishap == "drop":
            return
        if mishap == "swap":
            self._held = message
            return
        self._send(message)
        if mishap == "duplicate":
            self._send(message)
        if self._held is not None:
            held, self._held = self._held, None
            self._send(held)

    def play(self, at_ms: float) -> bytes:
        """The next 20 ms of the server's audio."""
        audio, reached = self._playback.take(FRAME_BYTES, at_ms)
        for name in reached:
            self._return(name, cleared=False)
        return audio

    def dtmf(self, key: str) -> None:
        """Tell the server of a key."""
        self._send(wire.dtmf(self._next(), self.sid, key))

    def inject(self, message: str | bytes) -> None:
        """Send the server a message as it stands, whatever it is."""
        self._send(message)

    def next_sequence(self) -> int:
        """Take the next sequence number, for a message that is made by hand."""
        return self._next()

    # --- the socket

    async def _open(self) -> aiohttp.ClientWebSocketResponse:
        url = urlsplit(self._noun.url)
        if url.query or "?" in self._noun.url:
            raise TwilioFault(
                STREAM_HANDSHAKE, "Stream - WebSocket - Handshake Error: the URL has a query string; use <Parameter>"
            )
        if url.scheme != "wss" and not self._webhooks.local_stream(self._noun.url):
            raise TwilioFault(STREAM_NOT_TLS, f"Stream - WebSocket - SSL: '{url.scheme}' is not wss")
        try:
            async with asyncio.timeout(CONNECT_S):
                return await self._webhooks.open_socket(self._noun.url)
        except aiohttp.WSServerHandshakeError as error:
            raise TwilioFault(
                STREAM_HANDSHAKE, f"Stream - WebSocket - Handshake Error: answered with {error.status}"
            ) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise TwilioFault(
                STREAM_UNREACHABLE, f"Stream - WebSocket - Connection Timeout: {str(error) or type(error).__name__}"
            ) from None

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while (message := await self._outbox.get()) is not None:
            try:
                await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
            except (aiohttp.ClientError, ConnectionError):
                return  # the reader sees it too, and says what happened

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            try:
                if message.type is aiohttp.WSMsgType.BINARY:
                    raise TwilioFault(STREAM_MALFORMED, "Stream - Protocol - Malformed Message: it is binary")
                if message.type is aiohttp.WSMsgType.ERROR:
                    raise TwilioFault(STREAM_PROTOCOL, f"Stream - WebSocket - Protocol Error: {message.data!r:.80}")
                self._take(wire.parse(message.data, self.sid))
            except TwilioFault as error:
                self._break(error.fault)
                return
        self.close_code = socket.close_code
        if self.close_code not in {1000, 1001, 1005}:
            self._break(
                Fault(STREAM_CLOSED, f"Stream - WebSocket - Close Error: the server closed with {self.close_code}")
            )

    def _take(self, message: wire.Media | wire.Mark | wire.Clear) -> None:
        now_ms = self._line.now_ms
        match message:
            case wire.Media(audio):
                self.arrivals.append(Arrival(now_ms, len(audio), self._playback.waiting))
                if self._playback.waiting + len(audio) > MAX_BUFFER_BYTES:
                    self._discarded()
                else:
                    self._playback.put(audio)
            case wire.Mark(name):
                self._pending.append((name, now_ms))
                self._line.event("mark", name)
                if self._playback.mark(name):
                    self._return(name, cleared=False)
            case wire.Clear():
                dropped, marks = self._playback.clear()
                self.clears.append(Cleared(now_ms, dropped))
                self._line.event("clear", f"{dropped / 8:.0f} ms not heard")
                for name in marks:
                    self._return(name, cleared=True)

    def _discarded(self) -> None:
        fault = Fault(STREAM_DISCARDED, "Stream - Media - Media Discarded: ten minutes of audio are waiting")
        if fault not in self._line.errors:
            self._line.fault(fault)

    def _return(self, name: str, *, cleared: bool) -> None:
        sent_ms = next(sent for pending, sent in self._pending if pending == name)
        self._pending.remove((name, sent_ms))
        self.marks.append(Marked(name, sent_ms, self._line.now_ms, cleared))
        self._line.event("mark", f"{name} back")
        self._send(wire.mark(self._next(), self.sid, name))

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _send(self, message: str | bytes) -> None:
        if not self.live:
            return
        if self._outbox.qsize() >= MAX_UNSENT:
            self._break(Fault(STREAM_PROTOCOL, "Stream - WebSocket - Protocol Error: the server does not read"))
            return
        self._outbox.put_nowait(message)

    # --- the end

    def _break(self, fault: Fault) -> None:
        if self._fault is not None:
            return
        self._fault = fault
        self._line.fault(fault)

    async def _close(self, writer: asyncio.Task[None]) -> None:
        socket = self._socket
        if socket is not None and not socket.closed:
            self._send(wire.stop(self._next(), self.sid, self._account_sid, self._line.sid))
        self.live = False
        self._line.connect(None)
        self.ended_ms = self._line.now_ms
        self.lost_bytes, _ = self._playback.clear()
        self._outbox.put_nowait(None)
        await asyncio.wait([writer], timeout=CLOSE_S)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        if socket is not None:
            await socket.close()
        self._line.event("stream", "ended")
        await self._report()

    async def _report(self) -> None:
        if self._fault is not None:
            self._notify("stream-error", f"{self._fault.code}: {self._fault.message}")
        if self.opened_ms is not None:
            self._notify("stream-stopped")

    def _notify(self, event: str, error: str = "") -> None:
        if not self._noun.status_callback:
            return
        more = {"StreamSid": self.sid, "StreamEvent": event, "Timestamp": datetime.now(UTC).isoformat()}
        if self._noun.name:
            more["StreamName"] = self._noun.name
        if error:
            more["StreamError"] = error
        about = self._webhooks.brief(self._line) | more
        self._webhooks.notify(self._line, self._noun.status_callback, self._noun.status_callback_method, about)
