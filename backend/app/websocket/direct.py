"""The short way between a socket and a conversation, for transports that carry 50 messages a second each way.

Through the application server's interface every message costs a queue, a wake-up of a task, and two system calls that
stop and start reading. With our own server (`server.py`) a message is handed over as it is parsed, and what is sent
goes into the socket's buffer at once. Any other server is talked to in the ordinary way.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from fastapi import WebSocket

from app.websocket.outbox import Outbox

EXTENSION = "ahoy.direct"
"""Where our server leaves its end of the connection in the scope's extensions."""
MAX_BUFFERED_BYTES = 131_072
"""Beyond this the other side has not read for ten seconds: what comes then is dropped, and counted."""


class DirectEnd(Protocol):
    """The server's end of one connection."""

    def hand_over(self, text: Callable[[bytes], None], binary: Callable[[], None]) -> None:
        """From now on give each text message (UTF-8) and word of each binary one to these."""
        ...

    def send_texts(self, texts: list[str]) -> None:
        """Write text messages."""
        ...

    @property
    def buffered_bytes(self) -> int:
        """What has been written and not been taken."""
        ...


class Line(Protocol):
    """One accepted WebSocket that carries text messages."""

    dropped: int
    """Messages that were not sent because the other side does not read."""

    def send(self, texts: list[str]) -> None:
        """Send in order; never blocks."""
        ...

    async def run(self, text: Callable[[bytes | str], None], binary: Callable[[], None]) -> None:
        """Give every message to these until the connection is gone."""
        ...

    async def close(self, code: int) -> None:
        """Close the connection."""
        ...


def line_of(socket: WebSocket) -> Line:
    """The shortest line there is to this client. The socket has been accepted and is used through the line only."""
    end: DirectEnd | None = socket.scope.get("extensions", {}).get(EXTENSION)
    return _DirectLine(socket, end) if end else _OrdinaryLine(socket)


class _DirectLine:
    def __init__(self, socket: WebSocket, end: DirectEnd) -> None:
        self.dropped = 0
        self._socket = socket
        self._end = end

    def send(self, texts: list[str]) -> None:
        if self._end.buffered_bytes > MAX_BUFFERED_BYTES:
            self.dropped += len(texts)
        elif texts:
            self._end.send_texts(texts)

    async def run(self, text: Callable[[bytes | str], None], binary: Callable[[], None]) -> None:
        self._end.hand_over(text, binary)
        while (await self._socket.receive())["type"] != "websocket.disconnect":
            pass

    async def close(self, code: int) -> None:
        await self._socket.close(code)


class _OrdinaryLine:
    def __init__(self, socket: WebSocket) -> None:
        self.dropped = 0
        self._socket = socket
        self._outbox = Outbox(socket)

    def send(self, texts: list[str]) -> None:
        for text in texts:
            self._outbox.put(text)

    async def run(self, text: Callable[[bytes | str], None], binary: Callable[[], None]) -> None:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._outbox.run())
            while (message := await self._socket.receive())["type"] != "websocket.disconnect":
                if message.get("text") is not None:
                    text(message["text"])
                else:
                    binary()
            sending.cancel()

    async def close(self, code: int) -> None:
        await self._socket.close(code)
