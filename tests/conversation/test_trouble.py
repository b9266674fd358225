"""Conversations in which something goes wrong: they apologise, go on, or end with a word; they never hang."""

import asyncio
import gc
import math
from collections.abc import AsyncGenerator, Callable

import numpy as np
import pytest
from app.conversation import messages as msg
from app.conversation.turn_state import State
from app.core.errors import OverloadedError, ProviderError
from stage import FRAME, FRAME_MS, OPTIONS, SILENCE, VOICE, Stage

pytestmark = pytest.mark.looptime
FAILURE = ProviderError("The provider is on strike.")
ANSWER = "Here is one thing. And here is another, which is longer."
LONG = " ".join(f"This is sentence number {number}." for number in range(40))


def hangs(*_: object, **__: object) -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def gives_up(*_: object, **__: object) -> None:
    await asyncio.sleep(0.1)
    raise asyncio.CancelledError


async def goes_on(stage: Stage) -> bool:
    """The conversation listens, and answers what is said next."""
    assert stage.conversation.state is State.LISTENING
    count = len(stage.answers)
    await stage.say(then_silent_ms=8000)
    assert stage.conversation.state is State.LISTENING
    return [answer.heard for answer in stage.answers[count:]] == [ANSWER]


# --- words that cannot be spoken


async def test_a_greeting_without_a_sound_does_not_keep_the_conversation_waiting():
    async with Stage(greeting="👋") as stage:
        await stage.send(SILENCE, 1000)
        assert [answer.text for answer in stage.answers] == ["👋"]
        assert await goes_on(stage)


async def test_after_a_greeting_without_a_sound_silence_still_ends_the_conversation():
    async with Stage(greeting="👋") as stage:
        assert await stage.ended() == "idle"


async def test_when_not_even_the_apology_can_be_spoken_it_is_shown_and_the_conversation_goes_on():
    async with Stage(apology="Never synthesised before.") as stage:
        stage.tts.failure = FAILURE
        stage.phrases._audio.clear()
        await stage.say(then_silent_ms=3000)
        assert stage.answers[-1].text == "Never synthesised before."
        assert stage.answers[-1].heard == ""
        stage.tts.failure = None
        assert await goes_on(stage)
    assert all(entry.role != "assistant" for entry in stage.llm.given[-1]), "nobody heard it"


async def test_a_voice_that_makes_no_sound_is_apologised_for():
    async with Stage() as stage:
        stage.tts.silent = True
        await stage.say(then_silent_ms=4000)
        assert [answer.heard for answer in stage.answers if answer.heard] == [OPTIONS.apology]
        stage.tts.silent = False
        assert await goes_on(stage)


# --- providers that fail in the middle


@pytest.mark.parametrize("pieces", [0, 2])
async def test_a_voice_that_fails_at_the_third_chunk_keeps_only_what_was_spoken(pieces):
    async with Stage() as stage:
        stage.llm.replies = ["One is here. Two is here. Three is never spoken, not one word. Four neither.", ANSWER]
        stage.tts.failure, stage.tts.fail_after_chunks = FAILURE, 3  # the apology was the first
        stage.tts.fail_after_pieces = pieces
        await stage.say(then_silent_ms=8000)
        answer, apology = [done for done in stage.answers if done.heard]
        assert answer.text.endswith("Four neither.")
        assert answer.heard.startswith("One is here. Two is here.")
        assert "word" not in answer.heard
        assert len(answer.heard.split()) <= 6 + 2 * pieces
        assert apology.heard == OPTIONS.apology
        stage.tts.failure = None
        assert await goes_on(stage)
    assistant = next(entry.content for entry in stage.llm.given[-1] if entry.role == "assistant")
    assert assistant == f"{answer.heard.strip()} {OPTIONS.apology}"


async def test_a_reply_that_breaks_off_ends_even_if_the_apology_fails_too():
    async with Stage(apology="Never synthesised before.") as stage:
        stage.phrases._audio.clear()
        stage.tts.failure, stage.tts.fail_after_chunks = FAILURE, 2
        await stage.say(then_silent_ms=8000)
        assert stage.answers[0].heard.startswith("Here is one thing.")
        stage.tts.failure = None
        assert await goes_on(stage)


