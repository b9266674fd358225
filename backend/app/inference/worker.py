"""Threads that run model work, so that the event loop never does.

A `Worker` owns a few threads and one bounded queue. Work is submitted from the event loop and awaited there;
cancelling the wait takes work that has not begun out of the queue.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from app.core.errors import OverloadedError, ProviderError

T = TypeVar("T")


class _Job:
    __slots__ = ("future", "loop", "work")

    def __init__(self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()


class Worker:
    """Runs blocking calls in its own threads, first come first served, low-priority work last.

    `name` appears in thread names and messages, `threads` is how many calls run at once, `capacity` how many may wait
    before `run` refuses with OverloadedError.
    """

    def __init__(self, name: str, *, threads: int = 1, capacity: int = 64) -> None:
        self.name = name
        self._capacity = capacity
        self._queue: deque[_Job] = deque()
        self._later: deque[_Job] = deque()
        self._condition = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many calls wait for a free thread."""
        return len(self._queue) + len(self._later)

    async def run(self, work: Callable[[], T], *, low_priority: bool = False) -> T:
        """Call `work` in a thread and return what it returns. Its exceptions come back as they are, but for those that
        are not meant for a caller (SystemExit, StopIteration): they become the cause of a RuntimeError.

        Raises OverloadedError when the queue is full and ProviderError when the worker is closed.
        """
        job = _Job(work, asyncio.get_running_loop())
        queue = self._later if low_priority else self._queue
        with self._condition:
            if self._closed:
                raise ProviderError(f"The {self.name} worker is closed.")
            if len(queue) >= self._capacity:
                raise OverloadedError(
                    f"The {self.name} worker already has {len(queue)} calls waiting; try again in a moment."
                )
            queue.append(job)
            self._condition.notify()
        try:
            result: T = await job.future
        except asyncio.CancelledError:
            with self._condition:
                if job in queue:
                    queue.remove(job)
            raise
        return result

    def close(self) -> None:
        """Refuse new work, fail what waits, let what runs end. Does not block."""
        with self._condition:
            self._closed = True
            left = [*self._queue, *self._later]
            self._queue.clear()
            self._later.clear()
            self._condition.notify_all()
        for job in left:
            _deliver(job, error=ProviderError(f"The {self.name} worker was closed before this call ran."))

    def join(self, timeout_s: float = 10.0) -> None:
        """Wait until the threads have ended (blocking; not for the event loop)."""
        for thread in self._threads:
            thread.join(timeout_s)

    def _serve(self) -> None:
        while job := self._next():
            if not job.future.cancelled():
                _run(job)
            del job  # while it waits for the next one, a thread must not keep what the last one was about

    def _next(self) -> _Job | None:
        """Waits for work; None when the worker is closed."""
        with self._condition:
            while not (self._queue or self._later or self._closed):
                self._condition.wait()
            return None if self._closed else (self._queue or self._later).popleft()


def _run(job: _Job) -> None:
    try:
        result = job.work()
    except StopIteration as error:  # a future refuses it, and nobody would ever be told
        _deliver(job, error=_unusual(error))
    except Exception as error:
        _deliver(job, error=error)
    except BaseException as error:  # it would end the event loop: a library may not do that to everybody
        _deliver(job, error=_unusual(error))
    else:
        _deliver(job, result=result)


def _unusual(error: BaseException) -> RuntimeError:
    wrapped = RuntimeError(f"The work ended with {type(error).__name__}.")
    wrapped.__cause__ = error
    return wrapped


def _deliver(job: _Job, *, result: Any = None, error: Exception | None = None) -> None:
    def settle() -> None:
        if job.future.done():
            return
        if error is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(result)

    try:
        job.loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop has closed: nobody waits any more
        return
