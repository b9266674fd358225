"""A wrong setting keeps Ahoy from starting, and each problem is one line: the variable, what is wrong, an example."""

import re
from pathlib import Path

import pytest
from app.core.config import Settings, load_settings
from app.core.errors import SettingsError
from hypothesis import given, settings
from hypothesis import strategies as st

LINE = re.compile(r"(?P<name>[A-Z_]+): .+; example: (?P<example_name>[A-Z_]+)=(?P<example>.+)")


def problems(*, env_files: tuple[Path, ...] = (), **values: object) -> list[str]:
    """The lines that these values are refused with; values come as from the environment."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in values.items():
            environment.setenv(name, str(value))
        with pytest.raises(SettingsError) as caught:
            load_settings(env_files=env_files)
    assert caught.value.code == "settings_invalid"
    return caught.value.message.split("\n")


# --- the words for it


@pytest.mark.parametrize(
    ("name", "typed", "said"),
    [
        ("PORT", "0", "'0' is not a whole number from 1 to 65535"),
        ("PORT", "65536", "'65536' is not a whole number from 1 to 65535"),
        ("PORT", "80a", "'80a' is not a whole number from 1 to 65535"),
        ("PORT", "8000.5", "'8000.5' is not a whole number from 1 to 65535"),
        (
            "PORT",
            "8000 # for the page",
            "'8000 # for the page' is not a whole number from 1 to 65535 (a comment belongs on a line of its own)",
        ),
        ("PORT", "'80", "''80' is not a whole number from 1 to 65535"),
        ("MAX_CONVERSATIONS", "many", "'many' is not a whole number from 1 to 100000"),
        ("BUFFER_LIMIT_S", "31", "'31' is not a number from 2 to 30"),
        ("BUFFER_LIMIT_S", "30s", "'30s' is not a number from 2 to 30"),
        ("BUFFER_LIMIT_S", "nan", "'nan' is not a number from 2 to 30"),
        ("IDLE_TIMEOUT_S", "inf", "'inf' is not a number from 0 to 86400"),
        ("PROVIDER_TIMEOUT_S", "0", "'0' is not a number above 0 and up to 600"),
        ("SPECULATION", "maybe", "'maybe' is not true or false"),
        ("LOG_LEVEL", "loud", "'loud' is not one of debug, info, warning, error"),
        (
            "STT_PROVIDER",
            "embedded, two words",
            "'embedded, two words' has an entry, 'two words', that is not NAME, NAME:MODEL or NAME:MODEL@VOICE",
        ),
        ("LLM_TEMPERATURE", "hot", "'hot' is not a number from 0 to 2"),
        ("SERVICES", "groq", "'groq' has an entry that is not NAME=ADDRESS"),
        (
            "SERVICES",
            "groq=example.com",
            "'groq=example.com' has an address for 'groq' that does not begin with https:// or http://",
        ),
        ("SERVICES", "openai=http://a", "'openai=http://a' has an entry for 'openai', which has a meaning of its own"),
        ("SERVICE_KEYS", "secret", "the value has an entry that is not NAME=KEY"),
        (
            "PRICES",
            "gpt:input",
            "'gpt:input' has an entry, 'gpt:input', that is not MODEL:UNIT=USD "
            "with a unit of input, cached, output, minute, characters",
        ),
        (
            "PRICES",
            "gpt:hour=1",
            "'gpt:hour=1' has an entry, 'gpt:hour=1', that is not MODEL:UNIT=USD "
            "with a unit of input, cached, output, minute, characters",
        ),
        ("LANGUAGE", "english", "'english' is neither a language code of two or three letters nor auto"),
        ("LANGUAGE", "pt-BR", "'pt-BR' has a region ('pt' is enough)"),
        ("HOST", "256.1.1.1", "'256.1.1.1' is not an IP address"),
        ("HOST", "::zz", "'::zz' is not an IP address"),
        ("HOST", "[::1", "'[::1' is not an IP address"),
        (
            "HOST",
            "[::1]:8000",
            "'[::1]:8000' is more than a host (the port has its own setting, PORT, and the address PUBLIC_BASE_URL)",
        ),
        ("HOST", "*", "'*' is not an address (0.0.0.0 listens on all)"),
        ("HOST", "my computer", "'my computer' is neither a host name nor an IP address"),
        (
            "HOST",
            "0.0.0.0:8000",
            "'0.0.0.0:8000' is more than a host (the port has its own setting, PORT, and the address PUBLIC_BASE_URL)",
        ),
        (
            "HOST",
            "http://localhost",
            "'http://localhost' is more than a host (the port has its own setting, PORT, and the address "
            "PUBLIC_BASE_URL)",
        ),
        ("PUBLIC_BASE_URL", "voice.example.com", "'voice.example.com' does not begin with https:// or http://"),
        (
            "PUBLIC_BASE_URL",
            "ftp://voice.example.com",
            "'ftp://voice.example.com' does not begin with https:// or http://",
        ),
        ("PUBLIC_BASE_URL", "https://", "'https://' has no host name"),
        ("PUBLIC_BASE_URL", "https:///ahoy", "'https:///ahoy' has no host name"),
        ("PUBLIC_BASE_URL", "https://my voice.com", "'https://my voice.com' has a space in it"),
        ("PUBLIC_BASE_URL", "https://a.com:99999", "'https://a.com:99999' has a host or port that cannot be"),
        ("PUBLIC_BASE_URL", "https://[::1", "'https://[::1' has a host or port that cannot be"),
        ("PUBLIC_BASE_URL", "https://a.com?b", "'https://a.com?b' has something behind a ? or #, which would be lost"),
        ("PUBLIC_BASE_URL", "https://a.com#", "'https://a.com#' has something behind a ? or #, which would be lost"),
        ("TWILIO_WS_URL", "https://a.com/calls", "'https://a.com/calls' does not begin with wss://"),
        ("TWILIO_WS_URL", "ws://a.com/calls", "'ws://a.com/calls' does not begin with wss://"),
        ("TWILIO_WS_URL", "wss://a.com?b=1", "'wss://a.com?b=1' has something behind a ? or #, which would be lost"),
        ("WS_PATH", "ws", "'ws' does not begin with /"),
        ("WS_PATH", "/a b", "'/a b' has characters in it other than letters, digits, / - . _ and ~"),
        ("VOICE_WEBHOOK_PATH", "/{id}", "'/{id}' has characters in it other than letters, digits, / - . _ and ~"),
        ("ALLOWED_ORIGINS", "app.example.com", "'app.example.com' does not begin with https:// or http://"),
        ("ALLOWED_ORIGINS", "localhost:3000", "'localhost:3000' does not begin with https:// or http://"),
        ("ALLOWED_ORIGINS", "https://a.com/app", "'https://a.com/app' has a path behind the host"),
        (
            "ALLOWED_ORIGINS",
            "https://a.com, b.com",
            "'https://a.com, b.com' has an entry, 'b.com', that does not begin with https:// or http://",
        ),
        (
            "ALLOWED_ORIGINS",
            "b\n,c\t.com",
            "'b\\n,c\\t.com' has an entry, 'b', that does not begin with https:// or http://",
        ),
        (
            "ALLOWED_ORIGINS",
            "*,b\x07.com",
            "'*,b\\x07.com' has an entry, 'b\\x07.com', that does not begin with https:// or http://",
        ),
        (
            "OPENAI_API_KEY",
            "abc # mine",
            "the value has a space or another character in it that no key has (a comment belongs on a line of its own)",
        ),
        ("TWILIO_ACCOUNT_SID", "AC12", "the value is not AC and 32 hexadecimal digits, as the Twilio console shows it"),
        (
            "TWILIO_PHONE_NUMBER",
            "0151 1234567",
            "the value is not + and 7 to 15 digits that begin with the country code (E.164)",
        ),
        ("PHONE_REGION", "uk", "'uk' is not a country code of ISO 3166 (GB is meant)"),
        ("PHONE_REGION", "XX", "'XX' is not a country code of two letters (ISO 3166)"),
        ("PHONE_REGION", "Germany", "'Germany' is not a country code of two letters (ISO 3166)"),
        ("PHONE_REGION", "001", "'001' is not a country code of two letters (ISO 3166)"),
    ],
)
def test_a_wrong_value_is_explained_in_plain_words(name: str, typed: str, said: str) -> None:
    (line,) = problems(**{name: typed})
    assert line.startswith(f"{name}: {said}; example: {name}=")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"ENDPOINTING_MIN_MS": 2000},
            "ENDPOINTING_MAX_MS: 1600 is less than ENDPOINTING_MIN_MS (2000); example: ENDPOINTING_MAX_MS=2000",
        ),
        (
            {"LLM_CONTEXT_TOKENS": 1024},
            "HISTORY_LIMIT_TOKENS: 2000 and REPLY_MAX_TOKENS (120) do not fit into LLM_CONTEXT_TOKENS (1024); "
            "example: HISTORY_LIMIT_TOKENS=904",
        ),
        (
            {"LLM_CONTEXT_TOKENS": 512, "HISTORY_LIMIT_TOKENS": 64, "REPLY_MAX_TOKENS": 512},
            "HISTORY_LIMIT_TOKENS: 64 and REPLY_MAX_TOKENS (512) do not fit into LLM_CONTEXT_TOKENS (512); "
            "example: REPLY_MAX_TOKENS=120",
        ),
        ({"WS_PATH": "/voice"}, "WS_PATH: '/voice' is VOICE_WEBHOOK_PATH as well; example: WS_PATH=/ws"),
        ({"WS_PATH": "/twilio/ws"}, "WS_PATH: '/twilio/ws' is where Twilio's streams connect; example: WS_PATH=/ws"),
    ],
)
def test_values_that_do_not_fit_together_are_explained_with_a_value_that_does(
    values: dict[str, object], said: str
) -> None:
    assert problems(**values) == [said]
    name, _, fix = said.rpartition("example: ")[2].partition("=")
    with pytest.MonkeyPatch.context() as environment:
        for variable, value in (values | {name: fix}).items():
            environment.setenv(variable, str(value))
        load_settings(env_files=())


# --- all of them, each in one line


def test_all_problems_are_named_at_once_also_those_between_variables(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("PORT=0\nHOST=http://x\nLOG_LEVEL=loud\nENDPOINTING_MIN_MS=3000\n")
    lines = problems(env_files=(file,), LOG_LEVEL="louder", WS_PATH="/voice", OPENAI_API_KEY="a b")
    names = [line.partition(":")[0] for line in lines]
    assert names == ["ENDPOINTING_MAX_MS", "HOST", "LOG_LEVEL", "OPENAI_API_KEY", "PORT", "WS_PATH"]
    assert "'louder'" in lines[2], "the environment wins over the file, here too"


def test_what_is_there_twice_is_said_and_a_key_in_a_wrong_place_is_not_repeated() -> None:
    assert problems(LLM_PROVIDER="embedded,embedded") == [
        "LLM_PROVIDER: has an entry twice; example: LLM_PROVIDER=embedded"
    ]
    (line,) = problems(SERVICES="box=http://127.0.0.1:1/v1,box=http://127.0.0.1:2/v1")
    assert "has two entries for 'box'" in line
    (line,) = problems(SERVICE_KEYS="box=one,box=two", SERVICES="box=http://127.0.0.1:1/v1")
    assert "two entries for 'box'" in line
    assert "one" not in line
    (line,) = problems(SERVICES="gsk_fictional")
    assert "fictional" not in line


def test_a_provider_that_nobody_knows_or_that_lacks_something_is_said() -> None:
    assert problems(STT_PROVIDER="magic", OPENAI_API_KEY="sk-x") == [
        "STT_PROVIDER: 'magic' is neither embedded nor openai, nor a service of SERVICES; "
        "example: SERVICES=magic=http://127.0.0.1:8001/v1"
    ]
    assert problems(LLM_PROVIDER="openai,embedded") == [
        "LLM_PROVIDER: openai needs a key; example: OPENAI_API_KEY=sk-..."
    ]
    own = load_settings(env_files=(), llm_provider="openai", openai_base_url="http://127.0.0.1:1234/v1")
    assert own.openai_api_key is None, "not every server has keys"
    assert problems(TTS_PROVIDER="box", SERVICES="box=http://127.0.0.1:8001/v1") == [
        "TTS_PROVIDER: 'box' needs a model; example: TTS_PROVIDER=box:MODEL"
    ]
    assert problems(SERVICE_KEYS="groq=fictional") == [
        "SERVICE_KEYS: 'groq' is no service of SERVICES (the key of OpenAI is OPENAI_API_KEY)"
    ]


def test_a_value_that_is_wrong_by_itself_is_not_compared_with_others() -> None:
    (line,) = problems(ENDPOINTING_MIN_MS="soon", ENDPOINTING_MAX_MS=200)
    assert line.startswith("ENDPOINTING_MIN_MS: 'soon'")


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_every_example_is_a_value_that_works(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    example = (Settings.model_fields[name.lower()].examples or [None])[0]
    assert example, "a setting without an example cannot be explained"
    for leant_on in ("OPENAI_API_KEY", "SERVICES"):  # examples of providers name them
        monkeypatch.setenv(leant_on, Settings.model_fields[leant_on.lower()].examples[0])  # type: ignore[index]
    monkeypatch.setenv(name, example)
    load_settings(env_files=())


CHECKED = sorted(
    name.upper()
    for name, field in Settings.model_fields.items()
    if field.annotation is not str or field.metadata
    if name != "voice"
)
"""Settings that not every text is a value of."""


def outcome(name: str, typed: str) -> Settings | str:
    """The settings, or what they are refused with."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(name, typed)
        try:
            return load_settings(env_files=())
        except SettingsError as error:
            return error.message


