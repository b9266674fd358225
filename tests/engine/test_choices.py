"""The engine refuses at once what it could not do for anyone who talks."""

import threading

import pytest
from app.core.config import Settings
from app.core.errors import SettingsError
from app.engine import Engine


def test_a_voice_that_does_not_exist_is_named_with_one_that_does() -> None:
    with pytest.raises(SettingsError, match="VOICE: there is no voice 'mimi'; example: VOICE=heart"):
        Engine(Settings(voice="mimi"))
    with pytest.raises(SettingsError, match="there is no voice 'heart'; example: VOICE=tone"):
        Engine(Settings(voice="heart", tts_provider="scripted"))


def test_a_language_that_the_recogniser_does_not_know_is_refused() -> None:
    with pytest.raises(SettingsError, match="LANGUAGE: 'zz' is not recognised; example: LANGUAGE=de"):
        Engine(Settings(language="zz"))


@pytest.mark.parametrize(("language", "offered"), [("de", "de"), ("auto", "auto"), ("en", "en"), ("cy", "cy")])
def test_a_language_that_it_knows_can_be_chosen(language: str, offered: str) -> None:
    assert offered in Engine(Settings(language=language, voice="heart")).languages


@pytest.mark.parametrize(
    ("language", "warnings"),
    [
        ("en", []),
        ("auto", []),
        (
            "de",
            [
                "LANGUAGE=de is understood, but the embedded voice speaks English only: it reads other languages with "
                "its own accent. Name a service that speaks them in TTS_PROVIDER"
            ],
        ),
    ],
)
async def test_a_language_that_the_voice_does_not_speak_is_pointed_out(
    caplog: pytest.LogCaptureFixture, language: str, warnings: list[str]
) -> None:
    quick = dict.fromkeys(("stt_provider", "llm_provider", "tts_provider"), "scripted")
    engine = Engine(Settings.model_validate({**quick, "language": language}))
    await engine.start()
    await engine.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == warnings


async def test_no_thread_of_the_engine_is_left_when_it_is_closed() -> None:
    before = set(threading.enumerate())
    quick = dict.fromkeys(("llm_provider", "tts_provider"), "scripted")
    engine = Engine(Settings.model_validate(quick))
    await engine.start()
    names = {thread.name for thread in set(threading.enumerate()) - before}
    assert any(name.startswith("understanding") for name in names)
    await engine.close()
    left = {thread.name for thread in set(threading.enumerate()) - before if not thread.name.startswith("asyncio")}
    assert left == set()
