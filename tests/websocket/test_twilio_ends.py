"""How calls end: by the caller, by the assistant, or by an accident that the caller hardly notices."""

import asyncio
import socket

import pytest
from app.core.errors import ProviderError
from app.emulator import Exchange, MediaStream
from app.emulator.faults import STREAM_CLOSED
from app.twilio.calls import CallStatus
from app.websocket import outbox, twilio_stream
from call_stage import GREETING, PhoneServer, answered, eventually, greeted, telephone, words
from stage import ToldModel, ToldRecognizer
from twilio_forger import Forger, call_fields, parameters, rings

GOODBYE, APOLOGY = "Goodbye!", "I am sorry, something went wrong on my side. Please say that again."


def cut(stream: MediaStream) -> None:
    """Break the connection of a stream off, as a network does."""
    connection = stream._socket
    assert connection
    connection.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def asked_for(server: PhoneServer, *said: str) -> ToldRecognizer:
    """Let the caller be understood like this, turn by turn."""
    stt = ToldRecognizer(words=list(said), delay_s=0.02)
    server.stand_in(stt=stt, llm=ToldModel(replies=["One thing."], first_s=0.02))
    return stt


# --- the assistant says goodbye


async def test_a_goodbye_is_heard_to_its_end_and_then_the_call_is_completed() -> None:
    async with telephone(scripted_audio_ms=800) as (server, twilio):
        asked_for(server, "thank you, goodbye")
        line = await twilio.dial()
        await greeted(line)
        await line.say(words())
        onset_ms = await line.hears()
        assert await line.ended() == "completed"
        assert line.heard_ms - onset_ms >= 800 - 20, "nothing of it was cut off"
        assert [event.detail for event in line.events if event.kind == "rest"] == ["completed"]
        assert server.call(line.sid).status is CallStatus.COMPLETED
        assert server.remembered(line.sid)[-2:] == [("user", "thank you, goodbye"), ("assistant", GOODBYE)]
        assert line.spoken == [], "Twilio's own voice says nothing"


async def test_whoever_speaks_up_during_the_goodbye_is_not_hung_up_on() -> None:
    async with telephone(scripted_audio_ms=1500) as (server, twilio):
        asked_for(server, "bye", "wait, what is one thing")
        line = await twilio.dial()
        stream = await greeted(line)
        await line.say(words())
        await line.hears()
        speaking = line.begin(words())
        await line.until(lambda: stream.clears)
        await speaking
        await line.hears()
        assert server.said(line.sid)[-1] == ("assistant", "One thing.")
        line.hang_up()


@pytest.mark.parametrize("trouble", ["refused", "lost"])
async def test_a_goodbye_ends_the_call_even_when_twilios_api_does_not(trouble: str) -> None:
    async with telephone() as (server, twilio):
        asked_for(server, "bye")
        line = await twilio.dial()
        await greeted(line)
        if trouble == "refused":
            twilio.rest.refuse_next()
        else:
            twilio.rest.next_mishap("lose the request")
        await line.say(words())
        assert await line.ended() == "completed"
        assert [event.detail for event in line.events if event.kind == "rest"] == []
        assert [event.detail for event in line.events if event.kind == "verb"][-1] == "Hangup"
        assert server.call(line.sid).status is CallStatus.COMPLETED


async def test_without_an_account_a_goodbye_closes_the_stream() -> None:
    async with telephone(twilio_account_sid=None) as (server, twilio):
        asked_for(server, "bye")
        line = await twilio.dial()
        await greeted(line)
        await line.say(words())
        assert await line.ended() == "completed"
        assert twilio.rest.requests == []


# --- accidents


async def test_a_stream_that_broke_off_goes_on_where_it_was() -> None:
    async with telephone(allow=[STREAM_CLOSED]) as (server, twilio):
        asked_for(server, "what is one thing", "and another")
        line = await twilio.dial()
        broken = await greeted(line)
        await answered(line)
        cut(broken)
        await line.until(lambda: len(line.streams) == 2 and line.stream)
        await line.hears()
        await line.hears_the_end(quiet_ms=300)
        await answered(line)
        line.hang_up()
        assert await line.ended() == "completed"
        conversation = [
            ("assistant", GREETING),
            ("user", "what is one thing"),
            ("assistant", f"One thing. {APOLOGY}"),
            ("user", "and another"),
            ("assistant", "One thing."),
        ]
        said = [(role, text.replace("\n", " ")) for role, text in server.remembered(line.sid)]
        assert said == conversation
        assert [text for _, text in server.said(line.sid)] == [
            GREETING,
            "what is one thing",
            "One thing.",
            APOLOGY,
            "and another",
            "One thing.",
        ]


