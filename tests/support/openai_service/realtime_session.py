"""One transcription session: its configuration, its audio, its events."""

import asyncio
import copy
import itertools
import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from aiohttp import WSMsgType, web
from numpy.typing import NDArray
from openai.types.realtime import (
    ConversationItemAdded,
    ConversationItemDone,
    ConversationItemInputAudioTranscriptionCompletedEvent,
    ConversationItemInputAudioTranscriptionDeltaEvent,
    ConversationItemInputAudioTranscriptionFailedEvent,
    InputAudioBufferClearedEvent,
    InputAudioBufferCommittedEvent,
    LogProbProperties,
    RealtimeConversationItemUserMessage,
    RealtimeError,
    RealtimeErrorEvent,
    SessionCreatedEvent,
    SessionUpdatedEvent,
)
from openai.types.realtime.conversation_item_input_audio_transcription_completed_event import (
    Usage,
    UsageTranscriptTextUsageDuration,
    UsageTranscriptTextUsageTokens,
)
from openai.types.realtime.conversation_item_input_audio_transcription_failed_event import Error
from openai.types.realtime.realtime_conversation_item_user_message import Content
from pydantic import BaseModel

from openai_service.delivery import cut
from openai_service.exchange import Exchange
from openai_service.faults import Close, Drop, ErrorEvent, FailedTranscription, SessionFault, Silence
from openai_service.names import DURATION_MODELS, LIVE_MODELS
from openai_service.realtime_rules import (
    BYTES_PER_MS,
    DEFAULTS,
    SHORTEST_COMMIT_MS,
    audio_of,
    check_event,
    too_short,
    updated,
)
from openai_service.refusals import RefusedError, Status, refuse

if TYPE_CHECKING:
    from openai_service.realtime import Realtime

LOGPROB = -0.05
_TOKEN = re.compile(r"\s*\S+")
_ITEM_NUMBERS = itertools.count(1)
_EVENT_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Words:
    """What an item says, the deltas it comes in (by default words), and how long that takes after the commit."""

    text: str
    tokens: tuple[str, ...] | None = None
    delay_s: float | None = None

    def deltas(self) -> list[str]:
        """The text in the pieces in which it is sent."""
        return list(self.tokens) if self.tokens is not None else _TOKEN.findall(self.text)


@dataclass(frozen=True, slots=True)
class HeardLive:
    """A committed item: what the session was asked for, the audio as it came, and as int16 samples if it was PCM."""

    item_id: str
    transcription: dict[str, Any] | None
    format: str
    audio: bytes

    @property
    def samples(self) -> NDArray[np.int16]:
        """Of PCM, at 24 kHz. Raises AssertionError for the other formats."""
        assert self.format == "audio/pcm", f"the audio is {self.format}"
        return np.frombuffer(self.audio, "<i2").astype(np.int16)


@dataclass(slots=True)
class _Item:
    """Audio that has not been committed yet, and how much of its words has been said already."""

    id: str = field(default_factory=lambda: f"item_{next(_ITEM_NUMBERS):06}")
    audio: bytearray = field(default_factory=bytearray)
    words: Words | None = None
    said: int = 0


