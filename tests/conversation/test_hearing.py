"""The gate between speech probabilities and speech events."""

import math

import pytest
from app.conversation.events import SpeechPaused, SpeechStarted, SpeechSustained
from app.conversation.hearing import START_PROBABILITY, STAY_PROBABILITY, VOICE_MEMORY_MS, SpeechGate
from app.vad.base import WINDOW_MS
from hypothesis import given
from hypothesis import strategies as st

LOUD, QUIET = 0.97, 0.02
BETWEEN = (START_PROBABILITY + STAY_PROBABILITY) / 2


def events(probabilities: list[float], *, sustained_ms: float = 160, pause_ms: float = 128) -> list[object]:
    """One window after the other."""
    gate = SpeechGate(sustained_ms=sustained_ms, pause_ms=pause_ms)
    return [event for number, value in enumerate(probabilities, 1) for event in gate.step(value, number * WINDOW_MS)]


def test_a_voice_begins_goes_on_and_pauses():
    found = events([QUIET] * 3 + [LOUD] * 10 + [QUIET] * 10)
    assert found == [
        SpeechStarted(5 * WINDOW_MS, onset_ms=3 * WINDOW_MS),
        SpeechSustained(8 * WINDOW_MS),
        SpeechPaused(17 * WINDOW_MS, last_voice_ms=13 * WINDOW_MS),
    ]


def test_a_click_of_one_window_is_no_voice():
    assert events([QUIET, LOUD, QUIET, LOUD, QUIET] * 5) == []


def test_a_cough_begins_and_pauses_but_is_not_sustained():
    kinds = [type(event) for event in events([LOUD] * 3 + [QUIET] * 10)]
    assert kinds == [SpeechStarted, SpeechPaused]


def test_what_is_doubtful_keeps_a_voice_going_but_does_not_begin_one():
    assert events([BETWEEN] * 20) == []
    kinds = [type(event) for event in events([LOUD] * 2 + [BETWEEN] * 20)]
    assert kinds == [SpeechStarted, SpeechSustained]


def test_a_gap_shorter_than_a_pause_is_none():
    kinds = [type(event) for event in events([LOUD] * 2 + ([QUIET] * 3 + [LOUD]) * 10)]
    assert kinds == [SpeechStarted, SpeechSustained]


def test_after_a_pause_a_voice_has_to_begin_again():
    kinds = [type(event) for event in events([LOUD] * 6 + [QUIET] * 4 + [BETWEEN] * 5 + [LOUD] * 2)]
    assert kinds == [SpeechStarted, SpeechSustained, SpeechPaused, SpeechStarted]


def test_a_voice_at_the_very_beginning_began_then():
    assert events([LOUD] * 2)[0] == SpeechStarted(2 * WINDOW_MS, onset_ms=0.0)


def test_a_detector_that_gives_no_number_hears_nothing():
    assert events([math.nan] * 10) == []
    assert isinstance(events([LOUD] * 3 + [math.nan] * 10)[-1], SpeechPaused)


@pytest.mark.parametrize("sustained_ms", [64, 160, 500])
@pytest.mark.parametrize("pause_ms", [64, 500])
@given(probabilities=st.lists(st.sampled_from([QUIET, BETWEEN, LOUD]), max_size=120))
def test_events_come_in_order_whatever_is_heard(probabilities, sustained_ms, pause_ms):
    speaking = sustained = False
    last_voice_ms = -1.0
    for event in events(probabilities, sustained_ms=sustained_ms, pause_ms=pause_ms):
        match event:
            case SpeechStarted(at_ms, onset_ms):
                assert not speaking
                assert last_voice_ms <= onset_ms < at_ms
                speaking, sustained = True, False
            case SpeechSustained():
                assert speaking
                assert not sustained
                sustained = True
            case SpeechPaused(at_ms, last_voice_ms):
                assert speaking
                assert at_ms - last_voice_ms >= pause_ms
                assert at_ms - last_voice_ms < pause_ms + WINDOW_MS
                speaking = False


@given(probabilities=st.lists(st.sampled_from([QUIET, BETWEEN, LOUD]), max_size=60))
def test_silence_ends_every_voice(probabilities):
    found = events([*probabilities, *[QUIET] * 5])
    assert not found or isinstance(found[-1], SpeechPaused)


# --- how much voice there was


def heard(probabilities: list[float]) -> SpeechGate:
    """A gate that has taken these windows."""
    gate = SpeechGate(sustained_ms=160, pause_ms=128)
    for number, value in enumerate(probabilities, 1):
        list(gate.step(value, number * WINDOW_MS))
    return gate


def test_the_voice_of_an_utterance_is_measured_from_its_onset_without_its_pauses():
    windows = [QUIET] * 3 + [LOUD] * 10 + [QUIET] * 6 + [LOUD] * 4 + [QUIET]
    onset_ms = next(event.onset_ms for event in events(windows) if isinstance(event, SpeechStarted))
    assert heard(windows).voiced_ms_since(onset_ms) == 14 * WINDOW_MS


def test_voice_before_the_onset_belongs_to_another_utterance():
    gate = heard([LOUD] * 10 + [QUIET] * 10 + [LOUD] * 5)
    assert gate.voiced_ms_since(20 * WINDOW_MS) == 5 * WINDOW_MS
    assert gate.voiced_ms_since(25 * WINDOW_MS) == 0


def test_a_cough_is_little_voice_and_silence_is_none():
    assert heard([QUIET] * 20 + [LOUD] * 2 + [QUIET] * 20).voiced_ms_since(0) == 2 * WINDOW_MS
    assert heard([QUIET] * 20).voiced_ms_since(0) == 0


def test_somebody_who_speaks_for_ever_takes_no_more_memory():
    windows = VOICE_MEMORY_MS // WINDOW_MS
    gate = heard([LOUD] * (windows + 1000))
    assert gate.voiced_ms_since(0) == windows * WINDOW_MS
    assert gate.voiced_ms_since((windows + 990) * WINDOW_MS) == 10 * WINDOW_MS


def test_a_window_that_nobody_looked_at_may_have_been_a_word_while_somebody_spoke():
    gate = heard([LOUD] * 5)
    gate.miss(6 * WINDOW_MS)
    assert gate.voiced_ms_since(0) == 6 * WINDOW_MS
    gate = heard([LOUD] * 5 + [QUIET] * 10)
    gate.miss(16 * WINDOW_MS)
    assert gate.voiced_ms_since(0) == 5 * WINDOW_MS


@given(probabilities=st.lists(st.sampled_from([QUIET, BETWEEN, LOUD]), max_size=200), onset=st.integers(0, 200))
def test_the_voice_before_and_after_any_moment_add_up(probabilities, onset):
    gate = heard(probabilities)
    loud = sum(value == LOUD for value in probabilities)
    doubtful = sum(value == BETWEEN for value in probabilities)
    assert loud * WINDOW_MS <= gate.voiced_ms_since(0) <= (loud + doubtful) * WINDOW_MS
    after = gate.voiced_ms_since(onset * WINDOW_MS)
    assert after + heard(probabilities[:onset]).voiced_ms_since(0) == gate.voiced_ms_since(0)
