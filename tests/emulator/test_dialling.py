"""<Dial>: a call that is put through to another number."""

import numpy as np
import pytest
from app.emulator import NUMBER, PUBLIC_URL, Behaviour, Busy, Exchange, Failed, Human, Line, NoAnswer
from voice_server import VoiceServer

OTHER = "+15005550007"
TONE = np.full(1600, 6000, np.int16)
DIAL = f'<Dial action="/transferred" callerId="{NUMBER}"><Number url="/whisper">{OTHER}</Number></Dial>'


@pytest.fixture(autouse=True)
def answers(server: VoiceServer) -> None:
    server.answers["/voice"] = f"<Response>{DIAL}<Say>Never</Say></Response>"
    server.answers["/whisper"] = "<Response><Say>A caller about an invoice</Say></Response>"
    server.answers["/transferred"] = "<Response><Say>Back again</Say></Response>"


async def test_who_answers_hears_the_summary_first_and_then_both_talk(server: VoiceServer, twilio: Exchange) -> None:
    line = await twilio.dial()
    await line.until(lambda: any(event.kind == "bridged" for event in line.events))
    (leg,) = line.legs
    assert (leg.from_, leg.to, leg.direction) == (NUMBER, OTHER, "outbound-dial")
    assert leg.spoken == ["A caller about an invoice"]
    (form,) = server.asked("/whisper")
    assert (form["CallSid"], form["ParentCallSid"]) == (leg.sid, line.sid)
    assert (form["To"], form["Direction"]) == (OTHER, "outbound-dial")

    await line.say(TONE)
    await leg.hears()
    await leg.say(TONE)
    await line.hears()
    leg.hang_up()
    assert await line.ended() == "completed"
    (form,) = server.asked("/transferred")
    assert (form["CallSid"], form["CallStatus"]) == (line.sid, "in-progress")
    assert (form["DialCallStatus"], form["DialCallSid"], form["DialBridged"]) == ("completed", leg.sid, "true")
    assert int(form["DialCallDuration"]) >= 1
    assert line.spoken == ["Back again"]
    assert twilio.errors == []


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [(Busy(), "busy"), (NoAnswer(after_s=0.05), "no-answer"), (Failed(), "failed")],
)
async def test_the_caller_comes_back_when_nobody_answers(
    server: VoiceServer, twilio: Exchange, behaviour: Behaviour, status: str
) -> None:
    twilio.when_called(OTHER, behaviour)
    line = await twilio.dial()
    assert await line.ended() == "completed"
    (form,) = server.asked("/transferred")
    assert form["DialCallStatus"] == status
    assert "DialCallDuration" not in form
    assert line.spoken == ["Back again"]
    assert server.asked("/whisper") == []
    assert line.legs[0].status == status


async def test_the_time_out_of_dial_counts(server: VoiceServer, twilio: Exchange) -> None:
    server.answers["/voice"] = server.answers["/voice"].replace("<Dial", '<Dial timeout="1"')
    twilio.when_called(OTHER, Human(after_s=2))
    line = await twilio.dial()
    await line.ended()
    assert server.asked("/transferred")[0]["DialCallStatus"] == "no-answer"


async def test_without_an_action_the_next_verb_follows(server: VoiceServer, twilio: Exchange) -> None:
    server.answers["/voice"] = f"<Response><Dial>{OTHER}</Dial><Say>Next</Say></Response>"
    twilio.when_called(OTHER, Busy())
    line = await twilio.dial()
    await line.ended()
    assert line.spoken == ["Next"]


async def test_the_caller_hangs_up_and_the_other_leg_ends(server: VoiceServer, twilio: Exchange) -> None:
    line = await twilio.dial()
    await line.until(lambda: any(event.kind == "bridged" for event in line.events))
    line.hang_up()
    assert await line.ended() == "completed"
    assert line.legs[0].status == "completed"
    (form,) = server.asked("/transferred")
    assert (form["CallStatus"], form["DialCallStatus"]) == ("completed", "completed")
    assert line.spoken == [], "nobody is there any more"


async def test_the_caller_hangs_up_while_it_rings(server: VoiceServer, twilio: Exchange) -> None:
    twilio.when_called(OTHER, NoAnswer())
    line = await twilio.dial()
    await line.until(lambda: line.legs and line.legs[0].status == "ringing")
    line.hang_up()
    assert await line.ended() == "completed"
    assert line.legs[0].status == "canceled"


async def test_who_hangs_up_during_the_summary_is_not_connected(server: VoiceServer, twilio: Exchange) -> None:
    server.answers["/whisper"] = '<Response><Pause length="60"/></Response>'

    async def talk(leg: Line) -> None:
        await leg.until(lambda: any(event.detail == "Pause" for event in leg.events))

    twilio.when_called(OTHER, Human(talk=talk))
    line = await twilio.dial()
    await line.ended()
    (form,) = server.asked("/transferred")
    assert (form["DialCallStatus"], form["DialBridged"]) == ("completed", "false")


@pytest.mark.parametrize("whisper", ["<Response><Hangup/></Response>", f"<Response>{DIAL}</Response>"])
async def test_a_summary_that_hangs_up_or_cannot_be_used_does_not_connect(
    server: VoiceServer, twilio: Exchange, whisper: str
) -> None:
    server.answers["/whisper"] = whisper
    line = await twilio.dial()
    await line.ended()
    assert server.asked("/transferred")[0]["DialBridged"] == "false"
    assert [fault.code for fault in line.errors] == ([] if "Hangup" in whisper else [12200])


@pytest.mark.parametrize(
    ("dial", "code"),
    [
        ("<Dial>500 555 0007</Dial>", 13224),
        (f'<Dial callerId="+15005550010">{OTHER}</Dial>', 13214),
    ],
)
async def test_numbers_that_twilio_does_not_take_fail(
    server: VoiceServer, twilio: Exchange, dial: str, code: int
) -> None:
    server.answers["/voice"] = f"<Response>{dial}<Say>Failed</Say></Response>"
    line = await twilio.dial()
    await line.ended()
    assert [fault.code for fault in line.errors] == [code]
    assert line.legs == []
    assert line.spoken == ["Failed"]


async def test_a_call_is_not_answered_before_the_other_side_if_it_is_asked_so(
    server: VoiceServer, twilio: Exchange
) -> None:
    server.answers["/voice"] = f'<Response><Dial answerOnBridge="true">{OTHER}</Dial></Response>'
    twilio.when_called(OTHER, Human(after_s=0.1))
    line = await twilio.dial()
    await line.until(lambda: line.legs and line.legs[0].status == "ringing")
    assert line.status == "ringing"
    await line.reaches("in-progress")
    assert line.legs[0].status == "in-progress"


async def test_the_other_leg_tells_its_statuses_if_it_is_asked_to(server: VoiceServer, twilio: Exchange) -> None:
    events = "initiated ringing answered completed"
    server.answers["/voice"] = (
        f'<Response><Dial><Number statusCallback="{PUBLIC_URL}/leg" statusCallbackEvent="{events}">'
        f"{OTHER}</Number></Dial></Response>"
    )
    line = await twilio.dial()
    await line.until(lambda: any(event.kind == "bridged" for event in line.events))
    line.legs[0].hang_up()
    await line.ended()
    told = server.asked("/leg")
    assert [form["CallStatus"] for form in told] == ["initiated", "ringing", "in-progress", "completed"]
    assert {form["ParentCallSid"] for form in told} == {line.sid}
