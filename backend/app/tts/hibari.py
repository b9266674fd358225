"""The embedded voice: hibari, a small English synthesiser, about a hundred times faster than speech on one thread.

It makes a sentence at once, so a reply's first audio comes as soon as its first chunk is made. Only the voice inside
the package is offered: its others would have to be fetched from a model hub.
"""

from collections.abc import AsyncGenerator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from app.audio.pcm import from_float
from app.core.errors import ModelError, ProviderError
from app.inference.worker import Worker
from app.tts.base import Voice
from app.tts.cutting import pieces, trimmed

VOICES = (Voice("heart", "Heart", "en"),)
MAX_CHARACTERS = 150
"""Longer text is made in pieces of about this length, so that it streams and can be stopped."""


class HibariVoice:
    """Implements TextToSpeech at 24 kHz. Loading blocks; raises ModelError when the package is broken."""

    def __init__(self) -> None:
        try:
            from hibari import Hibari  # noqa: PLC0415 (a large library, loaded only where it is used)

            self._engine = Hibari(voice="heart", threads=1)
            self._engine("Warm up.", seed=0)  # loads the dictionary too: the first reply must not wait for it
        except Exception as error:
            raise ModelError(f"The voice cannot be loaded: {error}") from None
        self._worker = Worker("tts")

    @property
    def rate_hz(self) -> int:
        """24 kHz."""
        return int(self._engine.sample_rate)

    @property
    def voices(self) -> Sequence[Voice]:
        """The one voice in the package."""
        return VOICES

    async def speak(
        self, text: str, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[NDArray[np.int16], None]:
        """Speak a chunk; see TextToSpeech."""
        for piece in pieces(text, first=MAX_CHARACTERS, most=MAX_CHARACTERS):
            audio = await self._worker.run(partial(self._make, piece))
            if len(audio):
                yield audio

    async def close(self) -> None:
        """End the thread."""
        self._worker.close()

    def _make(self, text: str) -> NDArray[np.int16]:
        try:
            audio = np.asarray(self._engine(text), np.float32)
        except Exception as error:  # the text is the user's: it is not repeated here
            kind = type(error).__name__
            raise ProviderError(f"The voice failed on a text of {len(text)} characters ({kind}).") from None
        return from_float(trimmed(audio, self.rate_hz))
