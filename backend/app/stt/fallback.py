"""Several recognisers as one: the preferred one is asked first, the next one as well when that is late or fails."""

from collections.abc import Callable
from contextlib import AsyncExitStack

import numpy as np
from numpy.typing import NDArray

from app.core.errors import OverloadedError
from app.remote.chain import Chain
from app.stt.base import Listener, SpeechToText, Transcript
from app.stt.realtime import LiveTranscription


class FallbackRecognizer:
    """Implements SpeechToText. `live` listens along while somebody speaks; what it misses is asked of the chain."""

    def __init__(self, chain: Chain[SpeechToText], live: LiveTranscription | None = None) -> None:
        self._chain = chain
        self._live = live

    async def transcribe(
        self, audio: NDArray[np.int16], *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """The words in `audio`, of the first who has them; see SpeechToText."""
        if partial:
            return await self._partial(audio, language)
        _, transcript = await self._chain.first(lambda provider: provider.transcribe(audio, language=language))
        return transcript

    async def _partial(self, audio: NDArray[np.int16], language: str | None) -> Transcript:
        """Of the first who gives partial transcripts away: services, which are paid for each, refuse them unasked.
        Nobody's health depends on it."""
        refused = OverloadedError("Nobody has room for partial transcripts.")
        for member in self._chain.members:
            try:
                return await member.provider.transcribe(audio, language=language, partial=True)
            except OverloadedError as error:
                refused = error
        raise refused

    def listen(
        self, rate_hz: int, *, language: str | None = None, on_partial: Callable[[str], None]
    ) -> Listener | None:
        """Hear a conversation as it is spoken, if there is somebody for it who works."""
        if self._live is None or not self._live.health.admits():
            return None
        return self._live.open(rate_hz, language=language, on_partial=on_partial)

    async def close(self) -> None:
        """Close all of them, whatever one of them says to it."""
        async with AsyncExitStack() as closing:
            for member in self._chain.members:
                closing.push_async_callback(member.provider.close)
            if self._live is not None:
                closing.push_async_callback(self._live.close)
