"""What the endpoints have in common: they keep account of requests and play the faults that tests ask for."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from openai_service.delivery import Delivery, cut
from openai_service.exchange import Answer, Exchange, House, Piece, begin, check_key, error_response
from openai_service.faults import Cut, Empty, Fault, Insert, OddLength, Page, Stall
from openai_service.refusals import RefusedError, Status

MAX_KEPT = 10_000


class Endpoint:
    """Accounts for requests and plays the faults; what to answer is said by `answer` of the classes below it."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.requests: list[Exchange] = []
        """All requests that kept the rules, in order of arrival."""
        self.refused: list[Exchange] = []
        """Those that broke one (see `refusal`)."""
        self._faults: deque[Any] = deque(maxlen=MAX_KEPT)
        self._arrived: asyncio.Queue[Exchange] = asyncio.Queue(MAX_KEPT)
        self._gone: asyncio.Queue[Exchange] = asyncio.Queue(MAX_KEPT)
        self._stalled: asyncio.Queue[Exchange] = asyncio.Queue(MAX_KEPT)
        self._ended: asyncio.Queue[Exchange] = asyncio.Queue(MAX_KEPT)
        self._open: list[Exchange] = []
        self._waiting: list[asyncio.Event] = []

    def fault(self, *faults: Fault) -> None:
        """The next requests meet these, one each; those after them go well again."""
        self._faults.extend(faults)

    def release(self) -> None:
        """Requests that stall go on."""
        for event in self._waiting:
            event.set()
        self._waiting.clear()

    async def next_request(self) -> Exchange:
        """The next request that keeps the rules (each is given once), while its answer is still being sent."""
        return await self._arrived.get()

    async def next_gone(self) -> Exchange:
        """The next request whose client left before the end of the answer (each is given once)."""
        return await self._gone.get()

    async def next_ended(self) -> Exchange:
        """The next request that has ended, whatever way (each is given once)."""
        return await self._ended.get()

    async def next_stalled(self) -> Exchange:
        """The next request that stalls (each is given once)."""
        return await self._stalled.get()

    async def answer(self, request: web.Request, exchange: Exchange) -> Answer:
        """Checks the request and says what to send. Raises RefusedError."""
        raise NotImplementedError

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request from its head to the end of its answer."""
        exchange = begin(request)
        async with self.account(exchange):
            await self.house.thawed()
            try:
                check_key(request, self.house.key)
                answer = await self.answer(request, exchange)
            except RefusedError as refusal:
                return self.turn_down(exchange, refusal)
            fault = self.accept(exchange)
            return await self._send(request, exchange, answer, fault)

    @asynccontextmanager
    async def account(self, exchange: Exchange) -> AsyncIterator[None]:
        """Keeps account of how a request ends."""
        self._open.append(exchange)
        try:
            yield
            if exchange.outcome == "open":
                exchange.outcome = "answered"
        except (asyncio.CancelledError, ConnectionError):
            if exchange.outcome == "open":
                exchange.outcome = "gone"
                self._gone.put_nowait(exchange)
            raise
        except Exception as error:
            self.house.mistake(error)
            raise
        finally:
            self._open = [one for one in self._open if one is not exchange]
            self._ended.put_nowait(exchange)

    def accept(self, exchange: Exchange) -> Any:
        """A request has kept the rules; returns the fault that it meets, if there is one."""
        self.requests.append(exchange)
        self._arrived.put_nowait(exchange)
        return self._faults.popleft() if self._faults else None

    def killed(self) -> None:
        """The connections of all requests that are still open are being cut."""
        for exchange in self._open:
            if exchange.outcome == "open":
                exchange.outcome = "killed"

    def turn_down(self, exchange: Exchange, refusal: RefusedError) -> web.Response:
        """The answer to a request that broke a rule."""
        exchange.outcome, exchange.refusal = "refused", refusal.status
        self.refused.append(exchange)
        return error_response(refusal.status)

    async def stall(self, exchange: Exchange) -> None:
        """Wait for `release()`."""
        event = asyncio.Event()
        self._waiting.append(event)
        self._stalled.put_nowait(exchange)
        await event.wait()

    async def play_before_head(
        self, request: web.Request, exchange: Exchange, fault: Fault | None
    ) -> web.Response | None:
        """What comes in place of an answer, if the fault is of that kind."""
        match fault:
            case Status():
                exchange.outcome = "faulty"
                return error_response(fault)
            case Page():
                exchange.outcome = "faulty"
                return web.Response(status=fault.status, body=fault.body, headers={"Content-Type": fault.content_type})
            case Cut(after=None, after_bytes=None):
                cut(request, exchange, fault.reset)
                return web.Response()
            case Stall(after=None):
                await self.stall(exchange)
        return None

    async def _send(
        self, request: web.Request, exchange: Exchange, answer: Answer, fault: Fault | None
    ) -> web.StreamResponse:
        instead = await self.play_before_head(request, exchange, fault)
        if instead is not None:
            return instead
        pieces = [] if isinstance(fault, Empty) else list(answer.pieces)
        if isinstance(fault, OddLength):
            pieces[-1] = Piece(pieces[-1].data[:-1], pieces[-1].wait_s)
        response = web.StreamResponse(headers=answer.headers | {"Content-Type": answer.content_type})
        response.headers["x-request-id"] = "req_0123456789abcdef"
        if not answer.streamed and not isinstance(fault, Insert):
            response.content_length = sum(len(piece.data) for piece in pieces)
            await asyncio.sleep(sum(piece.wait_s for piece in pieces))
            pieces = [Piece(piece.data) for piece in pieces]
        await self.house.thawed()
        await response.prepare(request)
        delivery = Delivery(self.house.thawed, self.stall, request, response, exchange, fault)
        if await delivery.send(pieces):
            await self.house.thawed()
            await response.write_eof()
        return response