class Session:
    """One connection. `configuration` is what `session.updated` says; `events` are the client's events, in order, with
    the number of its bytes in place of audio."""

    def __init__(
        self, realtime: "Realtime", request: web.Request, socket: web.WebSocketResponse, exchange: Exchange
    ) -> None:
        self.configuration = copy.deepcopy(DEFAULTS)
        self.events: list[dict[str, Any]] = []
        self._realtime = realtime
        self._request = request
        self._socket = socket
        self._exchange = exchange
        self._item = _Item()
        self._last_id: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve the connection until it ends."""
        await self._send(SessionCreatedEvent, type="session.created", session=self.configuration)
        try:
            while not self._socket.closed:
                message = await self._socket.receive()
                await self._realtime.house.thawed()
                match message.type:
                    case WSMsgType.TEXT:
                        await self._take(message.data)
                    case WSMsgType.PING:
                        await self._socket.pong(message.data)
                    case WSMsgType.CLOSE:
                        await self._socket.close(code=message.data or 1000)
                    case WSMsgType.BINARY:
                        await self._refuse(refuse("invalid_event", "Events are JSON in text messages."), None)
                    case WSMsgType.CLOSED | WSMsgType.ERROR if self._exchange.outcome == "open":
                        raise ConnectionResetError("the client left without a close frame")
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def error(self, status: Status, event_id: str | None = None) -> None:
        """Say that something is wrong."""
        what = RealtimeError(
            message=status.message, type=status.type, code=status.code, param=status.param, event_id=event_id
        )
        await self._send(RealtimeErrorEvent, type="error", error=what)

    async def close(self, code: int = 1001, reason: str = "") -> None:
        """End the connection with a close frame."""
        await self._socket.close(code=code, message=reason.encode())

    async def _take(self, text: str) -> None:
        event: Any = None
        try:
            event = json.loads(text)
            if not isinstance(event, dict):
                raise ValueError("no object")
            check_event(event)
            audio = event.get("audio")
            self.events.append(event if audio is None else event | {"audio": len(audio)})
            fault = self._realtime.take_fault(event["type"])
            if fault is None or isinstance(fault, FailedTranscription):
                await self._do(event, fault)
            else:
                await self._play(fault, event.get("event_id"))
        except ValueError:
            await self._refuse(refuse("invalid_json", "We could not parse the JSON of your event."), None)
        except RefusedError as refusal:
            await self._refuse(refusal, event.get("event_id"))

    async def _refuse(self, refusal: RefusedError, event_id: str | None) -> None:
        refused = Exchange(self._exchange.path, {}, {}, outcome="refused", refusal=refusal.status)
        self._realtime.refused.append(refused)
        await self.error(refusal.status, event_id if isinstance(event_id, str) else None)

    async def _do(self, event: dict[str, Any], fault: FailedTranscription | None) -> None:
        match event["type"]:
            case "session.update":
                models = self._realtime.house.models
                self.configuration = updated(self.configuration, event["session"], models)
                await self._send(SessionUpdatedEvent, type="session.updated", session=self.configuration)
            case "input_audio_buffer.append":
                self._item.audio += audio_of(event, self._format)
                await self._listen_along()
            case "input_audio_buffer.clear":
                if self._item.words:
                    self._realtime.give_back(self._item.words)
                self._item = _Item()
                await self._send(InputAudioBufferClearedEvent, type="input_audio_buffer.cleared")
            case "input_audio_buffer.commit":
                await self._commit(fault)

    async def _play(self, fault: SessionFault, event_id: str | None) -> None:
        match fault:
            case ErrorEvent():
                await self.error(Status(400, fault.code, fault.message, fault.type), event_id)
                if fault.close is not None:
                    self._exchange.outcome = "cut"
                    await self.close(fault.close, fault.code or "")
            case Close():
                self._exchange.outcome = "cut"
                await self.close(fault.code, fault.reason)
            case Drop():
                cut(self._request, self._exchange, fault.reset)
            case Silence():
                return

    @property
    def _transcription(self) -> dict[str, Any] | None:
        asked: dict[str, Any] | None = self.configuration["audio"]["input"]["transcription"]
        return asked

    @property
    def _format(self) -> str:
        return str(self.configuration["audio"]["input"]["format"]["type"])

    async def _listen_along(self) -> None:
        """Say the words that the model has heard by now, but keep the last for after the commit."""
        asked, item = self._transcription, self._item
        if asked is None or asked["model"] not in LIVE_MODELS:
            return
        item.words = item.words or self._realtime.take_words()
        deltas = item.words.deltas()
        heard = int(len(item.audio) / BYTES_PER_MS[self._format] / self._realtime.delta_ms)
        while item.said < min(heard, len(deltas) - 1):
            item.said += 1
            await self._delta(item.id, deltas[item.said - 1])

    async def _commit(self, fault: FailedTranscription | None) -> None:
        item, kind = self._item, self._format
        buffered_ms = len(item.audio) / BYTES_PER_MS[kind]
        if buffered_ms < SHORTEST_COMMIT_MS:
            raise too_short(buffered_ms)
        before, self._last_id, self._item = self._last_id, item.id, _Item()
        self._realtime.keep(HeardLive(item.id, copy.deepcopy(self._transcription), kind, bytes(item.audio)))
        content = Content(type="input_audio", transcript=None)
        message = RealtimeConversationItemUserMessage(
            id=item.id, type="message", role="user", status="completed", content=[content]
        )
        place = {"item_id": item.id, "previous_item_id": before}
        await self._send(InputAudioBufferCommittedEvent, type="input_audio_buffer.committed", **place)
        for form, name in ((ConversationItemAdded, "added"), (ConversationItemDone, "done")):
            await self._send(form, type=f"conversation.item.{name}", previous_item_id=before, item=message)
        if self._transcription is not None:
            item.words = item.words or self._realtime.take_words()
            model = self._transcription["model"]
            task = asyncio.create_task(self._work(item, item.words, model, buffered_ms, fault))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(
        self, item: _Item, words: Words, model: str, heard_ms: float, fault: FailedTranscription | None
    ) -> None:
        """Items are transcribed beside each other; one that is quick may overtake another."""
        try:
            await self._transcribe(item, words, model, heard_ms, fault)
        except ConnectionError:
            return  # the client has left, which `run` sees as well
        except Exception as error:
            self._realtime.house.mistake(error)
            cut(self._request, self._exchange, reset=True)
            raise

    async def _transcribe(
        self, item: _Item, words: Words, model: str, heard_ms: float, fault: FailedTranscription | None
    ) -> None:
        await asyncio.sleep(self._realtime.delay_s if words.delay_s is None else words.delay_s)
        if fault is not None:
            error = Error(type=fault.type, code=fault.code, message=fault.message, param=None)
            kind = "conversation.item.input_audio_transcription.failed"
            form = ConversationItemInputAudioTranscriptionFailedEvent
            await self._send(form, type=kind, item_id=item.id, content_index=0, error=error)
            return
        deltas = words.deltas()
        for token in deltas[item.said :]:
            await self._delta(item.id, token)
        fields: dict[str, Any] = {
            "item_id": item.id,
            "content_index": 0,
            "transcript": words.text,
            "usage": _usage(model, heard_ms / 1000, len(deltas)),
        }
        if self.configuration["include"]:
            fields["logprobs"] = [_logprob(token) for token in deltas]
        kind = "conversation.item.input_audio_transcription.completed"
        await self._send(ConversationItemInputAudioTranscriptionCompletedEvent, type=kind, **fields)

    async def _delta(self, item_id: str, token: str) -> None:
        fields: dict[str, Any] = {"item_id": item_id, "content_index": 0, "delta": token}
        if self.configuration["include"]:
            fields["logprobs"] = [_logprob(token)]
        kind = "conversation.item.input_audio_transcription.delta"
        await self._send(ConversationItemInputAudioTranscriptionDeltaEvent, type=kind, **fields)

    async def _send(self, form: type[BaseModel], **fields: Any) -> None:
        """One event to the client, as the SDK's model says it."""
        text = form(event_id=f"event_{next(_EVENT_NUMBERS):06}", **fields).model_dump_json(exclude_unset=True)
        await self._realtime.house.thawed()
        await self._socket.send_str(text)
        self._exchange.chunks += 1
        self._exchange.bytes += len(text.encode())


def _logprob(token: str) -> LogProbProperties:
    return LogProbProperties(token=token, logprob=LOGPROB, bytes=list(token.encode()))


def _usage(model: str, seconds: float, tokens: int) -> Usage:
    """By the second, or a second as ten tokens."""
    if model in DURATION_MODELS:
        return UsageTranscriptTextUsageDuration(type="duration", seconds=round(seconds, 2))
    heard = math.ceil(seconds * 10)
    return UsageTranscriptTextUsageTokens(
        type="tokens", input_tokens=heard, output_tokens=tokens, total_tokens=heard + tokens
    )
