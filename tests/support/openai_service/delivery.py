"""How an answer is sent: piece by piece, with the fault that a test has asked for in the middle of it."""

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from typing import cast

from aiohttp import web

from openai_service.exchange import Exchange, Piece
from openai_service.faults import Cut, Fault, HalfCharacter, Insert, Stall

SEGMENT_GAP_S = 0.02
"""Between the halves of a character, so that they arrive apart."""


class Delivery:
    """Sends the pieces of one answer and plays the fault that comes in the middle of them."""

    def __init__(
        self,
        thawed: Callable[[], Awaitable[None]],
        stall: Callable[[Exchange], Awaitable[None]],
        request: web.Request,
        response: web.StreamResponse,
        exchange: Exchange,
        fault: Fault | None,
    ) -> None:
        self._thawed = thawed
        self._stall = stall
        self._request = request
        self._response = response
        self._exchange = exchange
        self._fault = fault
        self._played = not isinstance(fault, Cut | HalfCharacter | Insert) and not (
            isinstance(fault, Stall) and fault.after is not None
        )

    async def send(self, pieces: Iterable[Piece]) -> bool:
        """Whether the answer is to be ended in good order. Raises AssertionError when the fault never came."""
        for piece in pieces:
            if not await self._between():
                return self._exchange.outcome != "cut"
            await asyncio.sleep(piece.wait_s)
            if not await self._piece(piece.data):
                return False
            self._exchange.chunks += 1
        if not await self._between():
            return self._exchange.outcome != "cut"
        assert self._played, f"the answer ended after {self._exchange.chunks} pieces, before {self._fault}"
        return True

    async def _between(self) -> bool:
        """Play what comes after this many pieces; False ends the answer."""
        sent = self._exchange.chunks
        match self._fault:
            case Cut(after=after) if after == sent:
                cut(self._request, self._exchange, self._fault.reset)
                return False
            case Stall(after=after) if after == sent and not self._played:
                self._played = True
                await self._stall(self._exchange)
            case Insert(after=after) if after == sent and not self._played:
                self._played = True
                self._exchange.outcome = "faulty"
                await self._write(self._fault.data)
                return not self._fault.ends
        return True

    async def _piece(self, data: bytes) -> bool:
        """Send one piece; False when the connection has been cut within it."""
        if isinstance(self._fault, Cut) and self._fault.after_bytes is not None:
            room = self._fault.after_bytes - self._exchange.bytes
            if room <= len(data):
                await self._write(data[:room])
                cut(self._request, self._exchange, self._fault.reset)
                return False
        if isinstance(self._fault, HalfCharacter) and not self._played:
            middle = next((at for at, byte in enumerate(data) if 0x80 <= byte < 0xC0), None)
            if middle is not None:
                self._played = True
                await self._write(data[:middle])
                if self._fault.then == "cut":
                    cut(self._request, self._exchange, reset=False)
                    return False
                await asyncio.sleep(SEGMENT_GAP_S)
                data = data[middle:]
        await self._write(data)
        return True

    async def _write(self, data: bytes) -> None:
        await self._thawed()
        if data:
            await self._response.write(data)
        self._exchange.bytes += len(data)


def cut(request: web.Request, exchange: Exchange, reset: bool) -> None:
    """End the connection of a request at once."""
    exchange.outcome = "cut"
    if request.transport is not None:
        sever(request.transport, reset)


def sever(transport: asyncio.BaseTransport, reset: bool) -> None:
    """End a connection: with RST, or with FIN behind what has been written."""
    if not reset:
        transport.close()
        return
    held = transport.get_extra_info("socket")
    if held is not None and held.fileno() >= 0:
        with socket.socket(fileno=os.dup(held.fileno())) as same:  # not every event loop lets us set options
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    abort(transport)


def abort(transport: asyncio.BaseTransport) -> None:
    """End a connection at once, without what has been written and not yet sent."""
    cast("asyncio.Transport", transport).abort()  # what sockets have, though not always by inheritance
