"""Every setting of Ahoy, read from the environment and from a `.env` file, checked before anything starts.

`Settings` is the list; `load_settings()` reads it or raises one SettingsError that names every problem at once.
`.env.example` at the top of the repository explains the same variables to people; a test keeps the two in step.
"""

import difflib
import ipaddress
import logging
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from dotenv.parser import parse_stream
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from app.core.errors import SettingsError
from app.core.setting_values import (
    RESERVED_PROVIDERS,
    AccountSid,
    BaseUrl,
    EndpointingMode,
    HostName,
    Key,
    LanguageCode,
    LogLevel,
    NumberPrefixes,
    Origins,
    PhoneAfter,
    PhoneNumber,
    Phrases,
    Prices,
    ProviderChoice,
    ProviderChoices,
    Region,
    ServiceKeys,
    Services,
    SocketUrl,
    Streaming,
    UrlPath,
    Voicemail,
    as_typed,
    fault_of,
    shown,
)

REPOSITORY = Path(__file__).resolve().parents[3]
ENV_FILES = (REPOSITORY / ".env", Path(".env"))
"""The later one wins; real environment variables win over both."""
TWILIO_PATH = "/twilio"
"""Everything that Twilio asks for, but for the first question about a call (VOICE_WEBHOOK_PATH), is below this."""
TWILIO_STREAM_PATH = TWILIO_PATH + "/ws"
"""Where Twilio's media streams connect."""
OPENAI_URL = "https://api.openai.com/v1"
_KOKORO_VOICE = re.compile(r"[ab][fm]_[a-z]+")
"""How its voices are called: American or British, female or male."""
_MISSPELT = {"file": 0.7, "environment": 0.9}
"""How near (difflib's ratio, 1 is the same) an unknown name must be to a setting's to be pointed out: a .env file is
ours, the environment is full of other programs' variables."""
_GETTEXT_LANGUAGE = re.compile(r"\w+_\w+(\.[\w-]+)?(@\w+)?|.*:.*")
"""The environment variable LANGUAGE as Linux desktops set it for all programs: `de_AT`, `de_AT:de:en`."""

logging.getLogger("dotenv.main").setLevel(logging.ERROR)  # unknown_variables() says it once, and better

_NAME_OF_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (looked up, not bound)
"""Under which address of this machine a server is reached that listens on all of them."""


