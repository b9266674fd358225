"""Messages of a media stream that are not as they should be: each costs itself, and nothing else."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
import pytest_asyncio
from app.websocket import twilio_stream
from call_stage import PhoneServer, eventually, words
from stage import ToldRecognizer
from twilio_forger import ForgedStream, Forger, call_fields, new_sid, parameters


class Caller:
    """Somebody whose stream says what a test wants it to."""

    def __init__(self, server: PhoneServer, stream: ForgedStream, sid: str, log: pytest.LogCaptureFixture) -> None:
        self.server = server
        self.stream = stream
        self.sid = sid
        self._log = log
        self._draining = asyncio.create_task(stream.closed())

    @property
    def captions(self) -> list[str]:
        """What was said on either side so far."""
        return [text for _, text in self.server.said(self.sid)]

    async def sends(self, message: str | bytes) -> None:
        """Send this, with the stream's own SID in place of SID."""
        await self.stream.send(message.replace("SID", self.stream.sid) if isinstance(message, str) else message)

    async def types(self, digit: str) -> None:
        """Press a key and #, and wait until that was understood."""
        await self.stream.dial(digit + "#")
        await eventually(lambda: f"I pressed {digit} on my keypad." in self.captions, "the key to be understood")

    async def leaves(self) -> dict[str, int]:
        """Hang up, and see what the server has counted."""
        await self.stream.hang_up(self.sid)
        await self.closed()
        (line,) = [one.getMessage() for one in self._log.records if "A media stream ended" in one.getMessage()]
        return {name: int(number) for number, name in re.findall(r"(\d+) (\w+)", line)}

    async def closed(self) -> int | None:
        """Wait until the server closes; the code."""
        async with asyncio.timeout(10):
            return await self._draining


@pytest.fixture(scope="module")
def server() -> Iterator[PhoneServer]:
    with PhoneServer() as running:
        yield running


@pytest_asyncio.fixture
async def caller(server: PhoneServer, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Caller]:
    """Afterwards nothing is left of the call, and nothing failed that we had not foreseen."""
    caplog.set_level(logging.INFO)
    async with Forger(server.port) as forger, forger.stream() as stream:
        sid = new_sid()
        await stream.start(sid, parameters(await forger.ask("/voice", call_fields(sid)))["token"])
        yield Caller(server, stream, sid, caplog)
    server.nothing_is_left()
    assert [record.getMessage() for record in caplog.records if record.exc_info and record.exc_info[0]] == []


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no JSON",
        "[]",
        "null",
        '{"event":"media"}',
        '{"event":"media","streamSid":"SID","media":"loud"}',
        '{"event":"media","streamSid":"SID","media":{"payload":"/////w=="}}',
        '{"event":"media","streamSid":"SID","media":{"chunk":"x","payload":"/////w=="}}',
        '{"event":"media","streamSid":"SID","media":{"chunk":"-1","payload":"/////w=="}}',
        '{"event":"media","streamSid":"SID","media":{"chunk":"٣","payload":"/////w=="}}',
        '{"event":"media","streamSid":"SID","media":{"chunk":"' + "9" * 5000 + '","payload":"/////w=="}}',
        '{"event":"media","streamSid":"SID","media":{"chunk":9,"payload":"/////w=="}}',
        '{"event":"media","streamSid":"SID","media":{"chunk":"9","payload":"***"}}',
        '{"event":"media","streamSid":"SID","media":{"chunk":"9","payload":"' + "/" * 16_000 + '"}}',
        '{"event":"mark","streamSid":"SID","mark":{}}',
        '{"event":"dtmf","streamSid":"SID","dtmf":{"digit":1}}',
        '{"event":"start","streamSid":"SID","start":{}}',
        '{"event":"stop","streamSid":"MZother"}',
        '{"event":"media","streamSid":"MZother","media":{"chunk":"9","payload":"/////w=="}}',
        '{"event":"something","streamSid":"SID"}',
        '{"event":"connected","protocol":"Cable","version":"1.0.0"}',
        b"binary",
        b"",
    ],
)
async def test_a_message_that_cannot_be_used_costs_that_message(caller: Caller, message: str | bytes) -> None:
    await caller.sends(message)
    await caller.types("7")
    assert (await caller.leaves())["garbled"] == 1


