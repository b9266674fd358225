"""Several voices as one: the preferred one is asked first, the next one as well when that is late or fails.

A listener should not hear that somebody else goes on, but for the voice: when one breaks off in the middle of a chunk,
whoever listens is told so and can have the whole chunk spoken anew.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import numpy as np
from numpy.typing import NDArray

from app.audio.converter import StreamConverter
from app.core.errors import AhoyError, BrokenOffError, ProviderError
from app.remote.chain import Chain, Member, first_item, stop_stream
from app.remote.faults import late
from app.tts.base import TextToSpeech, Voice
from app.tts.voices import EVERY_LANGUAGE

log = logging.getLogger(__name__)

Speech = AsyncGenerator[NDArray[np.int16], None]


class FallbackVoice:
    """Implements TextToSpeech at the rate of the first member; what others speak is brought to it."""

    def __init__(self, chain: Chain[TextToSpeech]) -> None:
        self._members = chain.members
        self._chain = chain
        self._led_by = {
            leader: Chain([leader, *(member for member in chain.members if member is not leader)])
            for leader in chain.members[1:]
        }
        """For a voice that only one of them has: that one is asked first."""

    @property
    def rate_hz(self) -> int:
        """That of the first member."""
        return self._members[0].provider.rate_hz

    @property
    def voices(self) -> Sequence[Voice]:
        """Those of all members, the preferred one's first. An id that several have stands for the first one's."""
        voices: dict[str, Voice] = {}
        for member in self._members:
            for voice in member.provider.voices:
                voices.setdefault(voice.id, voice)
        return list(voices.values())

    async def speak(self, text: str, *, voice: str | None = None, language: str | None = None) -> Speech:
        """Speak a chunk; see TextToSpeech. Raises the error of the member that was asked first when nobody can, and
        BrokenOffError when one fails after something was heard and there is somebody to say it again."""
        async with aclosing(self._speak(text, voice, language, (), None)) as speech:
            async for samples in speech:
                yield samples

    def open_ahead(self) -> None:
        """Have connections ready to those who will be asked; returns at once."""
        for member in self._members:
            open_ahead = getattr(member.provider, "open_ahead", None)
            if open_ahead and member.health.admits():
                open_ahead()

    async def close(self) -> None:
        """Close all members."""
        for member in self._members:
            await member.provider.close()

    async def _speak(
        self,
        text: str,
        voice: str | None,
        language: str | None,
        failed: Sequence[Member[TextToSpeech]],
        because: ProviderError | None,
    ) -> Speech:
        """The first of those who have not failed yet; if nobody can, it is `because` of the first failure.

        A member stalls when it gives nothing for its patience after what it gave could have been heard: until then it
        may catch up, and nobody would notice."""
        if not any(map(str.isalnum, text)):  # nobody's health is to depend on it
            return
        try:
            member, (samples, speech) = await self._chain_for(voice).first(
                lambda provider: first_item(provider.speak(text, voice=_own(voice, provider), language=language)),
                dispose=stop_stream,
                without=failed,
            )
        except ProviderError as error:
            strangers = [one for one in self._members if one not in failed and not _speaks(language, one.provider)]
            if not strangers:
                raise because or error from None
            # Nobody is left who speaks the language: an accent is better than silence.
            natives = [one for one in self._members if one not in strangers]
            async with aclosing(self._speak(text, voice, None, natives, because or error)) as speech:
                async for samples in speech:
                    yield samples
            return
        gone = [*failed, member]

        def go_on(words: str) -> Speech:
            return self._speak(words, voice, language, gone, because or failure)

        rate_hz = member.provider.rate_hz
        converter = StreamConverter(rate_hz, self.rate_hz)
        now_s = asyncio.get_running_loop().time
        heard_at_s = now_s()
        async with aclosing(speech):
            while samples is not None:
                heard_at_s = max(heard_at_s, now_s()) + len(samples) / rate_hz
                if len(converted := await converter.push(samples)):
                    yield converted
                patience_s = member.patience_s + max(0.0, heard_at_s - now_s())
                try:
                    samples = await _next(speech, member, patience_s)
                except ProviderError as error:
                    failure = error
                    member.health.broke_off(error)
                    if len(gone) == len(self._members):
                        raise because or error from None
                    raise BrokenOffError(f"{member.name} broke off: {error.message}", go_on) from error
        member.health.completed()
        if len(rest := converter.flush()):
            yield rest

    def _chain_for(self, voice: str | None) -> Chain[TextToSpeech]:
        owners = [member for member in self._members if _own(voice, member.provider)]
        return self._led_by.get(owners[0], self._chain) if len(owners) == 1 else self._chain


def _speaks(language: str | None, provider: TextToSpeech) -> bool:
    return language is None or any(voice.language in {language, EVERY_LANGUAGE} for voice in provider.voices)


def _own(voice: str | None, provider: TextToSpeech) -> str | None:
    """The voice if the provider has it, else None, its default."""
    return voice if any(voice == known.id for known in provider.voices) else None


async def _next(speech: Speech, member: Member[TextToSpeech], patience_s: float) -> NDArray[np.int16] | None:
    """The next piece, None at the end. Raises ProviderError for whatever goes wrong, a stall of `patience_s` too."""
    try:
        async with asyncio.timeout(patience_s):
            return await anext(speech, None)
    except TimeoutError:
        raise late(member.name, round(patience_s, 1)) from None
    except ProviderError:
        raise
    except Exception as error:  # there may be somebody else
        if isinstance(error, AhoyError):
            raise ProviderError(error.message, code=error.code) from error
        log.exception("%s failed with a defect while it spoke", member.name)
        raise ProviderError(f"{member.name} failed; the log says how.") from error
