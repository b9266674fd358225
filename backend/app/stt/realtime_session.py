"""One session of live transcription: what is sent on its WebSocket, and what that comes to.

The protocol is that of OpenAI's Realtime API with a session of type "transcription" (developers.openai.com: guide
"Realtime transcription", reference "Realtime client events" and "server events"). Audio is appended to a buffer; the
model tells its words as they come (deltas), and the whole once the buffer is committed and so has become an item.
Commits and clears are answered in the order in which they were sent.
"""

import asyncio
import base64
from collections import deque
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray

from app.audio.g711 import encode_mulaw
from app.audio.pcm import to_bytes
from app.audio.resample import StreamResampler
from app.core.errors import ProviderError, ServiceError
from app.remote.faults import nonsense, stream_error
from app.stt.base import Transcript
from app.stt.whisper import cleaned, counted, spoken_language, without_echo
from app.usage.meter import Usage, report

PCM_RATE_HZ = 24_000
MULAW_RATE_HZ = 8000
PIECE_S = 0.04
"""Audio is sent in pieces of at least this length; what lies behind the last one goes with the commit."""
OPEN_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 0.5
MAX_ITEMS = 256
"""So many items are known by their ids."""
_TRANSCRIPTION = "conversation.item.input_audio_transcription."


@dataclass(slots=True, eq=False)
class Item:
    """What lies between two pauses."""

    utterance: "Utterance"
    samples: int = 0
    text: str = ""
    language: str | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    """Nobody needs to wait for it any more."""
    settled: bool = False
    """The service has said its last word about it."""
    context: Context | None = None
    """Of whoever has it transcribed, and pays for it."""


class Utterance:
    """What somebody says, with all pauses."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.open = Item(self)
        """What has not been committed."""
        self.error: ProviderError | None = None
        self.touched = False
        """Something of it was sent."""

    @property
    def awaited(self) -> bool:
        """Words of it have been asked for and have not come."""
        return not all(item.done.is_set() for item in self.items)

    @property
    def unfinished(self) -> bool:
        """A session holds something of it whose words have not come."""
        return self.touched and (self.open.samples > 0 or self.awaited)

    def fail(self, error: ProviderError) -> None:
        """Its words do not come."""
        self.error = self.error or error
        for item in self.items:
            item.done.set()

    def transcript(self, hint: str, language: str | None) -> Transcript:
        """The words of what was committed. `language` is what was expected."""
        found = [item.language for item in self.items if item.language]
        text = cleaned(" ".join(item.text for item in self.items))
        return Transcript(without_echo(text, hint), found[-1] if found else language)

    def text_so_far(self) -> str:
        """All words that have been told."""
        return cleaned(" ".join(item.text for item in (*self.items, self.open)))


class Encoder(Protocol):
    """Audio of a listener's rate to what the session was told to expect."""

    def push(self, samples: NDArray[np.int16]) -> bytes:
        """The bytes that these samples complete."""
        ...

    def flush(self) -> bytes:
        """What was held back."""
        ...


class MulawEncoder:
    """For the telephone's 8 kHz: exact, if they came as mu-law, and a sixth of the bytes."""

    def push(self, samples: NDArray[np.int16]) -> bytes:
        """One byte for each sample."""
        return encode_mulaw(samples)

    def flush(self) -> bytes:
        """Nothing is held back."""
        return b""


class PcmEncoder:
    """PCM16 at 24 kHz, the only rate that is taken (reference of session.audio.input.format)."""

    def __init__(self, rate_hz: int) -> None:
        self._resampler = StreamResampler(rate_hz, PCM_RATE_HZ)

    def push(self, samples: NDArray[np.int16]) -> bytes:
        """Two bytes for each sample of 24 kHz."""
        return to_bytes(self._resampler.push(samples))

    def flush(self) -> bytes:
        """The last milliseconds."""
        return to_bytes(self._resampler.flush())


