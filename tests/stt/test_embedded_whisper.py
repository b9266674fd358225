"""The embedded recogniser with its real models and real recordings: the contract of `stt/base.py` and its guards."""

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
from app.audio.resample import resample
from app.audio.wav import read_audio
from app.core.errors import AudioFormatError, ModelError, OverloadedError, ProviderError
from app.inference.store import ModelStore
from app.inference.worker import Worker
from app.stt import embedded_whisper as whisper
from app.stt.embedded_whisper import WhisperRecognizer, without_loop
from event_loop import counted_turns
from hypothesis import given
from hypothesis import strategies as st

RATE_HZ = 16_000
BECKETT = [
    (0.0, 1.5, "Ever tried."),
    (1.4, 3.0, "Ever failed."),
    (3.1, 4.4, "No matter."),
    (4.5, 5.8, "Try again."),
    (6.2, 7.6, "Fail again."),
    (7.7, 9.1, "Fail better."),
]
DICKENS = [
    (0.8, 4.9, "It was the best of times, it was the worst of times."),
    (4.8, 6.6, "It was the age of wisdom."),
    (8.5, 10.6, "It was the epoch of belief."),
    (10.5, 13.1, "It was the epoch of incredulity."),
    (13.2, 15.0, "It was the season of light."),
    (14.9, 17.2, "It was the season of darkness."),
    (17.2, 21.0, "It was the spring of hope, it was the winter of despair."),
    (21.0, 24.4, "We had everything before us, we had nothing before us."),
    (26.3, 28.6, "We were all going direct the other way."),
    (29.0, 32.6, "In short, the period was so far like the present period."),
]
OPENING = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it "
    "was the epoch of belief, it was the epoch of incredulity, it was the season of light, it was the season of "
    "darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing "
    "before us, we were all going direct to heaven, we were all going direct the other way."
)
"""What is read in the first 28.6 s of the longer recording."""


def recording(name: str, begin_s: float = 0, end_s: float = 60) -> np.ndarray:
    whole = read_audio(ModelStore().path("test-speech") / f"{name}.wav", RATE_HZ)
    return whole[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)]


def utterances() -> list[tuple[np.ndarray, str]]:
    return [(recording("beckett", begin, end), text) for begin, end, text in BECKETT] + [
        (recording("two_cities", begin, end), text) for begin, end, text in DICKENS
    ]


def words(text: str) -> str:
    return " ".join(re.sub(r"[^\w' ]", " ", text.lower()).split())


def word_error_rate(said: list[str], understood: list[str]) -> float:
    return float(jiwer.wer([words(text) for text in said], [words(text) or "-" for text in understood]))


@pytest.fixture(scope="module")
def english() -> Iterator[WhisperRecognizer]:
    recognizer = WhisperRecognizer(ModelStore().path("whisper-tiny.en"), None)
    yield recognizer
    asyncio.run(recognizer.close())


@pytest.fixture(scope="module")
def multilingual() -> Iterator[WhisperRecognizer]:
    recognizer = WhisperRecognizer(None, ModelStore().path("whisper-base"))
    yield recognizer
    asyncio.run(recognizer.close())


async def understood(recognizer: WhisperRecognizer, audios: list[np.ndarray], language: str | None = "en") -> list[str]:
    return [(await recognizer.transcribe(audio, language=language)).text for audio in audios]


# --- the words are right


async def test_short_english_utterances(english: WhisperRecognizer) -> None:
    audios, texts = zip(*utterances(), strict=True)
    assert word_error_rate(list(texts), await understood(english, list(audios))) <= 0.08


async def test_short_utterances_with_the_multilingual_model(multilingual: WhisperRecognizer) -> None:
    audios, texts = zip(*utterances()[::3], strict=True)
    assert word_error_rate(list(texts), await understood(multilingual, list(audios))) <= 0.08


async def test_in_a_worker_of_several_threads_they_understand_the_same(english: WhisperRecognizer) -> None:
    worker = Worker("shared", threads=3)
    shared = WhisperRecognizer(ModelStore().path("whisper-tiny.en"), None, worker=worker)
    audios = [audio for audio, _ in utterances()[:9]]
    together = await asyncio.gather(*(shared.transcribe(audio, language="en") for audio in audios))
    assert [transcript.text for transcript in together] == await understood(english, audios)
    await shared.close()
    assert await worker.run(lambda: "still there"), "it belongs to whoever made it"
    worker.close()


