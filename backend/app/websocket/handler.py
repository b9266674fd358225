"""The browser's conversation over a WebSocket: wire messages in, conversation out. No decisions about the conversation.

`docs/asyncapi.yaml` describes the protocol. A mistake of a client is answered with an error that names the rule; too
many of them end the conversation. Nothing here touches another conversation.
"""

import asyncio
import contextlib
import logging
import secrets

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from app.audio.pcm import from_bytes
from app.conversation.options import Options
from app.conversation.session import Conversation
from app.core.errors import AudioFormatError, OverloadedError, ProtocolError
from app.core.origins import origin_allowed
from app.engine import Engine
from app.websocket import wire
from app.websocket.outbox import Outbox, SlowClientError

START_TIMEOUT_S = 60.0
"""How long a client may take to send `start`."""
MAX_MISTAKES = 20
CLOSE_TIMEOUT_S = 5.0
OVERRUN_NOTICE_MS = 1000.0
"""Lost audio is reported each time it has grown by this much."""
MESSAGES_PER_S, MESSAGES_AT_ONCE = 50, 200
"""JSON messages that are taken: the page sends five a second, and more at once when its network was away."""
SURPLUS_NOTICE = 50
"""Messages beyond that are reported each time they have grown by this many."""

NORMAL, GOING_AWAY, POLICY, FAILED, TRY_LATER = 1000, 1001, 1008, 1011, 1013
"""Close codes: RFC 6455 section 7.4.1; 1013 of the IANA registry."""
_CLOSE_CODES = {"client": NORMAL, "idle": NORMAL, "budget": NORMAL, "shutdown": GOING_AWAY, "failed": FAILED}

log = logging.getLogger(__name__)


