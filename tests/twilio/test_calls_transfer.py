"""A call that goes on can be put through, kept on hold, and hung up."""

from typing import Any

import httpx
import numpy as np
import pytest
from app.core.errors import ProviderError
from app.emulator import NUMBER, Busy, Exchange, Failed, Line, NoAnswer
from app.twilio import telephone as telephone_module
from call_stage import COLLEAGUE, GREETING, PhoneServer, answered, eventually, greeted, telephone, words
from stage import ToldModel, ToldRecognizer

TRANSFERRING, NOT_REACHED, HOLDING = "I am putting you through.", "I could not reach anyone.", "One moment, please."
SUMMARY = "The caller wants to know one thing."


async def ask(server: PhoneServer, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
    """Ask our own REST API."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as client:
        return await client.request(method, path, json=body)


async def put_through(server: PhoneServer, line: Line, *, warm: bool = False) -> None:
    answer = await ask(server, "POST", f"/api/call/{line.sid}/transfer", {"number": COLLEAGUE, "warm": warm})
    assert answer.status_code == 200, answer.text


def told(server: PhoneServer, *said: str, **model: Any) -> ToldModel:
    """Let the caller be understood like this, turn by turn."""
    llm = ToldModel(replies=["One thing."], first_s=0.02, **model)
    server.stand_in(stt=ToldRecognizer(words=list(said or ["what is one thing"]), delay_s=0.02), llm=llm)
    return llm


async def the_other(twilio: Exchange) -> Line:
    """Whoever the call is put through to."""
    return await twilio.next_answered("outbound-dial")


# --- put through


async def test_a_caller_is_told_and_then_put_through() -> None:
    async with telephone() as (server, twilio):
        told(server)
        line = await twilio.dial()
        await greeted(line)
        await answered(line)
        await put_through(server, line)
        other = await the_other(twilio)
        await line.until(lambda: any(event.kind == "bridged" for event in line.events))
        assert (other.from_, other.to) == (NUMBER, COLLEAGUE)
        assert other.spoken == []
        assert server.said(line.sid)[-1] == ("assistant", TRANSFERRING)
        assert not server.engine.conversations, "the assistant is not in the line any more"
        await line.say(words())
        await other.until(lambda: other.hears_speech() or np.abs(other.heard).max() > 1000)
        other.hang_up()
        assert await line.ended() == "completed"
        assert server.call(line.sid).status.final


async def test_whoever_answers_a_warm_transfer_hears_first_what_it_is_about() -> None:
    async with telephone() as (server, twilio):
        llm = told(server)
        line = await twilio.dial()
        await greeted(line)
        await answered(line)
        llm.replies = [SUMMARY]
        await put_through(server, line, warm=True)
        other = await the_other(twilio)
        await line.until(lambda: any(event.kind == "bridged" for event in line.events))
        assert other.spoken == [f"A call for you. {SUMMARY}"]
        assert line.spoken == [], "the caller does not hear it"
        happened = [(event.kind, event.detail) for event in other.events]
        assert ("say", f"A call for you. {SUMMARY}") in happened
        asked = llm.given[-1]
        assert next(message.content for message in asked if message.role == "user") == "what is one thing"
        line.hang_up()
        assert await line.ended() == "completed"
        assert await other.ended() == "completed"


async def test_without_a_model_the_summary_is_what_the_caller_said_last() -> None:
    async with telephone() as (server, twilio):
        llm = told(server)
        line = await twilio.dial()
        await greeted(line)
        await answered(line)
        llm.failure = ProviderError("The model is ill.")
        await put_through(server, line, warm=True)
        other = await the_other(twilio)
        await line.until(lambda: any(event.kind == "bridged" for event in line.events))
        assert other.spoken == ["A call for you. The caller said: what is one thing"]
        line.hang_up()


async def test_a_model_that_takes_too_long_does_not_keep_whoever_answered_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telephone_module, "SUMMARY_S", 0.2)
    async with telephone() as (server, twilio):
        llm = told(server)
        line = await twilio.dial()
        await greeted(line)
        await answered(line)
        llm.first_s = 60.0
        await put_through(server, line, warm=True)
        other = await the_other(twilio)
        await other.until(lambda: other.spoken)
        assert other.spoken == ["A call for you. The caller said: what is one thing"]
        line.hang_up()


async def test_a_caller_who_has_said_nothing_can_be_put_through_as_well() -> None:
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        await put_through(server, line, warm=True)
        other = await the_other(twilio)
        await other.until(lambda: other.spoken)
        assert other.spoken == ["This is a call for you."]
        line.hang_up()


@pytest.mark.parametrize(
    ("behaviour", "warm"),
    [(Busy(), True), (NoAnswer(after_s=0.1), False), (Failed(), False)],
    ids=["busy", "no answer", "failed"],
)
async def test_a_caller_comes_back_when_nobody_is_reached(behaviour: Any, warm: bool) -> None:
    async with telephone() as (server, twilio):
        llm = told(server, "what is one thing", "and now")
        twilio.when_called(COLLEAGUE, behaviour)
        line = await twilio.dial()
        await greeted(line)
        await answered(line)
        await put_through(server, line, warm=warm)
        await line.until(lambda: len(line.streams) == 2 and line.stream)
        await eventually(lambda: len(server.remembered(line.sid)) == 3, "the words after the transfer")
        await line.hears_the_end(quiet_ms=300)
        await answered(line)
        before = [(message.role, message.content) for message in llm.given[-1]][1:]
        assert before[:2] == [("assistant", GREETING), ("user", "what is one thing")]
        assert before[2][0] == "assistant"
        assert before[2][1].startswith("One thing.")
        assert TRANSFERRING in before[2][1]
        assert NOT_REACHED in before[2][1]
        assert before[-1] == ("user", "and now")
        line.hang_up()
        assert await line.ended() == "completed"


async def test_a_caller_can_ask_for_a_person() -> None:
    async with telephone(transfer_number=COLLEAGUE) as (server, twilio):
        told(server, "can I speak to a person please")
        line = await twilio.dial()
        await greeted(line)
        await line.say(words())
        other = await the_other(twilio)
        await line.until(lambda: any(event.kind == "bridged" for event in line.events))
        assert other.to == COLLEAGUE
        assert other.spoken, "it is a warm transfer"
        line.hang_up()


async def test_a_caller_who_hangs_up_before_it_is_answered_leaves_nothing_ringing() -> None:
    async with telephone() as (server, twilio):
        twilio.when_called(COLLEAGUE, NoAnswer())
        line = await twilio.dial()
        await greeted(line)
        await put_through(server, line)
        await line.until(lambda: line.legs and line.legs[0].status == "ringing")
        line.hang_up()
        assert await line.ended() == "completed"
        assert line.legs[0].status == "canceled"
        assert server.call(line.sid).status.final


async def test_only_a_call_in_conversation_can_be_put_through() -> None:
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        line.hang_up()
        await line.ended()
        for path, body in (("transfer", {"number": COLLEAGUE}), ("hold", {"held": True})):
            answer = await ask(server, "POST", f"/api/call/{line.sid}/{path}", body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_in_progress")


# --- on hold


async def test_a_caller_on_hold_is_not_heard_and_told_to_wait() -> None:
    async with telephone(scripted_audio_ms=100) as (server, twilio):
        told(server)
        line = await twilio.dial()
        await greeted(line)
        held = await ask(server, "POST", f"/api/call/{line.sid}/hold", {"held": True})
        assert held.json()["on_hold"]
        await line.hears()
        await line.hears_the_end(quiet_ms=200)
        await line.say(words())
        await line.silence(ms=700)
        assert server.said(line.sid) == [("assistant", GREETING), ("assistant", HOLDING)]
        back = await ask(server, "POST", f"/api/call/{line.sid}/hold", {"held": False})
        assert not back.json()["on_hold"]
        await answered(line)
        assert server.said(line.sid)[-1] == ("assistant", "One thing.")
        line.hang_up()


async def test_whoever_is_on_hold_is_told_so_now_and_then_however_often_it_was_pressed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telephone_module, "HOLD_REMINDER_S", 0.6)
    async with telephone(scripted_audio_ms=100) as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        for held in (True, True, False, True):
            await ask(server, "POST", f"/api/call/{line.sid}/hold", {"held": held})
        await eventually(lambda: server.said(line.sid)[-1][1] == HOLDING, "the first words")
        held_since_ms = line.now_ms
        await line.silence(ms=2000)
        reminders = [onset for onset in line.speech_onsets(after_silence_ms=200) if onset > held_since_ms + 100]
        assert 2 <= len(reminders) <= 4, "one voice, every 600 ms"
        await ask(server, "POST", f"/api/call/{line.sid}/hold", {"held": False})
        told_ms = line.now_ms
        await line.silence(ms=1000)
        assert line.speech_onsets()[-1] < told_ms + 200, "taken back, nobody is told to wait any more"
        line.hang_up()


async def test_a_call_that_ends_on_hold_leaves_nothing() -> None:
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        await ask(server, "POST", f"/api/call/{line.sid}/hold", {"held": True})
        line.hang_up()
        assert await line.ended() == "completed"
        await eventually(server.is_idle, "the end of the reminders")
        assert not server.call(line.sid).as_json()["on_hold"]


# --- hung up


async def test_a_call_can_be_hung_up_by_the_api() -> None:
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        answer = await ask(server, "DELETE", f"/api/call/{line.sid}")
        assert answer.json()["status"] == "completed"
        assert await line.ended() == "completed"
        again = await ask(server, "DELETE", f"/api/call/{line.sid}")
        assert again.json()["status"] == "completed"


async def test_a_call_that_twilio_does_not_end_goes_on() -> None:
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        twilio.rest.refuse_next()
        answer = await ask(server, "DELETE", f"/api/call/{line.sid}")
        assert answer.status_code == 503
        assert answer.json()["error"]["twilio_code"] == 20429
        await answered(line)
        line.hang_up()
