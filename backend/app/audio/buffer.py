"""The audio of one conversation that may still be needed: a short past, and the utterance that is being spoken.

While nobody speaks only the last moments stay (the pre-roll), so that an utterance begins before its first syllable. An
utterance grows until it is taken (`consume`) or dropped; one that reaches the limit is `full` and should be taken, and
what comes after it is kept for the next one. Times are milliseconds of the audio clock: audio received so far.
"""

import threading

import numpy as np
from numpy.typing import NDArray

from app.audio.pcm import require_mono

LOOKBACK_MS = 300.0
"""An onset is known this long after it happened, at most; and the next utterance begins this long after the last one
was taken, if it is to have all that was left behind."""
_ROOM_MS = 100.0
"""The least room to grow that memory is taken with, so that short chunks do not move everything each time."""


class AudioBuffer:
    """Holds int16 mono audio at `rate_hz`; any thread may call any method.

    An utterance of 30 s is 1 MB. Memory is bounded whatever the lengths of the chunks: by 2.5 times the limit however
    long nobody takes an utterance, by some 50 kB (at 16 kHz, with a pre-roll of 300 ms) while there is none.
    """

    def __init__(self, rate_hz: int = 16_000, *, preroll_ms: float = 300.0, limit_ms: float = 30_000.0) -> None:
        self.rate_hz = rate_hz
        self._preroll = self._samples(preroll_ms)
        self._limit = self._samples(limit_ms)
        self._lookback = self._samples(LOOKBACK_MS)
        self._room = self._samples(_ROOM_MS)
        self._lock = threading.Lock()
        self._memory = np.zeros(0, np.int16)
        self._start = self._stop = 0
        """What is kept is `_memory[_start:_stop]`."""
        self._first = 0
        """Position of the first sample kept: how many were received before it."""
        self._received = 0
        self._begin: int | None = None
        """Position at which the utterance begins; None while there is none."""
        self._taken = 0
        """Everything before this position belonged to earlier utterances."""
        self._left_until = 0
        """Position up to which audio may come before what an utterance left behind is only past."""
        self._last_voice_ms = 0.0
        self._arrived_s: float | None = None
        self._dropped = 0

    # --- what comes in

    def append(self, samples: NDArray[np.int16]) -> None:
        """Add audio (int16 [n], copied). Raises AudioFormatError for other types and shapes."""
        require_mono(samples)
        if not len(samples):
            return
        with self._lock:
            position = self._received
            self._received += len(samples)
            self._forget()
            self._store(samples[max(0, self._first - position) :])

    def note_arrival(self, now_s: float) -> None:
        """The client has sent audio at this time of any steady clock (seconds)."""
        self._arrived_s = now_s

    def note_voice(self, at_ms: float) -> None:
        """The voice detector has heard a voice until `at_ms`."""
        with self._lock:
            self._last_voice_ms = max(self._last_voice_ms, at_ms)

    def begin_utterance(self, onset_ms: float) -> None:
        """An utterance begins, with the pre-roll before `onset_ms`, or with the end of the utterance before it if that
        is later. Does nothing if one is being kept already."""
        with self._lock:
            if self._begin is None:
                onset = min(self._samples(onset_ms), self._received)
                self._begin = max(onset - self._preroll, self._taken, self._first)

    # --- what is known

    @property
    def received_ms(self) -> float:
        """The audio clock."""
        return self._received * 1000 / self.rate_hz

    @property
    def last_voice_ms(self) -> float:
        """When the last voice was heard; 0 before the first."""
        return self._last_voice_ms

    @property
    def silence_ms(self) -> float:
        """How long no voice has been heard."""
        return max(0.0, self.received_ms - self._last_voice_ms)

    @property
    def dropped_ms(self) -> float:
        """Audio lost because nobody took the utterance after it was full."""
        return self._dropped * 1000 / self.rate_hz

    def since_arrival_s(self, now_s: float) -> float:
        """How long the client has sent nothing (seconds); 0 before its first audio."""
        return 0.0 if self._arrived_s is None else max(0.0, now_s - self._arrived_s)

    @property
    def full(self) -> bool:
        """The utterance has reached the limit and should be taken now."""
        with self._lock:
            return self._begin is not None and self._received - self._begin >= self._limit

    # --- the utterance

    def peek(self) -> NDArray[np.int16]:
        """The utterance so far (int16 [n], a copy, at most the limit); empty when there is none."""
        with self._lock:
            return self._slice(self._received)

    def consume(self, until_ms: float | None = None) -> NDArray[np.int16]:
        """Take the utterance up to `until_ms` (else all of it), at most the limit; what follows stays for the next."""
        with self._lock:
            utterance = self._slice(self._received if until_ms is None else self._samples(until_ms))
            if self._begin is not None:
                self._taken = max(self._taken, self._begin + len(utterance))
                self._left_until = self._received + self._lookback
                self._begin = None
            return utterance

    def drop_utterance(self) -> None:
        """It was no utterance; its audio is only past now."""
        with self._lock:
            self._begin = None
            self._left_until = 0
            self._forget()

    # --- with the lock held

    def _samples(self, time_ms: float) -> int:
        return round(time_ms * self.rate_hz / 1000)

    def _slice(self, end: int) -> NDArray[np.int16]:
        if self._begin is None:
            return np.zeros(0, np.int16)
        end = min(end, self._received, self._begin + self._limit)
        offset = self._start - self._first
        return self._memory[self._begin + offset : max(self._begin, end) + offset].copy()

    def _store(self, samples: NDArray[np.int16]) -> None:
        """Write behind what is kept, in memory with a quarter to spare; given back when half of it would do."""
        kept = self._stop - self._start
        needed = kept + len(samples)
        if self._stop + len(samples) > len(self._memory) or len(self._memory) > 2 * (needed + self._room):
            memory = np.empty(needed + max(needed // 4, self._room), np.int16)
            memory[:kept] = self._memory[self._start : self._stop]
            self._memory, self._start, self._stop = memory, 0, kept
        self._memory[self._stop : self._stop + len(samples)] = samples
        self._stop += len(samples)

    def _forget(self) -> None:
        """Let go of what no utterance can need any more."""
        keep = self._received - self._preroll - self._lookback
        if self._begin is not None:
            excess = max(0, self._received - self._begin - 2 * self._limit)
            self._begin += excess  # nobody takes the utterance: its oldest audio goes
            self._dropped += excess
            keep = min(keep, self._begin)
        elif self._received <= self._left_until:
            keep = min(keep, self._taken)
        gone = max(0, keep - self._first)
        self._first += gone
        self._start = min(self._start + gone, self._stop)