@pytest.mark.parametrize("plain", [False, True], ids=["our protocol", "any protocol"])
async def test_a_call_whose_stream_breaks_off_again_and_again_is_let_go_with_an_apology(plain: bool) -> None:
    async with telephone(plain=plain, allow=[STREAM_CLOSED]) as (server, twilio):
        line = await twilio.dial()
        for number in range(3):
            await line.until(lambda number=number: len(line.streams) == number + 1 and line.stream)
            await line.hears()
            cut(line.streams[-1])
        assert await line.ended() == "completed"
        assert line.spoken == [server.settings.phone_failed]
        assert server.call(line.sid).status is CallStatus.COMPLETED


async def test_a_stream_that_sends_nothing_but_garbage_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twilio_stream, "MAX_MISTAKES", 3)
    async with telephone() as (_, twilio):
        line = await twilio.dial()
        stream = await greeted(line)
        for _ in range(4):
            stream.inject("garbage")
        await line.until(lambda: len(line.streams) == 2 and line.stream)
        await line.hears()
        line.hang_up()


async def test_a_connection_that_only_twilio_knows_to_be_broken_does_not_keep_the_conversation() -> None:
    """Twilio asks what comes next while our end of the old stream still looks alive."""
    async with telephone() as (server, twilio), Forger(server.port) as forger:
        sid = rings(twilio)
        token = parameters(await forger.ask("/voice", call_fields(sid)))["token"]
        async with forger.stream() as old, forger.stream() as new:
            await old.start(sid, token)
            await eventually(lambda: server.remembered(sid), "the greeting to be heard")
            token = parameters(await forger.ask("/twilio/after", call_fields(sid, CallStatus="in-progress")))["token"]
            await new.start(sid, token)
            await old.closed()
            await eventually(lambda: server.call(sid).conversation, "the new conversation")
            assert server.remembered(sid)[0] == ("assistant", GREETING)
            assert len(server.engine.conversations) == 1
            await eventually(lambda: server.said(sid)[-1] == ("assistant", APOLOGY), "the apology")
            await new.dial("5#")
            await eventually(lambda: ("caller", "I pressed 5 on my keypad.") in server.said(sid), "the key")


async def test_a_new_stream_of_a_call_takes_the_place_of_the_old_one() -> None:
    async with telephone() as (server, twilio), Forger(server.port) as forger:
        sid = rings(twilio)
        token = parameters(await forger.ask("/voice", call_fields(sid)))["token"]
        async with forger.stream() as old, forger.stream() as new:
            await old.start(sid, token)
            await eventually(lambda: server.remembered(sid), "the greeting to be heard")
            await new.start(sid, server.in_the_loop(lambda: server.telephone.tokens.issue(sid)))
            await old.closed()
            assert len(server.engine.conversations) == 1
            assert server.call(sid).conversation in server.engine.conversations
            await new.dial("5#")
            await eventually(lambda: ("caller", "I pressed 5 on my keypad.") in server.said(sid), "the key")


async def test_whoever_does_not_read_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING_MESSAGES", 1)
    async with telephone(plain=True) as (server, twilio), Forger(server.port) as forger, forger.stream() as stream:
        sid = rings(twilio)
        await stream.start(sid, parameters(await forger.ask("/voice", call_fields(sid)))["token"])
        await stream.closed()
        await eventually(lambda: server.call(sid).outcome == "lost", "the end of the stream")


async def test_a_conversation_that_failed_is_apologised_for() -> None:
    async with telephone(allow=[STREAM_CLOSED]) as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        conversation = server.call(line.sid).conversation
        assert conversation
        server.in_the_loop(lambda: conversation.end("failed"))
        assert await line.ended() == "completed"
        assert line.spoken == [server.settings.phone_failed]
        assert server.call(line.sid).as_json()["reason"].startswith("The conversation failed")


async def test_an_answer_that_cannot_be_made_is_apologised_for_and_the_call_goes_on() -> None:
    async with telephone() as (server, twilio):
        llm = ToldModel(replies=["One thing."], failure=ProviderError("The model is ill."))
        server.stand_in(llm=llm)
        line = await twilio.dial()
        await greeted(line)
        await answered(line)
        assert server.said(line.sid)[-1] == ("assistant", APOLOGY)
        llm.failure = None
        await answered(line)
        assert server.said(line.sid)[-1] == ("assistant", "One thing.")
        line.hang_up()


async def test_silence_for_too_long_ends_the_call() -> None:
    async with telephone(idle_timeout_s=0.5) as (server, twilio):
        line = await twilio.dial()
        assert await line.ended() == "completed"
        assert server.remembered(line.sid) == [("assistant", GREETING)]
        assert server.call(line.sid).reason == "Nothing was said for a long time."


async def test_callers_of_a_server_that_is_stopped_are_told_so() -> None:
    with PhoneServer() as server:
        async with Exchange(server.url) as twilio:
            line = await twilio.dial()
            stream = await greeted(line)
            await asyncio.to_thread(server.stop)
            assert await line.ended() == "completed"
            assert stream.close_code in {1000, 1001}
            assert line.spoken == [server.settings.phone_failed]
            late = [fault.message for fault in line.errors if "/twilio/stream-status" not in fault.message]
            assert late == [], "only that a stream has stopped may come too late: it changes nothing any more"
