"""Silero VAD, one model run for many conversations.

One thread serves the process. It takes whatever windows are waiting, one row for each stream, and runs them together: a
row of 64 costs less than half of a row alone. The model (Silero VAD 6, ONNX) takes 512 samples at 16 kHz or 256 at
8 kHz, with the last 64 or 32 samples before them as context, and hands its state [2, rows, 128] from run to run.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.core.errors import AudioFormatError, ModelError, OverloadedError, ProviderError
from app.vad.base import WINDOW_MS

CONTEXT_MS = 4
STATE_WIDTH = 128
MAX_ROWS = 64
"""Streams in one run; beyond this the cost of a row does not fall any further."""
MAX_WAITING = 1024
"""Calls that may wait. At 64 rows a run the thread clears them in a fraction of a window's time."""
RATES_HZ = (8000, 16_000)


class _Memory:
    """What the model remembers of one stream between two windows."""

    __slots__ = ("context", "state")

    def __init__(self, rate_hz: int) -> None:
        self.context: NDArray[np.float32] = np.zeros(rate_hz * CONTEXT_MS // 1000, np.float32)
        self.state: NDArray[np.float32] = np.zeros((2, STATE_WIDTH), np.float32)


class _Job:
    """One call of `feed`: windows [n, samples] that run one after the other."""

    __slots__ = ("future", "loop", "memory", "probabilities", "rate_hz", "windows")

    def __init__(self, memory: _Memory, rate_hz: int, windows: NDArray[np.int16]) -> None:
        self.memory = memory
        self.rate_hz = rate_hz
        self.windows = windows
        self.probabilities: list[float] = []
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[list[float]] = self.loop.create_future()

    @property
    def done(self) -> bool:
        return len(self.probabilities) == len(self.windows)


class SileroDetector:
    """Implements VoiceActivityDetector. Loading blocks; raises ModelError when the file is not the model."""

    def __init__(self, model_path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(model_path), options, providers=["CPUExecutionProvider"])
            self._warm_up()
        except Exception as error:
            raise ModelError(f"The voice detector {model_path} cannot be loaded: {error}") from None
        self._waiting: deque[_Job] = deque()
        self._condition = threading.Condition()
        self._closed = self._woken = False
        self._thread = threading.Thread(target=self._serve, name="vad", daemon=True)
        self._thread.start()

    def open(self, rate_hz: int) -> "SileroStream":
        """A fresh stream; see VoiceActivityDetector."""
        if rate_hz not in RATES_HZ:
            raise AudioFormatError(f"The voice detector takes 8000 or 16000 Hz, not {rate_hz}.")
        return SileroStream(self, rate_hz)

    async def close(self) -> None:
        """End the thread; calls that wait fail with ProviderError."""
        with self._condition:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._condition.notify_all()
        _settle(left, ProviderError("The voice detector was closed."))
        await asyncio.to_thread(self._thread.join)

    async def run(self, memory: _Memory, rate_hz: int, windows: NDArray[np.int16]) -> list[float]:
        """The probabilities of `windows` [n, samples] of one stream, in order."""
        job = _Job(memory, rate_hz, windows)
        with self._condition:
            if self._closed:
                raise ProviderError("The voice detector is closed.")
            if len(self._waiting) >= MAX_WAITING:
                raise OverloadedError(f"{MAX_WAITING} calls already wait for the voice detector.")
            self._waiting.append(job)
        if not self._woken:  # once everything that is ready now has asked: it runs together
            self._woken = True
            job.loop.call_soon(self._wake)
        return await job.future

    def _wake(self) -> None:
        self._woken = False
        with self._condition:
            self._condition.notify()

    def _serve(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._closed:
                    self._condition.wait()
                if self._closed:
                    return
                jobs = self._take()
            try:
                self._step(jobs)
            except Exception as error:
                _settle(jobs, ProviderError(f"The voice detector failed: {error}"))
                continue
            _settle([job for job in jobs if job.done], None)
            unfinished = [job for job in jobs if not job.done]
            with self._condition:
                if not self._closed:  # they go on before their streams' next calls
                    self._waiting.extendleft(reversed(unfinished))
                    continue
            _settle(unfinished, ProviderError("The voice detector was closed."))

    def _take(self) -> list[_Job]:
        """The jobs of one rate that wait longest, one for each stream."""
        jobs: list[_Job] = []
        left: deque[_Job] = deque()
        streams: set[int] = set()
        while self._waiting and len(jobs) < MAX_ROWS:
            job = self._waiting.popleft()
            if (not jobs or job.rate_hz == jobs[0].rate_hz) and id(job.memory) not in streams:
                jobs.append(job)
            else:
                left.append(job)
            streams.add(id(job.memory))
        self._waiting.extendleft(reversed(left))
        return jobs

    def _step(self, jobs: Sequence[_Job]) -> None:
        """The next window of each job."""
        windows = np.stack([job.windows[len(job.probabilities)] for job in jobs]).astype(np.float32) / np.float32(32768)
        context = np.stack([job.memory.context for job in jobs])
        state = np.stack([job.memory.state for job in jobs], axis=1)
        rate = np.array(jobs[0].rate_hz, np.int64)
        inputs = {"input": np.concatenate((context, windows), axis=1), "state": state, "sr": rate}
        probabilities, state = self._session.run(None, inputs)
        for row, job in enumerate(jobs):
            job.memory.context = windows[row, -job.memory.context.size :].copy()
            job.memory.state = state[:, row].copy()
            job.probabilities.append(float(probabilities[row, 0]))

    def _warm_up(self) -> None:
        """The first run is slower than the rest."""
        for rate_hz in RATES_HZ:
            memory = _Memory(rate_hz)
            silence = np.zeros((1, memory.context.size + rate_hz * WINDOW_MS // 1000), np.float32)
            rate = np.array(rate_hz, np.int64)
            self._session.run(None, {"input": silence, "state": memory.state[:, None], "sr": rate})


class SileroStream:
    """Implements VoiceStream.

    A `feed` that is cancelled has been heard all the same: the next one goes on from where it ended. One that is
    refused (OverloadedError) leaves the stream as new.
    """

    def __init__(self, detector: SileroDetector, rate_hz: int) -> None:
        self._detector = detector
        self._rate_hz = rate_hz
        self._window = rate_hz * WINDOW_MS // 1000
        self._rest: NDArray[np.int16] = np.zeros(0, np.int16)
        self._memory = _Memory(rate_hz)

    @property
    def rate_hz(self) -> int:
        """Rate of the audio it takes."""
        return self._rate_hz

    async def feed(self, samples: NDArray[np.int16]) -> list[float]:
        """One probability for each window that is complete; see VoiceStream."""
        if samples.dtype != np.int16 or samples.ndim != 1:
            raise AudioFormatError(f"Audio of type {samples.dtype} and shape {samples.shape} is not mono int16.")
        audio = np.concatenate((self._rest, samples)) if len(self._rest) else samples
        whole = len(audio) // self._window * self._window
        self._rest = audio[whole:].copy()
        if not whole:
            return []
        try:
            return await self._detector.run(self._memory, self._rate_hz, audio[:whole].reshape(-1, self._window))
        except OverloadedError:
            self.reset()
            raise

    def reset(self) -> None:
        """Forget everything heard so far; what still runs of it has no effect any more."""
        self._rest = np.zeros(0, np.int16)
        self._memory = _Memory(self._rate_hz)


def _settle(jobs: Sequence[_Job], error: Exception | None) -> None:
    """Hand out results, with one wake-up of each event loop."""
    for loop in {job.loop for job in jobs}:
        mine = [job for job in jobs if job.loop is loop]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_deliver, mine, error)


def _deliver(jobs: Sequence[_Job], error: Exception | None) -> None:
    for job in jobs:
        if job.future.done():  # nobody waits any more
            continue
        if error is None:
            job.future.set_result(job.probabilities)
        else:
            job.future.set_exception(error)
