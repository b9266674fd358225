"""A call is placed once, or it is said why not; requests that come at once get no further than one after the other."""

import asyncio

import pytest
from app.core.errors import TwilioError
from app.emulator import NUMBER, PUBLIC_URL, Busy, Refused
from app.twilio import outbound
from app.twilio import rest as rest_module
from app.twilio.calls import Call, CallStatus
from app.twilio.outbound import make_outbound_call
from phone_stage import ELSEWHERE, TO, phone_stage, refusal


async def until(call: Call, status: CallStatus) -> None:
    async with asyncio.timeout(10):
        while call.status is not status:
            await call.wait_for_change()


async def test_twilio_is_asked_for_the_call_as_the_settings_say() -> None:
    async with phone_stage(ring_timeout_s=25, voicemail="message", voice_webhook_path="/answer") as stage:
        call = await stage.placed("(202) 555-0123")
        assert (call.direction, call.caller, call.callee) == ("outbound", NUMBER, TO)
        given = dict(stage.twilio.rest.requests[0].parameters)
        assert given["To"] == TO
        assert given["From"] == NUMBER
        assert given["Url"] == PUBLIC_URL + "/answer"
        assert given["StatusCallback"] == PUBLIC_URL + "/twilio/status"
        assert given["Timeout"] == "25"
        assert given["MachineDetection"] == "DetectMessageEnd"
        assert given["AsyncAmdStatusCallback"] == PUBLIC_URL + "/twilio/amd"


@pytest.mark.parametrize(("voicemail", "detection"), [("hangup", "Enable"), ("talk", None)])
async def test_machines_are_looked_for_unless_they_are_talked_to(voicemail: str, detection: str | None) -> None:
    async with phone_stage(voicemail=voicemail) as stage:
        await stage.placed()
        given = dict(stage.twilio.rest.requests[0].parameters)
        assert given.get("MachineDetection") == detection
        assert ("AsyncAmdStatusCallback" in given) == (detection is not None)


async def test_what_becomes_of_the_call_is_known_from_twilios_reports() -> None:
    async with phone_stage() as stage:
        stage.twilio.when_called("+12025550111", Busy())
        call = await stage.placed("+12025550111")
        await until(call, CallStatus.BUSY)
        assert call.reason == "The line is busy."


async def test_a_report_that_is_quicker_than_twilios_answer_is_about_the_same_call() -> None:
    async with phone_stage() as stage:
        early: list[Call] = []
        create = stage.telephone.rest.create_call

        async def slower(**parameters: object) -> tuple[str, str]:
            sid, status = await create(**parameters)  # type: ignore[arg-type]
            early.append(stage.telephone.calls.add(Call(sid, "outbound", NUMBER, TO)))
            early[0].moved_to(CallStatus.RINGING)
            return sid, status

        stage.telephone.rest.create_call = slower  # type: ignore[method-assign]
        call = await stage.placed()
        assert call is early[0]
        assert call.status is CallStatus.RINGING  # and not queued again


# --- once


async def test_the_same_key_gives_the_same_call_and_dials_once() -> None:
    async with phone_stage() as stage:
        first, second = await stage.call(key="k"), await stage.call("202 555 0123", key="k")
        assert (first.status_code, second.status_code) == (201, 200)
        assert first.json()["sid"] == second.json()["sid"]
        assert stage.dialled == [TO]


