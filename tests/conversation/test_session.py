"""Whole conversations in virtual time: what a person says, types and hears."""

import asyncio

import numpy as np
import pytest
from app.conversation import messages as msg
from app.core.errors import ProviderError
from stage import OPTIONS, SILENCE, VOICE, Stage, rules

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]
FAILURE = ProviderError("The provider is on strike.")


async def test_a_question_is_answered():
    async with Stage() as stage:
        await stage.say(then_silent_ms=6000)
    assert stage.said == ["tell me more"]
    (answer,) = stage.answers
    assert answer.text == answer.heard == "Here is one thing. And here is another, which is longer."
    assert not answer.interrupted
    assert "".join(piece.text for piece in stage.messages(msg.ReplyText)) == answer.text
    assert sum(len(audio) for _, audio in stage.heard) == 2 * 1500 * 16, "two sentences, each a tone of 1.5 s"


async def test_the_greeting_is_spoken_first_and_kept_in_mind():
    async with Stage(greeting="Ahoy!") as stage:
        await stage.send(SILENCE, 2500)
        await stage.say()
    assert stage.answers[0].text == "Ahoy!"
    assert [(entry.role, entry.content) for entry in stage.llm.given[0]] == [
        ("system", "Be brief."),
        ("assistant", "Ahoy!"),
        ("user", "tell me more"),
    ]


async def test_the_reply_begins_in_the_pause_and_is_heard_as_soon_as_the_turn_is_over():
    async with Stage() as stage:
        stage.turn.probabilities = [0.5]  # waits 580 ms from the last voice: time for the whole reply to brew
        ended_s = await stage.say()
    (latency,) = stage.messages(msg.LatencyShown)
    assert latency.speculative
    waited_ms = (stage.when(msg.AudioStarted) - ended_s) * 1000
    assert 540 <= waited_ms <= 640, "the endpointing delay and nothing else"
    assert latency.engine_ms <= 20, "one frame: the audio clock moves in frames"


async def test_without_speculation_the_reply_waits_for_the_end_of_the_turn():
    async with Stage(rules=rules(speculation=False)) as stage:
        ended_s = await stage.say()
    (latency,) = stage.messages(msg.LatencyShown)
    assert not latency.speculative
    waited_ms = (stage.when(msg.AudioStarted) - ended_s) * 1000
    assert waited_ms >= latency.llm_ms + latency.tts_ms + latency.endpointing_ms


async def test_going_on_after_a_pause_throws_the_brewing_reply_away():
    async with Stage() as stage:
        stage.turn.probabilities = [0.05, 0.05, 0.98]
        stage.stt.words = ["tell me", "tell me about whales"]
        await stage.say(800, then_silent_ms=700)
        assert len(stage.llm.given) == 1, "a reply was brewing"
        await stage.say(800, then_silent_ms=6000)
    assert stage.said == ["tell me about whales"]
    assert len(stage.answers) == 1
    assert [message[-1].content for message in stage.llm.given] == ["tell me", "tell me about whales"]
    assert stage.llm.running == 0


async def test_the_first_syllable_is_never_cut():
    async with Stage() as stage:
        await stage.send(SILENCE, 1000)
        await stage.say(1000)
    (audio,) = stage.stt.given
    onset = int(np.argmax(np.abs(audio) > 1000))
    assert 300 * 16 - 32 * 16 <= onset <= 300 * 16 + 32 * 16, "300 ms before the voice, give or take a window"
    assert (np.abs(audio) > 1000).sum() == 1000 * 16, "every voiced sample"


async def test_speaking_over_the_reply_stops_it_within_250_ms_and_keeps_what_was_heard():
    async with Stage() as stage:
        stage.llm.replies = ["One two three four five six seven eight nine ten eleven.", "Fine."]
        await stage.say(then_silent_ms=1200)
        spoken_s = stage.now_s()
        await stage.say(600, then_silent_ms=4000)
    cleared_s = stage.when(msg.AudioCleared)
    assert cleared_s - spoken_s <= 0.25
    first, second = stage.answers
    assert first.interrupted
    assert first.text.startswith(first.heard)
    assert first.heard != first.text
    assert 0 < len(first.heard.split()) < 11
    assert second.text == second.heard == "Fine."
    context = stage.llm.given[-1]
    assert context[2].content == first.heard, "the model is told what was heard, not what was generated"
    between = [at for at, _ in stage.heard if cleared_s < at < stage.when(msg.AudioStarted, 1)]
    assert between == [], "not a sample of the stopped reply after the stop"