class Settings(BaseSettings):
    """All settings; the variable is the field's name in capitals. Times and sizes carry their unit in the name."""

    model_config = SettingsConfigDict(
        extra="ignore", frozen=True, hide_input_in_errors=True, env_file_encoding="utf-8-sig"
    )

    # --- where the server listens and how the world reaches it
    host: HostName = Field("127.0.0.1", examples=["127.0.0.1"])
    port: int = Field(8000, ge=1, le=65535, examples=["8000"])
    public_base_url: BaseUrl | None = Field(None, examples=["https://voice.example.com"])
    ws_path: UrlPath = Field("/ws", examples=["/ws"])
    voice_webhook_path: UrlPath = Field("/voice", examples=["/voice"])
    allowed_origins: Origins = Field((), examples=["https://app.example.com,http://localhost:3000"])
    max_conversations: int = Field(100, ge=1, le=100_000, examples=["100"])
    log_level: LogLevel = Field("info", examples=["info"])
    api_key: Key | None = Field(None, repr=False, examples=["a-long-random-text"])

    # --- accounts
    openai_api_key: Key | None = Field(None, repr=False, examples=["sk-..."])
    openai_base_url: BaseUrl = Field(OPENAI_URL, examples=["https://eu.api.openai.com/v1"])
    services: Services = Field((), examples=["ollama=http://127.0.0.1:11434/v1,groq=https://api.groq.com/openai/v1"])
    service_keys: ServiceKeys = Field((), repr=False, examples=["groq=gsk_..."])
    twilio_account_sid: AccountSid | None = Field(None, repr=False, examples=["AC" + "0" * 32])
    twilio_auth_token: Key | None = Field(None, repr=False, examples=["0123456789abcdef0123456789abcdef"])
    twilio_phone_number: PhoneNumber | None = Field(None, repr=False, examples=["+15005550006"])
    twilio_ws_url: SocketUrl | None = Field(None, examples=["wss://voice.example.com/twilio/ws"])
    twilio_api_url: BaseUrl | None = Field(None, examples=["http://127.0.0.1:8090"])

    # --- what the assistant is
    system_prompt: str = Field("You are a helpful voice assistant", examples=["You are a patient tutor."])
    greeting: str = Field("Hello! How can I help you?", examples=["Ahoy! What can I do for you?"])
    reply_style: str = Field(
        "You are speaking, not writing: answer in one or two short, plain sentences.",
        examples=["Answer in one short sentence."],
    )
    apology: str = Field(
        "I am sorry, something went wrong on my side. Please say that again.",
        examples=["Sorry, I could not answer that."],
    )
    refusal: str = Field("I am sorry, I cannot talk about that.", examples=["I would rather not talk about that."])
    language: LanguageCode = Field("en", examples=["en"])
    voice: str | None = Field(None, examples=["heart"])

    # --- who does the work
    stt_provider: ProviderChoices = Field((), examples=["openai,embedded"])
    llm_provider: ProviderChoices = Field((), examples=["ollama:llama3.2:3b,embedded"])
    tts_provider: ProviderChoices = Field((), examples=["openai:gpt-4o-mini-tts@coral,embedded"])
    vad_model: str = Field("silero-vad", examples=["silero-vad"])
    turn_model: str = Field("smart-turn", examples=["smart-turn"])
    stt_model: str = Field("whisper-tiny.en", examples=["whisper-tiny.en"])
    stt_multilingual_model: str = Field("whisper-base", examples=["whisper-base"])
    llm_model: str = Field("smollm2-135m", examples=["~/models/bigger.gguf"])
    kokoro_model: str = Field("kokoro", examples=["kokoro"])
    llm_context_tokens: int = Field(4096, ge=512, le=131_072, examples=["4096"])
    llm_parallel: int = Field(4, ge=1, le=64, examples=["4"])
    reply_max_tokens: int = Field(120, ge=8, le=4096, examples=["120"])
    provider_timeout_s: float = Field(20.0, gt=0, le=600, examples=["20"])
    turn_deadline_s: float = Field(12.0, ge=1, le=600, examples=["12"])

    # --- services that speak OpenAI's API
    stt_patience_ms: int = Field(1200, ge=50, le=600_000, examples=["1200"])
    llm_patience_ms: int = Field(1500, ge=50, le=600_000, examples=["1500"])
    tts_patience_ms: int = Field(900, ge=50, le=600_000, examples=["900"])
    llm_hedge_ms: int = Field(0, ge=0, le=600_000, examples=["0"])
    llm_temperature: float | None = Field(None, ge=0, le=2, examples=["0.7"])
    llm_reasoning: str | None = Field(None, examples=["low"])
    stt_streaming: Streaming = Field("auto", examples=["auto"])
    stt_streaming_model: str = Field("gpt-live-transcribe", examples=["gpt-live-transcribe"])
    stt_hint: str | None = Field(None, examples=["Names that come up: Ahoy, Zephyr Bay."])
    tts_speed: float = Field(1.0, ge=0.25, le=4, examples=["1.0"])
    tts_instructions: str | None = Field(None, examples=["Speak warmly and at ease."])

    # --- what it costs
    prices: Prices = Field((), examples=["llama-3.3-70b:input=0.59,llama-3.3-70b:output=0.79"])
    budget_per_conversation_usd: float = Field(0.0, ge=0, le=1_000_000, examples=["0.50"])
    budget_per_day_usd: float = Field(0.0, ge=0, le=1_000_000, examples=["5"])
    budget_phrase: str = Field(
        "I am afraid we have to stop here. Goodbye!", examples=["We have to stop here. Goodbye!"]
    )
    speculation_budget_usd: float = Field(0.05, ge=0, le=1000, examples=["0.05"])
    data_dir: str | None = Field(None, examples=["~/ahoy-data"])

    # --- turn-taking
    pause_ms: int = Field(32, ge=32, le=1000, examples=["32"])
    endpointing_min_ms: int = Field(240, ge=100, le=5000, examples=["240"])
    endpointing_max_ms: int = Field(1600, ge=200, le=20_000, examples=["1600"])
    barge_in_ms: int = Field(160, ge=64, le=2000, examples=["160"])
    speculation: bool = Field(True, examples=["true"])
    partial_transcript_ms: int = Field(1000, ge=0, le=60_000, examples=["1000"])
    client_silence_ms: int = Field(500, ge=100, le=10_000, examples=["500"])
    preroll_ms: int = Field(300, ge=0, le=2000, examples=["300"])
    buffer_limit_s: float = Field(30.0, ge=2, le=30, examples=["30"])
    history_limit_tokens: int = Field(2000, ge=64, le=1_000_000, examples=["2000"])
    idle_timeout_s: float = Field(300.0, ge=0, le=86_400, examples=["300"])

    endpointing: EndpointingMode = Field("adaptive", examples=["adaptive"])
    endpointing_silence_ms: int = Field(600, ge=100, le=10_000, examples=["600"])
    endpointing_window_s: float = Field(2.0, ge=0.5, le=30, examples=["2"])

    # --- the telephone
    phone_reply_characters: int = Field(300, ge=0, le=10_000, examples=["300"])
    phone_full: str = Field(
        "All our lines are busy just now. Please call again in a few minutes. Goodbye.",
        examples=["Everyone is busy. Please call again later."],
    )
    phone_failed: str = Field(
        "I am sorry, something went wrong on our side. Please call again. Goodbye.",
        examples=["Sorry, that did not work. Please call again."],
    )
    phone_after: PhoneAfter = Field("hangup", examples=["hangup"])
    farewells: Phrases = Field(
        ("bye", "bye bye", "goodbye", "good bye", "good night", "hang up"), examples=["bye,goodbye,hang up"]
    )
    phone_tools: bool = Field(False, examples=["false"])
    goodbye: str = Field("Goodbye!", examples=["Thank you for calling. Goodbye!"])
    hold_phrase: str = Field("One moment, please.", examples=["Please hold the line."])
    transfer_number: PhoneNumber | None = Field(None, repr=False, examples=["+15005550007"])
    transfer_words: Phrases = Field(
        ("operator", "agent", "human", "human being", "person", "real person", "representative", "someone", "somebody"),
        examples=["operator,a person"],
    )
    transfer_phrase: str = Field("I am putting you through.", examples=["One moment, I am connecting you."])
    transfer_failed: str = Field(
        "I could not reach anyone. What else can I do for you?", examples=["Nobody answered. Can I help you?"]
    )
    transfer_timeout_s: int = Field(20, ge=5, le=120, examples=["20"])

    # --- outbound calls
    outbound_allowed: NumberPrefixes = Field((), examples=["+1,+4930"])
    outbound_per_day: int = Field(50, ge=0, le=100_000, examples=["50"])
    outbound_per_caller: int = Field(10, ge=0, le=100_000, examples=["10"])
    outbound_at_once: int = Field(5, ge=1, le=10_000, examples=["5"])
    phone_region: Region | None = Field(None, examples=["US"])
    ring_timeout_s: int = Field(30, ge=5, le=600, examples=["30"])
    voicemail: Voicemail = Field("hangup", examples=["hangup"])
    voicemail_message: str = Field(
        "Hello! You could not be reached just now. Please call back when it suits you. Goodbye.",
        examples=["Hello, this is Ahoy. Please call us back."],
    )

    # --- scripted providers: fixed words and a tone after fixed delays, for load tests and latency accounting
    scripted_stt_ms: int = Field(200, ge=0, le=60_000, examples=["200"])
    scripted_first_token_ms: int = Field(300, ge=0, le=60_000, examples=["300"])
    scripted_token_ms: int = Field(20, ge=0, le=10_000, examples=["20"])
    scripted_tokens: int = Field(24, ge=1, le=10_000, examples=["24"])
    scripted_first_audio_ms: int = Field(200, ge=0, le=60_000, examples=["200"])
    scripted_audio_ms: int = Field(2000, ge=20, le=600_000, examples=["2000"])

    @model_validator(mode="before")
    @classmethod
    def _as_typed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Values without spaces and quotes around them. Nothing (`PORT=`) is the default; only an empty GREETING says
        something: start without one."""
        typed = {name: as_typed(value) for name, value in values.items()}
        return {name: value for name, value in typed.items() if value != "" or name == "greeting"}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        conflicts = list(self._conflicts())
        if conflicts:
            raise ValueError("\n".join(conflicts))
        return self

    def _conflicts(self) -> Iterator[str]:
        """A line for each rule over several variables that is broken."""
        if self.endpointing_max_ms < self.endpointing_min_ms:
            yield (
                f"ENDPOINTING_MAX_MS: {self.endpointing_max_ms} is less than ENDPOINTING_MIN_MS "
                f"({self.endpointing_min_ms}); example: ENDPOINTING_MAX_MS={max(1600, self.endpointing_min_ms)}"
            )
        room = self.llm_context_tokens - self.reply_max_tokens
        if self.history_limit_tokens > room:
            advice = f"HISTORY_LIMIT_TOKENS={room}" if room >= 64 else "REPLY_MAX_TOKENS=120"
            yield (
                f"HISTORY_LIMIT_TOKENS: {self.history_limit_tokens} and REPLY_MAX_TOKENS ({self.reply_max_tokens}) "
                f"do not fit into LLM_CONTEXT_TOKENS ({self.llm_context_tokens}); example: {advice}"
            )
        yield from self._provider_conflicts()
        if self.ws_path == self.voice_webhook_path:
            yield f"WS_PATH: '{self.ws_path}' is VOICE_WEBHOOK_PATH as well; example: WS_PATH=/ws"
        if _is_below(self.ws_path, TWILIO_PATH):
            yield f"WS_PATH: '{self.ws_path}' is where Twilio's streams connect; example: WS_PATH=/ws"
        for taken in (TWILIO_PATH, "/api", "/static", "/health", "/ready"):
            if _is_below(self.voice_webhook_path, taken):
                yield (
                    f"VOICE_WEBHOOK_PATH: '{self.voice_webhook_path}' belongs to {taken}; "
                    "example: VOICE_WEBHOOK_PATH=/voice"
                )

    def _provider_conflicts(self) -> Iterator[str]:
        known = dict(self.services)
        for capability in ("stt", "llm", "tts"):
            variable = f"{capability.upper()}_PROVIDER"
            chosen = getattr(self, f"{capability}_provider")
            if len({*chosen}) < len(chosen):
                yield f"{variable}: has an entry twice; example: {variable}=embedded"
            for choice in chosen:
                if choice.name == "openai" and self.openai_api_key is None and self.openai_base_url == OPENAI_URL:
                    yield f"{variable}: openai needs a key; example: OPENAI_API_KEY=sk-..."
                elif choice.name not in RESERVED_PROVIDERS and choice.name not in known:
                    yield (
                        f"{variable}: '{choice.name}' is neither embedded nor openai, nor a service of SERVICES; "
                        f"example: SERVICES={choice.name}=http://127.0.0.1:8001/v1"
                    )
                elif choice.name in known and choice.model is None:
                    yield f"{variable}: '{choice.name}' needs a model; example: {variable}={choice.name}:MODEL"
        for name, _ in self.service_keys:
            if name not in known:
                yield f"SERVICE_KEYS: '{name}' is no service of SERVICES (the key of OpenAI is OPENAI_API_KEY)"

    def chain(self, capability: str) -> tuple[ProviderChoice, ...]:
        """Who does the work of stt, llm or tts: the first one, and who takes over from it. Without a setting: OpenAI if
        there is a key for it, and the embedded models."""
        chosen: tuple[ProviderChoice, ...] = getattr(self, f"{capability}_provider")
        if chosen:
            return chosen
        embedded = ProviderChoice("embedded")
        return (ProviderChoice("openai"), embedded) if self.openai_api_key else (embedded,)

    def uses(self, capability: str, provider: str) -> bool:
        """Whether this provider may do this work."""
        return any(choice.name == provider for choice in self.chain(capability))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is given in code wins over the environment, and that over `.env` files."""
        return init_settings, _Environment(settings_cls), dotenv_settings

    @cached_property
    def needed_models(self) -> dict[str, str]:
        """The models that are made use of, by the name of their setting: a model's name or the user's own path."""
        names = ["vad_model", "turn_model"] if self.endpointing == "adaptive" else ["vad_model"]
        if self.uses("stt", "embedded"):
            names.append("stt_model" if self.language == "en" else "stt_multilingual_model")
        if self.uses("llm", "embedded"):
            names.append("llm_model")
        if self.uses("tts", "embedded") and _KOKORO_VOICE.fullmatch(self.embedded_voice or ""):
            names.append("kokoro_model")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def embedded_voice(self) -> str | None:
        """The voice that the embedded synthesiser is asked for: its own in TTS_PROVIDER, else VOICE."""
        return next((one.voice for one in self.chain("tts") if one.name == "embedded" and one.voice), self.voice)

    @cached_property
    def local_only(self) -> bool:
        """Only programs on this machine reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @cached_property
    def base_url(self) -> str:
        """The address people and services reach this server at, without a slash at the end."""
        return self.public_base_url or self.local_url

    @cached_property
    def local_url(self) -> str:
        """The address people on this machine reach the server at, without a slash at the end."""
        host = _NAME_OF_ALL.get(self.host, self.host)
        return f"http://[{host.replace('%', '%25')}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def public_url(self, path: str) -> str:
        """The address of a path of this server as seen from outside."""
        return self.base_url + path

    @cached_property
    def public_ws_url(self) -> str:
        """The WebSocket of the browser conversation, as seen from outside (ws:// or wss://)."""
        return "ws" + self.base_url.removeprefix("http") + self.ws_path

    @cached_property
    def public_voice_webhook_url(self) -> str:
        """The address to enter as the webhook of a Twilio number."""
        return self.base_url + self.voice_webhook_path

    @cached_property
    def public_twilio_ws_url(self) -> str:
        """The WebSocket Twilio opens for a call: TWILIO_WS_URL, or derived from PUBLIC_BASE_URL."""
        return self.twilio_ws_url or "ws" + self.base_url.removeprefix("http") + TWILIO_STREAM_PATH


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


class _Environment(EnvSettingsSource):
    """The environment, but for a LANGUAGE that is meant for the desktop's programs."""

    def __call__(self) -> dict[str, Any]:
        values = super().__call__()
        if _GETTEXT_LANGUAGE.fullmatch(str(values.get("language", ""))):
            del values["language"]
        return values


def load_settings(*, env_files: tuple[Path, ...] = ENV_FILES, **overrides: Any) -> Settings:
    """Read the settings from the environment and `env_files`; `overrides` (field names) win over both.

    Raises SettingsError whose message has one line per problem: the variable, what is wrong with its value, an example.
    """
    unreadable = [line for path in env_files for line in _unreadable(path)]
    if unreadable:
        raise SettingsError("\n".join(unreadable))
    try:
        return Settings(_env_file=env_files, **overrides)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=True)
    faulty = {str(details["loc"][0]) for details in problems if details["loc"]}
    lines = {_problem(dict(details)) for details in problems if details["loc"]}
    try:  # what the other variables say about each other, with the defaults in place of the faulty ones
        Settings(_env_file=env_files, **overrides | {name: Settings.model_fields[name].default for name in faulty})
    except ValidationError as error:
        conflicts = "\n".join(str(details["ctx"]["error"]) for details in error.errors()).splitlines()
        lines |= {line for line in conflicts if not faulty & set(re.findall(r"\w+", line.lower()))}
    raise SettingsError("\n".join(sorted(lines))) from None


