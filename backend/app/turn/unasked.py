"""In place of a turn model where the end of a turn is found by silence or by time."""

import numpy as np
from numpy.typing import NDArray


class UnaskedTurnDetector:
    """Implements TurnDetector for conversations that never ask it."""

    async def score(self, audio: NDArray[np.int16]) -> float:
        """No evidence."""
        return 0.5

    async def close(self) -> None:
        """Nothing to stop."""
