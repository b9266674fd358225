"""The language of a conversation: the voice follows it, and what a voice cannot do is said plainly, once."""

import pytest
from app.conversation import messages as msg
from app.stt.base import Transcript
from app.tts.base import Voice
from stage import Stage, ToldRecognizer, ToldVoice

pytestmark = pytest.mark.looptime


class Polyglot(ToldRecognizer):
    """Understands each utterance in the language it was told."""

    languages: list[str]

    async def transcribe(self, audio, *, language=None, partial=False):  # type: ignore[no-untyped-def]
        understood = await super().transcribe(audio, language=language, partial=partial)
        return understood if partial else Transcript(understood.text, self.languages.pop(0))


class AnyVoice(ToldVoice):
    """Speaks every language; keeps which it was asked for."""

    def __init__(self) -> None:
        super().__init__(first_audio_ms=80, audio_ms=500)
        self.languages: list[str | None] = []

    @property
    def voices(self):  # type: ignore[no-untyped-def]
        return [Voice("coral", "Coral", "mul")]

    async def speak(self, text, *, voice=None, language=None):  # type: ignore[no-untyped-def]
        self.languages.append(language)
        async for piece in super().speak(text, voice=voice):
            yield piece


async def test_the_voice_follows_what_was_understood() -> None:
    stage = Stage(language=None)
    stage.tts = AnyVoice()
    stage.stt = Polyglot(words=["wie geht es", "how are you"])
    stage.stt.languages = ["de", "en"]
    stage.llm.replies = ["Gut."]
    async with stage:
        await stage.say(1000, then_silent_ms=3000)
        await stage.say(1000, then_silent_ms=3000)
    assert stage.tts.languages == ["de", "en"]
    assert stage.messages(msg.Trouble) == []


async def test_what_no_voice_speaks_is_spoken_all_the_same_and_said_once() -> None:
    stage = Stage(language="de")
    stage.stt.words = ["wie geht es"]
    stage.llm.replies = ["Gut."]
    async with stage:
        for _ in range(2):
            await stage.say(1000, then_silent_ms=3000)
        assert [answer.heard for answer in stage.answers] == ["Gut.", "Gut."]
        (trouble,) = stage.messages(msg.Trouble)
        assert trouble.code == "language_not_spoken"
        assert "speaks English only" in trouble.message
        assert not trouble.fatal
