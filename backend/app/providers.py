"""Who does the work: the settings' chains of embedded models and services, built and loaded.

A chain of one embedded model is that model; everything else is asked through a chain, which takes the next one when one
fails or is late. Constructing and loading blocks; asking does not.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from app.core.config import Settings
from app.core.setting_values import ProviderChoice
from app.inference.worker import Worker
from app.llm.base import LanguageModel
from app.llm.chat import ChatModel
from app.llm.fallback import FallbackModel
from app.llm.scripted import ScriptedModel
from app.remote.chain import Chain, Member
from app.remote.client import ServiceClient
from app.remote.health import Doubt, Health
from app.stt.base import SpeechToText
from app.stt.fallback import FallbackRecognizer
from app.stt.realtime import LiveTranscription
from app.stt.scripted import ScriptedRecognizer
from app.stt.whisper import UploadRecognizer
from app.tts.base import TextToSpeech
from app.tts.embedded import EmbeddedVoices
from app.tts.fallback import FallbackVoice
from app.tts.scripted import ScriptedVoice
from app.tts.tts import SpeechService
from app.tts.voices import openai_voices
from app.usage.meter import Capability

MODELS = {"stt": "gpt-transcribe", "llm": "gpt-5.4-mini", "tts": "gpt-4o-mini-tts"}
"""What OpenAI is asked for when the settings name no model (developers.openai.com, models, November 2026)."""
VOICE = "coral"
WORK = {"stt": "recognition", "llm": "language model", "tts": "voice"}
"""What people call the capabilities."""
_OFFICIAL = (".openai.com", ".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")

P = TypeVar("P")


class Provision:
    """Builds the providers of one engine. `paths` are the files of the embedded models by the name of their setting,
    `understanding` the threads that they compute in. `close` closes the connections; the providers close themselves."""

    def __init__(self, settings: Settings, paths: Mapping[str, Path], multilingual: Path | None) -> None:
        self.understanding: Worker | None = None
        self.members: dict[Capability, list[Member[Any]]] = {}
        """Each chain, in its order."""
        self._settings = settings
        self._paths = paths
        self._multilingual = multilingual
        keys = dict(settings.service_keys)
        self._clients = {
            name: ServiceClient(name, url, keys[name].get_secret_value() if name in keys else None)
            for name, url in settings.services
        }
        key = settings.openai_api_key
        self._clients["openai"] = ServiceClient(
            "openai", settings.openai_base_url, key.get_secret_value() if key else None
        )
        self._official = {name: is_official(url) for name, url in settings.services}
        self._official["openai"] = is_official(settings.openai_base_url)
        self._doubts = {name: Doubt() for name in (*self._clients, "embedded", "scripted")}

    def stt(self) -> SpeechToText:
        """The recognisers."""
        settings = self._settings
        members = self._members("stt", self._stt, settings.stt_patience_ms)
        if len(members) == 1 and members[0].name not in self._clients:
            return members[0].provider
        return FallbackRecognizer(Chain(members), self._live(settings.chain("stt")))

    def llm(self) -> LanguageModel:
        """The language models."""
        settings = self._settings
        members = self._members("llm", self._llm, settings.llm_patience_ms)
        if len(members) == 1 and members[0].name not in self._clients:
            return members[0].provider
        return FallbackModel(Chain(members, hedge_s=settings.llm_hedge_ms / 1000))

    def tts(self) -> TextToSpeech:
        """The voices."""
        settings = self._settings
        members = self._members("tts", self._tts, settings.tts_patience_ms)
        if len(members) == 1 and members[0].name not in self._clients:
            return members[0].provider
        return FallbackVoice(Chain(members))

    def open_ahead(self) -> None:
        """Have connections ready to the services that work; returns at once."""
        working = {
            one.name for members in self.members.values() for one in members if one.health.admits()
        } & self._clients.keys()
        for name in working:
            self._clients[name].open_ahead()

    async def slow_warning(self) -> str | None:
        """What to say when an embedded voice cannot keep up with itself on this machine."""
        for member in self.members["tts"]:
            if isinstance(member.provider, EmbeddedVoices):
                return await member.provider.slow_warning()
        return None

    async def find_voices(self) -> None:
        """Ask the services which voices they have."""
        for member in self.members["tts"]:
            if isinstance(member.provider, SpeechService):
                await member.provider.find_voices(self._clients[member.name].get_json)

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()

    # --- one of a chain

    def _members(
        self, capability: Capability, make: Callable[[ProviderChoice], P], patience_ms: int
    ) -> list[Member[P]]:
        members = []
        chain = self._settings.chain(capability)
        for choice in chain:
            remote = choice.name in self._clients
            health = Health(f"{choice.name} ({WORK[capability]})", self._doubts[choice.name])
            # There is nobody behind an embedded model that comes last: it may take the time it needs.
            last = choice is chain[-1] and not remote
            patience_s = self._settings.provider_timeout_s if last else patience_ms / 1000
            model = choice.model or (MODELS[capability] if remote else "")
            members.append(Member(choice.name, make(choice), health, patience_s, model))
        self.members[capability] = [*members]
        return members

    def _stt(self, choice: ProviderChoice) -> SpeechToText:
        settings = self._settings
        if choice.name == "scripted":
            return ScriptedRecognizer(settings.scripted_stt_ms)
        if choice.name == "embedded":
            from app.stt.embedded_whisper import WhisperRecognizer  # noqa: PLC0415 (a large library, only if it is used)

            return WhisperRecognizer(self._paths.get("stt_model"), self._multilingual, worker=self.understanding)
        return UploadRecognizer(
            self._clients[choice.name],
            choice.model or MODELS["stt"],
            hint=settings.stt_hint or "",
            official=self._official[choice.name],
        )

    def _live(self, chain: tuple[ProviderChoice, ...]) -> LiveTranscription | None:
        """The recogniser that listens along: the first of the chain, if it can."""
        settings, first = self._settings, chain[0].name
        wanted = settings.stt_streaming == "true" or (settings.stt_streaming == "auto" and first == "openai")
        if not wanted or first not in self._clients or (settings.stt_streaming == "auto" and not self._official[first]):
            return None
        return LiveTranscription(
            self._clients[first],
            settings.stt_streaming_model,
            hint=settings.stt_hint or "",
            patience_s=settings.stt_patience_ms / 1000,
            health=Health(f"{first} (live recognition)", self._doubts[first]),
        )

    def _llm(self, choice: ProviderChoice) -> LanguageModel:
        settings = self._settings
        if choice.name == "scripted":
            return ScriptedModel(
                first_token_ms=settings.scripted_first_token_ms,
                token_ms=settings.scripted_token_ms,
                tokens=settings.scripted_tokens,
            )
        if choice.name == "embedded":
            from app.llm.llama import LlamaModel  # noqa: PLC0415 (loads a large library, only if it is used)

            return LlamaModel(
                self._paths["llm_model"], context_tokens=settings.llm_context_tokens, parallel=settings.llm_parallel
            )
        return ChatModel(
            self._clients[choice.name],
            choice.model or MODELS["llm"],
            temperature=settings.llm_temperature,
            reasoning=settings.llm_reasoning,
            context_tokens=settings.llm_context_tokens,
            official=self._official[choice.name],
        )

    def _tts(self, choice: ProviderChoice) -> TextToSpeech:
        settings = self._settings
        if choice.name == "scripted":
            return ScriptedVoice(first_audio_ms=settings.scripted_first_audio_ms, audio_ms=settings.scripted_audio_ms)
        if choice.name == "embedded":
            return EmbeddedVoices(settings.embedded_voice, self._paths.get("kokoro_model"))
        return SpeechService(
            self._clients[choice.name],
            choice.model or MODELS["tts"],
            choice.voice or self._voice_of(choice),
            speed=settings.tts_speed,
            instructions=settings.tts_instructions or "",
            official=self._official[choice.name],
        )

    def _voice_of(self, choice: ProviderChoice) -> str | None:
        """The voice of a service that has none of its own in the settings: VOICE, if it is one of OpenAI's."""
        if not self._official[choice.name]:
            return None
        named = self._settings.voice
        known = {voice.id for voice in openai_voices(choice.model or MODELS["tts"])}
        return named if named in known else VOICE


def is_official(url: str) -> bool:
    """Whether OpenAI's own API is there (or Azure's), with all of its fields."""
    host = urlsplit(url).hostname or ""
    return f".{host}".endswith(_OFFICIAL)
