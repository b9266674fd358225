"""Interruptions on the telephone: the line is cleared at once, and what is remembered is what was heard."""

import numpy as np
import pytest
from app.emulator import Line, MediaStream
from app.websocket import twilio_stream
from call_stage import GREETING, PhoneServer, greeted, sentence, telephone, words
from stage import ToldModel, ToldVoice
from twilio_forger import Forger, call_fields, parameters, rings

REPLY = (
    "One is the first number that we count today. Two is the second number that we count today. "
    "Three is the third number that we count today. Four is the fourth number that we count today."
)
CHUNK_MS = 1500
SLACK_MS = 500
"""A word, and the time a clear needs to come."""


def talkative(server: PhoneServer, reply: str = REPLY) -> ToldVoice:
    """Let the assistant give a reply of several sentences, each of CHUNK_MS; the voice keeps what it said."""
    voice = ToldVoice(first_audio_ms=20, audio_ms=CHUNK_MS)
    server.stand_in(tts=voice, llm=ToldModel(replies=[reply], first_s=0.02, word_s=0.001))
    return voice


def last_heard(server: PhoneServer, line: Line) -> str:
    """What is remembered of the reply that was interrupted."""
    return next(text for role, text in reversed(server.remembered(line.sid)) if role == "assistant")


def place_of(text: str, chunks: list[str]) -> float:
    """At which time of the reply this beginning of it is spoken to its end, in ms."""
    left = len(text.strip())
    for number, chunk in enumerate(chunk.strip() for chunk in chunks):
        if left <= len(chunk):
            return (number + left / len(chunk)) * CHUNK_MS
        left -= len(chunk) + 1
    raise AssertionError(f"{text!r} is no beginning of the reply")


def audible_ms(line: Line, begin_ms: float) -> float:
    """How much of a reply that began then was heard."""
    loud = np.flatnonzero(np.abs(line.heard_from(begin_ms)) > 1000)
    return float(loud[-1]) / 8


async def interrupted(line: Line, stream: MediaStream, *, after_ms: float) -> float:
    """Ask, and speak into the answer when so much of it was heard; when the answer began (ms of the line)."""
    await line.say(words())
    onset_ms = await line.hears()
    await line.until(lambda: line.now_ms >= onset_ms + after_ms)
    speaking = line.begin(sentence())
    await line.until(lambda: stream.clears)
    await line.until(lambda: not line.hears_speech())
    line.hush()
    assert speaking.cancelled()
    return onset_ms


@pytest.mark.parametrize("after_ms", [300, 2000, 3300])
async def test_what_is_remembered_of_an_interrupted_reply_is_what_was_heard(after_ms: float) -> None:
    async with telephone() as (server, twilio):
        voice = talkative(server)
        line = await twilio.dial()
        stream = await greeted(line)
        onset_ms = await interrupted(line, stream, after_ms=after_ms)
        heard = last_heard(server, line)
        assert REPLY.startswith(heard)
        assert abs(place_of(heard, voice.given) - audible_ms(line, onset_ms)) < SLACK_MS
        line.hang_up()
        await line.ended()
        assert heard in [text for _, text in server.said(line.sid)]


async def test_speaking_over_a_reply_clears_the_line_and_what_comes_back_then_changes_nothing() -> None:
    async with telephone() as (server, twilio):
        talkative(server)
        line = await twilio.dial()
        stream = await greeted(line)
        onset_ms = await interrupted(line, stream, after_ms=1400)  # the mark of the first sentence is on its way
        cleared_ms = stream.clears[0].at_ms
        assert stream.clears[0].dropped_bytes <= 300 * 8, "never much further ahead than the lead"
        heard = last_heard(server, line)
        await line.silence(ms=200)
        assert last_heard(server, line) == heard
        quiet = line.heard_from(cleared_ms + 40, cleared_ms + 200)
        assert np.abs(quiet).max() < 10, "what was sent is not heard any more"
        assert audible_ms(line, onset_ms) < cleared_ms - onset_ms + 40
        line.hang_up()


async def test_marks_that_a_clear_gives_back_were_not_heard() -> None:
    async with telephone() as (server, twilio):
        voice = talkative(server)
        line = await twilio.dial()
        stream = await greeted(line)
        marks = len(stream.marks)
        await line.say(words())
        onset_ms = await line.hears()
        await line.until(
            lambda: stream.pending_marks
        )  # the end of the first sentence has been sent, and not been heard
        line.press("5")
        await line.until(lambda: stream.clears)
        assert [mark.cleared for mark in stream.marks[marks:]] == [True]
        await line.silence(ms=100)
        heard = last_heard(server, line)
        assert len(heard) < len(voice.given[0].strip())
        assert place_of(heard, voice.given) < audible_ms(line, onset_ms) + 100
        line.hang_up()