@settings(max_examples=400)
@given(
    st.sampled_from(CHECKED),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=200),
)
def test_whatever_is_typed_works_or_gives_one_line(name: str, typed: str) -> None:
    """Line breaks, control characters, endless values: never a trace, never a second line."""
    got = outcome(name, typed)
    if isinstance(got, str):
        line = LINE.fullmatch(got)
        assert line, got
        assert line["name"] == name == line["example_name"]
        assert got.isprintable()
        assert len(got) < 400


@settings(max_examples=300)
@given(
    st.sampled_from([name for name in CHECKED if Settings.model_fields[name.lower()].annotation in {int, float}]),
    st.integers(-10, 200_000),
)
def test_a_number_is_taken_or_refused_by_the_range_that_is_named(name: str, number: int) -> None:
    got = outcome(name, str(number))
    if isinstance(got, Settings):
        assert getattr(got, name.lower()) == number
    elif found := re.search(r"number (from|above) ([0-9.]+) (?:and up )?to ([0-9.]+)", got):
        low, high = float(found[2]), float(found[3])
        assert number < low or number > high or (found[1] == "above" and number == low)
    else:  # it fits its own range, and not to the others
        assert "less than ENDPOINTING_MIN_MS" in got or "do not fit into LLM_CONTEXT_TOKENS" in got


def test_a_value_of_a_kind_that_only_code_can_give_is_refused_too() -> None:
    with pytest.raises(SettingsError, match=r"^GREETING: '3' has the wrong type"):
        load_settings(env_files=(), greeting=3)
