"""Typing, the interrupt button, the mute switch and the end may come at any moment of a conversation."""

import asyncio

import pytest
from app.conversation import messages as msg
from app.conversation.turn_state import State
from stage import FRAME_MS, SILENCE, VOICE, Stage

pytestmark = pytest.mark.looptime
ANSWER = "Here is one thing. And here is another, which is longer."
MOMENTS = (
    "greeting is made",
    "greeting is spoken",
    "nobody speaks",
    "user speaks",
    "user pauses",
    "transcript is awaited",
    "reply is made",
    "reply is spoken",
    "reply is held",
    "reply is made while someone may go on",
)


async def until(stage: Stage, state: State, level: int = SILENCE) -> None:
    for _ in range(500):
        if stage.conversation.state is state:
            return
        await stage.send(level, FRAME_MS)
    raise AssertionError(f"{state.name} was never reached; it is {stage.conversation.state.name}")


async def at(moment: str) -> Stage:
    """A conversation that has come to this moment."""
    greeting = "Ahoy there, how can I help?" if moment.startswith("greeting") else ""
    stage = Stage(greeting=greeting, pause_ms=64, tone_ms=700)
    if moment == "greeting is made":
        stage.tts._first_s = 1.0
    await stage.__aenter__()
    match moment:
        case "greeting is made":
            await until(stage, State.REPLYING)
        case "greeting is spoken":
            await until(stage, State.SPEAKING)
            await stage.send(SILENCE, 500)
        case "user speaks":
            await stage.send(VOICE, 600)
        case "user pauses":
            stage.turn.probabilities = [0.3]
            await stage.send(VOICE, 600)
            await stage.send(SILENCE, 400)
            assert stage.llm.given, "a reply is brewing"
        case "transcript is awaited":
            stage.stt.delay_s = 1.0
            await stage.send(VOICE, 600)
            await stage.send(SILENCE, 500)
            assert stage.conversation.state is State.PAUSED
        case "reply is made" | "reply is made while someone may go on":
            stage.llm.first_s = 1.0
            await stage.send(VOICE, 600)
            await until(stage, State.REPLYING)
        case "reply is spoken" | "reply is held":
            await stage.send(VOICE, 600)
            await until(stage, State.SPEAKING)
            await stage.send(SILENCE, 500)
    if moment in {"reply is held", "reply is made while someone may go on"}:
        await until(stage, State.HELD, VOICE)
    return stage


async def goes_on(stage: Stage) -> None:
    """The conversation comes to rest, and a question is answered as ever."""
    await stage.send(SILENCE, 3000)
    assert stage.conversation.state is State.LISTENING
    stage.turn.probabilities, stage.stt.words = [0.98], ["and now a question"]
    stage.stt.delay_s = stage.llm.first_s = stage.tts._first_s = 0.1
    said, answers = len(stage.said), len(stage.answers)
    await stage.say(800, then_silent_ms=2500)
    assert stage.said[said:] == ["and now a question"]
    assert [answer.heard for answer in stage.answers[answers:]] == [ANSWER]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_what_is_typed_is_answered_once(moment: str) -> None:
    stage = await at(moment)
    stage.conversation.type("  and this  ")
    await stage.send(SILENCE, 5000)
    assert stage.said[-1].endswith("and this")
    whole = [answer.heard for answer in stage.answers if answer.heard == ANSWER]
    assert whole == [ANSWER], "one answer to what was said and typed"
    asked = stage.llm.given[-1][-1].content
    assert asked.endswith("and this")
    spoken_too = moment in {"user speaks", "user pauses", "transcript is awaited"} or moment.startswith("reply is made")
    assert asked.startswith("tell me more") == spoken_too
    await goes_on(stage)
    await stage.__aexit__()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("text", ["", "   ", "\n"])
async def test_nothing_typed_changes_nothing(moment: str, text: str) -> None:
    stage = await at(moment)
    state, told = stage.conversation.state, len(stage.told)
    stage.conversation.type(text)
    assert (stage.conversation.state, len(stage.told)) == (state, told)
    await stage.__aexit__()


@pytest.mark.parametrize("moment", MOMENTS)
async def test_the_button_silences_what_is_spoken_and_the_conversation_goes_on(moment: str) -> None:
    stage = await at(moment)
    audible = moment in {"greeting is spoken", "reply is spoken", "reply is held"}
    pieces = len(stage.heard)
    stage.conversation.interrupt()
    stage.conversation.interrupt()
    assert len(stage.messages(msg.AudioCleared)) == audible
    if audible:
        await stage.send(SILENCE, 300)
        assert len(stage.heard) == pieces, "not a sample more"
    await goes_on(stage)
    await stage.__aexit__()


@pytest.mark.parametrize("moment", MOMENTS)
async def test_muted_a_turn_ends_and_a_reply_is_heard_out(moment: str) -> None:
    stage = await at(moment)
    stage.conversation.mute(True)
    for _ in range(250):
        await stage.send(VOICE, FRAME_MS)
    assert stage.conversation.state is State.LISTENING
    assert [answer.interrupted for answer in stage.answers] == [False] * len(stage.answers)
    assert len(stage.answers) == (moment != "nobody speaks")
    stage.conversation.mute(False)
    await goes_on(stage)
    await stage.__aexit__()


@pytest.mark.parametrize("moment", MOMENTS)
async def test_the_end_is_the_end(moment: str) -> None:
    before = asyncio.all_tasks()
    stage = await at(moment)
    stage.conversation.end("client")
    stage.conversation.end("again")
    told, heard = len(stage.told), len(stage.heard)
    assert await stage.ended() == "client"
    assert asyncio.all_tasks() == before
    assert (stage.llm.running, stage.stt.running, stage.tts.running) == (0, 0, 0)
    await asyncio.sleep(60)
    assert (len(stage.told), len(stage.heard)) == (told, heard)
    assert stage.conversation.state is State.ENDED
    assert stage.broken_rules == []


@pytest.mark.parametrize("moment", MOMENTS)
async def test_cancelling_the_conversation_is_the_end_too(moment: str) -> None:
    before = asyncio.all_tasks()
    stage = await at(moment)
    stage.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stage.ended()
    assert asyncio.all_tasks() == before
    assert stage.conversation.reason == "failed"
    told, heard = len(stage.told), len(stage.heard)
    await asyncio.sleep(60)
    assert (len(stage.told), len(stage.heard)) == (told, heard)
    assert stage.broken_rules == []


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_client_that_vanishes_is_answered_and_then_idle(moment: str) -> None:
    stage = await at(moment)
    assert await stage.ended() == "idle"
    await stage.__aexit__()
