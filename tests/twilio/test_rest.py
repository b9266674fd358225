"""Twilio is asked by the official SDK, once for everything; whatever goes wrong says what it means and what to do."""

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from app.core.config import Settings
from app.core.errors import TwilioError
from app.emulator import NUMBER, PUBLIC_URL, Exchange, NoAnswer, Refused
from app.twilio import rest as rest_module
from app.twilio.rest import CallState, TwilioRest
from phone_stage import TO, phone_settings

UNKNOWN_SID = "CA" + "f" * 32


@pytest_asyncio.fixture
async def twilio() -> AsyncIterator[Exchange]:
    async with Exchange("http://127.0.0.1:9") as exchange:  # nobody there: these tests are about the REST API
        exchange.when_called(TO, NoAnswer())
        yield exchange


@pytest_asyncio.fixture
async def rest(twilio: Exchange) -> AsyncIterator[TwilioRest]:
    asked = TwilioRest(phone_settings(twilio_api_url=twilio.api_url))
    yield asked
    await asked.close()


async def place(rest: TwilioRest, **changes: Any) -> tuple[str, str]:
    parameters: dict[str, Any] = {
        "to": TO,
        "from_": NUMBER,
        "url": PUBLIC_URL + "/voice",
        "status_callback": PUBLIC_URL + "/twilio/status",
        "timeout_s": 30,
    }
    return await rest.create_call(**parameters | changes)


async def refused(rest: TwilioRest, **changes: Any) -> TwilioError:
    with pytest.raises(TwilioError) as error:
        await place(rest, **changes)
    return error.value


async def test_a_call_is_placed_with_everything_that_twilio_needs(twilio: Exchange, rest: TwilioRest) -> None:
    sid, status = await place(rest)
    assert (status, twilio.lines[sid].to) == ("queued", TO)
    [request] = twilio.rest.requests
    assert sorted(request.parameters) == sorted(
        [
            ("To", TO),
            ("From", NUMBER),
            ("Url", PUBLIC_URL + "/voice"),
            ("Method", "POST"),
            ("StatusCallback", PUBLIC_URL + "/twilio/status"),
            ("StatusCallbackMethod", "POST"),
            ("StatusCallbackEvent", "initiated"),
            ("StatusCallbackEvent", "ringing"),
            ("StatusCallbackEvent", "answered"),
            ("StatusCallbackEvent", "completed"),
            ("Timeout", "30"),
        ]
    )


async def test_answering_machines_are_looked_for_while_the_call_goes_on(twilio: Exchange, rest: TwilioRest) -> None:
    await place(rest, machine_detection="DetectMessageEnd", amd_callback=PUBLIC_URL + "/twilio/amd")
    assert {
        ("MachineDetection", "DetectMessageEnd"),
        ("AsyncAmd", "true"),
        ("AsyncAmdStatusCallback", PUBLIC_URL + "/twilio/amd"),
        ("AsyncAmdStatusCallbackMethod", "POST"),
    } <= set(twilio.rest.requests[0].parameters)


async def test_a_ringing_call_is_hung_up_and_hanging_up_again_is_no_error(twilio: Exchange, rest: TwilioRest) -> None:
    sid, _ = await place(rest)
    await rest.complete(sid)
    await twilio.lines[sid].ended()
    assert await rest.fetch(sid) == CallState(sid, "canceled", "", 0)
    await rest.complete(sid)


async def test_a_call_that_is_over_takes_no_new_instructions(twilio: Exchange, rest: TwilioRest) -> None:
    sid, _ = await place(rest)
    await rest.complete(sid)
    await twilio.lines[sid].ended()
    with pytest.raises(TwilioError) as error:
        await rest.redirect(sid, "<Response><Hangup/></Response>")
    assert (error.value.code, error.value.twilio_code, error.value.http_status) == ("twilio_21220", 21220, 409)


async def test_an_unknown_call_is_not_found(rest: TwilioRest) -> None:
    for asked in (rest.complete(UNKNOWN_SID), rest.redirect(UNKNOWN_SID, "<Response/>"), rest.fetch(UNKNOWN_SID)):
        with pytest.raises(TwilioError) as error:
            await asked
        assert (error.value.twilio_code, error.value.http_status) == (20404, 404)


@pytest.mark.parametrize("sid", ["", "CA1/../../Accounts", "CA1?x=", "../CA1", "AC" + "0" * 32, "CA\u0661", "CA1\n"])
async def test_nothing_but_a_sid_gets_into_an_address(twilio: Exchange, rest: TwilioRest, sid: str) -> None:
    with pytest.raises(TwilioError) as error:
        await rest.fetch(sid)
    assert (error.value.code, error.value.http_status) == ("unknown_call", 404)
    assert twilio.rest.requests == []


