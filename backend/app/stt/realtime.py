"""Speech recognition while somebody speaks: a session of a service for each conversation, ready before it is needed.

Each pause is committed, so that an utterance with pauses becomes several items, whose words are joined. Whatever goes
wrong, the utterance is lost here and is to be uploaded; the next one begins on a new session. OpenAI ends sessions
after 60 minutes (guide "Realtime conversations"): they are renewed in time, between two utterances.
"""

import asyncio
import logging
import random
import re
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import copy_context
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from app.audio.pcm import require_mono
from app.core.errors import ProviderError, ServiceError
from app.remote.client import ServiceClient
from app.remote.faults import late
from app.remote.health import Health
from app.stt.base import Transcript
from app.stt.realtime_session import (
    MULAW_RATE_HZ,
    OPEN_TIMEOUT_S,
    PCM_RATE_HZ,
    Encoder,
    Item,
    MulawEncoder,
    PcmEncoder,
    Session,
    Utterance,
    configure,
    say_goodbye,
)
from app.stt.whisper import takes_languages
from app.usage.meter import Usage, report

PATH = "/realtime?intent=transcription"
"""Without a model in it, which would make it a conversation with that model (guide "Realtime transcription")."""
SHORTEST_S = 0.1
"""Less cannot be committed (error input_audio_buffer_commit_empty)."""
QUEUE_S = 10.0
"""So much audio waits for a session that is being opened, or that is slow."""
RENEW_S = 55 * 60.0
PAUSE_S, MAX_PAUSE_S = 0.2, 5.0
"""Before connecting again: twice as long each time it fails, and half of it by chance."""
PARTIAL_PAUSE_S = 0.1

log = logging.getLogger(__name__)


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
        self.health = health or Health(f"{client.name} (live recognition)")
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

    def session_update(self, rate_hz: int, language: str | None) -> tuple[str, Encoder]:
        """The event that makes a session ready for audio of this rate, and what encodes the audio for it."""
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
        update = orjson.dumps({"type": "session.update", "session": session}).decode()
        return update, MulawEncoder() if mulaw else PcmEncoder(rate_hz)

    def adapt(self, error: ServiceError, language: str | None) -> bool:
        """Leave out what was refused from now on; False if that was none of what may be left out."""
        named = set(re.findall(r"[a-z_]+", error.parameter or ""))
        refused = named & {"format", "prompt"}
        if language and named & {"language", "languages"}:
            refused.add(f"language {language}")
        new = refused - self._unwanted
        self._unwanted |= new
        if new:
            log.info("%s does not take %r for %s: left out", self.client.name, error.parameter, self.model)
        return bool(new)


