"""Whether a provider does its work: a circuit breaker for each provider and capability.

A provider that fails is left alone for a while, then tried with one request. What fails for one capability casts doubt
on the whole service: while it lasts, its other capabilities get little patience before somebody else is asked as well.
"""

import logging
import time
from collections.abc import Callable

from app.core.errors import AhoyError, OverloadedError, ServiceError

FAILURES = 3
"""So many failures in a row open the circuit."""
PAUSE_S, MAX_PAUSE_S = 5.0, 60.0
"""The first pause, and the longest; each one is twice the one before."""
RATE_PAUSE_S = 1.0
"""For one that takes no more requests and does not say for how long."""
DOUBT_S = 10.0
"""How long a service is doubted."""
DOUBTED_PATIENCE_S = 0.15

_AT_ONCE = {"key_refused", "quota_exceeded", "model_not_found"}
"""Nothing that waiting would mend: the longest pause."""
_MAYBE_GONE = {"service_unreachable", "service_late"}
_NOT_ITS_FAULT = {"content_filtered", "context_too_long", "language_not_spoken"}

log = logging.getLogger(__name__)


class Doubt:
    """What all capabilities of one service know about it."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.now_s = now_s
        self._until_s = float("-inf")

    def cast(self) -> None:
        """It was late, or could not be reached."""
        self._until_s = self.now_s() + DOUBT_S

    def clear(self) -> None:
        """It has just done its work."""
        self._until_s = float("-inf")

    @property
    def doubted(self) -> bool:
        """Whether it may be gone."""
        return self.now_s() < self._until_s


class Health:
    """The circuit of one provider for one capability. `name` is shown to people: "openai (speech)"."""

    def __init__(self, name: str, doubt: Doubt | None = None) -> None:
        self.name = name
        self.problem = ""
        """What was wrong the last time; empty when it works."""
        self._doubt = doubt or Doubt()
        self._failures = self._breaks = 0
        self._pause_s = PAUSE_S
        self._open_until_s = float("-inf")
        self._open = self._probing = False

    @property
    def works(self) -> bool:
        """The circuit is closed."""
        return not self._open

    def admits(self) -> bool:
        """Whether to ask it now. While it is being tried after a pause, the others are not to ask it."""
        if not self._open:
            return True
        return not self._probing and self._doubt.now_s() >= self._open_until_s

    def begins(self) -> None:
        """It is asked."""
        self._probing = self._open

    def patience_s(self, usual_s: float) -> float:
        """How long to wait for it before somebody else is asked as well."""
        return min(usual_s, DOUBTED_PATIENCE_S) if self._doubt.doubted else usual_s

    def succeeded(self) -> None:
        """It has done its work."""
        if self._open:
            log.warning("%s works again", self.name)
        self.problem = ""
        self._failures, self._pause_s = 0, PAUSE_S
        self._open = self._probing = False
        self._doubt.clear()

    def broke_off(self, error: Exception) -> None:
        """It began well and failed then. To begin well is no success when that happens again and again."""
        self._breaks += 1
        self._failures = max(self._failures, self._breaks - 1)
        self.failed(error)

    def completed(self) -> None:
        """What it began it has also ended."""
        self._breaks = 0

    def given_up(self) -> None:
        """It was not let finish, which says nothing about it."""
        self._probing = False

    def late(self) -> None:
        """It has not answered yet, and somebody else is asked as well. The little patience that a doubted service gets
        does not prolong the doubt: one that is merely slow would be doubted for ever."""
        if not self._doubt.doubted:
            self._doubt.cast()

    def failed(self, error: Exception) -> None:
        """It could not do its work."""
        self._probing = False
        code = error.code if isinstance(error, AhoyError) else ""
        if code in _NOT_ITS_FAULT or isinstance(error, OverloadedError):
            return
        self.problem = error.message if isinstance(error, AhoyError) else "It failed; see the log."
        self._failures += 1
        wait_s = error.retry_after_s if isinstance(error, ServiceError) else None
        if code in _MAYBE_GONE:
            self._doubt.cast()
        gone = code == "service_unreachable" and isinstance(error, ServiceError) and error.refused
        if code in _AT_ONCE:
            self._break(wait_s or MAX_PAUSE_S)
        elif code == "rate_limited":
            self._break(wait_s or RATE_PAUSE_S)
        elif self._open and self._doubt.now_s() < self._open_until_s:
            return  # it was under way when the others failed, and says nothing new
        elif gone or self._failures >= FAILURES or self._open:
            self._break(wait_s or self._pause_s)
            self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)

    def _break(self, pause_s: float) -> None:
        pause_s = min(pause_s, MAX_PAUSE_S)
        if not self._open:
            log.warning("%s is left alone for %g s: %s", self.name, pause_s, self.problem)
        self._open = True
        self._open_until_s = self._doubt.now_s() + pause_s
