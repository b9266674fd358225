"""A call as a stream of server-sent events, for whoever watches it.

Each event is the whole call as it stands, so a client that reads slowly misses steps and never the state. Format: HTML
Living Standard, section 9.2 (server-sent events).
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from app.core.errors import CallError
from app.twilio.calls import Call

MAX_WATCHERS = 100
"""Streams at once in this process."""
KEEP_ALIVE_S = 15.0
"""Proxies close connections on which nothing happens; most wait a minute."""
SEND_TIMEOUT_S = 30.0
"""A client that takes nothing for so long is let go."""
_LOOK_S = 1.0
"""How soon a stream ends when the server is to stop."""
_RETRY_S = 5.0


class Watchers:
    """Counts the streams that are open."""

    def __init__(self, limit: int = MAX_WATCHERS) -> None:
        self.limit = limit
        self.now = 0

    def check(self) -> None:
        """Raises CallError (503) when there are too many."""
        if self.now >= self.limit:
            raise CallError(
                f"{self.limit} calls are being watched already; ask for the call itself now and then",
                code="too_many_watchers",
                http_status=503,
                retry_after_s=_RETRY_S,
            )


WATCHERS = Watchers()


class CallEvents(Response):
    """The stream of one call: it ends when the call has, when the client goes, and when `closing` says so. Raises
    CallError (503) when too many are open."""

    media_type = "text/event-stream"

    def __init__(self, call: Call, closing: Callable[[], bool], watchers: Watchers = WATCHERS) -> None:
        watchers.check()
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._call = call
        self._closing = closing
        self._watchers = watchers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until one of the ends."""
        self._watchers.now += 1
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._watchers.now -= 1
            for task in (sending, leaving):
                task.cancel()
            results = await asyncio.gather(sending, leaving, return_exceptions=True)
        for failure in results:
            if isinstance(failure, Exception) and not isinstance(failure, TimeoutError | OSError):
                raise failure

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in self._pieces():
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self) -> AsyncIterator[bytes]:
        call, loop = self._call, asyncio.get_running_loop()
        while not self._closing():
            seen = call.changes
            yield b"data: " + orjson.dumps(call.as_json()) + b"\n\n"
            if call.status.final and call.changes == seen:
                return
            silent_s = loop.time()
            while call.changes == seen and not self._closing():
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await call.wait_for_change()
                except TimeoutError:
                    if loop.time() - silent_s >= KEEP_ALIVE_S:
                        silent_s = loop.time()
                        yield b": still here\n\n"


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
