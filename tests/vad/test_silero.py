"""The embedded voice detector, with its real model and real recordings: the contract of `vad/base.py`."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app.audio.resample import resample
from app.audio.wav import read_audio
from app.core.errors import AudioFormatError, ModelError, OverloadedError, ProviderError
from app.inference.store import ModelStore
from app.vad import silero
from app.vad.base import WINDOW_MS
from app.vad.silero import SileroDetector
from event_loop import counted_turns
from hypothesis import given, settings
from hypothesis import strategies as st

RATE_HZ = 16_000
WINDOW = RATE_HZ * WINDOW_MS // 1000
SPEECH = 0.5


def recording(name: str, rate_hz: int = RATE_HZ) -> np.ndarray:
    return read_audio(ModelStore().path("test-speech") / f"{name}.wav", rate_hz)


@pytest.fixture(scope="module")
def model_path() -> Path:
    (path,) = ModelStore().path("silero-vad").glob("*.onnx")
    return path


@pytest.fixture(scope="module")
def shared(model_path: Path) -> Iterator[SileroDetector]:
    """One detector for many event loops."""
    detector = SileroDetector(model_path)
    yield detector
    asyncio.run(detector.close())


@pytest.fixture
async def detector(model_path: Path) -> AsyncIterator[SileroDetector]:
    detector = await asyncio.to_thread(SileroDetector, model_path)
    yield detector
    await detector.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator["Gate"]:
    """Holds the detector's thread before its next run, as a busy machine would."""
    gate = Gate()
    step = SileroDetector._step

    def held(self: SileroDetector, jobs: Any) -> None:
        gate.rows.append(len(jobs))
        gate.reached.set()
        gate.open.wait(20)
        step(self, jobs)

    monkeypatch.setattr(SileroDetector, "_step", held)
    yield gate
    gate.open.set()


class Gate:
    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.rows: list[int] = []


# --- what it hears


@pytest.mark.parametrize("rate_hz", [8000, 16_000])
async def test_it_hears_the_words_and_the_pauses_between_them(detector: SileroDetector, rate_hz: int) -> None:
    heard = np.array(await detector.open(rate_hz).feed(recording("beckett", rate_hz))) > SPEECH
    begins = np.flatnonzero(np.diff(heard.astype(int), prepend=0) == 1) * WINDOW_MS / 1000
    assert len(begins) == 6, "six sentences"
    np.testing.assert_allclose(begins, [0.35, 1.89, 3.52, 4.9, 6.66, 8.16], atol=0.15)
    assert 0.4 <= heard.mean() <= 0.6, "about half of it is pauses"


async def test_8_and_16_khz_agree_about_where_speech_is(detector: SileroDetector) -> None:
    for name in ("beckett", "two_cities"):
        wide, narrow = [
            np.array(await detector.open(rate).feed(recording(name, rate))) > SPEECH for rate in (16_000, 8000)
        ]
        size = min(len(wide), len(narrow))
        assert abs(len(wide) - len(narrow)) <= 1
        assert (wide[:size] == narrow[:size]).mean() >= 0.95


@pytest.mark.parametrize("level_db", [-20, -10, 6])
async def test_the_level_of_the_voice_matters_little(detector: SileroDetector, level_db: float) -> None:
    speech = recording("beckett")
    loud = np.array(await detector.open(RATE_HZ).feed(speech)) > SPEECH
    other = (speech * 10 ** (level_db / 20)).clip(-32768, 32767).astype(np.int16)
    heard = np.array(await detector.open(RATE_HZ).feed(other)) > SPEECH
    assert (heard == loud).mean() >= 0.95


NO_SPEECH = {
    "silence": np.zeros(4 * RATE_HZ),
    "room": np.random.default_rng(1).normal(0, 30, 4 * RATE_HZ),
    "noise": np.random.default_rng(2).normal(0, 3000, 4 * RATE_HZ),
    "tone": 8000 * np.sin(2 * np.pi * 440 / RATE_HZ * np.arange(4 * RATE_HZ)),
    "hum": 8000 * np.sin(2 * np.pi * 50 / RATE_HZ * np.arange(4 * RATE_HZ)),
    "constant": np.full(4 * RATE_HZ, 12_000.0),
    "clicks": np.where(np.arange(4 * RATE_HZ) % 8000 == 0, 30_000.0, 0.0),
}


@pytest.mark.parametrize("what", NO_SPEECH)
@pytest.mark.parametrize("rate_hz", [8000, 16_000])
async def test_what_is_no_speech_is_not_taken_for_it(detector: SileroDetector, what: str, rate_hz: int) -> None:
    audio = resample(NO_SPEECH[what].astype(np.int16), RATE_HZ, rate_hz)
    assert np.mean(np.array(await detector.open(rate_hz).feed(audio)) > SPEECH) <= 0.02


