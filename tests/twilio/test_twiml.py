"""What Twilio is told to do with a call."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from xml.etree import ElementTree

import httpx
import pytest
import pytest_asyncio
from app.core.config import Settings
from app.emulator import PUBLIC_URL
from app.emulator.twiml import parse
from app.twilio import twiml
from call_stage import PhoneServer, phone_settings
from hypothesis import given
from hypothesis import strategies as st
from twilio_forger import CALLER, STREAM_URL, Forger, call_fields, new_sid, parameters

FULL, FAILED = Settings().phone_full, Settings().phone_failed


@pytest.fixture(scope="module")
def shared() -> Iterator[PhoneServer]:
    with PhoneServer() as running:
        yield running


@pytest_asyncio.fixture
async def forger(shared: PhoneServer) -> AsyncIterator[Forger]:
    async with Forger(shared.port) as asking:
        yield asking


def verbs(answer: httpx.Response | str) -> list[ElementTree.Element]:
    """The verbs of a document, which Twilio would take as it is."""
    if isinstance(answer, httpx.Response):
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/xml")
    document = answer.content if isinstance(answer, httpx.Response) else answer.encode()
    parse(document)
    return list(ElementTree.fromstring(document))  # noqa: S314 (from the server under test)


def outline(answer: httpx.Response | str) -> list[tuple[str, str]]:
    """The verbs of a document with their texts."""
    return [(verb.tag, verb.text or "") for verb in verbs(answer)]


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_call_is_connected_to_a_stream(shared: PhoneServer, forger: Forger, method: str) -> None:
    sid = new_sid()
    answer = await forger.ask("/voice", call_fields(sid), method=method)
    (connect,) = verbs(answer)
    assert connect.tag == "Connect"
    assert connect.attrib == {"action": PUBLIC_URL + "/twilio/after", "method": "POST"}
    (stream,) = connect
    assert stream.attrib == {
        "url": STREAM_URL,  # wss, and no query, which Twilio does not take
        "statusCallback": PUBLIC_URL + "/twilio/stream-status",
        "statusCallbackMethod": "POST",
    }
    given_to_stream = parameters(answer)
    assert given_to_stream.keys() == {"token", "caller", "direction"}
    assert given_to_stream["caller"] == CALLER
    assert given_to_stream["direction"] == "inbound"
    assert shared.telephone.tokens.redeem(given_to_stream["token"], sid)


async def test_a_call_that_was_placed_is_connected_as_outbound(shared: PhoneServer, forger: Forger) -> None:
    sid = new_sid()
    placed = call_fields(sid, Direction="outbound-api", CallStatus="in-progress")
    assert parameters(await forger.ask("/voice", placed))["direction"] == "outbound"
    assert shared.call(sid).direction == "outbound"


async def test_the_streams_address_may_be_elsewhere() -> None:
    with PhoneServer(phone_settings(twilio_ws_url="wss://streams.example.com/twilio/ws")) as server:
        async with Forger(server.port) as forger:
            answer = await forger.ask("/voice", call_fields(new_sid()))
            assert verbs(answer)[0][0].attrib["url"] == "wss://streams.example.com/twilio/ws"


async def test_the_path_that_twilio_asks_first_can_be_chosen() -> None:
    with PhoneServer(phone_settings(voice_webhook_path="/answer")) as server:
        async with Forger(server.port) as forger:
            assert parameters(await forger.ask("/answer", call_fields(new_sid())))["token"]
            assert (await forger.ask("/voice", call_fields(new_sid()))).status_code == 404


async def test_a_caller_with_an_odd_name_does_not_break_the_document(forger: Forger) -> None:
    for caller in ("anonymous", "", '<Say>"&', "sip:someone@example.com", "+" + "1" * 300):
        answer = await forger.ask("/voice", call_fields(new_sid(), From=caller))
        verbs(answer)
        assert parameters(answer)["caller"] == caller


# --- when there is nobody to talk to


async def test_a_full_server_says_so_and_hangs_up() -> None:
    with PhoneServer(phone_settings(max_conversations=1)) as server:
        async with Forger(server.port) as forger, forger.stream() as stream:
            sid, other = new_sid(), new_sid()
            await stream.start(sid, parameters(await forger.ask("/voice", call_fields(sid)))["token"])
            await stream.received()
            assert outline(await forger.ask("/voice", call_fields(other))) == [("Say", FULL), ("Hangup", "")]
            assert server.call(other).as_json()["reason"].startswith("All 1 lines are busy")


async def test_a_server_that_is_still_loading_says_something_polite_and_hangs_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = PhoneServer(load=False)
    monkeypatch.setattr(server.engine, "start", asyncio.Event().wait)  # never
    with server:
        async with Forger(server.port) as forger:
            assert outline(await forger.ask("/voice", call_fields(new_sid()))) == [("Say", FULL), ("Hangup", "")]


async def test_a_server_that_is_about_to_end_says_something_polite_and_hangs_up() -> None:
    with PhoneServer() as server:
        server.engine.closing = True
        async with Forger(server.port) as forger:
            assert outline(await forger.ask("/voice", call_fields(new_sid()))) == [("Say", FULL), ("Hangup", "")]


async def test_a_call_can_be_kept_open_for_another_program() -> None:
    with PhoneServer(phone_settings(phone_after="pause", max_conversations=1)) as server:
        async with Forger(server.port) as forger:
            server.engine.closing = True
            sid = new_sid()
            answer = await forger.ask("/voice", call_fields(sid))
            assert outline(answer) == [("Say", FULL), ("Pause", "")]
            assert verbs(answer)[1].attrib == {"length": "3600"}
            assert not server.call(sid).status.final


async def test_words_of_the_settings_are_said_as_they_are() -> None:
    words = 'Sorry & "goodbye" <soon>'
    with PhoneServer(phone_settings(phone_full=words)) as server:
        server.engine.closing = True
        async with Forger(server.port) as forger:
            assert outline(await forger.ask("/voice", call_fields(new_sid())))[0] == ("Say", words)


# --- what comes after a stream


async def after(forger: Forger, sid: str, **fields: str) -> httpx.Response:
    return await forger.ask("/twilio/after", call_fields(sid, **{"CallStatus": "in-progress", **fields}))


async def test_a_stream_that_could_not_start_is_tried_again_twice_and_then_apologised_for(
    shared: PhoneServer, forger: Forger
) -> None:
    sid = new_sid()
    tokens = [parameters(await forger.ask("/voice", call_fields(sid)))["token"]]
    for _ in range(2):
        tokens.append(parameters(await after(forger, sid))["token"])
    assert len(set(tokens)) == 3
    assert [shared.telephone.tokens.redeem(token, sid) for token in tokens] == [False, False, True]
    assert outline(await after(forger, sid)) == [("Say", FAILED), ("Hangup", "")]
    assert shared.call(sid).status.final


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("goodbye", [("Hangup", "")]),
        ("hangup", [("Hangup", "")]),
        ("idle", [("Hangup", "")]),
        ("full", [("Say", FULL), ("Hangup", "")]),
        ("failed", [("Say", FAILED), ("Hangup", "")]),
        ("shutdown", [("Say", FAILED), ("Hangup", "")]),
    ],
)
async def test_what_follows_a_conversation_goes_by_how_it_ended(
    shared: PhoneServer, forger: Forger, outcome: str, expected: list[tuple[str, str]]
) -> None:
    sid = new_sid()
    await forger.ask("/voice", call_fields(sid))
    shared.call(sid).outcome = outcome
    assert outline(await after(forger, sid)) == expected
    assert shared.call(sid).status.final, "nobody else says so"


async def test_a_caller_who_has_hung_up_is_not_connected_again(shared: PhoneServer, forger: Forger) -> None:
    sid = new_sid()
    await forger.ask("/voice", call_fields(sid))
    assert outline(await after(forger, sid, CallStatus="completed")) == [("Hangup", "")]
    assert shared.call(sid).status.final


async def test_silence_for_too_long_keeps_the_call_open_only_where_that_is_wanted() -> None:
    with PhoneServer(phone_settings(phone_after="pause")) as server:
        async with Forger(server.port) as forger:
            for outcome, expected in (("idle", "Pause"), ("goodbye", "Hangup"), ("hangup", "Hangup")):
                sid = new_sid()
                await forger.ask("/voice", call_fields(sid))
                server.call(sid).outcome = outcome
                assert [verb.tag for verb in verbs(await after(forger, sid))] == [expected]


# --- the documents themselves

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=50).map(str.strip)


@given(texts.filter(bool))
def test_whatever_is_said_arrives_as_it_was_written(words: str) -> None:
    for document in (twiml.say(words), twiml.hang_up(words), twiml.keep_open(words)):
        assert outline(document)[0] == ("Say", words)


def test_a_call_is_put_through_with_a_limit_of_time() -> None:
    document = twiml.put_through(
        "+12025550199", caller_id="+15005550006", timeout_s=20, action="https://x.example.com/a", whisper=""
    )
    (dial,) = verbs(document)
    assert dial.attrib == {
        "action": "https://x.example.com/a",
        "method": "POST",
        "timeout": "20",
        "callerId": "+15005550006",
    }
    assert [(number.tag, number.text, number.attrib) for number in dial] == [("Number", "+12025550199", {})]


def test_whoever_a_call_is_put_through_to_may_be_told_first() -> None:
    whisper = "https://x.example.com/w"
    (dial,) = verbs(
        twiml.put_through(
            "+12025550199", caller_id=None, timeout_s=5, action="https://x.example.com/a", whisper=whisper
        )
    )
    assert "callerId" not in dial.attrib
    assert dial[0].attrib == {"url": whisper, "method": "POST"}
