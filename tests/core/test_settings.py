"""What a person sets is what Ahoy runs with: defaults, files, the environment, and the addresses made of them."""

import re
from pathlib import Path

import pytest
from app.core.config import ENV_FILES, REPOSITORY, Settings, load_settings, unknown_variables
from app.core.errors import SettingsError
from app.core.setting_values import ProviderChoice
from pydantic import ValidationError

EMBEDDED_BELLA = ProviderChoice("embedded", None, "af_bella")


def env_file(directory: Path, *lines: str, name: str = ".env") -> Path:
    path = directory / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def load(*files: Path) -> Settings:
    return load_settings(env_files=files)


# --- defaults and where values come from


def test_with_nothing_set_the_assistant_is_private_embedded_and_needs_no_account() -> None:
    settings = load()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.ws_path, settings.voice_webhook_path) == ("/ws", "/voice")
    assert settings.system_prompt == "You are a helpful voice assistant"
    assert [settings.chain(work) for work in ("stt", "llm", "tts")] == [(ProviderChoice("embedded"),)] * 3
    assert (settings.language, settings.voice) == ("en", None)
    assert (settings.preroll_ms, settings.buffer_limit_s) == (300, 30.0)
    assert settings.allowed_origins == ()
    accounts = (settings.openai_api_key, settings.twilio_account_sid, settings.twilio_auth_token)
    assert accounts == (None, None, None)
    assert settings.twilio_phone_number is settings.public_base_url is settings.twilio_ws_url is None


def test_with_a_key_of_openai_it_does_the_work_and_the_embedded_models_take_over() -> None:
    settings = load_settings(env_files=(), openai_api_key="sk-fictional")
    assert [settings.chain(work) for work in ("stt", "llm", "tts")] == [
        (ProviderChoice("openai"), ProviderChoice("embedded"))
    ] * 3


def test_who_does_the_work_has_a_model_and_a_voice_of_its_own() -> None:
    settings = load_settings(
        env_files=(),
        services="box=http://127.0.0.1:8001/v1",
        service_keys="box=fictional",
        llm_provider="box:org/model:3b",
        tts_provider="box:some-voice-model@af_heart+bella,embedded@am_adam",
        stt_provider="box:@cf/openai/whisper",
    )
    assert settings.chain("stt") == (ProviderChoice("box", "@cf/openai/whisper"),), "a name of Cloudflare's"
    assert settings.chain("llm") == (ProviderChoice("box", "org/model:3b"),)
    assert settings.chain("tts") == (
        ProviderChoice("box", "some-voice-model", "af_heart+bella"),
        ProviderChoice("embedded", None, "am_adam"),
    )
    assert settings.needed_models["kokoro_model"] == "kokoro", "the voice of the embedded one is Kokoro's"
    assert "llm_model" not in settings.needed_models
    assert "fictional" not in repr(settings)


def test_the_environment_wins_over_the_file_and_code_over_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = env_file(tmp_path, "PORT=1111", "HOST=localhost", "VOICE=heart")
    monkeypatch.setenv("PORT", "2222")
    monkeypatch.setenv("HOST", "10.0.0.1")
    settings = load_settings(env_files=(file,), host="10.0.0.2")
    assert (settings.host, settings.port, settings.voice) == ("10.0.0.2", 2222, "heart")


def test_the_file_where_ahoy_is_started_wins_over_the_one_where_it_is_installed(tmp_path: Path) -> None:
    installed = env_file(tmp_path, "PORT=1111", "VOICE=heart", name="installed.env")
    here = env_file(tmp_path, "PORT=2222", name="here.env")
    settings = load(installed, here)
    assert (settings.port, settings.voice) == (2222, "heart")
    assert list(ENV_FILES) == [REPOSITORY / ".env", Path(".env")]
    assert (REPOSITORY / "backend" / "app" / "core" / "config.py").is_file()


