"""A whole text as speech, for those who do not play it while it is made."""

from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from app.core.errors import BrokenOffError
from app.tts.base import TextToSpeech


async def text_to_speech(
    text: str, tts: TextToSpeech, *, voice: str | None = None, language: str | None = None
) -> NDArray[np.int16]:
    """The speech of `text`: int16 mono [n] at the rate of `tts`, empty if there is nothing to pronounce. When it breaks
    off, the next who can says all of it. There is no limit of time. Raises ProviderError."""
    speech = tts.speak(text, voice=voice, language=language)
    while True:
        try:
            async with aclosing(speech):
                return np.concatenate([np.zeros(0, np.int16), *[piece async for piece in speech]])
        except BrokenOffError as broken:
            speech = broken.go_on(text)
