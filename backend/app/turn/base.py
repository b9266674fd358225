"""End-of-turn detection: has the speaker finished, or only paused?"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class TurnDetector(Protocol):
    """Scores the pause at the end of what has been said so far; shared by all conversations."""

    async def score(self, audio: NDArray[np.int16]) -> float:
        """The probability (0..1) that the turn in `audio` (int16, mono, 16 kHz, [n]; only the last 8 s count) is
        complete. Cancelling the call gives the work up if it has not begun.

        Raises ProviderError when the model fails and OverloadedError when too much work is waiting.
        """
        ...

    async def close(self) -> None:
        """Stop the worker."""
        ...
