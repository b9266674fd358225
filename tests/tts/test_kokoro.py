"""The richer embedded voices, heard by the embedded recogniser: the contract of `tts/base.py`."""

import asyncio
import logging
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import jiwer
import numpy as np
import pytest
from app.audio.resample import resample
from app.core.errors import ModelError, OverloadedError, ProviderError
from app.inference.store import ModelStore
from app.inference.worker import Worker
from app.stt.embedded_whisper import WhisperRecognizer
from app.tts import kokoro
from app.tts.cutting import pieces
from app.tts.kokoro import KokoroVoice, slow_warning, voices_in
from event_loop import counted_turns

STT_HZ = 16_000
RATE_HZ = 24_000
AUDIBLE = 32768 * 10 ** (-45 / 20)
"""Quieter than this is silence to a listener."""
SENTENCE = "The boat was built by two brothers who had never seen the sea."
LONG = (
    "Yes, I can help you with that. The ship sailed on, the wind was fair, and nobody on board knew what would come. "
    "On the third day they saw an island, and the captain laughed."
)
DIRECTORY = ModelStore().path("kokoro")


@pytest.fixture(scope="module")
def voice() -> Iterator[KokoroVoice]:
    voice = KokoroVoice(DIRECTORY, threads=2)
    yield voice
    asyncio.run(voice.close())


@pytest.fixture(scope="module")
def ear() -> Iterator[WhisperRecognizer]:
    recognizer = WhisperRecognizer(ModelStore().path("whisper-tiny.en"), None)
    yield recognizer
    asyncio.run(recognizer.close())


async def spoken(by: KokoroVoice, text: str, **options: str) -> np.ndarray:
    audio = [piece async for piece in by.speak(text, **options)]
    assert all(piece.dtype == np.int16 and piece.ndim == 1 and len(piece) for piece in audio)
    return np.concatenate([*audio, np.zeros(0, np.int16)])


async def understood(ear: WhisperRecognizer, audio: np.ndarray) -> str:
    return plain((await ear.transcribe(resample(audio, RATE_HZ, STT_HZ), language="en")).text)


def plain(text: str) -> str:
    """In plain lower-case words."""
    return " ".join(word.strip(".:") for word in re.sub(r"[^\w$£.:%' ]", " ", text.lower()).split())


# --- what is spoken is what was written


@pytest.mark.parametrize("name", ["af_heart", "af_bella", "am_michael", "bf_emma", "bm_george"])
async def test_each_kind_of_voice_is_understood(voice: KokoroVoice, ear: WhisperRecognizer, name: str) -> None:
    audio = await spoken(voice, SENTENCE, voice=name)
    assert 2 < len(audio) / RATE_HZ < 7
    assert jiwer.wer(plain(SENTENCE), await understood(ear, audio)) <= 0.15


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("Hello!", r"hello"),
        ("That costs $12.50.", r"\$12\.50"),
        ("It happened in 1984, on the 3rd of March.", r"1984.*(third|3rd) of march"),
        ("It is 10:45 in the morning.", r"10:?45"),
        ("Wow 🎉 it's a party 🎉 tonight!", r"wow it's a party tonight"),
        ("We met at the naïve café.", r"na[iï]ve (caf[eé])"),
    ],
)
async def test_numbers_prices_and_signs_are_spoken_as_people_say_them(
    voice: KokoroVoice, ear: WhisperRecognizer, text: str, heard: str
) -> None:
    understood_ = await understood(ear, await spoken(voice, text))
    assert re.search(heard, understood_), understood_


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n\n",
        "...",
        "?!",
        "—",
        "***",
        "___",
        "🎉",
        "🏴‍☠️ 🎉",
        "日本語です!",
        "\x00",
        "\u200b",
        "\ud83d",
        '"',
        "$",
    ],
)
async def test_text_without_anything_to_pronounce_gives_no_audio(voice: KokoroVoice, text: str) -> None:
    assert [piece async for piece in voice.speak(text)] == []


@pytest.mark.parametrize("text", ["日本語です。", "e = mc^2", "a\x00b", "²", "x" * 130, "[go](/日本/)", "\ud83d yes"])
async def test_strange_text_is_stood(voice: KokoroVoice, text: str) -> None:
    assert len(await spoken(voice, text)) < 20 * RATE_HZ


