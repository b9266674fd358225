"""Speech that is easy to recognise: a tone whose length tells how many characters were spoken."""

import io
import struct

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE_HZ = 24_000
"""Of all formats, as OpenAI's guide says of PCM."""
TONE_HZ = 440.0
CHARACTER_S = 0.06
_UNKNOWN_LENGTH = 0xFFFFFFFF
_CONTAINERS = {"mp3": ("MP3", None), "flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}


def tone(characters: int, speed: float = 1.0) -> NDArray[np.int16]:
    """CHARACTER_S of tone for each character, mono int16 at RATE_HZ, a third of full scale."""
    at = np.arange(round(characters * CHARACTER_S / speed * RATE_HZ)) / RATE_HZ
    return np.round(11_000 * np.sin(2 * np.pi * TONE_HZ * at)).astype(np.int16)


def encode(samples: NDArray[np.int16], kind: str) -> bytes:
    """The samples as `kind`: pcm, wav, mp3, flac or opus. The header of wav does not know the length, for it is sent
    before the speech is made."""
    pcm = samples.astype("<i2").tobytes()
    if kind == "pcm":
        return pcm
    if kind == "wav":
        form = struct.pack("<HHIIHH", 1, 1, RATE_HZ, RATE_HZ * 2, 2, 16)
        length = struct.pack("<I", _UNKNOWN_LENGTH)
        return b"RIFF" + length + b"WAVEfmt \x10\x00\x00\x00" + form + b"data" + length + pcm
    container, coding = _CONTAINERS[kind]
    into = io.BytesIO()
    soundfile.write(into, samples, RATE_HZ, format=container, subtype=coding)
    return into.getvalue()
