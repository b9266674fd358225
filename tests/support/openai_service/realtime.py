"""WebSocket /v1/realtime?intent=transcription: where transcription sessions begin, and what their audio says."""

import asyncio
from collections import deque
from collections.abc import Iterable

from aiohttp import web

from openai_service.endpoint import MAX_KEPT, Endpoint
from openai_service.exchange import Exchange, House, begin, check_key
from openai_service.faults import Fault, SessionFault, Stall
from openai_service.realtime_session import HeardLive, Session, Words
from openai_service.refusals import RefusedError, refuse, unknown

MAX_MESSAGE_BYTES = 24 << 20
"""Room for the longest piece of audio that may be appended, in base64."""
REFUSED_CODE = 4000
USUAL_TEXT = "What time is it?"


class Realtime(Endpoint):
    """Transcribes what is committed with the queued texts, then with `usual`. It does not look for pauses itself:
    settings of turn detection are checked and kept, but only a commit ends an item."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.usual = Words(USUAL_TEXT)
        self.delay_s = 0.0
        """From the commit to the first word that comes after it."""
        self.delta_ms = 200
        """Models that listen along say a word after so much audio, and again after so much more."""
        self.sessions: list[Session] = []
        """In order of connection."""
        self.received: list[HeardLive] = []
        """The committed items, in order."""
        self._heard: asyncio.Queue[HeardLive] = asyncio.Queue(MAX_KEPT)
        self._texts: deque[Words] = deque(maxlen=MAX_KEPT)
        self._session_faults: deque[SessionFault] = deque(maxlen=MAX_KEPT)

    def reply(self, text: str, *, tokens: Iterable[str] | None = None, delay_s: float | None = None) -> None:
        """The next item that has no other text yet says this; `tokens` are its deltas, by default words."""
        self._texts.append(Words(text, tuple(tokens) if tokens is not None else None, delay_s))

    def fault(self, *faults: Fault | SessionFault) -> None:
        """What goes wrong with the next handshakes (Status, Page, Stall, Cut), or within sessions (see `faults.py`)."""
        for one in faults:
            if isinstance(one, SessionFault):
                self._session_faults.append(one)
            else:
                self._faults.append(one)

    async def next_heard(self) -> HeardLive:
        """The next committed item (each is given once)."""
        return await self._heard.get()

    def take_words(self) -> Words:
        """What the audio that begins now says."""
        return self._texts.popleft() if self._texts else self.usual

    def give_back(self, words: Words) -> None:
        """The audio that would have said this was cleared; the next says it, from the beginning."""
        if words is not self.usual:
            self._texts.appendleft(words)

    def take_fault(self, moment: str) -> SessionFault | None:
        """What goes wrong now that a client event of the type `moment` has come."""
        for one in self._session_faults:
            if one.on == moment:
                self._session_faults.remove(one)
                return one
        return None

    def keep(self, heard: HeardLive) -> None:
        """An item has been committed."""
        self.received.append(heard)
        self._heard.put_nowait(heard)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One connection from its handshake to its end."""
        exchange = begin(request)
        async with self.account(exchange):
            await self.house.thawed()
            try:
                check_key(request, self.house.key)
                if request.headers.get("Upgrade", "").lower() != "websocket":
                    raise refuse("invalid_request", "This address speaks WebSocket only.")
            except RefusedError as refusal:
                return self.turn_down(exchange, refusal)
            return await self._serve(request, exchange)

    async def _serve(self, request: web.Request, exchange: Exchange) -> web.StreamResponse:
        refusal = _wrong_address(request)
        fault = None if refusal else self.accept(exchange)
        instead = await self.play_before_head(request, exchange, fault)
        if instead is not None:
            return instead
        assert fault is None or fault == Stall(), f"no handshake knows {fault}"
        socket = web.WebSocketResponse(
            autoping=False, autoclose=False, compress=False, max_msg_size=MAX_MESSAGE_BYTES, timeout=1.0
        )
        await self.house.thawed()
        await socket.prepare(request)
        session = Session(self, request, socket, exchange)
        if refusal is not None:
            exchange.outcome, exchange.refusal = "refused", refusal.status
            self.refused.append(exchange)
            await session.error(refusal.status)
            await session.close(REFUSED_CODE, f"{refusal.status.type}.{refusal.status.code}")
            return socket
        self.sessions.append(session)
        await session.run()
        return socket


def _wrong_address(request: web.Request) -> RefusedError | None:
    """What is wrong with the address: that of transcription sessions names no model."""
    if "OpenAI-Beta" in request.headers:
        message = "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."
        return refuse("beta_api_shape_disabled", message)
    if "model" in request.query:
        return refuse("invalid_model", "You must not provide a model parameter for transcription sessions.")
    if request.query.get("intent") != "transcription":
        return refuse("missing_model", "You must provide a model parameter, or ask with intent=transcription.")
    return next((unknown(name) for name in request.query if name != "intent"), None)
