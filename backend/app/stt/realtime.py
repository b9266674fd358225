"""Speech recognition while somebody speaks: a WebSocket to a service for each conversation, ready before it is needed.

The protocol is that of OpenAI's Realtime API with a session of type "transcription" (developers.openai.com: guide
"Realtime transcription", reference "Realtime client events" and "server events"). Audio is appended to a buffer; the
model tells its words as they come (deltas), and the whole once the buffer is committed, which happens here at each
pause. An utterance with pauses so becomes several items, whose words are joined. Commits and clears are answered in the
order in which they were sent. A session ends after 60 minutes.

Whatever goes wrong, the utterance is lost here and is to be uploaded; the next one begins on a new connection.
"""

import asyncio
import base64
import logging
import random
import re
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray

from app.audio.g711 import encode_mulaw
from app.audio.pcm import require_mono, to_bytes
from app.audio.resample import StreamResampler
from app.core.errors import ProviderError, ServiceError
from app.remote.client import ServiceClient
from app.remote.faults import late, nonsense, stream_error
from app.remote.health import Health
from app.stt.base import Transcript
from app.stt.whisper import cleaned, counted, spoken_language, takes_languages, without_echo
from app.usage.meter import Usage, report

PATH = "/realtime?intent=transcription"
"""Without a model in it, which would make it a conversation with that model."""
PCM_RATE_HZ = 24_000
MULAW_RATE_HZ = 8000
PIECE_S = 0.04
"""Audio is sent in pieces of at least this length; what lies behind the last one goes with the commit."""
SHORTEST_S = 0.1
"""Less cannot be committed (error input_audio_buffer_commit_empty)."""
QUEUE_S = 5.0
"""So much audio waits for a connection that is being made, or that is slow."""
OPEN_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 0.5
RENEW_S = 55 * 60.0
PAUSE_S, MAX_PAUSE_S = 0.2, 5.0
"""Before connecting again: twice as long each time it fails, and half of it by chance."""
PARTIAL_PAUSE_S = 0.1
MAX_ITEMS = 256
_TRANSCRIPTION = "conversation.item.input_audio_transcription."

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Item:
    """What lies between two pauses."""

    utterance: "_Utterance"
    samples: int = 0
    text: str = ""
    language: str | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)
    settled: bool = False
    """The service has said its last word about it."""
    context: Context | None = None
    """Of whoever has it transcribed, and pays for it."""


class _Utterance:
    """What was heard since `begin`."""

    def __init__(self) -> None:
        self.items: list[_Item] = []
        self.open = _Item(self)
        """What has not been committed."""
        self.error: ProviderError | None = None
        self.touched = False
        """Something of it was sent, so that it cannot be moved to another connection."""

    def fail(self, error: ProviderError) -> None:
        self.error = self.error or error
        for item in self.items:
            item.done.set()

    def text(self, *, committed: bool) -> str:
        items = self.items if committed else [*self.items, self.open]
        return cleaned(" ".join(item.text for item in items))


class _Encoder(Protocol):
    """Audio of a listener's rate to what the session was told to expect."""

    def push(self, samples: NDArray[np.int16]) -> bytes: ...

    def flush(self) -> bytes: ...


class _Mulaw:
    """Exact for what came over the telephone, and a sixth of the bytes."""

    def push(self, samples: NDArray[np.int16]) -> bytes:
        return encode_mulaw(samples)

    def flush(self) -> bytes:
        return b""


class _Pcm:
    def __init__(self, rate_hz: int) -> None:
        self._resampler = StreamResampler(rate_hz, PCM_RATE_HZ)

    def push(self, samples: NDArray[np.int16]) -> bytes:
        return to_bytes(self._resampler.push(samples))

    def flush(self) -> bytes:
        return to_bytes(self._resampler.flush())


