"""The telephone's routes: what they take and give, who may ask, and how they say no."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import pytest
import pytest_asyncio
from app.conversation import messages as msg
from app.core.errors import CallError
from app.main import create_app
from app.twilio.calls import Call, CallStatus
from app_server import scripted
from phone_stage import ELSEWHERE, TO, PhoneStage, phone_stage, refusal

KEY = "a-long-random-text"


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[PhoneStage]:
    async with phone_stage() as running:
        yield running


async def post(stage: PhoneStage, path: str = "/api/call", **request: Any) -> httpx.Response:
    return await stage.client.post(path, **request)


async def until(call: Call, status: CallStatus) -> None:
    async with asyncio.timeout(10):
        while call.status is not status:
            await call.wait_for_change()


# --- placing a call


async def test_a_call_is_placed_by_its_number_in_the_body(stage: PhoneStage) -> None:
    answer = await post(stage, json={"number": "(202) 555-0123"})
    assert answer.status_code == 201
    call = answer.json()
    assert (call["to"], call["direction"], call["status"]) == (TO, "outbound", "queued")
    assert answer.headers["Location"] == f"/api/call/{call['sid']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert list(stage.twilio.lines) == [call["sid"]]


async def test_a_call_is_placed_by_its_number_in_the_address(stage: PhoneStage) -> None:
    """A + that nobody has written as %2B arrives as a space."""
    for query in ("%2B12025550123", "+12025550123", "2025550123", "(202)%20555-0123"):
        assert (await post(stage, f"/api/call?number={query}")).json()["to"] == TO


async def test_the_number_may_be_given_twice_if_it_is_the_same(stage: PhoneStage) -> None:
    answer = await post(stage, "/api/call?number=%2B12025550123", json={"number": TO})
    assert answer.status_code == 201
    for path, body in (
        (f"/api/call?number=%2B{ELSEWHERE[1:]}", {"number": TO}),
        ("/api/call?number=%2B12025550123&number=%2B18765550123", None),
        ("/api/call?number=2025550123", {"number": TO}),
    ):
        assert refusal(await post(stage, path, json=body) if body else await post(stage, path))[0] == 400
    assert stage.dialled == [TO]


async def test_the_key_may_be_in_the_header_or_in_the_body(stage: PhoneStage) -> None:
    first = await post(stage, json={"number": TO, "idempotency_key": "k"})
    second = await post(stage, json={"number": TO}, headers={"Idempotency-Key": "k"})
    third = await post(stage, json={"number": TO, "idempotency_key": "k"}, headers={"Idempotency-Key": "k"})
    assert [answer.status_code for answer in (first, second, third)] == [201, 200, 200]
    assert first.json()["sid"] == second.json()["sid"] == third.json()["sid"]
    assert stage.dialled == [TO]


async def test_a_key_that_is_none_is_refused(stage: PhoneStage) -> None:
    for key in ("", "x" * 256, "a b", "\u00e9", "a\tb"):
        in_header = [(b"idempotency-key", key.encode("latin-1"))]
        assert refusal(await post(stage, json={"number": TO}, headers=in_header)) == (400, "bad_request")
        assert refusal(await post(stage, json={"number": TO, "idempotency_key": key})) == (400, "bad_request")
    assert stage.dialled == []


async def test_different_keys_are_refused(stage: PhoneStage) -> None:
    body = {"number": TO, "idempotency_key": "a"}
    assert refusal(await post(stage, json=body, headers={"Idempotency-Key": "b"}))[0] == 400
    two = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert refusal(await post(stage, json={"number": TO}, headers=two))[0] == 400
    assert (await post(stage, json={"number": TO}, headers=[("Idempotency-Key", "x" * 255)])).status_code == 201
    assert stage.dialled == [TO]


FAULTY_BODIES = [
    (b"", "No number"),
    (b"{}", "No number"),
    (b'{"number": null}', "No number"),
    (b"{", "Invalid JSON"),
    (b"[]", "object"),
    (b'"+12025550123"', "object"),
    (b'{"number": 12025550123}', "number"),
    (b'{"number": ["+12025550123"]}', "number"),
    (b'{"number": "+12025550123", "numbr": "1"}', "numbr"),
    (b'{"number": "+12025550123", "idempotency_key": 7}', "idempotency_key"),
    (b'{"number": "\xff"}', ""),
    (b'{"number": "+12025550123\\u0000"}', "digits 0 to 9"),
    (b"[" * 4000, ""),
    (b"null", ""),
]


async def test_a_body_that_is_not_what_it_should_be_gets_an_error_that_says_so(stage: PhoneStage) -> None:
    for body, said in FAULTY_BODIES:
        answer = await post(stage, content=body, headers={"Content-Type": "application/json"})
        assert (body, refusal(answer)[0]) == (body, 400)
        assert said in answer.json()["error"]["message"]
    assert stage.dialled == []


async def test_a_body_is_json_and_says_so(stage: PhoneStage) -> None:
    """The others are what a browser sends to any server without asking it first."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
        headers = {"Content-Type": kind} if kind else {}
        answer = await post(stage, content=json.dumps({"number": TO}).encode(), headers=headers)
        assert refusal(answer) == (415, "not_json")
    assert stage.dialled == []


