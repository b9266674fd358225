"""Speaking over a reply: it is lowered at once, and then stops or comes back; history keeps what was heard."""

import pytest
from app.conversation import messages as msg
from app.conversation.turn_state import State
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import FRAME_MS, SILENCE, VOICE, Stage, run_in_virtual_time

pytestmark = pytest.mark.looptime
COUNTING = "One two three four five six seven eight nine ten eleven twelve."


async def speaking(stage: Stage) -> None:
    """Ask, and wait until the reply is audible."""
    await stage.send(VOICE, 1000)
    while stage.conversation.state is not State.SPEAKING:
        await stage.send(SILENCE, FRAME_MS)


def ducking(stage: Stage) -> list[str]:
    """What happened to the volume, in order."""
    found = []
    for message in (message for _, message in stage.told):
        match message:
            case msg.AudioStarted():
                found.append("start")
            case msg.AudioHeld(held=held):
                found.append("hold" if held else "resume")
            case msg.AudioCleared():
                found.append("clear")
            case msg.ReplyDone() if found and found[-1] != "done":
                found.append("done")
            case _:
                pass
    return found


async def test_a_voice_lowers_the_reply_within_two_windows():
    async with Stage() as stage:
        await speaking(stage)
        spoken_s = stage.now_s()
        await stage.send(VOICE, 120)
        assert stage.conversation.state is State.HELD
    assert stage.when(msg.AudioHeld) - spoken_s <= 0.1


async def test_a_voice_shorter_than_the_limit_never_stops_the_reply_and_a_longer_one_always_does():
    for voice_ms in (40, 60, 80, 100, 200, 220, 240):  # in between, windows that are half voice decide
        async with Stage(barge_in_ms=160, pause_ms=64) as stage:
            await speaking(stage)
            await stage.say(voice_ms, then_silent_ms=400)
            assert bool(stage.messages(msg.AudioCleared)) == (voice_ms > 160), f"{voice_ms} ms"


async def test_when_the_voice_falls_silent_the_reply_comes_back_at_once():
    async with Stage(pause_ms=64) as stage:
        await speaking(stage)
        await stage.send(VOICE, 100)
        silent_s = stage.now_s()
        await stage.send(SILENCE, 300)
        assert stage.conversation.state is State.SPEAKING
    back_s = next(at_s for at_s, message in stage.told if message == msg.AudioHeld(1, held=False))
    assert back_s - silent_s <= 0.064 + 0.032 + 0.02


async def test_a_reply_that_ends_while_it_is_held_comes_back_before_it_ends():
    async with Stage() as stage:
        stage.llm.replies = ["Short."]
        await speaking(stage)
        while stage.now_s() - stage.when(msg.AudioStarted) < 1.4:
            await stage.send(SILENCE, FRAME_MS)
        await stage.send(VOICE, 120)
        assert stage.conversation.state is State.HEARING, "the reply ended under the voice, whose turn it is now"
        await stage.say(1000, then_silent_ms=5000)
    assert ducking(stage)[:4] == ["start", "hold", "resume", "done"]
    assert len(stage.answers) == 2


async def test_speech_that_begins_when_the_playout_ends_is_a_turn():
    for early_ms in range(0, 160, 20):
        async with Stage() as stage:
            stage.llm.replies = ["Short."]
            await speaking(stage)
            while (stage.now_s() - stage.when(msg.AudioStarted)) * 1000 < 1500 - early_ms:
                await stage.send(SILENCE, FRAME_MS)
            stage.stt.words = ["and then?"]
            await stage.say(1000, then_silent_ms=5000)
        assert stage.said == ["tell me more", "and then?"], f"{early_ms} ms before the end"
        assert stage.answers[-1].heard == "Short."
        assert int((abs(stage.stt.given[-1]) > 1000).sum()) == 1000 * 16


async def test_speaking_over_the_greeting_stops_it_and_is_answered():
    async with Stage(greeting="Ahoy there, what can I do for you today?") as stage:
        await stage.send(SILENCE, 500)
        await stage.say(1000, then_silent_ms=5000)
    greeting, answer = stage.answers
    assert greeting.interrupted
    assert greeting.text.startswith(greeting.heard)
    assert answer.heard == answer.text
    assert stage.messages(msg.TurnReopened) == []
    assert stage.llm.given[-1][1].content == greeting.heard


async def test_speaking_before_the_greeting_is_audible_is_answered():
    async with Stage(greeting="Ahoy there!") as stage:
        stage.tts._first_s = 2.0
        await stage.say(1000, then_silent_ms=9000)
    assert stage.said == ["tell me more"]
    assert [answer.heard for answer in stage.answers if answer.heard] == [stage.llm.replies[0]]


