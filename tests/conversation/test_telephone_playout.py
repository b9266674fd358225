"""Playout for a listener that cannot lower the volume: whole frames, audio that waits, and marks instead of reports.

Audio is a ramp that counts its samples, or bursts of noise, so that every sample tells where it belongs.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from app.conversation.options import TELEPHONE
from app.conversation.playout import LEAD_MS, REPORT_GRACE_MS, REWIND_MS, Playout
from hypothesis import given
from hypothesis import strategies as st

RATE_HZ = TELEPHONE.rate_hz
MS = RATE_HZ // 1000
BEAT_MS = 20.0
FRAME = 160


def ramp(start: int, samples: int) -> np.ndarray:
    return np.arange(start, start + samples).astype(np.int16)


def noise(length_ms: float, level: int = 8000, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-level, level, int(length_ms * MS)).astype(np.int16)


@dataclass
class Line:
    """A playout on the telephone, a steady clock, and a listener who hears what was sent at the pace of time."""

    playout: Playout = field(
        default_factory=lambda: Playout(RATE_HZ, frame_ms=TELEPHONE.frame_ms, report_lag_ms=TELEPHONE.report_lag_ms)
    )
    now_ms: float = 0.0
    sent: list[np.ndarray] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    """How long the listener heard nothing although there was more, each time."""
    _heard_until_ms: float | None = None

    def say(self, text: str, audio: np.ndarray | float, *, whole: bool = True) -> None:
        """A chunk and its audio, or a ramp of so many milliseconds."""
        self.playout.begin_chunk(text)
        if not isinstance(audio, np.ndarray):
            audio = ramp(round(self.playout.duration_ms * MS), int(audio * MS))
        self.playout.add(audio)
        if whole:
            self.playout.end_chunk()

    def beat(self, passed_ms: float = BEAT_MS) -> int:
        """Time passes, and what is due is sent; returns how many samples."""
        self.now_ms += passed_ms
        return self.send()

    def send(self) -> int:
        """What is due now is sent."""
        sent = 0
        while (audio := self.playout.due(self.now_ms)) is not None:
            self._play(audio)
            sent += len(audio)
            if (reached_ms := self.playout.sentence_sent_ms) is not None:
                self.marks.append(reached_ms)
        return sent

    def listen(self, length_ms: float) -> None:
        """So much time passes, beat by beat."""
        for _ in range(round(length_ms / BEAT_MS)):
            self.beat()

    def wait(self) -> None:
        self.playout.wait(self.now_ms)

    def go_on(self) -> None:
        self.playout.go_on(self.now_ms)
        self.send()

    def _play(self, audio: np.ndarray) -> None:
        until_ms = self.now_ms if self._heard_until_ms is None else self._heard_until_ms
        if until_ms < self.now_ms - 1e-6:
            self.gaps_ms.append(self.now_ms - until_ms)
        self._heard_until_ms = max(until_ms, self.now_ms) + len(audio) / MS
        self.sent.append(audio)

    @property
    def audio(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int16), *self.sent])

    @property
    def heard(self) -> str:
        return self.playout.heard_text(self.now_ms)


def counting(words: int, length_ms: float) -> Line:
    """One chunk of so many words of the same length, which takes so long; it is heard from now on."""
    line = Line()
    line.say("five " * words, length_ms)
    line.playout.finish()
    line.send()
    return line


# --- frames


jitter = st.floats(-4.9, 4.9)


@given(phase_ms=st.floats(0, BEAT_MS), jitters=st.lists(jitter, min_size=60, max_size=100))
def test_after_the_lead_every_beat_sends_exactly_one_frame_however_it_jitters(phase_ms, jitters):
    """Whenever between two beats the reply began; the beat that finds how they lie may send none, once."""
    line = Line()
    line.say("words", 3000)
    assert line.send() == LEAD_MS * MS, "the lead at once"
    frames = []
    for number, late_ms in enumerate(jitters):
        line.beat(phase_ms + number * BEAT_MS + 5 + late_ms - line.now_ms)
        frames.append(sum(len(audio) for audio in line.sent) // FRAME - LEAD_MS / BEAT_MS)
    assert all(len(audio) % FRAME == 0 for audio in line.sent)
    per_beat = np.diff([0.0, *frames])
    assert set(per_beat) <= {0.0, 1.0, 2.0}
    assert np.count_nonzero(per_beat != 1) <= 1


def test_a_clock_without_jitter_finds_one_frame_each_time():
    line = Line()
    line.say("words", 2000)
    assert [line.send(), *(line.beat() for _ in range(90))] == [LEAD_MS * MS, *[FRAME] * 90]


def test_beats_that_were_missed_are_made_up_for():
    line = Line()
    line.say("words", 2000)
    line.send()
    assert line.beat(5 * BEAT_MS) == 5 * FRAME
    assert line.beat() == FRAME


def test_the_last_piece_of_a_sentence_is_as_long_as_it_is():
    line = Line()
    line.say("One. ", 250.5)
    line.say("Two.", 249.5)
    line.playout.finish()
    line.send()
    line.listen(600)
    assert np.array_equal(line.audio, ramp(0, 500 * MS))
    assert line.marks == [250.5, 500.0]
    assert line.gaps_ms == []


def test_audio_that_is_still_being_made_leaves_in_whole_frames_and_the_rest_when_there_is_no_more():
    line = Line()
    line.say("One", 50, whole=False)
    assert line.send() == 2 * FRAME
    assert line.beat() == 0
    line.playout.add(ramp(50 * MS, 25 * MS))
    assert line.beat() == FRAME
    line.playout.finish()
    assert line.beat() == 15 * MS, "it broke off: that was all"
    assert np.array_equal(line.audio, ramp(0, 75 * MS))
    assert line.playout.all_sent


# --- marks


def test_where_a_sentence_ends_is_known_when_its_last_sample_was_sent():
    line = Line()
    line.say("One. ", 300)
    line.say("Two.", 300)
    line.send()
    assert line.playout.sentence_sent_ms is None
    line.listen(80)
    assert line.marks == []
    line.listen(40)
    assert line.marks == [300]
    assert line.playout.sentence_sent_ms is None, "the next one has begun"
    line.listen(400)
    assert line.marks == [300, 600]


def test_before_anything_was_sent_no_sentence_was():
    line = Line()
    line.say("One.", 300)
    assert line.playout.sentence_sent_ms is None


def test_a_sentence_that_is_not_complete_has_no_end_yet():
    line = Line()
    line.say("One. ", 300, whole=False)
    line.send()
    line.listen(400)
    assert line.playout.sentence_sent_ms is None
    line.playout.end_chunk()
    assert line.playout.sentence_sent_ms == 300


@given(lengths=st.lists(st.integers(1, 700), min_size=1, max_size=8))
def test_every_sentence_ends_exactly_once(lengths):
    line = Line()
    for length_ms in lengths:
        line.say("words ", length_ms)
    line.playout.finish()
    line.send()
    line.listen(sum(lengths) + 100)
    assert line.marks == list(np.cumsum(lengths))
    assert line.gaps_ms == []


# --- waiting


def test_who_waits_sends_nothing_and_what_was_sent_is_heard_on():
    line = counting(10, 2000)
    line.listen(400)
    line.wait()
    assert sum(line.beat() for _ in range(20)) == 0
    assert line.playout.heard_samples(line.now_ms) == 600 * MS, "the lead, and no further"


@pytest.mark.parametrize("waited_ms", [0, 20, 100, 180])
def test_a_wait_within_the_lead_leaves_no_gap_and_repeats_nothing(waited_ms):
    line = counting(10, 2000)
    line.listen(400)
    line.wait()
    line.listen(waited_ms)
    line.go_on()
    line.listen(2000)
    assert np.array_equal(line.audio, ramp(0, 2000 * MS))
    assert line.gaps_ms == []
    assert line.playout.all_sent


BURST = [noise(500, seed=1), np.zeros(80 * MS, np.int16), noise(1420, seed=2)]
GAP = range(500 * MS, 580 * MS)


def interrupted(audio: np.ndarray, *, heard_ms: float, waited_ms: float) -> tuple[Line, np.ndarray]:
    """A reply of this audio that waited when so much was heard, and what came after the wait."""
    line = Line()
    line.say("words", audio)
    line.playout.finish()
    line.send()
    line.listen(heard_ms)
    line.wait()
    line.listen(waited_ms)
    before = len(line.sent)
    line.go_on()
    line.listen(len(audio) / MS + 1000)
    assert np.array_equal(np.concatenate(line.sent[:before]), audio[: int((heard_ms + LEAD_MS) * MS)])
    return line, np.concatenate(line.sent[before:])


@pytest.mark.parametrize("waited_ms", [200, 300, 2000])
def test_after_the_lead_ran_out_it_goes_on_with_the_word_that_was_cut_and_loses_nothing(waited_ms):
    audio = np.concatenate(BURST)
    line, after = interrupted(audio, heard_ms=600, waited_ms=waited_ms)
    begins = len(audio) - len(after)
    assert begins in GAP
    assert np.array_equal(after, audio[begins:])
    assert line.playout.all_sent
    assert line.playout.is_over(line.now_ms)


def test_of_two_pauses_it_goes_back_to_the_last_one():
    gap = np.zeros(60 * MS, np.int16)
    audio = np.concatenate([noise(400), gap, noise(300, seed=2), gap, noise(1000, seed=3)])
    _, after = interrupted(audio, heard_ms=800, waited_ms=400)
    assert 760 * MS <= len(audio) - len(after) < 820 * MS


def test_a_pause_between_words_need_not_be_silent():
    hum = noise(80, level=300, seed=4)
    audio = np.concatenate([BURST[0], hum, BURST[2]])
    _, after = interrupted(audio, heard_ms=600, waited_ms=400)
    assert len(audio) - len(after) in GAP


def test_it_never_goes_back_further_than_a_second():
    audio = np.concatenate([np.zeros(500 * MS, np.int16), noise(3000)])
    _, after = interrupted(audio, heard_ms=1600, waited_ms=400)
    back = (1800 * MS) - (len(audio) - len(after))
    assert 0 < back <= REWIND_MS * MS


def test_a_reply_of_which_nothing_was_sent_yet_begins_at_its_beginning():
    line = Line()
    line.say("words", 500)
    line.playout.finish()
    line.wait()
    line.listen(1000)
    line.go_on()
    line.listen(700)
    assert np.array_equal(line.audio, ramp(0, 500 * MS))


def test_a_reply_that_was_sent_to_its_end_is_not_repeated():
    line = counting(5, 600)
    line.listen(500)
    assert line.playout.all_sent
    line.wait()
    line.listen(1000)
    assert line.playout.is_over(line.now_ms)
    line.go_on()
    line.listen(500)
    assert np.array_equal(line.audio, ramp(0, 600 * MS))


def test_going_on_twice_is_going_on_once():
    audio = np.concatenate(BURST)
    line = Line()
    line.say("words", audio)
    line.send()
    line.listen(600)
    line.wait()
    line.listen(400)
    before = len(line.sent)
    line.playout.go_on(line.now_ms)
    line.wait()
    line.go_on()
    line.listen(3000)
    after = np.concatenate(line.sent[before:])
    assert np.array_equal(after, audio[len(audio) - len(after) :])
    assert len(audio) - len(after) in GAP


def test_a_sentence_that_is_heard_again_counts_again_from_its_mark():
    line = Line()
    line.say("One two three. ", np.concatenate(BURST[:2]))
    line.say("Four five six.", BURST[2])
    line.playout.finish()
    line.send()
    line.listen(500)
    line.wait()
    line.listen(1000)
    assert line.marks == [580]
    line.playout.report(580, line.now_ms)
    line.go_on()
    line.listen(2500)
    assert line.marks[0] == 580
    assert line.marks[-1] == 2000
    line.playout.report(2000, line.now_ms)
    assert line.heard == "One two three. Four five six."
    assert line.playout.is_over(line.now_ms)


# --- what was heard


def test_what_was_heard_before_the_wait_stays_heard_though_the_word_is_repeated():
    line = Line()
    line.say("one two three four five six seven eight nine ten", np.concatenate(BURST))
    line.playout.finish()
    line.send()
    line.listen(600)
    line.wait()
    line.listen(400)
    before = line.heard
    assert before == "one two three four"
    line.go_on()
    assert line.heard == before
    line.listen(600)
    assert line.heard == "one two three four five six"


def test_between_two_marks_the_clock_goes_on():
    """Marks come back at the ends of sentences only: half a minute may pass between two of them."""
    line = Line()
    line.say("One. ", 1000)
    line.say("five " * 100, 20_000)
    line.listen(1200)
    line.playout.report(1000, line.now_ms)
    line.listen(10_000)
    assert line.playout.heard_samples(line.now_ms) == pytest.approx(11_000 * MS, abs=200 * MS)
    assert 45 <= len(line.heard.split()) - 1 <= 50


def test_a_mark_that_comes_late_tells_how_far_the_line_is_behind():
    """The line's own buffer delays everything by a second: what the clock says is too much."""
    line = Line()
    line.say("One two three four five. ", 1000)
    line.say("five " * 20, 4000)
    line.send()
    line.listen(2000)
    assert line.heard == "One two three four five. " + "five " * 4 + "five"
    line.playout.report(1000, line.now_ms)
    assert line.heard == "One two three four five. "
    line.listen(1000)
    assert line.heard == "One two three four five. " + "five " * 4 + "five", "a second more, as a second has passed"