class LiveTranscription:
    """Listens along for many conversations. `hint` holds names and words that may be said; `patience_s` is how long a
    listener waits for words after a pause. The client is not closed: others use it, too."""

    def __init__(
        self,
        client: ServiceClient,
        model: str,
        *,
        hint: str = "",
        patience_s: float = 1.5,
        health: Health | None = None,
    ) -> None:
        self.client = client
        self.model = model
        self.hint = hint.strip()
        self.patience_s = patience_s
        self.health = health or Health(f"{client.name} (live transcription)")
        self._unwanted: set[str] = set()
        self._listeners: set[LiveListener] = set()

    def open(self, rate_hz: int, *, language: str | None = None, on_partial: Callable[[str], None]) -> "LiveListener":
        """A listener for one conversation, which connects at once. See SpeechToText.listen."""
        listener = LiveListener(self, rate_hz, language, on_partial, self._listeners.discard)
        self._listeners.add(listener)
        return listener

    async def close(self) -> None:
        """Close all listeners."""
        await asyncio.gather(*(listener.close() for listener in self._listeners))

    def session(self, rate_hz: int, language: str | None) -> tuple[bytes, _Encoder]:
        """The session.update event for audio of this rate, and what encodes the audio accordingly."""
        mulaw = rate_hz == MULAW_RATE_HZ and "format" not in self._unwanted
        transcription: dict[str, Any] = {"model": self.model}
        if self.hint and "prompt" not in self._unwanted:
            transcription["prompt"] = self.hint
        if language and f"language {language}" not in self._unwanted:
            transcription |= {"languages": [language]} if takes_languages(self.model) else {"language": language}
        sound = {
            "format": {"type": "audio/pcmu"} if mulaw else {"type": "audio/pcm", "rate": PCM_RATE_HZ},
            "transcription": transcription,
            "turn_detection": None,
        }
        session = {"type": "transcription", "audio": {"input": sound}}
        return orjson.dumps({"type": "session.update", "session": session}), _Mulaw() if mulaw else _Pcm(rate_hz)

    def adapt(self, error: ServiceError, language: str | None) -> bool:
        """Leave out what was refused from now on; False if that was none of what may be left out."""
        named = set(re.findall(r"[a-z_]+", error.parameter or ""))
        refused = named & {"format", "prompt"} or {f"language {language}" for _ in named & {"language", "languages"}}
        new = refused - self._unwanted
        self._unwanted |= refused
        if new:
            log.info("%s does not take %r for %s: left out", self.client.name, error.parameter, self.model)
        return bool(new)


