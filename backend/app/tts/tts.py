"""Speech from a service that speaks OpenAI's API: text goes there, audio comes back while it is being made.

The endpoint is POST /audio/speech (developers.openai.com: guide "Text to speech", reference "Create speech"). PCM is
asked for, which needs no decoding and can be played from its first bytes; a service that refuses it is asked for WAV,
then for MP3. What a service refuses is left out from then on.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.errors import AhoyError, AudioFormatError, ProviderError, ServiceError
from app.core.languages import LANGUAGES
from app.remote.client import ServiceClient, pieces
from app.remote.faults import nonsense
from app.tts.base import Voice
from app.tts.decode import PCM_HZ, decoder_for
from app.tts.onset import Onset
from app.tts.voices import EVERY_LANGUAGE, listed_voices, named_voice, openai_voices
from app.tts.whole import text_to_speech
from app.usage.meter import Usage, report

__all__ = ["SpeechService", "text_to_speech"]

MAX_CHARACTERS = 4096
"""Longest `input` of a request."""
PIECE_MS = 40
"""Audio is given on in pieces of at least this length: the network's own may hold a few samples."""
LIST_TIMEOUT_S = 5.0
"""How long a list of voices is waited for."""
KNOWN_VOICE = "alloy"
"""What others than OpenAI are asked for when nothing is known of their voices: most take it for one of theirs."""
_OPTIONAL = frozenset({"speed", "instructions"})
_SENTENCE_END = re.compile(r"[.!?;:。！？]\s*")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Fit:
    """What of a request the service has not refused."""

    formats: tuple[str, ...] = ("pcm", "wav", "mp3", "")
    """To ask for, the first one next; the empty one is whatever it sends when it is not asked."""
    left_out: frozenset[str] = frozenset()

    def without(self, fields: set[str]) -> "_Fit | None":
        """The same without these; None if nothing of them can be done without."""
        if optional := (fields & _OPTIONAL) - self.left_out:
            return replace(self, left_out=self.left_out | optional)
        if "response_format" in fields and self.formats[1:]:
            return replace(self, formats=self.formats[1:])
        return None


