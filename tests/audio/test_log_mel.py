"""The log-mel spectrogram is Whisper's: checked against the recipe put together from scipy's parts in double precision.

Slaney's mel scale is built here by walking: 15 steps of 66.7 Hz up to 1 kHz, then each step a 27th root of 6.4 wider.
"""

import numpy as np
import pytest
from app.audio.log_mel import BANDS, HOP, RATE_HZ, log_mel, mel_bank
from app.core.errors import AudioFormatError
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

FREQUENCIES_HZ = np.arange(201) * 40.0


def slaney_edges_hz() -> np.ndarray:
    """The 82 corners of 80 triangles, at equal distances in mel from 0 to 8 kHz."""
    steps_hz = [200 / 3 * step for step in range(16)]
    while steps_hz[-1] < RATE_HZ / 2:
        steps_hz.append(steps_hz[-1] * 6.4 ** (1 / 27))
    whole = np.array(steps_hz)
    top = np.arange(len(whole))[-2] + np.log(8000 / whole[-2]) / np.log(6.4 ** (1 / 27))
    mels = np.linspace(0, top, BANDS + 2)
    linear = mels <= 15
    return np.where(linear, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))


def reference_bank() -> np.ndarray:
    """Triangles drawn by interpolation between their three corners, each of area 1 (in Hz)."""
    edges_hz = slaney_edges_hz()
    return np.array(
        [
            np.interp(FREQUENCIES_HZ, edges_hz[band : band + 3], (0, 2 / (edges_hz[band + 2] - edges_hz[band]), 0))
            for band in range(BANDS)
        ]
    )


def reference(samples: np.ndarray) -> np.ndarray:
    mirrored = np.concatenate((samples[200:0:-1], samples, samples[-2:-202:-1])).astype(float)
    window = signal.get_window("hann", 400)
    _, _, spectrum = signal.stft(mirrored, window=window, nperseg=400, noverlap=240, boundary=None, padded=False)
    power = np.abs(spectrum * window.sum()) ** 2
    levels = np.log10(np.maximum(reference_bank() @ power[:, : len(samples) // HOP], 1e-10))
    return (np.maximum(levels, levels.max() - 8) + 4) / 4


def tone(hz: float, length: int = RATE_HZ, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz / RATE_HZ * np.arange(length))).astype(np.float32)


def test_the_mel_bands_are_slaneys() -> None:
    assert np.allclose(mel_bank(), reference_bank(), rtol=1e-5, atol=1e-8)
    assert mel_bank().shape == (80, 201)


@settings(max_examples=60)
@given(st.integers(201, 20_000), st.floats(-80, 0), st.floats(0.1, 0.9), st.integers(0, 2**32 - 1))
def test_noise_of_any_length_level_and_colour_has_the_reference_spectrogram(
    length: int, level_dbfs: float, colour: float, seed: int
) -> None:
    noise = np.random.default_rng(seed).normal(0, 1, length)
    coloured = signal.lfilter([1 - colour], [1, -colour], noise)
    samples = (coloured / np.abs(coloured).max() * 10 ** (level_dbfs / 20)).astype(np.float32)
    ours = log_mel(samples)
    assert ours.dtype == np.float32
    assert ours.shape == (BANDS, length // HOP)
    assert np.abs(ours - reference(samples)).max() < 1e-3


@pytest.mark.parametrize("hz", [60, 250, 440, 1000, 3000, 7500])
def test_a_tone_is_loudest_in_the_band_around_it(hz: float) -> None:
    samples = tone(hz)
    spectrogram = log_mel(samples)
    assert np.abs(spectrogram - reference(samples)).max() < 2e-3
    edges_hz = slaney_edges_hz()
    loudest = int(spectrogram.mean(axis=1).argmax())
    assert edges_hz[loudest] - 40 <= hz <= edges_hz[loudest + 2] + 40  # to the nearest line of the spectrum


@given(st.floats(1.0, 8.0))
@settings(max_examples=20)
def test_ten_times_the_amplitude_is_half_a_unit_more(times: float) -> None:
    quiet = log_mel(tone(440, amplitude=0.1))
    assert np.allclose(log_mel(tone(440, amplitude=0.1 * times)) - quiet, np.log10(times) / 2, atol=2e-3)


@settings(max_examples=30)
@given(st.integers(2, 97))
def test_a_click_shows_in_the_frames_around_its_moment(frame: int) -> None:
    samples = np.zeros(RATE_HZ, np.float32)
    samples[frame * HOP] = 0.9
    energy = log_mel(samples).max(axis=0)
    assert int(energy.argmax()) == frame
    assert set(np.flatnonzero(energy > energy.min()).tolist()) == {frame - 1, frame, frame + 1}


def test_values_stay_within_two_of_each_other_and_silence_is_flat() -> None:
    loud_and_silent = np.concatenate((tone(440), np.zeros(RATE_HZ, np.float32)))
    spectrogram = log_mel(loud_and_silent)
    assert spectrogram.max() - spectrogram.min() == pytest.approx(2.0, abs=1e-5)
    assert np.allclose(log_mel(np.zeros(RATE_HZ, np.float32)), -1.5)
    assert log_mel(tone(20, amplitude=1.0)).max() < 1.7


@pytest.mark.parametrize(
    "samples", [np.zeros(0, np.float32), np.zeros(200, np.float32), np.zeros((2, 400), np.float32)]
)
def test_too_little_audio_is_explained(samples: np.ndarray) -> None:
    with pytest.raises(AudioFormatError, match="has no spectrum: 201 mono samples or more are needed"):
        log_mel(samples)


def test_the_callers_audio_is_left_alone() -> None:
    samples = tone(440)
    log_mel(samples)
    assert np.array_equal(samples, tone(440))
