"""How many calls may be placed: counted before they are dialled, given back only if they were not."""

import pytest
from app.core.config import Settings
from app.core.errors import CallError
from app.twilio.quotas import DAY_S, HOUR_S, KEPT_KEYS, IdempotencyKeys, Quotas, Reservation
from hypothesis import given
from hypothesis import strategies as st


class Clock:
    now_s = 5000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def quotas(clock: Clock, *, per_day: int = 50, per_caller: int = 10, at_once: int = 5) -> Quotas:
    limits = {"outbound_per_day": per_day, "outbound_per_caller": per_caller, "outbound_at_once": at_once}
    return Quotas(Settings(**limits), clock)


def use(counted: Quotas, who: str = "someone") -> Reservation:
    """A call that was dialled and is over."""
    reservation = counted.reserve(who, live=0)
    counted.placed(reservation)
    return reservation


def refusal(counted: Quotas, who: str = "someone", *, live: int | None = 0) -> CallError:
    with pytest.raises(CallError) as error:
        counted.reserve(who, live=live)
    return error.value


def test_one_caller_places_so_many_calls_in_an_hour_whatever_others_do(clock: Clock) -> None:
    counted = quotas(clock, per_caller=2)
    use(counted)
    clock.now_s += 600
    use(counted)
    error = refusal(counted)
    assert (error.code, error.http_status, error.retry_after_s) == ("quota_exceeded", 429, HOUR_S - 600)
    assert "OUTBOUND_PER_CALLER" in error.message
    use(counted, "someone else")


def test_an_hour_slides_so_the_oldest_call_makes_room_first(clock: Clock) -> None:
    counted = quotas(clock, per_caller=2)
    use(counted)
    clock.now_s += 600
    use(counted)
    clock.now_s += HOUR_S - 600 - 1
    assert refusal(counted).retry_after_s == 1
    clock.now_s += 1
    use(counted)
    assert refusal(counted).retry_after_s == 600


def test_a_day_slides_too_and_counts_everybody_together(clock: Clock) -> None:
    counted = quotas(clock, per_day=3, per_caller=3)
    use(counted, "a")
    clock.now_s += DAY_S / 2
    use(counted, "b")
    use(counted, "c")
    error = refusal(counted, "d")
    assert (error.http_status, error.retry_after_s) == (429, DAY_S / 2)
    assert "OUTBOUND_PER_DAY" in error.message
    clock.now_s += DAY_S / 2
    use(counted, "d")
    assert refusal(counted, "e").retry_after_s == DAY_S / 2


def test_midnight_changes_nothing(clock: Clock) -> None:
    """A day that began anew at midnight would let twice as many calls through around it."""
    counted = quotas(clock, per_day=2)
    for _ in range(2):
        use(counted)
    for hours in (1, 5, 12, 23):
        clock.now_s = 5000.0 + hours * HOUR_S
        assert refusal(counted, "other").http_status == 429


def test_calls_that_are_being_dialled_take_up_lines_before_anything_is_known_of_them(clock: Clock) -> None:
    counted = quotas(clock, at_once=3)
    first, second = counted.reserve("a", live=1), counted.reserve("b", live=1)
    error = refusal(counted, "c", live=1)
    assert (error.code, error.http_status) == ("lines_busy", 503)
    assert error.retry_after_s
    counted.placed(first)  # now it is one of those that go on
    assert refusal(counted, "c", live=2).code == "lines_busy"
    counted.release(second)
    counted.reserve("c", live=2)


def test_a_call_that_was_not_dialled_is_not_counted(clock: Clock) -> None:
    counted = quotas(clock, per_day=1, per_caller=1, at_once=1)
    for _ in range(10):
        counted.release(counted.reserve("someone", live=0))
    use(counted)
    assert refusal(counted).http_status == 429


def test_giving_back_twice_gives_back_once(clock: Clock) -> None:
    counted = quotas(clock, per_day=2, at_once=2)
    kept = counted.reserve("a", live=0)
    given_back = counted.reserve("a", live=0)
    counted.release(given_back)
    counted.release(given_back)
    counted.placed(given_back)
    counted.reserve("a", live=0)
    assert refusal(counted, live=0).http_status == 429
    counted.release(kept)
    counted.reserve("a", live=0)


def test_a_refused_request_is_not_counted(clock: Clock) -> None:
    counted = quotas(clock, per_caller=1)
    use(counted)
    clock.now_s += 10
    for _ in range(20):
        assert refusal(counted).retry_after_s == HOUR_S - 10


def test_transfers_count_as_calls_but_need_no_line_of_their_own(clock: Clock) -> None:
    counted = quotas(clock, per_caller=2, at_once=1)
    use(counted)
    counted.placed(counted.reserve("someone", live=None))
    assert refusal(counted, live=None).http_status == 429


def test_nought_means_no_calls_at_all(clock: Clock) -> None:
    for limits in ({"per_day": 0}, {"per_caller": 0}):
        error = refusal(quotas(clock, **limits))
        assert (error.http_status, error.retry_after_s) == (429, None)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 4000), st.booleans()),
        max_size=60,
    )
)
def test_no_order_of_requests_exceeds_a_quota(requests: list[tuple[str, float, bool]]) -> None:
    clock = Clock()
    counted = quotas(clock, per_day=8, per_caller=4, at_once=3)
    dialled: list[tuple[str, float]] = []
    for who, pause_s, goes_well in requests:
        clock.now_s += pause_s
        try:
            reservation = counted.reserve(who, live=0)
        except CallError:
            continue
        if goes_well:
            counted.placed(reservation)
            dialled.append((who, clock.now_s))
        else:
            counted.release(reservation)
    for _, at_s in dialled:
        assert sum(at_s <= other < at_s + DAY_S for _, other in dialled) <= 8
        for who in "abc":
            assert sum(at_s <= other < at_s + HOUR_S for one, other in dialled if one == who) <= 4


# --- idempotency keys


def test_a_key_finds_its_request_for_a_day(clock: Clock) -> None:
    keys = IdempotencyKeys(clock)
    request = keys.add("someone", "key", "+12025550123")
    clock.now_s += DAY_S - 1
    assert keys.find("someone", "key", "+12025550123") is request
    clock.now_s += 1
    assert keys.find("someone", "key", "+12025550123") is None


def test_a_key_belongs_to_one_number(clock: Clock) -> None:
    keys = IdempotencyKeys(clock)
    keys.add("someone", "key", "+12025550123")
    with pytest.raises(CallError) as error:
        keys.find("someone", "key", "+12025550199")
    assert (error.value.code, error.value.http_status) == ("key_reused", 409)
    assert "0123" not in error.value.message


def test_the_same_key_of_somebody_else_is_another_key(clock: Clock) -> None:
    keys = IdempotencyKeys(clock)
    keys.add("someone", "key", "+12025550123")
    assert keys.find("another", "key", "+12025550199") is None


def test_only_so_many_keys_are_remembered_and_the_latest_are(clock: Clock) -> None:
    keys = IdempotencyKeys(clock)
    for number in range(KEPT_KEYS + 1):
        keys.add("someone", str(number), "+12025550123")
    assert keys.find("someone", "0", "+12025550123") is None
    assert keys.find("someone", "1", "+12025550123") is not None
    assert keys.find("someone", str(KEPT_KEYS), "+12025550123") is not None
