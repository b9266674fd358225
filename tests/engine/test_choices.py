"""The engine refuses at once what it could not do for anyone who talks."""

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


async def test_what_may_surprise_is_said_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    quick = dict.fromkeys(("stt_provider", "llm_provider", "tts_provider"), "scripted")
    for changes, warnings in (
        ({}, []),
        ({"host": "0.0.0.0"}, ["HOST=0.0.0.0 lets everyone in the network talk to this server: it has no login"]),  # noqa: S104
        ({"language": "de"}, ["LANGUAGE=de is understood, but the voice speaks en only"]),
        ({"language": "auto"}, []),
    ):
        caplog.clear()
        engine = Engine(Settings.model_validate({**quick, **changes}))
        await engine.start()
        await engine.close()
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == warnings
