"""One clock for all conversations: steady, never in bursts, and no conversation can stop it."""

import asyncio
from itertools import pairwise

import pytest
from app.conversation.metronome import TICK_MS, HandMetronome, Metronome
from stage import stall

pytestmark = pytest.mark.looptime


class Counter:
    """Counts its calls and when they came."""

    def __init__(self) -> None:
        self.times_s: list[float] = []

    def __call__(self) -> None:
        self.times_s.append(asyncio.get_running_loop().time())

    @property
    def calls(self) -> int:
        return len(self.times_s)


async def test_everything_is_called_fifty_times_a_second() -> None:
    metronome, first, second = Metronome(), Counter(), Counter()
    keys = [metronome.add(first), metronome.add(second)]
    await asyncio.sleep(10.001)
    assert first.calls == second.calls == 10_000 / TICK_MS
    assert first.times_s == second.times_s
    for key in keys:
        metronome.remove(key)


async def test_what_is_removed_is_not_called_and_the_rest_goes_on() -> None:
    metronome, first, second = Metronome(), Counter(), Counter()
    key, other = metronome.add(first), metronome.add(second)
    await asyncio.sleep(1.001)
    metronome.remove(key)
    metronome.remove(key)
    metronome.remove(99)
    await asyncio.sleep(1)
    assert (first.calls, second.calls) == (50, 100)
    metronome.remove(other)


async def test_without_anything_to_call_it_rests_and_begins_again() -> None:
    metronome, counter = Metronome(), Counter()
    metronome.remove(metronome.add(counter))
    await asyncio.sleep(1)
    assert metronome._handle is None
    key = metronome.add(counter)
    await asyncio.sleep(0.101)
    assert counter.calls == 5
    metronome.remove(key)


async def test_when_the_last_one_leaves_in_its_own_tick_it_rests() -> None:
    metronome = Metronome()
    key = metronome.add(lambda: metronome.remove(key))
    await asyncio.sleep(0.021)
    assert metronome._handle is None


async def test_a_conversation_that_fails_is_left_out_and_the_others_go_on() -> None:
    metronome, counter = Metronome(), Counter()
    failures = 0

    def fails() -> None:
        nonlocal failures
        failures += 1
        raise ValueError("a defect")

    metronome.add(fails)
    key = metronome.add(counter)
    await asyncio.sleep(1.001)
    assert failures == 1
    assert counter.calls == 50
    metronome.remove(key)


async def test_coming_and_going_within_a_tick_disturbs_nobody() -> None:
    metronome, counter, late = Metronome(), Counter(), Counter()
    keys: list[int] = []

    def changes() -> None:
        metronome.remove(keys[0])
        if len(keys) < 3:
            keys.append(metronome.add(late))

    keys.append(metronome.add(changes))
    keys.append(metronome.add(counter))
    await asyncio.sleep(1.001)
    assert counter.calls == 50
    assert late.calls == 49
    for key in keys:
        metronome.remove(key)
    count = late.calls
    await asyncio.sleep(1)
    assert late.calls == count


async def test_one_that_leaves_as_the_last_and_comes_back_in_its_own_tick_goes_on() -> None:
    metronome, counter = Metronome(), Counter()
    keys: list[int] = []

    def comes_back() -> None:
        counter()
        metronome.remove(keys.pop())
        keys.append(metronome.add(comes_back))

    keys.append(metronome.add(comes_back))
    await asyncio.sleep(1.001)
    assert counter.calls == 50
    metronome.remove(keys.pop())


async def test_after_a_stall_there_is_one_tick_and_no_burst() -> None:
    metronome, counter = Metronome(), Counter()
    key = metronome.add(counter)
    await asyncio.sleep(0.101)
    stall(3)
    await asyncio.sleep(0.1)
    assert counter.calls == 5 + 1 + 5, "the ticks that were missed are not made up for"
    gaps_ms = [(second - first) * 1000 for first, second in pairwise(counter.times_s)]
    assert min(gaps_ms) >= TICK_MS - 0.01
    assert max(gaps_ms) == pytest.approx(3001, abs=1)
    metronome.remove(key)


# --- moved by hand


def test_by_hand_time_passes_only_when_it_is_told_to() -> None:
    metronome = HandMetronome()
    times_s: list[float] = []
    metronome.add(lambda: times_s.append(metronome.now_s()))
    assert metronome.now_s() == 0
    metronome.advance()
    metronome.advance(500)
    assert times_s == [pytest.approx(0.02), pytest.approx(0.52)]
    assert metronome.work_s() != metronome.now_s(), "work is timed by the real clock"