async def test_the_same_key_while_the_first_request_is_on_its_way_waits_for_it() -> None:
    async with phone_stage() as stage:
        answers = await asyncio.gather(*(stage.call(key="k") for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
        assert len({answer.json()["sid"] for answer in answers}) == 1
        assert stage.dialled == [TO]


async def test_the_same_key_for_another_number_is_a_conflict_also_while_the_first_is_on_its_way() -> None:
    async with phone_stage() as stage:
        answers = await asyncio.gather(stage.call(key="k"), stage.call(ELSEWHERE, key="k"))
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        assert refusal(await stage.call("+12025550111", key="k")) == (409, "key_reused")
        assert len(stage.dialled) == 1


async def test_another_key_or_none_is_another_call() -> None:
    async with phone_stage() as stage:
        answers = [await stage.call(key="a"), await stage.call(key="b"), await stage.call(), await stage.call()]
        assert len({answer.json()["sid"] for answer in answers}) == 4


async def test_a_key_works_for_a_call_that_is_over_and_when_the_quota_is_used_up() -> None:
    async with phone_stage(outbound_per_caller=1) as stage:
        first = await stage.call(key="k")
        await stage.telephone.hang_up(stage.known(first))
        again = await stage.call(key="k")
        assert (again.status_code, again.json()["status"]) == (200, "canceled")
        assert refusal(await stage.call()) == (429, "quota_exceeded")


async def test_when_the_answer_gets_lost_the_key_is_used_and_nothing_is_dialled_again() -> None:
    async with phone_stage() as stage:
        stage.twilio.rest.next_mishap("lose the answer")
        for _ in range(3):
            answer = await stage.call(key="k")
            assert refusal(answer) == (502, "twilio_no_answer")
            assert "not known whether the call was placed" in answer.json()["error"]["message"]
        assert stage.dialled == [TO]


async def test_when_twilio_takes_too_long_it_is_504_and_the_key_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_module, "TOTAL_TIMEOUT_S", 0.3)
    async with phone_stage() as stage:
        stage.twilio.rest.next_mishap("hang")
        answers = await asyncio.gather(*(stage.call(key="k") for _ in range(3)))
        assert {refusal(answer) for answer in answers} == {(504, "twilio_no_answer")}
        assert stage.dialled == []  # a second request would have been answered


async def test_when_twilio_refuses_the_key_may_be_used_again() -> None:
    async with phone_stage() as stage:
        stage.twilio.rest.refuse_next(429, 20429)
        assert refusal(await stage.call(key="k")) == (503, "twilio_20429")
        assert (await stage.call(key="k")).status_code == 201


async def test_a_first_request_that_is_broken_off_leaves_its_key_used_and_those_who_wait_are_told() -> None:
    async with phone_stage() as stage:
        asked = asyncio.Event()

        async def for_ever(**_: object) -> tuple[str, str]:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        stage.telephone.rest.create_call = for_ever  # type: ignore[method-assign]

        async def place() -> Call:
            call, _ = await make_outbound_call(TO, telephone=stage.telephone, who="me", idempotency_key="k")
            return call

        first = asyncio.create_task(place())
        await asked.wait()
        waiting = asyncio.create_task(place())
        await asyncio.sleep(0)
        first.cancel()
        for task in (waiting, asyncio.create_task(place())):
            with pytest.raises(TwilioError) as error:
                await task
            assert (error.value.http_status, error.value.outcome_unknown) == (504, True)


# --- toll fraud


async def test_requests_that_come_at_once_do_not_exceed_the_lines() -> None:
    async with phone_stage(outbound_at_once=2) as stage:
        answers = await asyncio.gather(*(stage.call() for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [201] * 2 + [503] * 8
        assert len(stage.dialled) == 2


@pytest.mark.parametrize("quota", ["outbound_per_caller", "outbound_per_day"])
async def test_requests_that_come_at_once_do_not_exceed_a_quota(quota: str) -> None:
    async with phone_stage(**{quota: 3, "outbound_at_once": 100}) as stage:
        answers = await asyncio.gather(*(stage.call(key=str(n)) for n in range(12)))
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 9
        assert len(stage.dialled) == 3
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert 0 < int(refused.headers["Retry-After"]) <= 86_400


async def test_quotas_free_themselves_with_time_and_lines_with_the_end_of_a_call() -> None:
    async with phone_stage(outbound_per_caller=2, outbound_at_once=1) as stage:
        call = await stage.placed()
        assert refusal(await stage.call()) == (503, "lines_busy")
        await stage.telephone.hang_up(call)
        await stage.telephone.hang_up(await stage.placed())
        assert refusal(await stage.call()) == (429, "quota_exceeded")
        stage.now_s += 3600
        await stage.placed()


async def test_what_twilio_refuses_costs_no_quota_and_what_may_have_been_dialled_does() -> None:
    async with phone_stage(outbound_per_caller=1) as stage:
        stage.twilio.when_called("+12025550111", Refused(21214, "cannot be reached"))
        for _ in range(3):
            assert refusal(await stage.call("+12025550111")) == (400, "twilio_21214")
        stage.twilio.rest.next_mishap("lose the answer")
        assert refusal(await stage.call()) == (502, "twilio_no_answer")
        assert refusal(await stage.call()) == (429, "quota_exceeded")


SPELLINGS = [
    ("+442079460018", (403, "number_not_allowed")),  # not on the list
    ("+18765550123", (403, "number_not_allowed")),  # shares the code +1 with the list
    ("+1 809 555 0123", (403, "number_not_allowed")),
    ("+19005550123", (403, "number_not_allowed")),
    ("900 555 0123", (403, "number_not_allowed")),
    ("+979123456789", (403, "number_not_allowed")),
    ("+881612345678", (403, "number_not_allowed")),
    ("00442079460018", (403, "number_not_allowed")),
    ("011442079460018", (403, "number_not_allowed")),
    ("911", (403, "number_not_allowed")),
    (NUMBER, (403, "number_not_allowed")),
    ("+\u0661\u0662\u0660\u0662\u0665\u0665\u0665\u0660\u0661\u0662\u0663", (400, "not_a_number")),
    ("\uff0b12025550123", (400, "not_a_number")),
    ("+12025550123,18765550123", (400, "not_a_number")),
    ("+12025550123;ext=911", (400, "not_a_number")),
    ("+1202555\u200b0123", (400, "not_a_number")),
    ("\u202e+12025550123", (400, "not_a_number")),
    ("sip:+12025550123@evil.example", (400, "not_a_number")),
    ("client:+12025550123", (400, "not_a_number")),
    ("tel:+12025550123", (400, "not_a_number")),
    ("1-800-FLOWERS", (400, "not_a_number")),
    ("", (400, "not_a_number")),
]


async def test_no_spelling_gets_a_number_past_the_list() -> None:
    async with phone_stage() as stage:
        for number, expected in SPELLINGS:
            assert (number, refusal(await stage.call(number))) == (number, expected)
            in_address = await stage.client.post("/api/call", params={"number": number})
            assert (number, refusal(in_address)) == (number, expected)
        assert stage.twilio.rest.requests == []


async def test_nothing_is_dialled_without_a_list() -> None:
    async with phone_stage(outbound_allowed="") as stage:
        assert refusal(await stage.call()) == (403, "number_not_allowed")
        assert stage.twilio.rest.requests == []


# --- when it cannot be


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ({"twilio_account_sid": None}, "TWILIO_ACCOUNT_SID"),
        ({"twilio_auth_token": None}, "TWILIO_AUTH_TOKEN"),
        ({"twilio_phone_number": None, "phone_region": "US"}, "TWILIO_PHONE_NUMBER"),
        ({"public_base_url": None, "twilio_api_url": None}, "PUBLIC_BASE_URL"),
    ],
)
async def test_what_is_not_set_yet_is_named(missing: dict[str, object], said: str) -> None:
    async with phone_stage(**missing) as stage:
        answer = await stage.call()
        assert refusal(answer) == (503, "calls_not_configured")
        assert said in answer.json()["error"]["message"]
        about = (await stage.client.get("/api/phone")).json()
        assert about["outbound"] is False
        assert said in about["reason"]


async def test_nobody_is_called_whom_the_assistant_could_not_talk_to() -> None:
    async with phone_stage() as stage:
        stage.engine.no_room_because = "The models are still being loaded; try again in a moment."
        answer = await stage.call()
        assert refusal(answer) == (503, "no_room")
        assert int(answer.headers["Retry-After"]) > 0
        assert stage.twilio.rest.requests == []


async def test_a_line_whose_end_was_never_reported_is_free_again() -> None:
    async with phone_stage(outbound_at_once=1) as stage:
        call = await stage.placed()
        await stage.telephone.rest.complete(call.sid)
        await stage.twilio.lines[call.sid].ended()
        call.status, call.ended_s = CallStatus.RINGING, None  # as if the report had got lost
        assert refusal(await stage.call()) == (503, "lines_busy")  # it may still ring
        call.began_s -= outbound._SILENCE_S + stage.telephone.settings.ring_timeout_s
        assert (await stage.call()).status_code == 201
        assert call.status is CallStatus.CANCELED
