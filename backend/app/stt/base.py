"""Speech to text."""

from collections.abc import Callable
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


class Listener(Protocol):
    """Hears one conversation as it is spoken, so that the words are there sooner. One utterance at a time: `begin`,
    `hear` what comes, `finish` at a pause; if the speaker goes on, `hear` and `finish` again. Nothing but `finish`
    waits or raises."""

    def begin(self) -> None:
        """A new utterance; what was heard and not finished is forgotten."""
        ...

    def hear(self, samples: NDArray[np.int16]) -> None:
        """The next audio of the utterance (int16 mono [n] at the rate that was agreed)."""
        ...

    async def finish(self) -> Transcript:
        """The words of the whole utterance so far. Raises ProviderError when they cannot be had in time: the audio is
        to be transcribed in another way then. Cancelling the call gives only the waiting up."""
        ...

    async def close(self) -> None:
        """The conversation is over."""
        ...


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

    def listen(
        self, rate_hz: int, *, language: str | None = None, on_partial: Callable[[str], None]
    ) -> Listener | None:
        """Hear a conversation at `rate_hz` as it is spoken; None if that cannot be done, or not now. `on_partial` is
        called with the words of the utterance so far, whenever there are more."""
        ...

    async def close(self) -> None:
        """Stop the workers."""
        ...
