"""Where speech begins in a recording: enough for clean lines, in which nothing but speech is loud."""

import numpy as np
from numpy.typing import NDArray

from app.audio.g711 import decode_mulaw

WINDOW = 80
"""Samples (10 ms at 8 kHz) whose level is looked at."""
WINDOW_MS = 10


def speech_onsets_ms(samples: NDArray[np.int16], after_silence_ms: float, loud_dbfs: float) -> list[float]:
    """When (ms) windows of 10 ms become louder than `loud_dbfs` after at least `after_silence_ms` of quiet; the start
    of the recording counts as quiet before it."""
    whole = len(samples) // WINDOW
    windows = samples[: whole * WINDOW].astype(np.float64).reshape(whole, WINDOW)
    loud = np.flatnonzero(np.mean(windows**2, axis=1) > (32768.0 * 10 ** (loud_dbfs / 20)) ** 2)
    if not len(loud):
        return []
    quiet_before_ms = np.diff(loud, prepend=-1_000_000) * WINDOW_MS - WINDOW_MS
    return [float(at) * WINDOW_MS for at in loud[quiet_before_ms >= after_silence_ms]]


def is_loud(mulaw: bytes, loud_dbfs: float) -> bool:
    """A piece of mu-law is louder than `loud_dbfs` on the whole."""
    return bool(_POWER[np.frombuffer(mulaw, np.uint8)].mean() > (32768.0 * 10 ** (loud_dbfs / 20)) ** 2)


_POWER = decode_mulaw(bytes(range(256))).astype(np.float64) ** 2