async def test_messages_that_are_not_for_us_are_left_alone(caller: Caller) -> None:
    for message in (
        '{"event":"mark","streamSid":"SID","mark":{"name":"somebody elses"}}',
        '{"event":"mark","streamSid":"SID","mark":{"name":"99:99999999999999999999"}}',
        '{"event":"mark","streamSid":"SID","mark":{"name":"1:999999999"}}',
        '{"event":"mark","streamSid":"SID","mark":{"name":"2:0"}}',
        '{"event":"media","streamSid":"SID","media":{"track":"outbound","chunk":"1","payload":"/////w=="}}',
        '{"event":"dtmf","streamSid":"SID","dtmf":{"track":"inbound_track","digit":"E"}}',
        '{"event":"connected","protocol":"Call","version":"2.0.0","new":{"field":[1]}}',
    ):
        await caller.sends(message)
    await caller.types("7")
    assert await caller.leaves() == {"frames": 0, "missing": 0, "repeated": 0, "garbled": 0, "unsent": 0}
    assert [text for text in caller.captions if "pressed" in text] == ["I pressed 7 on my keypad."]


async def test_a_message_that_is_far_too_long_is_not_even_read(caller: Caller) -> None:
    await caller.sends('{"event":"mark","streamSid":"SID","mark":{"name":"' + "x" * 70_000 + '"}}')
    await caller.types("7")
    assert (await caller.leaves())["garbled"] == 1


async def test_a_message_beyond_all_bounds_ends_the_connection(caller: Caller) -> None:
    await caller.sends("x" * 2_000_000)
    assert await caller.closed() == 1009
    await eventually(caller.server.is_idle, "the end of the call")


async def test_too_many_messages_that_cannot_be_used_end_the_stream(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_stream, "MAX_MISTAKES", 3)
    for _ in range(3):
        await caller.sends("garbage")
    await caller.types("7")
    await caller.sends("garbage")
    await caller.closed()
    assert caller.server.call(caller.sid).outcome == "lost"


async def test_what_another_stream_says_is_not_heard_here(caller: Caller) -> None:
    stt = ToldRecognizer()
    caller.server.stand_in(stt=stt)
    own, caller.stream.sid = caller.stream.sid, "MZ" + "0" * 32
    await caller.stream.say(np.concatenate((words(), np.zeros(8000, np.int16))))
    caller.stream.sid = own
    await caller.types("7")
    counts = await caller.leaves()
    assert counts["frames"] == 0
    assert counts["garbled"] == 100
    assert stt.given == []


async def test_frames_that_come_again_are_heard_once(caller: Caller) -> None:
    await caller.stream.say(np.zeros(1600, np.int16))
    caller.stream.rewind(4)
    await caller.stream.say(np.zeros(1600, np.int16))
    await caller.types("7")
    counts = await caller.leaves()
    assert (counts["frames"], counts["repeated"], counts["missing"]) == (16, 4, 0)


async def test_a_gap_is_silence_but_never_more_than_a_second_of_it(caller: Caller) -> None:
    await caller.stream.say(np.zeros(160, np.int16))
    caller.stream.rewind(-1_000_000)
    await caller.stream.say(np.zeros(160, np.int16))
    await caller.types("7")
    conversation = caller.server.call(caller.sid).conversation
    assert conversation
    assert conversation.ear.clock_ms < 5000
    assert (await caller.leaves())["missing"] == 1_000_000


async def test_a_stream_starts_once(caller: Caller) -> None:
    await caller.stream.start(caller.sid, "another token")
    await caller.types("7")
    assert (await caller.leaves())["garbled"] == 1


async def test_nothing_that_comes_after_the_stop_counts(caller: Caller) -> None:
    await caller.types("7")
    await caller.stream.hang_up(caller.sid)
    await caller.stream.dial("8#")
    await caller.stream.send("garbage")
    await caller.closed()
    assert not any("8" in text for text in caller.captions)
