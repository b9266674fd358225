"""Waiting for providers: so long and no longer, and never for one that gives itself up."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from app.core.errors import ProviderError

T = TypeVar("T")


async def within(timeout_s: float, who: str, work: Awaitable[T]) -> T:
    """What `work` gives. Raises ProviderError when `who` gives nothing in time, or cancels itself, which would look as
    if somebody had cancelled us."""
    task = asyncio.current_task()
    cancelled = task.cancelling() if task else 0
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise ProviderError(f"The {who} gave nothing for {timeout_s:g} s.") from None
    except asyncio.CancelledError:
        if task and task.cancelling() > cancelled:
            raise
        raise ProviderError(f"The {who} gave up.") from None
