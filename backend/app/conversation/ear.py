"""The listening half of a conversation: audio in, speech events out.

Audio comes in at any pace and in any length (`hear`), waits in a bounded inbox, and is looked at in order (`listen`).
When the client stops sending, the time that passes counts as silence, so that turns end and alarms go off all the same.

Where few talk, audio is looked at as it comes. Where many do (`crowded`), it is looked at on the beat that all
conversations share, and by whole windows only: the voice detector then runs once for all of them, and not while others
are waiting for their frames.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.audio.buffer import AudioBuffer
from app.conversation.events import BufferFull, Event
from app.conversation.hearing import SpeechGate
from app.core.errors import OverloadedError, ProviderError
from app.vad.base import WINDOW_MS, VoiceStream

INBOX_LIMIT_MS = 30_000.0
"""Audio received but not yet looked at; beyond this the oldest goes and is counted."""
LONG_CHUNK_S = 1.0
"""A client that sends chunks of up to this length is waited for accordingly."""
STALL_S = 0.2
"""When nobody has looked for so long, what the client sent meanwhile is still on its way to us."""
YIELD_WINDOWS = 32
"""Silence needs no waiting; after this much of it (a second) others get their turn all the same."""
log = logging.getLogger(__name__)


class Ear:
    """Hears one audio stream. `on_event` gets the speech events, `on_audio` all audio as it is looked at, silence for
    what did not come; `on_time` is called when the audio clock has moved."""

    def __init__(
        self,
        voice: VoiceStream,
        buffer: AudioBuffer,
        gate: SpeechGate,
        *,
        client_silence_ms: float,
        timeout_s: float,
        now_s: Callable[[], float],
        crowded: Callable[[], bool] = lambda: False,
        on_audio: Callable[[NDArray[np.int16]], None] = lambda _: None,
        on_event: Callable[[Event], None],
        on_time: Callable[[], None],
    ) -> None:
        self.dropped_ms = 0.0
        """Audio that came faster than it could be looked at and was lost."""
        self.buffer = buffer
        self._rate_hz = voice.rate_hz
        self._window = int(voice.rate_hz * WINDOW_MS / 1000)
        self._voice = voice
        self._gate = gate
        self._client_silence_s = client_silence_ms / 1000
        self._patience_s = self._client_silence_s
        self._timeout_s = timeout_s
        self._asked_s: float | None = None
        """When the voice detector was asked what it has not answered yet."""
        self._now_s = now_s
        self._crowded = crowded
        self._on_audio = on_audio
        self._on_event = on_event
        self._on_time = on_time
        self._inbox: deque[NDArray[np.int16] | int] = deque()
        self._inbox_samples = 0
        self._wake = asyncio.Event()
        self._closed = False
        self._covered_s = self._ticked_s = now_s()
        buffer.note_arrival(self._covered_s)
        self._silent = self._muted = self._overloaded = False
        self._fed = self._windows = 0

    @property
    def clock_ms(self) -> float:
        """The audio clock: milliseconds of audio (and silence) looked at."""
        return self.buffer.received_ms

    @property
    def idle(self) -> bool:
        """Everything that came in has been looked at."""
        return not self._inbox and not self._wake.is_set()

    def when_s(self, clock_ms: float) -> float:
        """The time (of `now_s`) at which this moment of the audio clock reached us."""
        arrived_ms = self.clock_ms + self._inbox_samples * 1000 / self._rate_hz
        return self._covered_s - (arrived_ms - clock_ms) / 1000

    def last_voice_s(self) -> float:
        """The time (of `now_s`) at which the last voice reached us."""
        return self.when_s(self.buffer.last_voice_ms)

    def voiced_ms_since(self, onset_ms: float) -> float:
        """How much voice was heard after this moment of the audio clock, without the pauses between; a window is 32 ms.
        What the detector had no time to look at counts as voice if somebody was speaking."""
        return self._gate.voiced_ms_since(onset_ms)

    def hear(self, samples: NDArray[np.int16]) -> None:
        """Take audio (int16 mono [n]) without waiting. Ignored while muted, and after `close`."""
        if self._muted or self._closed or not len(samples):
            return
        now_s, length_s = self._now_s(), len(samples) / self._rate_hz
        # A client that sends is a client that keeps at least half of the pace: a sample now and then is no sending.
        arrived_s = now_s - min(self.buffer.since_arrival_s(now_s), self._patience_s / 2)
        self.buffer.note_arrival(min(now_s, arrived_s + 2 * length_s))
        self._patience_s = self._client_silence_s + min(length_s, LONG_CHUNK_S)
        self._silent = False
        self._covered_s = now_s
        self._receive(samples)
        if not self._crowded():
            self._wake.set()

    def mute(self, muted: bool) -> None:
        """Muted, everything counts as silence from now on."""
        self._muted = muted

    def tick(self) -> None:
        """Call often: notices that the client has stopped sending, and lets silence pass instead. Raises ProviderError
        when the voice detector does not answer any more."""
        now_s = self._now_s()
        if self._inbox and self._inbox_samples >= self._until_window:
            self._wake.set()
        if self._asked_s is not None and now_s - self._asked_s >= self._timeout_s:
            raise ProviderError(f"The voice detector gave nothing for {self._timeout_s:g} s.")
        stalled = now_s - self._ticked_s >= STALL_S
        self._ticked_s = now_s
        if stalled:
            return
        gap_s = now_s - self._covered_s
        if self._muted or self.buffer.since_arrival_s(now_s) >= self._patience_s:
            self._silent = True
        if self._silent and gap_s > 0:
            self._covered_s += gap_s
            self._receive(round(gap_s * self._rate_hz))
            self._wake.set()

    def close(self) -> None:
        """Let `listen` return."""
        self._closed = True
        self._wake.set()

    async def listen(self) -> None:
        """Look at what comes in until `close`. Raises ProviderError when the voice detector fails."""
        while not self._closed:
            await self._wake.wait()
            while not self._closed and (audio := self._next()) is not None:
                if isinstance(audio, int):
                    await self._take_silence(audio)
                else:
                    await self._take(audio)
            self._wake.clear()

    @property
    def _until_window(self) -> int:
        """Samples that complete the detector's next window."""
        return self._window - self._fed % self._window

    def _next(self) -> NDArray[np.int16] | int | None:
        """What to look at next, up to the end of a window, so that what happens in it happens at its own time; None
        when there is nothing, or nothing worth looking at yet."""
        if not self._inbox:
            return None
        audio = self._inbox.popleft()
        if isinstance(audio, int):
            self._inbox_samples -= audio
            return audio
        wanted = self._until_window
        while len(audio) < wanted and self._inbox and not isinstance(self._inbox[0], int):
            audio = np.concatenate((audio, self._inbox.popleft()))
        if len(audio) < wanted and not self._inbox and self._crowded():
            self._inbox.appendleft(audio)
            return None
        if len(audio) > wanted:
            self._inbox.appendleft(audio[wanted:])
            audio = audio[:wanted]
        self._inbox_samples -= len(audio)
        return audio

    def _receive(self, audio: NDArray[np.int16] | int) -> None:
        self._inbox.append(audio)
        self._inbox_samples += _length(audio)
        while self._inbox_samples * 1000 > INBOX_LIMIT_MS * self._rate_hz and len(self._inbox) > 1:
            lost = _length(self._inbox.popleft())
            self._inbox_samples -= lost
            self.dropped_ms += lost * 1000 / self._rate_hz

    async def _take(self, samples: NDArray[np.int16]) -> None:
        if self._closed:
            return
        self.buffer.append(samples)
        self._on_audio(samples)
        self._fed += len(samples)
        self._asked_s = self._now_s()
        try:
            probabilities = await self._voice.feed(samples)
            self._overloaded = False
        except OverloadedError as error:  # this window stays unheard; the next ones may fare better
            if not self._overloaded:
                log.warning("%s", error.message)
            self._overloaded = True
            self._voice.reset()
            self._fed = self._windows = 0
            self._gate.miss(self.clock_ms)
            probabilities = []
        finally:
            self._asked_s = None
        for probability in probabilities:
            self._windows += 1
            self._step(probability, self.clock_ms - (self._fed - self._windows * self._window) * 1000 / self._rate_hz)
        self._after()

    async def _take_silence(self, samples: int) -> None:
        """Silence needs no detector."""
        self._voice.reset()
        self._fed = self._windows = 0
        for window, start in enumerate(range(0, samples, self._window), 1):
            if self._closed:
                return
            silence = np.zeros(min(self._window, samples - start), np.int16)
            self.buffer.append(silence)
            self._on_audio(silence)
            self._step(0.0, self.clock_ms)
            self._after()
            if window % YIELD_WINDOWS == 0:
                await asyncio.sleep(0)

    def _step(self, probability: float, at_ms: float) -> None:
        events = list(self._gate.step(probability, at_ms))
        self.buffer.note_voice(self._gate.last_voice_ms)
        for event in events:
            self._on_event(event)

    def _after(self) -> None:
        if self.buffer.full:
            self._on_event(BufferFull(self.clock_ms))
        self._on_time()


def _length(audio: NDArray[np.int16] | int) -> int:
    return audio if isinstance(audio, int) else len(audio)
