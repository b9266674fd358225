"""What is known of a call: where it stands, what was said, and for how long it is remembered."""

import asyncio
import time
from itertools import pairwise

import pytest
from app.conversation import messages as msg
from app.twilio import calls as calls_module
from app.twilio.calls import LONGEST_CALL_S, Call, Calls, CallStatus, Transfer
from hypothesis import given
from hypothesis import strategies as st

SID = "CA" + "0" * 32
CALLER, CALLEE = "+12025550123", "+12025550199"


def sid(number: int) -> str:
    return f"CA{number:032x}"


def a_call(**given_: object) -> Call:
    return Call(SID, "inbound", CALLER, CALLEE, **given_)  # type: ignore[arg-type]


def lines(call: Call) -> list[tuple[str, str, bool]]:
    return [(line["who"], line["text"], line["final"]) for line in call.as_json()["captions"]]


# --- where it stands

statuses = st.lists(st.sampled_from(list(CallStatus)), max_size=8)


@given(statuses)
def test_reports_in_any_order_never_take_a_call_back(reports: list[CallStatus]) -> None:
    order = [CallStatus.QUEUED, CallStatus.INITIATED, CallStatus.RINGING, CallStatus.IN_PROGRESS]
    call = a_call()
    seen = [call.status]
    for report in reports:
        call.moved_to(report)
        seen.append(call.status)
    for before, now in pairwise(seen):
        assert now is before or now.final or order.index(now) > order.index(before)
        assert now is before or not before.final, "what is over stays over"
    first_final = next((report for report in reports if report.final), None)
    assert call.status.final == (first_final is not None)
    assert first_final is None or call.status is first_final


def test_a_reason_is_kept_until_there_is_a_better_one() -> None:
    call = a_call()
    call.moved_to(CallStatus.RINGING, "It rings.")
    call.moved_to(CallStatus.IN_PROGRESS)
    assert call.reason == "It rings."
    call.moved_to(CallStatus.FAILED, "It broke.")
    call.moved_to(CallStatus.COMPLETED, "It is well.")
    assert call.reason == "It broke."


def test_a_call_lasts_from_its_answer_to_its_end() -> None:
    call = a_call()
    assert call.as_json()["duration_s"] == 0.0
    call.moved_to(CallStatus.IN_PROGRESS)
    assert call.answered_s
    call.answered_s -= 12.34
    assert call.as_json()["duration_s"] == pytest.approx(12.3, abs=0.2)
    call.moved_to(CallStatus.COMPLETED)
    assert call.ended_s
    call.ended_s += 100
    assert call.as_json()["duration_s"] == pytest.approx(112.3, abs=0.2)


async def test_whoever_watches_is_told_of_every_change() -> None:
    call = a_call()

    async def watch() -> int:
        await call.wait_for_change()
        return call.changes

    watching = [asyncio.create_task(watch()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in watching)
    call.moved_to(CallStatus.RINGING)
    assert await asyncio.gather(*watching) == [1, 1]
    call.moved_to(CallStatus.RINGING)
    assert call.changes == 2


# --- what was said


def test_captions_grow_line_by_line() -> None:
    call = a_call()
    call.told(msg.ReplyText(0, 1, "Hello! "))
    call.told(msg.ReplyText(0, 1, "How can I help?"))
    assert lines(call) == [("assistant", "Hello! How can I help?", False)]
    call.told(msg.ReplyDone(0, 1, "Hello! How can I help?", "Hello!", True))
    call.told(msg.TranscriptShown(1, "what", False))
    call.told(msg.TranscriptShown(1, "what time is it", True))
    assert lines(call) == [("assistant", "Hello!", True), ("caller", "what time is it", True)]


def test_a_line_that_came_to_nothing_is_not_shown() -> None:
    call = a_call()
    call.told(msg.TranscriptShown(1, "mm", False))
    call.told(msg.TranscriptShown(1, "", True))
    call.told(msg.ReplyText(1, 1, "Well"))
    call.told(msg.ReplyDone(1, 1, "Well", "", True))
    assert lines(call) == []


def test_what_is_said_after_a_transfer_does_not_replace_what_was_said_before() -> None:
    call = a_call()
    for stream in (1, 2):
        call.streams = stream
        call.told(msg.TranscriptShown(1, f"question {stream}", True))
        call.told(msg.ReplyText(1, 1, f"answer {stream}"))
        call.told(msg.ReplyDone(1, 1, f"answer {stream}", f"answer {stream}", False))
    assert [text for _, text, _ in lines(call)] == ["question 1", "answer 1", "question 2", "answer 2"]


def test_only_the_latest_lines_of_a_long_call_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "KEPT_CAPTIONS", 3)
    call = a_call()
    for turn in range(5):
        call.told(msg.TranscriptShown(turn, f"line {turn}", True))
    assert [text for _, text, _ in lines(call)] == ["line 2", "line 3", "line 4"]


def test_a_call_that_gets_into_the_log_takes_no_numbers_and_words_with_it() -> None:
    call = a_call(transfer=Transfer("+12025550177", warm=True), webhook_signature="c2lnbmF0dXJl")
    call.told(msg.TranscriptShown(1, "my secret", True))
    call.spent.add("c3BlbnQ=")
    for secret in (CALLER, CALLEE, "+12025550177", "my secret", "c2lnbmF0dXJl", "c3BlbnQ="):
        assert secret not in repr(call)


# --- for how long it is remembered


def test_a_call_is_added_once() -> None:
    known = Calls()
    call = known.add(a_call())
    assert known.add(a_call()) is call
    assert known.get(SID) is call


def test_calls_that_go_on_are_never_forgotten_and_of_those_that_ended_the_latest_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calls_module, "KEPT_CALLS", 2)
    known = Calls()
    for number in range(6):
        call = known.add(Call(sid(number), "inbound"))
        if number:
            call.moved_to(CallStatus.COMPLETED)
    known.add(Call(sid(6), "outbound"))
    assert [known.get(sid(number)) is not None for number in range(7)] == [True, False, False, False, True, True, True]
    assert [known.is_over(sid(number)) for number in range(7)] == [False, True, True, True, True, True, False]
    assert [call.sid for call in known.live()] == [sid(0), sid(6)]
    assert [call.sid for call in known.live("outbound")] == [sid(6)]


def test_a_call_that_nobody_said_is_over_is_not_kept_for_good() -> None:
    known = Calls()
    now_s = time.monotonic()
    old = known.add(Call(sid(1), "inbound", began_s=now_s - LONGEST_CALL_S - 1))
    talking = object()
    known.add(Call(sid(2), "inbound", began_s=now_s - LONGEST_CALL_S - 1, conversation=talking))  # type: ignore[arg-type]
    known.add(Call(sid(3), "inbound", began_s=now_s - LONGEST_CALL_S + 60))
    known.add(Call(sid(4), "inbound"))
    assert known.get(old.sid) is None
    assert known.is_over(old.sid), "what is said in its name does not count any more"
    assert [call.sid for call in known.live()] == [sid(2), sid(3), sid(4)]


def test_the_names_of_calls_that_are_over_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls_module, "KEPT_CALLS", 0)
    monkeypatch.setattr(calls_module, "KEPT_SIDS", 2)
    known = Calls()
    for number in range(5):
        known.add(Call(sid(number), "inbound")).moved_to(CallStatus.COMPLETED)
    assert [known.is_over(sid(number)) for number in range(5)] == [False, False, True, True, True]