async def test_what_was_shown_of_a_reply_is_spoken_before_the_apology_for_the_rest():
    async with Stage() as stage:
        stage.llm.failure, stage.llm.fail_after_words = FAILURE, 6
        await stage.say(then_silent_ms=8000)
        answer, apology = stage.answers
        assert answer.heard == answer.text == "Here is one thing. And here"
        assert apology.heard == OPTIONS.apology
        stage.llm.failure = None
        assert await goes_on(stage)


async def test_who_speaks_over_a_reply_that_broke_off_is_not_apologised_to():
    async with Stage() as stage:
        stage.llm.failure, stage.llm.fail_after_words = FAILURE, 6
        await stage.say(then_silent_ms=1200)
        stage.llm.failure = None
        await stage.say(then_silent_ms=6000)
    assert [answer.interrupted for answer in stage.answers] == [True, False]
    assert stage.answers[1].heard == ANSWER


async def test_words_after_a_broken_reply_and_before_its_apology_are_a_turn_of_their_own():
    async with Stage() as stage:
        stage.llm.failure, stage.llm.fail_after_words = FAILURE, 6
        await stage.send(VOICE, 1000)
        while not stage.answers:
            await stage.send(SILENCE, FRAME_MS)
        stage.llm.failure = None
        stage.stt.words = ["and now"]
        await stage.say(then_silent_ms=8000)
    assert stage.said == ["tell me more", "and now"]
    assert stage.messages(msg.TurnReopened) == []
    assert stage.answers[-1].heard == ANSWER


# --- providers that give nothing


async def test_a_model_that_streams_nothing_but_empty_pieces_is_apologised_for():
    async def thinks_for_ever(*_: object, **__: object) -> AsyncGenerator[str, None]:
        while True:
            await asyncio.sleep(0.1)
            yield ""

    async with Stage() as stage:
        answering, stage.llm.reply = stage.llm.reply, thinks_for_ever
        await stage.say(then_silent_ms=9000)
        assert [answer.heard for answer in stage.answers if answer.heard] == [OPTIONS.apology]
        stage.llm.reply = answering
        assert await goes_on(stage)


@pytest.mark.parametrize("fault", [hangs, gives_up])
async def test_a_recogniser_that_never_answers_is_apologised_for(fault: Callable[..., object]):
    async with Stage() as stage:
        transcribing, stage.stt.transcribe = stage.stt.transcribe, fault
        await stage.say(then_silent_ms=9000)
        assert [answer.heard for answer in stage.answers] == [OPTIONS.apology]
        stage.stt.transcribe = transcribing
        assert await goes_on(stage)


@pytest.mark.parametrize("fault", [hangs, gives_up])
@pytest.mark.parametrize("broken", ["llm", "tts"])
async def test_a_stream_that_never_gives_anything_is_apologised_for(broken: str, fault: Callable[..., object]):
    async def stream(*_: object, **__: object) -> AsyncGenerator[object, None]:
        await fault()
        yield None

    async with Stage() as stage:
        provider, method = getattr(stage, broken), {"llm": "reply", "tts": "speak"}[broken]
        working = getattr(provider, method)
        setattr(provider, method, stream)
        await stage.say(then_silent_ms=9000)
        assert [answer.heard for answer in stage.answers if answer.heard] == [OPTIONS.apology]
        setattr(provider, method, working)
        assert await goes_on(stage)


@pytest.mark.parametrize("fault", [hangs, gives_up])
async def test_the_turn_ends_even_if_the_turn_model_never_answers(fault: Callable[..., object]):
    async with Stage() as stage:
        stage.turn.score = fault
        await stage.say(then_silent_ms=8000)
        assert await goes_on(stage)


async def test_the_turn_ends_even_if_the_turn_model_gives_no_number():
    async with Stage() as stage:
        stage.turn.probabilities = [math.nan]
        await stage.say(then_silent_ms=8000)
        assert await goes_on(stage)