async def test_a_number_without_end_comes_in_pieces_the_model_can_take(voice: KokoroVoice) -> None:
    async with aclosing(voice.speak("1" * 100_000)) as audio:
        assert 1 < len(await anext(audio)) / RATE_HZ < 15


@pytest.mark.parametrize("text", [LONG, "word " * 200, "x" * 1000, "Yes, " * 90, "1" * 400, f"Yes, {'and then ' * 40}"])
def test_text_is_cut_into_pieces_that_fit_and_nothing_is_lost(text: str) -> None:
    cut = list(pieces(text, first=60, most=120))
    assert max(map(len, cut)) <= 120
    assert "".join(cut).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (
            "Here is what I found for you. It is a long story with many turns, which begins in a small town.",
            ["Here is what I found for you.", "It is a long story with many turns,", "which begins in a small town."],
        ),
        (
            "Sure, that is a long sentence without any mark in it which goes on to its end.",
            ["Sure, that is a long sentence without any mark in it which goes on to its end."],
        ),
        ("One. Two. Three. Four.", ["One. Two. Three. Four."]),
    ],
)
def test_the_first_piece_is_short_but_lasts_until_the_next_one_is_made(text: str, cut: list[str]) -> None:
    assert list(pieces(text, first=60, most=120)) == cut


# --- how it sounds at its ends


@pytest.mark.parametrize("name", ["af_heart", "bm_george"])
async def test_it_begins_at_once_and_ends_soon_without_a_click(voice: KokoroVoice, name: str) -> None:
    audio = (await spoken(voice, "Yes, please.", voice=name)).astype(int)
    audible = np.flatnonzero(np.abs(audio) > AUDIBLE)
    assert audible[0] <= RATE_HZ * 20 // 1000, "a breath at most in front"
    assert len(audio) - audible[-1] <= RATE_HZ * 250 // 1000, "and the pause before the next sentence behind"
    assert abs(audio[0]) <= 10
    assert abs(audio[-1]) <= 10
    assert 0.1 * 32768 < np.abs(audio).max() < 32767


# --- voices


def test_there_are_28_voices_with_names_for_people_and_the_first_is_heart(voice: KokoroVoice) -> None:
    names = {one.id: one.name for one in voice.voices}
    assert len(names) == len(set(names.values())) == 28
    assert next(iter(names)) == "af_heart"
    assert names["af_bella"] == "Bella (American, female)"
    assert names["bm_george"] == "George (British, male)"
    assert {one.language for one in voice.voices} == {"en"}


def test_every_voice_file_of_the_model_is_offered(voice: KokoroVoice) -> None:
    assert {one.id for one in voice.voices} == {file.stem for file in (DIRECTORY / "voices").iterdir()}


async def test_voices_sound_different_and_an_unknown_one_means_the_first(voice: KokoroVoice) -> None:
    heart, michael, unknown = [
        await spoken(voice, "Hello there!", voice=name) for name in ("af_heart", "am_michael", "nobody")
    ]
    assert _pitch_hz(michael) < 0.8 * _pitch_hz(heart)
    assert _pitch_hz(unknown) == pytest.approx(_pitch_hz(heart), rel=0.1)


def _pitch_hz(audio: np.ndarray) -> float:
    """The median over 40 ms windows of the first strong peak of the autocorrelation between 70 and 350 Hz."""
    window, shortest, longest = RATE_HZ * 40 // 1000, RATE_HZ // 350, RATE_HZ // 70
    found = []
    for start in range(0, len(audio) - 2 * window, window):
        part = audio[start : start + 2 * window].astype(float)
        if np.abs(part).max() < 2000:
            continue
        similar = [float(np.dot(part[:window], part[lag : lag + window])) for lag in range(shortest, longest)]
        if max(similar) > 0.6 * float(np.dot(part[:window], part[:window])):
            found.append(RATE_HZ / (shortest + int(np.argmax(similar))))
    return float(np.median(found))