class LiveListener:
    """Implements Listener: what is heard waits in a queue for the connection of the moment."""

    def __init__(
        self,
        live: LiveTranscription,
        rate_hz: int,
        language: str | None,
        on_partial: Callable[[str], None],
        on_close: "Callable[[LiveListener], None]",
    ) -> None:
        self._live = live
        self.rate_hz = rate_hz
        self._language = language
        self._on_partial = on_partial
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._utterance = _Utterance()
        self.queue: deque[NDArray[np.int16] | _Item | None] = deque()
        """Audio, an item to commit, or None: forget what was not committed."""
        self.more = asyncio.Event()
        self._queued = 0
        self._connection: _Connection | None = None
        self._down: ProviderError | None = None
        """Why there is no connection, and none being made."""
        self._partial_due: asyncio.TimerHandle | None = None
        self._partial_s = float("-inf")
        self._running = asyncio.create_task(self._run())

    def begin(self) -> None:
        """A new utterance; see Listener."""
        self._utterance.fail(ProviderError("The utterance was given up."))
        self._utterance = _Utterance()
        self._forget()
        if self._connection and self._loop.time() - self._connection.opened_s > RENEW_S:
            self._connection.leave()

    def hear(self, samples: NDArray[np.int16]) -> None:
        """The next audio; see Listener. What is more than the queue takes loses the utterance."""
        require_mono(samples)
        if self._utterance.error is not None:
            return
        if self._queued + len(samples) > QUEUE_S * self.rate_hz:
            self._lose(self._utterance, late(self._live.client.name, QUEUE_S))
            return
        self.queue.append(samples.copy())
        self._queued += len(samples)
        self._utterance.open.samples += len(samples)
        self.more.set()

    async def finish(self) -> Transcript:
        """The words since `begin`; see Listener."""
        utterance = self._utterance
        if utterance.error is None and self._down is not None:
            self._fail(utterance, self._down)
        if utterance.error is None:
            self._commit(utterance)
        try:
            async with asyncio.timeout(self._live.patience_s):
                for item in utterance.items:
                    await item.done.wait()
        except TimeoutError:
            self._lose(utterance, late(self._live.client.name, self._live.patience_s))
        if utterance.error is not None:
            raise utterance.error
        self._hide_partial()
        found = [item.language for item in utterance.items if item.language]
        text = without_echo(utterance.text(committed=True), self._live.hint)
        return Transcript(text, found[-1] if found else self._language)

    async def close(self) -> None:
        """End the connection and everything that runs for it."""
        self._on_close(self)
        self._down = ProviderError("The listener is closed.")
        self._fail(self._utterance, self._down)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    def next_entry(self) -> NDArray[np.int16] | _Item | None:
        """Take what is to be sent next; the queue must hold something."""
        entry = self.queue.popleft()
        if isinstance(entry, np.ndarray):
            self._queued -= len(entry)
            self._utterance.touched = True
        return entry

    def open_item(self) -> _Item:
        """What the audio belongs to that is not committed."""
        return self._utterance.open

    def told(self, item: _Item) -> None:
        """There are more words of this item. They are shown in good time, a few times a second."""
        if item.utterance is self._utterance and item.utterance.error is None and self._partial_due is None:
            pause_s = max(0.0, self._partial_s + PARTIAL_PAUSE_S - self._loop.time())
            self._partial_due = self._loop.call_later(pause_s, self._show_partial)

    def settle(self, item: _Item, usage: Usage | None, error: ServiceError | None = None) -> None:
        """The last word about an item that was committed: put down what it took, and let go who waits for it."""
        item.settled = True
        if usage is not None and item.context is not None:
            item.context.run(report, usage)
        if error is not None:
            self._live.health.failed(error)
            self._fail(item.utterance, error)
        else:
            item.done.set()

    def used(self, item: _Item) -> Usage:
        """What an item took, as far as that can be told from here."""
        seconds = item.samples / self.rate_hz
        return Usage("stt", self._live.client.name, self._live.model, audio_s=seconds, estimated=True)

    def _commit(self, utterance: _Utterance) -> None:
        item = utterance.open
        if item.samples < SHORTEST_S * self.rate_hz:
            return
        item.context = copy_context()
        utterance.items.append(item)
        utterance.open = _Item(utterance)
        self.queue.append(item)
        self.more.set()

    def _lose(self, utterance: _Utterance, error: ServiceError) -> None:
        """It took too long: neither this utterance nor this connection is waited for any more."""
        self._fail(utterance, error)
        if self._connection:
            self._live.health.failed(error)
            self._connection.leave(error)

    def _fail(self, utterance: _Utterance, error: ProviderError) -> None:
        utterance.fail(error)
        if utterance is self._utterance:
            self._forget()

    def _forget(self) -> None:
        """Nothing of what waits is sent any more, and the service is to forget what was sent."""
        self._hide_partial()
        self.queue.clear()
        self._queued = 0
        self.queue.append(None)
        self.more.set()

    def _show_partial(self) -> None:
        self._partial_due = None
        self._partial_s = self._loop.time()
        if text := self._utterance.text(committed=False):
            self._on_partial(text)

    def _hide_partial(self) -> None:
        if self._partial_due is not None:
            self._partial_due.cancel()
            self._partial_due = None

    async def _run(self) -> None:
        """Keep a connection, whatever happens to it, as long as the service is not to be left alone."""
        failures = 0
        while True:
            if self._live.health.admits():
                self._down = None
                error, worked = await self._connect()
                failures = 0 if worked or error is None else failures
                if error is None:
                    continue
                self._down = error
                if self._live.adapt(error, self._language):
                    continue
                log.info("%s: %s", self._live.health.name, error.message)
            failures += 1
            longest_s = min(MAX_PAUSE_S, PAUSE_S * 2 ** min(failures, 8))
            await asyncio.sleep(random.uniform(longest_s / 2, longest_s))  # noqa: S311 (jitter)

    async def _connect(self) -> tuple[ServiceError | None, bool]:
        """One connection from its beginning to its end: why it ended (None: it was left because of its age), and
        whether it was of use."""
        health = self._live.health
        health.begins()
        connection = None
        try:
            async with AsyncExitStack() as stack:
                connection = await self._opened(stack)
                health.given_up()  # that it can be reached does not mean that it works
                self._connection = connection
                error = await connection.serve()
        except ServiceError as failure:
            error = failure
            if connection is None or self._utterance.touched:
                health.failed(failure)
        except Exception as defect:
            log.exception("%s failed with a defect", health.name)
            error = ServiceError(f"{health.name} failed; the log says how.", code="service_failed")
            error.__cause__ = defect
            health.failed(error)
        finally:
            self._connection = None
            if connection is None:
                health.given_up()
            else:
                connection.give_up()
        if error is not None and self._utterance.touched:
            self._fail(self._utterance, error)
        return error, connection is not None and connection.worked

    async def _opened(self, stack: AsyncExitStack) -> "_Connection":
        """A connection whose session is ready to listen."""
        name = self._live.client.name
        update, encoder = self._live.session(self.rate_hz, self._language)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                socket = await stack.enter_async_context(self._live.client.websocket(PATH))
                stack.push_async_callback(_close, socket)
                await socket.send_str(update.decode())
                while (event := await _next_event(socket, name))["type"] != "session.updated":
                    if event["type"] == "error":
                        raise _fault(name, event.get("error"))
        except TimeoutError:
            raise late(name, OPEN_TIMEOUT_S) from None
        return _Connection(self, socket, encoder, name, self._loop.time())


