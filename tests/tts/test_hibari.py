"""The embedded voice, heard by the embedded recogniser: the contract of `tts/base.py`."""

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import aclosing

import jiwer
import numpy as np
import pytest
from app.audio.resample import resample
from app.core.errors import OverloadedError, ProviderError
from app.inference.store import ModelStore
from app.stt.embedded_whisper import WhisperRecognizer
from app.tts.hibari import HibariVoice
from event_loop import counted_turns

STT_HZ = 16_000
AUDIBLE = 32768 * 10 ** (-45 / 20)
"""Quieter than this is silence to a listener."""
SENTENCE = "The boat was built by two brothers who had never seen the sea."
LONG = " ".join(
    f"Chapter {number}: the ship sailed on, the wind was fair, and nobody on board knew what would come."
    for number in range(1, 41)
)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@pytest.fixture(scope="module")
def voice() -> Iterator[HibariVoice]:
    voice = HibariVoice()
    yield voice
    asyncio.run(voice.close())


@pytest.fixture(scope="module")
def ear() -> Iterator[WhisperRecognizer]:
    recognizer = WhisperRecognizer(ModelStore().path("whisper-tiny.en"), None)
    yield recognizer
    asyncio.run(recognizer.close())


async def spoken(by: HibariVoice, text: str, **options: str) -> np.ndarray:
    pieces = [piece async for piece in by.speak(text, **options)]
    assert all(piece.dtype == np.int16 and piece.ndim == 1 and len(piece) for piece in pieces)
    return np.concatenate([*pieces, np.zeros(0, np.int16)])


async def understood(ear: WhisperRecognizer, audio: np.ndarray, rate_hz: int) -> str:
    """What was heard, in plain lower-case words, small numbers in digits."""
    text = (await ear.transcribe(resample(audio, rate_hz, STT_HZ), language="en")).text
    return plain(text)


def plain(text: str) -> str:
    text = re.sub(r"[^\w$£.:%' ]", " ", text.lower())
    words = [word.strip(".:") for word in text.split()]
    return " ".join(str(NUMBERS.index(word)) if word in NUMBERS else word for word in words)


# --- what is spoken is what was written


@pytest.mark.parametrize(
    "text",
    [
        "Hello!",
        "Yes.",
        SENTENCE,
        "Don't worry, it isn't far.",
        '"Come in," she said, (quietly) and closed the door.',
        "NASA and the FBI have nothing to say.",
        "Well... I think so!",
    ],
)
async def test_words_come_back_as_they_were_written(voice: HibariVoice, ear: WhisperRecognizer, text: str) -> None:
    heard = await understood(ear, await spoken(voice, text), voice.rate_hz)
    assert jiwer.wer(plain(text), heard) <= 0.15


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("I have 3 dogs and 12 cats.", r"3 dogs and 12 cats"),
        ("That costs $12.50.", r"\$12\.50"),
        ("You owe them $1,250.", r"\$1 ?250"),
        ("It costs £25 here.", r"25 pounds|£25"),
        ("The meeting is on March 5th, 2024.", r"march 5(th)? 2024"),
        ("It happened in 1984.", r"1984"),
        ("It is 10:45 in the morning.", r"10:?45"),
        ("50% of 80 is 40.", r"50% of 80 is 40"),
        ("The temperature is -5 degrees.", r"minus 5 degrees"),
        ("Pi is about 3.14159.", r"3\.14159"),
        ("Take 1/2 of it.", r"half"),
        ("She came 1st, he came 2nd.", r"first.*second"),
        ("Dr. Smith lives on the 3rd floor.", r"(dr|doctor) smith.*third floor"),
        ("Write to info@example.com.", r"info (at )?example\.com"),
    ],
)
async def test_numbers_prices_and_dates_are_spoken_as_people_say_them(
    voice: HibariVoice, ear: WhisperRecognizer, text: str, heard: str
) -> None:
    understood_ = await understood(ear, await spoken(voice, text), voice.rate_hz)
    assert re.search(heard, understood_), understood_


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n", "...", "?!", "-", "—", "***", "___", "🎉", "🏴‍☠️ 🎉", "\x00", "\u200b", "\ud83d", '"', "$"]
)
async def test_text_without_anything_to_pronounce_gives_no_audio(voice: HibariVoice, text: str) -> None:
    assert [piece async for piece in voice.speak(text)] == []


@pytest.mark.parametrize(
    "text", ["naïve café", "🎉 party", "e = mc^2", "日本語です。", "1" * 60, "x" * 500, "a\x00b", "²"]
)
async def test_strange_text_is_stood(voice: HibariVoice, text: str) -> None:
    audio = await spoken(voice, text)
    assert len(audio) < 60 * voice.rate_hz


# --- how it sounds at its ends


@pytest.mark.parametrize("text", ["Hello!", "Pop!", "Yes", SENTENCE, "Sixty six.", "I"])
async def test_it_begins_at_once_and_ends_soon_without_a_click(voice: HibariVoice, text: str) -> None:
    audio = (await spoken(voice, text)).astype(int)
    audible = np.flatnonzero(np.abs(audio) > AUDIBLE)
    assert audible[0] <= voice.rate_hz * 20 // 1000, "a breath at most in front"
    assert len(audio) - audible[-1] <= voice.rate_hz * 250 // 1000, "and the pause before the next sentence behind"
    for end in (audio[:24], audio[-24:]):  # a millisecond
        assert np.abs(end).max() <= 2 * AUDIBLE
        assert np.abs(np.diff(end)).max() <= AUDIBLE
    assert abs(audio[0]) <= 10
    assert abs(audio[-1]) <= 10


