"""What a conversation has cost, turn by turn and service by service, and when it has to end."""

from collections.abc import Sequence

import pytest
from app.usage.account import KEPT_TURNS, Account, Tally
from app.usage.ledger import Amounts, Work
from app.usage.meter import Usage, bind, report
from app.usage.prices import Prices
from hypothesis import given
from hypothesis import strategies as st

PRICES = Prices((("a-dollar-each", "characters", 1_000_000.0), ("mute", "minute", 60.0)))
CHAT = Work("llm", "openai", "gpt-5.4-nano")


def costing(usd: int, **more: bool) -> Usage:
    return Usage("tts", "openai", "a-dollar-each", characters=usd, **more)


def account(limit_usd: float = 0.0, speculation_usd: float = 0.0) -> Account:
    return Account(PRICES, limit_usd=limit_usd, speculation_usd=speculation_usd)


def test_a_turn_costs_what_was_used_for_it() -> None:
    ours = account()
    for turn, usd in ((1, 2), (2, 3), (1, 4)):
        ours.add(costing(usd), turn)
    assert [ours.of_turn(turn).usd for turn in (0, 1, 2)] == [0, 6, 3]
    assert ours.spent_usd == 9


def test_each_model_of_a_service_has_its_own_line() -> None:
    ours = account()
    ours.add(costing(1), 1)
    ours.add(costing(2), 1)
    ours.add(Usage("llm", *CHAT[1:], input_tokens=1000, cached_tokens=200, output_tokens=50, estimated=True), 1)
    ours.add(Usage("stt", "embedded", "whisper", audio_s=2.5), 1)
    lines = {line["model"]: line for line in ours.as_json()["services"]}
    assert list(lines) == ["a-dollar-each", "gpt-5.4-nano", "whisper"], "the dearest first"
    assert lines["a-dollar-each"]["requests"] == 2
    assert lines["a-dollar-each"]["characters"] == 3
    assert lines["gpt-5.4-nano"]["input_tokens"] == 1000
    assert lines["gpt-5.4-nano"]["cached_tokens"] == 200
    assert lines["gpt-5.4-nano"]["estimated"]
    assert lines["whisper"] | {"audio_s": 2.5, "usd": 0.0, "priced": True} == lines["whisper"]


def test_what_was_given_up_is_paid_for_and_shown_apart() -> None:
    ours = account()
    ours.add(costing(1), 1)
    ours.add(costing(2, given_up=True), 1)
    assert (ours.spent_usd, ours.wasted_usd) == (3, 2)
    assert ours.total.given_up == 1


def test_what_has_no_price_is_counted_and_said() -> None:
    ours = account(limit_usd=1)
    ours.add(Usage("llm", "ollama", "llama3.2:3b", output_tokens=500), 1)
    assert not ours.priced
    assert ours.spent_usd == 0
    assert ours.total.output_tokens == 500
    assert ours.over == "", "nobody knows what it cost"


def test_the_budget_of_a_conversation_is_used_up_when_it_is_reached() -> None:
    ours = account(limit_usd=3)
    ours.add(costing(2), 1)
    assert ours.over == ""
    ours.add(costing(1), 2)
    assert ours.over == "conversation"


def test_what_is_still_under_way_when_a_budget_is_used_up_counts_all_the_same() -> None:
    ours = account(limit_usd=1)
    ours.add(costing(1), 1)
    ours.add(costing(5), 1)
    assert ours.spent_usd == 6


def test_without_limits_nothing_is_ever_used_up() -> None:
    ours = account()
    ours.add(costing(1000, given_up=True), 1)
    assert ours.over == ""
    assert ours.may_speculate


def test_nothing_is_begun_early_any_more_when_too_much_was_given_up() -> None:
    ours = account(speculation_usd=2)
    ours.add(costing(50), 1)
    ours.add(costing(1, given_up=True), 1)
    assert ours.may_speculate
    ours.add(costing(1, given_up=True), 2)
    assert not ours.may_speculate


def test_another_conversation_goes_on_with_the_account_and_counts_its_own_turns() -> None:
    ours = account(limit_usd=3)
    ours.add(costing(2), 1)
    ours.begin()
    ours.add(costing(1), 1)
    assert ours.of_turn(1).usd == 1
    assert ours.over == "conversation", "the budget is for both together"


def test_providers_report_to_whoever_is_bound() -> None:
    ours = account()
    turn = 7
    bind(ours, lambda: turn)
    report(costing(2))
    turn = 8
    report(costing(3))
    assert [ours.of_turn(number).usd for number in (7, 8)] == [2, 3]


