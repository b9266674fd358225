"""The account of how long a user waited: its parts are what they say, and the engine's own share is what remains."""

import asyncio

import pytest
from app.conversation import messages as msg
from app.conversation.latency import ReplyClock, TurnClock, turn_latency
from app.conversation.turn_state import State
from hypothesis import given
from hypothesis import strategies as st
from stage import FRAME_MS, SILENCE, VOICE, Stage, rules

pytestmark = pytest.mark.looptime
seconds = st.floats(0, 100)
FRAME_AND_WINDOW_MS = 20 + 32


def account(spoken: TurnClock, made: ReplyClock, now_s: float) -> msg.LatencyShown:
    return turn_latency(3, 4, spoken, made, now_s)


def test_without_speculation_the_stages_follow_each_other():
    spoken = TurnClock(last_voice_s=10.0, pause_s=0.1, stt_s=0.2, decided_s=10.5)
    shown = account(spoken, ReplyClock(False, llm_s=0.3, tts_s=0.1), 10.92)
    assert shown.voice_to_voice_ms == pytest.approx(920)
    assert shown.endpointing_ms == pytest.approx(500)
    assert (shown.stt_ms, shown.llm_ms, shown.tts_ms) == (200, 300, 100)
    assert shown.engine_ms == pytest.approx(20)
    assert not shown.speculative


def test_with_speculation_the_work_runs_inside_the_wait():
    spoken = TurnClock(last_voice_s=10.0, pause_s=0.1, stt_s=0.1, decided_s=10.6)
    shown = account(spoken, ReplyClock(True, llm_s=0.2, tts_s=0.1), 10.61)
    assert shown.endpointing_ms == pytest.approx(600)
    assert shown.engine_ms == pytest.approx(10), "500 ms of work took nothing of the user's time"


def test_speculative_work_that_takes_longer_than_the_wait_is_what_counts():
    spoken = TurnClock(last_voice_s=10.0, pause_s=0.1, stt_s=0.3, decided_s=10.2)
    shown = account(spoken, ReplyClock(True, llm_s=0.5, tts_s=0.1), 11.03)
    assert shown.engine_ms == pytest.approx(30)


def test_a_typed_turn_has_no_wait():
    shown = account(TurnClock(last_voice_s=5.0, decided_s=5.0), ReplyClock(False, llm_s=0.2, tts_s=0.1), 5.31)
    assert (shown.endpointing_ms, shown.stt_ms) == (0, 0)
    assert shown.engine_ms == pytest.approx(10)


@given(
    last_voice_s=seconds,
    pause_s=seconds,
    stt_s=seconds,
    decided_s=st.one_of(st.none(), seconds),
    llm_s=seconds,
    tts_s=seconds,
    now_s=seconds,
    speculative=st.booleans(),
)
def test_no_share_is_ever_negative_and_the_whole_is_never_less_than_its_parts(
    last_voice_s, pause_s, stt_s, decided_s, llm_s, tts_s, now_s, speculative
):
    shown = account(TurnClock(last_voice_s, pause_s, stt_s, decided_s), ReplyClock(speculative, llm_s, tts_s), now_s)
    parts = (shown.endpointing_ms, shown.stt_ms, shown.llm_ms, shown.tts_ms)
    assert min(*parts, shown.engine_ms) >= 0
    assert shown.voice_to_voice_ms >= max(parts) * (1 - 1e-9)
    work_ms = pause_s * 1000 + shown.stt_ms + shown.llm_ms + shown.tts_ms
    waited_ms = (
        max(work_ms, shown.endpointing_ms)
        if speculative
        else max(shown.endpointing_ms + shown.llm_ms + shown.tts_ms, work_ms)
    )
    assert shown.voice_to_voice_ms == pytest.approx(waited_ms + shown.engine_ms)


# --- in a conversation


async def asked(stage: Stage) -> msg.LatencyShown:
    await stage.say(then_silent_ms=6000)
    (shown,) = [shown for shown in stage.messages(msg.LatencyShown) if shown.turn]
    return shown


