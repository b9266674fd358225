"""The buffer against the simplest thing that could be right: a list of everything ever heard, and two marks in it."""

import numpy as np
from app.audio.buffer import LOOKBACK_MS, AudioBuffer
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

RATE_HZ = 1000
"""One sample is one millisecond."""
PREROLL = 50
LIMIT = 400
LOOKBACK = int(LOOKBACK_MS)


class ListAndBuffer(RuleBasedStateMachine):
    """Does everything to both and compares what can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = AudioBuffer(RATE_HZ, preroll_ms=PREROLL, limit_ms=LIMIT)
        self.heard: list[int] = []
        self.begin: int | None = None
        self.taken = 0
        self.left_behind: int | None = None
        """How much was heard when an utterance was taken and something stayed behind it."""
        self.dropped = 0
        self.voice = 0

    @initialize(length=st.integers(0, 1000))
    def something_was_heard_before(self, length: int) -> None:
        self.append(length)

    @rule(length=st.one_of(st.integers(0, 30), st.integers(0, 1200)))
    def append(self, length: int) -> None:
        new = list(range(len(self.heard), len(self.heard) + length))
        self.buffer.append(np.array(new, np.int64).astype(np.int16))
        self.heard += new
        if self.begin is not None and len(self.heard) - self.begin > 2 * LIMIT:
            self.dropped += len(self.heard) - 2 * LIMIT - self.begin
            self.begin = len(self.heard) - 2 * LIMIT

    @precondition(lambda self: self.begin is None)
    @rule(ago=st.integers(-50, LOOKBACK))
    def begin_utterance(self, ago: int) -> None:
        onset = max(0, len(self.heard) - ago)
        self.buffer.begin_utterance(onset)
        self.begin = max(0, self.taken, min(onset, len(self.heard)) - PREROLL)

    @precondition(lambda self: self.begin is None and self.left_behind is not None)
    @rule()
    def go_on_where_the_last_utterance_was_cut(self) -> None:
        assert self.left_behind is not None
        if len(self.heard) - self.left_behind <= LOOKBACK:
            self.buffer.begin_utterance(self.taken)
            self.begin = self.taken

    @precondition(lambda self: self.begin is not None)
    @rule(onset=st.integers(0, 5000))
    def begin_again(self, onset: int) -> None:
        self.buffer.begin_utterance(onset)

    @rule()
    def consume(self) -> None:
        self.take(self.buffer.consume(), len(self.heard))

    @rule(ago=st.integers(-20, 600))
    def consume_until(self, ago: int) -> None:
        until = max(0, len(self.heard) - ago)
        self.take(self.buffer.consume(until_ms=until), until)

    def take(self, utterance: np.ndarray, until: int) -> None:
        expected = self.utterance(until)
        assert utterance.tolist() == expected
        if self.begin is not None:
            self.taken = max(self.taken, self.begin + len(expected))
            self.left_behind = len(self.heard)
            self.begin = None

    @rule()
    def drop_utterance(self) -> None:
        self.buffer.drop_utterance()
        self.begin = self.left_behind = None

    @rule(ago=st.integers(-50, 500))
    def voice_was_heard(self, ago: int) -> None:
        at = max(0, len(self.heard) - ago)
        self.buffer.note_voice(at)
        self.voice = max(self.voice, at)

    def utterance(self, until: int) -> list[int]:
        if self.begin is None:
            return []
        return self.heard[self.begin : min(until, self.begin + LIMIT)]

    @invariant()
    def both_say_the_same(self) -> None:
        assert self.buffer.peek().tolist() == self.utterance(len(self.heard))
        assert self.buffer.full == (self.begin is not None and len(self.heard) - self.begin >= LIMIT)
        assert self.buffer.received_ms == len(self.heard)
        assert self.buffer.dropped_ms == self.dropped
        assert self.buffer.last_voice_ms == self.voice
        assert self.buffer.silence_ms == max(0, len(self.heard) - self.voice)


TestListAndBuffer = ListAndBuffer.TestCase
TestListAndBuffer.settings = settings(max_examples=300, stateful_step_count=30)