class Source(Protocol):
    """Where a session gets what is to be sent, and tells what has come."""

    rate_hz: int
    queue: deque[NDArray[np.int16] | Item | None]
    """Audio, an item to commit, or None: forget what was not committed."""
    more: asyncio.Event
    """Something was put into the queue."""

    def take(self) -> NDArray[np.int16] | Item | None:
        """The next of the queue, which must not be empty."""
        ...

    def open_item(self) -> Item:
        """What the audio belongs to that is not committed."""
        ...

    def told(self, item: Item) -> None:
        """There are more words of this item."""
        ...

    def settle(self, item: Item, usage: Usage | None, error: ServiceError | None = None) -> None:
        """The last word about an item that was committed: what it took, and why it failed, if it did."""
        ...


class Session:
    """A session that is ready to listen. `used` is a template of what an item takes, for the meter."""

    def __init__(
        self, source: Source, socket: aiohttp.ClientWebSocketResponse, encoder: Encoder, used: Usage, opened_s: float
    ) -> None:
        self.opened_s = opened_s
        self.worked = False
        """It has transcribed something."""
        self._source = source
        self._unpaid_s = 0.0
        """Audio that was sent and not committed yet."""
        self._socket = socket
        self._encoder = encoder
        self._used = used
        self._piece: list[NDArray[np.int16]] = []
        self._appended = False
        self._expected: deque[Item | None] = deque()
        """Commits, and clears (None), that have not been answered."""
        self._unsettled: list[Item] = []
        self._items: dict[str, Item] = {}
        self._left = asyncio.Event()
        self._why: ServiceError | None = None

    def leave(self, error: ServiceError | None = None) -> None:
        """Nothing more is to be sent on it, because of this error or of its age."""
        self._why = error
        self._left.set()

    def give_up(self) -> None:
        """It has ended. What was committed may be paid for, though nobody hears of it any more."""
        for item in self._unsettled:
            self._source.settle(item, replace(self._measured(item), given_up=True))
        self._unsettled.clear()

    async def serve(self) -> ServiceError | None:
        """Send and receive until it is left, and give the reason for that. Raises ServiceError when it breaks, or
        whatever aiohttp raises."""
        tasks = [asyncio.create_task(run) for run in (self._write(), self._read(), self._left.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._why

    def _measured(self, item: Item) -> Usage:
        return replace(self._used, audio_s=item.samples / self._source.rate_hz, estimated=True)

    # --- what is sent

    async def _write(self) -> None:
        source = self._source
        while True:
            while not source.queue:
                source.more.clear()
                await source.more.wait()
            if self._left.is_set():
                return
            match source.take():
                case None:
                    await self._clear()
                case Item() as item:
                    await self._commit(item)
                case samples:
                    self._piece.append(samples)
                    if sum(map(len, self._piece)) >= PIECE_S * source.rate_hz:
                        await self._append(self._encoder.push(self._taken()))

    async def _append(self, sound: bytes) -> None:
        if sound:
            self._appended = True
            audio = base64.b64encode(sound).decode()
            await self._socket.send_str(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')

    async def _commit(self, item: Item) -> None:
        self._unsettled.append(item)
        await self._append(self._encoder.push(self._taken()) + self._encoder.flush())
        self._appended, self._unpaid_s = False, 0.0
        self._expected.append(item)
        await self._socket.send_str('{"type":"input_audio_buffer.commit"}')

    async def _clear(self) -> None:
        self._piece.clear()
        self._encoder.flush()
        if self._appended:
            self._appended = False
            # It is forgotten, but it has been listened to: live models are paid by the duration of what they hear.
            report(replace(self._used, audio_s=self._unpaid_s, estimated=True, given_up=True))
            self._unpaid_s = 0.0
            self._expected.append(None)
            await self._socket.send_str('{"type":"input_audio_buffer.clear"}')

    def _taken(self) -> NDArray[np.int16]:
        taken = np.concatenate(self._piece) if self._piece else np.zeros(0, np.int16)
        self._piece.clear()
        self._unpaid_s += len(taken) / self._source.rate_hz
        return taken

    # --- what comes

    async def _read(self) -> None:
        while True:
            event = await next_event(self._socket, self._used.service)
            match event["type"]:
                case "input_audio_buffer.committed":
                    self._committed(event)
                case "input_audio_buffer.cleared":
                    if not self._expected or self._expected.popleft() is not None:
                        raise nonsense(self._used.service, "the end of a clear that was not asked for")
                case "error":
                    self._error(event.get("error"))
                case kind if kind.startswith(_TRANSCRIPTION):
                    item = self._item(str(event.get("item_id")))
                    if not item.settled:
                        self._transcribed(kind.removeprefix(_TRANSCRIPTION), item, event)

    def _committed(self, event: dict[str, Any]) -> None:
        item = self._expected.popleft() if self._expected else None
        if item is None:
            raise nonsense(self._used.service, "a commit that was not asked for")
        self._remember(str(event.get("item_id")), item)

    def _item(self, item_id: str) -> Item:
        """The item of this id. One that is not known yet is what the service works on: the oldest commit that it has
        not answered, else the audio behind the last one; if that is about to be cleared, it is nobody's."""
        if item_id not in self._items:
            item = self._expected[0] if self._expected else self._source.open_item()
            self._remember(item_id, item or Item(Utterance()))
        return self._items[item_id]

    def _remember(self, item_id: str, item: Item) -> None:
        self._items[item_id] = item
        if len(self._items) > MAX_ITEMS:
            del self._items[next(iter(self._items))]

    def _transcribed(self, kind: str, item: Item, event: dict[str, Any]) -> None:
        match kind:
            case "delta":
                item.text += str(event.get("delta") or "")
                self._source.told(item)
            case "completed":
                self.worked = True
                item.text = str(event.get("transcript") or "")
                item.language = spoken_language(event)
                self._settle(item, counted(self._measured(item), event.get("usage")))
            case "failed":
                error = fault(self._used.service, event.get("error"))
                self._settle(item, replace(self._measured(item), given_up=True), error)

    def _settle(self, item: Item, usage: Usage | None, error: ServiceError | None = None) -> None:
        if item in self._unsettled:
            self._unsettled.remove(item)
            self._source.settle(item, usage, error)

    def _error(self, error: Any) -> None:
        """A commit that came to nothing is harmless. Nobody knows what else was not done: raises ServiceError."""
        if not isinstance(error, dict) or error.get("code") != "input_audio_buffer_commit_empty":
            raise fault(self._used.service, error)
        item = next((entry for entry in self._expected if entry is not None), None)
        if item is not None:
            item.text = ""
            self._appended = True  # still: it was not committed
            self._expected.remove(item)
            self._settle(item, None)


async def configure(socket: aiohttp.ClientWebSocketResponse, name: str, update: str) -> None:
    """Send the session.update event and wait until it holds. Raises ServiceError when it is refused."""
    await socket.send_str(update)
    while (event := await next_event(socket, name))["type"] != "session.updated":
        if event["type"] == "error":
            raise fault(name, event.get("error"))


async def next_event(socket: aiohttp.ClientWebSocketResponse, name: str) -> dict[str, Any]:
    """What the service says next. Raises ServiceError when it ended the session, or sends what is no event."""
    message = await socket.receive()
    if message.type is aiohttp.WSMsgType.TEXT:
        with suppress(orjson.JSONDecodeError):
            event = orjson.loads(message.data)
            if isinstance(event, dict) and isinstance(event.get("type"), str):
                return event
    if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        raise nonsense(name, "a message that is no event")
    if message.type is aiohttp.WSMsgType.CLOSE:
        raise ServiceError(f"{name} ended the session (code {message.data}).", code="service_failed")
    raise ServiceError(f"{name} cannot be reached: the connection broke off.", code="service_unreachable")


async def say_goodbye(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Close the WebSocket, but wait for no answer that does not come."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close()


def fault(name: str, error: Any) -> ServiceError:
    """What the error object of an event means."""
    details = error if isinstance(error, dict) else {}
    code = f"{details.get('code')} {details.get('type')}".lower()
    if "rate_limit" in code:
        return ServiceError(f"{name} transcribes no more just now.", code="rate_limited")
    if "api_key" in code or "authentication" in code:
        return ServiceError(f"{name} does not take the key.", code="key_refused")
    parameter = details.get("param")
    if isinstance(parameter, str) and "invalid_request" in code:
        return ServiceError(f"{name} does not take the request.", code="service_refused", parameter=parameter)
    return stream_error(name, details)
