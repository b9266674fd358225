"""One clock for all playout: every conversation of the process is called 50 times a second from one timer."""

import asyncio
import logging
import time
from collections.abc import Callable

TICK_MS = 20.0
CROWD = 8
"""Up to so many conversations are not many."""
log = logging.getLogger(__name__)


class Metronome:
    """Calls everything that was added, every `TICK_MS`, while there is anything to call. Belongs to one event loop.

    `now_s` is the steady clock (seconds) that conversations go by, `work_s` the one that work is timed by; they differ
    only where time is moved by hand.
    """

    def __init__(
        self, now_s: Callable[[], float] = time.perf_counter, work_s: Callable[[], float] | None = None
    ) -> None:
        self.now_s = now_s
        self.work_s = work_s or now_s
        self._ticks: dict[int, Callable[[], None]] = {}
        self._next = 0
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0

    def add(self, tick: Callable[[], None]) -> int:
        """Call `tick` from now on; it must be quick. Returns a key for `remove`."""
        self._next += 1
        self._ticks[self._next] = tick
        self._start()
        return self._next

    @property
    def crowded(self) -> bool:
        """So many are called that it pays to save work for each at the price of some milliseconds."""
        return len(self._ticks) > CROWD

    def remove(self, key: int) -> None:
        """Stop calling. Unknown keys are ignored."""
        self._ticks.pop(key, None)
        if not self._ticks and self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def beat(self) -> None:
        """Call everything once."""
        for key, tick in list(self._ticks.items()):
            try:
                tick()
            except Exception:
                log.exception("A conversation failed in its playout and is not called any more")
                self._ticks.pop(key, None)

    def _start(self) -> None:
        if self._handle is None:
            self._schedule(asyncio.get_running_loop())

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # After a stall there is no burst of ticks to catch up: playout looks at the time, not at the count.
        self._due += TICK_MS / 1000
        if self._due <= loop.time():
            self._due = loop.time() + TICK_MS / 1000
        self._handle = loop.call_at(self._due, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = None
        self.beat()
        if self._ticks and self._handle is None:
            self._schedule(loop)


class HandMetronome(Metronome):
    """A metronome moved by hand, for conversations that run as fast as the machine can."""

    def __init__(self) -> None:
        super().__init__(lambda: self._time_s, time.perf_counter)
        self._time_s = 0.0

    def advance(self, step_ms: float = TICK_MS) -> None:
        """Let time pass, and call everything once."""
        self._time_s += step_ms / 1000
        self.beat()

    def _start(self) -> None:
        """Only `advance` makes it beat."""
