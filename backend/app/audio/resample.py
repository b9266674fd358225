"""Changing the sampling rate: whole utterances, and streams piece by piece.

A stream is filtered with a windowed sinc, arranged so that one matrix product gives all samples of a piece (polyphase:
every `up` outputs need the same weights). It works in exact arithmetic, so that pieces of any length give the very same
samples as the whole at once, and no border can be heard.

Filter: Kaiser's window design (Oppenheim and Schafer, Discrete-Time Signal Processing, section 7.5.3): for an
attenuation of A dB, beta = 0.1102 (A - 8.7), and 2 * half width + 1 taps leave a transition of
(A - 7.95) / (14.36 * 2 * half width) of the rate.
"""

from functools import cache
from math import gcd

import numpy as np
import soxr
from numpy.typing import NDArray

from app.audio.pcm import require_mono
from app.core.errors import AudioFormatError

HALF_WIDTH = 32
"""Reach of a stream's filter to each side, in samples of the lower of the two rates."""
ATTENUATION_DB = 85.0
"""In a stream, what lies beyond half the lower rate (aliases and images) is at least this far down."""
PASSBAND = 0.41
"""In a stream, up to this share of the lower rate (3.28 kHz of 8 kHz, 6.56 kHz of 16 kHz) nothing is changed by more
than 0.01 dB, but for the rounding to int16."""
RATES_HZ = (8000, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_DESIGN_DB = ATTENUATION_DB + 1.0
"""Kaiser's formula is met within 0.7 dB."""
_QUANTUM = 2.0**-32
"""Weights are multiples of this. A sum of products with int16 samples then stays below 2**53 quanta, so float64 holds
it exactly, in whatever order a matrix library adds it up; in float32 pieces and the whole differed here and there."""
_PIECE = 16_384
"""Longer input is converted in pieces of this many samples, which bounds the memory that a long push needs."""


def resample(samples: NDArray[np.int16], from_hz: int, to_hz: int) -> NDArray[np.int16]:
    """A whole utterance (int16 mono [n]) at another rate: round(n * to / from) samples, best quality (soxr HQ).

    Up to 0.45 of the lower rate nothing is changed by more than 0.05 dB; aliases and images of a loud tone drown in the
    rounding to int16, 90 dB below it. Peaks beyond int16 are clipped. Any positive rates are taken; others raise
    AudioFormatError.
    """
    if from_hz <= 0 or to_hz <= 0:
        raise AudioFormatError(f"A rate of {min(from_hz, to_hz)} Hz does not exist.")
    require_mono(samples)
    if from_hz == to_hz or not len(samples):
        return samples.copy()
    converted = soxr.resample(samples.astype(np.float32), from_hz, to_hz, quality="HQ")
    wanted = round(len(samples) * to_hz / from_hz)
    converted = np.pad(converted[:wanted], (0, max(0, wanted - len(converted))))
    return _to_int16(converted)


class StreamResampler:
    """Brings a stream of int16 mono audio from `from_hz` to `to_hz`, both of `RATES_HZ`.

    After `flush`, n samples have become ceil(n * to / from), aligned with the input: there is no delay to take off.
    Until then it holds back `HALF_WIDTH` samples of the lower rate (4 ms at 8 kHz, 2 ms at 16 kHz) and what does not
    fill a period of the two rates (1 to 6 samples between multiples of 8 kHz, up to 20 ms from or to 22.05 and
    44.1 kHz). Peaks beyond int16 are clipped. Between equal rates samples pass as they are.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        for rate_hz in (from_hz, to_hz):
            if rate_hz not in RATES_HZ:
                raise AudioFormatError(f"Streams of {rate_hz} Hz cannot be converted; the rates are {RATES_HZ}.")
        common = gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        filtered = from_hz != to_hz
        self._reach = int(np.ceil(HALF_WIDTH * max(1.0, from_hz / to_hz))) if filtered else 0
        self._weights = _weights(self._up, self._down, self._reach)
        self._reset()

    def push(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """The output (int16 [m]) that these samples (int16 [n], n >= 0) complete."""
        require_mono(samples)
        self._taken += len(samples)
        if len(samples) <= _PIECE:
            return self._convert(samples)
        return np.concatenate([self._convert(samples[at : at + _PIECE]) for at in range(0, len(samples), _PIECE)])

    def flush(self) -> NDArray[np.int16]:
        """What was held back (int16 [m]). Afterwards the resampler is as new."""
        wanted = -(-self._taken * self._up // self._down) - self._given
        rest = self._convert(np.zeros(2 * self._reach + 2 * self._down, np.int16))[:wanted]
        self._reset()
        return rest

    def _reset(self) -> None:
        self._held: NDArray[np.float64] = np.zeros(self._reach)  # silence before the first sample
        self._taken = self._given = 0

    def _convert(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        held = np.concatenate((self._held, samples.astype(np.float64)))
        width = self._weights.shape[0]
        periods = max(0, (len(held) - width) // self._down + 1)
        if not periods:
            self._held = held
            return np.zeros(0, np.int16)
        step = held.strides[0]
        windows = np.lib.stride_tricks.as_strided(held, (periods, width), (self._down * step, step), writeable=False)
        converted = _to_int16((np.ascontiguousarray(windows) @ self._weights).ravel())
        self._held = held[periods * self._down :].copy()
        self._given += len(converted)
        return converted


@cache
def _weights(up: int, down: int, reach: int) -> NDArray[np.float64]:
    """[inputs of one period, up]: column j gives output j of a period, which lies j * down / up after its first input.

    Input i of a period is sample i - reach, seen from that first one.
    """
    inputs = np.arange(2 * reach + down)[:, None] - reach
    distance = inputs - (np.arange(up) * down / up)[None, :]
    lower = min(1.0, up / down)  # the lower rate, as a share of the input's
    half = HALF_WIDTH / lower
    transition = (_DESIGN_DB - 7.95) / (14.36 * 2 * half)
    cutoff = lower / 2 - transition / 2
    beta = 0.1102 * (_DESIGN_DB - 8.7)
    inside = np.clip(1 - (distance / half) ** 2, 0, None)
    window = np.where(np.abs(distance) <= half, np.i0(beta * np.sqrt(inside)) / np.i0(beta), 0.0)
    weights = 2 * cutoff * np.sinc(2 * cutoff * distance) * window
    found = np.asarray(np.rint(weights / weights.sum(axis=0) / _QUANTUM) * _QUANTUM, np.float64)
    found.flags.writeable = False  # shared by all streams
    return found


def _to_int16(samples: NDArray[np.floating]) -> NDArray[np.int16]:
    return np.asarray(np.clip(np.rint(samples), -32768, 32767), np.int16)
