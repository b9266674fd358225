"""Media streams: what the server may send, and what becomes of what it may not."""

import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from app.audio.g711 import encode_mulaw
from app.emulator import AUTH_TOKEN, Exchange, Line
from twilio.request_validator import RequestValidator
from voice_server import STREAM, Socket, VoiceServer, payload

TONE = encode_mulaw(np.full(1600, 6000, np.int16))
"""200 ms."""


def connect(url: str = STREAM, inside: str = "", after: str = "<Say>After</Say>", attributes: str = "") -> str:
    return (
        f'<Response><Connect><Stream url="{url}" statusCallback="/streams" {attributes}>{inside}</Stream></Connect>'
        f"{after}</Response>"
    )


@pytest_asyncio.fixture
async def line(server: VoiceServer, twilio: Exchange) -> AsyncIterator[Line]:
    server.answers["/voice"] = connect()
    yield await twilio.dial()


async def test_the_upgrade_is_signed_over_the_wss_address(server: VoiceServer, line: Line) -> None:
    await line.streaming()
    headers = server.sockets[0].headers
    assert RequestValidator(AUTH_TOKEN).validate(STREAM, {}, headers["X-Twilio-Signature"])
    assert headers["Host"] == "voice.example.com"
    assert headers["X-Forwarded-Proto"] == "https"


async def test_start_says_what_the_stream_is(server: VoiceServer, twilio: Exchange) -> None:
    server.answers["/voice"] = connect(inside='<Parameter name="token" value="a&amp;b"/>')
    line = await twilio.dial()
    stream = await line.streaming()
    await line.until(lambda: len(server.sockets[0].messages) >= 3)
    connected, start, media = server.sockets[0].messages[:3]
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert start == {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": stream.sid,
        "start": {
            "accountSid": twilio.account_sid,
            "streamSid": stream.sid,
            "callSid": line.sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": "a&b"},
        },
    }
    assert media["media"].keys() == {"track", "chunk", "timestamp", "payload"}
    assert media["streamSid"] == stream.sid


async def test_the_caller_comes_in_real_time_without_drift(server: VoiceServer, line: Line) -> None:
    await line.streaming()
    await line.until(lambda: line.now_ms > 500 and line.heard_ms >= line.now_ms)  # never, if frames came too slowly
    assert line.heard_ms <= line.now_ms + 20, "nor do they come too early"
    sent = [message["media"] for message in server.sockets[0].messages if message["event"] == "media"]
    assert [media["timestamp"] for media in sent] == [str(20 * n) for n in range(len(sent))]


async def test_marks_come_back_when_what_is_before_them_was_heard(server: VoiceServer, line: Line) -> None:
    async def talk(socket: Socket) -> None:
        await socket.mark("nothing before it")
        await socket.media(TONE)
        await socket.mark("first")
        await socket.media(TONE)
        await socket.mark("second")
        await socket.to_the_end()

    server.talk = talk
    stream = await line.streaming()
    await line.until(lambda: len(stream.marks) == 3)
    assert [mark.name for mark in stream.marks] == ["nothing before it", "first", "second"]
    start = line.speech_onsets()[0]
    assert stream.marks[1].returned_ms >= start + 200
    assert stream.marks[2].returned_ms >= start + 400
    assert stream.gaps == []
    await line.until(lambda: [m["event"] for m in server.sockets[0].messages].count("mark") == 3)
    back = [m["mark"]["name"] for m in server.sockets[0].messages if m["event"] == "mark"]
    assert back == ["nothing before it", "first", "second"]


async def test_clear_forgets_what_was_not_heard_and_gives_the_marks_back(server: VoiceServer, line: Line) -> None:
    async def talk(socket: Socket) -> None:
        await socket.media(TONE * 10)
        await socket.mark("end")
        for _ in range(10):
            await socket.next("media")
        await socket.clear()
        await socket.to_the_end()

    server.talk = talk
    stream = await line.streaming()
    await line.until(lambda: stream.clears)
    (clear,) = stream.clears
    (mark,) = stream.marks
    assert (mark.name, mark.cleared) == ("end", True)
    assert clear.dropped_bytes > 8000
    await line.silence(ms=60)
    heard_bytes = int(np.count_nonzero(line.heard))
    assert heard_bytes + clear.dropped_bytes == 10 * len(TONE)
    assert not line.hears_speech(40)


