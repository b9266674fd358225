"""The voices that need no service: hibari's, and Kokoro's where that model is there. English only."""

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.core.errors import ModelError, ProviderError
from app.tts import hibari, kokoro
from app.tts.base import TextToSpeech, Voice
from app.tts.hibari import HibariVoice
from app.tts.kokoro import KokoroVoice

LANGUAGE = "en"
MAX_THREADS = 8
"""Beyond this a run gains little, and there is other work."""


def wanted(voice: str | None) -> bool:
    """Whether `voice` is one of Kokoro's, so that its model is needed. Loads nothing."""
    return any(voice == known.id for known in kokoro.VOICES)


def voices_of(kokoro_directory: Path | None) -> Sequence[Voice]:
    """What EmbeddedVoices would offer, without loading it."""
    return (*hibari.VOICES, *(kokoro.voices_in(kokoro_directory) if kokoro_directory else ()))


class EmbeddedVoices:
    """Implements TextToSpeech over one or two engines: each chunk goes to the one that has the voice.

    `voice` is the one the settings choose: it becomes the default; without it (or if it is not there) that is hibari's.
    Loading blocks; raises ModelError when a model cannot be loaded.
    """

    def __init__(self, voice: str | None, kokoro_directory: Path | None, *, threads: int | None = None) -> None:
        threads = threads or min(MAX_THREADS, os.cpu_count() or 1)
        self._kokoro = KokoroVoice(kokoro_directory, threads=threads) if kokoro_directory else None
        heart = HibariVoice()
        self._engines: list[TextToSpeech] = [heart, self._kokoro] if self._kokoro else [heart]
        self._rate_hz = heart.rate_hz
        if rates := sorted({engine.rate_hz for engine in self._engines} - {self._rate_hz}):
            raise ModelError(f"The embedded voices have different rates: {self._rate_hz} and {rates[0]} Hz.")
        self._by_voice = {known.id: engine for engine in self._engines for known in engine.voices}
        # sorting puts the chosen one first and keeps the order of the rest
        self._voices = sorted(voices_of(kokoro_directory), key=lambda known: known.id != voice)

    @property
    def rate_hz(self) -> int:
        """24 kHz, as its engines."""
        return self._rate_hz

    @property
    def voices(self) -> Sequence[Voice]:
        """Those of all engines, the default one first."""
        return self._voices

    async def speak(
        self, text: str, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[NDArray[np.int16], None]:
        """Speak a chunk; see TextToSpeech."""
        if language not in {None, LANGUAGE}:
            raise ProviderError(
                f"The embedded voices speak English only, not '{language}'. Set TTS_PROVIDER to a service for other "
                "languages, for example TTS_PROVIDER=openai,embedded",
                code="language_not_spoken",
            )
        voice_id = voice if voice in self._by_voice else self._voices[0].id
        async with aclosing(self._by_voice[voice_id].speak(text, voice=voice_id, language=language)) as speech:
            async for piece in speech:
                yield piece

    async def slow_warning(self) -> str | None:
        """What to tell whoever chose a default voice that this machine cannot make as fast as it is spoken; None if it
        can. It takes some runs of the model: ask once, when everything has been loaded."""
        default = self._voices[0].id
        if self._kokoro is None or self._by_voice[default] is not self._kokoro:
            return None
        return kokoro.slow_warning(default, await self._kokoro.measured_speed())

    async def close(self) -> None:
        """Stop both engines."""
        for engine in self._engines:
            await engine.close()
