"""Asking one provider after another: the first that works, and the next one as well when that is late.

For a conversation waiting is as bad as failing. So nobody is given up for being late: the next one is asked alongside,
whoever is first is taken, and the others are told to stop.
"""

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.core.errors import AhoyError, ProviderError, ServiceError
from app.remote.health import Health

RETRY_SHARE, RETRY_RESERVE = 0.1, 3.0
"""One request in ten may be a second try, and some more at the beginning: a service in trouble is not flooded."""
RETRY_PAUSE_S = (0.05, 0.2)
LONGEST_RETRY_PAUSE_S = 0.5
MOMENT_S = 1e-4
"""A loop's timer may wake us so much too early; waiting for the rest again and again would be a busy loop."""
_AGAIN = {"rate_limited", "service_failed", "service_unreachable"}

P = TypeVar("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Member(Generic[P]):
    """One provider of a chain. `patience_s` is how long it is waited for before the next one is asked as well."""

    name: str
    provider: P
    health: Health
    patience_s: float
    model: str = ""


class RetryBudget:
    """How often a request may be made again."""

    def __init__(self) -> None:
        self._left = RETRY_RESERVE

    def earn(self) -> None:
        """A request was made."""
        self._left = min(RETRY_RESERVE, self._left + RETRY_SHARE)

    def spend(self) -> bool:
        """Whether one may be made again now."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Chain(Generic[P]):
    """Providers of one capability, the preferred one first."""

    def __init__(self, members: Sequence[Member[P]], *, hedge_s: float = 0.0) -> None:
        if not members:
            raise ValueError("a chain needs a member")
        self.members = tuple(members)
        self._hedge_s = hedge_s
        self._retries = RetryBudget()

    @property
    def preferred(self) -> Member[P]:
        """Who would be asked now."""
        return next((member for member in self.members if member.health.admits()), self.members[0])

    async def first(
        self,
        ask: Callable[[P], Coroutine[Any, Any, T]],
        *,
        dispose: Callable[[T], Awaitable[None]] | None = None,
        without: Sequence[Member[P]] = (),
    ) -> tuple[Member[P], T]:
        """The first answer, and whose it is. `dispose` ends an answer that came too late to be taken. Raises the error
        of the one that was asked first when nobody answers, and one about the content at once.

        An answer counts as a success of the one who gave it. If it is only the beginning of a stream, what becomes of
        that is for the caller to tell.
        """
        members = [member for member in self.members if member not in without]
        waiting = deque([member for member in members if member.health.admits()] or members)
        if not waiting:
            raise ProviderError("Nobody is left to ask.")
        now_s = asyncio.get_running_loop().time
        running: dict[asyncio.Task[T], Member[P]] = {}
        asked: list[Member[P]] = []
        errors: dict[Member[P], Exception] = {}
        late_at_s = hedge_at_s = math.inf

        def start(member: Member[P]) -> None:
            member.health.begins()
            running[asyncio.create_task(self._asked(ask, member, alone=not waiting))] = member

        def start_next() -> None:
            nonlocal late_at_s, hedge_at_s
            member = waiting.popleft()
            first = not asked
            asked.append(member)
            late_at_s = now_s() + member.health.patience_s(member.patience_s) if waiting else math.inf
            hedge_at_s = now_s() + self._hedge_s if first and self._hedge_s > 0 else math.inf
            start(member)

        start_next()
        try:
            while True:
                next_s = min(late_at_s, hedge_at_s)
                timeout_s = max(0.0, next_s - now_s()) if next_s < math.inf else None
                done, _ = await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task in done]:  # whoever was asked first is taken first
                    member = running.pop(task)
                    error = _error_of(task)
                    if error is None:
                        member.health.succeeded()
                        return member, task.result()
                    member.health.failed(error)
                    errors[member] = error
                    if isinstance(error, AhoyError) and error.code == "content_filtered":
                        raise error
                if waiting and asked[-1] not in running.values():
                    start_next()
                elif not running:
                    raise errors[asked[0]]
                elif now_s() >= late_at_s - MOMENT_S:
                    asked[-1].health.late()
                    start_next()
                elif now_s() >= hedge_at_s - MOMENT_S:
                    hedge_at_s = math.inf
                    start(asked[0])  # the same one once more
        finally:
            await _end(running, dispose)

    async def _asked(self, ask: Callable[[P], Coroutine[Any, Any, T]], member: Member[P], *, alone: bool) -> T:
        """Ask, and ask once more if the service did nothing the first time and soon may."""
        self._retries.earn()
        try:
            return await ask(member.provider)
        except ServiceError as error:
            if not error.refused or error.code not in _AGAIN:
                raise
            if error.code == "service_unreachable" and not alone:
                raise  # the next one is quicker
            pause_s = error.retry_after_s if error.retry_after_s is not None else random.uniform(*RETRY_PAUSE_S)  # noqa: S311 (jitter)
            if pause_s > LONGEST_RETRY_PAUSE_S or not self._retries.spend():
                raise
        await asyncio.sleep(pause_s)
        return await ask(member.provider)


async def first_item(stream: AsyncGenerator[T, None]) -> tuple[T | None, AsyncGenerator[T, None]]:
    """The first item of a stream (None if it has none), and the stream. To be raced with others."""
    try:
        async for item in stream:
            return item, stream
    except BaseException:
        await stream.aclose()
        raise
    return None, stream


async def stop_stream(begun: tuple[object, AsyncGenerator[Any, None]]) -> None:
    """End a stream whose first item came too late."""
    await begun[1].aclose()


def _error_of(task: "asyncio.Task[Any]") -> Exception | None:
    if task.cancelled():  # by itself: ours are never looked at
        return ProviderError("A provider gave up.")
    error = task.exception()
    if error is None:
        return None
    if not isinstance(error, Exception):
        raise error
    if not isinstance(error, AhoyError):  # a defect, but there may be somebody else
        log.error("A provider failed with a defect", exc_info=error)
        return ProviderError("A provider failed; the log says how.")
    return error


async def _end(running: "dict[asyncio.Task[T], Member[Any]]", dispose: Callable[[T], Awaitable[None]] | None) -> None:
    """Stop those that are not needed any more, and what they have begun by then."""
    for task, member in running.items():
        if task.done() and (error := _error_of(task)):
            member.health.failed(error)
        else:
            member.health.given_up()
            task.cancel()
    if not running:
        return
    await asyncio.gather(*running, return_exceptions=True)
    for task in running:
        if dispose and not task.cancelled() and task.exception() is None:
            try:
                await dispose(task.result())
            except Exception:  # the one that is taken is not to suffer from it
                log.exception("A provider could not be stopped")
