"""An utterance so far, as recognition and the turn model take it."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from app.audio.resample import resample

MODELS_HZ = 16_000
"""What recognition and the turn model take."""


class Recording:
    """Audio (int16 mono [n]) that is converted once, in a thread, by whoever asks first."""

    def __init__(self, samples: NDArray[np.int16], rate_hz: int) -> None:
        self._samples = samples
        self._rate_hz = rate_hz
        self._converting = asyncio.Lock()

    async def for_models(self) -> NDArray[np.int16]:
        """int16 mono [n] at MODELS_HZ."""
        async with self._converting:
            if self._rate_hz != MODELS_HZ:
                self._samples = await asyncio.to_thread(resample, self._samples, self._rate_hz, MODELS_HZ)
                self._rate_hz = MODELS_HZ
        return self._samples
