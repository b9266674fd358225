"""What one conversation works with and how it behaves."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from app.conversation.endpointing import Endpointing
from app.conversation.parting import GOODBYE, HANG_UP_MARK, TRANSFER, TRANSFER_MARK, Parting
from app.conversation.phrases import Phrases
from app.conversation.playout import REPORT_LAG_MS
from app.conversation.turn_state import TurnRules
from app.core.config import Settings
from app.core.languages import LANGUAGES
from app.llm.base import LanguageModel
from app.stt.base import SpeechToText
from app.tts.base import TextToSpeech
from app.turn.base import TurnDetector
from app.vad.base import VoiceActivityDetector


@dataclass(frozen=True, slots=True)
class Providers:
    """Who does the work; shared by all conversations of the process."""

    vad: VoiceActivityDetector
    turn: TurnDetector
    stt: SpeechToText
    llm: LanguageModel
    tts: TextToSpeech
    phrases: Phrases
    open_ahead: Callable[[], None] = lambda: None
    """Have connections ready to all services: they will be asked soon."""


@dataclass(frozen=True, slots=True)
class Transport:
    """What a conversation has to know of its way to the listener. The defaults are those of the browser."""

    rate_hz: int = 16_000
    """Of the audio in both directions; 8000 or 16000."""
    frame_ms: float = 0.0
    """Reply audio leaves in whole frames of this length; 0 for any length."""
    ducks: bool = True
    """The listener's side lowers the volume of a reply that may be interrupted; otherwise its audio waits."""
    report_lag_ms: float = REPORT_LAG_MS
    """How long after a report of what was heard the listener is trusted to have heard on."""


BROWSER = Transport()
TELEPHONE = Transport(rate_hz=8000, frame_ms=20.0, ducks=False, report_lag_ms=30_000.0)
"""Twilio Media Streams: mu-law at 8 kHz in frames of 20 ms; marks come back at the ends of sentences only."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a conversation behaves. Times in milliseconds of the audio clock unless the name says otherwise."""

    rules: TurnRules
    system_prompt: str
    greeting: str
    apology: str
    language: str | None
    """ISO 639-1 code; None to detect it in every turn."""
    voice: str | None
    pause_ms: float
    barge_in_ms: float
    preroll_ms: float
    buffer_limit_s: float
    client_silence_ms: float
    history_limit_tokens: int
    reply_max_tokens: int
    provider_timeout_s: float
    turn_deadline_s: float = 12.0
    """How long a turn's answer may take; see `patience.py` for the shares of its stages."""
    refusal: str = "I am sorry, I cannot talk about that."
    """Said when the rules of a service do not allow an answer."""
    budget_phrase: str = "I am afraid we have to stop here. Goodbye!"
    """Last words of a conversation whose budget is used up."""
    reply_max_characters: int = 0
    """A reply is cut at the end of a sentence before this, and shown piece by piece; 0 to show it as it comes."""
    obeys_marks: bool = False
    """The model may end the conversation with a mark (`parting.MARKS`); otherwise marks are only left out."""
    transport: Transport = BROWSER

    @classmethod
    def from_settings(
        cls, settings: Settings, *, voice: str | None = None, language: str | None = None, greeting: bool = True
    ) -> Self:
        """The options that the settings ask for, with what a user chose for this conversation."""
        language = language or settings.language
        return cls(
            rules=TurnRules(
                endpointing=_endpointing(settings),
                idle_ms=settings.idle_timeout_s * 1000,
                partial_ms=settings.partial_transcript_ms,
                speculation=settings.speculation,
            ),
            system_prompt="\n".join((settings.system_prompt, settings.reply_style, *_in_language(language))),
            greeting=settings.greeting if greeting else "",
            apology=settings.apology,
            language=None if language == "auto" else language,
            voice=voice or settings.voice,
            pause_ms=settings.pause_ms,
            barge_in_ms=settings.barge_in_ms,
            preroll_ms=settings.preroll_ms,
            buffer_limit_s=settings.buffer_limit_s,
            client_silence_ms=settings.client_silence_ms,
            history_limit_tokens=settings.history_limit_tokens,
            reply_max_tokens=settings.reply_max_tokens,
            provider_timeout_s=settings.provider_timeout_s,
            turn_deadline_s=settings.turn_deadline_s,
            refusal=settings.refusal,
            budget_phrase=settings.budget_phrase,
        )

    @classmethod
    def for_telephone(cls, settings: Settings, *, greeting: bool = True) -> Self:
        """The options of a telephone call: short answers, and ways to end it."""
        options = cls.from_settings(settings, greeting=greeting)
        limit = settings.phone_reply_characters
        prompt = [options.system_prompt]
        if limit:
            prompt.append(f"This is a telephone call: no answer may be longer than {limit} characters.")
        partings = [Parting(settings.farewells, settings.goodbye, GOODBYE)]
        if settings.transfer_number:
            partings.append(Parting(settings.transfer_words, settings.transfer_phrase, TRANSFER))
        if settings.phone_tools:
            prompt.append(f"When the caller wants to end the call, say goodbye and write {HANG_UP_MARK}.")
            if settings.transfer_number:
                prompt.append(f"When the caller asks for a person, say you connect them and write {TRANSFER_MARK}.")
        rules = replace(options.rules, partings=tuple(partings))
        return replace(
            options,
            rules=rules,
            system_prompt="\n".join(prompt),
            reply_max_characters=limit or _UNLIMITED,
            obeys_marks=settings.phone_tools,
            transport=TELEPHONE,
        )


_UNLIMITED = 1_000_000


def _in_language(language: str) -> tuple[str, ...]:
    """What the model is told about the language of its answers; English needs no word."""
    if language == "auto":
        return ("Answer in the language that the user speaks.",)
    return () if language == "en" else (f"Answer in {LANGUAGES.get(language, f'the language {language!r}')}.",)


def _endpointing(settings: Settings) -> Endpointing:
    match settings.endpointing:
        case "silence":
            return Endpointing(settings.endpointing_silence_ms, settings.endpointing_silence_ms, scored=False)
        case "window":
            return Endpointing(scored=False, window_ms=settings.endpointing_window_s * 1000)
        case _:
            return Endpointing(settings.endpointing_min_ms, settings.endpointing_max_ms)
