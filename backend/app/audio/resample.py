"""Changing the sampling rate: whole utterances, and streams piece by piece.

A stream is filtered with a windowed sinc, arranged so that one matrix product gives all samples of a piece (polyphase:
every `up` outputs need the same weights). It holds back `HALF_WIDTH` samples of the lower rate, 4 ms at 8 kHz. Pieces
of any length give the same samples as the whole at once.

Filter: Kaiser's window design (Oppenheim and Schafer, Discrete-Time Signal Processing, section 7.5.3): for an
attenuation of A dB, beta = 0.1102 (A - 8.7), and 2 * half width + 1 taps leave a transition of
(A - 7.95) / (14.36 * 2 * half width) of the rate.
"""

from math import gcd

import numpy as np
import soxr
from numpy.typing import NDArray

from app.core.errors import AudioFormatError

HALF_WIDTH = 32
"""Reach of the filter to each side, in samples of the lower of the two rates."""
ATTENUATION_DB = 85.0
"""What lies beyond half the lower rate is at least this far down."""
PASSBAND = 0.41
"""Up to this share of the lower rate (3.3 kHz of 8 kHz, 6.6 kHz of 16 kHz) nothing is changed by more than 0.1 dB."""
RATES_HZ = (8000, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


def resample(samples: NDArray[np.int16], from_hz: int, to_hz: int) -> NDArray[np.int16]:
    """A whole utterance (int16 mono [n]) at another rate: round(n * to / from) samples, best quality (soxr HQ).

    Any positive rates are taken; others raise AudioFormatError.
    """
    if from_hz <= 0 or to_hz <= 0:
        raise AudioFormatError(f"A rate of {min(from_hz, to_hz)} Hz does not exist.")
    if from_hz == to_hz or not len(samples):
        return samples.copy()
    converted = soxr.resample(samples.astype(np.float32), from_hz, to_hz, quality="HQ")
    wanted = round(len(samples) * to_hz / from_hz)
    converted = np.pad(converted[:wanted], (0, max(0, wanted - len(converted))))
    return _to_int16(converted)


class StreamResampler:
    """Brings a stream of int16 mono audio from `from_hz` to `to_hz`, both of `RATES_HZ`.

    After `flush`, n samples have become ceil(n * to / from), aligned with the input: there is no delay to take off.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        for rate_hz in (from_hz, to_hz):
            if rate_hz not in RATES_HZ:
                raise AudioFormatError(f"Streams of {rate_hz} Hz cannot be converted; the rates are {RATES_HZ}.")
        common = gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        self._reach = int(np.ceil(HALF_WIDTH * max(1.0, from_hz / to_hz)))
        self._weights = _weights(self._up, self._down, self._reach)
        self._reset()

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """The output (int16 [m]) that these samples (int16 [n]) complete."""
        if samples.dtype != np.int16 or samples.ndim != 1:
            raise AudioFormatError(f"Audio of type {samples.dtype} and shape {samples.shape} is not mono int16.")
        self._taken += len(samples)
        return self._convert(samples.astype(np.float32))

    def flush(self) -> NDArray[np.int16]:
        """What was held back. Afterwards the resampler is as new."""
        wanted = -(-self._taken * self._up // self._down) - self._given
        rest = self._convert(np.zeros(2 * self._reach + 2 * self._down, np.float32))[:wanted]
        self._reset()
        return rest

    def _reset(self) -> None:
        self._held = np.zeros(self._reach, np.float32)  # silence before the first sample
        self._taken = self._given = 0

    def _convert(self, samples: NDArray[np.float32]) -> NDArray[np.int16]:
        held = np.concatenate((self._held, samples))
        width = self._weights.shape[0]
        periods = max(0, (len(held) - width) // self._down + 1)
        if not periods:
            self._held = held
            return np.zeros(0, np.int16)
        step = held.strides[0]
        windows = np.lib.stride_tricks.as_strided(held, (periods, width), (self._down * step, step), writeable=False)
        converted = _to_int16((windows @ self._weights).ravel())
        self._held = held[periods * self._down :]
        self._given += len(converted)
        return converted


def _weights(up: int, down: int, reach: int) -> NDArray[np.float32]:
    """[inputs of one period, up]: column j gives output j of a period, which lies j * down / up after its first input.

    Input i of a period is sample i - reach, seen from that first one.
    """
    inputs = np.arange(2 * reach + down + 1)[:, None] - reach
    distance = inputs - (np.arange(up) * down / up)[None, :]
    lower = min(1.0, up / down)  # the lower rate, as a share of the input's
    half = HALF_WIDTH / lower
    transition = (ATTENUATION_DB - 7.95) / (14.36 * 2 * half)
    cutoff = lower / 2 - transition / 2
    beta = 0.1102 * (ATTENUATION_DB - 8.7)
    inside = np.clip(1 - (distance / half) ** 2, 0, None)
    window = np.where(np.abs(distance) <= half, np.i0(beta * np.sqrt(inside)) / np.i0(beta), 0.0)
    weights = 2 * cutoff * np.sinc(2 * cutoff * distance) * window
    return np.asarray(weights / weights.sum(axis=0), np.float32)


def _to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
