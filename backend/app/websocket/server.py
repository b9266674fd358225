"""The server's side of a WebSocket below the application: uvicorn's cheapest per message, with an end to its patience.

When the application is done with a client, uvicorn closes the connection as soon as everything written to it has left.
For a client that does not read, that never happens: each would keep a socket and its buffers for good.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from app.websocket.direct import EXTENSION

LINGER_S = 15.0
"""Time to take what was written, and for the closing handshake (uvicorn gives that one 10 s)."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """For `uvicorn.Config(ws=WebSocketProtocol)`."""

    _abort: asyncio.TimerHandle | None = None
    _text: Callable[[bytes], None] | None = None
    _binary: Callable[[], None] | None = None

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
        for text in texts:
            self.conn.send_text(text.encode())
        self.transport.write(b"".join(self.conn.data_to_send()))

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
