"""A listening socket on loopback whose connections can be counted, cut and frozen, as if a process died or stopped."""

import asyncio
import socket
import ssl
from collections.abc import Callable

from openai_service.delivery import abort

BACKLOG = 128


class Listener:
    """Accepts connections on a port that stays the same over `close` and `open`. `accepted` counts them."""

    def __init__(self, protocol: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None) -> None:
        self._protocol = protocol
        self._tls = tls
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._greeting: set[asyncio.Task[None]] = set()
        self._transports: set[asyncio.BaseTransport] = set()
        self.port = 0
        self.accepted = 0

    @property
    def open_connections(self) -> int:
        """How many connections there are now."""
        self._forget_closed()
        return len(self._transports)

    def open(self) -> None:
        """Listen; the first time on a free port, later on the same."""
        assert self._socket is None, "it listens already"
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", self.port))
        held.listen(BACKLOG)
        held.setblocking(False)
        self.port = held.getsockname()[1]
        self._socket = held
        self.resume()

    def resume(self) -> None:
        """Accept connections (again)."""
        if self._socket is not None and self._accepting is None:
            self._accepting = asyncio.create_task(self._accept(self._socket))

    async def pause(self) -> None:
        """Accept no more connections; the kernel still completes some, as it does for a process that is stopped."""
        if self._accepting:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None

    async def close(self) -> None:
        """Stop listening and cut all connections."""
        await self.pause()
        if self._socket:
            self._socket.close()
            self._socket = None
        for task in self._greeting:
            task.cancel()
        await asyncio.gather(*self._greeting, return_exceptions=True)
        for transport in self._transports:
            abort(transport)
        self._transports.clear()

    def _forget_closed(self) -> None:
        self._transports = {one for one in self._transports if not one.is_closing()}

    async def _accept(self, held: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(held)
            self.accepted += 1
            self._forget_closed()
            task = asyncio.create_task(self._greet(connection))
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)

    async def _greet(self, connection: socket.socket) -> None:
        """Hand a connection over to HTTP, after the handshake of TLS, which a client may break off."""
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(self._protocol, connection, ssl=self._tls)
        except (OSError, asyncio.CancelledError):
            connection.close()
            return
        self._transports.add(transport)