async def test_speech_is_found_in_noise(detector: SileroDetector) -> None:
    speech = recording("beckett")
    clean = np.array(await detector.open(RATE_HZ).feed(speech)) > SPEECH
    noise = np.random.default_rng(3).normal(0, np.sqrt(np.mean(speech.astype(float) ** 2)) / 10, len(speech))  # 20 dB
    noisy = np.array(await detector.open(RATE_HZ).feed((speech + noise).clip(-32768, 32767).astype(np.int16))) > SPEECH
    assert (noisy == clean).mean() >= 0.9


# --- one probability for each window, however the audio comes


@pytest.mark.parametrize("rate_hz", [8000, 16_000])
async def test_there_is_one_probability_for_each_whole_window(detector: SileroDetector, rate_hz: int) -> None:
    window = rate_hz * WINDOW_MS // 1000
    stream = detector.open(rate_hz)
    assert stream.rate_hz == rate_hz
    assert await stream.feed(np.zeros(0, np.int16)) == []
    assert await stream.feed(np.zeros(window - 1, np.int16)) == []
    first = await stream.feed(np.zeros(1, np.int16))
    assert len(first) == 1
    assert len(await stream.feed(np.zeros(10 * window + 1, np.int16))) == 10
    assert all(0 <= probability <= 1 for probability in first)


@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_the_result_does_not_depend_on_how_the_audio_is_cut(data: st.DataObject, shared: SileroDetector) -> None:
    audio = recording("beckett")[:RATE_HZ]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(audio)), max_size=30)))

    async def compare() -> None:
        whole = await shared.open(RATE_HZ).feed(audio)
        stream = shared.open(RATE_HZ)
        pieces = [await stream.feed(audio[a:b]) for a, b in itertools.pairwise([0, *cuts, len(audio)])]
        np.testing.assert_allclose(list(itertools.chain(*pieces)), whole, atol=1e-5)

    asyncio.run(compare())


# --- many streams


async def test_streams_side_by_side_hear_the_same_as_alone(detector: SileroDetector, gate: Gate) -> None:
    gate.open.set()
    speech = recording("two_cities")
    pieces = [speech[start * RATE_HZ : (start + 2) * RATE_HZ] for start in range(0, 40, 2)]
    rates = [8000 if number % 3 == 0 else 16_000 for number in range(len(pieces))]
    pieces = [resample(piece, RATE_HZ, rate) for piece, rate in zip(pieces, rates, strict=True)]

    async def hear(piece: np.ndarray, rate: int, step: int) -> list[float]:
        stream = detector.open(rate)
        parts = [await stream.feed(piece[at : at + step]) for at in range(0, len(piece), step)]
        return list(itertools.chain(*parts))

    alone = [await hear(piece, rate, len(piece)) for piece, rate in zip(pieces, rates, strict=True)]
    gate.rows.clear()
    steps = [320, 333, 700, 512, 1024]
    together = await asyncio.gather(
        *(hear(piece, rate, steps[n % 5]) for n, (piece, rate) in enumerate(zip(pieces, rates, strict=True)))
    )
    assert max(gate.rows) > 5, "they were run together"
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


async def test_a_stream_remembers_and_forgets(detector: SileroDetector) -> None:
    speech = recording("beckett")[: 60 * WINDOW]
    stream = detector.open(RATE_HZ)
    first = await stream.feed(speech)
    again = await stream.feed(speech)
    assert not np.allclose(first, again, atol=1e-3), "what came before counts"
    await stream.feed(speech[:100])
    stream.reset()
    assert await stream.feed(speech) == pytest.approx(first, abs=1e-5)


async def test_another_stream_changes_nothing(detector: SileroDetector) -> None:
    speech = recording("beckett")[: 2 * RATE_HZ]
    expected = await detector.open(RATE_HZ).feed(speech)
    stream, other = detector.open(RATE_HZ), detector.open(RATE_HZ)
    heard = []
    for start in range(0, len(speech), WINDOW):
        heard += await stream.feed(speech[start : start + WINDOW])
        await other.feed(np.full(WINDOW, 9000, np.int16))
    assert heard == pytest.approx(expected, abs=1e-5)