def test_a_file_that_is_not_there_or_a_directory_in_its_place_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()  # what Docker makes of a mount without a source
    assert load(tmp_path / "none.env", tmp_path / ".env") == load()


def test_names_may_be_written_in_small_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("port", "2222")
    assert load(env_file(tmp_path, "voice=heart")).voice == "heart"
    assert load().port == 2222


# --- values as people type them


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ('GREETING="Hello, it\'s me"', "greeting", "Hello, it's me"),
        ("GREETING=Guten Tag! Grüß Gott # said first", "greeting", "Guten Tag! Grüß Gott"),
        ("export PORT=9000", "port", 9000),
        ("PORT = 9000", "port", 9000),
        ("PORT=9000 # inline", "port", 9000),
        ("PORT='9000'", "port", 9000),
        ("PROVIDER_TIMEOUT_S=1.5", "provider_timeout_s", 1.5),
        ("SYSTEM_PROMPT='Be brief.\nBe kind.'", "system_prompt", "Be brief.\nBe kind."),
        ("LLM_MODEL=~/models/big one.gguf", "llm_model", "~/models/big one.gguf"),
    ],
)
def test_a_line_of_the_file_means_what_it_seems_to(tmp_path: Path, line: str, field: str, value: object) -> None:
    assert getattr(load(env_file(tmp_path, line)), field) == value


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("PORT", " 9000 ", 9000),
        ("PORT", '"9000"', 9000),  # docker run --env-file keeps the quotes
        ("GREETING", "'Hello there'", "Hello there"),
        ("GREETING", "Rock 'n' roll", "Rock 'n' roll"),
        ("SPECULATION", "no", False),
        ("SPECULATION", "Yes", True),
        ("SPECULATION", "0", False),
        ("SPECULATION", "TRUE", True),
        ("LOG_LEVEL", "INFO", "info"),
        ("STT_PROVIDER", "Scripted", (ProviderChoice("scripted"),)),
        ("TTS_PROVIDER", "Embedded@af_bella, scripted", (EMBEDDED_BELLA, ProviderChoice("scripted"))),
        ("SERVICES", "Ollama = http://127.0.0.1:11434/v1/", (("ollama", "http://127.0.0.1:11434/v1"),)),
        ("PRICES", "org/model:8b:input=0.1, b:minute=2", (("org/model:8b", "input", 0.1), ("b", "minute", 2.0))),
        ("LANGUAGE", "DE", "de"),
        ("LANGUAGE", "auto", "auto"),
        ("TWILIO_PHONE_NUMBER", "+1 (500) 555-0006", "+15005550006"),
        ("PHONE_REGION", "gb", "GB"),
        ("HOST", "[::1]", "::1"),
        ("PUBLIC_BASE_URL", "HTTPS://Voice.Example.com:443/Ahoy/", "https://voice.example.com/Ahoy"),
        ("PUBLIC_BASE_URL", "http://voice.example.com:8080", "http://voice.example.com:8080"),
        ("TWILIO_WS_URL", "WSS://voice.example.com/calls", "wss://voice.example.com/calls"),
        ("ALLOWED_ORIGINS", "*", ("*",)),
        (
            "ALLOWED_ORIGINS",
            "https://App.example.com:443/ , 'http://localhost:3000',,null",
            ("https://app.example.com", "http://localhost:3000", "null"),
        ),
    ],
)
def test_a_variable_of_the_environment_means_what_it_seems_to(
    monkeypatch: pytest.MonkeyPatch, name: str, typed: str, value: object
) -> None:
    monkeypatch.setenv(name, typed)
    assert getattr(load(), name.lower()) == value


@pytest.mark.parametrize("nothing", ["", "   ", "''", '""'])
def test_an_empty_value_is_the_default_but_an_empty_greeting_is_none(
    monkeypatch: pytest.MonkeyPatch, nothing: str
) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), nothing)
    assert load() == Settings.model_construct(**Settings.model_construct().__dict__ | {"greeting": ""})