def unknown_variables(
    env_files: tuple[Path, ...] = ENV_FILES, environment: Mapping[str, str] = os.environ
) -> list[str]:
    """One line for each line of `env_files` that says nothing, and for each variable there and in the environment that
    looks like a misspelt setting. Values are not shown."""
    lines = []
    for path in {path.resolve(): path for path in env_files if path.is_file()}.values():
        with path.open(encoding="utf-8-sig") as file:
            for binding in parse_stream(file):
                where = f"{path.name}, line {binding.original.line}"
                if binding.error or (binding.key and binding.value is None):
                    lines.append(f"{where}: not of the form NAME=value, ignored")
                elif binding.key:
                    lines += _misspelt(binding.key, where, _MISSPELT["file"])
    for name in environment:
        lines += _misspelt(name, "environment", _MISSPELT["environment"])
    return lines


def _misspelt(name: str, where: str, nearness: float) -> list[str]:
    known = [field.upper() for field in Settings.model_fields]
    if name.upper() in known:
        return []
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=nearness)
    return [f"{where}: {name} is not a setting; did you mean {near[0]}?"] if near else []


def _unreadable(path: Path) -> Iterator[str]:
    try:
        if path.is_file():
            path.read_text("utf-8-sig")
    except UnicodeError:
        yield f"{path}: is not text in UTF-8; save it in that encoding"
    except OSError as error:
        yield f"{path}: cannot be read: {error.strerror}"


def _problem(details: dict[str, Any]) -> str:
    name = str(details["loc"][0])
    field = Settings.model_fields[name]
    example = f"{name.upper()}={field.examples[0] if field.examples else field.default}"
    return f"{name.upper()}: {shown(details['input'], field)} {fault_of(details, field)}; example: {example}"