async def test_the_stages_of_a_conversation_are_what_its_providers_took():
    async with Stage(rules=rules(speculation=False)) as stage:
        stage.stt.delay_s, stage.llm.first_s = 0.15, 0.25
        shown = await asked(stage)
    assert shown.stt_ms == pytest.approx(150)
    assert shown.llm_ms == pytest.approx(250 + 4 * 10), "four words make the first sentence"
    assert shown.tts_ms == pytest.approx(80)
    assert shown.engine_ms <= FRAME_AND_WINDOW_MS


@pytest.mark.parametrize("speculation", [False, True])
async def test_a_slow_recogniser_is_not_taken_for_a_slow_decision(speculation: bool):
    async with Stage(rules=rules(speculation=speculation)) as stage:
        stage.stt.delay_s = 1.0
        shown = await asked(stage)
    assert shown.endpointing_ms <= 240 + FRAME_AND_WINDOW_MS
    assert shown.stt_ms == pytest.approx(1000)
    assert shown.engine_ms <= FRAME_AND_WINDOW_MS


async def test_a_cough_before_the_reply_is_heard_is_not_the_engines_fault():
    async with Stage() as stage:
        stage.llm.first_s = 0.5
        await stage.send(VOICE, 1000)
        while stage.conversation.state is not State.REPLYING:
            await stage.send(SILENCE, FRAME_MS)
        while not stage.llm.running or stage.now_s() - stage.when(msg.SpeechShown, 1) < 0.6:
            await stage.send(SILENCE, FRAME_MS)
        await stage.say(100, then_silent_ms=6000)
        (shown,) = stage.messages(msg.LatencyShown)
        assert [answer.interrupted for answer in stage.answers] == [False]
    assert shown.engine_ms <= FRAME_AND_WINDOW_MS


async def test_a_typed_turn_is_timed_from_when_it_came():
    async with Stage() as stage:
        await stage.send(SILENCE, 3000)
        stage.conversation.type("hello")
        await stage.send(SILENCE, 3000)
    (shown,) = stage.messages(msg.LatencyShown)
    assert (shown.endpointing_ms, shown.stt_ms) == (0, 0)
    assert shown.voice_to_voice_ms == pytest.approx(shown.llm_ms + shown.tts_ms, abs=1)


async def test_nothing_typed_does_not_begin_the_account_anew():
    async with Stage() as stage:
        stage.turn.probabilities = [0.5]
        await stage.send(VOICE, 1000)
        ended_s = stage.now_s()
        await stage.send(SILENCE, 300)
        stage.conversation.type("  ")
        await stage.send(SILENCE, 5000)
    (shown,) = stage.messages(msg.LatencyShown)
    waited_ms = (stage.when(msg.AudioStarted) - ended_s) * 1000
    assert shown.voice_to_voice_ms == pytest.approx(waited_ms, abs=FRAME_AND_WINDOW_MS)


async def test_the_account_begins_where_the_last_word_ended_even_if_the_turn_had_pauses():
    async with Stage() as stage:
        stage.turn.probabilities = [0.02, 0.98]
        await stage.say(800, then_silent_ms=500)
        shown_from_s = await stage.say(800, then_silent_ms=5000)
    (shown,) = stage.messages(msg.LatencyShown)
    waited_ms = (stage.when(msg.AudioStarted) - shown_from_s) * 1000
    assert shown.voice_to_voice_ms == pytest.approx(waited_ms, abs=FRAME_AND_WINDOW_MS)


async def test_each_conversation_has_its_own_account():
    async with Stage() as first, Stage() as second:
        second.llm.first_s = 1.0
        shown = await asyncio.gather(asked(first), asked(second))
    assert shown[1].voice_to_voice_ms - shown[0].voice_to_voice_ms > 700


async def test_a_greeting_waits_for_no_decision():
    async with Stage(greeting="Ahoy!") as stage:
        await stage.send(SILENCE, 2500)
    (shown,) = stage.messages(msg.LatencyShown)
    assert (shown.turn, shown.endpointing_ms, shown.stt_ms) == (0, 0, 0)
    assert shown.voice_to_voice_ms == pytest.approx(shown.tts_ms, abs=1)
