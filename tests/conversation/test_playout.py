"""What of a reply has been sent and heard: sent in order and in step with time, and never more heard than was sent.

Audio is a ramp that counts its samples, so that every sample tells where it belongs.
"""

import asyncio
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from app.conversation.playout import BACKLOG_MS, LEAD_MS, REPORT_GRACE_MS, REPORT_LAG_MS, Playout
from hypothesis import given
from hypothesis import strategies as st

RATE_HZ = 8000
MS = RATE_HZ // 1000
TICK_MS = 20.0


def ramp(start: int, samples: int) -> np.ndarray:
    return np.arange(start, start + samples).astype(np.int16)


@dataclass
class Listening:
    """A playout, a steady clock and everything that was sent."""

    playout: Playout = field(default_factory=lambda: Playout(RATE_HZ))
    now_ms: float = 0.0
    sent: list[np.ndarray] = field(default_factory=list)

    def say(self, text: str, length_ms: float, *, whole: bool = True) -> None:
        """A chunk and its audio."""
        self.playout.begin_chunk(text)
        self.playout.add(ramp(int(self.playout.duration_ms * MS), int(length_ms * MS)))
        if whole:
            self.playout.end_chunk()

    def listen(self, length_ms: float) -> None:
        """Time passes."""
        end_ms = self.now_ms + length_ms
        while self.now_ms < end_ms:
            audio = self.playout.due(self.now_ms)
            if audio is not None:
                self.sent.append(audio)
            self.now_ms += TICK_MS

    @property
    def sent_ms(self) -> float:
        return sum(len(audio) for audio in self.sent) / MS

    @property
    def heard(self) -> str:
        return self.playout.heard_text(self.now_ms)


def counting(words: int, length_ms: float) -> Listening:
    """One chunk of so many words of the same length, which takes so long."""
    listening = Listening()
    listening.say("five " * words, length_ms)
    listening.playout.finish()
    return listening


# --- sending


@given(
    pieces=st.lists(st.integers(1, 900), max_size=20),
    ticks=st.lists(st.floats(0, 700), max_size=60),
)
def test_what_was_added_is_sent_once_in_order_and_never_far_ahead(pieces, ticks):
    playout, now_ms, begun_ms = Playout(RATE_HZ), 0.0, None
    playout.begin_chunk("words")
    sent: list[np.ndarray] = []
    added = 0
    left = list(pieces)
    for passed_ms in [*ticks, *[100.0] * 60]:
        if left:
            playout.add(ramp(added, left[0] * MS))
            added += left.pop(0) * MS
        now_ms += passed_ms
        audio = playout.due(now_ms)
        begun_ms = now_ms if begun_ms is None else begun_ms
        if audio is not None:
            assert len(audio) > 0
            sent.append(audio)
        total = sum(len(audio) for audio in sent)
        assert total / MS <= now_ms - begun_ms + LEAD_MS + 0.2, "never more than the lead ahead of time"
        assert playout.heard_samples(now_ms) <= total
    total = sum(len(audio) for audio in sent)
    assert np.array_equal(np.concatenate([np.zeros(0, np.int16), *sent]), ramp(0, total))


def test_nothing_is_sent_before_there_is_anything_and_all_of_it_in_the_end():
    listening = Listening()
    listening.listen(500)
    assert listening.sent == []
    listening.say("words", 1000)
    listening.playout.finish()
    listening.listen(2000)
    assert listening.sent_ms == 1000
    assert listening.playout.all_sent


def test_a_reply_that_was_late_is_heard_from_its_beginning():
    """The clock of the listener stands still while there is nothing to hear."""
    listening = Listening()
    listening.say("One two three four. ", 400)
    listening.listen(5000)
    listening.say("Five six seven eight. ", 2000)
    listening.playout.finish()
    listening.listen(TICK_MS)
    assert listening.sent_ms == 400 + LEAD_MS
    assert listening.heard == "One two three four. "


def test_after_a_stall_only_the_lead_is_sent_again():
    listening = counting(10, 10_000)
    listening.listen(500)
    listening.now_ms += 3000
    listening.listen(TICK_MS)
    assert listening.sent_ms <= 500 + LEAD_MS + LEAD_MS


async def test_a_reply_that_nobody_hears_waits_at_the_backlog_and_goes_on_when_it_is_heard():
    listening = Listening()
    listening.playout.begin_chunk("words")
    seconds = 0
    while listening.playout.has_room.is_set():
        listening.playout.add(ramp(0, 1000 * MS))
        seconds += 1
    assert seconds == BACKLOG_MS / 1000 + 1
    listening.listen(500)
    assert not listening.playout.has_room.is_set()
    listening.listen(1500 + TICK_MS)
    async with asyncio.timeout(10):
        await listening.playout.has_room.wait()


# --- the end


def test_it_is_over_when_everything_was_heard_by_the_clock():
    listening = counting(4, 1000)
    listening.listen(980)
    assert not listening.playout.is_over(listening.now_ms)
    listening.listen(TICK_MS)
    assert listening.playout.is_over(listening.now_ms)
    assert listening.heard == "five " * 4


def test_it_is_not_over_before_it_is_complete():
    listening = Listening()
    listening.say("words ", 200)
    listening.listen(1000)
    assert not listening.playout.is_over(listening.now_ms)
    listening.playout.finish()
    assert listening.playout.is_over(listening.now_ms)


