"""Waiting for providers: so long and no longer, and never for one that gives itself up."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from app.core.errors import ProviderError

T = TypeVar("T")

WORDS, FIRST_TOKEN, FIRST_AUDIO = 0.4, 0.75, 1.0
"""Shares of a turn's deadline by which its words, the first of the answer and its first sound are to be there. What one
stage leaves over is the next one's."""
LEAST_S = 0.5
"""A stage that comes late still gets so much."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the answer to a turn is to be heard: `total_s` after `begun_s` on the clock `now_s`."""

    begun_s: float
    total_s: float
    now_s: Callable[[], float]

    def left_s(self, share: float) -> float:
        """How long a stage may take that is to be done by this share of the time."""
        return max(LEAST_S, self.begun_s + share * self.total_s - self.now_s())


NO_DEADLINE = Deadline(0.0, math.inf, lambda: 0.0)


async def within(timeout_s: float, who: str, work: Awaitable[T]) -> T:
    """What `work` gives. Raises ProviderError when `who` gives nothing in time, or cancels itself, which would look as
    if somebody had cancelled us."""
    task = asyncio.current_task()
    cancelled = task.cancelling() if task else 0
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise ProviderError(f"The {who} gave nothing for {timeout_s:.3g} s.") from None
    except asyncio.CancelledError:
        if task and task.cancelling() > cancelled:
            raise
        raise ProviderError(f"The {who} gave up.") from None
