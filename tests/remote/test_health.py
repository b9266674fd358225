"""A provider that fails is left alone for a while, and what fails for one capability casts doubt on the service."""

import logging

import pytest
from app.core.errors import AhoyError, OverloadedError, ServiceError
from app.remote.health import DOUBT_S, DOUBTED_PATIENCE_S, FAILURES, MAX_PAUSE_S, PAUSE_S, RATE_PAUSE_S, Doubt, Health


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health("openai (language model)", Doubt(clock))


def failure(code: str = "service_failed", **details: float | bool) -> ServiceError:
    return ServiceError("It is gone.", code=code, **details)  # type: ignore[arg-type]


GONE = failure("service_unreachable", refused=True)


def open_circuit(health: Health) -> None:
    for _ in range(FAILURES):
        health.begins()
        health.failed(failure())
    assert not health.admits()


def probe(health: Health, error: Exception) -> None:
    assert health.admits()
    health.begins()
    health.failed(error)


def test_some_failures_in_a_row_open_the_circuit_and_a_success_between_them_does_not(health: Health) -> None:
    for _ in range(2 * FAILURES):
        health.failed(failure())
        health.succeeded()
    assert health.admits()
    open_circuit(health)
    assert not health.works
    assert health.problem == "It is gone."


def test_one_that_begins_well_and_breaks_off_each_time_is_left_alone_too(health: Health) -> None:
    for _ in range(FAILURES - 1):
        health.succeeded()
        health.broke_off(failure())
        assert health.admits()
    health.succeeded()
    health.completed()
    for _ in range(FAILURES):
        assert health.admits(), "what was completed in between counts"
        health.succeeded()
        health.broke_off(failure())
    assert not health.admits()


def test_after_the_pause_one_request_tries_it_and_the_others_wait(health: Health, clock: Clock) -> None:
    open_circuit(health)
    clock.now_s += PAUSE_S - 0.1
    assert not health.admits()
    clock.now_s += 0.2
    assert health.admits()
    health.begins()
    assert not health.admits(), "one is enough"
    health.succeeded()
    assert health.admits()
    assert health.works
    assert not health.problem


def test_each_pause_is_twice_the_one_before_up_to_a_minute(health: Health, clock: Clock) -> None:
    open_circuit(health)
    pauses = []
    for _ in range(6):
        begun_s = clock.now_s
        while not health.admits():
            clock.now_s += 0.5
        pauses.append(clock.now_s - begun_s)
        probe(health, failure())
    assert pauses == [PAUSE_S, 10, 20, 40, MAX_PAUSE_S, MAX_PAUSE_S]


def test_many_requests_that_fail_at_the_same_time_are_one_failure_of_the_pause(health: Health, clock: Clock) -> None:
    for _ in range(20):
        health.begins()
    for _ in range(20):
        health.failed(failure())
    clock.now_s += PAUSE_S
    assert health.admits()


def test_a_failure_after_the_pause_is_a_new_one_whoever_was_to_try(health: Health, clock: Clock) -> None:
    open_circuit(health)
    clock.now_s += PAUSE_S
    health.begins()
    health.given_up()  # as one does that has connected and not yet asked for anything
    health.failed(failure("service_late"))
    assert not health.admits()
    clock.now_s += PAUSE_S
    assert not health.admits(), "the next pause is longer"


def test_a_trial_that_was_given_up_lets_the_next_one_try(health: Health, clock: Clock) -> None:
    open_circuit(health)
    clock.now_s += PAUSE_S
    health.begins()
    health.given_up()
    assert health.admits()


@pytest.mark.parametrize("code", ["key_refused", "quota_exceeded", "model_not_found"])
def test_what_waiting_does_not_mend_is_left_alone_for_the_longest_time_at_once(
    health: Health, clock: Clock, code: str
) -> None:
    health.failed(failure(code, refused=True))
    clock.now_s += MAX_PAUSE_S - 1
    assert not health.admits()
    clock.now_s += 1
    assert health.admits()


@pytest.mark.parametrize(("asked_s", "pause_s"), [(None, RATE_PAUSE_S), (7.5, 7.5), (3600.0, MAX_PAUSE_S)])
def test_one_that_takes_no_more_requests_is_left_alone_as_long_as_it_asks(
    health: Health, clock: Clock, asked_s: float | None, pause_s: float
) -> None:
    health.failed(ServiceError("Not now.", code="rate_limited", refused=True, retry_after_s=asked_s))
    clock.now_s += pause_s - 0.1
    assert not health.admits()
    clock.now_s += 0.2
    assert health.admits()


def test_one_that_nobody_can_reach_is_left_alone_at_once_but_not_for_one_broken_connection(health: Health) -> None:
    health.failed(failure("service_unreachable"))
    assert health.admits()
    health.failed(GONE)
    assert not health.admits()


@pytest.mark.parametrize(
    "error",
    [
        failure("content_filtered"),
        failure("context_too_long"),
        failure("language_not_spoken"),
        OverloadedError("Full."),
    ],
)
def test_what_is_not_its_fault_is_not_held_against_it(health: Health, error: AhoyError) -> None:
    for _ in range(2 * FAILURES):
        health.failed(error)
    assert health.admits()
    assert not health.problem


@pytest.mark.parametrize("error", [GONE, failure("service_unreachable"), failure("service_late")])
def test_a_service_that_may_be_gone_gets_little_patience_for_all_it_does(clock: Clock, error: ServiceError) -> None:
    doubt = Doubt(clock)
    llm, tts = Health("openai (llm)", doubt), Health("openai (tts)", doubt)
    llm.failed(error)
    assert tts.patience_s(2.0) == DOUBTED_PATIENCE_S
    assert tts.patience_s(0.1) == 0.1
    assert tts.admits()
    tts.succeeded()
    assert llm.patience_s(2.0) == 2.0


def test_a_service_that_is_merely_slow_is_not_doubted_for_ever(health: Health, clock: Clock) -> None:
    health.late()
    for _ in range(int(DOUBT_S)):
        assert health.patience_s(2.0) == DOUBTED_PATIENCE_S
        health.late()  # it would have answered after 0.5 s
        clock.now_s += 1
    assert health.patience_s(2.0) == 2.0


def test_the_log_says_once_that_it_is_left_alone_and_once_that_it_works_again(
    health: Health, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        open_circuit(health)
        clock.now_s += PAUSE_S
        probe(health, failure())
        clock.now_s += 2 * PAUSE_S
        health.begins()
        health.succeeded()
    assert caplog.messages == [
        "openai (language model) is left alone for 5 s: It is gone.",
        "openai (language model) works again",
    ]
