"""What of a reply has been sent, and what has been heard.

Where the listener's side can lower the volume, a reply that may be interrupted goes on, ducked. Where it cannot (the
telephone), sending waits instead: the lead covers the moment until it is decided, and when it was not enough the reply
goes on from the last word that was heard.

A reply's audio waits here and leaves in step with time: at most `LEAD_MS` ahead of what the listener hears, so that a
stall is not heard and an interruption still cuts at once. Each piece of audio knows the text it speaks, which gives the
words that were heard when a reply is cut off.
"""

import asyncio
import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.conversation.chunker import SPACELESS

LEAD_MS = 200.0
"""How far sending runs ahead of listening."""
BACKLOG_MS = 15_000.0
"""Audio made but not yet sent; beyond this the reply waits (`has_room`)."""
REPORT_GRACE_MS = 1500.0
"""How long the end of a reply waits for a listener whose own reports lag behind (a slow speaker, a jitter buffer)."""
REPORT_LAG_MS = 200.0
"""A listener is taken to have heard this much more than it reported, at most: reports come five times a second."""
REWIND_MS = 1000.0
"""How far a reply that fell silent while it was held may go back to begin with a whole word."""
GAP_MS = 20.0
"""Length of the quiet moment between words that is looked for then."""
AUDIBLE = 184
"""-45 dBFS; what is quieter at the end of a chunk is the pause behind its last word."""
JITTER = 0.25
"""How much of a frame's length a beat may come early or late (5 ms of 20 ms) without a frame more or less."""
SPEECH_CHARACTERS_PER_S = 15.0
"""Speaking rate assumed for a chunk whose audio is not complete yet."""


@dataclass(slots=True)
class _Chunk:
    """A piece of text and its place in the reply's audio."""

    text: str
    start: int
    samples: int = 0
    spoken: int = 0
    """Samples up to its last sound."""
    complete: bool = False
    """Its audio is all there. The last chunk of a reply that broke off never is."""
    reckoned: int = 0
    """How many samples it was taken to have in all when it broke off; the next chunk speaks it anew. 0: it did not."""


