"""A provider breaks off in the middle of an answer: another one goes on, and nothing is lost or said twice."""

from collections.abc import AsyncGenerator, Sequence

import numpy as np
import pytest
from app.conversation import messages as msg
from app.conversation.options import TELEPHONE
from app.core.errors import BrokenOffError, ProviderError, ServiceError
from app.llm.base import Message
from stage import Stage, ToldModel, ToldVoice

pytestmark = pytest.mark.looptime


class BreakingModel(ToldModel):
    """Breaks off after so many words; another one says `rest`, and is told what was said."""

    rest: str = "And this is the rest."
    asked: list[str]

    async def reply(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncGenerator[str, None]:
        self.asked = []
        try:
            async for word in super().reply(messages, max_tokens=max_tokens):
                yield word
        except ServiceError as error:
            raise BrokenOffError(error.message, self._go_on) from error

    async def _go_on(self, said: str) -> AsyncGenerator[str, None]:
        self.asked.append(said)
        yield self.rest


def breaking(after_words: int, *, rest: str = "And this is the rest.") -> BreakingModel:
    model = BreakingModel(
        replies=["Here is one thing. And here is another, which is longer."],
        failure=ServiceError("openai broke off with an error of its own."),
        fail_after_words=after_words,
    )
    model.rest = rest
    return model


async def test_an_answer_goes_on_behind_its_last_whole_sentence() -> None:
    stage = Stage()
    stage.llm = breaking(after_words=6)  # "Here is one thing. And here"
    async with stage:
        await stage.say(800, then_silent_ms=6000)
        (answer,) = stage.answers
        assert answer.text == answer.heard == "Here is one thing. And this is the rest."
        assert stage.llm.asked == ["Here is one thing. "]
        assert stage.messages(msg.Trouble) == []
        assert [text.strip() for text in stage.tts.given if "Sorry" not in text] == [
            "Here is one thing.",
            "And this is the rest.",
        ]


async def test_an_answer_that_broke_off_before_anything_could_be_said_begins_anew() -> None:
    stage = Stage()
    stage.llm = breaking(after_words=2, rest="All of it.")
    async with stage:
        await stage.say(800, then_silent_ms=4000)
        assert [answer.heard for answer in stage.answers] == ["All of it."]
        assert stage.llm.asked == [""]


async def test_on_the_telephone_captions_hold_what_is_said() -> None:
    stage = Stage(transport=TELEPHONE, reply_max_characters=300)
    stage.llm = breaking(after_words=6)
    async with stage:
        await stage.say(800, then_silent_ms=6000)
        (answer,) = stage.answers
        assert answer.text == "Here is one thing. And this is the rest."
        assert "".join(text.text for text in stage.messages(msg.ReplyText)) == answer.text


class BreakingVoice(ToldVoice):
    """Breaks off after some audio of its first sentence; another voice says it again, at twice the pitch or not."""

    again: list[str]

    async def speak(
        self, text: str, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[np.ndarray, None]:
        self.again = []
        try:
            async for piece in super().speak(text, voice=voice):
                yield piece
        except ProviderError as error:
            raise BrokenOffError(error.message, self._go_on) from error

    async def _go_on(self, text: str) -> AsyncGenerator[np.ndarray, None]:
        self.again.append(text)
        yield np.full(self.rate_hz, 5000, np.int16)


async def test_a_sentence_whose_voice_breaks_off_is_said_by_another() -> None:
    stage = Stage()
    voice = BreakingVoice(first_audio_ms=80, audio_ms=1000)
    voice.failure = ServiceError("openai cannot be reached.")
    voice.fail_after_chunks, voice.fail_after_pieces = 0, 1
    async with stage:
        stage.conversation._providers = stage.conversation._providers  # the phrases keep their own voice
        stage.conversation._mouth._providers = type(stage.conversation._providers)(
            stage.vad, stage.turn, stage.stt, stage.llm, voice, stage.phrases
        )
        stage.llm.replies = ["Only one sentence."]
        await stage.say(800, then_silent_ms=5000)
        (answer,) = stage.answers
        assert answer.heard == "Only one sentence."
        assert voice.again == ["Only one sentence."]
        assert stage.messages(msg.Trouble) == []


async def test_what_a_services_rules_do_not_allow_is_declined_in_words_of_its_own() -> None:
    stage = Stage(refusal="I would rather not say.")
    stage.llm = ToldModel(failure=ServiceError("openai does not answer this.", code="content_filtered"))
    async with stage:
        await stage.say(800, then_silent_ms=3000)
        assert [answer.text for answer in stage.answers if answer.text] == ["I would rather not say."]
        stage.llm.failure = ServiceError("openai has an error of its own.")
        await stage.say(800, then_silent_ms=3000)
        assert stage.answers[-1].text == stage.options.apology
