"""The embedded end-of-turn model, with real recordings: the contract of `turn/base.py`."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app.audio.wav import read_audio
from app.core.errors import AudioFormatError, ModelError, OverloadedError, ProviderError
from app.inference.store import ModelStore
from app.turn.smart_turn import SmartTurnDetector
from event_loop import counted_turns

RATE_HZ = 16_000
SENTENCES_S = [
    (0.8, 4.77),
    (4.8, 6.43),
    (6.4, 8.4),
    (8.5, 10.5),
    (10.5, 12.95),
    (13.2, 14.98),
    (21.0, 24.2),
    (29, 32.45),
]
"""Finished sentences of the recording, each with the short silence in which the question arises."""


def speech(begin_s: float, end_s: float) -> np.ndarray:
    whole = read_audio(ModelStore().path("test-speech") / "two_cities.wav", RATE_HZ)
    return whole[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)]


@pytest.fixture(scope="module")
def model_path() -> Path:
    (path,) = ModelStore().path("smart-turn").glob("*.onnx")
    return path


@pytest.fixture
async def detector(model_path: Path) -> AsyncIterator[SmartTurnDetector]:
    detector = await asyncio.to_thread(SmartTurnDetector, model_path)
    yield detector
    await detector.close()


async def test_finished_sentences_score_higher_than_the_same_cut_in_the_middle(detector: SmartTurnDetector) -> None:
    apart = []
    for begin_s, end_s in SENTENCES_S:
        finished = await detector.score(speech(begin_s, end_s))
        cut = await detector.score(speech(begin_s, begin_s + 0.6 * (end_s - begin_s)))
        assert 0 <= cut < finished <= 1, f"the sentence at {begin_s} s"
        assert finished > 0.5, f"the sentence at {begin_s} s"
        apart.append(finished - cut)
    assert np.mean(apart) > 0.4, "well apart on the whole"


async def test_only_the_last_8_seconds_count(detector: SmartTurnDetector) -> None:
    last = speech(2, 10)
    assert len(last) == 8 * RATE_HZ
    expected = await detector.score(last)
    for before in (speech(0, 2), np.full(30 * RATE_HZ, 20_000, np.int16), np.zeros(1, np.int16)):
        assert await detector.score(np.concatenate((before, last))) == pytest.approx(expected, abs=1e-6)
    assert await detector.score(last[1:]) == pytest.approx(expected, abs=0.05)


async def test_the_level_of_the_voice_matters_little(detector: SmartTurnDetector) -> None:
    sentence = speech(*SENTENCES_S[0])
    expected = await detector.score(sentence)
    for gain in (0.1, 0.5, 1.5):
        assert await detector.score((sentence * gain).astype(np.int16)) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros(0, np.int16),
        np.zeros(1, np.int16),
        np.zeros(RATE_HZ, np.int16),
        np.full(RATE_HZ, -32768, np.int16),
        np.random.default_rng(1).integers(-32768, 32767, 9 * RATE_HZ).astype(np.int16),
    ],
    ids=["nothing", "a sample", "silence", "constant", "noise"],
)
async def test_whatever_is_asked_there_is_a_probability(detector: SmartTurnDetector, audio: np.ndarray) -> None:
    assert 0 <= await detector.score(audio) <= 1


async def test_the_same_audio_always_scores_the_same_also_side_by_side(detector: SmartTurnDetector) -> None:
    sentences = [speech(begin, end) for begin, end in SENTENCES_S[:4]]
    alone = [await detector.score(sentence) for sentence in sentences]
    assert await asyncio.gather(*map(detector.score, sentences)) == pytest.approx(alone, abs=1e-6)


async def test_the_callers_audio_is_left_as_it_is(detector: SmartTurnDetector) -> None:
    sentence = speech(*SENTENCES_S[0])
    sentence.flags.writeable = False
    await detector.score(sentence)


@pytest.mark.parametrize(
    "audio", [np.zeros(16_000, np.float32), np.zeros((2, 16_000), np.int16), np.zeros(16_000, np.int32)], ids=str
)
async def test_audio_of_another_shape_or_type_is_refused(detector: SmartTurnDetector, audio: Any) -> None:
    with pytest.raises(AudioFormatError):
        await detector.score(audio)


# --- at work


class Gate:
    """Holds the model before its next run, as a busy machine would, and counts the runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.runs = 0
        score = SmartTurnDetector._score

        def held(detector: SmartTurnDetector, audio: np.ndarray) -> float:
            self.runs += 1
            self.reached.set()
            self.open.wait(20)
            return score(detector, audio)

        monkeypatch.setattr(SmartTurnDetector, "_score", held)


@pytest.fixture
def gate(detector: SmartTurnDetector, monkeypatch: pytest.MonkeyPatch) -> Any:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


async def busy(detector: SmartTurnDetector, gate: Gate) -> "asyncio.Task[float]":
    task = asyncio.create_task(detector.score(speech(0, 1)))
    await asyncio.to_thread(gate.reached.wait, 20)
    return task


async def test_a_cancelled_question_that_waits_is_never_asked(detector: SmartTurnDetector, gate: Gate) -> None:
    running = await busy(detector, gate)
    waiting = asyncio.create_task(detector.score(speech(0, 1)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    gate.open.set()
    await running
    await detector.score(speech(0, 1))
    assert gate.runs == 2


async def test_too_many_questions_are_refused_and_the_others_answered(detector: SmartTurnDetector, gate: Gate) -> None:
    running = await busy(detector, gate)
    questions = [asyncio.create_task(detector.score(np.zeros(100, np.int16))) for _ in range(200)]
    await asyncio.sleep(0)
    refused = [task for task in questions if task.done()]
    assert refused
    assert all(isinstance(task.exception(), OverloadedError) for task in refused)
    for task in questions:
        if task not in refused[:-1]:
            task.cancel()
    gate.open.set()
    await running
    await asyncio.gather(*questions, return_exceptions=True)


async def test_closing_fails_what_waits_and_everything_after(detector: SmartTurnDetector, gate: Gate) -> None:
    running = await busy(detector, gate)
    waiting = asyncio.create_task(detector.score(speech(0, 1)))
    await asyncio.sleep(0)
    await detector.close()
    with pytest.raises(ProviderError, match="closed"):
        await asyncio.wait_for(waiting, 20)
    gate.open.set()
    assert 0 <= await asyncio.wait_for(running, 20) <= 1
    with pytest.raises(ProviderError, match="closed"):
        await detector.score(speech(0, 1))
    await detector.close()


async def test_the_event_loop_runs_on_while_it_thinks(detector: SmartTurnDetector) -> None:
    async with counted_turns() as turns:
        await detector.score(speech(0, 8))
    assert turns.count > 100


def test_a_file_that_is_no_model_is_explained(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    for path in (broken, tmp_path / "missing.onnx"):
        with pytest.raises(ModelError, match=path.name):
            SmartTurnDetector(path)


def test_another_model_is_explained_and_leaves_no_thread() -> None:
    (other,) = ModelStore().path("silero-vad").glob("*.onnx")
    before = set(threading.enumerate())
    with pytest.raises(ModelError, match=other.name):
        SmartTurnDetector(other)
    assert set(threading.enumerate()) <= before
