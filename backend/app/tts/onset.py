"""Where the words begin: the silence that services put in front of them is time that the listener waits."""

import numpy as np
from numpy.typing import NDArray

AUDIBLE = 184
"""-45 dBFS: what is quieter is taken for silence."""
LEAD_MS = 10
"""Kept in front of the first audible sample, faded in, so that a soft onset is not cut."""
MOST_MS = 300
"""No more than this is taken away: a voice that whispers is not eaten."""


class Onset:
    """Takes the silence in front of a stream away; audio passes as it is from the first sound on."""

    def __init__(self, rate_hz: int) -> None:
        self._lead = LEAD_MS * rate_hz // 1000
        self._room = MOST_MS * rate_hz // 1000
        self._held: NDArray[np.int16] | None = np.zeros(0, np.int16)

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """What of these samples (int16 mono [n]), and of those before, is to be heard."""
        if self._held is None:
            return samples
        waiting = np.concatenate((self._held, samples))
        audible = np.flatnonzero((waiting > AUDIBLE) | (waiting < -AUDIBLE))
        first = int(audible[0]) if len(audible) else len(waiting)
        silent = max(0, first - self._lead)
        cut = min(silent, self._room)
        self._room -= cut
        waiting = waiting[cut:]
        if not len(audible) and self._room:
            self._held = waiting
            return waiting[:0]
        self._held = None
        if not cut:
            return waiting
        waiting = waiting.copy()
        fade = np.linspace(0, 1, min(self._lead, len(waiting)))
        waiting[: len(fade)] = np.rint(waiting[: len(fade)] * fade).astype(np.int16)
        return waiting
