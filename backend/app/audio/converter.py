"""A stream of audio at another rate, without holding up the event loop."""

import asyncio

import numpy as np
from numpy.typing import NDArray

from app.audio.resample import StreamResampler

CONVERTED_AT_ONCE = 6000
"""Samples that are converted on the event loop: about 0.2 ms of work."""


class StreamConverter:
    """Brings speech to another rate, piece by piece. Long pieces go to a thread, for a sentence costs milliseconds;
    short ones cost less than asking one."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._resampler = None if from_hz == to_hz else StreamResampler(from_hz, to_hz)

    async def push(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """What `samples` (int16 mono [n]) become; a few of them stay behind until the next call."""
        if self._resampler is None:
            return samples
        if len(samples) <= CONVERTED_AT_ONCE:
            return self._resampler.push(samples)
        return await asyncio.to_thread(self._resampler.push, samples)

    def flush(self) -> NDArray[np.int16]:
        """What stayed behind."""
        return np.zeros(0, np.int16) if self._resampler is None else self._resampler.flush()
