"""A voice that is a plain tone: for load tests and latency accounting."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.tts.base import Voice

VOICES = (Voice("tone", "Tone", "en"),)
RATE_HZ = 16_000
TONE_HZ = 440.0
AMPLITUDE = 6000
PIECE_MS = 200
FADE_MS = 5


class ScriptedVoice:
    """Implements TextToSpeech: every chunk of text becomes a tone of `audio_ms`, beginning after `first_audio_ms`."""

    def __init__(self, *, first_audio_ms: int, audio_ms: int) -> None:
        self._first_s = first_audio_ms / 1000
        samples = audio_ms * RATE_HZ // 1000
        tone = np.sin(2 * np.pi * TONE_HZ / RATE_HZ * np.arange(samples)) * AMPLITUDE
        fade = np.minimum(1.0, np.arange(samples) * 1000 / (RATE_HZ * FADE_MS))
        self._tone = np.asarray(tone * fade * fade[::-1], np.int16)

    @property
    def rate_hz(self) -> int:
        """16 kHz: what the browser takes, so nothing has to be converted."""
        return RATE_HZ

    @property
    def voices(self) -> Sequence[Voice]:
        """The tone."""
        return VOICES

    async def speak(
        self, text: str, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[NDArray[np.int16], None]:
        """The tone; see TextToSpeech."""
        if not any(character.isalnum() for character in text):
            return
        await asyncio.sleep(self._first_s)
        step = PIECE_MS * RATE_HZ // 1000
        for start in range(0, len(self._tone), step):
            yield self._tone[start : start + step]

    async def close(self) -> None:
        """Nothing to stop."""