async def test_a_voice_detector_that_never_answers_ends_the_conversation():
    async with Stage() as stage:
        stage.vad.feed = hangs
        stage.conversation.hear(np.zeros(FRAME, np.int16))
        assert await stage.ended() == "failed"
    assert stage.messages(msg.Trouble)[-1].fatal


# --- providers that do not stop when they are told to


async def test_a_model_that_will_not_stop_harms_nobody():
    answering = 0

    async with Stage() as stage:

        async def stubborn(*_: object, **__: object) -> AsyncGenerator[str, None]:
            nonlocal answering
            answering += 1
            if answering > 1:
                for word in ANSWER.split():
                    yield f"{word} "
                return
            while True:
                try:
                    await asyncio.sleep(0.01)
                    yield "Blah, blah, blah. "
                except (asyncio.CancelledError, GeneratorExit):
                    await asyncio.sleep(0.5)
                    raise FAILURE from None

        stage.llm.reply = stubborn
        stage.turn.probabilities = [0.05, 0.98]
        await stage.say(800, then_silent_ms=500)
        await stage.say(800, then_silent_ms=8000)
    assert [answer.heard.strip() for answer in stage.answers] == [ANSWER]
    assert stage.messages(msg.Trouble) == [], "what was given up is no failure"


async def test_partial_transcripts_that_fail_are_nobodys_trouble():
    async with Stage() as stage:
        working = stage.stt.transcribe

        async def only_whole(audio: np.ndarray, *, language: str | None = None, partial: bool = False):
            if partial:
                raise FAILURE
            return await working(audio, language=language)

        stage.stt.transcribe = only_whole
        await stage.say(5000, then_silent_ms=6000)
    assert stage.messages(msg.Trouble) == []
    assert [answer.heard for answer in stage.answers] == [ANSWER]


async def test_when_the_voice_detector_is_overloaded_the_conversation_goes_on():
    async with Stage() as stage:
        stage.vad.failure = OverloadedError("Too much to hear.")
        await stage.send(VOICE, 400)
        stage.vad.failure = None
        assert await goes_on(stage)


# --- defects


async def test_a_defect_ends_the_conversation_with_an_error_and_not_in_silence():
    async with Stage() as stage, Stage() as other:
        stage.llm.count_tokens = None  # type: ignore[assignment]  # calling it is the defect
        stage.conversation.history._count = None  # type: ignore[assignment]
        asking = asyncio.create_task(other.say(then_silent_ms=6000))
        await stage.say(then_silent_ms=2000)
        assert await stage.ended() == "failed"
        await asking
    assert stage.messages(msg.Trouble)[-1].fatal
    assert [answer.heard for answer in other.answers] == [ANSWER]


async def test_a_defect_in_the_playout_ends_the_conversation_and_not_the_others():
    async with Stage() as stage, Stage() as other:
        asking = asyncio.create_task(other.say(then_silent_ms=6000))
        await stage.say(then_silent_ms=700)
        stage.conversation._mouth._reply.playout.due = None  # calling it is the defect
        await stage.send(SILENCE, 1000)
        assert stage.conversation.reason == "failed"
        await asking
    assert [answer.heard for answer in other.answers] == [ANSWER]


async def test_a_defect_of_the_voice_detector_ends_the_conversation_with_an_error():
    async with Stage() as stage:
        stage.vad.failure = IndexError("a defect")
        await stage.send(SILENCE, 100)
        assert await stage.ended() == "failed"
    (trouble,) = stage.messages(msg.Trouble)
    assert trouble.fatal
    assert "a defect" not in trouble.message


# --- nothing is left, nothing grows


async def test_nothing_runs_any_more_when_the_conversation_has_returned():
    before = asyncio.all_tasks()
    stage = Stage()
    await stage.__aenter__()
    stage.llm.replies, stage.llm.word_s = [LONG], 0.0  # far more than may wait for the voice
    await stage.say(then_silent_ms=1500)
    assert stage.llm.running == 1, "it waits for room"
    stage.conversation.end("client")
    await stage.ended()
    assert (stage.llm.running, stage.tts.running, stage.stt.running) == (0, 0, 0)
    assert asyncio.all_tasks() == before


