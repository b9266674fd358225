"""Sound files people have come in as they sound, and what cannot be read is explained in one line."""

import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from app.audio.wav import read_audio, write_wav
from app.core.errors import AudioFormatError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


def tone(hz: float, rate_hz: int, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz / rate_hz * np.arange(rate_hz))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(arrays(np.int16, st.integers(1, 500)), st.sampled_from([8000, 16_000, 44_100]))
def test_what_is_written_is_a_wav_file_for_everyone_and_comes_back(
    tmp_path: Path, samples: np.ndarray, rate_hz: int
) -> None:
    path = tmp_path / "speech.wav"
    write_wav(path, samples, rate_hz)
    with wave.open(str(path)) as file:  # the standard library's reader
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, rate_hz)
        assert np.array_equal(np.frombuffer(file.readframes(len(samples)), "<i2"), samples)
    assert np.array_equal(read_audio(path, rate_hz), samples)


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_16", 2),
        ("a.wav", "PCM_24", 2),
        ("a.wav", "PCM_U8", 300),
        ("a.wav", "FLOAT", 2),
        ("a.flac", "PCM_16", 2),
        ("a.ogg", "VORBIS", 900),
        ("a.mp3", "MPEG_LAYER_III", 900),
    ],
)
def test_usual_formats_rates_and_channels_become_mono_at_the_rate_asked_for(
    tmp_path: Path, name: str, subtype: str, error: float
) -> None:
    """A stereo file at 44.1 kHz, louder on one side, is the mean of both at 16 kHz."""
    soundfile.write(
        tmp_path / name, np.stack((tone(440, 44_100, 0.6), tone(440, 44_100, 0.2)), axis=1), 44_100, subtype=subtype
    )
    heard = read_audio(tmp_path / name, 16_000)
    assert heard.dtype == np.int16
    inner = slice(3000, 13_000)
    assert np.abs(heard[inner] - 32768 * tone(440, 16_000, 0.4)[inner]).max() <= error


def test_what_is_too_loud_for_16_bits_is_clipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", np.array([2.0, -2.0, 0.5]), 16_000, subtype="FLOAT")
    assert read_audio(tmp_path / "loud.wav", 16_000).tolist() == [32767, -32768, 16384]


def files_that_hold_no_sound(directory: Path) -> dict[str, str]:
    """Names and what should be said about them."""
    (directory / "text.wav").write_text("Hello!")
    (directory / "empty.wav").write_bytes(b"")
    (directory / "folder.wav").mkdir()
    (directory / "samples.raw").write_bytes(bytes(64))
    soundfile.write(directory / "nothing.wav", np.zeros(0), 16_000)
    soundfile.write(directory / "broken.wav", np.array([0.0, np.nan]), 16_000, subtype="FLOAT")
    return {
        "missing.wav": "there is no such file",
        "text.wav": "Format not recognised.",
        "empty.wav": "Format not recognised.",
        "folder.wav": "it is a directory",
        "samples.raw": "raw samples do not say what rate and format they have",
        "nothing.wav": "it is empty",
        "broken.wav": "The audio holds NaN or infinite values; the model or filter that made it is broken.",
    }


def test_a_file_without_sound_is_named_with_the_reason(tmp_path: Path) -> None:
    for name, reason in files_that_hold_no_sound(tmp_path).items():
        with pytest.raises(AudioFormatError) as caught:
            read_audio(tmp_path / name, 16_000)
        assert caught.value.message == f"{tmp_path / name} cannot be read as sound: {reason}"


def test_a_place_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    samples = np.zeros(10, np.int16)
    with pytest.raises(AudioFormatError, match=r"no/a\.wav cannot be written: its directory does not exist$"):
        write_wav(tmp_path / "no" / "a.wav", samples, 16_000)
    with pytest.raises(AudioFormatError, match=r"cannot be written: it is a directory$"):
        write_wav(tmp_path, samples, 16_000)
    with pytest.raises(AudioFormatError, match=r"a\.wav cannot be written: "):
        write_wav(tmp_path / "a.wav", samples, 0)


@pytest.mark.parametrize("samples", [np.zeros(4, np.float32), np.zeros((4, 2), np.int16)])
def test_only_mono_int16_is_written(tmp_path: Path, samples: np.ndarray) -> None:
    with pytest.raises(AudioFormatError, match="is not mono int16"):
        write_wav(tmp_path / "a.wav", samples, 16_000)
    assert not (tmp_path / "a.wav").exists()
