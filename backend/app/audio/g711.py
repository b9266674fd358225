"""G.711: the 8-bit companded audio of the telephone (ITU-T G.711, 1988), mu-law and A-law, by lookup tables.

The codes are those of the decision values in the Recommendation's tables, and of the ITU's own software (G.191) where a
sample lies on a decision value. Python's former `audioop` gives the same, but for mu-law of some negative samples: it
cut off their lowest bits before taking the magnitude, so that a silence of -1 came back as -8.

Decoded and encoded again a code stays what it is, but for the mu-law code of -0 (0x7F), which becomes that of 0 (0xFF).
"""

import numpy as np
from numpy.typing import NDArray

from app.audio.pcm import require_mono

_MU_BIAS = 33
_MU_CLIP = 8158
"""Magnitudes beyond this, in steps of 14-bit linear, all get the last code (G.711 table 2a)."""


def encode_mulaw(samples: NDArray[np.int16]) -> bytes:
    """One mu-law byte for each int16 sample [n]; beyond 32635 the loudest code stands for all."""
    return _MU_ENCODE[_as_index(samples)].tobytes()


def decode_mulaw(data: bytes) -> NDArray[np.int16]:
    """int16 samples [n], at most 32124 away from 0, of n mu-law bytes."""
    return _MU_DECODE.take(np.frombuffer(data, np.uint8))


def encode_alaw(samples: NDArray[np.int16]) -> bytes:
    """One A-law byte for each int16 sample [n]."""
    return _A_ENCODE[_as_index(samples)].tobytes()


def decode_alaw(data: bytes) -> NDArray[np.int16]:
    """int16 samples [n], at most 32256 and at least 8 away from 0, of n A-law bytes."""
    return _A_DECODE[np.frombuffer(data, np.uint8)]


def _as_index(samples: NDArray[np.int16]) -> NDArray[np.uint16]:
    return np.ascontiguousarray(require_mono(samples)).view(np.uint16)


def _all_magnitudes() -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Magnitude and sign of every int16, in the order of its bits; negative ones in one's complement, as in G.191."""
    linear = np.arange(65536, dtype=np.int32).astype(np.uint16).view(np.int16).astype(np.int32)
    return np.where(linear < 0, ~linear, linear), linear < 0


def _mu_decode_table() -> NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.int32) & 0xFF  # the line carries all bits inverted
    segment, step = code >> 4 & 7, code & 0x0F
    magnitude = ((2 * step + _MU_BIAS) << segment) - _MU_BIAS
    return np.asarray(np.where(code & 0x80, -magnitude, magnitude) * 4, np.int16)


def _mu_encode_table() -> NDArray[np.uint8]:
    magnitude, negative = _all_magnitudes()
    biased = np.minimum(magnitude >> 2, _MU_CLIP) + _MU_BIAS  # 14 bits
    segment = np.floor(np.log2(biased)).astype(np.int32) - 5
    code = segment << 4 | biased >> (segment + 1) & 0x0F
    return np.asarray(~np.where(negative, code | 0x80, code) & 0xFF, np.uint8)


def _a_decode_table() -> NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ 0x55  # the line carries every other bit inverted
    segment, step = code >> 4 & 7, code & 0x0F
    magnitude = np.where(segment == 0, 2 * step + 1, (2 * step + 33) << np.maximum(segment - 1, 0))
    return np.asarray(np.where(code & 0x80, magnitude, -magnitude) * 8, np.int16)


def _a_encode_table() -> NDArray[np.uint8]:
    magnitude, negative = _all_magnitudes()
    magnitude >>= 3  # 13 bits
    segment = np.maximum(np.floor(np.log2(np.maximum(magnitude, 1))).astype(np.int32) - 4, 0)
    step = np.where(segment < 2, magnitude >> 1, magnitude >> segment) & 0x0F
    code = segment << 4 | step
    return np.asarray(np.where(negative, code, code | 0x80) ^ 0x55, np.uint8)


_MU_DECODE = _mu_decode_table()
_MU_ENCODE = _mu_encode_table()
_A_DECODE = _a_decode_table()
_A_ENCODE = _a_encode_table()
