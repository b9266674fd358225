"""Every setting of Ahoy, read from the environment and from a `.env` file, checked before anything starts.

`Settings` is the list; `load_settings()` reads it or raises one SettingsError that names every problem at once.
`.env.example` at the top of the repository explains the same variables to people; a test keeps the two in step.
"""

import difflib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.errors import SettingsError

REPOSITORY = Path(__file__).resolve().parents[3]
ENV_FILES = (REPOSITORY / ".env", Path(".env"))
"""The later one wins; real environment variables win over both."""

Provider = Literal["embedded", "scripted"]


def _origins(value: Any) -> Any:
    """A comma-separated list becomes a tuple."""
    if isinstance(value, str):
        return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
    return value


def _checked_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        parts = urlsplit(origin)
        if origin in {"*", "null"}:
            continue
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path or parts.query:
            raise ValueError(f"'{origin}' is not an origin (scheme and host, nothing behind)")
    return origins


def _checked_path(path: str) -> str:
    if not path.startswith("/") or any(character in path for character in "?#{} "):
        raise ValueError("a path begins with / and has no spaces, braces, ? or #")
    return path


def _checked_base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("a public address is http:// or https:// and a host name")
    return url.rstrip("/")


def _checked_socket_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "wss" or not parts.netloc:
        raise ValueError("Twilio connects to wss:// addresses only")
    if parts.query:
        raise ValueError("Twilio drops everything behind a ? in a stream address")
    return url


UrlPath = Annotated[str, AfterValidator(_checked_path)]
BaseUrl = Annotated[str, AfterValidator(_checked_base_url)]
SocketUrl = Annotated[str, AfterValidator(_checked_socket_url)]