class LiveListener:
    """Implements Listener, and is the Source of its sessions: what is heard waits for the one that is open."""

    def __init__(
        self,
        live: LiveTranscription,
        rate_hz: int,
        language: str | None,
        on_partial: Callable[[str], None],
        on_close: "Callable[[LiveListener], None]",
    ) -> None:
        self.rate_hz = rate_hz
        self.queue: deque[NDArray[np.int16] | Item | None] = deque()
        self.more = asyncio.Event()
        self._live = live
        self._language = language
        self._on_partial = on_partial
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._utterance = Utterance()
        self._queued = 0
        self._session: Session | None = None
        self._down: ProviderError | None = None
        """Why there is no session, and none being opened."""
        self._partial_due: asyncio.TimerHandle | None = None
        self._partial_s = float("-inf")
        self._running = asyncio.create_task(self._run())

    def begin(self) -> None:
        """A new utterance; see Listener."""
        self._utterance.fail(ProviderError("The utterance was given up."))
        self._utterance = Utterance()
        self._forget()
        if not self._live.health.admits():
            self._utterance.fail(self._left_alone())
        if self._session and self._loop.time() - self._session.opened_s > RENEW_S:
            self._session.leave()

    def hear(self, samples: NDArray[np.int16]) -> None:
        """The next audio; see Listener. More than the queue takes loses the utterance."""
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
        except asyncio.CancelledError:
            if not self._live.health.works:
                self._live.health.given_up()
            raise
        if utterance.error is not None:
            raise utterance.error
        self._hide_partial()
        return utterance.transcript(self._live.hint, self._language)

    async def close(self) -> None:
        """End the session and everything that runs for it."""
        self._on_close(self)
        self._down = ProviderError("The listener is closed.")
        self._fail(self._utterance, self._down)
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    # --- the source of a session

    def take(self) -> NDArray[np.int16] | Item | None:
        """See Source."""
        entry = self.queue.popleft()
        if isinstance(entry, np.ndarray):
            self._queued -= len(entry)
            self._utterance.touched = True
        return entry

    def open_item(self) -> Item:
        """See Source."""
        return self._utterance.open

    def told(self, item: Item) -> None:
        """See Source. The words are shown in good time, a few times a second."""
        if item.utterance is self._utterance and item.utterance.error is None and self._partial_due is None:
            pause_s = max(0.0, self._partial_s + PARTIAL_PAUSE_S - self._loop.time())
            self._partial_due = self._loop.call_later(pause_s, self._show_partial)

    def settle(self, item: Item, usage: Usage | None, error: ServiceError | None = None) -> None:
        """See Source."""
        item.settled = True
        if usage is not None and item.context is not None:
            item.context.run(report, usage)
        if error is not None:
            self._live.health.failed(error)
            self._fail(item.utterance, error)
        elif usage is None or not usage.given_up:
            self._live.health.succeeded()
            item.done.set()

    # --- utterances

    def _commit(self, utterance: Utterance) -> None:
        item = utterance.open
        if item.samples < SHORTEST_S * self.rate_hz:
            return
        if not self._live.health.works:
            self._live.health.begins()  # whether it works again is found out now
        item.context = copy_context()
        utterance.items.append(item)
        utterance.open = Item(utterance)
        self.queue.append(item)
        self.more.set()

    def _lose(self, utterance: Utterance, error: ServiceError) -> None:
        """It took too long: neither this utterance nor this session is waited for any more."""
        if utterance.error is not None:
            return
        self._fail(utterance, error)
        if self._session:
            self._live.health.failed(error)
            self._session.leave(error)

    def _fail(self, utterance: Utterance, error: ProviderError) -> None:
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

    def _left_alone(self) -> ServiceError:
        return ServiceError(f"{self._live.health.name} is left alone for a while.", refused=True)

    def _show_partial(self) -> None:
        self._partial_due = None
        self._partial_s = self._loop.time()
        if text := self._utterance.text_so_far():
            self._on_partial(text)

    def _hide_partial(self) -> None:
        if self._partial_due is not None:
            self._partial_due.cancel()
            self._partial_due = None

    # --- sessions

    async def _run(self) -> None:
        """Keep a session, whatever happens to it, as long as the service is not to be left alone."""
        failures = 0
        while True:
            if self._live.health.admits():
                self._down = None
                error, worked = await self._hold_session()
                if error is None or self._live.adapt(error, self._language):
                    continue
                self._down = error
                if self._utterance.awaited:
                    self._fail(self._utterance, error)
                failures = 0 if worked else failures
                log.debug("%s: %s", self._live.health.name, error.message)
            elif self._down is None:
                self._down = self._left_alone()
            failures += 1
            longest_s = min(MAX_PAUSE_S, PAUSE_S * 2 ** min(failures, 8))
            await asyncio.sleep(random.uniform(longest_s / 2, longest_s))  # noqa: S311 (jitter)

    async def _hold_session(self) -> tuple[ServiceError | None, bool]:
        """One session from its beginning to its end: why it ended (None: it was left because of its age), and whether
        it was of use."""
        health = self._live.health
        health.begins()
        session = None
        try:
            async with AsyncExitStack() as stack:
                session = self._session = await self._open(stack)
                health.given_up()  # that it can be reached does not mean that it works
                error = await session.serve()
        except ServiceError as failure:
            error = failure
            if session is None or self._utterance.unfinished:  # else connecting again will tell
                health.failed(failure)
        except Exception as defect:
            log.exception("%s failed with a defect", health.name)
            error = ServiceError(f"{health.name} failed; the log says how.")
            health.failed(error)
            error.__cause__ = defect
        finally:
            self._session = None
            if session is None:
                health.given_up()
            else:
                session.give_up()
        if error is not None and self._utterance.unfinished:
            self._fail(self._utterance, error)
        return error, session is not None and session.worked

    async def _open(self, stack: AsyncExitStack) -> Session:
        """A session that is ready to listen."""
        client = self._live.client
        update, encoder = self._live.session_update(self.rate_hz, self._language)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                socket = await stack.enter_async_context(client.websocket(PATH))
                stack.push_async_callback(say_goodbye, socket)
                await configure(socket, client.name, update)
        except TimeoutError:
            raise late(client.name, OPEN_TIMEOUT_S) from None
        return Session(self, socket, encoder, Usage("stt", client.name, self._live.model), self._loop.time())
