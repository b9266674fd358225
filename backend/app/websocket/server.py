"""The server's side of a WebSocket below the application: uvicorn's cheapest per message, with an end to its patience.

When the application is done with a client, uvicorn closes the connection as soon as everything written to it has left.
For a client that does not read, that never happens: each would keep a socket and its buffers for good.
"""

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LINGER_S = 15.0
"""Time to take what was written, and for the closing handshake (uvicorn gives that one 10 s)."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """For `uvicorn.Config(ws=WebSocketProtocol)`."""

    _abort: asyncio.TimerHandle | None = None

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