class Settings(BaseSettings):
    """All settings; the variable is the field's name in capitals. Times and sizes carry their unit in the name."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    # --- where the server listens and how the world reaches it
    host: str = Field("127.0.0.1", examples=["127.0.0.1"])
    port: int = Field(8000, ge=1, le=65535, examples=["8000"])
    public_base_url: BaseUrl | None = Field(None, examples=["https://voice.example.com"])
    ws_path: UrlPath = Field("/ws", examples=["/ws"])
    voice_webhook_path: UrlPath = Field("/voice", examples=["/voice"])
    allowed_origins: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_origins), AfterValidator(_checked_origins)
    ] = Field((), examples=["https://app.example.com,http://localhost:3000"])
    max_conversations: int = Field(100, ge=1, le=100_000, examples=["100"])
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", examples=["info"])

    # --- accounts
    openai_api_key: SecretStr | None = Field(None, examples=["sk-..."])
    twilio_account_sid: str | None = Field(None, pattern=r"^AC[0-9a-fA-F]{32}$", examples=["AC" + "0" * 32])
    twilio_auth_token: SecretStr | None = Field(None, examples=["the token from the Twilio console"])
    twilio_phone_number: str | None = Field(None, pattern=r"^\+[1-9][0-9]{6,14}$", examples=["+15005550006"])
    twilio_ws_url: SocketUrl | None = Field(None, examples=["wss://voice.example.com/twilio/ws"])

    # --- what the assistant is
    system_prompt: str = Field("You are a helpful voice assistant", min_length=1, examples=["You are a patient tutor."])
    greeting: str = Field("Ahoy! How can I help you?", examples=["Hello! What can I do for you?"])
    reply_style: str = Field(
        "You are speaking, not writing: answer in one or two short, plain sentences.",
        examples=["Answer in one short sentence."],
    )
    apology: str = Field(
        "I am sorry, something went wrong on my side. Please say that again.",
        min_length=1,
        examples=["Sorry, I could not answer that."],
    )
    language: str = Field("en", pattern=r"^([a-z]{2,3}|auto)$", examples=["en"])
    voice: str | None = Field(None, examples=["heart"])

    # --- who does the work
    stt_provider: Provider = Field("embedded", examples=["embedded"])
    llm_provider: Provider = Field("embedded", examples=["embedded"])
    tts_provider: Provider = Field("embedded", examples=["embedded"])
    vad_model: str = Field("silero-vad", min_length=1, examples=["silero-vad"])
    turn_model: str = Field("smart-turn", min_length=1, examples=["smart-turn"])
    stt_model: str = Field("whisper-tiny.en", min_length=1, examples=["whisper-tiny.en"])
    stt_multilingual_model: str = Field("whisper-base", min_length=1, examples=["whisper-base"])
    llm_model: str = Field("smollm2-135m", min_length=1, examples=["~/models/bigger.gguf"])
    llm_context_tokens: int = Field(4096, ge=512, le=131_072, examples=["4096"])
    llm_parallel: int = Field(4, ge=1, le=64, examples=["4"])
    reply_max_tokens: int = Field(120, ge=8, le=4096, examples=["120"])
    provider_timeout_s: float = Field(20.0, gt=0, le=600, examples=["20"])

    # --- turn-taking
    pause_ms: int = Field(64, ge=64, le=1000, examples=["64"])
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

    # --- scripted providers: fixed words and a tone after fixed delays, for load tests and latency accounting
    scripted_stt_ms: int = Field(200, ge=0, le=60_000, examples=["200"])
    scripted_first_token_ms: int = Field(300, ge=0, le=60_000, examples=["300"])
    scripted_token_ms: int = Field(20, ge=0, le=10_000, examples=["20"])
    scripted_tokens: int = Field(24, ge=1, le=10_000, examples=["24"])
    scripted_first_audio_ms: int = Field(200, ge=0, le=60_000, examples=["200"])
    scripted_audio_ms: int = Field(2000, ge=20, le=600_000, examples=["2000"])

    @model_validator(mode="before")
    @classmethod
    def _empty_means_default(cls, values: dict[str, Any]) -> dict[str, Any]:
        """`PORT=` is the same as no line at all; only an empty GREETING says something: start without one."""
        return {name: value for name, value in values.items() if value != "" or name == "greeting"}

    @model_validator(mode="after")
    def _limits_fit_together(self) -> Self:
        if self.endpointing_max_ms < self.endpointing_min_ms:
            raise ValueError(
                f"ENDPOINTING_MAX_MS: {self.endpointing_max_ms} is less than ENDPOINTING_MIN_MS "
                f"({self.endpointing_min_ms}); example: ENDPOINTING_MAX_MS=1600"
            )
        if self.history_limit_tokens + self.reply_max_tokens > self.llm_context_tokens:
            raise ValueError(
                f"HISTORY_LIMIT_TOKENS: {self.history_limit_tokens} and REPLY_MAX_TOKENS ({self.reply_max_tokens}) "
                f"do not fit into LLM_CONTEXT_TOKENS ({self.llm_context_tokens}); example: HISTORY_LIMIT_TOKENS=2000"
            )
        if self.ws_path == self.voice_webhook_path:
            raise ValueError(f"WS_PATH: {self.ws_path} is also VOICE_WEBHOOK_PATH; example: WS_PATH=/ws")
        return self

    @cached_property
    def needed_models(self) -> dict[str, str]:
        """The models that are made use of, by the name of their setting: a model's name or the user's own path."""
        names = ["vad_model", "turn_model"]
        if self.stt_provider == "embedded":
            names.append("stt_model" if self.language == "en" else "stt_multilingual_model")
        if self.llm_provider == "embedded":
            names.append("llm_model")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def base_url(self) -> str:
        """The address people and services reach this server at, without a slash at the end."""
        if self.public_base_url:
            return self.public_base_url
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104 (compared, not bound)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

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
        return self.twilio_ws_url or "ws" + self.base_url.removeprefix("http") + "/twilio/ws"


def load_settings(*, env_files: tuple[Path, ...] = ENV_FILES, **overrides: Any) -> Settings:
    """Read the settings from the environment and `env_files`; `overrides` (field names) win over both.

    Raises SettingsError whose message has one line per problem: the variable, what is wrong with its value, an example.
    """
    try:
        return Settings(_env_file=env_files, **overrides)
    except ValidationError as error:
        lines = sorted(_problem(dict(details)) for details in error.errors(include_url=False, include_context=True))
        raise SettingsError("\n".join(lines)) from None


def unknown_variables(env_files: tuple[Path, ...] = ENV_FILES) -> list[str]:
    """One line for each variable in `env_files` that looks like a misspelt setting (values are not shown)."""
    known = {name.upper() for name in Settings.model_fields}
    lines = []
    for path in env_files:
        for name in dotenv_values(path) if path.is_file() else ():
            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)
            if name.upper() not in known and near:
                lines.append(f"{path.name}: {name} is not a setting; did you mean {near[0]}?")
    return lines


def _problem(details: dict[str, Any]) -> str:
    location = details["loc"]
    fault = str(details["msg"]).removeprefix("Value error, ")
    if not location:  # a rule over several variables names them itself
        return fault
    name = str(location[0])
    field = Settings.model_fields.get(name)
    example = field.examples[0] if field and field.examples else "..."
    value = details.get("input")
    shown = "" if value is None or _is_secret(name, str(value)) else f"'{value}' cannot be used: "
    return f"{name.upper()}: {shown}{fault[:1].lower()}{fault[1:]}; example: {name.upper()}={example}"


def _is_secret(name: str, value: str) -> bool:
    """Keys and tokens, what identifies an account or a person, and addresses that carry a password."""
    return name.endswith(("_key", "_token", "_sid", "_number")) or "@" in value
