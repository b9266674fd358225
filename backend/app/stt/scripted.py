"""Speech recognition that always understands the same, after a given delay: for load tests and latency accounting."""

import asyncio
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.stt.base import Transcript

WORDS = "Tell me more."
"""Short enough to be believed of anybody who says something."""


class ScriptedRecognizer:
    """Implements SpeechToText: waits `delay_ms`, then gives `WORDS` whatever was said."""

    def __init__(self, delay_ms: int) -> None:
        self._delay_s = delay_ms / 1000

    async def transcribe(
        self, audio: NDArray[np.int16], *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """The fixed words; see SpeechToText."""
        await asyncio.sleep(self._delay_s)
        return Transcript(WORDS, language="en")

    def listen(self, rate_hz: int, *, language: str | None = None, on_partial: Callable[[str], None]) -> None:
        """It takes whole utterances only."""

    async def close(self) -> None:
        """Nothing to stop."""