class _Connection:
    """One session: what was sent on it, and what that has come to."""

    def __init__(
        self,
        listener: LiveListener,
        socket: aiohttp.ClientWebSocketResponse,
        encoder: _Encoder,
        name: str,
        opened_s: float,
    ) -> None:
        self.opened_s = opened_s
        self.worked = False
        """It has transcribed something."""
        self._listener = listener
        self._socket = socket
        self._encoder = encoder
        self._name = name
        self._piece: list[NDArray[np.int16]] = []
        self._appended = False
        self._expected: deque[_Item | None] = deque()
        """Commits, and clears (None), that have not been answered."""
        self._unsettled: list[_Item] = []
        self._items: dict[str, _Item] = {}
        self._left = asyncio.Event()
        self._why: ServiceError | None = None

    def leave(self, error: ServiceError | None = None) -> None:
        """Nothing more is to be sent on it."""
        self._why = error
        self._left.set()

    def give_up(self) -> None:
        """It has ended. What was committed may be paid for, though nobody hears of it any more."""
        for item in self._unsettled:
            self._listener.settle(item, replace(self._listener.used(item), given_up=True))
        self._unsettled.clear()

    async def serve(self) -> ServiceError | None:
        """Send and receive until it is left, and give the reason for that. Raises ServiceError when it breaks."""
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

    # --- what is sent

    async def _write(self) -> None:
        queue = self._listener.queue
        while True:
            while not queue:
                self._listener.more.clear()
                await self._listener.more.wait()
            if self._left.is_set():
                return
            match self._listener.next_entry():
                case None:
                    await self._clear()
                case _Item() as item:
                    await self._commit(item)
                case samples:
                    self._piece.append(samples)
                    if sum(map(len, self._piece)) >= PIECE_S * self._listener.rate_hz:
                        await self._append(self._encoder.push(self._taken()))

    async def _append(self, sound: bytes) -> None:
        if sound:
            self._appended = True
            audio = base64.b64encode(sound).decode()
            await self._socket.send_str(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')

    async def _commit(self, item: _Item) -> None:
        await self._append(self._encoder.push(self._taken()) + self._encoder.flush())
        self._appended = False
        self._expected.append(item)
        self._unsettled.append(item)
        await self._socket.send_str('{"type":"input_audio_buffer.commit"}')

    async def _clear(self) -> None:
        self._taken()
        self._encoder.flush()
        if self._appended:
            self._appended = False
            self._expected.append(None)
            await self._socket.send_str('{"type":"input_audio_buffer.clear"}')

    def _taken(self) -> NDArray[np.int16]:
        taken = np.concatenate(self._piece) if self._piece else np.zeros(0, np.int16)
        self._piece.clear()
        return taken

    # --- what comes

    async def _read(self) -> None:
        while True:
            event = await _next_event(self._socket, self._name)
            match event["type"]:
                case "input_audio_buffer.committed":
                    self._committed(event)
                case "input_audio_buffer.cleared":
                    if not self._expected or self._expected.popleft() is not None:
                        raise nonsense(self._name, "the end of a clear that was not asked for")
                case "error":
                    self._error(event.get("error"))
                case kind if kind.startswith(_TRANSCRIPTION):
                    item = self._item(str(event.get("item_id")))
                    if not item.settled:
                        self._transcribed(kind.removeprefix(_TRANSCRIPTION), item, event)

    def _committed(self, event: dict[str, Any]) -> None:
        item = self._expected.popleft() if self._expected else None
        if item is None:
            raise nonsense(self._name, "a commit that was not asked for")
        self._remember(str(event.get("item_id")), item)

    def _item(self, item_id: str) -> _Item:
        """The item of this id. One that is not known yet is what the service works on: the oldest commit that it has
        not answered, else the audio behind the last one; if that is about to be cleared, it is nobody's."""
        if item_id not in self._items:
            item = self._expected[0] if self._expected else self._listener.open_item()
            self._remember(item_id, item or _Item(_Utterance()))
        return self._items[item_id]

    def _remember(self, item_id: str, item: _Item) -> None:
        self._items[item_id] = item
        if len(self._items) > MAX_ITEMS:
            del self._items[next(iter(self._items))]

    def _transcribed(self, kind: str, item: _Item, event: dict[str, Any]) -> None:
        match kind:
            case "delta":
                item.text += str(event.get("delta") or "")
                self._listener.told(item)
            case "completed":
                self.worked = True
                item.text = str(event.get("transcript") or "")
                item.language = spoken_language(event)
                self._settle(item, counted(self._listener.used(item), event.get("usage")))
            case "failed":
                used = replace(self._listener.used(item), given_up=True)
                self._settle(item, used, _fault(self._name, event.get("error")))

    def _settle(self, item: _Item, usage: Usage | None, error: ServiceError | None = None) -> None:
        if item in self._unsettled:
            self._unsettled.remove(item)
            self._listener.settle(item, usage, error)

    def _error(self, error: Any) -> None:
        """A commit that came to nothing is harmless. Nobody knows what else was not done: raises ServiceError."""
        if not isinstance(error, dict) or error.get("code") != "input_audio_buffer_commit_empty":
            raise _fault(self._name, error)
        item = next((entry for entry in self._expected if entry is not None), None)
        if item is not None:
            self._expected.remove(item)
            self._settle(item, None)


async def _next_event(socket: aiohttp.ClientWebSocketResponse, name: str) -> dict[str, Any]:
    """Raises ServiceError when the service ended the session, or sends what is no event."""
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


async def _close(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Say goodbye, but wait for no answer that does not come."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await socket.close()


def _fault(name: str, error: Any) -> ServiceError:
    """What an error event, or a transcription that failed, means."""
    details = error if isinstance(error, dict) else {}
    code = f"{details.get('code')} {details.get('type')}".lower()
    if "rate_limit" in code:
        return ServiceError(f"{name} transcribes no more just now.", code="rate_limited")
    if "api_key" in code or "authentication" in code:
        return ServiceError(f"{name} does not take the key.", code="key_refused")
    parameter = details.get("param")
    if isinstance(parameter, str) and "invalid_request" in code:
        return ServiceError(f"{name} does not take the session.", code="service_refused", parameter=parameter)
    return stream_error(name, details)
