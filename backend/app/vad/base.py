"""Voice activity detection: is someone speaking in this window of audio?"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

WINDOW_MS = 32
"""Length of one decision in milliseconds: 512 samples at 16 kHz, 256 at 8 kHz."""


class VoiceStream(Protocol):
    """The detector's memory of one audio stream. One per conversation; not shared."""

    @property
    def rate_hz(self) -> int:
        """Sampling rate of the audio this stream takes: 8000 or 16000."""
        ...

    async def feed(self, samples: NDArray[np.int16]) -> list[float]:
        """Take any number of new samples (int16, mono, [n]) and return one speech probability (0..1) for each
        whole window of `WINDOW_MS` that they complete, oldest first. Samples that do not fill a window are kept
        for the next call. Calls of one stream must not overlap.

        Raises ProviderError when the model fails and OverloadedError when too much work is waiting.
        """
        ...

    def reset(self) -> None:
        """Forget everything heard so far."""
        ...


class VoiceActivityDetector(Protocol):
    """Opens streams; shared by all conversations of the process."""

    def open(self, rate_hz: int) -> VoiceStream:
        """A fresh stream for audio at `rate_hz` (8000 or 16000; anything else raises AudioFormatError)."""
        ...

    async def close(self) -> None:
        """Stop the worker. Work still waiting fails with ProviderError."""
        ...
