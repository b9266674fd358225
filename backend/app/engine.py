"""The engine: everything a conversation needs, built from the settings and shared by all conversations.

The server, `ahoy talk` and the benchmarks hold their conversations through the same engine.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from app.conversation.history import History
from app.conversation.messages import Outlet
from app.conversation.metronome import Metronome
from app.conversation.options import Options, Providers
from app.conversation.phrases import Phrases
from app.conversation.session import Conversation
from app.core.config import Settings
from app.core.errors import AhoyError, ModelError, OverloadedError, ProviderError, SettingsError
from app.core.languages import only_speaks
from app.inference.location import resolve
from app.inference.manifest import Role
from app.inference.store import ModelStore
from app.inference.worker import Worker
from app.providers import Provision
from app.tts import embedded, scripted
from app.tts.base import Voice
from app.turn.base import TurnDetector
from app.turn.smart_turn import SmartTurnDetector
from app.turn.unasked import UnaskedTurnDetector
from app.usage.account import Account
from app.usage.day import Day
from app.usage.meter import bind
from app.usage.prices import Prices
from app.vad.base import VoiceActivityDetector
from app.vad.silero import SileroDetector

log = logging.getLogger(__name__)

COMPUTING_THREADS = 2
"""Recognition and the turn model take turns on this many processors: side by side on two, each waits for the other, and
the transcript, which everything else waits for, comes 80 ms later."""
MULTILINGUAL = ("auto", "en", "de", "es", "fr", "it", "nl", "pl", "pt", "sv", "tr", "uk", "ja", "ko", "zh")
"""Languages offered when the multilingual recogniser is there; it knows more, and LANGUAGE takes any of them."""


class Engine:
    """Holds the providers and opens conversations. `start` loads, `close` ends everything.

    Raises ModelError at once when a model that the settings need is not there, SettingsError when they choose a voice
    or a language that does not exist.
    """

    def __init__(
        self, settings: Settings, *, store: ModelStore | None = None, metronome: Metronome | None = None
    ) -> None:
        self.settings = settings
        self.metronome = metronome or Metronome()
        self.conversations: set[Conversation] = set()
        self.problem = ""
        """Why the engine will never be ready; empty while there is hope."""
        self._store = store or ModelStore()
        self._paths = {name: self._find(name, value) for name, value in settings.needed_models.items()}
        self._multilingual = self._paths.get("stt_multilingual_model") or self._find_optional()
        self._check_choices()
        self.prices = Prices(settings.prices)
        self.day = Day(data_path(settings) / "usage.json", self.prices, limit_usd=settings.budget_per_day_usd)
        self.provision = Provision(settings, self._paths, self._multilingual)
        self.closing = False
        """No conversation may begin any more."""
        self._understanding: Worker | None = None
        self._providers: Providers | None = None
        self._loaded = asyncio.Event()

    @property
    def ready(self) -> bool:
        """All models are loaded."""
        return self._providers is not None

    @property
    def providers(self) -> Providers:
        """Who does the work. Raises OverloadedError before the engine is ready."""
        if self._providers is None:
            raise OverloadedError(self.problem or "The models are still being loaded; try again in a moment.")
        return self._providers

    @property
    def languages(self) -> tuple[str, ...]:
        """What a user may choose: ISO 639-1 codes, and `auto` when the language can be detected."""
        services = any(choice.name not in {"embedded", "scripted"} for choice in self.settings.chain("stt"))
        offered = MULTILINGUAL if self._multilingual or services else ("en",)
        chosen = self.settings.language
        return offered if chosen in offered else (chosen, *offered)

    async def start(self) -> None:
        """Load the models, in threads, and prepare the fixed phrases. Raises what the loading raises."""
        self._warn_of_language()
        self._understanding = Worker("understanding", threads=max(1, (os.cpu_count() or 1) // COMPUTING_THREADS))
        provision, provision.understanding = self.provision, self._understanding
        await self.day.open()
        bind(self.day, lambda: 0)
        try:
            vad, turn, stt, llm, tts = await asyncio.gather(
                asyncio.to_thread(self._load_vad),
                asyncio.to_thread(self._load_turn),
                asyncio.to_thread(provision.stt),
                asyncio.to_thread(provision.llm),
                asyncio.to_thread(provision.tts),
            )
            phrases = Phrases(tts)
            await provision.find_voices()
            names = ("apology", "refusal", "greeting", *self._phrases_of_budgets)
            await asyncio.gather(*(self._prepare(phrases, name) for name in names))
            if warning := await provision.slow_warning():
                log.warning("%s", warning)
            self._providers = Providers(vad, turn, stt, llm, tts, phrases, provision.open_ahead)
        except Exception as error:
            self.problem = error.message if isinstance(error, AhoyError) else "The models could not be loaded."
            raise
        finally:
            self._loaded.set()

    @property
    def _phrases_of_budgets(self) -> tuple[str, ...]:
        settings = self.settings
        return ("budget_phrase",) if settings.budget_per_conversation_usd or settings.budget_per_day_usd else ()

    async def _prepare(self, phrases: Phrases, name: str) -> None:
        """A phrase that cannot be spoken is still shown; that is no reason not to start."""
        text = getattr(self.settings, name)
        try:
            if text:
                await phrases.keep(text, self.settings.voice)
        except ProviderError as error:
            log.warning("%s cannot be spoken: %s", name.upper(), error.message)

    async def wait_until_ready(self) -> None:
        """Return when the engine is ready. Raises OverloadedError if it never will be."""
        await self._loaded.wait()
        _ = self.providers

    @property
    def no_room_because(self) -> str:
        """Why no conversation can begin now; empty when one can."""
        if self.closing:
            return "The server is shutting down."
        if self._providers is None:
            return self.problem or "The models are still being loaded; try again in a moment."
        if self.day.over:
            return "What may be spent today is spent (BUDGET_PER_DAY_USD); come back tomorrow."
        if len(self.conversations) >= self.settings.max_conversations:
            return f"All {self.settings.max_conversations} lines are busy; try again in a moment."
        return ""

    @property
    def has_room(self) -> bool:
        """A conversation can begin now."""
        return not self.no_room_because

    def open(
        self,
        name: str,
        options: Options,
        outlet: Outlet,
        *,
        history: History | None = None,
        account: Account | None = None,
    ) -> Conversation:
        """A new conversation, or one that goes on from a `history` and an `account`; run it with `hold`. `name` stands
        for it in the logs. Raises OverloadedError when there are too many already."""
        if reason := self.no_room_because:
            full = "budget_spent" if self.day.over else "server_full"
            raise OverloadedError(reason, code=full if self._providers else None)
        account = account or self._new_account()
        conversation = Conversation(
            name, self.providers, options, outlet, self.metronome, account=account, history=history
        )
        self.conversations.add(conversation)
        return conversation

    def _new_account(self) -> Account:
        settings = self.settings
        return Account(
            self.prices,
            self.day,
            limit_usd=settings.budget_per_conversation_usd,
            speculation_usd=settings.speculation_budget_usd,
        )

    async def hold(self, conversation: Conversation) -> str:
        """Run a conversation that `open` gave, to its end; returns why it ended."""
        try:
            return await conversation.run()
        finally:
            self.conversations.discard(conversation)

    async def close(self) -> None:
        """End all conversations, then the models."""
        self.closing = True
        for conversation in list(self.conversations):
            conversation.end("shutdown")
        providers, self._providers = self._providers, None
        if providers:
            for provider in (providers.vad, providers.turn, providers.stt, providers.llm, providers.tts):
                await provider.close()
        await self.provision.close()
        await self.day.close()
        if self._understanding:
            self._understanding.close()
            await asyncio.to_thread(self._understanding.join)

    # --- loading; each of these blocks

    def _find(self, setting: str, value: str) -> Path:
        role: Role = _ROLES[setting]
        try:
            return resolve(value, role, self._store).path
        except ModelError as error:
            raise ModelError(f"{setting.upper()}: {error.message}", code=error.code) from None

    def _find_optional(self) -> Path | None:
        """The multilingual recogniser is used when it happens to be there."""
        if not self.settings.uses("stt", "embedded"):
            return None
        try:
            return self._find("stt_multilingual_model", self.settings.stt_multilingual_model)
        except ModelError:
            return None

    @property
    def _local_voices(self) -> Sequence[Voice]:
        """The voices of the settings if no service speaks; a service's own are not known yet."""
        names = {choice.name for choice in self.settings.chain("tts")}
        if not names <= {"embedded", "scripted"}:
            return ()
        return scripted.VOICES if names == {"scripted"} else embedded.voices_of(self._paths.get("kokoro_model"))

    def _check_choices(self) -> None:
        """What the settings choose exists; found out now and not by the first who talks."""
        settings = self.settings
        voices = [voice.id for voice in self._local_voices]
        if voices and settings.voice not in {None, *voices}:
            raise SettingsError(f"VOICE: there is no voice '{settings.voice}'; example: VOICE={voices[0]}")
        recogniser = self._paths.get("stt_multilingual_model")
        if recogniser and settings.language != "auto":
            tokens = (recogniser / "tokenizer.json").read_text(encoding="utf-8")
            if f'"<|{settings.language}|>"' not in tokens:
                raise SettingsError(f"LANGUAGE: '{settings.language}' is not recognised; example: LANGUAGE=de")

    def _warn_of_language(self) -> None:
        spoken = {voice.language for voice in self._local_voices}
        language = self.settings.language
        if spoken and language not in {"auto", *spoken}:
            log.warning("LANGUAGE=%s is understood, but %s", language, only_speaks(spoken))

    def _load_vad(self) -> VoiceActivityDetector:
        return SileroDetector(self._paths["vad_model"])

    def _load_turn(self) -> TurnDetector:
        if self.settings.endpointing != "adaptive":
            return UnaskedTurnDetector()
        return SmartTurnDetector(self._paths["turn_model"], worker=self._understanding)


def data_path(settings: Settings) -> Path:
    """Where the server keeps what it writes."""
    return Path(settings.data_dir).expanduser() if settings.data_dir else platformdirs.user_data_path("ahoy")


_ROLES: dict[str, Role] = {
    "vad_model": "vad",
    "turn_model": "turn",
    "stt_model": "stt",
    "stt_multilingual_model": "stt",
    "llm_model": "llm",
    "kokoro_model": "tts",
}