async def test_an_underrun_is_seen_and_a_pause_behind_a_mark_is_not_one(server: VoiceServer, line: Line) -> None:
    async def talk(socket: Socket) -> None:
        await socket.media(TONE)
        for _ in range(20):
            await socket.next("media")
        await socket.media(TONE)  # 200 ms too late
        await socket.mark("end")
        await socket.next("mark")
        for _ in range(10):
            await socket.next("media")
        await socket.media(TONE)
        await socket.mark("end of the second")
        await socket.next("mark")
        await socket.to_the_end()

    server.talk = talk
    stream = await line.streaming()
    await line.until(lambda: len(stream.marks) == 2)
    underrun, pause = stream.gaps
    assert (underrun.after_mark, pause.after_mark) == ("", "end")
    assert underrun.ms >= 100
    assert stream.underruns() == [underrun]
    assert [arrival.audio_bytes for arrival in stream.arrivals] == [1600] * 3
    assert [arrival.waiting_bytes for arrival in stream.arrivals] == [0] * 3


SID = "{sid}"
AUDIO = payload(b"\xff" * 160)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\xff" * 160, 31950),
        ("not JSON", 31951),
        ("[]", 31951),
        ({"event": "stop", "streamSid": SID}, 31951),
        ({"event": "dtmf", "streamSid": SID, "dtmf": {"digit": "1"}}, 31951),
        ({"streamSid": SID}, 31951),
        ({"event": "clear"}, 31951),
        ({"event": "clear", "streamSid": "MZ" + "0" * 32}, 31951),
        ({"event": "clear", "streamSid": SID, "clear": {}}, 31951),
        ({"event": "mark", "streamSid": SID}, 31951),
        ({"event": "mark", "streamSid": SID, "mark": {}}, 31951),
        ({"event": "mark", "streamSid": SID, "mark": {"name": ""}}, 31951),
        ({"event": "mark", "streamSid": SID, "mark": {"name": 1}}, 31951),
        ({"event": "media", "streamSid": SID, "media": AUDIO}, 31951),
        ({"event": "media", "streamSid": SID, "media": {}}, 31951),
        ({"event": "media", "streamSid": SID, "media": {"payload": ""}}, 31951),
        ({"event": "media", "streamSid": SID, "media": {"payload": AUDIO + "\n"}}, 31951),
        ({"event": "media", "streamSid": SID, "media": {"payload": AUDIO[:-1]}}, 31951),
        ({"event": "media", "streamSid": SID, "media": {"payload": "*" + AUDIO[1:]}}, 31951),
        ({"event": "media", "streamSid": SID, "media": {"payload": payload(b"RIFF" + b"\0" * 156)}}, 31951),
        ({"event": "media", "streamSid": SID, "media": {"payload": AUDIO, "track": "outbound"}}, 31951),
        ({"event": "media", "streamSid": SID, "media": {"payload": AUDIO}, "sequenceNumber": "1"}, 31951),
    ],
)
async def test_a_message_that_twilio_does_not_know_ends_the_stream(
    server: VoiceServer, line: Line, message: bytes | str | dict[str, Any], code: int
) -> None:
    async def talk(socket: Socket) -> None:
        if isinstance(message, bytes):
            await socket.socket.send_bytes(message)
        else:
            raw = message if isinstance(message, str) else json.dumps(message)
            await socket.socket.send_str(raw.replace(SID, socket.stream_sid))
        await socket.to_the_end()

    server.talk = talk
    assert await line.ended() == "completed"
    assert [fault.code for fault in line.errors] == [code]
    assert line.spoken == ["After"], "the call goes on with the next verb"
    told = server.asked("/streams")
    assert [form["StreamEvent"] for form in told] == ["stream-started", "stream-error", "stream-stopped"]
    assert told[1]["StreamError"].startswith(str(code))


@pytest.mark.parametrize(
    ("url", "code"),
    [
        (STREAM + "?token=1", 31920),
        (STREAM.replace("wss", "ws"), 31910),
        (STREAM.replace("wss", "https"), 31910),
        ("/stream", 31910),
        (STREAM + "/missing", 31920),
        ("wss://elsewhere.example.com/stream", 31901),
    ],
)
async def test_a_stream_that_cannot_start_is_an_error_and_the_call_goes_on(
    server: VoiceServer, twilio: Exchange, url: str, code: int
) -> None:
    server.answers["/voice"] = connect(url)
    line = await twilio.dial()
    assert await line.ended() == "completed"
    assert [fault.code for fault in line.errors] == [code]
    assert line.spoken == ["After"]
    assert line.streams == []
    (form,) = server.asked("/streams")
    assert (form["StreamEvent"], form["CallSid"]) == ("stream-error", line.sid)