async def test_it_is_as_loud_as_speech_and_not_clipped(voice: HibariVoice) -> None:
    audio = (await spoken(voice, SENTENCE)).astype(float)
    assert 0.1 * 32768 < np.abs(audio).max() < 32767
    assert -35 < 20 * np.log10(np.sqrt(np.mean(audio**2)) / 32768) < -10
    assert abs(np.mean(audio)) < 100


async def test_a_sentence_takes_about_as_long_as_people_take(voice: HibariVoice) -> None:
    seconds = len(await spoken(voice, SENTENCE)) / voice.rate_hz
    assert 2 < seconds < 7


# --- voices


async def test_the_voices_present_are_named_and_an_unknown_one_means_the_first(voice: HibariVoice) -> None:
    first = voice.voices[0]
    assert first.id
    assert first.name
    assert first.language == "en"
    named, unknown = await spoken(voice, "Hello!", voice=first.id), await spoken(voice, "Hello!", voice="nobody")
    assert abs(len(named) - len(unknown)) < voice.rate_hz / 2
    assert np.abs(unknown).max() > 3000


# --- at work


class Gate:
    """Holds the engine before its next run, as a busy machine would, and counts the runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.runs = 0
        make = HibariVoice._make

        def held(voice: HibariVoice, text: str) -> np.ndarray:
            self.runs += 1
            self.reached.set()
            self.open.wait(20)
            return make(voice, text)

        monkeypatch.setattr(HibariVoice, "_make", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


async def test_a_long_text_comes_in_pieces_each_of_some_seconds(voice: HibariVoice, ear: WhisperRecognizer) -> None:
    text = " ".join(LONG.split(". ")[:4])
    pieces = [piece async for piece in voice.speak(text)]
    assert len(pieces) >= 3
    assert max(map(len, pieces)) < 15 * voice.rate_hz
    for piece in pieces:
        assert abs(int(piece[0])) <= 10
        assert abs(int(piece[-1])) <= 10, "no click where they meet"
    heard = [await understood(ear, piece, voice.rate_hz) for piece in pieces]
    assert jiwer.wer(plain(text), " ".join(heard)) <= 0.15, "nothing is lost or said twice between them"


async def test_closing_a_long_text_stops_the_work(voice: HibariVoice, gate: Gate) -> None:
    gate.open.set()
    async with aclosing(voice.speak(LONG)) as pieces:
        await anext(pieces)
    assert np.abs(await spoken(voice, "Hello!")).max() > 3000
    assert gate.runs == 2


async def test_cancelling_gives_up_what_waits(voice: HibariVoice, gate: Gate) -> None:
    running = asyncio.create_task(spoken(voice, "Hello!"))
    await asyncio.to_thread(gate.reached.wait, 20)
    waiting = [asyncio.create_task(spoken(voice, LONG)) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    gate.open.set()
    await running
    await spoken(voice, "Hello!")
    assert gate.runs == 2


async def test_several_speak_at_once_and_each_says_its_own(voice: HibariVoice, ear: WhisperRecognizer) -> None:
    texts = ["I would like some tea.", "The train leaves at noon.", "My sister lives in Boston.", "It rained all day."]
    audios = await asyncio.gather(*(spoken(voice, text) for text in texts))
    for text, audio in zip(texts, audios, strict=True):
        assert jiwer.wer(plain(text), await understood(ear, audio, voice.rate_hz)) <= 0.25


async def test_a_short_text_need_not_wait_for_the_end_of_a_long_one(voice: HibariVoice, gate: Gate) -> None:
    long = asyncio.create_task(spoken(voice, LONG))
    await asyncio.to_thread(gate.reached.wait, 20)
    short = asyncio.create_task(spoken(voice, "Hello!"))
    await asyncio.sleep(0)
    gate.open.set()
    assert len(await short)
    assert not long.done()
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)


async def test_too_much_work_is_refused(voice: HibariVoice, gate: Gate) -> None:
    running = asyncio.create_task(spoken(voice, "Hello!"))
    await asyncio.to_thread(gate.reached.wait, 20)
    tasks = [asyncio.create_task(spoken(voice, "Hello!")) for _ in range(200)]
    await asyncio.sleep(0)
    refused = [task for task in tasks if task.done()]
    assert refused
    assert all(isinstance(task.exception(), OverloadedError) for task in refused)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gate.open.set()
    assert len(await running)


async def test_the_event_loop_runs_on_while_it_speaks(voice: HibariVoice) -> None:
    async with counted_turns() as turns:
        await spoken(voice, SENTENCE)
    assert turns.count > 100


async def test_an_engine_that_fails_is_a_provider_error(voice: HibariVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        sample_rate = 24_000

        def __call__(self, _: str) -> np.ndarray:
            raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(voice, "_engine", Broken())
        with pytest.raises(ProviderError) as caught:
            await spoken(voice, "This is a secret.")
    assert "secret" not in caught.value.message
    assert len(await spoken(voice, "Hello!"))


async def test_closing_fails_what_waits_and_everything_after(gate: Gate) -> None:
    gate.open.set()
    voice = await asyncio.to_thread(HibariVoice)
    gate.open.clear()
    running = asyncio.create_task(spoken(voice, "Hello!"))
    await asyncio.to_thread(gate.reached.wait, 20)
    waiting = asyncio.create_task(spoken(voice, "Hello!"))
    await asyncio.sleep(0)
    await voice.close()
    with pytest.raises(ProviderError, match="closed"):
        await asyncio.wait_for(waiting, 20)
    gate.open.set()
    assert len(await asyncio.wait_for(running, 20))
    with pytest.raises(ProviderError, match="closed"):
        await spoken(voice, "Hello!")
