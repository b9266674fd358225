"""Sound files: reading what people have, writing WAV."""

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from app.audio.pcm import from_float
from app.audio.resample import resample
from app.core.errors import AudioFormatError


def read_audio(path: Path, rate_hz: int) -> NDArray[np.int16]:
    """The sound in `path` (WAV, FLAC, MP3, Ogg) as int16 mono [n] at `rate_hz`. Raises AudioFormatError."""
    try:
        samples, from_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        reason = "there is no such file" if not path.exists() else str(error)
        raise AudioFormatError(f"{path} cannot be read as sound: {reason}") from None
    if not len(samples):
        raise AudioFormatError(f"{path} holds no sound.")
    return resample(from_float(samples.mean(axis=1)), from_hz, rate_hz)


def write_wav(path: Path, samples: NDArray[np.int16], rate_hz: int) -> None:
    """Write int16 mono `samples` [n] as a 16-bit WAV file. Raises AudioFormatError when the file cannot be written."""
    try:
        soundfile.write(path, samples, rate_hz, subtype="PCM_16", format="WAV")
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioFormatError(f"{path} cannot be written: {error}") from None
