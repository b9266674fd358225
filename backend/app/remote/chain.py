"""Asking one provider after another: the first that works, and the next one as well when that is late.

For a conversation waiting is as bad as failing. So nobody is given up for being late: the next one is asked alongside,
whoever is first is taken, and the others are told to stop.
"""

import asyncio
import logging
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
_AGAIN = {"rate_limited", "service_failed", "service_unreachable"}

P = TypeVar("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member(Generic[P]):
    """One provider of a chain. `patience_s` is how long it is waited for before the next one is asked as well."""

    name: str
    provider: P
    health: Health
    patience_s: float


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

        The winner's health is the caller's to tell when the answer is a stream; here a first item counts as success.
        """
        members = [member for member in self.members if member not in without]
        waiting = deque([member for member in members if member.health.admits()] or members)
        running: dict[asyncio.Task[T], Member[P]] = {}
        errors: list[Exception] = []
        hedged = self._hedge_s <= 0

        def start(member: Member[P]) -> None:
            member.health.begins()
            alone = not waiting
            running[asyncio.create_task(self._asked(ask, member, alone=alone))] = member

        if not waiting:
            raise ProviderError("Nobody is left to ask.")
        start(waiting.popleft())
        newest = next(iter(running.values()))
        try:
            while True:
                patience_s = newest.health.patience_s(newest.patience_s) if waiting else None
                if not hedged and (patience_s is None or self._hedge_s < patience_s):
                    patience_s = self._hedge_s
                done, _ = await asyncio.wait(running, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                if not done and not hedged:
                    hedged = True
                    start(newest)  # the same one once more
                elif not done:
                    newest.health.late()
                    newest = waiting.popleft()
                    start(newest)
                for task in done:
                    member = running.pop(task)
                    error = _error_of(task)
                    if error is None:
                        member.health.succeeded()
                        return member, task.result()
                    member.health.failed(error)
                    errors.append(error)
                    if isinstance(error, AhoyError) and error.code == "content_filtered":
                        raise error
                if not running:
                    if not waiting:
                        raise errors[0]
                    newest = waiting.popleft()
                    start(newest)
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
    for task, member in running.items():
        member.health.given_up()
        task.cancel()
    if not running:
        return
    await asyncio.gather(*running, return_exceptions=True)
    for task in running:
        if dispose and not task.cancelled() and task.exception() is None:
            await dispose(task.result())
