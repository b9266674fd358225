"""Speech to text."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was understood."""

    text: str
    """The words, trimmed; empty when nothing was said."""
    language: str | None = None
    """ISO 639-1 code of the language spoken, when known."""
    confidence: float | None = None
    """Mean log probability per token (0 is certain, below about -1 is doubtful), when known."""


class SpeechToText(Protocol):
    """Turns an utterance into words; shared by all conversations."""

    async def transcribe(
        self, audio: NDArray[np.int16], *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """The words in `audio` (int16, mono, 16 kHz, [n], up to 30 s). `language` is an ISO 639-1 code, None to detect.
        A `partial` transcript is only shown while the speaker goes on: it waits behind all final ones and may be
        refused with OverloadedError when there is no room. Cancelling the call gives the work up.

        Raises ProviderError when the provider fails and OverloadedError when too much work is waiting.
        """
        ...

    async def close(self) -> None:
        """Stop the workers."""
        ...