def test_a_listener_that_lags_is_waited_for_and_one_that_never_gets_there_only_so_long():
    listening = counting(4, 1000)
    listening.listen(1000)
    listening.playout.report(700, listening.now_ms)
    assert not listening.playout.is_over(listening.now_ms)
    listening.listen(REPORT_GRACE_MS - TICK_MS)
    assert not listening.playout.is_over(listening.now_ms)
    listening.listen(TICK_MS)
    assert listening.playout.is_over(listening.now_ms)


def test_a_listener_that_says_it_has_heard_the_last_of_it_is_believed_at_once():
    listening = counting(4, 1000)
    listening.listen(1000)
    listening.playout.report(985, listening.now_ms)
    assert listening.playout.is_over(listening.now_ms)
    assert listening.heard == "five " * 4, "and has heard the last word too"


# --- what was heard


@pytest.mark.parametrize(("passed_ms", "words"), [(0, 0), (100, 0), (500, 2), (1000, 5), (1500, 7), (2000, 10)])
def test_the_words_that_were_heard_grow_with_time(passed_ms, words):
    listening = counting(10, 2000)
    listening.listen(passed_ms)
    assert listening.heard == ("five " * words).removesuffix(" " if words < 10 else "")


def test_only_words_that_were_heard_to_their_end_count():
    listening = Listening()
    listening.say("An extraordinarily long word", 2800)
    listening.listen(1400)
    assert listening.heard == "An"


def test_the_pause_behind_the_last_word_need_not_be_heard():
    listening = Listening()
    listening.playout.begin_chunk("One two three four.")
    listening.playout.add(np.concatenate([np.full(800 * MS, 5000), np.full(200 * MS, 100)]).astype(np.int16))
    listening.playout.end_chunk()
    listening.say(" 👋", 0)
    listening.listen(700)
    assert listening.heard == "One two three"
    listening.listen(120)
    assert listening.heard == "One two three four."
    listening.listen(200)
    assert listening.heard == "One two three four. 👋"


def test_of_a_script_without_spaces_every_character_counts():
    listening = Listening()
    listening.say("今日はいい天気です。", 1000)
    listening.listen(500)
    assert listening.heard == "今日はいい"


def test_chunks_without_a_sound_count_with_what_was_heard_before_them():
    listening = Listening()
    listening.say("One two. ", 500)
    listening.say("👋 ", 0)
    listening.say("Three four.", 500)
    listening.listen(400)
    assert listening.heard == "One"
    listening.listen(120)
    assert listening.heard == "One two. 👋 "


def test_of_a_chunk_that_is_not_complete_only_what_its_audio_can_hold_was_heard():
    listening = Listening()
    listening.say("word " * 30, 500, whole=False)
    listening.listen(5000)
    assert listening.heard == "word", "half a second of speech is not thirty words"


def test_a_chunk_that_broke_off_never_counts_as_a_whole():
    listening = Listening()
    listening.say("One two. ", 500)
    listening.say("Three four five six.", 0, whole=False)
    listening.playout.finish()
    listening.listen(3000)
    assert listening.playout.is_over(listening.now_ms)
    assert listening.heard == "One two. "


def test_a_report_counts_for_the_time_since_it_came_but_not_for_ever():
    listening = counting(10, 2000)
    listening.listen(1000)
    listening.playout.report(200, listening.now_ms)
    listening.playout.report(math.nan, listening.now_ms)
    assert listening.playout.heard_samples(listening.now_ms) == 200 * MS
    listening.listen(100)
    assert listening.playout.heard_samples(listening.now_ms) == pytest.approx(300 * MS)
    listening.listen(500)
    assert listening.playout.heard_samples(listening.now_ms) == pytest.approx((200 + REPORT_LAG_MS) * MS)


reports = st.lists(
    st.tuples(st.floats(0, 400), st.one_of(st.none(), st.floats(), st.floats(-100, 4000))),
    max_size=40,
)
texts = st.lists(st.tuples(st.text("ab c今。", max_size=30), st.integers(0, 1200)), min_size=1, max_size=6)


@given(chunks=texts, broken=st.booleans(), reports=reports)
def test_whatever_the_listener_reports_no_more_was_heard_than_was_sent(chunks, broken, reports):
    listening = Listening()
    for number, (text, length_ms) in enumerate(chunks, 1):
        listening.say(text, length_ms, whole=not (broken and number == len(chunks)))
    listening.playout.finish()
    text = "".join(text for text, _ in chunks)
    before = ""
    for passed_ms, report in reports:
        listening.listen(passed_ms)
        if report is not None:
            listening.playout.report(report, listening.now_ms)
        assert 0 <= listening.playout.heard_samples(listening.now_ms) <= listening.sent_ms * MS
        heard = listening.heard
        assert text.startswith(heard)
        if report is None or math.isnan(report):
            assert heard.startswith(before), "what was heard stays heard"
        before = heard
    listening.listen(sum(length_ms for _, length_ms in chunks) + REPORT_GRACE_MS + 5 * TICK_MS)
    listening.playout.is_over(listening.now_ms)
    listening.now_ms += REPORT_GRACE_MS
    assert listening.playout.is_over(listening.now_ms), "it ends in any case"


@given(reports=st.lists(st.floats(0, 3000), max_size=10))
def test_an_honest_listener_is_believed_to_the_word(reports):
    """Within the lag of its reports, and never beyond."""
    listening = counting(20, 3000)
    listening.listen(3000)
    heard_ms = 0.0
    for report in sorted(reports):
        listening.playout.report(report, listening.now_ms)
        heard_ms = report
    if reports and heard_ms < 2980:
        assert listening.playout.heard_samples(listening.now_ms) == pytest.approx(heard_ms * MS)