def test_a_file_saved_by_a_windows_editor_is_read_from_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("\ufeffPORT=9000\r\nGREETING=Grüß Gott\r\n".encode())
    settings = load(path)
    assert (settings.port, settings.greeting) == (9000, "Grüß Gott")
    assert unknown_variables((path,), {}) == []


@pytest.mark.parametrize("desktop", ["de_AT:de", "de_AT", "en_US.UTF-8", "de_DE@euro", "de:en", "en_US:"])
def test_the_language_of_the_desktop_is_not_the_language_of_the_assistant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, desktop: str
) -> None:
    monkeypatch.setenv("LANGUAGE", desktop)
    assert load().language == "en"
    assert load(env_file(tmp_path, "LANGUAGE=fr")).language == "fr"


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 9000  # type: ignore[misc]


# --- addresses made of them


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1:9000"),
        ("0.0.0.0", "127.0.0.1:9000"),  # noqa: S104 (compared, not bound)
        ("::", "[::1]:9000"),  # the server's IPv6 sockets do not take IPv4
        ("::1", "[::1]:9000"),
        ("2001:db8::5", "[2001:db8::5]:9000"),
        ("fe80::1%eth0", "[fe80::1%25eth0]:9000"),
        ("voice.local", "voice.local:9000"),
    ],
)
def test_without_a_public_address_it_is_the_one_the_server_listens_on(host: str, address: str) -> None:
    settings = load_settings(env_files=(), host=host, port=9000)
    assert settings.base_url == f"http://{address}"
    assert settings.public_ws_url == f"ws://{address}/ws"
    assert settings.public_voice_webhook_url == f"http://{address}/voice"
    assert settings.public_twilio_ws_url == f"ws://{address}/twilio/ws"


@pytest.mark.parametrize(
    ("public", "outside"),
    [
        ("https://voice.example.com", "s://voice.example.com"),
        ("https://voice.example.com/", "s://voice.example.com"),
        ("https://example.com/ahoy/", "s://example.com/ahoy"),
        ("http://voice.example.com:8080", "://voice.example.com:8080"),
        ("https://[2001:db8::5]:8443", "s://[2001:db8::5]:8443"),
        ("HTTPS://Voice.Example.com", "s://voice.example.com"),
    ],
)
def test_behind_a_proxy_all_addresses_follow_from_the_public_one(public: str, outside: str) -> None:
    settings = load_settings(
        env_files=(), public_base_url=public, ws_path="/talk", voice_webhook_path="/calls/voice", host="10.0.0.1"
    )
    assert settings.base_url == f"http{outside}"
    assert settings.public_ws_url == f"ws{outside}/talk"
    assert settings.public_voice_webhook_url == f"http{outside}/calls/voice"
    assert settings.public_twilio_ws_url == f"ws{outside}/twilio/ws"


def test_the_address_for_twilio_can_be_another_one() -> None:
    settings = load_settings(
        env_files=(), public_base_url="https://voice.example.com", twilio_ws_url="wss://media.example.com/calls"
    )
    assert settings.public_twilio_ws_url == "wss://media.example.com/calls"
    assert settings.public_ws_url == "wss://voice.example.com/ws"


# --- what follows for the models


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({}, {"stt_model": "whisper-tiny.en", "llm_model": "smollm2-135m"}),
        ({"language": "de"}, {"stt_multilingual_model": "whisper-base", "llm_model": "smollm2-135m"}),
        ({"language": "auto", "llm_provider": "scripted"}, {"stt_multilingual_model": "whisper-base"}),
        ({"stt_provider": "scripted", "llm_model": "~/my.gguf"}, {"llm_model": "~/my.gguf"}),
    ],
)
def test_only_the_models_that_are_used_are_needed(given: dict[str, str], needed: dict[str, str]) -> None:
    always = {"vad_model": "silero-vad", "turn_model": "smart-turn"}
    assert load_settings(env_files=(), **given).needed_models == always | needed