async def test_a_long_utterance_of_nearly_30_s(english: WhisperRecognizer) -> None:
    transcript = await english.transcribe(recording("two_cities", 0, 28.7), language="en")
    assert word_error_rate([OPENING], [transcript.text]) <= 0.1


async def test_more_than_30_s_is_no_failure(english: WhisperRecognizer) -> None:
    transcript = await english.transcribe(recording("two_cities"), language="en")
    assert words(transcript.text).startswith("it was the best of times")


HARDER = {
    "noise 20 dB below": lambda audio: audio + np.random.default_rng(1).normal(0, level(audio) / 10, len(audio)),
    "quiet": lambda audio: audio / 10,
    "too loud": lambda audio: audio * 6.0,
    "telephone": lambda audio: resample(resample(audio, RATE_HZ, 8000), 8000, RATE_HZ),
    "a second of silence around": lambda audio: np.pad(audio, RATE_HZ),
    "an offset": lambda audio: audio + 2000.0,
}


def level(audio: np.ndarray) -> float:
    return float(np.sqrt(np.mean(audio.astype(float) ** 2)))


@pytest.mark.parametrize("how", HARDER)
async def test_what_microphones_do_to_speech_is_stood(english: WhisperRecognizer, how: str) -> None:
    chosen = utterances()[::2]
    audios = [np.asarray(HARDER[how](audio)).clip(-32768, 32767).astype(np.int16) for audio, _ in chosen]
    assert word_error_rate([text for _, text in chosen], await understood(english, audios)) <= 0.2


async def test_a_transcript_is_trimmed_text_with_its_language_and_confidence(english: WhisperRecognizer) -> None:
    transcript = await english.transcribe(recording("two_cities", 0.8, 4.9), language="en")
    assert transcript.text == " ".join(transcript.text.split())
    assert transcript.language == "en"
    assert transcript.confidence is not None
    assert -1 < transcript.confidence <= 0


async def test_the_same_audio_always_gives_the_same_words(english: WhisperRecognizer) -> None:
    audio = recording("two_cities", 0.8, 4.9)
    assert len(set(await understood(english, [audio] * 3))) == 1


# --- nobody spoke

