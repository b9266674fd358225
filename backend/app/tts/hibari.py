"""The embedded voice: hibari, a small English synthesiser, about a hundred times faster than speech on one thread.

It makes a sentence at once, so a reply's first audio comes as soon as its first chunk is made. Only the voice inside
the package is offered: its others would have to be fetched from a model hub.
"""

import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from app.audio.pcm import from_float
from app.core.errors import ModelError, ProviderError
from app.inference.worker import Worker
from app.tts.base import Voice

VOICES = (Voice("heart", "Heart", "en"),)
AUDIBLE = 0.0056
"""-45 dBFS: what is quieter at the ends is taken for silence. The model leads with about 300 ms of it."""
LEAD_MS = 10
"""Kept in front of the first audible sample, faded in, so that a soft onset is not cut."""
TAIL_MS = 150
"""Kept behind the last one: the pause before the next chunk."""
MAX_CHARACTERS = 150
"""Longer text is made in pieces of about this length, so that it streams and can be stopped."""
MAX_DIGITS = 12
"""The engine fails on endless numbers; in groups they are also easier to follow."""
_PIECE_END = re.compile(r"(?<=[.!?;:,])\s+")
_LONG_NUMBER = re.compile(rf"(\d{{{MAX_DIGITS}}})(?=\d)")
_SPEAKABLE = re.compile(r"\w")


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
        for piece in _pieces(text):
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
        return from_float(_trimmed(audio, self.rate_hz))


def _pieces(text: str) -> Iterator[str]:
    """`text` in pieces of at most MAX_CHARACTERS, cut behind punctuation or else between words; nothing for what has no
    letter or digit, which the model would speak as noise."""
    piece = ""
    for part in _PIECE_END.split(_LONG_NUMBER.sub(r"\1 ", text.strip())):
        for words in _short(part):
            if piece and len(piece) + len(words) >= MAX_CHARACTERS:
                yield from _spoken(piece)
                piece = ""
            piece = f"{piece} {words}".strip()
    yield from _spoken(piece)


def _short(part: str) -> Iterator[str]:
    """A clause without punctuation may still be too long."""
    while len(part) > MAX_CHARACTERS:
        cut = part.rfind(" ", 1, MAX_CHARACTERS)
        cut = cut if cut > 0 else MAX_CHARACTERS
        yield part[:cut].strip()
        part = part[cut:].strip()
    yield part


def _spoken(piece: str) -> Iterator[str]:
    if _SPEAKABLE.search(piece):
        yield piece


def _trimmed(audio: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """Without the silence at both ends, but for a breath, and without a click where it is cut."""
    audible = np.flatnonzero(np.abs(audio) > AUDIBLE)
    if not len(audible):
        return audio[:0]
    lead, tail = LEAD_MS * rate_hz // 1000, TAIL_MS * rate_hz // 1000
    audio = audio[max(0, audible[0] - lead) : audible[-1] + tail].copy()
    fade = np.linspace(0, 1, min(lead, len(audio)), dtype=np.float32)
    audio[: len(fade)] *= fade
    audio[len(audio) - len(fade) :] *= fade[::-1]
    return audio
