"""Which media streams are let in: those of a call whose webhook was answered a moment ago, once, and no others."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from app.emulator import ACCOUNT_SID, AUTH_TOKEN, wire
from app.twilio import tokens
from app.websocket import twilio_handler
from app.websocket.direct import Line
from call_stage import PhoneServer, eventually, phone_settings
from twilio_forger import CALLER, STREAM_URL, ForgedStream, Forger, call_fields, new_sid, parameters, signature
from websockets.exceptions import InvalidStatus

POLICY, TRY_LATER = 1008, 1013


@pytest.fixture(scope="module")
def shared() -> Iterator[PhoneServer]:
    with PhoneServer() as running:
        yield running


@pytest_asyncio.fixture
async def forger(shared: PhoneServer) -> AsyncIterator[Forger]:
    """Afterwards nothing is left of the streams, and none of them came to a conversation unless the test says so."""
    opened = shared.opened
    async with Forger(shared.port) as asking:
        yield asking
    shared.nothing_is_left()
    assert shared.opened == opened


async def a_call(forger: Forger) -> tuple[str, str]:
    """The SID and the stream's token of a call that has just been answered."""
    sid = new_sid()
    return sid, parameters(await forger.ask("/voice", call_fields(sid)))["token"]


async def is_not_accepted(stream: ForgedStream) -> bool:
    try:
        async with stream:
            return False
    except InvalidStatus as refusal:
        return refusal.response.status_code == 403


async def is_turned_out(stream: ForgedStream, *start: Any, **changes: Any) -> bool:
    """It is accepted, says what it is, and is closed with nothing said to it."""
    async with stream:
        await stream.start(*start, **changes)
        return await stream.closed() == POLICY and stream.messages == []


async def test_a_stream_without_twilios_signature_is_not_even_accepted(forger: Forger) -> None:
    sid, _ = await a_call(forger)
    for wrong in (
        None,
        "nonsense",
        signature(STREAM_URL, token="f" * 32),
        signature("wss://elsewhere.example.com/twilio/ws"),
        signature("https://voice.example.com/twilio/ws"),
        signature("wss://voice.example.com/twilio"),
        signature("https://voice.example.com/voice", call_fields(sid)),
    ):
        assert await is_not_accepted(forger.stream(signed=wrong))


async def test_the_name_that_a_proxy_passes_on_does_not_count_where_ours_is_known(forger: Forger) -> None:
    evil = signature("wss://evil.example.com/twilio/ws")
    assert await is_not_accepted(forger.stream(signed=evil, host="evil.example.com"))
    headers: dict[str, Any] = {"X-Forwarded-Host": "evil.example.com"}
    assert await is_not_accepted(forger.stream(signed=evil, **headers))


async def test_a_stream_needs_the_token_of_its_call(forger: Forger) -> None:
    sid, token = await a_call(forger)
    other, _ = await a_call(forger)
    for wrong in (None, "", token[:-1], token.swapcase(), "٣" * 32):
        assert await is_turned_out(forger.stream(), sid, wrong)
    assert await is_turned_out(forger.stream(), other, token), "it is the token of another call"
    assert await is_turned_out(forger.stream(), sid, token), "an attempt with it has been made"


async def test_a_token_of_a_call_that_nobody_knows_any_more_is_worth_nothing(
    shared: PhoneServer, forger: Forger
) -> None:
    sid, token = await a_call(forger)
    await forger.ask("/twilio/status", call_fields(sid, CallStatus="completed"))
    assert await is_turned_out(forger.stream(), sid, token)
    unknown = new_sid()
    assert await is_turned_out(forger.stream(), unknown, shared.telephone.tokens.issue(unknown))


async def test_a_token_that_is_too_old_is_worth_nothing(forger: Forger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "LIFETIME_S", -1.0)
    sid, token = await a_call(forger)
    assert await is_turned_out(forger.stream(), sid, token)


async def test_a_stream_of_another_account_is_turned_out(forger: Forger) -> None:
    sid, token = await a_call(forger)
    assert await is_turned_out(forger.stream(), sid, token, account_sid="AC" + "9" * 32)


async def test_a_stream_of_other_audio_is_turned_out(forger: Forger) -> None:
    for wrong in ('"audio/x-l16"', '"audio/x-mulaw"; charset'):
        sid, token = await a_call(forger)
        async with forger.stream() as stream:
            start = wire.start(1, stream.sid, ACCOUNT_SID, sid, {"token": token})
            await stream.send(start.replace('"audio/x-mulaw"', wrong.partition(";")[0]).replace("8000", "16000"))
            assert await stream.closed() == POLICY
            assert stream.messages == []


async def test_a_stream_with_an_odd_sid_is_turned_out(forger: Forger) -> None:
    """The SID is written into every message as it stands."""
    for odd in ('MZ","x":"', "", "M Z", "MZ\\u0022"):
        sid, token = await a_call(forger)
        stream = forger.stream()
        stream.sid = odd
        assert await is_turned_out(stream, sid, token)


