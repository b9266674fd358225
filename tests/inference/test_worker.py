"""The worker threads: bounded, in order, cancellable, and always an answer."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from functools import partial

import pytest
from app.core.errors import OverloadedError, ProviderError
from app.inference.worker import Worker


class Gate:
    """Work that waits until it is let go, in its thread, and tells when it has begun."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._open = threading.Event()

    def __call__(self) -> str:
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self._open.wait(30)
        return "done"

    def open(self) -> None:
        self._open.set()


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker("test", capacity=3)
    yield worker
    worker.close()
    await asyncio.to_thread(worker.join)
    assert not any(thread.is_alive() for thread in worker._threads)


@pytest.fixture
async def gate(worker: Worker) -> AsyncIterator[Gate]:
    """Keeps the worker's only thread busy until it is opened."""
    gate = Gate()
    running = asyncio.create_task(worker.run(gate))
    await gate.begun.wait()
    yield gate
    gate.open()
    await asyncio.gather(running, return_exceptions=True)


async def started(*calls: asyncio.Task[object]) -> None:
    """Every call has been put into its queue."""
    for _ in calls:
        await asyncio.sleep(0)


async def test_work_runs_in_a_thread_of_the_worker_and_its_result_comes_back(worker: Worker) -> None:
    assert await worker.run(lambda: threading.current_thread().name) == "test-0"


async def test_as_many_calls_run_at_once_as_there_are_threads() -> None:
    worker = Worker("test", threads=2)
    together = threading.Barrier(2, timeout=30)
    await asyncio.gather(worker.run(together.wait), worker.run(together.wait))
    worker.close()
    await asyncio.to_thread(worker.join)


async def test_work_is_done_in_the_order_it_came_and_what_is_less_urgent_last(worker: Worker, gate: Gate) -> None:
    done: list[str] = []
    calls = [
        asyncio.create_task(worker.run(lambda name=name: done.append(name), low_priority=name.startswith("later")))
        for name in ("later 1", "first", "later 2", "second")
    ]
    await started(*calls)
    gate.open()
    await asyncio.gather(*calls)
    assert done == ["first", "second", "later 1", "later 2"]


async def test_a_full_queue_refuses_work_and_keeps_what_it_has(worker: Worker, gate: Gate) -> None:
    calls = [asyncio.create_task(worker.run(lambda n=n: n)) for n in range(3)]
    await started(*calls)
    assert worker.waiting == 3
    with pytest.raises(OverloadedError, match="test worker already has 3 calls"):
        await worker.run(lambda: "one too many")
    gate.open()
    assert await asyncio.gather(*calls) == [0, 1, 2]
    assert await worker.run(lambda: "room again") == "room again"


async def test_less_urgent_work_never_takes_the_place_of_urgent_work(worker: Worker, gate: Gate) -> None:
    later = [asyncio.create_task(worker.run(lambda: None, low_priority=True)) for _ in range(3)]
    await started(*later)
    with pytest.raises(OverloadedError):
        await worker.run(lambda: None, low_priority=True)
    urgent = asyncio.create_task(worker.run(lambda: "urgent"))
    await started(urgent)
    gate.open()
    assert await urgent == "urgent"
    await asyncio.gather(*later)


@pytest.mark.parametrize("low_priority", [False, True])
async def test_a_cancelled_call_that_waits_never_runs_and_makes_room(
    worker: Worker, gate: Gate, low_priority: bool
) -> None:
    ran: list[int] = []
    calls = [asyncio.create_task(worker.run(lambda n=n: ran.append(n), low_priority=low_priority)) for n in range(3)]
    await started(*calls)
    calls[1].cancel()
    await asyncio.wait({calls[1]})
    assert worker.waiting == 2
    gate.open()
    await asyncio.gather(*calls, return_exceptions=True)
    assert ran == [0, 2]


async def test_a_cancelled_call_that_runs_is_left_alone_and_harms_nobody(worker: Worker) -> None:
    gate = Gate()
    running = asyncio.create_task(worker.run(gate))
    await gate.begun.wait()
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    gate.open()
    assert await worker.run(lambda: "next") == "next"


@pytest.mark.parametrize("error", [ValueError("a defect"), ProviderError("on strike")], ids=repr)
async def test_an_exception_reaches_the_caller_as_it_is_and_the_thread_lives_on(
    worker: Worker, error: Exception
) -> None:
    with pytest.raises(type(error)) as caught:
        await worker.run(partial(throw, error))
    assert caught.value is error
    assert await worker.run(lambda: "alive") == "alive"


@pytest.mark.parametrize(
    "error", [StopIteration(), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=repr
)
async def test_an_exception_that_would_confuse_the_caller_comes_as_an_error(
    worker: Worker, error: BaseException
) -> None:
    async with asyncio.timeout(30):
        with pytest.raises(RuntimeError) as caught:
            await worker.run(partial(throw, error))
    assert caught.value.__cause__ is error
    assert await worker.run(lambda: "alive") == "alive"


def throw(error: BaseException) -> None:
    raise error


async def test_work_that_waits_when_the_worker_closes_fails_and_what_runs_is_finished() -> None:
    worker, gate = Worker("test"), Gate()
    running = asyncio.create_task(worker.run(gate))
    await gate.begun.wait()
    waiting = [asyncio.create_task(worker.run(lambda: "never", low_priority=low)) for low in (False, True)]
    await started(*waiting)
    worker.close()
    for call in waiting:
        with pytest.raises(ProviderError, match="closed before"):
            await call
    gate.open()
    assert await running == "done"
    await asyncio.to_thread(worker.join)
    assert not any(thread.is_alive() for thread in worker._threads)


async def test_a_closed_worker_refuses_work_and_may_be_closed_again(worker: Worker) -> None:
    worker.close()
    worker.close()
    with pytest.raises(ProviderError, match="closed"):
        await worker.run(lambda: None)


async def test_closing_does_not_wait_for_what_runs() -> None:
    worker, gate = Worker("test"), Gate()
    running = asyncio.create_task(worker.run(gate))
    await gate.begun.wait()
    worker.close()
    worker.join(timeout_s=0)
    assert worker._threads[0].is_alive(), "it returned although the work goes on"
    gate.open()
    await running
    await asyncio.to_thread(worker.join)


async def test_what_was_worked_on_is_not_kept(worker: Worker) -> None:
    class Utterance:
        pass

    audio = Utterance()
    gone = weakref.ref(audio)
    assert await worker.run(lambda kept=audio: kept) is audio
    del audio
    async with asyncio.timeout(30):
        while gone() is not None:
            gc.collect()
            await asyncio.sleep(0.01)


def test_a_loop_that_is_gone_does_not_stop_the_thread() -> None:
    worker = Worker("test")
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(30)

    async def ask_and_leave() -> None:
        task = asyncio.create_task(worker.run(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()

    asyncio.run(ask_and_leave())
    go_on.set()

    async def ask() -> str:
        return await worker.run(lambda: "alive")

    assert asyncio.run(ask()) == "alive"
    worker.close()
    worker.join()
    assert not any(thread.is_alive() for thread in worker._threads)
