"""Calls over Twilio Media Streams: what the caller hears, what is understood, and what the line may do to both."""

import logging

import numpy as np
import pytest
from app.audio.g711 import decode_mulaw, encode_mulaw
from app.audio.resample import resample
from call_stage import (
    GREETING,
    PhoneServer,
    answered,
    eventually,
    greeted,
    likeness,
    phone_settings,
    sentence,
    telephone,
    words,
)
from stage import ToldModel, ToldRecognizer
from twilio_forger import Forger, call_fields, new_sid, parameters

QUESTION = "Tell me more."
"""What the scripted recogniser always understands."""
ANSWER = "Well, the first words ever meant"


def as_understood(samples: np.ndarray) -> np.ndarray:
    """What of this is left after the line and the way to the recogniser."""
    return resample(decode_mulaw(encode_mulaw(samples)), 8000, 16_000)


def account(caplog: pytest.LogCaptureFixture) -> str:
    """What the log says about the stream that has ended."""
    (line,) = [record.getMessage() for record in caplog.records if "A media stream ended" in record.getMessage()]
    return line


# --- a call that goes well


async def test_the_caller_is_greeted_without_having_said_a_word() -> None:
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        happened = [event.kind for event in line.events]
        assert happened.index("stream") < happened.index("mark")
        assert len(line.speech_onsets()) == 1
        loud = np.flatnonzero(np.abs(line.heard) > 1000)
        assert abs(loud[-1] - loud[0] - 8 * 200) < 8 * 10, "the greeting is 200 ms long, and all of it was heard"
        assert line.heard[loud[0] : loud[-1]].max() > 5500
        line.hang_up()
        await line.ended()
        assert server.remembered(line.sid) == [("assistant", GREETING)]


async def test_what_the_caller_says_is_understood_and_answered() -> None:
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        stream = await greeted(line)
        await answered(line)
        assert stream.underruns() == []
        line.hang_up()
        assert await line.ended() == "completed"
        assert server.remembered(line.sid) == [("assistant", GREETING), ("user", QUESTION), ("assistant", ANSWER)]
        assert server.said(line.sid) == [("assistant", GREETING), ("caller", QUESTION), ("assistant", ANSWER)]


async def test_what_the_caller_says_into_the_greeting_is_not_lost() -> None:
    async with telephone(scripted_audio_ms=3000) as (server, twilio):
        stt = ToldRecognizer()
        server.stand_in(stt=stt)
        line = await twilio.dial()
        stream = await line.streaming()
        await line.say(words())  # from the first frame on
        await eventually(lambda: stt.given, "the recogniser to be asked")
        assert likeness(as_understood(words()[:6000]), stt.given[0]) > 0.95
        assert len(stream.clears) == 1
        line.hang_up()


async def test_words_that_come_before_the_conversation_runs_are_kept() -> None:
    """Everything that Twilio sends in one go: the start, and a second of speech right behind it."""
    with PhoneServer(phone_settings(greeting="")) as server:
        stt = ToldRecognizer()
        server.stand_in(stt=stt)
        async with Forger(server.port) as forger, forger.stream() as stream:
            sid = new_sid()
            await stream.start(sid, parameters(await forger.ask("/voice", call_fields(sid)))["token"])
            await stream.say(np.concatenate((words(), np.zeros(8000, np.int16))))
            await eventually(lambda: stt.given, "the recogniser to be asked")
            assert likeness(as_understood(words()[:6000]), stt.given[0]) > 0.95
        server.nothing_is_left()


async def test_two_calls_at_once_do_not_mix() -> None:
    async with telephone() as (server, twilio):
        stt = ToldRecognizer()
        llm = ToldModel(replies=["One thing.", "One thing."])
        server.stand_in(stt=stt, llm=llm)
        first, second = await twilio.dial("+15005550001"), await twilio.dial("+15005550002")
        await greeted(first)
        await greeted(second)
        stt.words = ["what is it to the first"]
        await answered(first)
        assert len(second.speech_onsets()) == 1, "the other caller has heard a greeting and nothing else"
        stt.words = ["what is it to the second"]
        await answered(second)
        assert len(first.speech_onsets()) == 2
        for line, question in ((first, "what is it to the first"), (second, "what is it to the second")):
            line.hang_up()
            await line.ended()
            assert server.remembered(line.sid) == [
                ("assistant", GREETING),
                ("user", question),
                ("assistant", "One thing."),
            ]
        asked = [message.content for context in llm.given for message in context if message.role == "user"]
        assert sorted(set(asked)) == ["what is it to the first", "what is it to the second"]


async def test_calls_are_held_behind_any_server_as_well() -> None:
    """`uvicorn app.main:app`, without our own WebSocket protocol."""
    async with telephone(plain=True, scripted_audio_ms=600, scripted_tokens=20) as (server, twilio):
        line = await twilio.dial()
        stream = await greeted(line)
        await line.say(words())
        await line.hears()
        interrupting = line.begin(sentence())
        await line.until(lambda: stream.clears)
        await interrupting
        stream.inject(b"\x00binary")
        await line.hears()
        line.press("1#")
        await line.until(lambda: ("caller", "I pressed 1 on my keypad.") in server.said(line.sid))
        await line.hears_the_end(quiet_ms=300)
        line.hang_up()
        assert await line.ended() == "completed"
        await eventually(server.is_idle, "the end of everything")


async def test_hanging_up_ends_everything_within_a_second() -> None:
    async with telephone(scripted_audio_ms=60_000) as (server, twilio):
        line = await twilio.dial()
        await line.streaming()
        await line.hears()
        line.hang_up()
        await eventually(server.is_idle, "the end of the conversation")
        assert await line.ended() == "completed"
        assert server.call(line.sid).status.final
        assert line.ended_s is not None
        assert server.call(line.sid).conversation is None


# --- a line that is not perfect


async def test_frames_that_are_lost_doubled_late_or_garbled_are_counted_and_the_call_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with telephone() as (server, twilio):
        stt = ToldRecognizer()
        server.stand_in(stt=stt)
        line = await twilio.dial()
        stream = await greeted(line)
        speaking = line.begin(words())
        await line.silence(ms=200)
        for mishap in ("drop", "duplicate", "swap", "garble"):
            await line.until(lambda: not stream.mishaps)
            stream.mishaps.append(mishap)  # type: ignore[arg-type]
            await line.silence(ms=60)
        await speaking
        await line.hears()
        assert likeness(as_understood(words()), stt.given[0]) > 0.8, "what was lost is silence, and takes its time"
        line.hang_up()
        await line.ended()
    assert "3 missing, 2 repeated, 1 garbled" in account(caplog)
