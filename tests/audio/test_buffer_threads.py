"""The buffer under real threads: what several of them write and read at once is neither lost nor doubled."""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from app.audio.buffer import AudioBuffer

WRITERS = 4
CHUNKS = 1500
SLOW_HZ = 1_000_000
"""At this rate the look-back of the buffer (300 ms) is more than a test writes, so that nothing may be forgotten."""


@pytest.fixture(autouse=True)
def switching_all_the_time() -> Iterator[None]:
    """Threads take turns every microsecond, so that they meet everywhere."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*work: Callable[[], object]) -> list[object]:
    """Run all at once, each in its thread, from one starting shot; their results or their first error."""
    barrier = threading.Barrier(len(work))

    def run(task: Callable[[], object]) -> object:
        barrier.wait()
        return task()

    with ThreadPoolExecutor(len(work)) as pool:
        return [future.result() for future in [pool.submit(run, task) for task in work]]


def write(buffer: AudioBuffer, writer: int) -> None:
    """Chunks of 1 to 16 samples which count upwards: the writer in the top bits, the count below."""
    count = 0
    for chunk in range(CHUNKS):
        length = 1 + (chunk * 7 + writer) % 16
        buffer.append(np.int16(writer << 13) + (np.arange(count, count + length) % 8192).astype(np.int16))
        count += length


def written(writer: int) -> int:
    return sum(1 + (chunk * 7 + writer) % 16 for chunk in range(CHUNKS))


def assert_each_writer_counts_on(audio: np.ndarray) -> None:
    """From its first sample, without a gap and without a repetition."""
    for writer in range(WRITERS):
        counts = audio[audio >> 13 == writer] & 8191
        assert np.array_equal(counts, np.arange(len(counts)) % 8192), f"writer {writer} was not heard in order"


def test_many_writers_and_readers_lose_and_double_nothing() -> None:
    buffer = AudioBuffer(SLOW_HZ, preroll_ms=0)
    buffer.begin_utterance(0)
    writing = threading.Event()
    writing.set()

    def read() -> int:
        looks = 0
        seen = np.zeros(0, np.int16)
        while writing.is_set() or looks == 0:
            now = buffer.peek()
            assert np.array_equal(now[: len(seen)], seen), "what was seen before changed"
            assert_each_writer_counts_on(now)
            assert buffer.silence_ms >= 0
            seen = now
            looks += 1
        return looks

    def write_all() -> None:
        try:
            together(*(lambda writer=writer: write(buffer, writer) for writer in range(WRITERS)))
        finally:
            writing.clear()

    together(write_all, read, read)
    audio = buffer.consume()
    assert len(audio) == sum(written(writer) for writer in range(WRITERS))
    assert_each_writer_counts_on(audio)


def test_utterances_taken_while_others_write_join_without_a_seam() -> None:
    buffer = AudioBuffer(SLOW_HZ, preroll_ms=0, limit_ms=2)
    buffer.begin_utterance(0)
    writing = threading.Event()
    writing.set()
    taken: list[np.ndarray] = []

    def take() -> None:
        while writing.is_set() or buffer.full:
            if buffer.full:
                taken.append(buffer.consume())
                buffer.begin_utterance(sum(map(len, taken)) * 1000 / SLOW_HZ)

    def write_all() -> None:
        try:
            for chunk in range(
                4000
            ):  # never far ahead of the taker: the buffer is allowed to drop beyond twice its limit
                while buffer.full and len(buffer.peek()) == 2000:
                    pass
                buffer.append((np.arange(chunk * 10, chunk * 10 + 10) % 32768).astype(np.int16))
        finally:
            writing.clear()

    together(write_all, take)
    audio = np.concatenate((*taken, buffer.consume()))
    assert len(taken) == 20
    assert np.array_equal(audio, np.arange(40_000) % 32768)
    assert buffer.dropped_ms == 0


def test_the_latest_voice_wins_whoever_reports_it() -> None:
    buffer = AudioBuffer(SLOW_HZ)

    def report(offset: int) -> None:
        for at_ms in range(offset, 20_000, WRITERS):
            buffer.note_voice(at_ms)

    together(*(lambda offset=offset: report(offset) for offset in range(WRITERS)))
    assert buffer.last_voice_ms == 19_999