async def test_a_large_body_is_refused_however_it_is_sent(stage: PhoneStage) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1024

    kind = {"Content-Type": "application/json"}
    assert refusal(await post(stage, content=b" " * 5000, headers=kind)) == (413, "body_too_large")
    assert refusal(await post(stage, content=endless(), headers=kind)) == (413, "body_too_large")


async def test_twilios_own_error_keeps_its_number(stage: PhoneStage) -> None:
    stage.twilio.rest.refuse_next(400, 21215, "Account not authorized to call")
    answer = await stage.call()
    assert refusal(answer) == (403, "twilio_21215")
    assert answer.json()["error"]["twilio_code"] == 21215


async def test_a_mistake_of_ours_is_a_500_without_its_insides(stage: PhoneStage) -> None:
    async def broken(**_: object) -> tuple[str, str]:
        raise RuntimeError("the inside")

    stage.telephone.rest.create_call = broken  # type: ignore[method-assign]
    answer = await stage.call()
    assert refusal(answer) == (500, "internal_error")
    assert "inside" not in answer.text


# --- the call


async def test_a_call_is_shown_and_hung_up_and_hanging_up_again_changes_nothing(stage: PhoneStage) -> None:
    call = await stage.placed()
    path = f"/api/call/{call.sid}"
    await until(call, CallStatus.RINGING)
    assert (await stage.client.get(path)).json() == call.as_json()
    for _ in range(2):
        answer = await stage.client.delete(path)
        assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert await stage.twilio.lines[call.sid].ended() == "canceled"


async def test_an_unknown_call_is_404_whatever_is_asked_of_it(stage: PhoneStage) -> None:
    for method, below, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("GET", "/events", None),
        ("POST", "/transfer", {"number": TO}),
        ("POST", "/hold", {"held": True}),
    ):
        for sid in ("CA" + "0" * 32, "x", "%2e%2e", "CA%0a", "CA\u00e9"):
            answer = await stage.client.request(method, f"/api/call/{sid}{below}", json=body)
            assert refusal(answer) == (404, "unknown_call")


async def test_a_call_that_is_not_in_conversation_is_neither_held_nor_put_through(stage: PhoneStage) -> None:
    call = await stage.placed()
    assert refusal(await post(stage, f"/api/call/{call.sid}/hold", json={"held": True})) == (409, "not_in_progress")
    answer = await post(stage, f"/api/call/{call.sid}/transfer", json={"number": ELSEWHERE})
    assert refusal(answer) == (409, "not_in_progress")


async def test_hold_is_true_or_false(stage: PhoneStage) -> None:
    call = await stage.placed()
    for body in ({}, {"held": "yes"}, {"held": 1}, {"held": None}, {"held": True, "now": True}):
        assert refusal(await post(stage, f"/api/call/{call.sid}/hold", json=body)) == (400, "bad_request")


