"""The server's side of a WebSocket below the application: uvicorn's cheapest per message, with an end to its patience.

When the application is done with a client, uvicorn closes the connection as soon as everything written to it has left.
For a client that does not read, that never happens: each would keep a socket and its buffers for good.
"""

import asyncio
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform for which it comes without its C code
    from websockets.utils import apply_mask

from app.websocket.direct import EXTENSION

_FINAL = 0x80
_WHOLE_TEXT = 0x81
"""First byte of a text message in one frame (RFC 6455 section 5.2)."""
_LAST_DATA_OPCODE = 2
LINGER_S = 15.0
"""Time to take what was written, and for the closing handshake (uvicorn gives that one 10 s)."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """For `uvicorn.Config(ws=WebSocketProtocol)`."""

    _abort: asyncio.TimerHandle | None = None
    _text: Callable[[bytes], None] | None = None
    _binary: Callable[[], None] | None = None
    _partial = b""
    """The beginning of a frame that has not come whole yet."""
    _fragments = False
    """Inside a message of several frames."""

    # --- the short way of `direct.py`

    def handle_connect(self, event: Request) -> None:
        """Leave our end of the connection in the scope."""
        super().handle_connect(event)
        if getattr(self, "scope", None) is not None:
            extensions: dict[str, Any] = self.scope["extensions"] or {}
            extensions[EXTENSION] = self

    def hand_over(self, text: Callable[[bytes], None], binary: Callable[[], None]) -> None:
        """From now on give messages to these, and those that wait already; see DirectEnd."""
        self._text, self._binary = text, binary
        waiting: list[Any] = []
        while not self.queue.empty():
            waiting.append(self.queue.get_nowait())
        for message in waiting:
            if message["type"] != "websocket.receive":
                self.queue.put_nowait(message)
            elif (words := message.get("text")) is not None:
                text(words.encode())
            else:
                binary()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Bytes have come. On the short way a message in one frame, which is all that Twilio sends, is unpacked here;
        every other frame takes the ordinary way, one at a time."""
        if self._text is None:
            super().data_received(data)
            return
        if self._partial:
            data = self._partial + data
        at = 0
        while (frame := _next_frame(data, at)) is not None:
            if frame.size > self.config.ws_max_size:  # refused by its head: what follows is not waited for
                self._text, self._partial = None, b""
                super().data_received(data[at:])
                return
            end = frame.payload + frame.size
            if end > len(data):
                break
            if frame.head == _WHOLE_TEXT and frame.mask and not self._fragments and not self.close_sent:
                self._text(apply_mask(data[frame.payload : end], frame.mask))
            else:
                if frame.head & 0x0F <= _LAST_DATA_OPCODE:
                    self._fragments = frame.head < _FINAL
                super().data_received(data[at:end])
            at = end
        self._partial = data[at:]

    def send_receive_event_to_app(self) -> None:
        """A message is complete."""
        if self._text is None or self._binary is None or self.close_sent:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.curr_msg_data_type == "text":
            self._text(data)
        else:
            self._binary()

    def send_texts(self, texts: list[str]) -> None:
        """Write text messages; see DirectEnd. Nothing happens on a connection that is closing."""
        if self.disconnected or self.close_sent or self.transport.is_closing():
            return
        self.transport.write(b"".join([_text_frame(text.encode()) for text in texts]))

    @property
    def buffered_bytes(self) -> int:
        """What has been written and not been taken; see DirectEnd."""
        return self.transport.get_write_buffer_size()

    # --- the end

    async def run_asgi(self) -> None:
        """Run the application for this client, then be rid of the connection within LINGER_S."""
        try:
            await super().run_asgi()
        finally:
            if not self.disconnected:
                self._abort = self.loop.call_later(LINGER_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._abort is not None:
            self._abort.cancel()
        super().connection_lost(exc)


def _text_frame(message: bytes) -> bytes:
    """A text message in one frame, as a server sends it: not masked (RFC 6455 section 5.2)."""
    size = len(message)
    if size < 126:
        return bytes((0x81, size)) + message
    return struct.pack("!BB" + ("HQ"[size > 0xFFFF]), 0x81, 126 + (size > 0xFFFF), size) + message


class _Frame(NamedTuple):
    head: int
    """FIN, reserved bits and opcode."""
    mask: bytes
    """Empty for a frame that is not masked."""
    payload: int
    """Where the payload begins."""
    size: int


def _next_frame(data: bytes, at: int) -> _Frame | None:
    """The head of the frame that begins at `at`; None while it is not there whole."""
    left = len(data) - at
    if left < 2:
        return None
    size, start = data[at + 1] & 0x7F, at + 2
    masked = data[at + 1] & 0x80
    if size > 125:
        width = 2 if size == 126 else 8
        size, start = int.from_bytes(data[start : start + width], "big"), start + width
    payload = start + 4 if masked else start
    if payload > len(data):
        return None
    return _Frame(data[at], data[start:payload], payload, size)