@pytest.mark.parametrize(
    ("code", "twilio_status", "http_status", "said"),
    [
        (21211, 400, 400, "not a number"),
        (21214, 400, 400, "cannot reach"),
        (21215, 400, 403, "Geo permissions"),
        (21216, 400, 403, "does not let"),
        (21219, 400, 403, "trial account"),
        (21210, 400, 502, "TWILIO_PHONE_NUMBER"),
        (21212, 400, 502, "TWILIO_PHONE_NUMBER"),
        (21205, 400, 502, "PUBLIC_BASE_URL"),
        (20003, 401, 502, "TWILIO_AUTH_TOKEN"),
        (20008, 403, 502, "test credentials"),
        (20429, 429, 503, "try again"),
        (10004, 429, 503, "no line free"),
    ],
)
async def test_each_of_twilios_errors_says_what_it_means_and_how_we_answer(
    twilio: Exchange, rest: TwilioRest, code: int, twilio_status: int, http_status: int, said: str
) -> None:
    twilio.when_called(TO, Refused(code, f"The number {TO} of {twilio.account_sid}", twilio_status))
    error = await refused(rest)
    assert (error.code, error.twilio_code, error.http_status) == (f"twilio_{code}", code, http_status)
    assert said.lower() in error.message.lower()
    assert str(code) in error.message
    assert not error.outcome_unknown
    assert bool(error.retry_after_s) == (http_status == 503)


async def test_an_error_that_we_do_not_know_keeps_twilios_words_but_for_numbers_and_sids(
    twilio: Exchange, rest: TwilioRest
) -> None:
    words = f"Odd thing about {TO}, (202) 555-0123 and {twilio.account_sid}."
    twilio.when_called(TO, Refused(29999, words, 400))
    error = await refused(rest)
    assert error.message == ("Twilio refused that: Odd thing about (number), (number) and (SID) (Twilio's error 29999)")
    assert (error.http_status, error.twilio_code) == (502, 29999)


async def test_a_wrong_token_names_the_setting_and_not_the_token(twilio: Exchange) -> None:
    rest = TwilioRest(phone_settings(twilio_api_url=twilio.api_url, twilio_auth_token="f" * 32))
    error = await refused(rest)
    assert (error.twilio_code, error.http_status) == (20003, 502)
    assert "TWILIO_AUTH_TOKEN" in error.message
    assert "ffff" not in error.message
    await rest.close()


async def test_trouble_of_twilios_own_leaves_open_whether_the_call_was_placed(
    twilio: Exchange, rest: TwilioRest
) -> None:
    twilio.rest.refuse_next(500, 20500, "Internal Server Error")
    error = await refused(rest)
    assert (error.http_status, error.outcome_unknown) == (502, True)
    assert "not known whether the call was placed" in error.message


async def test_an_answer_that_gets_lost_leaves_open_whether_the_call_was_placed_and_nothing_is_asked_twice(
    twilio: Exchange, rest: TwilioRest
) -> None:
    twilio.rest.next_mishap("lose the answer")
    error = await refused(rest)
    assert (error.code, error.http_status, error.outcome_unknown) == ("twilio_no_answer", 502, True)
    assert "not known whether the call was placed" in error.message
    assert len(twilio.rest.requests) == len(twilio.lines) == 1


async def test_a_time_out_leaves_open_whether_the_call_was_placed_and_nothing_is_asked_twice(
    twilio: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_module, "TOTAL_TIMEOUT_S", 0.3)
    rest = TwilioRest(phone_settings(twilio_api_url=twilio.api_url))
    twilio.rest.next_mishap("hang")
    error = await refused(rest)
    assert (error.code, error.http_status, error.outcome_unknown) == ("twilio_no_answer", 504, True)
    assert "not known whether the call was placed" in error.message
    assert twilio.rest.requests == []  # a second request would have been answered
    await rest.close()


async def test_when_twilio_cannot_be_reached_it_is_certain_that_nothing_was_dialled() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    rest = TwilioRest(phone_settings(twilio_api_url=f"http://127.0.0.1:{port}"))
    error = await refused(rest)
    assert (error.code, error.http_status, error.outcome_unknown) == ("twilio_unreachable", 502, False)
    await rest.close()


@pytest.mark.parametrize(
    ("http_status", "body", "unknown", "said"),
    [
        (201, "<html>", True, "TWILIO_API_URL"),
        (201, "[]", True, "TWILIO_API_URL"),
        (201, "{}", True, "TWILIO_API_URL"),
        (201, "", True, "TWILIO_API_URL"),
        (301, "", False, "TWILIO_API_URL"),
        (400, "<html>", False, "refused"),
        (404, "", False, "does not know"),
        (503, "busy", True, "not known"),
    ],
)
async def test_an_address_that_is_not_twilios_is_found_out(
    http_status: int, body: str, unknown: bool, said: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=http_status, text=body, headers={"Location": "http://127.0.0.1:9/"})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    rest = TwilioRest(phone_settings(twilio_api_url=f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        error = await refused(rest)
        assert (error.outcome_unknown, error.twilio_code) == (unknown, None)
        assert said in error.message
    finally:
        await rest.close()
        await runner.cleanup()


async def test_without_an_account_it_says_what_to_set() -> None:
    rest = TwilioRest(Settings())
    assert not rest.configured
    error = await refused(rest)
    assert (error.code, error.http_status) == ("twilio_not_configured", 503)
    assert "TWILIO_ACCOUNT_SID" in error.message
    await rest.close()


async def test_nothing_is_asked_after_the_end(twilio: Exchange, rest: TwilioRest) -> None:
    assert rest.configured
    await rest.close()
    await rest.close()
    error = await refused(rest)
    assert (error.code, error.http_status, error.outcome_unknown) == ("shutting_down", 503, False)
    assert twilio.rest.requests == []


async def test_neither_the_account_nor_a_number_gets_into_the_log(
    rest: TwilioRest, twilio: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        await place(rest)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("app", "twilio"))]
    assert not any(TO in line or twilio.account_sid in line for line in ours)
