"""The person on the phone: speaking, listening, waiting."""

import numpy as np
import pytest
from app.audio.g711 import encode_mulaw
from app.emulator import Exchange, Human, Line, PhoneError
from voice_server import Socket, VoiceServer

TONE = np.full(1600, 6000, np.int16)
LOUD = encode_mulaw(TONE[:1])


async def test_what_is_said_arrives_sample_for_sample_and_one_after_the_other(
    server: VoiceServer, twilio: Exchange
) -> None:
    line = await twilio.dial()
    await line.streaming()
    speech = np.arange(-8000, 8000, 16, dtype=np.int16)  # 125 ms: not a whole number of frames
    first = await line.say(speech)
    second = await line.say(TONE)
    assert first.end_ms - first.start_ms == 140, "a frame leaves when it is full"
    assert second.start_ms >= first.end_ms - 20
    await line.until(lambda: server.sockets[0].audio.count(LOUD) >= len(TONE))
    said = encode_mulaw(speech)
    assert said in server.sockets[0].audio
    assert server.sockets[0].audio.index(said) < server.sockets[0].audio.index(LOUD * 1600)


async def test_a_room_can_be_heard_while_nothing_is_said(server: VoiceServer, twilio: Exchange) -> None:
    line = await twilio.dial()
    noise = np.random.default_rng(7).normal(0, 60, 8000).astype(np.int16)
    line.room_noise(noise)
    await line.streaming()
    await line.until(lambda: len(server.sockets[0].audio) >= 1600)
    assert len(set(server.sockets[0].audio[:1600])) > 10
    line.room_noise(None)
    await line.silence(ms=60)
    await line.until(lambda: server.sockets[0].audio.endswith(b"\xff" * 160))
    with pytest.raises(ValueError, match="one frame"):
        line.room_noise(noise[:100])


async def test_speech_can_be_broken_off(server: VoiceServer, twilio: Exchange) -> None:
    line = await twilio.dial()
    await line.streaming()
    before = len(line.events)
    speaking = line.begin(np.tile(TONE, 100))
    await line.until(lambda: LOUD in server.sockets[0].audio)
    line.hush()
    assert speaking.cancelled()
    await line.silence(ms=80)
    await line.until(lambda: server.sockets[0].audio.endswith(b"\xff" * 160))
    assert len(line.events) == before


async def test_it_is_silent_until_something_happens(server: VoiceServer, twilio: Exchange) -> None:
    async def talk(socket: Socket) -> None:
        for _ in range(10):
            await socket.next("media")
        await socket.media(encode_mulaw(TONE))
        await socket.to_the_end()

    server.talk = talk
    line = await twilio.dial()
    await line.streaming()
    await line.silence(until=line.hears_speech)
    (onset_ms,) = line.speech_onsets()
    assert onset_ms >= 160
    await line.hears_the_end(quiet_ms=100)
    assert line.heard_ms >= onset_ms + 300
    assert len(np.flatnonzero(line.heard)) == len(TONE)


async def test_a_call_that_is_over_takes_no_more(server: VoiceServer, twilio: Exchange) -> None:
    line = await twilio.dial()
    await line.streaming()
    speaking = line.begin(np.tile(TONE, 100))
    line.hang_up()
    line.hang_up()
    assert await line.ended() == "completed"
    assert [status for status, _ in line.statuses].count("completed") == 1
    with pytest.raises(PhoneError, match="ended while"):
        await speaking
    with pytest.raises(PhoneError, match="is over"):
        await line.say(TONE)
    with pytest.raises(PhoneError, match="is over"):
        line.press("1")
    with pytest.raises(PhoneError, match="is over"):
        await line.streaming()


async def test_keys_that_no_telephone_has_are_not_pressed(server: VoiceServer, twilio: Exchange) -> None:
    line = await twilio.dial()
    await line.streaming()
    with pytest.raises(PhoneError, match=r"\['x'\] are no keys"):
        line.press("1x")
    assert line.pressed == ""


async def test_waiting_gives_up_and_tells_what_happened(server: VoiceServer, twilio: Exchange) -> None:
    line = await twilio.dial()
    await line.streaming()
    with pytest.raises(PhoneError, match=r"not happened in 0.05 s.*stream open"):
        await line.until(lambda: False, timeout_s=0.05)
    with pytest.raises(PhoneError, match="not ended"):
        await line.ended(timeout_s=0.05)


async def test_what_goes_wrong_in_somebodys_talk_fails_the_test(server: VoiceServer) -> None:
    async def talk(_: Line) -> None:
        raise AssertionError("heard the wrong thing")

    server.answers["/voice"] = "<Response><Dial>+15005550009</Dial></Response>"

    async def call() -> None:
        async with Exchange(server.url) as twilio:
            twilio.when_called("+15005550009", Human(talk=talk))
            line = await twilio.dial()
            await line.until(lambda: line.legs and line.legs[0].answered_s is not None)

    with pytest.raises(AssertionError, match="wrong thing"):
        await call()
