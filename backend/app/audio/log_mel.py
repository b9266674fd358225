"""Whisper's log-mel spectrogram, which Whisper and Smart Turn listen to, in numpy.

The recipe is that of OpenAI's Whisper (whisper/audio.py): 25 ms periodic Hann windows every 10 ms of 16 kHz audio, 80
mel bands on Slaney's scale with Slaney's area normalisation, log10, nothing more than 8 below the loudest, (x + 4) / 4.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from app.core.errors import AudioFormatError

RATE_HZ = 16_000
WINDOW = 400
HOP = 160
BANDS = 80
FLOOR = 1e-10
RANGE = 8.0
_LINEAR_HZ_PER_MEL = 200.0 / 3
_LOG_FROM_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27.0
"""Slaney's mel scale: linear up to 1 kHz, from there 27 mels for a factor of 6.4 (Auditory Toolbox, 1998)."""


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [80, n // 160] of float32 `samples` [n] at 16 kHz in -1..1; frame i is centred on sample 160 * i.

    Values lie within 2 of each other, from -1.5 (silence) to about 1.7 (a full-scale tone). At least 201 samples are
    needed, so that the ends can be mirrored: fewer raise AudioFormatError.
    """
    if samples.ndim != 1 or len(samples) <= WINDOW // 2:
        raise AudioFormatError(
            f"Audio of shape {samples.shape} has no spectrum: {WINDOW // 2 + 1} mono samples or more are needed."
        )
    padded = np.pad(samples.astype(np.float32, copy=False), WINDOW // 2, mode="reflect")
    step = padded.strides[0]
    count = len(samples) // HOP
    frames = np.lib.stride_tricks.as_strided(padded, (count, WINDOW), (HOP * step, step), writeable=False)
    spectrum = np.fft.rfft(frames * _window())
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    levels = np.log10(np.maximum(mel_bank() @ power.T, FLOOR))
    levels = np.maximum(levels, levels.max() - RANGE)
    return np.asarray((levels + 4.0) / 4.0, np.float32)


@cache
def mel_bank() -> NDArray[np.float32]:
    """[80, 201]: the weight of each frequency of the spectrum in each mel band."""
    edges_hz = _to_hz(np.linspace(_to_mel(0.0), _to_mel(RATE_HZ / 2), BANDS + 2))
    frequencies_hz = np.linspace(0, RATE_HZ / 2, WINDOW // 2 + 1)
    lower, centre, upper = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising = (frequencies_hz - lower) / (centre - lower)
    falling = (upper - frequencies_hz) / (upper - centre)
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None) * 2 / (upper - lower), np.float32)


@cache
def _window() -> NDArray[np.float32]:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW), np.float32)


def _to_mel(frequency_hz: float) -> float:
    if frequency_hz < _LOG_FROM_HZ:
        return frequency_hz / _LINEAR_HZ_PER_MEL
    return float(_LOG_FROM_HZ / _LINEAR_HZ_PER_MEL + np.log(frequency_hz / _LOG_FROM_HZ) / _LOG_STEP)


def _to_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    knee = _LOG_FROM_HZ / _LINEAR_HZ_PER_MEL
    above = _LOG_FROM_HZ * np.exp(_LOG_STEP * (mels - knee))
    return np.where(mels < knee, mels * _LINEAR_HZ_PER_MEL, above)
