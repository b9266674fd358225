"""What the user says, as words.

Where the recogniser can listen along it does, and the words are there soon after the last of them; where it cannot, or
when it fails, the recording is transcribed, so that nothing of an utterance is lost.
"""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.conversation.options import Options, Providers
from app.conversation.patience import within
from app.conversation.recording import Recording
from app.core.errors import ProviderError
from app.stt.base import Listener, Transcript
from app.stt.plausible import believable

log = logging.getLogger(__name__)


class Words:
    """Understands one conversation. `on_partial` is called with the words of the utterance so far."""

    def __init__(self, providers: Providers, options: Options, *, on_partial: Callable[[str], None]) -> None:
        self.language = options.language
        """ISO 639-1 code of what the user speaks: as set, or as last understood."""
        self._stt = providers.stt
        self._options = options
        self._on_partial = on_partial
        self._listener: Listener | None = None
        self._kept = False

    @property
    def kept(self) -> bool:
        """An utterance is being kept."""
        return self._kept

    @property
    def listens(self) -> bool:
        """Partial words come by themselves."""
        return self._listener is not None

    def open(self) -> None:
        """The conversation begins. Call it in a task of the conversation: what listens reports its usage there."""
        rate_hz = self._options.transport.rate_hz
        self._listener = self._stt.listen(rate_hz, language=self._options.language, on_partial=self._partial)

    def begin(self, so_far: NDArray[np.int16]) -> None:
        """An utterance begins; this much of it has been heard already. One that is being kept just goes on."""
        if self._kept:
            return
        self._kept = True
        if self._listener:
            self._listener.begin()
            self._listener.hear(so_far)

    def hear(self, samples: NDArray[np.int16]) -> None:
        """What comes in, at the transport's rate; only what belongs to an utterance is listened to."""
        if self._listener and self._kept:
            self._listener.hear(samples)

    def forget(self) -> None:
        """The utterance has been taken, or was none."""
        self._kept = False

    async def of(self, recording: Recording, voiced_ms: float, timeout_s: float) -> Transcript:
        """The words of the utterance so far, of which `voiced_ms` were voice. Raises ProviderError."""
        transcript = await within(timeout_s, "speech recogniser", self._of(recording))
        text = believable(transcript.text, voiced_ms, language=transcript.language, logprob=transcript.confidence)
        if self._options.language is None and transcript.language:
            self.language = transcript.language
        return Transcript(text, transcript.language, transcript.confidence)

    async def partly(self, recording: Recording) -> str:
        """The words so far of somebody who still speaks. Raises ProviderError, OverloadedError if there is no room."""
        work = self._stt.transcribe(await recording.for_models(), language=self._options.language, partial=True)
        return (await within(self._options.provider_timeout_s, "speech recogniser", work)).text

    async def close(self) -> None:
        """The conversation is over."""
        listener, self._listener = self._listener, None
        if listener:
            await listener.close()

    async def _of(self, recording: Recording) -> Transcript:
        if self._listener and self._kept:
            try:
                return await self._listener.finish()
            except ProviderError as error:
                log.info("The recording is transcribed instead: %s", error.message)
        return await self._stt.transcribe(await recording.for_models(), language=self._options.language)

    def _partial(self, text: str) -> None:
        if self._kept:
            self._on_partial(text)
