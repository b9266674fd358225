"""A chunk that breaks off is taken back and spoken anew: what was sent of it stays sent, and what was heard is counted
once.

Each attempt at a chunk is a plateau of its own level, so that every sample tells which attempt it belongs to.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import pytest
from app.conversation.options import TELEPHONE
from app.conversation.playout import BACKLOG_MS, LEAD_MS, REWIND_MS, Playout
from hypothesis import given
from hypothesis import strategies as st

RATE_HZ = 8000
MS = RATE_HZ // 1000
TICK_MS = 20.0
LEVEL = 1000
"""Of the first attempt; each one after it is a step louder."""
TEXT = "One two three four five six seven eight. "


def browser() -> Playout:
    return Playout(RATE_HZ)


def telephone() -> Playout:
    return Playout(RATE_HZ, frame_ms=TELEPHONE.frame_ms, report_lag_ms=TELEPHONE.report_lag_ms)


@dataclass
class Listening:
    """A playout, a steady clock, everything that was sent, and the laws that hold whatever happens."""

    playout: Playout = field(default_factory=browser)
    now_ms: float = 0.0
    text: str = ""
    reading: str = ""
    """The text of the chunk that is not complete yet."""
    sent: list[np.ndarray] = field(default_factory=list)
    ends_ms: list[float] = field(default_factory=list)
    attempts: int = 0
    heard_before: str = ""

    def begin(self, text: str, length_ms: float) -> None:
        """An attempt at a chunk; its audio is not complete yet."""
        self.playout.begin_chunk(text)
        self.playout.add(np.full(int(length_ms * MS), LEVEL + self.attempts, np.int16))
        self.attempts += 1
        self.reading = text

    def complete(self, text: str) -> None:
        self.playout.end_chunk()
        self.text, self.reading = self.text + text, ""

    def listen(self, length_ms: float) -> None:
        """Time passes."""
        end_ms = self.now_ms + length_ms
        while self.now_ms < end_ms:
            while (audio := self.playout.due(self.now_ms)) is not None:
                self.sent.append(audio)
                if (end := self.playout.sentence_sent_ms) is not None:
                    self.ends_ms.append(end)
            self.check()
            self.now_ms += TICK_MS

    def check(self) -> None:
        """What was heard is the beginning of the text, is never taken back, and is never more than was sent."""
        heard = self.heard
        assert (self.text + self.reading).startswith(heard)
        assert heard.startswith(self.heard_before), "what was heard stays heard"
        assert self.playout.heard_samples(self.now_ms) <= self.sent_ms * MS
        self.heard_before = heard

    @property
    def heard(self) -> str:
        return self.playout.heard_text(self.now_ms)

    @property
    def sent_ms(self) -> float:
        return sum(map(len, self.sent)) / MS

    @property
    def unsent_ms(self) -> float:
        return self.playout.duration_ms - self.sent_ms

    def lengths_ms(self) -> dict[int, float]:
        """How much was sent of each attempt, in the order in which they were heard."""
        samples = np.concatenate([np.zeros(0, np.int16), *self.sent]).tolist()
        runs = [(level - LEVEL, len(list(run)) / MS) for level, run in groupby(samples)]
        assert len({attempt for attempt, _ in runs}) == len(runs), "no attempt is heard in two pieces"
        assert runs == sorted(runs), "and none before an earlier one"
        return dict(runs)


# --- what is sent


def test_what_was_not_sent_is_dropped_and_the_chunk_is_heard_from_its_beginning():
    listening = Listening()
    listening.begin(TEXT, 2000)
    listening.listen(500)
    listening.playout.take_back()
    listening.begin(TEXT, 1600)
    listening.complete(TEXT)
    listening.playout.finish()
    listening.listen(3000)
    sent = listening.lengths_ms()
    assert sent[0] == pytest.approx(500 + LEAD_MS - TICK_MS)
    assert sent[1] == 1600
    assert listening.playout.duration_ms == listening.sent_ms


def test_of_a_chunk_that_broke_off_before_it_was_sent_nothing_is_heard():
    listening = Listening()
    listening.begin(TEXT, 300)
    listening.complete(TEXT)
    listening.begin(TEXT, 700)
    listening.playout.take_back()
    listening.begin(TEXT, 900)
    listening.complete(TEXT)
    listening.playout.finish()
    listening.listen(3000)
    assert listening.lengths_ms() == {0: 300, 2: 900}


def test_a_chunk_that_broke_off_without_a_sound_leaves_no_trace():
    listening = Listening()
    listening.playout.begin_chunk(TEXT)
    listening.playout.take_back()
    listening.begin(TEXT, 900)
    listening.complete(TEXT)
    listening.playout.finish()
    listening.listen(2000)
    assert listening.lengths_ms() == {0: 900}
    assert listening.heard == TEXT


def test_the_end_of_the_sentence_is_that_of_the_chunk_that_was_spoken_to_its_end():
    listening = Listening()
    listening.begin(TEXT, 1000)
    listening.listen(400)
    listening.playout.take_back()
    listening.listen(1000)
    assert listening.ends_ms == [], "where it broke off no sentence ends"
    listening.begin(TEXT, 800)
    listening.complete(TEXT)
    listening.playout.finish()
    listening.listen(3000)
    assert listening.ends_ms == [listening.playout.duration_ms]


def test_a_reply_that_waited_for_room_has_room_again():
    listening = Listening()
    listening.begin(TEXT, BACKLOG_MS + 1000)
    assert not listening.playout.has_room.is_set()
    listening.playout.take_back()
    assert listening.playout.has_room.is_set()


def test_a_reply_that_ends_where_it_broke_off_is_over_and_keeps_the_words_that_were_heard():
    """Nobody was left to speak it anew."""
    listening = Listening()
    listening.begin(TEXT, 2700)
    listening.listen(1000)
    heard = listening.heard
    listening.playout.take_back()
    listening.playout.finish()
    listening.listen(1000)
    assert listening.playout.is_over(listening.now_ms)
    assert listening.heard.startswith(heard)
    assert heard == "One two three"


# --- what was heard


def test_the_words_that_were_heard_before_it_broke_off_count_once():
    listening = Listening()
    listening.begin(TEXT, 2700)
    listening.listen(1000)
    assert listening.heard == "One two three"
    listening.playout.take_back()
    assert listening.heard == "One two three"
    listening.begin(TEXT, 2700)
    listening.complete(TEXT)
    listening.listen(400)
    assert listening.heard.startswith("One two three"), "though the new voice has come to 'One' only"
    listening.listen(1500)
    assert listening.heard == "One two three four five"
    listening.playout.finish()
    listening.listen(2000)
    assert listening.heard == TEXT


def test_an_interruption_while_it_is_said_again_keeps_what_was_heard_the_first_time():
    listening = Listening()
    listening.begin("Before it. ", 300)
    listening.complete("Before it. ")
    listening.begin(TEXT, 2700)
    listening.listen(1300)
    heard = listening.heard
    assert heard.startswith("Before it. One two")
    listening.playout.take_back()
    listening.begin(TEXT, 2700)
    listening.listen(240)
    assert listening.heard.startswith(heard)
    assert listening.heard.count("One") == 1


def test_it_may_break_off_again():
    listening = Listening()
    for _ in range(3):
        listening.begin(TEXT, 2700)
        listening.listen(700)
        listening.playout.take_back()
    listening.begin(TEXT, 2700)
    listening.complete(TEXT)
    listening.playout.finish()
    listening.listen(5000)
    assert listening.heard == TEXT
    assert len(listening.lengths_ms()) == 4


def test_what_a_line_says_again_after_a_wait_is_said_before_the_chunk_begins_anew():
    """It broke off between going back to the last word and saying that word again."""
    line = Listening(telephone())
    line.playout.begin_chunk(TEXT)
    quiet = np.full(20 * MS, LEVEL // 100, np.int16)
    word = np.full(80 * MS, LEVEL, np.int16)
    line.playout.add(np.concatenate([np.tile(word, 10), quiet, word, np.tile(word, 10)]))
    line.reading = TEXT
    line.listen(700)
    line.playout.wait(line.now_ms)
    line.listen(400)
    heard, sent_ms = line.heard, line.sent_ms
    assert heard == "One two three"
    line.playout.go_on(line.now_ms)
    line.playout.take_back()
    assert line.heard == heard
    line.begin(TEXT, 50)
    line.complete(TEXT)
    line.begin("More.", 500)
    line.complete("More.")
    line.playout.finish()
    line.listen(40)
    assert line.sent_ms > sent_ms, "the last word again"
    assert line.heard == heard
    assert line.ends_ms == [sent_ms + 50], "and where the sentence ends is told"
    line.listen(1500)
    assert line.ends_ms == [sent_ms + 50, sent_ms + 550]
    assert line.heard == TEXT + "More."


lengths = st.integers(0, 1200)
chunks = st.lists(
    st.tuples(
        st.text("ab c今。", max_size=40),
        st.lists(st.tuples(lengths, st.integers(0, 800)), max_size=2),
        st.tuples(lengths, st.integers(0, 800)),
    ),
    min_size=1,
    max_size=3,
)
"""Each with the attempts that broke off, and the one that did not: how long, and how much later."""


@given(chunks=chunks, make=st.sampled_from([browser, telephone]), completed_late=st.booleans())
def test_whatever_breaks_off_everything_is_said_and_heard_to_its_end(
    chunks: list[tuple[str, list[tuple[int, int]], tuple[int, int]]],
    make: Callable[[], Playout],
    completed_late: bool,
) -> None:
    listening = Listening(make())
    whole: dict[int, float] = {}
    for text, broken, (length_ms, later_ms) in chunks:
        for made_ms, passed_ms in broken:
            begun_ms = listening.playout.duration_ms
            listening.begin(text, made_ms)
            listening.listen(passed_ms)
            heard = listening.heard
            listening.playout.take_back()
            assert listening.playout.duration_ms == max(listening.sent_ms, begun_ms)
            assert listening.heard == heard
        whole[listening.attempts] = length_ms
        listening.begin(text, length_ms)
        if completed_late:
            listening.listen(later_ms)
        listening.complete(text)
        listening.listen(later_ms)
    listening.playout.finish()
    listening.listen(listening.unsent_ms + 2 * LEAD_MS)
    sent = listening.lengths_ms()
    assert {attempt: sent.get(attempt, 0) for attempt in whole} == whole, "every chunk once in full"
    assert listening.heard == "".join(text for text, *_ in chunks)
    assert listening.playout.is_over(listening.now_ms)
    assert listening.playout.has_room.is_set()


@given(
    first_ms=st.integers(0, 800),
    steps=st.lists(st.tuples(st.sampled_from(["wait", "go on", "break"]), st.integers(0, 900)), max_size=8),
)
def test_on_a_line_that_waits_and_goes_back_a_chunk_may_break_off_at_any_time(
    first_ms: int, steps: list[tuple[str, int]]
) -> None:
    line = Listening(telephone())
    line.begin("Before it. ", first_ms)
    line.complete("Before it. ")
    line.begin(TEXT, 1500)
    for step, passed_ms in steps:
        match step:
            case "wait":
                line.playout.wait(line.now_ms)
            case "go on":
                line.playout.go_on(line.now_ms)
            case "break":
                line.playout.take_back()
                line.check()
                line.begin(TEXT, 1500)
        line.listen(passed_ms)
    line.complete(TEXT)
    line.playout.go_on(line.now_ms)
    line.playout.finish()
    line.listen(line.unsent_ms + 2 * LEAD_MS + REWIND_MS)
    assert line.playout.is_over(line.now_ms)
    assert line.heard == "Before it. " + TEXT