async def test_british_voices_use_british_sounds(voice: KokoroVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[list[int]] = []
    make = KokoroVoice._make

    def noted(self: KokoroVoice, tokens: list[int], voice_id: str) -> np.ndarray:
        said.append(tokens)
        return make(self, tokens, voice_id)

    monkeypatch.setattr(KokoroVoice, "_make", noted)
    for name in ("bf_emma", "af_bella"):
        await spoken(voice, "A glass of water.", voice=name)
    symbols = {number: phoneme for phoneme, number in voice._vocabulary.items()}
    british, american = ("".join(symbols[token] for token in tokens) for tokens in said)
    assert "ɡlˈɑːs" in british
    assert "ɡlˈæs" in american


async def test_only_english_is_spoken(voice: KokoroVoice) -> None:
    assert len(await spoken(voice, "Yes.", language="en"))
    with pytest.raises(ProviderError) as caught:
        await spoken(voice, "Guten Tag.", language="de")
    assert caught.value.code == "language_not_spoken"


# --- at work


class Gate:
    """Holds the model before its next run, as a busy machine would, and counts the runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.runs = 0
        make = KokoroVoice._make

        def held(voice: KokoroVoice, tokens: list[int], voice_id: str) -> np.ndarray:
            self.runs += 1
            self.reached.set()
            self.open.wait(20)
            return make(voice, tokens, voice_id)

        monkeypatch.setattr(KokoroVoice, "_make", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


async def test_a_long_text_begins_with_a_short_piece_and_nothing_is_lost(
    voice: KokoroVoice, ear: WhisperRecognizer
) -> None:
    audio = [piece async for piece in voice.speak(LONG)]
    assert len(audio) >= 3
    assert len(audio[0]) < 4 * RATE_HZ, "the first is heard soon"
    assert max(map(len, audio)) < 12 * RATE_HZ
    heard = [await understood(ear, piece) for piece in audio]
    assert jiwer.wer(plain(LONG), " ".join(heard)) <= 0.15


async def test_closing_a_long_text_stops_the_work_between_pieces(voice: KokoroVoice, gate: Gate) -> None:
    gate.open.set()
    async with aclosing(voice.speak(LONG * 1000)) as audio:
        await anext(audio)
    assert len(await spoken(voice, "Yes."))
    assert gate.runs == 2


async def test_cancelling_gives_up_what_waits(voice: KokoroVoice, gate: Gate) -> None:
    running = asyncio.create_task(spoken(voice, "Yes."))
    await asyncio.to_thread(gate.reached.wait, 20)
    waiting = [asyncio.create_task(spoken(voice, LONG)) for _ in range(5)]
    await asyncio.sleep(0)
    await voice._speller.run(int)  # first come, first served: when this comes back, theirs has been spelled
    assert voice._worker.waiting == 5
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    gate.open.set()
    assert len(await running)
    assert len(await spoken(voice, "Yes."))
    assert gate.runs == 2


async def test_too_much_work_is_refused(voice: KokoroVoice, gate: Gate) -> None:
    running = asyncio.create_task(spoken(voice, "Yes."))
    await asyncio.to_thread(gate.reached.wait, 20)
    tasks = [asyncio.create_task(spoken(voice, "Yes.")) for _ in range(200)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    refused = list(done)
    assert refused
    assert all(isinstance(task.exception(), OverloadedError) for task in refused)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    gate.open.set()
    assert len(await running)


async def test_the_event_loop_runs_on_while_it_speaks(voice: KokoroVoice) -> None:
    async with counted_turns() as turns:
        await spoken(voice, "I can help you with that.")
    assert turns.count > 100


async def test_a_model_that_fails_is_a_provider_error_without_the_text(
    voice: KokoroVoice, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def __call__(self, text: str, *, british: bool) -> str:
            raise IndexError(text)

        def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            raise RuntimeError(str(inputs))

    caplog.set_level(logging.DEBUG)
    for part, said in (("_pronunciation", "17 characters"), ("_session", "phonemes")):
        with monkeypatch.context() as patch:
            patch.setattr(voice, part, Broken())
            with pytest.raises(ProviderError, match=said) as caught:
                await spoken(voice, "This is a secret.")
        assert "secret" not in str(caught.value) + caplog.text
    assert len(await spoken(voice, "Yes."))


async def test_sound_that_is_no_number_is_a_provider_error(voice: KokoroVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def run(self, *_: object) -> list[np.ndarray]:
            return [np.array([1.0, np.nan, 1.0], np.float32)]

    monkeypatch.setattr(voice, "_session", Broken())
    with pytest.raises(ProviderError, match="failed"):
        await spoken(voice, "Yes.")


# --- how fast it is


async def test_its_speed_is_that_of_what_is_heard(voice: KokoroVoice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs that take 1, 4 and 2 s, each of 3 s of speech."""
    monkeypatch.setattr(KokoroVoice, "_make", lambda *_: np.zeros(3 * RATE_HZ, np.int16))
    clock = iter([0.0, 1.0, 10.0, 14.0, 20.0, 22.0])
    monkeypatch.setattr(kokoro.time, "perf_counter", lambda: next(clock))
    assert await voice.measured_speed() == pytest.approx(1.5)


async def test_its_speed_is_measured_with_the_model(voice: KokoroVoice, gate: Gate) -> None:
    gate.open.set()
    assert await voice.measured_speed() > 0
    assert gate.runs == kokoro.TRIALS


@pytest.mark.parametrize("speed", [0.4, 1.1, 1.49])
def test_a_voice_that_is_too_slow_here_is_told_with_a_way_out(speed: float) -> None:
    warning = slow_warning("af_bella", speed)
    assert warning
    assert "'af_bella'" in warning
    assert f"{speed:.1f} times" in warning
    assert "VOICE=heart" in warning


@pytest.mark.parametrize("speed", [1.5, 2.4, 40.0])
def test_a_voice_that_is_fast_enough_is_not_warned_of(speed: float) -> None:
    assert slow_warning("af_bella", speed) is None


# --- loading and closing


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The model with two voices, to break."""
    (tmp_path / "voices").mkdir()
    (tmp_path / "kokoro.onnx").symlink_to(next(DIRECTORY.glob("*.onnx")))
    for name in ("vocab.json", "voices/bf_emma.bin", "voices/bm_lewis.bin"):
        shutil.copy(DIRECTORY / name, tmp_path / name)
    return tmp_path


async def test_only_the_voices_that_are_there_are_offered(directory: Path) -> None:
    assert [one.id for one in voices_in(directory)] == ["bf_emma", "bm_lewis"]
    voice = await asyncio.to_thread(KokoroVoice, directory, threads=2)
    assert voice.voices == voices_in(directory)
    assert len(await spoken(voice, "Yes.", voice="af_heart"))
    await voice.close()


@pytest.mark.parametrize("name", ["kokoro.onnx", "vocab.json", "voices/bf_emma.bin"])
def test_a_damaged_file_is_a_model_error_that_names_the_directory(directory: Path, name: str) -> None:
    (directory / name).unlink()
    (directory / name).write_bytes(b"not what it should be")
    with pytest.raises(ModelError) as caught:
        KokoroVoice(directory, threads=1)
    assert str(directory) in caught.value.message


@pytest.mark.parametrize(
    ("name", "said"),
    [("kokoro.onnx", "no .onnx file"), ("vocab.json", "vocab.json"), ("voices", "voices/af_heart.bin")],
)
def test_a_missing_file_is_a_model_error_that_names_it(directory: Path, name: str, said: str) -> None:
    if name == "voices":
        shutil.rmtree(directory / name)
    else:
        (directory / name).unlink()
    with pytest.raises(ModelError, match=re.escape(said)):
        KokoroVoice(directory, threads=1)


async def test_closing_fails_what_comes_after_and_leaves_a_borrowed_worker_alone(directory: Path) -> None:
    shared = Worker("shared")
    voice = await asyncio.to_thread(KokoroVoice, directory, threads=2, worker=shared)
    assert len(await spoken(voice, "Yes."))
    await voice.close()
    with pytest.raises(ProviderError, match="closed"):
        await spoken(voice, "Yes.")
    assert await shared.run(lambda: "still at work") == "still at work"
    shared.close()