class Playout:
    """The audio of one reply. Times are milliseconds of any steady clock, the same one in every call.

    With `frame_ms` audio leaves in whole frames, as many as are due; `report_lag_ms` is how long after a report the
    listener is trusted to have heard on.
    """

    def __init__(self, rate_hz: int, *, frame_ms: float = 0.0, report_lag_ms: float = REPORT_LAG_MS) -> None:
        self.rate_hz = rate_hz
        self._frame = int(rate_hz * frame_ms / 1000) or 1
        self._report_lag_ms = report_lag_ms
        self._waits = False
        self._kept: deque[NDArray[np.int16]] = deque()
        """What was sent last, REWIND_MS of it."""
        self._kept_samples = 0
        self.has_room = asyncio.Event()
        """Clear while more audio waits than `BACKLOG_MS`."""
        self.has_room.set()
        self.finished = False
        """No more audio will be added."""
        self._queue: deque[NDArray[np.int16]] = deque()
        self._chunks: list[_Chunk] = []
        self._total = 0
        self._sent = 0
        self._heard = 0.0
        self._asked_at_ms: float | None = None
        self._wanted = 0
        """Samples to send at this time, still."""
        self._again_until = 0
        """Samples up to here were heard once already, before the reply waited."""
        self._heard_at_ms: float | None = None
        self._all_heard_at_ms: float | None = None
        self._reported: float | None = None
        self._reported_at_ms = 0.0

    def begin_chunk(self, text: str) -> None:
        """The audio added from now on speaks `text`, until `end_chunk`."""
        self._chunks.append(_Chunk(text, self._total))

    def end_chunk(self) -> None:
        """The text of the chunk has been spoken to its end."""
        self._chunks[-1].complete = True

    def add(self, samples: NDArray[np.int16]) -> None:
        """Add audio (int16 mono [n] at the playout's rate) of the current chunk."""
        if not len(samples):
            return
        chunk = self._chunks[-1]
        audible = np.flatnonzero((samples > AUDIBLE) | (samples < -AUDIBLE))
        if len(audible):
            chunk.spoken = chunk.samples + int(audible[-1]) + 1
        chunk.samples += len(samples)
        self._queue.append(samples)
        self._total += len(samples)
        if (self._total - self._sent) * 1000 > BACKLOG_MS * self.rate_hz:
            self.has_room.clear()

    def take_back(self) -> None:
        """The chunk that is being added broke off: what of it has not been sent yet is dropped, and it will be spoken
        anew from its beginning. Call `begin_chunk` again with the same text; words that were heard stay heard, and
        count once."""
        chunk = self._chunks[-1]
        chunk.reckoned = self._length(chunk)
        kept = max(chunk.start, self._sent, self._again_until)
        dropped, self._total = self._total - kept, kept
        while dropped > 0:
            piece = self._queue.pop()
            if len(piece) > dropped:
                self._queue.append(piece[: len(piece) - dropped])
            dropped -= len(piece)
        chunk.samples = kept - chunk.start
        if (self._total - self._sent) * 1000 <= BACKLOG_MS * self.rate_hz:
            self.has_room.set()

    def finish(self) -> None:
        """All audio of the reply has been added."""
        self.finished = True

    @property
    def duration_ms(self) -> float:
        """Length of the audio added so far."""
        return self._total * 1000 / self.rate_hz

    @property
    def all_sent(self) -> bool:
        """Nothing is left to send, and nothing will be."""
        return self.finished and not self._queue

    @property
    def sentence_sent_ms(self) -> float | None:
        """The length of the audio sent so far, if it ends where a chunk of text does."""
        ends = any(chunk.complete and chunk.start + chunk.samples == self._sent for chunk in self._chunks)
        return self._sent * 1000 / self.rate_hz if ends else None

    def wait(self, now_ms: float) -> None:
        """Send nothing until `go_on`."""
        self._advance(now_ms)
        self._waits = True

    def go_on(self, now_ms: float) -> None:
        """Send again. If everything that was sent has been heard meanwhile, from the last word on."""
        self._advance(now_ms)
        self._waits = False
        self._asked_at_ms = None
        if self._sent and self._heard >= self._sent and not self.all_sent:
            self._rewind()

    def due(self, now_ms: float) -> NDArray[np.int16] | None:
        """The samples to send now, or None; never beyond the end of a chunk of text, so call it with the same time
        until there are none. The first call starts the playout's clock."""
        self._advance(now_ms)
        if self._waits or not self._queue:
            return None
        if now_ms != self._asked_at_ms:
            self._asked_at_ms = now_ms
            self._wanted = self._frames_due() * self._frame
        wanted = min(self._wanted, self._until_chunk_ends())
        if wanted <= 0:
            return None
        taken: list[NDArray[np.int16]] = []
        while wanted > 0 and self._queue:
            piece = self._queue.popleft()
            if len(piece) > wanted:
                self._queue.appendleft(piece[wanted:])
                piece = piece[:wanted]
            taken.append(piece)
            wanted -= len(piece)
            self._wanted -= len(piece)
            self._sent += len(piece)
            self._keep(piece)
        if (self._total - self._sent) * 1000 <= BACKLOG_MS * self.rate_hz:
            self.has_room.set()
        return taken[0] if len(taken) == 1 else np.concatenate(taken)

    def report(self, played_ms: float, now_ms: float) -> None:
        """The listener says how much of the reply has left its speaker. Never less than before, or more than was sent;
        what is no number is ignored."""
        if math.isnan(played_ms):
            return
        self._reported = min(max(played_ms * self.rate_hz / 1000, self._reported or 0.0), float(self._sent))
        self._reported_at_ms = now_ms

    def is_over(self, now_ms: float) -> bool:
        """Everything has been heard: by the listener's own word, or by the clock."""
        if not self.all_sent:
            return False
        self._advance(now_ms)
        if self._heard < self._sent:
            return False
        if self._all_heard_at_ms is None:
            self._all_heard_at_ms = now_ms
        if self._reported is None or self._reported_all:
            return True
        return now_ms - self._all_heard_at_ms >= REPORT_GRACE_MS

    def heard_samples(self, now_ms: float) -> float:
        """How many samples the listener has heard: what was reported, else what the clock says."""
        self._advance(now_ms)
        heard = max(self._heard, float(self._again_until))
        if self._reported is None or self._reported_all:
            return heard
        since_ms = min(max(0.0, now_ms - self._reported_at_ms), self._report_lag_ms)
        return min(heard, self._reported + since_ms * self.rate_hz / 1000)

    def heard_text(self, now_ms: float) -> str:
        """The text up to the last word that was heard to its end: always a beginning of what the chunks hold."""
        heard = self.heard_samples(now_ms)
        text = before = ""
        for chunk in self._chunks:
            passed = heard - chunk.start
            if passed < 0:  # in the pause behind the chunk before
                break
            if chunk.complete and passed >= chunk.spoken:
                text, before = text + chunk.text, ""
                continue
            length = chunk.spoken if chunk.complete else self._length(chunk)
            words = _words_up_to(chunk.text, min(passed, chunk.samples) / length)
            before = max(before, words, key=len)  # of a chunk that was begun twice, what was heard of either
            if not chunk.reckoned:
                break
        return text + before

    def _length(self, chunk: _Chunk) -> int:
        """The length that a chunk is taken to have while it is not complete: always more than is there, so that its
        last word is not taken for heard."""
        estimate = int(len(chunk.text) / SPEECH_CHARACTERS_PER_S * self.rate_hz)
        return chunk.reckoned or max(chunk.samples + 1, estimate)

    def _frames_due(self) -> int:
        """How many frames the lead has room for. A clock that beats once a frame finds exactly one each time, wherever
        its beats lie and though each comes a little early or late: one that is due within `JITTER` is due."""
        room = (LEAD_MS * self.rate_hz / 1000 - (self._sent - self._heard)) / self._frame
        return 1 if JITTER <= room < 2 - JITTER else round(room)

    def _until_chunk_ends(self) -> int:
        """How many samples are left of the chunk that is being sent, if no more will be added to it; otherwise all
        whole frames."""
        left = self._total - self._sent
        for chunk in self._chunks:
            end = chunk.start + chunk.samples
            if end > self._sent:
                if chunk.complete or chunk.reckoned:
                    return end - self._sent
                break
        return left if self.finished else left // self._frame * self._frame

    def _keep(self, piece: NDArray[np.int16]) -> None:
        self._kept.append(piece)
        self._kept_samples += len(piece)
        while self._kept_samples - len(self._kept[0]) >= REWIND_MS * self.rate_hz / 1000:
            self._kept_samples -= len(self._kept.popleft())

    def _rewind(self) -> None:
        """Go back to the last quietest moment of what was heard last: that is where a word begins."""
        sent = np.concatenate(list(self._kept))[-int(REWIND_MS * self.rate_hz / 1000) :]
        gap = int(GAP_MS * self.rate_hz / 1000)
        energy = np.convolve(sent.astype(np.float64) ** 2, np.ones(gap), "valid")
        latest = len(energy) - 2 * gap  # a little must come back, or it would not be a word
        if latest <= 0:
            return
        begin = latest - 1 - int(np.argmin(energy[:latest][::-1])) + gap // 2  # the last one, if several are as quiet
        self._queue.appendleft(sent[begin:])
        self._again_until = max(self._again_until, self._sent)
        self._sent -= len(sent) - begin
        self._heard = float(self._sent)
        self._kept = deque([sent[:begin]])
        self._kept_samples = begin

    @property
    def _reported_all(self) -> bool:
        """The listener has reported the last of what was sent, but for 20 ms."""
        return self._reported is not None and self._reported >= self._sent - self.rate_hz // 50

    def _advance(self, now_ms: float) -> None:
        """Listening goes on by itself until it has caught up with what was sent."""
        if self._heard_at_ms is not None:
            passed = max(0.0, now_ms - self._heard_at_ms) * self.rate_hz / 1000
            self._heard = min(float(self._sent), self._heard + passed)
        self._heard_at_ms = now_ms


def _words_up_to(text: str, share: float) -> str:
    """The whole words within this share (0..1) of the text's length, taken as the share of its time."""
    reach = int(len(text) * min(max(share, 0.0), 1.0))
    if reach >= len(text):
        return text
    while reach > 0 and not _ends_word(text, reach):
        reach -= 1
    return text[:reach]


def _ends_word(text: str, position: int) -> bool:
    """A word ends before this position. Scripts without spaces are taken character by character."""
    before, after = text[position - 1], text[position]
    return not before.isspace() and (after.isspace() or bool(SPACELESS.match(before)))
