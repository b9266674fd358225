"""PCM16 audio: bytes on the wire, int16 in between, float32 where models compute."""

import numpy as np
from numpy.typing import NDArray

from app.core.errors import AudioFormatError

FULL_SCALE = 32768.0
"""The float 1.0, in steps of int16."""
FLOOR_DBFS = -120.0
"""Level reported for digital silence, whose logarithm does not exist."""
_BYTES = 2
_LITTLE_ENDIAN = np.dtype("<i2")


def from_bytes(data: bytes | bytearray | memoryview) -> NDArray[np.int16]:
    """The samples [n] in PCM16 little-endian mono `data`, not copied. Raises AudioFormatError for half a sample."""
    size = memoryview(data).nbytes
    if size % _BYTES:
        raise AudioFormatError(f"{size} bytes are not a whole number of 16-bit samples; send an even number of bytes.")
    return np.frombuffer(data, _LITTLE_ENDIAN).astype(np.int16, copy=False)


def to_bytes(samples: NDArray[np.int16]) -> bytes:
    """PCM16 little-endian bytes of int16 `samples` [n]."""
    return require_mono(samples).astype(_LITTLE_ENDIAN, copy=False).tobytes()


def to_float(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """float32 [n] in -1..1 (1 itself is not reached) of int16 `samples` [n]."""
    return require_mono(samples).astype(np.float32) / np.float32(FULL_SCALE)


def from_float(samples: NDArray[np.floating]) -> NDArray[np.int16]:
    """int16 [n] of float `samples` [n] in -1..1: rounded to the nearest, and clipped where they go beyond.

    Raises AudioFormatError for values that are no numbers, which would come out as noise.
    """
    if not np.isfinite(samples).all():
        raise AudioFormatError("The audio holds NaN or infinite values; the model or filter that made it is broken.")
    scaled = np.rint(samples.astype(np.float64) * FULL_SCALE)
    return np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def level_dbfs(samples: NDArray[np.int16]) -> float:
    """Root mean square of int16 `samples` [n] in dB of full scale: 0 for a full square wave, -3 for a full sine, and
    FLOOR_DBFS for silence and for nothing."""
    if not len(samples):
        return FLOOR_DBFS
    power = float(np.mean(np.square(to_float(samples), dtype=np.float64)))
    return max(FLOOR_DBFS, 10 * float(np.log10(power))) if power > 0 else FLOOR_DBFS


def require_mono(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """The same `samples` if they are int16 [n]; else raises AudioFormatError."""
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise AudioFormatError(f"Audio of type {samples.dtype} and shape {samples.shape} is not mono int16.")
    return samples