SECONDS = np.arange(3 * RATE_HZ) / RATE_HZ
NO_WORDS = {
    "nothing": np.zeros(0),
    "a sample": np.full(1, 9000.0),
    "silence": np.zeros(3 * RATE_HZ),
    "a quiet room": np.random.default_rng(1).normal(0, 100, 3 * RATE_HZ),
    "noise": np.random.default_rng(2).normal(0, 1000, 3 * RATE_HZ),
    "loud noise": np.random.default_rng(3).normal(0, 5000, 3 * RATE_HZ),
    "noise of 30 s": np.random.default_rng(4).normal(0, 1000, 30 * RATE_HZ),
    "a burst": np.random.default_rng(5).normal(0, 1000, RATE_HZ // 3),
    "a tone": 8000 * np.sin(2 * np.pi * 440 * SECONDS),
    "hum": 8000 * np.sin(2 * np.pi * 50 * SECONDS),
    "a constant": np.full(3 * RATE_HZ, 9000.0),
    "clicks": np.where(np.arange(3 * RATE_HZ) % 8000 == 0, 30_000.0, 0.0),
}


@pytest.mark.parametrize("what", NO_WORDS)
async def test_what_is_no_speech_has_no_words(english: WhisperRecognizer, what: str) -> None:
    assert (await english.transcribe(NO_WORDS[what].astype(np.int16), language="en")).text == ""


@pytest.mark.parametrize("what", ["silence", "a quiet room", "noise", "a tone", "clicks"])
async def test_what_is_no_speech_has_no_words_in_any_language(multilingual: WhisperRecognizer, what: str) -> None:
    for language in (None, "de"):
        assert (await multilingual.transcribe(NO_WORDS[what].astype(np.int16), language=language)).text == ""


# --- what a decoder makes up is not believed


async def test_a_loop_of_the_decoder_is_read_again(english: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a window that is too short the model says short sentences again and again."""
    monkeypatch.setattr(whisper, "WINDOWS_S", (5, 30))
    monkeypatch.setattr(whisper, "PADDING_S", 0.0)
    texts = [text for *_, text in BECKETT]
    audios = [recording("beckett", begin, end) for begin, end, _ in BECKETT]
    assert word_error_rate(texts, await understood(english, audios)) <= 0.1


@pytest.mark.parametrize(
    ("text", "believed"),
    [
        ("Try again. Try again. Try again. Try again", "Try again."),
        ("It was the best of times. It was the best of times. It was the best of times.", "It was the best of times."),
        ("I said so. And then, and then, and then, and then", "I said so. And then,"),
        ("no no no no no no", "no"),
        ("", ""),
    ],
)
def test_a_phrase_said_over_and_over_is_said_once(text: str, believed: str) -> None:
    assert without_loop(text) == believed


@pytest.mark.parametrize(
    "text",
    ["No, no, no!", "Again and again and again.", "Bye bye.", "Thank you. Thank you.", "Left, right, left, right."],
)
def test_what_people_do_say_twice_stays(text: str) -> None:
    assert without_loop(text) == text


@given(st.lists(st.sampled_from(["yes", "no", "oh", "well,", "I", "see."]), max_size=40))
def test_taking_loops_out_only_ever_shortens_and_is_done_once(parts: list[str]) -> None:
    text = " ".join(parts)
    believed = without_loop(text)
    assert text.startswith(believed)
    assert without_loop(believed) == believed


# --- languages


@pytest.mark.parametrize("audio", [recording("beckett", 0, 9), recording("two_cities", 0.8, 9)], ids=["one", "other"])
async def test_the_multilingual_model_detects_the_language(multilingual: WhisperRecognizer, audio: np.ndarray) -> None:
    transcript = await multilingual.transcribe(audio, language=None)
    assert transcript.language == "en"
    assert len(transcript.text.split()) > 8


async def test_a_language_that_is_asked_for_is_not_detected_again(multilingual: WhisperRecognizer) -> None:
    assert (await multilingual.transcribe(recording("beckett", 0, 9), language="de")).language == "de"


async def test_with_english_only_a_language_to_be_detected_is_english(english: WhisperRecognizer) -> None:
    assert words((await english.transcribe(recording("beckett", 0, 1.5), language=None)).text) == "ever tried"


async def test_a_language_that_is_not_there_is_explained_with_what_to_do(english: WhisperRecognizer) -> None:
    with pytest.raises(ProviderError, match=r"'de'.*ahoy models pull whisper-base"):
        await english.transcribe(recording("beckett", 0, 1.5), language="de")


async def test_a_language_that_does_not_exist_is_explained(multilingual: WhisperRecognizer) -> None:
    with pytest.raises(ProviderError, match="'xx'"):
        await multilingual.transcribe(recording("beckett", 0, 1.5), language="xx")


async def test_english_goes_to_the_english_model_and_the_rest_to_the_other() -> None:
    both = WhisperRecognizer(ModelStore().path("whisper-tiny.en"), ModelStore().path("whisper-base"))
    try:
        audio = recording("beckett", 0, 9)
        assert (await both.transcribe(audio, language=None)).language == "en"
        assert (await both.transcribe(audio, language="fr")).language == "fr"
        assert words((await both.transcribe(audio, language="en")).text).startswith("ever tried ever failed")
    finally:
        await both.close()


# --- at work


class Gate:
    """Holds the model before its next run, as a busy machine would, and counts the runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.runs = 0
        encode = whisper._Model._encode

        def held(model: Any, *arguments: Any) -> Any:
            self.runs += 1
            self.reached.set()
            self.open.wait(20)
            return encode(model, *arguments)

        monkeypatch.setattr(whisper._Model, "_encode", held)


@pytest.fixture
def gate(english: WhisperRecognizer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def asked(recognizer: WhisperRecognizer, *, partial: bool = False) -> "asyncio.Task[Any]":
    return asyncio.create_task(recognizer.transcribe(recording("beckett", 0, 1.5), language="en", partial=partial))


async def held_up(recognizer: WhisperRecognizer, gate: Gate) -> "asyncio.Task[Any]":
    task = asked(recognizer)
    await asyncio.to_thread(gate.reached.wait, 20)
    return task


async def test_partial_transcripts_wait_behind_all_final_ones(english: WhisperRecognizer, gate: Gate) -> None:
    order: list[str] = []
    running = await held_up(english, gate)
    tasks = {"partial": asked(english, partial=True), "final": asked(english), "another": asked(english)}
    for name, task in tasks.items():
        task.add_done_callback(lambda _, name=name: order.append(name))
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(running, *tasks.values())
    assert order == ["final", "another", "partial"]


async def test_partial_transcripts_are_the_first_to_be_refused(english: WhisperRecognizer, gate: Gate) -> None:
    running = await held_up(english, gate)
    partials = [asked(english, partial=True) for _ in range(10)]
    final = asked(english)
    await asyncio.sleep(0)
    refused = [task for task in partials if task.done()]
    assert refused
    assert all(isinstance(task.exception(), OverloadedError) for task in refused)
    assert not final.done()
    gate.open.set()
    texts = {words((await task).text) for task in (running, final, *set(partials) - set(refused))}
    assert texts == {"ever tried"}
    assert words((await asked(english, partial=True)).text) == "ever tried", "there is room again"


async def test_cancelling_gives_up_work_that_waits(english: WhisperRecognizer, gate: Gate) -> None:
    running = await held_up(english, gate)
    waiting = [asked(english) for _ in range(5)] + [asked(english, partial=True)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    gate.open.set()
    await running
    await asked(english)
    assert gate.runs == 2


async def test_cancelling_work_that_runs_lets_the_next_go_on(english: WhisperRecognizer, gate: Gate) -> None:
    running = await held_up(english, gate)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()
    gate.open.set()
    assert words((await asked(english)).text) == "ever tried"


async def test_too_much_work_is_refused_and_the_rest_is_done(english: WhisperRecognizer, gate: Gate) -> None:
    running = await held_up(english, gate)
    tasks = [asked(english) for _ in range(100)]
    await asyncio.sleep(0)
    refused = [task for task in tasks if task.done()]
    assert refused
    assert all(isinstance(task.exception(), OverloadedError) for task in refused)
    kept = [task for task in tasks if task not in refused]
    for task in kept[2:]:
        task.cancel()
    await asyncio.gather(*kept[2:], return_exceptions=True)
    gate.open.set()
    assert {words((await task).text) for task in (running, *kept[:2])} == {"ever tried"}


async def test_closing_fails_what_waits_and_everything_after(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = WhisperRecognizer(ModelStore().path("whisper-tiny.en"), None)
    gate = Gate(monkeypatch)
    running = await held_up(recognizer, gate)
    waiting = asked(recognizer)
    await asyncio.sleep(0)
    closing = asyncio.create_task(recognizer.close())
    with pytest.raises(ProviderError, match="closed"):
        await asyncio.wait_for(waiting, 20)
    gate.open.set()
    await asyncio.wait_for(closing, 20)
    assert words((await running).text) == "ever tried"
    with pytest.raises(ProviderError):
        await asked(recognizer)
    await recognizer.close()


async def test_the_event_loop_runs_on_while_it_listens(english: WhisperRecognizer) -> None:
    async with counted_turns() as turns:
        await english.transcribe(recording("two_cities", 0.8, 4.9), language="en")
    assert turns.count > 100


@pytest.mark.parametrize(
    "audio", [np.zeros(16_000, np.float32), np.zeros((2, 16_000), np.int16), np.zeros(16_000, np.int32)], ids=str
)
async def test_audio_of_another_shape_or_type_is_refused(english: WhisperRecognizer, audio: Any) -> None:
    with pytest.raises(AudioFormatError):
        await english.transcribe(audio, language="en")


def test_a_directory_that_holds_no_model_is_explained(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.json"):
        (broken / name).write_bytes(b"{}")
    for path in (broken, tmp_path / "missing"):
        with pytest.raises(ModelError, match=path.name):
            WhisperRecognizer(path, None)
    with pytest.raises(ModelError, match="STT_MODEL"):
        WhisperRecognizer(None, None)
