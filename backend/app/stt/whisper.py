"""Speech recognition by upload: a whole utterance goes to a service as a WAV file, and its words come back.

The endpoint is POST /audio/transcriptions (developers.openai.com: guide "Speech to text", reference "Create
transcription"), which many other servers have as well. What they take differs by model: Whisper tells how sure it is
(`verbose_json`), OpenAI's gpt models know only `json`; gpt-transcribe wants a list of languages in place of one. What a
service refuses is left out from then on.
"""

import io
import logging
import math
import re
import unicodedata
import wave
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import aiohttp
import numpy as np
from numpy.typing import NDArray

from app.audio.pcm import level_dbfs, require_mono, to_bytes
from app.core.errors import OverloadedError, ServiceError
from app.remote.client import ServiceClient
from app.remote.faults import nonsense
from app.stt.base import Transcript
from app.usage.meter import Usage, report

RATE_HZ = 16_000
SHORTEST_S = 0.1
"""Services refuse shorter audio (OpenAI: 0.1 s), and there is no word in it."""
SILENCE_DBFS = -60.0
DOUBTFUL_LOGPROB, NO_SPEECH = -1.0, 0.6
"""Whisper's own rule (whisper/transcribe.py): a segment that is less certain than the one and more probably no speech
than the other was made up."""
_QUOTES = {'"': '"', "\u201c": "\u201d", "\u201e": "\u201c", "\u00ab": "\u00bb"}
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\ufffd"))
_LANGUAGE_NAMES = """
afrikaans=af albanian=sq amharic=am arabic=ar armenian=hy assamese=as azerbaijani=az bashkir=ba basque=eu belarusian=be
bengali=bn bosnian=bs breton=br bulgarian=bg burmese=my cantonese=zh castilian=es catalan=ca chinese=zh croatian=hr
czech=cs danish=da dutch=nl english=en estonian=et faroese=fo finnish=fi flemish=nl french=fr galician=gl georgian=ka
german=de greek=el gujarati=gu haitian=ht haitian-creole=ht hausa=ha hebrew=he hindi=hi hungarian=hu icelandic=is
indonesian=id italian=it japanese=ja javanese=jv kannada=kn kazakh=kk khmer=km korean=ko lao=lo latin=la latvian=lv
letzeburgesch=lb lingala=ln lithuanian=lt luxembourgish=lb macedonian=mk malagasy=mg malay=ms malayalam=ml maltese=mt
mandarin=zh maori=mi marathi=mr moldavian=ro moldovan=ro mongolian=mn myanmar=my nepali=ne norwegian=no nynorsk=nn
occitan=oc panjabi=pa pashto=ps persian=fa polish=pl portuguese=pt punjabi=pa pushto=ps romanian=ro russian=ru
sanskrit=sa serbian=sr shona=sn sindhi=sd sinhala=si sinhalese=si slovak=sk slovenian=sl somali=so spanish=es
sundanese=su swahili=sw swedish=sv tagalog=tl tajik=tg tamil=ta tatar=tt telugu=te thai=th tibetan=bo turkish=tr
turkmen=tk ukrainian=uk urdu=ur uzbek=uz valencian=ca vietnamese=vi welsh=cy yiddish=yi yoruba=yo
"""
_LANGUAGES = dict(pair.split("=") for pair in _LANGUAGE_NAMES.split())
"""Whisper's English names of languages (whisper/tokenizer.py), as `verbose_json` gives them, to ISO 639-1."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Fields:
    """What the service has not refused yet."""

    format: Literal["verbose_json", "json"] | None
    prompt: bool = True
    unwanted: frozenset[str] = frozenset()
    """Languages that it does not want to be told."""

    def without(self, parameter: str | None, language: str | None) -> "_Fields | None":
        """What to send after `parameter` was refused; None if it was not ours to choose."""
        match (parameter or "").rstrip("[]0123456789."):
            case "response_format" if self.format is not None:
                return replace(self, format="json" if self.format == "verbose_json" else None)
            case "prompt" if self.prompt:
                return replace(self, prompt=False)
            case "language" | "languages" if language and language not in self.unwanted:
                return replace(self, unwanted=self.unwanted | {language})
        return None


class UploadRecognizer:
    """Implements SpeechToText with a service. `hint` holds names and words that may be said; `official` says that it is
    OpenAI (or Azure), whose gpt models take what others do not know. The client is not closed: others use it, too."""

    def __init__(self, client: ServiceClient, model: str, *, hint: str = "", official: bool = True) -> None:
        self._client = client
        self._model = model
        self._hint = hint.strip()
        gpt = official and model.startswith("gpt-")
        self._fields = _Fields("json" if gpt else "verbose_json")
        self._language_field = "languages[]" if official and takes_languages(model) else "language"

    async def transcribe(
        self, audio: NDArray[np.int16], *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """The words in `audio`; see SpeechToText. Partial transcripts are refused: each would be paid for."""
        if partial:
            raise OverloadedError(f"{self._client.name} is asked for whole utterances only.")
        require_mono(audio)
        if len(audio) < SHORTEST_S * RATE_HZ or level_dbfs(audio) < SILENCE_DBFS:
            return Transcript("", language)
        sound = _wav(audio)
        while True:
            fields = self._fields
            try:
                answer = await self._ask(sound, fields, language, len(audio) / RATE_HZ)
            except ServiceError as error:
                self._adapt(fields, error, language)
            else:
                return self._transcript(answer, language)

    def listen(self, rate_hz: int, *, language: str | None = None, on_partial: Callable[[str], None]) -> None:
        """It takes whole utterances only."""

    async def close(self) -> None:
        """There is nothing of its own to close."""

    async def _ask(self, sound: bytes, fields: _Fields, language: str | None, audio_s: float) -> dict[str, Any]:
        """One request, and what it took put down."""

        def form() -> aiohttp.FormData:
            data = aiohttp.FormData()
            data.add_field("file", sound, filename="speech.wav", content_type="audio/wav")
            data.add_field("model", self._model)
            if fields.format:
                data.add_field("response_format", fields.format)
            if language and language not in fields.unwanted:
                data.add_field(self._language_field, language)
            if self._hint and fields.prompt:
                data.add_field("prompt", self._hint)
            return data

        used = Usage("stt", self._client.name, self._model, audio_s=audio_s, estimated=True)
        try:
            answer = await self._client.post_for_json("/audio/transcriptions", model=self._model, form=form)
            if not isinstance(answer.get("text"), str):
                raise nonsense(self._client.name, "JSON without a text")
        except BaseException as error:
            if not (isinstance(error, ServiceError) and error.refused):
                report(replace(used, given_up=True))
            raise
        report(counted(used, answer.get("usage"), answer.get("duration")))
        return answer

    def _adapt(self, sent: _Fields, error: ServiceError, language: str | None) -> None:
        """Leave out what was refused from now on. Raises the error if that was none of what may be left out."""
        if not error.refused or error.parameter is None:
            raise error
        if self._fields is not sent:  # another request has found out in the meantime
            return
        fields = sent.without(error.parameter, language)
        if fields is None:
            raise error
        log.info("%s does not take %r for %s: left out from now on", self._client.name, error.parameter, self._model)
        self._fields = fields

    def _transcript(self, answer: dict[str, Any], language: str | None) -> Transcript:
        segments = [segment for segment in _list(answer.get("segments")) if isinstance(segment, dict)]
        believed = [segment for segment in segments if not _made_up(segment)]
        text = answer["text"]
        if len(believed) < len(segments):
            text = " ".join(str(segment.get("text", "")) for segment in believed)
        logprobs = [_number(segment.get("avg_logprob")) for segment in believed]
        known = [logprob for logprob in logprobs if logprob is not None]
        text = without_echo(cleaned(text), self._hint)
        return Transcript(text, spoken_language(answer) or language, sum(known) / len(known) if known else None)


def takes_languages(model: str) -> bool:
    """Whether this model of OpenAI wants the list `languages` in place of `language` (guide "Speech to text")."""
    return model.startswith(("gpt-transcribe", "gpt-live-transcribe"))


def cleaned(text: str) -> str:
    """`text` as it was spoken: in one line, without what cannot be seen, and without quotes around the whole."""
    text = "".join(" " if unicodedata.category(char) == "Cc" else char for char in text.translate(_INVISIBLE))
    text = " ".join(text.split())
    closing = _QUOTES.get(text[:1])
    if closing and len(text) > 1 and text.endswith(closing) and not set(text[1:-1]) & {text[0], closing}:
        return text[1:-1].strip()
    return text


def without_echo(text: str, hint: str) -> str:
    """Nothing if `text` is the hint itself: a model that hears no words repeats what it was told."""
    return "" if hint and _plain(text) == _plain(hint) else text


def spoken_language(answer: dict[str, Any]) -> str | None:
    """ISO 639-1 code of the language that the service found: a name or a code in `language`, or `languages`, a list of
    {"code": ...} whose first is the likeliest."""
    first = next((entry for entry in _list(answer.get("languages")) if isinstance(entry, dict)), {})
    found = first.get("code") or answer.get("language")
    if not isinstance(found, str):
        return None
    name = found.strip().lower().replace(" ", "-")
    code = _LANGUAGES.get(name) or name.split("-")[0]
    return code if re.fullmatch(r"[a-z]{2}", code) else None


def counted(used: Usage, usage: Any, duration_s: Any = None) -> Usage:
    """`used` with what the service says of it: `usage` is its object {"type": "duration", "seconds": ...} or
    {"type": "tokens", "input_tokens": ..., "output_tokens": ...}, `duration_s` the length it gives with the words."""
    told = usage if isinstance(usage, dict) else {}
    seconds = _number(told.get("seconds"))
    if seconds is None:
        seconds = _number(duration_s)
    if seconds is not None and 0 <= seconds < math.inf:
        used = replace(used, audio_s=seconds, estimated=False)
    tokens = [_number(told.get(name)) for name in ("input_tokens", "output_tokens")]
    if all(count is not None and 0 <= count < math.inf for count in tokens):
        used = replace(used, input_tokens=int(tokens[0] or 0), output_tokens=int(tokens[1] or 0), estimated=False)
    return used


def _wav(samples: NDArray[np.int16]) -> bytes:
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(to_bytes(samples))
    return sound.getvalue()


def _made_up(segment: dict[str, Any]) -> bool:
    no_speech, logprob = _number(segment.get("no_speech_prob")), _number(segment.get("avg_logprob"))
    return no_speech is not None and logprob is not None and no_speech > NO_SPEECH and logprob < DOUBTFUL_LOGPROB


def _plain(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    """A number of somebody else's JSON; None for what is none."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
