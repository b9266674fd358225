"""A recogniser that listens along: its words are there sooner, and what it misses is transcribed from the recording."""

import asyncio

import numpy as np
import pytest
from app.conversation import messages as msg
from app.core.errors import ServiceError
from stage import RATE_HZ, SILENCE, VOICE, Stage, ToldListener

pytestmark = pytest.mark.looptime


def listening(*words: str, **behaviour: object) -> ToldListener:
    return ToldListener(words=list(words), **behaviour)  # type: ignore[arg-type]


async def staged(listener: ToldListener, *fallback: str) -> Stage:
    stage = Stage()
    stage.stt.listener = listener
    stage.stt.words = list(fallback) or ["from the recording"]
    return stage


async def test_what_it_understood_is_what_was_said_and_nothing_is_transcribed_again() -> None:
    async with await staged(listening("what is the time")) as stage:
        await stage.say(1000, then_silent_ms=6000)
        assert stage.said == ["what is the time"]
        assert stage.stt.given == []
        assert [answer.heard for answer in stage.answers] == stage.llm.replies


async def test_it_hears_the_whole_utterance_with_the_moment_before_it() -> None:
    listener = listening("hello there")
    async with await staged(listener) as stage:
        await stage.send(SILENCE, 600)
        await stage.say(1000)
        (audio,) = listener.given
        before_ms = np.argmax(np.abs(audio) > 1000) * 1000 / RATE_HZ
        assert 250 <= before_ms <= 340, "the pre-roll, and what the detector was late by"
        assert np.count_nonzero(audio == VOICE) == RATE_HZ


async def test_somebody_who_goes_on_after_a_pause_is_heard_on() -> None:
    listener = listening("I would like", "I would like some tea")
    async with await staged(listener) as stage:
        stage.turn.probabilities = [0.05, 0.98]
        await stage.say(800, then_silent_ms=500)
        await stage.say(800)
        assert stage.said == ["I would like some tea"]
        first, whole = listener.given
        assert len(whole) > len(first)
        assert (whole[: len(first)] == first).all()
        assert listener.utterances == 1


async def test_what_it_could_not_understand_is_transcribed_from_the_recording() -> None:
    listener = listening("never", failure=ServiceError("openai cannot be reached: the connection broke off."))
    async with await staged(listener, "from the recording") as stage:
        await stage.say(1000)
        assert stage.said == ["from the recording"]
        (audio,) = stage.stt.given
        assert np.count_nonzero(audio == VOICE) == RATE_HZ
        assert stage.messages(msg.Trouble) == [], "the user need not know"


async def test_words_are_shown_while_they_are_spoken() -> None:
    listener = listening("one two three")
    async with await staged(listener) as stage:
        await stage.send(VOICE, 600)
        listener.on_partial("one two")
        assert [(shown.text, shown.final) for shown in stage.messages(msg.TranscriptShown)] == [("one two", False)]
        await stage.say(400)
        listener.on_partial("much too late")
        assert stage.said == ["one two three"]
        assert "much too late" not in [shown.text for shown in stage.messages(msg.TranscriptShown)]


async def test_a_noise_that_was_none_is_not_kept_for_the_next_utterance() -> None:
    listener = listening("", "hello")
    async with await staged(listener) as stage:
        await stage.say(300)
        await stage.say(1000)
        assert stage.said == ["", "hello"]
        assert listener.utterances == 2


async def test_it_ends_with_the_conversation() -> None:
    listener = listening("hello")
    async with await staged(listener) as stage:
        await stage.send(VOICE, 400)
    assert listener.closed
    before = asyncio.all_tasks()
    assert before == {asyncio.current_task()}
