"""Nobody but Twilio is listened to: what is forged, repeated or meant for others is refused before anything is done."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio
from app.emulator import AUTH_TOKEN, PUBLIC_URL
from app.twilio.voice import MAX_FORM_BYTES, voice_routes
from call_stage import PhoneServer, eventually, phone_settings, telephone
from twilio_forger import CALLER, Forger, call_fields, new_sid, parameters, signature

ROUTES = [
    (method, route.path.replace("{sid}", "CA" + "0" * 32))  # type: ignore[attr-defined]
    for route in voice_routes(phone_settings()).routes
    for method in sorted(route.methods)  # type: ignore[attr-defined]
]
SECRET_WORDS = "tell nobody about this"


@pytest.fixture(scope="module")
def shared() -> Iterator[PhoneServer]:
    with PhoneServer() as running:
        yield running


@pytest_asyncio.fixture
async def forger(shared: PhoneServer) -> AsyncIterator[Forger]:
    """Afterwards nothing has come of what was sent."""
    known = shared.telephone.calls.live()
    async with Forger(shared.port) as asking:
        yield asking
    assert shared.opened == 0
    assert shared.telephone.calls.live() == known


def is_refused(answer: httpx.Response, status: int = 403) -> bool:
    return answer.status_code == status and b"<Response>" not in answer.content


def test_the_routes_that_are_tried_are_all_that_there_are() -> None:
    assert ("POST", "/voice") in ROUTES
    assert ("GET", "/voice") in ROUTES
    assert len(ROUTES) >= 8


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_route_answers_a_request_without_twilios_signature(forger: Forger, method: str, path: str) -> None:
    fields = call_fields(new_sid())
    for wrong in (
        None,
        "nonsense",
        "ü",
        forger.sign(path, fields, method=method, token="f" * 32),
        forger.sign(path, {**fields, "CallSid": new_sid()}, method=method),
        forger.sign(path + "/", fields, method=method),
        forger.sign(path, fields, method=method, public="https://elsewhere.example.com"),
        forger.sign(path, fields, method=method, public="http://voice.example.com"),
        signature("wss://voice.example.com/twilio/ws"),
    ):
        assert is_refused(await forger.ask(path, fields, method=method, signed=wrong))


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_route_answers_a_field_that_was_added_or_changed_on_the_way(
    forger: Forger, method: str, path: str
) -> None:
    fields = call_fields(new_sid())
    signed = forger.sign(path, fields, method=method)
    for changed in ({**fields, "CallSid": new_sid()}, {**fields, "CallStatus": "completed"}, {**fields, "Digits": "1"}):
        assert is_refused(await forger.ask(path, changed, method=method, signed=signed))


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_route_answers_for_another_account(forger: Forger, method: str, path: str) -> None:
    for account in ("AC" + "9" * 32, ""):
        fields = call_fields(new_sid(), AccountSid=account)
        assert is_refused(await forger.ask(path, fields, method=method))


async def test_a_signature_of_one_route_is_none_of_another(forger: Forger) -> None:
    fields = call_fields(new_sid(), CallStatus="completed")
    for path in ("/twilio/after", "/twilio/status", "/twilio/amd"):
        assert is_refused(await forger.ask(path, fields, signed=forger.sign("/voice", fields)))


async def test_a_form_that_is_too_large_is_not_read_to_its_end(forger: Forger) -> None:
    large = "Digits=" + "1" * MAX_FORM_BYTES
    assert is_refused(await forger.ask("/voice", call_fields(new_sid()), content=large), 413)


async def test_a_form_that_is_none_is_refused_and_not_stumbled_over(forger: Forger) -> None:
    for content in ("", "\xff\xfe", "&" * 5000, "{}", "CallSid=%ff%00&CallSid=%zz", "CallSid[]=1;AccountSid=2"):
        assert is_refused(await forger.ask("/voice", {}, content=content))


async def test_a_request_that_breaks_off_is_no_accident_of_ours(
    shared: PhoneServer, forger: Forger, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", shared.port)
    writer.write(b"POST /voice HTTP/1.1\r\nHost: voice.example.com\r\nContent-Length: 100\r\n\r\nCallSid=")
    await writer.drain()
    await eventually(shared.our_tasks, "the request to be looked at")
    writer.transport.abort()
    await eventually(lambda: not shared.our_tasks() and not shared.connections, "the end of it")
    assert [record.getMessage() for record in caplog.records if record.exc_info and record.exc_info[0]] == []


async def test_a_call_must_have_a_sid(forger: Forger) -> None:
    for sid in ("", "CA1", "CA" + "g" * 32, "CA" + "٠" * 32, "SM" + "0" * 32, "CA" + "0" * 33):
        assert is_refused(await forger.ask("/voice", call_fields(sid)), 400)


async def test_what_is_told_of_calls_that_nobody_knows_changes_nothing(forger: Forger) -> None:
    for path in ("/twilio/after", "/twilio/transferred", "/twilio/amd", f"/twilio/whisper/{new_sid()}"):
        assert (await forger.ask(path, call_fields(new_sid()))).status_code == 404
    assert (await forger.ask("/twilio/status", call_fields(new_sid()))).status_code == 204
    assert (await forger.ask("/twilio/status", call_fields(new_sid(), CallStatus="exploded"))).status_code == 400


async def test_log_lines_about_what_was_refused_hold_nothing_of_it(
    shared: PhoneServer, forger: Forger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sid = new_sid()
    fields = call_fields(sid, SpeechResult=SECRET_WORDS)
    await forger.ask("/voice", fields, signed=None)
    await forger.ask("/voice", {**fields, "AccountSid": "AC" + "9" * 32})
    written = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith(("app", "uvicorn.error"))
    )
    assert "/voice" in written, "it is said what was refused"
    for secret in (CALLER, CALLER[1:], SECRET_WORDS, AUTH_TOKEN, "AC" + "9" * 32):
        assert secret not in written


async def test_an_answered_call_cannot_be_answered_again_with_the_same_request() -> None:
    with PhoneServer() as server:
        async with Forger(server.port) as forger:
            sid = new_sid()
            first = await forger.ask("/voice", call_fields(sid))
            assert first.status_code == 200
            async with forger.stream() as stream:
                await stream.start(sid, parameters(first)["token"])
                assert '"media"' in await stream.received()
                assert is_refused(await forger.ask("/voice", call_fields(sid)))
            server.nothing_is_left()
            assert is_refused(await forger.ask("/voice", call_fields(sid)))
            await forger.ask("/twilio/after", call_fields(sid, CallStatus="completed"))
            assert is_refused(await forger.ask("/voice", call_fields(sid)))
            assert is_refused(await forger.ask("/voice", call_fields(sid, CallStatus="in-progress"))), "it is over"
            assert server.opened == 1


async def test_a_call_that_was_turned_away_is_over() -> None:
    with PhoneServer(phone_settings(max_conversations=1)) as server:
        async with Forger(server.port) as forger, forger.stream() as stream:
            sid, other = new_sid(), new_sid()
            answer = await forger.ask("/voice", call_fields(sid))
            await stream.start(sid, parameters(answer)["token"])
            await stream.received()
            assert parameters(await forger.ask("/voice", call_fields(other))) == {}
            assert server.call(other).status.final
            assert is_refused(await forger.ask("/voice", call_fields(other)))


async def test_a_call_that_ended_before_the_server_began_cannot_be_answered_again() -> None:
    """Whoever recorded its request holds a good signature for ever; Twilio knows that the call is over."""
    async with telephone() as (server, twilio):
        line = await twilio.dial()
        await line.streaming()
        line.hang_up()
        await line.ended()
        with PhoneServer(server.settings) as restarted:
            async with Forger(restarted.port) as forger:
                assert is_refused(await forger.ask("/voice", call_fields(line.sid)))
                assert is_refused(await forger.ask("/voice", call_fields(new_sid()))), "Twilio has never heard of it"
            assert restarted.telephone.calls.live() == []


async def test_a_call_is_answered_when_twilio_cannot_be_asked_about_it() -> None:
    async with telephone() as (server, twilio), Forger(server.port) as forger:
        for trouble in ("hang", "lose the request"):
            twilio.rest.next_mishap(trouble)  # type: ignore[arg-type]
            assert parameters(await forger.ask("/voice", call_fields(new_sid())))["token"]
        twilio.rest.refuse_next()
        assert parameters(await forger.ask("/voice", call_fields(new_sid())))["token"]


# --- the address that is signed


async def test_the_address_is_the_configured_one_whatever_a_proxy_says(forger: Forger) -> None:
    fields = call_fields(new_sid())
    signed = signature("https://evil.example.com/voice", fields)
    headers = {"X-Forwarded-Host": "evil.example.com", "Host": "evil.example.com"}
    assert is_refused(await forger.ask("/voice", fields, signed=signed, headers=headers))


@pytest.mark.parametrize(
    ("public", "asked", "headers"),
    [
        (None, "https://tunnel.example.com", {"X-Forwarded-Host": "tunnel.example.com", "Host": "127.0.0.1:8000"}),
        (None, "https://tunnel.example.com", {"X-Forwarded-Host": "tunnel.example.com, 10.0.0.1"}),
        (None, "https://tunnel.example.com", {"Host": "tunnel.example.com", "X-Forwarded-Proto": ""}),
        (None, "http://tunnel.example.com:8080", {"Host": "tunnel.example.com:8080", "X-Forwarded-Proto": "http"}),
        ("https://example.com/ahoy", "https://example.com/ahoy", {"Host": "127.0.0.1:8000"}),
        ("https://voice.example.com", "https://voice.example.com:443", {}),
    ],
)
async def test_a_request_through_a_proxy_carries_a_good_signature(
    public: str | None, asked: str, headers: dict[str, str]
) -> None:
    with PhoneServer(phone_settings(public_base_url=public)) as server:
        async with Forger(server.port, asked) as forger:
            for method in ("POST", "GET"):
                answer = await forger.ask("/voice", call_fields(new_sid()), method=method, headers=headers)
                assert answer.status_code == 200
                assert parameters(answer)["token"]


async def test_a_query_in_the_address_is_signed_with_it(shared: PhoneServer, forger: Forger) -> None:
    fields = call_fields(new_sid())
    signed = signature(PUBLIC_URL + "/twilio/status?x=%20y&z", fields)
    path = "/twilio/status"
    assert (await forger.ask(path + "?x=%20y&z", fields, signed=signed)).status_code == 204
    assert is_refused(await forger.ask(path + "?x=%20y", fields, signed=signed))
    assert is_refused(await forger.ask(path, fields, signed=signed))


# --- without an auth token


@pytest.fixture(scope="module")
def without_token() -> Iterator[PhoneServer]:
    with PhoneServer(phone_settings(twilio_auth_token=None, twilio_account_sid=None, public_base_url=None)) as running:
        yield running


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_an_auth_token_nobody_from_elsewhere_is_served(
    without_token: PhoneServer, method: str, path: str
) -> None:
    known = without_token.telephone.calls.live()
    async with Forger(without_token.port, without_token.url) as forger:
        for headers in (
            {"X-Forwarded-For": "203.0.113.24"},
            {"X-Forwarded-For": "127.0.0.1"},
            {"X-Forwarded-For": "", "X-Forwarded-Proto": "", "Forwarded": "for=127.0.0.1"},
            {"X-Forwarded-For": "", "X-Forwarded-Proto": "", "Host": "voice.example.com"},
        ):
            fields = call_fields(new_sid())
            assert is_refused(await forger.ask(path, fields, method=method, headers=headers, signed=None))
    assert without_token.telephone.calls.live() == known


async def test_without_an_auth_token_this_computer_is_served(without_token: PhoneServer) -> None:
    async with Forger(without_token.port, without_token.url) as forger:
        plain = {"X-Forwarded-For": "", "X-Forwarded-Proto": ""}
        answer = await forger.ask("/voice", call_fields(new_sid()), headers=plain, signed=None)
        assert answer.status_code == 200
        assert parameters(answer)["token"]