def test_it_is_over_when_the_last_mark_is_back():
    line = Line()
    line.say("One. ", 500)
    line.say("Two.", 500)
    line.playout.finish()
    line.send()
    line.listen(700)
    line.playout.report(500, line.now_ms)
    line.listen(500)
    assert not line.playout.is_over(line.now_ms)
    line.playout.report(1000, line.now_ms)
    assert line.playout.is_over(line.now_ms)


def test_a_last_mark_that_never_comes_back_is_not_waited_for_forever():
    line = Line()
    line.say("One. ", 500)
    line.say("Two.", 500)
    line.playout.finish()
    line.send()
    line.listen(700)
    line.playout.report(500, line.now_ms)
    line.listen(300)
    assert not line.playout.is_over(line.now_ms)
    line.listen(REPORT_GRACE_MS)
    assert line.playout.is_over(line.now_ms)


# --- whatever happens

steps = st.lists(
    st.one_of(
        st.tuples(st.just("listen"), st.integers(0, 30)),
        st.tuples(st.just("stall"), st.integers(0, 600)),
        st.tuples(st.just("wait"), st.just(0)),
        st.tuples(st.just("go on"), st.just(0)),
        st.tuples(st.just("mark"), st.integers(0, 10)),
    ),
    max_size=40,
)
sentences = st.lists(st.integers(0, 900), min_size=1, max_size=4)


