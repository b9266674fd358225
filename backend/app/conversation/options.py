"""What one conversation works with and how it behaves."""

from dataclasses import dataclass
from typing import Self

from app.conversation.endpointing import Endpointing
from app.conversation.phrases import Phrases
from app.conversation.turn_state import TurnRules
from app.core.config import Settings
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

    @classmethod
    def from_settings(
        cls, settings: Settings, *, voice: str | None = None, language: str | None = None, greeting: bool = True
    ) -> Self:
        """The options that the settings ask for, with what a user chose for this conversation."""
        language = language or settings.language
        return cls(
            rules=TurnRules(
                endpointing=Endpointing(settings.endpointing_min_ms, settings.endpointing_max_ms),
                idle_ms=settings.idle_timeout_s * 1000,
                partial_ms=settings.partial_transcript_ms,
                speculation=settings.speculation,
            ),
            system_prompt=f"{settings.system_prompt}\n{settings.reply_style}",
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
        )
