"""From speech probabilities to speech events: where a voice begins, that it goes on, where it pauses.

Two thresholds (hysteresis) keep one noisy window from splitting a word; two windows are asked for before a voice counts
as begun, so that a click does not.
"""

from collections import deque
from collections.abc import Iterator

from app.conversation.events import SpeechPaused, SpeechStarted, SpeechSustained
from app.vad.base import WINDOW_MS

START_PROBABILITY = 0.5
"""A window counts as voice from here on while nobody speaks (the detector's own default threshold)."""
STAY_PROBABILITY = 0.35
"""While someone speaks, a window counts as voice from here on (the detector's authors use 0.15 less than to start)."""
START_WINDOWS = 2
VOICE_MEMORY_MS = 60_000
"""So much voice is remembered, window by window: twice the longest utterance, as an utterance may wait to be taken."""


class SpeechGate:
    """The speech state of one audio stream. `sustained_ms` of voice make it SpeechSustained, `pause_ms` without any
    make it SpeechPaused."""

    def __init__(self, *, sustained_ms: float, pause_ms: float) -> None:
        self._sustained_ms = sustained_ms
        self._pause_ms = pause_ms
        self.speaking = False
        self._voiced = 0
        self._sustained = False
        self.last_voice_ms = 0.0
        """End of the last window that held a voice."""
        self._voiced_ends_ms: deque[float] = deque(maxlen=VOICE_MEMORY_MS // WINDOW_MS)

    def voiced_ms_since(self, onset_ms: float) -> float:
        """How much voice there was after `onset_ms` (of the audio clock, as in SpeechStarted): the length of all
        windows that counted as voice, at most VOICE_MEMORY_MS. Pauses are not in it. Takes as long as there are such
        windows."""
        windows = 0
        for end_ms in reversed(self._voiced_ends_ms):
            if end_ms <= onset_ms:
                break
            windows += 1
        return float(windows * WINDOW_MS)

    def miss(self, at_ms: float) -> None:
        """The window that ends at `at_ms` was not looked at. While somebody speaks it is measured as voice, since words
        that may have been said in it must not be taken for invented ones; nothing else follows from it."""
        if self.speaking:
            self._voiced_ends_ms.append(at_ms)

    def step(self, probability: float, at_ms: float) -> Iterator[SpeechStarted | SpeechSustained | SpeechPaused]:
        """Take the probability of the window that ends at `at_ms` and give the events that follow from it."""
        if probability >= (STAY_PROBABILITY if self.speaking else START_PROBABILITY):
            self._voiced += 1
            self.last_voice_ms = at_ms
            self._voiced_ends_ms.append(at_ms)
        elif not self.speaking:
            self._voiced = 0
        if not self.speaking:
            if self._voiced >= START_WINDOWS:
                self.speaking, self._sustained = True, False
                yield SpeechStarted(at_ms, onset_ms=max(0.0, at_ms - self._voiced * WINDOW_MS))
        elif at_ms - self.last_voice_ms >= self._pause_ms:
            self.speaking, self._voiced = False, 0
            yield SpeechPaused(at_ms, self.last_voice_ms)
        if self.speaking and not self._sustained and self._voiced * WINDOW_MS >= self._sustained_ms:
            self._sustained = True
            yield SpeechSustained(at_ms)
