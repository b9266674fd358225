"""The REST API, asked by the official SDK."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from app.emulator import ACCOUNT_SID, AUTH_TOKEN, NUMBER, PUBLIC_URL, Exchange, Human, NoAnswer, Refused
from twilio.base.exceptions import TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client
from voice_server import VoiceServer

TO = "+15005550009"
URL = PUBLIC_URL + "/voice"


@pytest_asyncio.fixture
async def client(twilio: Exchange) -> AsyncIterator[Client]:
    http = AsyncTwilioHttpClient(timeout=5)
    client = Client(ACCOUNT_SID, AUTH_TOKEN, http_client=http)
    client.api.base_url = twilio.api_url
    yield client
    await http.close()


async def test_the_blocking_client_works_too(server: VoiceServer, twilio: Exchange) -> None:
    client = Client(ACCOUNT_SID, AUTH_TOKEN)
    client.api.base_url = twilio.api_url
    call = await asyncio.to_thread(client.calls.create, to=TO, from_=NUMBER, url=URL)
    line = await twilio.next_answered()
    assert call.sid == line.sid
    assert (await asyncio.to_thread(client.calls(call.sid).fetch)).status == "in-progress"


async def test_a_new_call_is_queued_then_rings_then_the_url_is_asked(
    server: VoiceServer, twilio: Exchange, client: Client
) -> None:
    call = await client.calls.create_async(to=TO, from_=NUMBER, url=URL)
    assert (call.status, call.direction, call.to) == ("queued", "outbound-api", TO)
    line = await twilio.next_answered()
    await line.streaming()
    assert [status for status, _ in line.statuses] == ["queued", "initiated", "ringing", "in-progress"]
    (form,) = server.asked("/voice")
    expected = {"CallSid": call.sid, "CallStatus": "in-progress", "Direction": "outbound-api", "To": TO}
    assert expected.items() <= form.items()
    fetched = await client.calls(str(call.sid)).fetch_async()
    assert (fetched.status, fetched.duration) == ("in-progress", None)
    line.hang_up()
    await line.ended()
    fetched = await client.calls(str(call.sid)).fetch_async()
    assert (fetched.status, fetched.duration) == ("completed", "1")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"to": ""}, 21201),
        ({"to": "911"}, 21211),
        ({"to": "+1 500 555 0009"}, 21211),
        ({"from_": "Ahoy"}, 21212),
        ({"from_": ""}, 21213),
        ({"from_": "+15005550007"}, 21210),
        ({"url": "voice.example.com/voice"}, 21205),
        ({"url": None}, 21205),
        ({"twiml": "<Response/>"}, 20001),
        ({"url": None, "twiml": "<Response>" + " " * 4000}, 20001),
        ({"status_callback": "/twilio/status"}, 21609),
        ({"status_callback": URL, "status_callback_event": ["answered", "hung-up"]}, 21626),
        ({"method": "PUT"}, 21403),
        ({"timeout": 601}, 20001),
        ({"machine_detection": "Yes"}, 20001),
        ({"async_amd": "true"}, 20001),
        ({"machine_detection": "Enable", "async_amd": "true"}, 20001),
        ({"machine_detection": "Enable", "async_amd_status_callback": URL}, 20001),
        ({"record": True}, 20001),
    ],
)
async def test_what_twilio_would_refuse_is_refused_with_its_code(
    client: Client, twilio: Exchange, parameters: dict[str, Any], code: int
) -> None:
    with pytest.raises(TwilioRestException) as refused:
        await client.calls.create_async(**{"to": TO, "from_": NUMBER, "url": URL} | parameters)
    assert (refused.value.status, refused.value.code) == (400, code)
    assert twilio.lines == {}


async def test_a_wrong_token_is_not_let_in(twilio: Exchange) -> None:
    client = Client(ACCOUNT_SID, "f" * 32)
    client.api.base_url = twilio.api_url
    with pytest.raises(TwilioRestException) as refused:
        await asyncio.to_thread(client.calls.create, to=TO, from_=NUMBER, url=URL)
    assert (refused.value.status, refused.value.code) == (401, 20003)


async def test_calls_and_paths_that_do_not_exist_are_not_found(client: Client) -> None:
    with pytest.raises(TwilioRestException) as missing:
        await client.calls("CA" + "0" * 32).fetch_async()
    assert (missing.value.status, missing.value.code) == (404, 20404)
    with pytest.raises(TwilioRestException) as missing:
        await client.messages.create_async(to=TO, from_=NUMBER, body="Hello")
    assert (missing.value.status, missing.value.code) == (404, 20404)


async def test_errors_can_be_asked_for(client: Client, twilio: Exchange) -> None:
    twilio.rest.refuse_next()
    with pytest.raises(TwilioRestException) as refused:
        await client.calls.create_async(to=TO, from_=NUMBER, url=URL)
    assert (refused.value.status, refused.value.code) == (429, 20429)
    twilio.when_called(TO, Refused(21215, "Account not authorized to call that country"))
    with pytest.raises(TwilioRestException) as refused:
        await client.calls.create_async(to=TO, from_=NUMBER, url=URL)
    assert refused.value.code == 21215
    assert twilio.lines == {}


async def test_an_answer_can_be_lost_though_the_call_was_placed(client: Client, twilio: Exchange) -> None:
    twilio.rest.next_mishap("lose the answer")
    with pytest.raises(Exception, match="disconnected"):
        await client.calls.create_async(to=TO, from_=NUMBER, url=URL)
    assert (await twilio.next_answered()).to == TO
    twilio.rest.next_mishap("lose the request")
    with pytest.raises(Exception, match="disconnected"):
        await client.calls.create_async(to=TO, from_=NUMBER, url=URL)
    assert len(twilio.lines) == 1


async def test_a_request_can_be_left_without_an_answer(twilio: Exchange) -> None:
    http = AsyncTwilioHttpClient()
    client = Client(ACCOUNT_SID, AUTH_TOKEN, http_client=http)
    client.api.base_url = twilio.api_url
    twilio.rest.next_mishap("hang")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.calls.create_async(to=TO, from_=NUMBER, url=URL)
    await http.close()


async def test_new_twiml_ends_the_stream_and_is_carried_out(
    server: VoiceServer, twilio: Exchange, client: Client
) -> None:
    line = await twilio.dial()
    await line.streaming()
    await client.calls(line.sid).update_async(twiml="<Response><Say>Moved</Say></Response>")
    assert await line.ended() == "completed"
    assert line.spoken == ["Moved"]
    assert server.sockets[0].messages[-1]["event"] == "stop"
    assert line.errors == []


async def test_a_new_url_ends_the_stream_and_is_asked(server: VoiceServer, twilio: Exchange, client: Client) -> None:
    server.answers["/other"] = "<Response><Say>Elsewhere</Say></Response>"
    line = await twilio.dial()
    await line.streaming()
    await client.calls(line.sid).update_async(url=PUBLIC_URL + "/other")
    assert await line.ended() == "completed"
    assert line.spoken == ["Elsewhere"]


async def test_a_call_is_hung_up_over_rest(server: VoiceServer, twilio: Exchange, client: Client) -> None:
    line = await twilio.dial()
    await line.streaming()
    await client.calls(line.sid).update_async(status="canceled")  # has no effect on a call that was answered
    assert line.status == "in-progress"
    await client.calls(line.sid).update_async(status="completed")
    assert await line.ended() == "completed"
    assert server.sockets[0].messages[-1]["event"] == "stop"


@pytest.mark.parametrize("status", ["canceled", "completed"])
async def test_a_call_that_rings_is_canceled_and_nobody_answers(
    server: VoiceServer, twilio: Exchange, client: Client, status: str
) -> None:
    twilio.when_called(TO, NoAnswer())
    call = await client.calls.create_async(to=TO, from_=NUMBER, url=URL)
    line = twilio.lines[str(call.sid)]
    await line.reaches("ringing")
    await client.calls(line.sid).update_async(status=status)
    assert await line.ended() == "canceled"
    assert server.requests == []


async def test_a_call_that_is_not_in_progress_cannot_be_changed(
    server: VoiceServer, twilio: Exchange, client: Client
) -> None:
    twilio.when_called(TO, Human(after_s=60))
    call = await client.calls.create_async(to=TO, from_=NUMBER, url=URL)
    line = twilio.lines[str(call.sid)]
    await line.reaches("ringing")
    with pytest.raises(TwilioRestException) as refused:
        await client.calls(line.sid).update_async(twiml="<Response/>")
    assert (refused.value.status, refused.value.code) == (400, 21220)
    line.hang_up()
    await line.ended()
    for change in ({"twiml": "<Response/>"}, {"url": URL}, {"status": "completed"}):
        with pytest.raises(TwilioRestException) as refused:
            await client.calls(line.sid).update_async(**change)
        assert (refused.value.status, refused.value.code) == (400, 21220)