# --- misspelt names


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("OPENAI_APIKEY", "OPENAI_API_KEY"),
        ("OPENAI_KEY", "OPENAI_API_KEY"),
        ("TWILIO_SID", "TWILIO_ACCOUNT_SID"),
        ("GREETNG", "GREETING"),
        ("system_promt", "SYSTEM_PROMPT"),
        ("PUBLIC_URL", "PUBLIC_BASE_URL"),
        ("ENDPOINTING_MAX", "ENDPOINTING_MAX_MS"),
        ("LOGLEVEL", "LOG_LEVEL"),
    ],
)
def test_a_misspelt_name_in_the_file_is_pointed_out_with_its_line(tmp_path: Path, typed: str, meant: str) -> None:
    file = env_file(tmp_path, "# mine", "PORT=9000", f"{typed}=private words")
    assert unknown_variables((file,), {}) == [f".env, line 3: {typed} is not a setting; did you mean {meant}?"]


@pytest.mark.parametrize("typed", ["OPENAI_APIKEY", "GREETNG", "SYSTEM_PROMT", "ALLOWED_ORIGIN", "LOGLEVEL"])
def test_a_slip_in_a_name_of_the_environment_is_pointed_out(typed: str) -> None:
    (line,) = unknown_variables((), {typed: "private words"})
    assert line.startswith(f"environment: {typed} is not a setting; did you mean ")


def test_the_environment_of_this_process_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREETNG", "Hi")
    assert "environment: GREETNG is not a setting; did you mean GREETING?" in unknown_variables(())


def test_other_programs_variables_and_right_names_are_left_in_peace(tmp_path: Path) -> None:
    names = re.findall(
        r"\w+",
        "PATH HOME HOSTNAME LANG LC_ALL TERM USER SHELL EDITOR DISPLAY TZ REPORT_URL APP_PORT DB_HOST DATABASE_URL "
        "REDIS_URL POSTGRES_PASSWORD SECRET_KEY OPENAI_BASE_URL OPENAI_ORG_ID ANTHROPIC_API_KEY AZURE_OPENAI_API_KEY "
        "HF_TOKEN PIP_INDEX_URL VIRTUAL_ENV PYTHONPATH HTTPS_PROXY KUBERNETES_SERVICE_HOST AHOY_MODELS_DIR",
    )
    right = [name.upper() for name in Settings.model_fields]
    assert unknown_variables((), dict.fromkeys([*names, *right], "x")) == []
    assert (
        unknown_variables((env_file(tmp_path, *(f"{name}=x" for name in [*right, *map(str.lower, right)])),), {}) == []
    )


@pytest.mark.parametrize("line", ["PORT 8000", "PORT: 8000", "PORT", "just words", "GREETING='never closed"])
def test_a_line_that_says_nothing_is_pointed_out_and_left_out(tmp_path: Path, line: str) -> None:
    file = env_file(tmp_path, "VOICE=heart", line)
    assert unknown_variables((file,), {}) == [".env, line 2: not of the form NAME=value, ignored"]
    assert load(file) == load(env_file(tmp_path, "VOICE=heart", name="other.env"))


def test_a_file_that_is_read_twice_is_complained_about_once(tmp_path: Path) -> None:
    env_file(tmp_path, "GREETNG=Hi")
    assert len(unknown_variables((tmp_path / ".env", Path(".env")), {})) == 1


# --- files that cannot be read


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("PORT=9000\n".encode("utf-16"))
    with pytest.raises(SettingsError) as caught:
        load(path)
    assert caught.value.message == f"{path}: is not text in UTF-8; save it in that encoding"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 (a value, not a socket)
        ("::", False),
        ("192.168.1.5", False),
        ("voice.example.com", False),
    ],
)
def test_it_is_known_whether_others_can_reach_the_server(host: str, local: bool) -> None:
    assert Settings(host=host).local_only is local
