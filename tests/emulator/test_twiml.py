"""TwiML: what is understood, and what is refused as on the real line (or more strictly)."""

import pytest
from app.emulator import Exchange
from app.emulator.execution import APPLICATION_ERROR
from app.emulator.faults import TwilioFault
from app.emulator.twiml import parse
from voice_server import VoiceServer

STREAM = '<Stream url="wss://voice.example.com/stream"/>'


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ("", 12100),
        ("<Response>", 12100),
        ("Hello", 12100),
        ("<response/>", 12100),
        ("<Reply/>", 12100),
        ("<!DOCTYPE a><Response/>", 12100),
        ("<Response>" + " " * 65536 + "</Response>", 11750),
        ("<Response>Hello</Response>", 12200),
        ('<Response version="1"/>', 12200),
        ("<Response><say>Hello</say></Response>", 12200),
        ("<Response><Record/></Response>", 12200),
        (f"<Response>{STREAM}</Response>", 12200),
        ("<Response><Say></Say></Response>", 12200),
        ("<Response><Say><Pause/></Say></Response>", 12200),
        ('<Response><Say speed="2">Hello</Say></Response>', 12200),
        ('<Response><Pause length="0"/></Response>', 12200),
        ('<Response><Pause length="1.5"/></Response>', 12200),
        ('<Response><Pause length="٣"/></Response>', 12200),
        ("<Response><Pause>1</Pause></Response>", 12200),
        ("<Response><Hangup><Say>Hello</Say></Hangup></Response>", 12200),
        ('<Response><Reject reason="no"/></Response>', 12200),
        ("<Response><Redirect/></Response>", 12200),
        ("<Response><Redirect>ftp://voice.example.com/</Redirect></Response>", 12200),
        ('<Response><Redirect method="PUT">/voice</Redirect></Response>', 12200),
        ("<Response><Play>file:///tmp/a.wav</Play></Response>", 12200),
        ("<Response><Connect/></Response>", 12200),
        ("<Response><Connect><Say>Hello</Say></Connect></Response>", 12200),
        (f"<Response><Connect>{STREAM}{STREAM}</Connect></Response>", 12200),
        (f'<Response><Connect url="/x">{STREAM}</Connect></Response>', 12200),
        ("<Response><Connect><Stream/></Connect></Response>", 12200),
        ('<Response><Connect><Stream url="wss://a/b" track="both_tracks"/></Connect></Response>', 12200),
        ('<Response><Connect><Stream url="wss://a/b"><Say>Hi</Say></Stream></Connect></Response>', 12200),
        ('<Response><Connect><Stream url="wss://a/b"><Parameter name="a"/></Stream></Connect></Response>', 12200),
        (
            '<Response><Connect><Stream url="wss://a/b"><Parameter name="a" value="'
            + "x" * 499
            + '"/></Stream></Connect></Response>',
            12200,
        ),
        ("<Response><Dial/></Response>", 12200),
        ('<Response><Dial timeout="0">+15005550007</Dial></Response>', 12200),
        ('<Response><Dial caller="+15005550006">+15005550007</Dial></Response>', 12200),
        ("<Response><Dial><Number/></Dial></Response>", 12200),
        ('<Response><Dial><Number action="/x">+15005550007</Number></Dial></Response>', 12200),
        ("<Response><Dial><Sip>sip:a@example.com</Sip></Dial></Response>", 12200),
    ],
)
def test_what_is_no_twiml_is_refused(document: str, code: int) -> None:
    with pytest.raises(TwilioFault) as refused:
        parse(document.encode())
    assert refused.value.fault.code == code


async def test_a_document_that_cannot_be_used_ends_the_call_with_an_announcement(
    server: VoiceServer, twilio: Exchange
) -> None:
    server.answers["/voice"] = "<Response><Speak>Hello</Speak></Response>"
    line = await twilio.dial()
    assert await line.ended() == "completed"
    assert [fault.code for fault in line.errors] == [12200]
    assert "Speak" in line.errors[0].message
    assert line.spoken == [APPLICATION_ERROR]


async def test_an_error_of_the_server_ends_the_call(server: VoiceServer, twilio: Exchange) -> None:
    server.refuse["/voice"] = 403
    line = await twilio.dial()
    assert await line.ended() == "completed"
    assert [fault.code for fault in line.errors] == [11200]
    assert line.spoken == [APPLICATION_ERROR]


async def test_an_answer_that_is_not_xml_ends_the_call(server: VoiceServer, twilio: Exchange) -> None:
    server.content_type = "application/json"
    line = await twilio.dial()
    await line.ended()
    assert [fault.code for fault in line.errors] == [12300]


async def test_a_server_that_is_not_there_is_an_error(server: VoiceServer) -> None:
    async with Exchange("http://127.0.0.1:9") as twilio:
        line = await twilio.dial()
        await line.ended()
        assert [fault.code for fault in line.errors] == [11200]


async def test_verbs_are_carried_out_in_order_until_the_call_is_hung_up(server: VoiceServer, twilio: Exchange) -> None:
    server.answers["/voice"] = (
        '<Response><Say voice="alice" language="en-GB">One</Say><Play>/beep.wav</Play>'
        '<Redirect method="GET">next?step=2</Redirect><Say>Never</Say></Response>'
    )
    server.answers["/next"] = "<Response><Say>Two</Say><Hangup/><Say>Never</Say></Response>"
    line = await twilio.dial()
    assert await line.ended() == "completed"
    assert line.spoken == ["One", "Two"]
    assert line.played == ["https://voice.example.com/beep.wav"]
    (form,) = server.asked("/next")
    assert (form["step"], form["CallStatus"]) == ("2", "in-progress")
    assert line.errors == []


@pytest.mark.parametrize(("reason", "status"), [("", "no-answer"), (' reason="busy"', "busy")])
async def test_a_call_is_rejected_without_being_answered(
    server: VoiceServer, twilio: Exchange, reason: str, status: str
) -> None:
    server.answers["/voice"] = f"<Response><Reject{reason}/></Response>"
    line = await twilio.dial()
    assert await line.ended() == status
    assert line.answered_s is None


async def test_a_pause_keeps_the_call_open_until_the_caller_hangs_up(server: VoiceServer, twilio: Exchange) -> None:
    server.answers["/voice"] = '<Response><Say>Wait</Say><Pause length="3600"/></Response>'
    line = await twilio.dial()
    await line.until(lambda: any(event.detail == "Pause" for event in line.events))
    line.hang_up()
    assert await line.ended() == "completed"


async def test_a_caller_who_gives_up_before_the_answer_is_not_answered(server: VoiceServer, twilio: Exchange) -> None:
    server.answers["/voice"] = '<Response><Pause length="60"/><Say>Hello</Say></Response>'
    line = await twilio.dial()
    await line.until(lambda: any(event.detail == "Pause" for event in line.events))
    line.hang_up()
    assert await line.ended() == "canceled"


async def test_documents_that_go_round_in_circles_end(server: VoiceServer, twilio: Exchange) -> None:
    server.answers["/voice"] = "<Response><Redirect>/voice</Redirect></Response>"
    line = await twilio.dial()
    await line.ended()
    assert [fault.code for fault in line.errors] == [12200]


async def test_saying_takes_time_when_it_is_asked_for(server: VoiceServer) -> None:
    server.answers["/voice"] = "<Response><Say>One two three</Say></Response>"
    async with Exchange(server.url, words_per_s=30) as twilio:
        line = await twilio.dial()
        await line.ended()
        assert line.answered_s is not None
        assert line.ended_s is not None
        assert line.ended_s - line.answered_s >= 0.1