async def test_a_mark_that_was_heard_is_remembered_to_the_sentence() -> None:
    async with telephone() as (server, twilio):
        voice = talkative(server)
        line = await twilio.dial()
        stream = await greeted(line)
        marks = len(stream.marks)
        await line.say(words())
        await line.until(lambda: len(stream.marks) > marks)
        line.press("5")
        await line.until(lambda: stream.clears)
        await line.silence(ms=100)
        assert last_heard(server, line).startswith(voice.given[0].strip())
        line.hang_up()


async def test_a_listener_who_lags_behind_is_remembered_to_have_heard_what_its_marks_say() -> None:
    """Twilio's own buffer, and whatever lies behind it, may play later than we think."""
    async with telephone(greeting="") as (server, twilio), Forger(server.port) as forger, forger.stream() as stream:
        voice = talkative(server)
        sid = rings(twilio)
        await stream.start(sid, parameters(await forger.ask("/voice", call_fields(sid)))["token"])
        await stream.dial("1#")
        second_sentence = f'"1:{2 * CHUNK_MS}"'
        while second_sentence not in await stream.received():
            pass
        await stream.marked(f"1:{CHUNK_MS}")
        await stream.dial("2")
        while '"clear"' not in await stream.received():
            pass
        await stream.hang_up(sid)
        await stream.closed()
        assert server.remembered(sid)[1] == ("assistant", voice.given[0].strip())


async def test_a_short_noise_holds_the_reply_and_it_goes_on_from_the_last_word() -> None:
    reply = "One is the first number that we count today. Two is the second number that we count today."
    async with telephone(barge_in_ms=400) as (server, twilio):
        talkative(server, reply)
        line = await twilio.dial()
        stream = await greeted(line)
        await line.say(words())
        onset_ms = await line.hears()
        await line.silence(ms=400)
        await line.say(words()[: 8 * 250])
        await line.until(lambda: stream.marks[-1].name == f"2:{2 * CHUNK_MS}", timeout_s=20)
        pauses_ms = np.diff([arrival.at_ms for arrival in stream.arrivals if arrival.at_ms >= onset_ms])
        assert pauses_ms.max() > 100, "the reply was held"
        assert stream.clears == []
        assert audible_ms(line, onset_ms) >= 2 * CHUNK_MS - 40
        line.hang_up()
        await line.ended()
        assert server.remembered(line.sid)[-1] == ("assistant", reply)


# --- keys


async def test_digits_and_a_hash_are_a_turn(caplog: pytest.LogCaptureFixture) -> None:
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        line.press("12#")
        await line.hears()
        await line.hears_the_end(quiet_ms=300)
        line.hang_up()
        await line.ended()
        assert server.remembered(line.sid)[1] == ("user", "I pressed 1 2 on my keypad.")
    assert not any("1 2" in record.getMessage() for record in caplog.records), "digits may be a secret"


async def test_digits_without_a_hash_are_a_turn_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twilio_stream, "DIGITS_PAUSE_S", 0.3)
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        line.press("4")
        await line.silence(ms=160)
        line.press("2*")
        await line.silence(ms=160)
        assert len(server.remembered(line.sid)) == 1, "there may be more to come"
        await line.hears()
        assert server.remembered(line.sid)[1] == ("user", "I pressed 4 2 * on my keypad.")
        line.hang_up()


async def test_a_key_silences_the_assistant_at_once() -> None:
    async with telephone(scripted_audio_ms=3000) as (server, twilio):
        line = await twilio.dial()
        stream = await line.streaming()
        await line.hears()
        line.press("1")
        await line.until(lambda: stream.clears)
        await line.until(lambda: not line.hears_speech())
        line.press("#")
        await line.hears()
        assert server.remembered(line.sid)[-1] == ("user", "I pressed 1 on my keypad.")
        line.hang_up()


async def test_a_hash_alone_is_no_turn() -> None:
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        line.press("##")
        line.press("3#")
        await line.hears()
        assert server.remembered(line.sid)[1] == ("user", "I pressed 3 on my keypad.")
        line.hang_up()


async def test_digits_without_end_become_a_turn_before_they_fill_the_memory() -> None:
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        line.press("1" * twilio_stream.MAX_DIGITS)
        await line.hears()
        assert server.remembered(line.sid)[1][1].count("1") == twilio_stream.MAX_DIGITS
        line.hang_up()


async def test_whoever_hangs_up_while_typing_leaves_nothing_behind() -> None:
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await greeted(line)
        line.press("1")
        line.hang_up()
        await line.ended()
        assert server.remembered(line.sid) == [("assistant", GREETING)]
