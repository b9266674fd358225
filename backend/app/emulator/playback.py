"""The buffer between the server and the caller's ear: audio in order, marks between, played in real time.

Pure: whoever owns it says when time has passed, by taking audio.
"""

from collections import deque
from dataclasses import dataclass

BYTES_PER_MS = 8
"""mu-law at 8 kHz: one byte is one sample."""
SILENCE = b"\xff"
"""Zero in mu-law."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A time between two pieces of audio in which there was nothing to play: an underrun, or a pause that was meant.

    `after_mark` is the last mark behind the audio before the gap ("" when there was none: the server had not said that
    it was at an end); `cleared` says that a clear had emptied the buffer. Times in ms of the line.
    """

    start_ms: float
    end_ms: float
    after_mark: str
    cleared: bool

    @property
    def ms(self) -> float:
        """How long it was."""
        return self.end_ms - self.start_ms


class Playback:
    """What a server has sent and a caller has not heard yet."""

    def __init__(self) -> None:
        self._pieces: deque[bytes | str] = deque()
        self._passed: list[str] = []
        self._dry_at_ms: float | None = None
        self._last_mark = ""
        self._cleared = False
        self._playing = self._started = False
        self.waiting = 0
        """Bytes that are to be played."""
        self.gaps: list[Gap] = []

    def put(self, audio: bytes) -> None:
        """Queue mu-law audio."""
        self._pieces.append(audio)
        self.waiting += len(audio)

    def mark(self, name: str) -> bool:
        """Queue a mark behind what is waiting; True if nothing is: then it has been reached already."""
        if self._pieces or self._passed or self._playing:
            self._pieces.append(name)
            return False
        self._last_mark = name
        return True

    def take(self, size: int, at_ms: float) -> tuple[bytes, list[str]]:
        """The audio (up to `size` bytes) that is heard from `at_ms` on, and the marks that have been reached by then.

        A mark is reached when all before it has been played, so one that lies behind audio of this piece comes with the
        next piece.
        """
        reached, self._passed = self._passed, []
        taken: list[bytes] = []
        room = size
        while self._pieces:
            piece = self._pieces[0]
            if isinstance(piece, str):
                self._pieces.popleft()
                (self._passed if taken else reached).append(piece)
                self._last_mark = piece
                continue
            if not room:
                break
            part = piece[:room]
            if len(part) == len(piece):
                self._pieces.popleft()
            else:
                self._pieces[0] = piece[room:]
            room -= len(part)
            taken.append(part)
            if len(taken) == 1:
                self._resumes(at_ms)
            self._last_mark = ""
        audio = b"".join(taken)
        self.waiting -= len(audio)
        self._playing = bool(audio)
        self._started = self._started or bool(audio)
        if room and self._started and self._dry_at_ms is None:
            self._dry_at_ms = at_ms + len(audio) / BYTES_PER_MS
        return audio, reached

    def clear(self) -> tuple[int, list[str]]:
        """Empty the buffer: how many bytes will not be heard, and the marks that come back now."""
        marks = [*self._passed, *(piece for piece in self._pieces if isinstance(piece, str))]
        dropped, self.waiting = self.waiting, 0
        self._pieces.clear()
        self._passed = []
        self._cleared = True
        self._playing = False
        return dropped, marks

    def _resumes(self, at_ms: float) -> None:
        if self._dry_at_ms is not None and at_ms > self._dry_at_ms:
            self.gaps.append(Gap(self._dry_at_ms, at_ms, self._last_mark, self._cleared))
        self._dry_at_ms = None
        self._cleared = False
