"""Fixed words that are spoken again and again (the greeting, the apology), synthesised once.

An apology must be there when the synthesiser is what failed, so it is kept from the start.
"""

import asyncio
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from app.tts.base import TextToSpeech

CAPACITY = 64
"""Phrases kept; one of a few seconds is about 200 kB."""


class Phrases:
    """The audio of fixed phrases, int16 mono at the synthesiser's rate. Shared by all conversations."""

    def __init__(self, tts: TextToSpeech) -> None:
        self._tts = tts
        self._audio: OrderedDict[tuple[str, str | None], NDArray[np.int16]] = OrderedDict()

    @property
    def rate_hz(self) -> int:
        """Sampling rate of the audio."""
        return self._tts.rate_hz

    async def audio(self, text: str, voice: str | None, *, timeout_s: float = 20.0) -> NDArray[np.int16]:
        """The phrase in this voice, synthesised now if it is not kept yet.

        If that fails and the phrase is kept in another voice, that one is better than silence.
        Raises ProviderError or TimeoutError when there is no audio at all.
        """
        key = (text, voice)
        if key not in self._audio:
            try:
                async with asyncio.timeout(timeout_s):
                    pieces = [piece async for piece in self._tts.speak(text, voice=voice)]
            except Exception:
                for (kept, _), audio in self._audio.items():
                    if kept == text:
                        return audio
                raise
            self._audio[key] = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
            if len(self._audio) > CAPACITY:
                self._audio.popitem(last=False)
        self._audio.move_to_end(key)
        return self._audio[key]