class SpeechService:
    """Implements TextToSpeech with a service, at 24 kHz. `voice` is the default one, `speed` 0.25 to 4, `instructions`
    say how to speak; `official` says that it is OpenAI (or Azure). The client is not closed: others use it, too.

    Its voices speak every language (`mul`) unless something else is known of them.
    """

    def __init__(
        self,
        client: ServiceClient,
        model: str,
        voice: str | None,
        *,
        speed: float = 1.0,
        instructions: str = "",
        official: bool,
    ) -> None:
        self._client = client
        self._model = model
        self._speed = speed
        self._instructions = instructions.strip()
        self._takes_instructions = not model.startswith("tts-1") and (official or bool(self._instructions))
        self._official = official
        self._chosen = voice
        self._voices = self._offered(openai_voices(model) if official else [])
        self._fit = _Fit()
        self._taken: set[str] = set()
        """Fields that it has taken once."""

    @property
    def rate_hz(self) -> int:
        """24 kHz."""
        return PCM_HZ

    @property
    def voices(self) -> Sequence[Voice]:
        """OpenAI's own, or what is known of the service's."""
        return self._voices

    async def find_voices(self, get_json: Callable[[str], Awaitable[object]]) -> None:
        """Ask the service for its voices (`get_json` gives the answer to a GET below its base URL). Many do not say,
        and OpenAI has no such list: then nothing changes. Never fails."""
        if self._official:
            return
        try:
            async with asyncio.timeout(LIST_TIMEOUT_S):
                self._voices = self._offered(listed_voices(await get_json("/audio/voices")))
        except AhoyError as error:
            log.debug("%s does not list its voices: %s", self._client.name, error.code)
        except TimeoutError:
            log.info("%s does not list its voices in %g s", self._client.name, LIST_TIMEOUT_S)

    async def speak(
        self, text: str, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[NDArray[np.int16], None]:
        """Speak a chunk; see TextToSpeech. The service stops at once when the generator is closed."""
        spoken_by = self._voice_for(voice, language)
        for part in _parts(text):
            async with aclosing(self._speak_part(part, spoken_by, language)) as speech:
                async for samples in speech:
                    yield samples

    def open_ahead(self) -> None:
        """Have a connection ready; returns at once."""
        self._client.open_ahead()

    async def close(self) -> None:
        """Nothing to stop."""

    def _offered(self, found: Sequence[Voice]) -> list[Voice]:
        """The default voice first."""
        default = self._chosen or (found[0].id if found else KNOWN_VOICE)
        known = next((voice for voice in found if voice.id == default), named_voice(default))
        return [known, *(voice for voice in found if voice.id != default)]

    def _voice_for(self, voice_id: str | None, language: str | None) -> Voice:
        """The voice that is asked for, or another one if that does not speak the language."""
        wanted = next((voice for voice in self._voices if voice.id == voice_id), self._voices[0])
        for voice in (wanted, *self._voices):
            if language is None or voice.language in {language, EVERY_LANGUAGE}:
                return voice
        raise ProviderError(
            f"{self._client.name} has no voice for the language '{language}'.", code="language_not_spoken"
        )

    async def _speak_part(
        self, text: str, voice: Voice, language: str | None
    ) -> AsyncGenerator[NDArray[np.int16], None]:
        """One request, or more while the service refuses what it need not be told."""
        fit = self._fit
        while True:
            request = self._request(text, voice, language, fit)
            try:
                async with aclosing(self._ask(request, fit)) as speech:
                    async for samples in speech:
                        yield samples
                return
            except ServiceError as error:
                smaller = self._smaller(fit, request, error)
                if smaller is None:
                    raise
                fit = smaller

    def _request(self, text: str, voice: Voice, language: str | None, fit: _Fit) -> dict[str, Any]:
        custom = self._official and voice.id.startswith("voice_")
        request: dict[str, Any] = {
            "model": self._model,
            "input": text,
            "voice": {"id": voice.id} if custom else voice.id,
        }
        if fit.formats[0]:
            request["response_format"] = fit.formats[0]
        if self._speed != 1:
            request["speed"] = self._speed
        if self._takes_instructions:
            spoken = LANGUAGES.get(language or "")
            request["instructions"] = " ".join(filter(None, (self._instructions, spoken and f"Speak {spoken}.")))
        return {name: value for name, value in request.items() if value != "" and name not in fit.left_out}

    def _smaller(self, fit: _Fit, request: dict[str, Any], error: ServiceError) -> _Fit | None:
        """What to send after this refusal. When it does not say what it dislikes, it may be anything that it has never
        taken yet."""
        if error.code != "service_refused":
            return None
        if error.parameter:
            return fit.without({error.parameter.partition(".")[0]} & request.keys())
        return fit.without(request.keys() - self._taken)

    async def _ask(self, request: dict[str, Any], fit: _Fit) -> AsyncGenerator[NDArray[np.int16], None]:
        """The audio that comes for one request, and the account of it."""
        asked = Usage("tts", self._client.name, self._model, characters=len(request["input"]))
        usage: Usage | None = replace(asked, estimated=True, given_up=True)
        made = 0
        try:
            async with aclosing(self._listen(request, fit)) as audio:
                onset, least = Onset(PCM_HZ), PIECE_MS * PCM_HZ // 1000
                waiting: list[NDArray[np.int16]] = []
                async for samples in audio:
                    made += len(samples)
                    waiting.append(onset.push(samples))
                    if sum(map(len, waiting)) >= least:
                        yield np.concatenate(waiting)
                        waiting = []
            if not made:
                raise nonsense(self._client.name, "no audio")
            if len(rest := np.concatenate([np.zeros(0, np.int16), *waiting])):
                yield rest
            usage = asked
        except ServiceError as error:
            usage = None if error.refused else replace(asked, estimated=True)
            raise
        finally:
            if usage:
                report(replace(usage, audio_s=made / PCM_HZ))

    async def _listen(self, request: dict[str, Any], fit: _Fit) -> AsyncGenerator[NDArray[np.int16], None]:
        """The samples of the answer as they come, whatever format it has."""
        name = self._client.name
        async with self._client.post("/audio/speech", model=self._model, json=request) as response:
            self._fit = fit
            self._taken.update(request)
            try:
                decoder = decoder_for(response.headers.get("Content-Type", ""), PCM_HZ)
                if decoder is None:
                    raise nonsense(name, f"{response.content_type!r} in place of audio")
                async with aclosing(pieces(response, name)) as body:
                    async for received in body:
                        yield await decoder.push(received)
                yield await decoder.end()
            except AudioFormatError:
                raise nonsense(name, f"{response.content_type!r} that cannot be read") from None


def _parts(text: str) -> Iterator[str]:
    """`text` in parts that a request can take, cut behind a sentence or else between words; nothing for what cannot be
    pronounced. Half a surrogate pair is no character and cannot be sent."""
    text = text.encode(errors="ignore").decode().strip()
    while text:
        part = text[:MAX_CHARACTERS]
        if len(text) > MAX_CHARACTERS:
            ends = [found.end() for found in _SENTENCE_END.finditer(part)]
            part = part[: ends[-1] if ends else part.rfind(" ") + 1 or MAX_CHARACTERS]
        if any(map(str.isalnum, part)):
            yield part.strip()
        text = text[len(part) :]
