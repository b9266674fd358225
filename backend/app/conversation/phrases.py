"""Fixed words that are spoken again and again (the greeting, the apology), synthesised once.

An apology must be there when the synthesiser is what failed, so it is kept from the start.
"""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from app.conversation.chunker import SpeechChunker
from app.conversation.patience import within
from app.conversation.spoken import speakable
from app.core.errors import ProviderError
from app.tts.base import TextToSpeech
from app.tts.whole import text_to_speech

CAPACITY = 64
"""Phrases remembered beside those that are kept; one of a few seconds is about 200 kB."""

Phrase = list[tuple[str, NDArray[np.int16]]]
"""The pieces of a phrase, each with its audio (int16 mono [n]; empty when it has no sound)."""


class Phrases:
    """The audio of fixed phrases at the synthesiser's rate, in pieces like those of any reply, so that it is known how
    far a phrase was heard. Shared by all conversations."""

    def __init__(self, tts: TextToSpeech) -> None:
        self._tts = tts
        self._audio: OrderedDict[tuple[str, str | None], Phrase] = OrderedDict()
        self._kept: set[tuple[str, str | None]] = set()

    @property
    def rate_hz(self) -> int:
        """Sampling rate of the audio."""
        return self._tts.rate_hz

    async def keep(self, text: str, voice: str | None, *, timeout_s: float = 20.0) -> None:
        """Have the phrase ready for as long as the process runs. Raises ProviderError when there is no audio for it."""
        await self.audio(text, voice, timeout_s=timeout_s)
        self._kept.add((text, voice))

    async def audio(self, text: str, voice: str | None, *, timeout_s: float = 20.0) -> Phrase:
        """The phrase in this voice, synthesised now if it is not kept yet.

        If that fails and the phrase is kept in another voice, that one is better than silence.
        Raises ProviderError when there is no audio at all.
        """
        key = (text, voice)
        if key not in self._audio:
            try:
                self._audio[key] = await within(timeout_s, "speech synthesiser", self._make(text, voice))
            except Exception:
                for (kept, _), audio in self._audio.items():
                    if kept == text:
                        return audio
                raise
            self._forget()
        self._audio.move_to_end(key)
        return self._audio[key]

    async def _make(self, text: str, voice: str | None) -> Phrase:
        chunker = SpeechChunker()
        phrase = [(chunk, await self._speak(chunk, voice)) for chunk in (*chunker.push(text), *chunker.flush())]
        if not any(len(audio) for _, audio in phrase):
            raise ProviderError("The speech synthesiser made no sound for a phrase.")
        return phrase

    async def _speak(self, chunk: str, voice: str | None) -> NDArray[np.int16]:
        return await text_to_speech(speakable(chunk), self._tts, voice=voice)

    def _forget(self) -> None:
        """Make room: what was not asked for the longest goes."""
        for key in [key for key in self._audio if key not in self._kept][:-CAPACITY]:
            del self._audio[key]
