"""The audio of one conversation that may still be needed: a short past, and the utterance that is being spoken.

While nobody speaks only the last moments stay (the pre-roll), so that an utterance begins before its first syllable. An
utterance grows until it is taken (`consume`) or dropped; one that reaches the limit is `full` and should be taken, and
what comes after it is kept for the next one. Times are milliseconds of the audio clock: audio received so far.
"""

import threading
from collections import deque

import numpy as np
from numpy.typing import NDArray

from app.core.errors import AudioFormatError

LOOKBACK_MS = 300.0
"""An onset is known this long after it happened, at most."""


class AudioBuffer:
    """Holds int16 mono audio at `rate_hz`; any thread may call any method. Memory is bounded by twice the limit."""

    def __init__(self, rate_hz: int = 16_000, *, preroll_ms: float = 300.0, limit_ms: float = 30_000.0) -> None:
        self.rate_hz = rate_hz
        self._preroll = self._samples(preroll_ms)
        self._limit = self._samples(limit_ms)
        self._lock = threading.Lock()
        self._chunks: deque[NDArray[np.int16]] = deque()
        self._first = 0
        """Position of the first sample kept."""
        self._received = 0
        self._begin: int | None = None
        """Position at which the utterance begins; None while there is none."""
        self._taken = 0
        """Everything before this position belonged to earlier utterances."""
        self._last_voice_ms = 0.0
        self._arrived_s: float | None = None
        self.dropped_ms = 0.0
        """Audio lost because nobody took the utterance after it was full."""

    # --- what comes in

    def append(self, samples: NDArray[np.int16]) -> None:
        """Add audio (int16 [n])."""
        if samples.dtype != np.int16 or samples.ndim != 1:
            raise AudioFormatError(f"Audio of type {samples.dtype} and shape {samples.shape} is not mono int16.")
        if not len(samples):
            return
        with self._lock:
            self._chunks.append(samples)
            self._received += len(samples)
            self._trim()

    def note_arrival(self, now_s: float) -> None:
        """The client has sent audio at this time of any steady clock (seconds)."""
        self._arrived_s = now_s

    def note_voice(self, at_ms: float) -> None:
        """The voice detector has heard a voice until `at_ms`."""
        self._last_voice_ms = max(self._last_voice_ms, at_ms)

    def begin_utterance(self, onset_ms: float) -> None:
        """An utterance begins, with the pre-roll before `onset_ms`. Does nothing if one is being kept already."""
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
        """The utterance so far (int16 [n], a copy); empty when there is none."""
        with self._lock:
            return self._slice(self._end())

    def consume(self, until_ms: float | None = None) -> NDArray[np.int16]:
        """Take the utterance up to `until_ms` (else all of it, at most the limit); what follows stays for the next."""
        with self._lock:
            end = self._end()
            if until_ms is not None:
                end = min(end, self._samples(until_ms))
            utterance = self._slice(end)
            if self._begin is not None:
                self._taken = max(self._taken, self._begin + len(utterance))
                self._begin = None
            return utterance

    def drop_utterance(self) -> None:
        """It was no utterance; its audio is only past now."""
        with self._lock:
            self._begin = None
            self._trim()

    # --- with the lock held

    def _samples(self, time_ms: float) -> int:
        return round(time_ms * self.rate_hz / 1000)

    def _end(self) -> int:
        return self._received if self._begin is None else min(self._received, self._begin + self._limit)

    def _slice(self, end: int) -> NDArray[np.int16]:
        if self._begin is None or end <= self._begin:
            return np.zeros(0, np.int16)
        parts = []
        position = self._first
        for chunk in self._chunks:
            if position < end and position + len(chunk) > self._begin:
                parts.append(chunk[max(0, self._begin - position) : end - position])
            position += len(chunk)
        return np.concatenate(parts)

    def _trim(self) -> None:
        """Forget what no utterance can need any more."""
        if self._begin is None:
            keep = self._received - self._preroll - self._samples(LOOKBACK_MS)
        else:
            keep = self._begin
            excess = self._received - self._begin - 2 * self._limit
            if excess > 0:  # nobody takes the utterance: its oldest audio goes
                self._begin += excess
                keep = self._begin
                self.dropped_ms += excess * 1000 / self.rate_hz
        while self._chunks and self._first + len(self._chunks[0]) <= keep:
            self._first += len(self._chunks.popleft())
