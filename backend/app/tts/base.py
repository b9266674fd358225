"""Text to speech."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice a user can choose."""

    id: str
    name: str
    language: str
    """ISO 639-1 code of the language the voice speaks; `mul` (ISO 639-2) for one that speaks what it is given."""


class TextToSpeech(Protocol):
    """Speaks text; shared by all conversations."""

    @property
    def rate_hz(self) -> int:
        """Sampling rate of the audio that `speak` gives."""
        ...

    @property
    def voices(self) -> Sequence[Voice]:
        """The voices present, the default one first; never empty."""
        ...

    def speak(
        self, text: str, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[NDArray[np.int16], None]:
        """Speak one chunk of a reply (a clause or a sentence): int16 mono at `rate_hz`, in pieces [n] of any length,
        without silence in front that was not asked for. `voice` is an id of `voices`; None or an unknown id means the
        default. `language` is the ISO 639-1 code of the text, None when it is not known: then it is the voice's own.
        Text without anything to pronounce gives no audio. Closing the generator stops the work.

        Raises ProviderError when the engine fails (code `language_not_spoken` if it has no voice for that), and
        OverloadedError when too much work is waiting.
        """
        ...

    async def close(self) -> None:
        """Stop the workers."""
        ...
