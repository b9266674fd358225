"""The socket of Twilio's media streams, `/twilio/ws`: admits them, carries messages, and sees that everything ends.

A stream has to carry Twilio's signature to be accepted at all, and a token that was given to its call a moment ago
before anything is spent on it.
"""

import asyncio
import contextlib
import logging

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from app.twilio.telephone import Telephone
from app.websocket.direct import Line, line_of
from app.websocket.handler import CLOSE_TIMEOUT_S, FAILED, NORMAL, POLICY, TRY_LATER
from app.websocket.outbox import SlowClientError
from app.websocket.twilio_stream import TwilioStream

START_TIMEOUT_S = 10.0
"""Twilio sends `start` at once."""
MAX_STARTING = 64
"""Streams that may be about to start at the same time."""
log = logging.getLogger(__name__)


class TwilioHandler:
    """Serves the media streams of one application."""

    def __init__(self, telephone: Telephone) -> None:
        self._telephone = telephone
        self._starting = 0

    async def serve(self, socket: WebSocket) -> None:
        """Serve one stream from its request to its close."""
        if not self._telephone.signature.admits(socket):
            log.warning("Refused a media stream: %s", self._telephone.signature.why_not)
            await socket.close(POLICY)  # before accept, this is HTTP 403
            return
        if self._starting >= MAX_STARTING:
            log.warning("Refused a media stream: %d are starting already", self._starting)
            await socket.close(TRY_LATER)
            return
        await socket.accept()
        line = line_of(socket)
        stream = TwilioStream(self._telephone, line)
        reading = asyncio.create_task(line.run(stream.take, stream.take_binary))
        reading.add_done_callback(lambda _: stream.gone())
        try:
            code = await self._hold(stream, reading)
        finally:
            reading.cancel()
            await _its_end(reading)
        await _close(line, code)

    async def _hold(self, stream: TwilioStream, reading: "asyncio.Task[None]") -> int:
        """Returns the code to close with."""
        self._starting += 1
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await stream.started.wait()
        except TimeoutError:
            log.warning("A media stream did not start within %d s", START_TIMEOUT_S)
            stream.gone()  # too late now
            return POLICY
        finally:
            self._starting -= 1
        if stream.refused:
            log.warning("Refused a media stream: %s", stream.refused)
            return POLICY
        call, conversation = stream.call, stream.conversation
        if call is None or conversation is None:
            return TRY_LATER
        holding = asyncio.create_task(self._telephone.engine.hold(conversation))
        try:
            over = asyncio.create_task(stream.over.wait())
            await asyncio.wait({holding, over}, return_when=asyncio.FIRST_COMPLETED)
            over.cancel()
        finally:
            conversation.end("lost")  # unless it has ended for another reason
            outcome = await holding
            stream.gone()
        log.info("A media stream ended (%s): %s", outcome, stream.account())
        await self._telephone.ended(call, conversation)
        return FAILED if outcome == "failed" else NORMAL


async def _its_end(reading: "asyncio.Task[None]") -> None:
    try:
        await reading
    except* (asyncio.CancelledError, WebSocketDisconnect, SlowClientError):  # gone, or not listening: over either way
        pass


async def _close(line: Line, code: int) -> None:
    with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):  # gone already is closed too
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await line.close(code)