class Transfers:
    """Takes the place of putting calls through, which needs a conversation."""

    def __init__(self, stage: PhoneStage, failure: CallError | None = None) -> None:
        self.asked: list[tuple[str, bool]] = []
        self._failure = failure
        stage.telephone.transfer = self.transfer  # type: ignore[method-assign]

    async def transfer(self, call: object, number: str, *, warm: bool) -> None:
        if self._failure:
            raise self._failure
        self.asked.append((number, warm))


async def test_a_call_is_put_through_to_allowed_numbers_only(stage: PhoneStage) -> None:
    """Otherwise a call to an allowed number would be the way to any other."""
    call = await stage.placed()
    through = Transfers(stage)
    path = f"/api/call/{call.sid}/transfer"
    for number, expected in (
        ("+18765550123", (403, "number_not_allowed")),
        ("+19005550123", (403, "number_not_allowed")),
        ("911", (403, "number_not_allowed")),
        ("sip:someone@example.com", (400, "not_a_number")),
        ("+1202555012\uff13", (400, "not_a_number")),
    ):
        assert refusal(await post(stage, path, json={"number": number})) == expected
    assert refusal(await post(stage, path)) == (400, "not_a_number")  # TRANSFER_NUMBER is not set
    assert through.asked == []
    assert (await post(stage, path, json={"number": "(202) 555-0199"})).status_code == 200
    assert (await post(stage, path, json={"number": ELSEWHERE, "warm": False})).status_code == 200
    assert through.asked == [(ELSEWHERE, True), (ELSEWHERE, False)]


async def test_the_transfer_number_of_the_settings_needs_no_entry_in_the_list() -> None:
    async with phone_stage(transfer_number="+442079460018") as stage:
        call = await stage.placed()
        through = Transfers(stage)
        path = f"/api/call/{call.sid}/transfer"
        assert (await post(stage, path)).status_code == 200
        assert (await post(stage, path, json={"number": "+44 20 7946 0018"})).status_code == 200
        assert refusal(await post(stage, path, json={"number": "+442079460019"}))[0] == 403
        assert through.asked == [("+442079460018", True)] * 2


async def test_transfers_count_as_calls_unless_nothing_came_of_them() -> None:
    async with phone_stage(outbound_per_caller=2) as stage:
        path = f"/api/call/{(await stage.placed()).sid}/transfer"
        Transfers(stage, CallError("It is not in conversation", code="not_in_progress", http_status=409))
        for _ in range(3):
            assert refusal(await post(stage, path, json={"number": ELSEWHERE}))[0] == 409
        through = Transfers(stage)
        assert (await post(stage, path, json={"number": ELSEWHERE})).status_code == 200
        assert refusal(await post(stage, path, json={"number": ELSEWHERE})) == (429, "quota_exceeded")
        assert len(through.asked) == 1


async def test_the_page_learns_whether_it_can_call_and_how_numbers_are_read(stage: PhoneStage) -> None:
    answer = await stage.client.get("/api/phone")
    assert answer.json() == {"outbound": True, "reason": "", "region": "US", "country_code": 1, "allowed": ["+1"]}
    async with phone_stage(outbound_allowed="", phone_region="DE") as other:
        about = (await other.client.get("/api/phone")).json()
        assert "OUTBOUND_ALLOWED" in about.pop("reason")
        assert about == {"outbound": False, "region": "DE", "country_code": 49, "allowed": []}


# --- who may


ROUTES = [
    ("GET", "/api/phone"),
    ("POST", "/api/call"),
    ("GET", "/api/call/CA0"),
    ("DELETE", "/api/call/CA0"),
    ("GET", "/api/call/CA0/events"),
    ("POST", "/api/call/CA0/transfer"),
    ("POST", "/api/call/CA0/hold"),
]


async def test_every_route_is_closed_to_strangers_before_anything_else_is_looked_at(stage: PhoneStage) -> None:
    for method, path in ROUTES:
        for headers, expected in (
            ({"X-Forwarded-For": "127.0.0.1"}, (403, "local_only")),
            ({"Host": "evil.example"}, (403, "local_only")),
            ({"Origin": "https://evil.example"}, (403, "origin_not_allowed")),
            ({"Origin": "null"}, (403, "origin_not_allowed")),
        ):
            wrong = {**headers, "Content-Type": "text/plain"}
            answer = await stage.client.request(method, path, headers=wrong, content=b"[" * 9000)
            assert (path, refusal(answer)) == (path, expected)
    assert stage.twilio.rest.requests == []


