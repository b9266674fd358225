"""Keys, tokens and what identifies a person are shown nowhere: not in errors, not in prints, not in logs."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from app.core.config import Settings, load_settings, unknown_variables
from app.core.errors import SettingsError
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

SECRETS = ("OPENAI_API_KEY", "TWILIO_AUTH_TOKEN")
PERSONAL = ("TWILIO_ACCOUNT_SID", "TWILIO_PHONE_NUMBER")

MARKS = st.text(st.sampled_from("qxzjkvw7359"), min_size=6, max_size=30)
"""Texts that no message contains by chance."""
anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
valid = st.builds("{}{}".format, st.sampled_from(["", "sk-", "sk-proj-", "'", '"']), MARKS)
invalid = st.builds("{}{}{}{}".format, anything, MARKS, st.sampled_from([" ", "\n", "é", " # mine ", "\t"]), MARKS)
"""Mostly invalid: what is around a mark may be anything."""


@contextmanager
def environment(**values: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@contextmanager
def log() -> Iterator[io.StringIO]:
    """What is logged, at every level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def everything_said(values: dict[str, str]) -> str:
    """All that errors, prints and logs tell about settings with these values, or about why there are none."""
    with environment(**values), log() as logged:
        try:
            loaded = load_settings(env_files=())
        except SettingsError as error:
            logging.getLogger("app").exception("The settings are wrong")
            told = [str(error), repr(error), error.message]
        else:
            logging.getLogger("app").info("%s %r %s", loaded, loaded, loaded.model_dump())
            told = [repr(loaded), str(loaded), repr(loaded.model_dump()), loaded.model_dump_json()]
            told += [format(loaded.openai_api_key), format(loaded.twilio_auth_token)]
        told += unknown_variables(())
    return "\n".join([*told, logged.getvalue()])


@settings(max_examples=200)
@given(st.sampled_from(SECRETS), st.one_of(valid, invalid), st.booleans())
def test_a_secret_is_never_shown_whether_it_can_be_used_or_not(name: str, secret: str, with_another: bool) -> None:
    said = everything_said({name: secret} | ({"PORT": "0"} if with_another else {}))
    for piece in [secret, *secret.split(), secret[-6:]]:
        if len(piece) >= 6:
            assert piece not in said


@settings(max_examples=100)
@given(st.sampled_from(PERSONAL), st.one_of(valid, invalid))
def test_an_account_or_number_that_cannot_be_used_is_not_shown(name: str, value: str) -> None:
    said = everything_said({name: value})
    assert f"{name}: the value is not " in said
    for piece in [value, *value.split(), value[-6:]]:
        if len(piece) >= 6:
            assert piece not in said


def test_an_account_and_number_are_not_printed_with_the_settings() -> None:
    with environment(TWILIO_ACCOUNT_SID="AC" + "7" * 32, TWILIO_PHONE_NUMBER="+15005550006"):
        loaded = load_settings(env_files=())
    assert "7777" not in f"{loaded} {loaded!r}"
    assert "5550006" not in f"{loaded} {loaded!r}"
    assert loaded.twilio_phone_number == "+15005550006"


@settings(max_examples=100)
@given(st.sampled_from(["PUBLIC_BASE_URL", "TWILIO_WS_URL", "ALLOWED_ORIGINS"]), MARKS, MARKS)
def test_a_password_in_an_address_is_refused_without_being_shown(name: str, user: str, password: str) -> None:
    scheme = "wss" if name == "TWILIO_WS_URL" else "https"
    said = everything_said({name: f"{scheme}://{user}:{password}@voice.example.com"})
    assert f"{name}: the value has a user name or password in it, which everyone would see" in said
    assert user not in said
    assert password not in said


@settings(max_examples=50)
@given(MARKS)
def test_a_password_in_one_of_several_origins_is_not_shown(password: str) -> None:
    said = everything_said({"ALLOWED_ORIGINS": f"https://app.example.com,https://me:{password}@example.com"})
    assert "ALLOWED_ORIGINS: the value has a user name or password in it" in said
    assert password not in said


@pytest.mark.parametrize("name", ["PORT", "LOG_LEVEL", "HOST", "WS_PATH", "ALLOWED_ORIGINS", "LANGUAGE"])
@pytest.mark.parametrize("secret", ["sk-proj-qxzjkvw", "qxzjkvw@example.com", "0123456789abcdef0123456789ABCDEF"])
def test_a_key_in_the_wrong_variable_is_not_shown_either(name: str, secret: str) -> None:
    said = everything_said({name: f"{secret} {secret}"})
    assert f"{name}: the value " in said
    assert secret not in said


def test_a_secret_can_be_asked_for_by_name_only() -> None:
    with environment(OPENAI_API_KEY=" 'sk-qxzjkvw' "):
        loaded = load_settings(env_files=())
    assert loaded.openai_api_key is not None
    assert loaded.openai_api_key.get_secret_value() == "sk-qxzjkvw"


def test_a_line_of_the_file_that_is_no_assignment_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("sk-qxzjkvw\nOPENAI_APIKEY=sk-qxzjkvw\nOPENAI_API_KEY sk-qxzjkvw\n")
    lines = unknown_variables((tmp_path / ".env",), {})
    assert len(lines) == 3
    assert "qxzjkvw" not in "\n".join(lines)


def test_every_setting_whose_name_says_that_it_is_a_secret_is_treated_as_one() -> None:
    for name, field in Settings.model_fields.items():
        if name.endswith(("_key", "_token", "_secret", "_password")):
            assert not field.repr, name
            assert "SecretStr" in str(field.annotation), name
            with environment(**{name.upper(): "qxzjkvw"}):
                assert isinstance(getattr(load_settings(env_files=()), name), SecretStr)
        if name.endswith(("_sid", "_number")):
            assert not field.repr, name
