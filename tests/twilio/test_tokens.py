"""A stream token admits the stream of one call, for a minute, once."""

import pytest
from app.twilio import tokens
from app.twilio.tokens import LIFETIME_S, StreamTokens

CALL, OTHER = "CA" + "1" * 32, "CA" + "2" * 32


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_token_admits_its_call_once() -> None:
    given_out = StreamTokens()
    key = given_out.issue(CALL)
    assert given_out.redeem(key, CALL)
    assert not given_out.redeem(key, CALL)


def test_a_token_admits_no_other_call_and_is_spent_by_the_attempt() -> None:
    given_out = StreamTokens()
    key = given_out.issue(CALL)
    assert not given_out.redeem(key, OTHER)
    assert not given_out.redeem(key, CALL)


def test_a_token_is_good_for_a_minute() -> None:
    clock = Clock()
    given_out = StreamTokens(clock)
    early, late = given_out.issue(CALL), given_out.issue(OTHER)
    clock.now_s += LIFETIME_S - 0.001
    assert given_out.redeem(early, CALL)
    clock.now_s += 0.001
    assert not given_out.redeem(late, OTHER)


def test_a_new_token_of_a_call_voids_the_one_before() -> None:
    given_out = StreamTokens()
    first, second = given_out.issue(CALL), given_out.issue(CALL)
    assert not given_out.redeem(first, CALL)
    assert given_out.redeem(second, CALL)


def test_what_was_never_given_out_admits_nobody() -> None:
    given_out = StreamTokens()
    key = given_out.issue(CALL)
    for guess in ("", key[:-1], key + "A", key.swapcase(), "\x00", "٣" * 32):
        assert not given_out.redeem(guess, CALL)


def test_tokens_cannot_be_guessed_from_each_other() -> None:
    given_out = StreamTokens()
    keys = [given_out.issue(f"CA{number:032x}") for number in range(200)]
    assert len(set(keys)) == 200
    assert min(map(len, keys)) >= 32  # 24 bytes of randomness
    assert len({key[:4] for key in keys}) > 190


def test_tokens_that_nobody_uses_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CAPACITY", 3)
    given_out = StreamTokens()
    keys = {f"CA{number:032x}": given_out.issue(f"CA{number:032x}") for number in range(4)}
    assert [given_out.redeem(key, call) for call, key in keys.items()] == [False, True, True, True]