async def test_a_refused_upgrade_is_a_handshake_error(server: VoiceServer, line: Line) -> None:
    server.refuse["/stream"] = 403
    await line.ended()
    assert [fault.code for fault in line.errors] == [31920]


async def test_the_call_goes_on_when_the_server_closes(server: VoiceServer, line: Line) -> None:
    async def talk(socket: Socket) -> None:
        await socket.media(TONE)

    server.talk = talk
    await line.ended()
    assert line.errors == []
    assert line.spoken == ["After"]
    assert [form["StreamEvent"] for form in server.asked("/streams")] == ["stream-started", "stream-stopped"]
    assert line.streams[0].lost_bytes > 0, "what had not been heard by then is lost"


async def test_a_server_that_breaks_off_is_an_error(server: VoiceServer, line: Line) -> None:
    async def talk(socket: Socket) -> None:
        await socket.socket.close(code=1011)

    server.talk = talk
    await line.ended()
    assert [fault.code for fault in line.errors] == [31921]


async def test_the_action_is_asked_after_the_stream_and_says_what_follows(
    server: VoiceServer, twilio: Exchange
) -> None:
    server.answers["/voice"] = connect().replace("<Connect>", '<Connect action="/after" method="GET">')
    server.answers["/after"] = "<Response><Say>Bye</Say><Hangup/></Response>"

    async def talk(socket: Socket) -> None:
        await socket.next("media")

    server.talk = talk
    line = await twilio.dial()
    await line.ended()
    assert line.spoken == ["Bye"], "not what stood behind <Connect>"
    (form,) = server.asked("/after")
    assert (form["CallSid"], form["CallStatus"]) == (line.sid, "in-progress")


async def test_frames_can_be_lost_doubled_swapped_and_garbled(server: VoiceServer, line: Line) -> None:
    stream = await line.streaming()
    stream.mishaps.extend(["drop", "duplicate", "swap", "garble"])
    stream.inject("whatever")
    raw = server.sockets[0].raw
    await line.until(lambda: any("*" in text for text in raw[:-1]))  # the garbled frame, and the one it overtook
    assert "whatever" in raw
    media = [json.loads(text)["media"] for text in raw if '"event":"media"' in text]
    chunks = [int(piece["chunk"]) for piece in media]
    lost = next(n for n in range(1, 100) if n not in chunks)
    at = chunks.index(lost + 1)
    assert chunks[at : at + 4] == [lost + 1, lost + 1, lost + 3, lost + 2]
    assert "*" in media[at + 2]["payload"]


async def test_a_server_that_does_not_read_is_given_up(
    server: VoiceServer, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.emulator.stream.MAX_UNSENT", 10)
    stream = await line.streaming()
    for _ in range(12):
        stream.inject("x" * 10_000)
    assert [fault.code for fault in line.errors] == [31924]


async def test_many_calls_at_once_do_not_mix(server: VoiceServer, twilio: Exchange) -> None:
    async def talk(socket: Socket) -> None:
        start = socket.messages[-1]["start"]
        await socket.mark(start["callSid"])
        await socket.media(TONE)
        await socket.to_the_end()

    server.talk = talk
    lines = [await twilio.dial(f"+1500555{n:04}") for n in range(20)]
    for line in lines:
        stream = await line.streaming()
        await line.hears()
        assert [mark.name for mark in stream.marks] == [line.sid]
    for line in lines:
        line.hang_up()
    assert {await line.ended() for line in lines} == {"completed"}
    assert twilio.errors == []
    assert len({form["CallSid"] for form in server.asked("/voice")}) == 20


async def test_without_a_token_nothing_is_signed_and_the_stream_may_be_local(server: VoiceServer) -> None:
    server.answers["/voice"] = connect(f"ws://127.0.0.1:{server.port}/stream")
    async with Exchange(server.url, auth_token=None) as twilio:
        line = await twilio.dial()
        await line.streaming()
        line.hang_up()
        await line.ended()
        assert line.errors == []
    for headers in [request[2] for request in server.requests] + [server.sockets[0].headers]:
        assert "X-Twilio-Signature" not in headers
        assert not [name for name in headers if name.startswith("X-Forwarded")]
        assert headers["Host"] == f"127.0.0.1:{server.port}"