@given(lengths=sentences, steps=steps)
def test_however_often_it_waits_nothing_is_lost_and_no_more_than_a_second_repeated(lengths, steps):
    line = Line()
    for length_ms in lengths:
        line.say("some words ", length_ms)
    line.playout.finish()
    text, total = "some words " * len(lengths), sum(lengths) * MS
    heard, waited, corrected = "", False, False
    line.send()
    for step, amount in [*steps, ("go on", 0), ("listen", 300)]:
        match step:
            case "listen":
                line.listen(amount * BEAT_MS)
            case "stall":
                line.beat(amount)
            case "wait":
                line.wait()
                waited = True
            case "go on":
                line.go_on()
                waited = False
            case "mark" if line.marks:
                line.playout.report(line.marks[min(amount, len(line.marks) - 1)], line.now_ms)
                corrected = True
            case _:
                pass
        if waited:
            assert line.playout.due(line.now_ms) is None
        assert text.startswith(line.heard)
        assert corrected or line.heard.startswith(heard), "what was heard stays heard"
        heard = line.heard
    reached = 0
    for audio in line.sent:
        start = int(audio[0])
        assert np.array_equal(audio, ramp(start, len(audio)))
        assert reached - REWIND_MS * MS <= start <= reached, "nothing is lost, and no more than a second repeated"
        reached = start + len(audio)
    assert reached == total
    assert line.playout.all_sent
    line.now_ms += REPORT_GRACE_MS
    line.playout.is_over(line.now_ms)
    line.now_ms += REPORT_GRACE_MS
    assert line.playout.is_over(line.now_ms)
    if not math.isclose(total, 0):
        assert line.marks[-1] == sum(lengths)
