"""Somebody calls the server: what it is asked, and what the caller hears."""

import re

import numpy as np
import pytest
from app.audio.g711 import decode_mulaw, encode_mulaw
from app.emulator import AUTH_TOKEN, NUMBER, PUBLIC_URL, Exchange, PhoneError
from twilio.request_validator import RequestValidator
from voice_server import Socket, VoiceServer

TONE = np.asarray(8000 * np.sin(2 * np.pi * 440 * np.arange(1600) / 8000), np.int16)


async def test_the_voice_webhook_is_asked_as_twilio_asks_it(server: VoiceServer, twilio: Exchange) -> None:
    server.answers["/voice"] = "<Response><Say>Hello</Say></Response>"
    line = await twilio.dial("+15005550001")
    assert await line.ended() == "completed"
    ((method, url, headers, form),) = server.requests
    assert (method, url) == ("POST", PUBLIC_URL + "/voice")
    expected = {"From": "+15005550001", "To": NUMBER, "CallStatus": "ringing", "Direction": "inbound"}
    assert expected.items() <= form.items()
    assert form["Caller"] == form["From"]
    assert form["Called"] == form["To"]
    assert form["FromCountry"] == "US"
    assert re.fullmatch(r"CA[0-9a-f]{32}", form["CallSid"])
    assert RequestValidator(AUTH_TOKEN).validate(url, form, headers["X-Twilio-Signature"])
    assert headers["Host"] == "voice.example.com"
    assert headers["X-Forwarded-Proto"] == "https"
    assert headers["X-Forwarded-For"]
    assert headers["I-Twilio-Idempotency-Token"]
    assert line.spoken == ["Hello"]


async def test_a_number_set_to_get_is_asked_with_a_signed_query(server: VoiceServer) -> None:
    server.answers["/voice"] = "<Response/>"
    async with Exchange(server.url, voice_method="GET") as twilio:
        line = await twilio.dial()
        assert await line.ended() == "completed"
    ((method, url, headers, _),) = server.requests
    assert method == "GET"
    assert f"CallSid={line.sid}" in url
    assert RequestValidator(AUTH_TOKEN).validate(url, {}, headers["X-Twilio-Signature"])


async def test_a_call_talks_both_ways_until_the_caller_hangs_up(server: VoiceServer, twilio: Exchange) -> None:
    async def talk(socket: Socket) -> None:
        await socket.media(encode_mulaw(TONE))
        await socket.mark("end")
        await socket.to_the_end()

    server.talk = talk
    line = await twilio.dial()
    stream = await line.streaming()
    said = await line.say(TONE)
    await line.until(lambda: stream.marks)
    line.press("1#")
    await line.until(lambda: len(server.sockets[0].messages) > 20)
    line.hang_up()
    assert await line.ended() == "completed"
    assert line.errors == []

    onset = line.speech_onsets()[0]
    np.testing.assert_array_equal(line.heard_from(onset, onset + 200)[8:], decode_mulaw(encode_mulaw(TONE))[8:])
    assert [(mark.name, mark.cleared) for mark in stream.marks] == [("end", False)]
    assert stream.marks[0].returned_ms >= onset + 200 - 20
    assert said.end_ms - said.start_ms == 200

    messages = server.sockets[0].messages
    kinds = [message["event"] for message in messages]
    assert kinds[:2] == ["connected", "start"]
    assert kinds[-1] == "stop"
    assert [message["sequenceNumber"] for message in messages[1:]] == [str(n + 1) for n in range(len(messages) - 1)]
    media = [message["media"] for message in messages if message["event"] == "media"]
    assert [piece["chunk"] for piece in media] == [str(n + 1) for n in range(len(media))]
    assert {len(piece["payload"]) for piece in media} == {216}
    assert [message["dtmf"]["digit"] for message in messages if message["event"] == "dtmf"] == ["1", "#"]


async def test_waiting_for_what_does_not_come_says_what_came(server: VoiceServer, twilio: Exchange) -> None:
    server.answers["/voice"] = "<Response><Hangup/></Response>"
    line = await twilio.dial()
    with pytest.raises(PhoneError, match=r"ended before.*verb Hangup"):
        await line.streaming()