async def test_a_new_stream_waits_for_no_old_one(detector: SileroDetector, gate: Gate) -> None:
    """A recording of a minute, fed at once, does not keep anyone else waiting until its end."""
    long = asyncio.create_task(detector.open(RATE_HZ).feed(np.zeros(60 * RATE_HZ, np.int16)))
    await asyncio.to_thread(gate.reached.wait, 20)
    short = asyncio.create_task(detector.open(RATE_HZ).feed(np.zeros(WINDOW, np.int16)))
    await asyncio.sleep(0)
    gate.open.set()
    await short
    assert not long.done()
    assert len(await long) == 60 * RATE_HZ // WINDOW


# --- when things go wrong


async def test_a_cancelled_feed_has_been_heard_all_the_same(detector: SileroDetector, gate: Gate) -> None:
    speech = recording("beckett")[: 2 * RATE_HZ]
    stream = detector.open(RATE_HZ)
    given_up = asyncio.create_task(stream.feed(speech[:RATE_HZ]))
    await asyncio.to_thread(gate.reached.wait, 20)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    assert given_up.cancelled()
    gate.open.set()
    rest = await stream.feed(speech[RATE_HZ:])
    whole = await detector.open(RATE_HZ).feed(speech)
    assert rest == pytest.approx(whole[RATE_HZ // WINDOW :], abs=1e-5)


async def test_too_much_work_is_refused_and_the_stream_starts_anew(
    detector: SileroDetector, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silero, "MAX_WAITING", 3)
    speech = recording("beckett")[: 2 * RATE_HZ]
    running = asyncio.create_task(detector.open(RATE_HZ).feed(speech))
    await asyncio.to_thread(gate.reached.wait, 20)
    waiting = [asyncio.create_task(detector.open(RATE_HZ).feed(speech)) for _ in range(3)]
    await asyncio.sleep(0)
    late = detector.open(RATE_HZ)
    with pytest.raises(OverloadedError):
        await late.feed(speech)
    gate.open.set()
    expected = await running
    for task in waiting:
        assert await task == pytest.approx(expected, abs=1e-5)
    assert await late.feed(speech) == pytest.approx(expected, abs=1e-5)


async def test_closing_fails_what_waits_and_what_runs_and_everything_after(
    detector: SileroDetector, gate: Gate
) -> None:
    running = asyncio.create_task(detector.open(RATE_HZ).feed(np.zeros(10 * RATE_HZ, np.int16)))
    await asyncio.to_thread(gate.reached.wait, 20)
    waiting = asyncio.create_task(detector.open(RATE_HZ).feed(np.zeros(WINDOW, np.int16)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(detector.close())
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.wait_for(closing, 20)
    for task in (running, waiting):
        with pytest.raises(ProviderError, match="closed"):
            await asyncio.wait_for(task, 20)
    with pytest.raises(ProviderError, match="closed"):
        await detector.open(RATE_HZ).feed(np.zeros(WINDOW, np.int16))
    await detector.close()


async def test_a_run_that_fails_fails_its_callers_and_no_others(
    detector: SileroDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = SileroDetector._step

    def failing(self: SileroDetector, jobs: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(SileroDetector, "_step", failing)
    with pytest.raises(ProviderError, match="out of memory"):
        await detector.open(RATE_HZ).feed(np.zeros(WINDOW, np.int16))
    monkeypatch.setattr(SileroDetector, "_step", step)
    assert len(await detector.open(RATE_HZ).feed(np.zeros(WINDOW, np.int16))) == 1


@pytest.mark.parametrize("rate_hz", [0, 11_025, 44_100, 48_000, -8000])
async def test_other_rates_are_refused(detector: SileroDetector, rate_hz: int) -> None:
    with pytest.raises(AudioFormatError, match=str(rate_hz)):
        detector.open(rate_hz)


@pytest.mark.parametrize(
    "audio", [np.zeros(512, np.float32), np.zeros((512, 2), np.int16), np.zeros(512, np.int32)], ids=str
)
async def test_audio_of_another_shape_or_type_is_refused(detector: SileroDetector, audio: Any) -> None:
    with pytest.raises(AudioFormatError):
        await detector.open(RATE_HZ).feed(audio)


async def test_the_event_loop_runs_on_while_it_listens(detector: SileroDetector) -> None:
    async with counted_turns() as turns:
        await detector.open(RATE_HZ).feed(recording("beckett"))
    assert turns.count > 100


def test_a_file_that_is_no_model_is_explained(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    for path in (broken, tmp_path / "missing.onnx"):
        with pytest.raises(ModelError, match=path.name):
            SileroDetector(path)


def test_another_model_is_explained(tmp_path: Path) -> None:
    (other,) = ModelStore().path("smart-turn").glob("*.onnx")
    with pytest.raises(ModelError, match=other.name):
        SileroDetector(other)