async def converse(socket: WebSocket, engine: Engine) -> None:
    """Serve one WebSocket from its request to its close."""
    headers = socket.headers
    if not origin_allowed(headers.get("origin"), headers.get("host"), engine.settings):
        log.warning(
            "Refused a page of the origin %.200r: add it to ALLOWED_ORIGINS if it may talk to this server",
            headers.get("origin"),
        )
        await socket.close(POLICY)  # before accept, this is HTTP 403
        return
    await socket.accept()
    outbox = Outbox(socket)
    sending = asyncio.create_task(outbox.run())
    serving = asyncio.create_task(_Client(socket, engine, outbox).serve())
    try:
        await asyncio.wait({sending, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            outbox.close()
            await asyncio.wait({sending}, timeout=CLOSE_TIMEOUT_S)
    finally:
        for task in (serving, sending):
            task.cancel()
        served, sent = await asyncio.gather(serving, sending, return_exceptions=True)
    if isinstance(sent, SlowClientError):
        log.warning("A client did not read what it was sent, and was let go")
        served = TRY_LATER
    elif isinstance(served, Exception) and not isinstance(served, WebSocketDisconnect):
        log.error("A conversation's connection failed", exc_info=served)
        served = FAILED
    if isinstance(served, int):
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):  # gone already is closed too
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await socket.close(served)


class _Client:
    """One client and what it has done so far."""

    def __init__(self, socket: WebSocket, engine: Engine, outbox: Outbox) -> None:
        self._socket = socket
        self._engine = engine
        self._outbox = outbox
        self._session = secrets.token_urlsafe(16)
        self._mistakes = 0
        self._told_not_started = False
        self._told_dropped_ms = 0.0
        self._pace = _Pace()
        self._surplus = 0

    async def serve(self) -> int:
        """Talk until one side ends it; returns the close code. Raises WebSocketDisconnect when the client is gone."""
        try:
            await self._engine.wait_until_ready()
        except OverloadedError:
            return self._never_ready()
        self._greet()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                conversation = await self._wait_for_start()
        except TimeoutError:
            return self._bye("idle")
        except OverloadedError as error:
            self._tell_error(error.code, error.message, fatal=True)
            return TRY_LATER
        if conversation is None:
            return self._too_many_mistakes() if self._mistakes > MAX_MISTAKES else self._bye("client")
        holding = asyncio.create_task(self._engine.hold(conversation))
        listening = asyncio.create_task(self._listen(conversation))
        try:
            await asyncio.wait({holding, listening}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            conversation.end("client")
            listening.cancel()
            reason = await holding
        if self._mistakes > MAX_MISTAKES:
            return self._too_many_mistakes()
        if listening.done() and not listening.cancelled() and (gone := listening.exception()):
            raise gone
        return self._bye(reason)

    def _never_ready(self) -> int:
        if not self._engine.problem:  # the server ends before its models were loaded
            return self._bye("shutdown")
        self._tell_error(
            "internal_error", "This server cannot talk: its models could not be loaded; its log says why.", fatal=True
        )
        return FAILED

    def _greet(self) -> None:
        voices = self._engine.providers.tts.voices
        settings = self._engine.settings
        ready = {
            "type": "ready",
            "protocol": wire.PROTOCOL,
            "session": self._session,
            "audio_in": wire.AUDIO_FORMAT,
            "audio_out": wire.AUDIO_FORMAT,
            "voices": [{"id": voice.id, "name": voice.name, "language": voice.language} for voice in voices],
            "languages": self._engine.languages,
            "defaults": {"voice": settings.voice or voices[0].id, "language": settings.language},
        }
        self._outbox.put(wire.dump(ready))

    async def _wait_for_start(self) -> Conversation | None:
        """The conversation that `start` opens; None if the client leaves or makes too many mistakes before."""
        while self._mistakes <= MAX_MISTAKES:
            try:
                match await self._receive():
                    case wire.Start() as start:
                        return self._start(start)
                    case wire.Bye():
                        return None
                    case bytes() | bytearray() as audio if self._told_not_started:
                        del audio  # one notice is enough for a client that streams before it starts
                    case bytes() | bytearray():
                        self._told_not_started = True
                        self._mistake("not_started", "Audio came before the start message, and was not taken.")
                    case other:
                        self._mistake("not_started", f"Send a start message before {other.type!r}.")
            except (ProtocolError, AudioFormatError) as error:
                self._mistake(error.code, error.message)
        return None

    def _start(self, start: wire.Start) -> Conversation:
        voices = [voice.id for voice in self._engine.providers.tts.voices]
        if start.voice is not None and start.voice not in voices:
            raise ProtocolError(f"There is no voice {start.voice!r}; choose one of {', '.join(voices)}.")
        if start.language is not None and start.language not in self._engine.languages:
            offered = ", ".join(self._engine.languages)
            raise ProtocolError(f"The language {start.language!r} is not offered; choose one of {offered}.")
        settings = self._engine.settings
        options = Options.from_settings(settings, voice=start.voice, language=start.language, greeting=start.greeting)
        conversation = self._engine.open(self._session, options, self._outbox)
        chosen = {"voice": options.voice or voices[0], "language": options.language or "auto"}
        self._outbox.put(wire.dump({"type": "started", **chosen}))
        return conversation

    async def _listen(self, conversation: Conversation) -> None:
        """Carry the client's messages into the conversation until it says bye or makes too many mistakes."""
        while self._mistakes <= MAX_MISTAKES:
            try:
                match await self._receive():
                    case bytes() | bytearray() as audio:
                        self._hear(audio, conversation)
                    case wire.Playback(reply=reply, played_ms=played_ms):
                        conversation.played(reply, played_ms)
                    case wire.Text(text=text):
                        conversation.type(text)
                    case wire.Interrupt():
                        conversation.interrupt()
                    case wire.Mute(muted=muted):
                        conversation.mute(muted)
                    case wire.Start():
                        self._mistake("already_started", "The conversation has already started.")
                    case wire.Bye():
                        return
            except (ProtocolError, AudioFormatError) as error:
                self._mistake(error.code, error.message)

    def _hear(self, audio: bytes | bytearray, conversation: Conversation) -> None:
        try:
            conversation.hear(from_bytes(bytes(audio)))
        except AudioFormatError as error:
            raise ProtocolError(error.message, code="odd_audio") from None
        dropped_ms = conversation.ear.dropped_ms
        if dropped_ms >= self._told_dropped_ms + OVERRUN_NOTICE_MS:
            self._told_dropped_ms = dropped_ms
            self._mistake("audio_overrun", f"Audio comes faster than it is spoken; {dropped_ms:.0f} ms were dropped.")

    async def _receive(self) -> wire.Incoming | bytes:
        """The next message. Raises ProtocolError for one that cannot be used, WebSocketDisconnect at the end."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", NORMAL))
            audio: bytes | None = message.get("bytes")
            if audio is not None:
                return _checked_size(audio)
            await asyncio.sleep(0)  # what was read at once is handled one by one, and others get their turn between
            if self._pace.takes_one(asyncio.get_running_loop().time()):
                return wire.parse(message.get("text") or "")
            self._surplus += 1
            if self._surplus % SURPLUS_NOTICE == 1:
                raise ProtocolError(
                    f"Messages come too fast; {self._surplus} were not taken. Send at most {MESSAGES_PER_S} a second.",
                    code="too_many_messages",
                )

    def _mistake(self, code: str, message: str) -> None:
        self._mistakes += 1
        self._tell_error(code, message)

    def _too_many_mistakes(self) -> int:
        self._tell_error("too_many_errors", f"More than {MAX_MISTAKES} mistakes; the connection ends.", fatal=True)
        return POLICY

    def _tell_error(self, code: str, message: str, *, fatal: bool = False) -> None:
        self._outbox.put(wire.dump({"type": "error", "code": code, "message": message, "fatal": fatal}))

    def _bye(self, reason: str) -> int:
        self._outbox.put(wire.dump({"type": "bye", "reason": reason}))
        return _CLOSE_CODES.get(reason, FAILED)


class _Pace:
    """How many messages may come: MESSAGES_AT_ONCE, and from then on MESSAGES_PER_S."""

    def __init__(self) -> None:
        self._left = float(MESSAGES_AT_ONCE)
        self._at_s = 0.0

    def takes_one(self, now_s: float) -> bool:
        """Whether there is room for a message now."""
        self._left = min(MESSAGES_AT_ONCE, self._left + (now_s - self._at_s) * MESSAGES_PER_S)
        self._at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _checked_size(audio: bytes) -> bytes:
    if len(audio) > wire.MAX_AUDIO_BYTES:
        raise ProtocolError(
            f"An audio message of {len(audio)} bytes is too large; send at most {wire.MAX_AUDIO_BYTES}.",
            code="message_too_large",
        )
    return audio
