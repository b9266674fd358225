"""The voices that need no service, as one: the chunk goes to the engine that has the voice."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
from app.core.errors import ModelError, ProviderError
from app.inference.store import ModelStore
from app.tts.embedded import EmbeddedVoices, voices_of, wanted
from app.tts.hibari import HibariVoice
from app.tts.kokoro import KokoroVoice

DIRECTORY = ModelStore().path("kokoro")


@pytest.fixture(scope="module")
def both() -> Iterator[EmbeddedVoices]:
    voices = EmbeddedVoices("am_puck", DIRECTORY, threads=2)
    yield voices
    asyncio.run(voices.close())


@pytest.fixture(scope="module")
def heart_alone() -> Iterator[EmbeddedVoices]:
    voices = EmbeddedVoices(None, None)
    yield voices
    asyncio.run(voices.close())


@pytest.fixture
def made_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The voices that are asked of the engines, which go on as before."""
    asked: list[str] = []
    hibari, kokoro = HibariVoice._make, KokoroVoice._make

    def by_hibari(self: HibariVoice, text: str) -> np.ndarray:
        asked.append("heart")
        return hibari(self, text)

    def by_kokoro(self: KokoroVoice, tokens: list[int], voice_id: str) -> np.ndarray:
        asked.append(voice_id)
        return kokoro(self, tokens, voice_id)

    monkeypatch.setattr(HibariVoice, "_make", by_hibari)
    monkeypatch.setattr(KokoroVoice, "_make", by_kokoro)
    return asked


async def spoken(by: EmbeddedVoices, text: str, **options: str) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int16), *[piece async for piece in by.speak(text, **options)]])


# --- which voices there are


def test_the_voice_of_the_settings_comes_first_then_all_others(both: EmbeddedVoices) -> None:
    names = [voice.id for voice in both.voices]
    assert names[:2] == ["am_puck", "heart"]
    assert len(names) == len(set(names)) == 29


def test_without_the_second_model_there_is_heart(heart_alone: EmbeddedVoices) -> None:
    assert [voice.id for voice in heart_alone.voices] == ["heart"]


@pytest.mark.parametrize("directory", [None, DIRECTORY])
def test_what_will_be_offered_is_known_without_loading(
    directory: Path | None, both: EmbeddedVoices, heart_alone: EmbeddedVoices
) -> None:
    loaded = both if directory else heart_alone
    assert set(voices_of(directory)) == set(loaded.voices)


@pytest.mark.parametrize(
    ("voice", "is_wanted"),
    [("af_bella", True), ("bm_george", True), ("heart", False), (None, False), ("", False), ("af_nobody", False)],
)
def test_the_second_model_is_wanted_for_its_own_voices_only(voice: str | None, is_wanted: bool) -> None:
    assert wanted(voice) is is_wanted


def test_asking_for_names_loads_no_model_library() -> None:
    code = (
        "import sys; from app.tts.embedded import wanted; assert wanted('af_bella');"
        "print(*{'onnxruntime', 'hibari'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)  # noqa: S603
    assert run.stdout.split() == []


# --- who speaks


@pytest.mark.parametrize(
    ("asked", "speaks"),
    [("heart", "heart"), ("bf_emma", "bf_emma"), (None, "am_puck"), ("nobody", "am_puck")],
)
async def test_a_chunk_goes_to_the_engine_that_has_the_voice(
    both: EmbeddedVoices, made_by: list[str], asked: str | None, speaks: str
) -> None:
    options = {"voice": asked} if asked else {}
    assert np.abs(await spoken(both, "Yes.", **options)).max() > 1000
    assert made_by == [speaks]


@pytest.mark.parametrize("asked", ["am_puck", "heart", "nobody"])
async def test_heart_alone_speaks_whoever_is_asked_for(
    heart_alone: EmbeddedVoices, made_by: list[str], asked: str
) -> None:
    assert len(await spoken(heart_alone, "Yes.", voice=asked, language="en"))
    assert made_by == ["heart"]


async def test_a_chosen_voice_that_is_not_there_leaves_the_default_to_heart() -> None:
    voices = await asyncio.to_thread(EmbeddedVoices, "am_puck", None)
    assert voices.voices[0].id == "heart"
    await voices.close()


@pytest.mark.parametrize("name", ["heart", "af_bella"])
async def test_other_languages_are_refused_with_what_to_do(both: EmbeddedVoices, made_by: list[str], name: str) -> None:
    with pytest.raises(ProviderError) as caught:
        await spoken(both, "Guten Tag.", voice=name, language="de")
    assert caught.value.code == "language_not_spoken"
    assert "English only" in caught.value.message
    assert "'de'" in caught.value.message
    assert "TTS_PROVIDER" in caught.value.message
    assert "Guten" not in caught.value.message
    assert made_by == []


async def test_leaving_a_long_text_stops_the_engine(both: EmbeddedVoices, made_by: list[str]) -> None:
    for name in ("heart", "am_puck"):
        async with aclosing(both.speak("The ship sailed on, and the wind was fair. " * 500, voice=name)) as pieces:
            await anext(pieces)
        assert len(await spoken(both, "Yes.", voice=name))
    assert made_by == ["heart", "heart", "am_puck", "am_puck"]


# --- what is told at the start


@pytest.mark.parametrize(("speed", "told"), [(1.1, True), (3.0, False)])
async def test_a_default_voice_that_is_too_slow_here_is_told(
    both: EmbeddedVoices, monkeypatch: pytest.MonkeyPatch, speed: float, told: bool
) -> None:
    async def measured(_: KokoroVoice) -> float:
        return speed

    monkeypatch.setattr(KokoroVoice, "measured_speed", measured)
    warning = await both.slow_warning()
    assert bool(warning) is told
    assert not told or "'am_puck' is made only 1.1 times" in str(warning)


async def test_heart_is_never_too_slow(heart_alone: EmbeddedVoices) -> None:
    assert await heart_alone.slow_warning() is None


# --- loading and closing


def test_a_directory_that_is_no_model_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no voice"):
        EmbeddedVoices("af_bella", tmp_path)


def test_engines_of_different_rates_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KokoroVoice, "rate_hz", 16_000)
    with pytest.raises(ModelError, match="24000 and 16000 Hz"):
        EmbeddedVoices("af_bella", DIRECTORY, threads=2)


async def test_closing_stops_both() -> None:
    voices = await asyncio.to_thread(EmbeddedVoices, "af_bella", DIRECTORY, threads=2)
    await voices.close()
    for name in ("heart", "af_bella"):
        with pytest.raises(ProviderError, match="closed"):
            await spoken(voices, "Yes.", voice=name)
