"""G.711: the 8-bit companded audio of the telephone (ITU-T G.711, 1988), mu-law and A-law, by lookup tables."""

import numpy as np
from numpy.typing import NDArray

from app.core.errors import AudioFormatError

_MU_BIAS = 33
_MU_CLIP = 8158
"""Magnitudes beyond this, in steps of 14-bit linear, all get the last code (G.711 table 2a)."""


def encode_mulaw(samples: NDArray[np.int16]) -> bytes:
    """One mu-law byte for each int16 sample [n]."""
    return _MU_ENCODE[_checked(samples).view(np.uint16)].tobytes()


def decode_mulaw(data: bytes) -> NDArray[np.int16]:
    """int16 samples [n] of mu-law bytes."""
    return _MU_DECODE[np.frombuffer(data, np.uint8)]


def encode_alaw(samples: NDArray[np.int16]) -> bytes:
    """One A-law byte for each int16 sample [n]."""
    return _A_ENCODE[_checked(samples).view(np.uint16)].tobytes()


def decode_alaw(data: bytes) -> NDArray[np.int16]:
    """int16 samples [n] of A-law bytes."""
    return _A_DECODE[np.frombuffer(data, np.uint8)]


def _checked(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise AudioFormatError(f"Audio of type {samples.dtype} and shape {samples.shape} is not mono int16.")
    return np.ascontiguousarray(samples)


def _mu_decode_table() -> NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.int32) & 0xFF  # the line carries all bits inverted
    segment, step = code >> 4 & 7, code & 0x0F
    magnitude = ((2 * step + _MU_BIAS) << segment) - _MU_BIAS
    return np.asarray(np.where(code & 0x80, -magnitude, magnitude) * 4, np.int16)


def _mu_encode_table() -> NDArray[np.uint8]:
    linear = np.arange(65536, dtype=np.int32).astype(np.uint16).view(np.int16).astype(np.int32) >> 2
    biased = np.minimum(np.abs(linear), _MU_CLIP) + _MU_BIAS
    segment = np.floor(np.log2(biased)).astype(np.int32) - 5
    code = segment << 4 | biased >> (segment + 1) & 0x0F
    return np.asarray(~np.where(linear < 0, code | 0x80, code) & 0xFF, np.uint8)


def _a_decode_table() -> NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ 0x55  # the line carries every other bit inverted
    segment, step = code >> 4 & 7, code & 0x0F
    magnitude = np.where(segment == 0, 2 * step + 1, (2 * step + 33) << np.maximum(segment - 1, 0))
    return np.asarray(np.where(code & 0x80, magnitude, -magnitude) * 8, np.int16)


def _a_encode_table() -> NDArray[np.uint8]:
    linear = np.arange(65536, dtype=np.int32).astype(np.uint16).view(np.int16).astype(np.int32) >> 3
    magnitude = np.where(linear < 0, -linear - 1, linear)  # one's complement, as G.711 table 1a has it
    segment = np.maximum(np.floor(np.log2(np.maximum(magnitude, 1))).astype(np.int32) - 4, 0)
    step = np.where(segment < 2, magnitude >> 1, magnitude >> segment) & 0x0F
    code = segment << 4 | step
    return np.asarray(np.where(linear < 0, code, code | 0x80) ^ 0x55, np.uint8)


_MU_DECODE = _mu_decode_table()
_MU_ENCODE = _mu_encode_table()
_A_DECODE = _a_decode_table()
_A_ENCODE = _a_encode_table()