# --- telling it


def test_nothing_is_told_while_nothing_costs_anything() -> None:
    ours = account()
    ours.add(Usage("llm", "embedded", "smollm2-135m", output_tokens=100), 1)
    assert ours.due(10.0) is None


def test_a_change_is_told_at_once_and_the_next_ones_together_a_second_later() -> None:
    ours = account()
    ours.add(costing(1), 1)
    told = ours.due(10.0)
    assert told is not None
    assert (told.turn, told.turn_usd, told.conversation_usd, told.priced) == (1, 1, 1, True)
    ours.add(costing(2), 2)
    ours.add(costing(3, given_up=True), 2)
    assert ours.due(10.9) is None
    told = ours.due(11.0)
    assert told is not None
    assert (told.turn, told.turn_usd, told.conversation_usd, told.wasted_usd) == (2, 5, 6, 3)
    assert ours.due(100.0) is None, "nothing has changed since"


def test_the_end_of_a_reply_need_not_wait() -> None:
    ours = account()
    ours.add(costing(1), 1)
    assert ours.due(10.0)
    ours.add(costing(1), 1)
    assert ours.due(10.1, at_once=True)
    assert ours.due(10.2, at_once=True) is None


def test_what_was_told_stays_as_it_was() -> None:
    ours = account()
    ours.add(costing(1), 1)
    told = ours.due(0.0)
    ours.add(costing(1), 1)
    assert told is not None
    assert told.services.total.usd == 1


# --- sums

USES = st.lists(
    st.tuples(
        st.builds(
            Usage,
            st.sampled_from(["stt", "llm", "tts"]),
            st.sampled_from(["openai", "embedded", "groq"]),
            st.sampled_from(["gpt-5.4-nano", "tts-1", "whisper-1", "a-dollar-each", "unknown"]),
            input_tokens=st.integers(0, 10_000),
            cached_tokens=st.integers(0, 10_000),
            output_tokens=st.integers(0, 10_000),
            audio_s=st.floats(0, 100),
            characters=st.integers(0, 1000),
            estimated=st.booleans(),
            given_up=st.booleans(),
        ),
        st.integers(0, 3 * KEPT_TURNS),
    ),
    max_size=400,
)


def same(one: Amounts, other: Amounts) -> bool:
    return one.as_json() == pytest.approx(other.as_json())


@given(USES)
def test_the_turns_and_the_services_each_add_up_to_the_whole(uses: Sequence[tuple[Usage, int]]) -> None:
    ours = account()
    for usage, turn in uses:
        ours.add(usage, turn)
    turns = [ours.of_turn(turn["turn"]) for turn in ours.as_json()["turns"]]
    assert len(turns) <= KEPT_TURNS
    assert same(sum(turns, ours.earlier), ours.total)
    assert ours.total.requests == len(uses)
    assert 0 <= ours.wasted_usd <= ours.spent_usd + 1e-9
    services = ours.as_json()["services"]
    assert sum(line["usd"] for line in services) == pytest.approx(ours.spent_usd, abs=1e-7)
    assert sum(line["requests"] for line in services) == len(uses)
    assert ours.priced == all(line["priced"] for line in services)


def test_of_a_long_conversation_the_latest_turns_are_remembered() -> None:
    ours = account()
    for turn in range(1, KEPT_TURNS + 51):
        ours.add(costing(1), turn)
    kept = [line["turn"] for line in ours.as_json()["turns"]]
    assert kept == list(range(51, KEPT_TURNS + 51))
    assert ours.earlier.usd == 50


def test_what_was_made_for_a_reply_that_nobody_heard_is_wasted_after_all() -> None:
    account = Account(Prices((("costly", "output", 1.0),)))
    tally = Tally(account)
    tally.add(Usage("llm", "openai", "costly", output_tokens=10_000), 3)
    tally.add(Usage("llm", "openai", "costly", output_tokens=5_000, given_up=True), 3)
    assert (account.spent_usd, account.wasted_usd) == pytest.approx((0.015, 0.005))
    tally.waste(3)
    tally.waste(3)
    assert (account.spent_usd, account.wasted_usd) == pytest.approx((0.015, 0.015))
    assert account.of_turn(3).requests == 2, "nothing is counted twice"
    assert account.of_turn(3).wasted_usd == pytest.approx(0.015)