async def test_of_a_long_greeting_whole_sentences_count_when_they_were_heard():
    async with Stage(
        greeting="Hi. " + "This second sentence is so very much longer than the first one was, really."
    ) as it:
        await it.send(SILENCE, 80 + 1500 + 100)  # the first one, as long as the second
        it.conversation.interrupt()
    assert it.answers[0].heard == "Hi. "


# --- what the listener reports


async def heard_after(stage: Stage, *, report: float | None, when_s: float = 1.0) -> list[str]:
    """The words in history when a reply is stopped after `when_s`, and the listener had reported this."""
    stage.llm.replies = [COUNTING]
    await speaking(stage)
    begun_s = stage.when(msg.AudioStarted)
    while stage.now_s() - begun_s < when_s:
        await stage.send(SILENCE, FRAME_MS)
    if report is not None:
        stage.conversation.played(1, report)
    stage.conversation.interrupt()
    return stage.answers[0].heard.split()


@pytest.mark.parametrize("lie", [1e12, float("inf"), float("nan"), 5000.0])
async def test_who_claims_to_have_heard_more_than_was_sent_is_not_believed(lie):
    async with Stage() as stage:
        honest = await heard_after(stage, report=None)
    async with Stage() as stage:
        assert await heard_after(stage, report=lie) == honest
    assert 6 <= len(honest) <= 8


async def test_a_listener_that_lags_behind_has_heard_less():
    async with Stage() as stage:
        lagging = await heard_after(stage, report=500)
    assert 3 <= len(lagging) <= 4, "500 of 1500 ms"


async def test_reports_that_go_backwards_change_nothing():
    async with Stage() as stage:
        stage.llm.replies = [COUNTING]
        await speaking(stage)
        await stage.send(SILENCE, 800)
        stage.conversation.played(1, 800)
        stage.conversation.played(1, 100)
        stage.conversation.played(1, -5)
        stage.conversation.interrupt()
    assert len(stage.answers[0].heard.split()) >= 5


async def test_reports_about_other_replies_change_nothing():
    async with Stage() as stage:
        stage.conversation.played(0, 10)
        stage.conversation.played(7, 10)
        await speaking(stage)
        stage.conversation.played(0, 0)
        stage.conversation.played(2, 0)
        await stage.send(SILENCE, 5000)
        stage.conversation.played(1, 10)
    assert [answer.heard for answer in stage.answers] == [stage.llm.replies[0]]


async def test_a_listener_that_reports_nothing_to_the_end_does_not_hold_the_conversation_up():
    async with Stage() as stage:
        await speaking(stage)
        for _ in range(80):
            stage.conversation.played(1, 0)
            await stage.send(SILENCE, 100)
        assert stage.conversation.state is State.LISTENING
    assert not stage.answers[0].interrupted


# --- ducking, whatever happens


moves = st.lists(
    st.one_of(
        st.tuples(st.just("voice"), st.integers(1, 40)),
        st.tuples(st.just("silence"), st.integers(1, 100)),
        st.tuples(st.sampled_from(["type", "interrupt", "mute", "unmute", "fail", "mend"]), st.just(0)),
    ),
    max_size=15,
)


@settings(max_examples=30)
@given(moves=moves, ends=st.booleans())
def test_every_lowered_reply_is_brought_back_or_silenced(moves, ends):
    """And whatever else is told keeps to the written protocol, see Stage."""

    async def conversation() -> Stage:
        async with Stage(greeting="Ahoy there!", pause_ms=64, tone_ms=500) as stage:
            await act_out(stage, moves)
            if not ends:
                await stage.send(SILENCE, 5000)
                assert stage.conversation.state is State.LISTENING
        return stage

    stage = run_in_virtual_time(conversation())
    sounds = ducking(stage)
    for number, sound in enumerate(sounds):
        if sound == "hold":
            assert sounds[number + 1] in {"resume", "clear"}
    holds = sum(1 for sound in sounds if sound == "hold")
    assert holds <= sum(1 for sound in sounds if sound in {"resume", "clear"})


async def act_out(stage: Stage, moves: list[tuple[str, int]]) -> None:
    for what, frames in moves:
        match what:
            case "voice" | "silence":
                await stage.send(VOICE if what == "voice" else SILENCE, frames * FRAME_MS)
            case "type":
                stage.conversation.type("typed")
            case "interrupt":
                stage.conversation.interrupt()
            case "mute" | "unmute":
                stage.conversation.mute(what == "mute")
            case "fail" | "mend":
                stage.llm.failure = ValueError("a defect") if what == "fail" else None
                stage.llm.fail_after_words = 6