async def test_a_cough_ducks_the_reply_and_nothing_is_lost():
    async with Stage() as stage:
        await stage.say(then_silent_ms=1200)
        await stage.say(80, then_silent_ms=5000)
    held = [message.held for message in stage.messages(msg.AudioHeld)]
    assert held == [True, False]
    assert [answer.interrupted for answer in stage.answers] == [False]
    assert len(stage.said) == 1
    assert sum(len(audio) for _, audio in stage.heard) == 2 * 1500 * 16


async def test_going_on_before_the_reply_is_audible_reopens_the_turn():
    async with Stage() as stage:
        stage.llm.first_s = 1.5
        stage.stt.words = ["book a table", "for two"]
        await stage.say(800, then_silent_ms=900)
        assert stage.said == ["book a table"]
        await stage.say(800, then_silent_ms=6000)
    assert len(stage.messages(msg.TurnReopened)) == 1
    assert stage.said == ["book a table", "book a table for two"]
    assert [answer.heard for answer in stage.answers if answer.heard] == [stage.answers[-1].text]
    users = [entry.content for entry in stage.llm.given[-1] if entry.role == "user"]
    assert users == ["book a table for two"]


async def test_a_noise_that_is_no_speech_is_forgotten():
    async with Stage() as stage:
        stage.stt.words = [""]
        await stage.say(400, then_silent_ms=4000)
    assert stage.said == [""]
    assert stage.answers == []
    assert stage.llm.given == []


async def test_partial_transcripts_grow_while_the_user_speaks():
    async with Stage() as stage:
        await stage.send(VOICE, 2600)
        partial = [message.text for message in stage.messages(msg.TranscriptShown) if not message.final]
    assert partial == ["so far", "so far"]


async def test_the_model_reads_along_while_the_user_speaks():
    async with Stage() as stage:
        read: list[str] = []

        async def reads(messages):
            read.append(messages[-1].content)

        stage.llm.warm = reads
        await stage.send(VOICE, 1600)
    assert read == ["Be brief.", "so"], "the last word of a partial transcript may be half a word"


async def test_a_typed_turn_is_answered():
    async with Stage() as stage:
        stage.conversation.type("what is a bell")
        await stage.send(SILENCE, 5000)
    assert stage.said == ["what is a bell"]
    assert len(stage.answers) == 1
    assert stage.llm.given[0][-1].content == "what is a bell"


async def test_typing_needs_no_microphone():
    async with Stage() as stage:
        stage.conversation.type("hello")
        await asyncio.sleep(6)
    assert stage.answers[0].heard == stage.answers[0].text


async def test_typing_stops_the_reply_that_is_spoken():
    async with Stage() as stage:
        await stage.say(then_silent_ms=1200)
        stage.conversation.type("something else")
        await stage.send(SILENCE, 5000)
    assert [answer.interrupted for answer in stage.answers] == [True, False]


async def test_what_is_typed_while_speaking_belongs_to_the_same_turn():
    async with Stage() as stage:
        await stage.send(VOICE, 1000)
        stage.conversation.type("number 42")
        await stage.send(SILENCE, 5000)
    assert stage.said == ["tell me more number 42"]
    assert len(stage.answers) == 1


async def test_the_interrupt_button_silences_at_once():
    async with Stage() as stage:
        await stage.say(then_silent_ms=1200)
        stage.conversation.interrupt()
        assert stage.answers[0].interrupted
        count = len(stage.heard)
        await stage.send(SILENCE, 3000)
    assert len(stage.heard) == count


@pytest.mark.parametrize("broken", ["stt", "llm", "tts"])
async def test_a_failing_provider_is_apologised_for_and_the_conversation_goes_on(broken):
    async with Stage() as stage:
        getattr(stage, broken).failure = FAILURE
        await stage.say(then_silent_ms=4000)
        getattr(stage, broken).failure = None
        await stage.say(then_silent_ms=6000)
    apology, answer = [done for done in stage.answers if done.heard]
    assert apology.heard == OPTIONS.apology
    assert answer.heard == "Here is one thing. And here is another, which is longer."
    assert FAILURE.message in [message.message for message in stage.messages(msg.Trouble)]


async def test_a_model_that_says_nothing_is_apologised_for():
    async with Stage() as stage:
        stage.llm.first_s = 60
        await stage.say(then_silent_ms=9000)
    assert [done.heard for done in stage.answers if done.heard] == [OPTIONS.apology]


