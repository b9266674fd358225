"""How many calls may be placed, and which have been asked for already: what stands between a leaked key, or a program
that tries again and again, and the bill.

A call is counted before it is dialled, so that requests that come at once cannot exceed a quota together; the count is
taken back only when it is certain that nothing was dialled. Everything is in memory and starts anew with the server.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from app.core.config import Settings
from app.core.errors import CallError
from app.twilio.calls import Call

DAY_S, HOUR_S = 86_400.0, 3_600.0
KEPT_KEYS = 10_000
"""Idempotency keys that are remembered; beyond that the oldest go before their day is over."""
_BUSY_RETRY_S = 15.0
"""When a line may be free again is not known; this is a fair guess."""


@dataclass(slots=True, eq=False)
class Reservation:
    """Room for one call."""

    who: str
    at_s: float
    dialling: bool
    """It takes up one of the lines that may be in use at once, before there is a call that says so."""


class Quotas:
    """Counts calls by OUTBOUND_PER_DAY, OUTBOUND_PER_CALLER (an hour) and OUTBOUND_AT_ONCE; both times slide.

    `keys` are the requests with an idempotency key.
    """

    def __init__(self, settings: Settings, now_s: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._now_s = now_s
        self._day: deque[Reservation] = deque()
        """Of the last 24 hours, the oldest first; never more than OUTBOUND_PER_DAY."""
        self._dialling = 0
        self.keys = IdempotencyKeys(now_s)

    def reserve(self, who: str, *, live: int | None) -> Reservation:
        """Make room for a call of `who` (an API key's name or a client's address) and count it.

        `live` is how many placed calls go on; None for one that needs no line of its own to be counted (a transfer).
        Follow with `placed` or `release`. Raises CallError (429) with the time to wait when a quota is used up, and
        (503) when all lines are in use.
        """
        now_s, settings = self._now_s(), self._settings
        while self._day and self._day[0].at_s <= now_s - DAY_S:
            self._day.popleft()
        theirs = [one.at_s for one in self._day if one.who == who and one.at_s > now_s - HOUR_S]
        if len(theirs) >= settings.outbound_per_caller:
            raise _used_up("OUTBOUND_PER_CALLER", settings.outbound_per_caller, "in an hour", theirs, HOUR_S, now_s)
        if len(self._day) >= settings.outbound_per_day:
            times = [one.at_s for one in self._day]
            raise _used_up("OUTBOUND_PER_DAY", settings.outbound_per_day, "in 24 hours", times, DAY_S, now_s)
        if live is not None and live + self._dialling >= settings.outbound_at_once:
            raise CallError(
                f"All {settings.outbound_at_once} lines for placed calls are in use (OUTBOUND_AT_ONCE); try again when "
                "a call has ended",
                code="lines_busy",
                http_status=503,
                retry_after_s=_BUSY_RETRY_S,
            )
        reservation = Reservation(who, now_s, dialling=live is not None)
        self._day.append(reservation)
        self._dialling += reservation.dialling
        return reservation

    def placed(self, reservation: Reservation) -> None:
        """It was dialled, or may have been: it stays counted, and the call itself is known from now on."""
        self._dialling -= reservation.dialling
        reservation.dialling = False

    def release(self, reservation: Reservation) -> None:
        """Nothing was dialled."""
        self.placed(reservation)
        if reservation in self._day:
            self._day.remove(reservation)


def _used_up(setting: str, limit: int, span: str, times_s: list[float], window_s: float, now_s: float) -> CallError:
    return CallError(
        f"No more than {limit} calls are placed {span} ({setting})",
        code="quota_exceeded",
        http_status=429,
        retry_after_s=times_s[0] + window_s - now_s if times_s else None,
    )


@dataclass(slots=True)
class Request:
    """A request for a call, as far as it has come."""

    number: str
    at_s: float
    done: asyncio.Event = field(default_factory=asyncio.Event)
    call: Call | None = None
    error: CallError | None = None
    """What came instead of a call, when it is not known whether there is one."""


class IdempotencyKeys:
    """The requests of the last 24 hours that had an idempotency key, by who asked and that key."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._requests: OrderedDict[tuple[str, str], Request] = OrderedDict()

    def find(self, who: str, key: str, number: str) -> Request | None:
        """The earlier request of the same key. Raises CallError (409) when that was for another number."""
        now_s = self._now_s()
        while self._requests and next(iter(self._requests.values())).at_s <= now_s - DAY_S:
            self._requests.popitem(last=False)
        request = self._requests.get((who, key))
        if request is not None and request.number != number:
            raise CallError(
                "This idempotency key has been used for another number: every call needs a key of its own",
                code="key_reused",
                http_status=409,
            )
        return request

    def add(self, who: str, key: str, number: str) -> Request:
        """Remember a request from now on."""
        request = self._requests[who, key] = Request(number, self._now_s())
        while len(self._requests) > KEPT_KEYS:
            self._requests.popitem(last=False)
        return request

    def forget(self, who: str, key: str) -> None:
        """Nothing came of it: the key may be used again."""
        self._requests.pop((who, key), None)
