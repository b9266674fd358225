"""The wait at the end of a turn: short when the model is sure, never longer than the limit."""

import math

import pytest
from app.conversation.endpointing import Endpointing
from hypothesis import given
from hypothesis import strategies as st

limits = st.tuples(st.floats(0, 5000), st.floats(0, 20_000)).map(sorted)
probabilities = st.floats(0, 1)


def test_the_ends_of_the_curve_are_the_two_limits():
    assert Endpointing(240, 1600).delay_ms(1.0) == 240
    assert Endpointing(240, 1600).delay_ms(0.0) == 1600


def test_a_model_that_leans_to_finished_is_answered_much_sooner_than_half_way():
    assert Endpointing(200, 1800).delay_ms(0.75) == pytest.approx(300)


@given(limits=limits, probability=st.floats())
def test_the_delay_is_always_within_its_limits(limits, probability):
    low, high = limits
    assert low <= Endpointing(low, high).delay_ms(probability) <= high * (1 + 1e-12)


@given(limits=limits, first=probabilities, second=probabilities)
def test_the_surer_the_model_the_shorter_the_wait(limits, first, second):
    endpointing = Endpointing(*limits)
    less, more = sorted((first, second))
    assert endpointing.delay_ms(more) <= endpointing.delay_ms(less) * (1 + 1e-12)


def test_what_is_no_number_is_no_evidence_that_the_turn_is_over():
    assert Endpointing(240, 1600).delay_ms(math.nan) == 1600


@pytest.mark.parametrize(("wild", "tame"), [(-3.0, 0.0), (7.0, 1.0), (math.inf, 1.0), (-math.inf, 0.0)])
def test_what_is_no_probability_counts_as_the_nearest_one(wild, tame):
    endpointing = Endpointing(240, 1600)
    assert endpointing.delay_ms(wild) == endpointing.delay_ms(tame)
