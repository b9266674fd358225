"""The server places calls: what becomes of them, and what it is told."""

import numpy as np
import pytest
from app.emulator import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    NUMBER,
    PUBLIC_URL,
    Behaviour,
    Busy,
    Exchange,
    Failed,
    Human,
    Line,
    NoAnswer,
    Rejected,
    Voicemail,
)
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from voice_server import VoiceServer

TO = "+15005550009"
ALL = ["initiated", "ringing", "answered", "completed"]
NO_GREETING = np.zeros(0, np.int16)


async def place(twilio: Exchange, **more: object) -> Line:
    async with AsyncTwilioHttpClient() as http:
        client = Client(ACCOUNT_SID, AUTH_TOKEN, http_client=http)
        client.api.base_url = twilio.api_url
        parameters = {
            "to": TO,
            "from_": NUMBER,
            "url": PUBLIC_URL + "/voice",
            "status_callback": PUBLIC_URL + "/status",
            "status_callback_event": ALL,
        }
        call = await client.calls.create_async(**parameters | more)
    return twilio.lines[str(call.sid)]


async def test_the_server_is_told_of_every_status_in_order_and_signed(server: VoiceServer, twilio: Exchange) -> None:
    line = await place(twilio)
    await line.streaming()
    line.hang_up()
    await line.ended()
    told = server.asked("/status")
    assert [form["CallStatus"] for form in told] == ["initiated", "ringing", "in-progress", "completed"]
    assert [form["SequenceNumber"] for form in told] == ["0", "1", "2", "3"]
    assert {form["CallbackSource"] for form in told} == {"call-progress-events"}
    assert {form["CallSid"] for form in told} == {line.sid}
    assert (told[-1]["CallDuration"], told[-1]["SipResponseCode"]) == ("1", "200")
    assert "CallDuration" not in told[0]
    for method, url, headers, form in server.requests:
        assert method == "POST"
        assert RequestValidator(AUTH_TOKEN).validate(url, form, headers["X-Twilio-Signature"])


async def test_only_the_end_is_told_unless_more_is_asked_for(server: VoiceServer, twilio: Exchange) -> None:
    line = await place(twilio, status_callback_event=None)
    await line.streaming()
    line.hang_up()
    await line.ended()
    assert [form["CallStatus"] for form in server.asked("/status")] == ["completed"]


@pytest.mark.parametrize(
    ("behaviour", "status", "told"),
    [
        (Busy(), "busy", ["initiated", "ringing", "busy"]),
        (Rejected(), "busy", ["initiated", "ringing", "busy"]),
        (NoAnswer(after_s=0.05), "no-answer", ["initiated", "ringing", "no-answer"]),
        (Failed(), "failed", ["initiated", "failed"]),
    ],
)
async def test_nobody_answers(
    server: VoiceServer, twilio: Exchange, behaviour: Behaviour, status: str, told: list[str]
) -> None:
    twilio.when_called(TO, behaviour)
    line = await place(twilio)
    assert await line.ended() == status
    assert [form["CallStatus"] for form in server.asked("/status")] == told
    assert server.asked("/voice") == []
    assert server.asked("/status")[-1]["CallDuration"] == "0"


async def test_it_rings_until_the_time_out(server: VoiceServer, twilio: Exchange) -> None:
    twilio.when_called(TO, NoAnswer())
    line = await place(twilio, timeout=1)
    assert await line.ended() == "no-answer"
    (ringing_s,) = (at for status, at in line.statuses if status == "ringing")
    assert 1 <= line.statuses[-1][1] - ringing_s < 5


async def test_who_is_called_does_what_the_test_says_and_hangs_up(server: VoiceServer, twilio: Exchange) -> None:
    async def talk(line: Line) -> None:
        await line.streaming()
        line.press("1")
        await line.say(np.zeros(320, np.int16))

    twilio.when_called(TO, Human(talk=talk))
    line = await place(twilio)
    assert await line.ended() == "completed"
    kinds = [message["event"] for message in server.sockets[0].messages]
    assert "dtmf" in kinds
    assert kinds[-1] == "stop"


@pytest.mark.parametrize(
    ("behaviour", "mode", "found"),
    [
        (Human(detected_s=0.05), "Enable", "human"),
        (Voicemail(detected_s=0.05), "Enable", "machine_start"),
        (Voicemail(greeting=np.full(800, 4000, np.int16)), "DetectMessageEnd", "machine_end_beep"),
    ],
)
async def test_who_answered_is_told_later_while_the_call_goes_on(
    server: VoiceServer, twilio: Exchange, behaviour: Behaviour, mode: str, found: str
) -> None:
    twilio.when_called(TO, behaviour)
    line = await place(twilio, machine_detection=mode, async_amd="true", async_amd_status_callback=PUBLIC_URL + "/amd")
    await line.streaming()
    await line.until(lambda: server.asked("/amd"))
    (form,) = server.asked("/amd")
    assert form.keys() == {"CallSid", "AccountSid", "AnsweredBy", "MachineDetectionDuration"}
    assert (form["CallSid"], form["AnsweredBy"]) == (line.sid, found)
    if found == "machine_end_beep":
        assert int(form["MachineDetectionDuration"]) >= 100
    assert "AnsweredBy" not in server.asked("/voice")[0]


async def test_who_answered_is_said_with_the_first_question_if_the_server_waits_for_it(
    server: VoiceServer, twilio: Exchange
) -> None:
    twilio.when_called(TO, Voicemail(detected_s=0.05))
    line = await place(twilio, machine_detection="Enable")
    await line.streaming()
    assert server.asked("/voice")[0]["AnsweredBy"] == "machine_start"


async def test_a_callback_that_is_not_taken_is_an_error(server: VoiceServer, twilio: Exchange) -> None:
    line = await place(twilio, status_callback=PUBLIC_URL + "/nowhere", status_callback_event=["initiated"])
    server.refuse["/nowhere"] = 500
    await line.streaming()
    line.hang_up()
    await line.ended()
    assert [fault.code for fault in line.errors] == [15003]