async def test_a_failure_in_the_middle_of_a_reply_is_followed_by_the_apology():
    async with Stage() as stage:
        stage.llm.failure, stage.llm.fail_after_words = FAILURE, 6
        await stage.say(then_silent_ms=8000)
    answer, apology = stage.answers
    assert answer.heard.startswith("Here is one thing.")
    assert apology.heard == OPTIONS.apology


async def test_the_turn_ends_even_if_the_turn_model_fails():
    async with Stage() as stage:
        stage.turn.failure = FAILURE
        await stage.say(then_silent_ms=5000)
    assert len(stage.answers) == 1


async def test_a_failing_voice_detector_ends_the_conversation_with_an_error():
    async with Stage() as stage:
        stage.vad.failure = FAILURE
        await stage.send(SILENCE, 100)
        assert await stage.ended() == "failed"
    (trouble,) = stage.messages(msg.Trouble)
    assert trouble.fatal


async def test_a_client_that_stops_sending_is_taken_to_be_silent():
    async with Stage() as stage:
        await stage.send(VOICE, 1000)
        await asyncio.sleep(6)
    assert stage.said == ["tell me more"]
    assert len(stage.answers) == 1


async def test_muting_in_the_middle_of_a_word_ends_the_turn():
    async with Stage() as stage:
        await stage.send(VOICE, 1000)
        stage.conversation.mute(True)
        await stage.send(VOICE, 5000)
    assert stage.said == ["tell me more"]
    assert len(stage.stt.given[0]) <= (1000 + 300 + 200) * 16


async def test_silence_for_too_long_ends_the_conversation():
    async with Stage() as stage:
        assert await stage.ended() == "idle"
    assert stage.now_s() == pytest.approx(60, abs=1)


async def test_speech_without_a_pause_is_taken_at_the_limit_and_none_of_it_is_lost():
    async with Stage(buffer_limit_s=5) as stage:
        stage.stt.words = ["first part", "second part", "end"]
        await stage.say(12_000, then_silent_ms=8000)
    assert stage.said == ["first part second part end"]
    assert len([answer for answer in stage.answers if answer.heard]) == 1
    voiced = sum(int((np.abs(audio) > 1000).sum()) for audio in stage.stt.given)
    assert voiced == 12_000 * 16, "every voiced sample was transcribed, and once"


async def test_what_the_listener_reports_decides_what_was_heard():
    async with Stage() as stage:
        stage.llm.replies = ["One two three four five six seven eight nine ten."]
        await stage.say(then_silent_ms=1500)
        stage.conversation.played(1, 0)  # the speaker has not begun: nothing has left it
        stage.conversation.interrupt()
    assert len(stage.answers[0].heard.split()) <= 1


async def test_replies_are_sent_in_step_with_time():
    async with Stage() as stage:
        await stage.say(then_silent_ms=6000)
    begun_s = stage.heard[0][0]
    sent = 0
    for at_s, audio in stage.heard:
        sent += len(audio)
        assert sent / 16 <= (at_s - begun_s) * 1000 + 200 + 21, "at most the lead and one tick ahead"


async def test_nothing_is_left_running_and_nothing_is_told_after_the_end():
    before = asyncio.all_tasks()
    async with Stage() as stage:
        await stage.say(then_silent_ms=300)
        stage.conversation.end("client")
        count = len(stage.told), len(stage.heard)
    await asyncio.sleep(5)
    assert (len(stage.told), len(stage.heard)) == count
    assert asyncio.all_tasks() == before
    assert stage.llm.running == stage.stt.running == 0


async def test_cancelling_the_conversation_cancels_its_work():
    before = asyncio.all_tasks()
    stage = Stage()
    await stage.__aenter__()
    await stage.say(then_silent_ms=300)
    stage.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stage.ended()
    await asyncio.sleep(1)
    assert asyncio.all_tasks() == before
    assert stage.llm.running == stage.stt.running == 0


async def test_two_conversations_do_not_touch_each_other():
    async with Stage() as first, Stage() as second:
        second.stt.words = ["second"]
        first.stt.failure = FAILURE
        await asyncio.gather(first.say(then_silent_ms=5000), second.say(then_silent_ms=5000))
    assert [answer.heard for answer in first.answers] == [OPTIONS.apology]
    assert second.said == ["second"]
    assert len(second.answers) == 1