async def test_a_stream_that_does_not_start_is_closed(
    shared: PhoneServer, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_handler, "START_TIMEOUT_S", 0.05)
    async with forger.stream() as silent, forger.stream() as chatty:
        await chatty.send(wire.CONNECTED)
        await chatty.send(wire.media(1, chatty.sid, 1, 0, "/w=="))
        assert await silent.closed() == POLICY
        assert await chatty.closed() == POLICY


async def test_a_start_that_comes_too_late_begins_nothing(
    shared: PhoneServer, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sid, token = await a_call(forger)
    given_up, close = threading.Event(), threading.Event()
    really_close = twilio_handler._close

    async def close_when_told(line: Line, code: int) -> None:
        given_up.set()
        await asyncio.to_thread(close.wait, 20)
        await really_close(line, code)

    monkeypatch.setattr(twilio_handler, "START_TIMEOUT_S", 0.05)
    monkeypatch.setattr(twilio_handler, "_close", close_when_told)
    async with forger.stream() as stream:
        await asyncio.to_thread(given_up.wait, 20)
        await stream.start(sid, token)
        await stream.pinged()
        close.set()
        assert await stream.closed() == POLICY
        assert stream.messages == []


async def test_a_stream_that_leaves_before_its_start_leaves_nothing(shared: PhoneServer, forger: Forger) -> None:
    async with forger.stream() as polite:
        await polite.send(wire.CONNECTED)
    async with forger.stream() as rude:
        await rude.send(wire.CONNECTED)
        rude.cut()
    await eventually(shared.is_idle, "the end of both")


async def test_no_more_than_so_many_streams_may_be_about_to_start(
    forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_handler, "MAX_STARTING", 2)
    async with forger.stream(), forger.stream():
        assert await is_not_accepted(forger.stream())
    async with forger.stream() as later:
        await later.send(wire.CONNECTED)


async def test_what_is_written_about_refused_streams_holds_no_secrets(
    forger: Forger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _, token = await a_call(forger)
    other, _ = await a_call(forger)
    assert await is_not_accepted(forger.stream(signed="nonsense"))
    given = {"token": token, "caller": CALLER, "said": "tell nobody about this"}
    assert await is_turned_out(forger.stream(), other, None, parameters=given)
    written = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("app"))
    assert written.count("Refused a media stream") == 2
    for secret in (token, CALLER, CALLER[1:], "tell nobody", AUTH_TOKEN):
        assert secret not in written


# --- who is let in


async def test_the_stream_of_an_answered_call_is_let_in_once() -> None:
    with PhoneServer() as server:
        async with Forger(server.port) as forger:
            sid, token = await a_call(forger)
            async with forger.stream() as stream:
                await stream.start(sid, token)
                assert '"media"' in await stream.received()
                assert await is_turned_out(forger.stream(), sid, token)
                assert server.call(sid).conversation, "whoever came second has not disturbed the first"
            server.nothing_is_left()
            assert await is_turned_out(forger.stream(), sid, token)
            assert server.opened == 1


@pytest.mark.parametrize(
    ("settings", "address", "headers"),
    [
        ({"public_base_url": None}, "wss://tunnel.example.com/twilio/ws", {"X-Forwarded-Host": "tunnel.example.com"}),
        ({"public_base_url": "https://example.com/ahoy"}, "wss://example.com/ahoy/twilio/ws", {}),
        ({"twilio_ws_url": "wss://streams.example.com/a"}, "wss://streams.example.com/a", {}),
        ({}, STREAM_URL + "/", {}),
        ({}, "wss://voice.example.com:443/twilio/ws", {}),
    ],
)
async def test_a_stream_through_a_proxy_carries_a_good_signature(
    settings: dict[str, Any], address: str, headers: dict[str, str]
) -> None:
    with PhoneServer(phone_settings(**settings)) as server:
        async with Forger(server.port) as forger, forger.stream(signed=signature(address), **headers) as stream:
            await stream.send(wire.CONNECTED)
            assert await is_not_accepted(forger.stream(signed=signature("wss://evil.example.com/x"), **headers))


async def test_without_an_auth_token_only_this_computer_may_stream() -> None:
    settings = phone_settings(twilio_auth_token=None, twilio_account_sid=None, public_base_url=None)
    with PhoneServer(settings) as server:
        here = f"127.0.0.1:{server.port}"
        async with Forger(server.port, f"http://{here}") as forger:
            for headers in ({"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"Via": "1.1 tunnel"}):
                assert await is_not_accepted(forger.stream(signed=None, host=here, **headers))
            assert await is_not_accepted(
                forger.stream(signed=None, host="voice.example.com", **{"X-Forwarded-For": ""})
            )
            async with forger.stream(signed=None, host=here, **{"X-Forwarded-For": ""}) as stream:
                await stream.send(wire.CONNECTED)