async def test_every_route_wants_the_key_where_one_is_set() -> None:
    async with phone_stage(api_key=KEY) as locked:
        for method, path in ROUTES:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
                answer = await locked.client.request(method, path, headers=headers)
                assert (path, refusal(answer)) == (path, (401, "unauthorized"))
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert locked.twilio.rest.requests == []


async def test_a_key_that_is_not_ascii_is_wrong_and_breaks_nothing() -> None:
    async with phone_stage(api_key=KEY) as stage:
        answer = await post(stage, json={"number": TO}, headers=[(b"authorization", b"Bearer \xff\xfe\xe9")])
        assert refusal(answer) == (401, "unauthorized")


async def test_whoever_has_the_key_calls_through_a_proxy_and_our_own_page_here_without_one(stage: PhoneStage) -> None:
    assert (await post(stage, json={"number": TO}, headers={"Origin": stage.url})).status_code == 201
    async with phone_stage(api_key=KEY) as locked:
        headers = {"Authorization": f"Bearer {KEY}", "X-Forwarded-For": "203.0.113.5", "Host": "voice.example.com"}
        assert (await post(locked, json={"number": TO}, headers=headers)).status_code == 201
        own = {**headers, "Origin": "https://voice.example.com"}
        assert (await post(locked, json={"number": TO}, headers=own)).status_code == 201


async def test_everybody_with_the_key_shares_its_quota_wherever_they_say_they_are() -> None:
    async with phone_stage(api_key=KEY, outbound_per_caller=2) as stage:
        answers = [
            await post(
                stage,
                json={"number": TO},
                headers={"Authorization": f"Bearer {KEY}", "X-Forwarded-For": f"203.0.113.{number}"},
            )
            for number in range(3)
        ]
        assert [answer.status_code for answer in answers] == [201, 201, 429]


# --- the description


def resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": document["components"]}


async def test_the_description_holds_for_what_is_sent(stage: PhoneStage) -> None:
    document = stage.app.openapi()
    assert "HTTPValidationError" not in json.dumps(document)
    place = document["paths"]["/api/call"]["post"]
    call = await stage.placed()
    schema = place["responses"]["201"]["content"]["application/json"]["schema"]
    jsonschema.validate(call.as_json(), resolved(document, schema))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"sid": call.sid}, resolved(document, schema))
    for status in ("400", "401", "403", "409", "429", "502", "503", "504", "default"):
        error = place["responses"][status]["content"]["application/json"]["schema"]
        jsonschema.validate((await stage.call("x")).json(), resolved(document, error))
    taken = place["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.validate({"number": TO}, taken)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"number": TO, "more": 1}, taken)


async def test_every_route_is_described(stage: PhoneStage) -> None:
    paths = stage.app.openapi()["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert described == {(method, path.replace("CA0", "{sid}")) for method, path in ROUTES}
    for methods in paths.values():
        for operation in methods.values():
            assert operation["summary"]
            assert operation["description"]
            assert operation["tags"] == ["telephone"]


# --- what was said is in it


async def test_the_call_shows_what_was_said(stage: PhoneStage) -> None:
    call = await stage.placed()
    call.moved_to(CallStatus.IN_PROGRESS)
    call.told(msg.TranscriptShown(1, "What time is it?", True))
    shown = (await stage.client.get(f"/api/call/{call.sid}")).json()
    assert shown["captions"] == [{"who": "caller", "text": "What time is it?", "final": True}]
    assert shown["status"] == "in-progress"


async def test_a_page_that_may_ask_from_elsewhere_is_told_so_by_its_browser_and_no_other() -> None:
    app = create_app(scripted(allowed_origins=("https://app.example.com",)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000") as client:
        wanted = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
        }
        allowed = await client.options("/api/call", headers={"Origin": "https://app.example.com", **wanted})
        refused = await client.options("/api/call", headers={"Origin": "https://evil.example", **wanted})
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert "access-control-allow-origin" not in refused.headers