async def test_a_reply_that_is_thrown_away_stops_the_model_at_once():
    async with Stage() as stage:
        stage.llm.replies, stage.llm.word_s = [LONG, ANSWER], 0.0
        await stage.say(then_silent_ms=1500)
        stage.conversation.interrupt()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (stage.llm.running, stage.tts.running) == (0, 0)


async def test_noises_leave_nothing_behind_however_many_there_are():
    def tasks() -> int:
        gc.collect()
        return sum(1 for thing in gc.get_objects() if isinstance(thing, asyncio.Task))

    async with Stage() as stage:
        stage.stt.words = [""]
        counts = []
        for _ in range(3):
            for _ in range(10):
                await stage.say(300, then_silent_ms=700)
            await stage.send(SILENCE, 3000)
            counts.append(tasks())
    assert counts[2] <= counts[0] + 2


async def test_what_comes_after_the_end_is_ignored_and_not_kept():
    async with Stage() as stage:
        await stage.say(then_silent_ms=300)
        stage.conversation.end("client")
        await stage.ended()
        count = len(stage.told)
        for _ in range(200):
            stage.conversation.hear(np.full(FRAME, VOICE, np.int16))
            stage.conversation.type("anyone there?")
            stage.conversation.interrupt()
            stage.conversation.mute(True)
            stage.conversation.played(1, 100)
        assert len(stage.told) == count
        assert len(stage.conversation._events) == 0
        assert stage.conversation.ear._inbox_samples == 0


async def test_what_is_typed_before_the_conversation_runs_is_its_first_turn():
    async with Stage(greeting="Ahoy!", typed_first="hello") as stage:
        await stage.send(SILENCE, 6000)
    assert stage.said == ["hello"]
    assert [answer.heard for answer in stage.answers] == [ANSWER]


@pytest.mark.parametrize(
    "kind",
    [
        msg.SpeechShown,
        msg.TranscriptShown,
        msg.ReplyText,
        msg.AudioStarted,
        msg.LatencyShown,
        msg.AudioHeld,
        msg.AudioCleared,
        msg.AudioEnded,
        msg.ReplyDone,
    ],
)
async def test_an_end_that_comes_while_something_is_told_is_the_end(kind: type[msg.Message]):
    before = asyncio.all_tasks()
    stage = Stage()
    tell, heard = stage.tell, 0

    def tell_and_end(message: msg.Message) -> None:
        nonlocal heard
        tell(message)
        if isinstance(message, kind) and not stage.conversation.reason:
            stage.conversation.end("client")
            heard = len(stage.heard)

    stage.tell = tell_and_end  # type: ignore[method-assign]
    await stage.__aenter__()
    await stage.say(then_silent_ms=1500)
    await stage.say(then_silent_ms=8000)
    assert await stage.ended() == "client"
    last = next(number for number, (_, message) in enumerate(stage.told) if isinstance(message, kind))
    assert {type(message) for _, message in stage.told[last + 1 :]} <= {msg.AudioCleared, msg.ReplyDone}, "its own end"
    assert len(stage.heard) == heard
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("broken", ["stt", "turn", "llm", "tts"])
async def test_a_provider_that_fails_before_it_is_waited_for_is_like_any_other(broken: str):
    def fails(*_: object, **__: object) -> object:
        raise ValueError("a defect")

    async with Stage() as stage:
        method = {"stt": "transcribe", "turn": "score", "llm": "reply", "tts": "speak"}[broken]
        provider = getattr(stage, broken)
        working = getattr(provider, method)
        setattr(provider, method, fails)
        await stage.say(then_silent_ms=8000)
        heard = [answer.heard for answer in stage.answers if answer.heard]
        assert heard == ([ANSWER] if broken == "turn" else [OPTIONS.apology])
        setattr(provider, method, working)
        assert await goes_on(stage)


async def test_a_model_that_cannot_prepare_itself_is_nobodys_trouble():
    async with Stage() as stage:
        stage.llm.warm = fails_to_warm  # type: ignore[method-assign]
        assert await goes_on(stage)
    assert stage.messages(msg.Trouble) == []


async def fails_to_warm(*_: object) -> None:
    raise ValueError("a defect")
