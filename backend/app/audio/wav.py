"""Sound files: reading what people have, writing WAV."""

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from app.audio.pcm import from_float, require_mono
from app.audio.resample import resample
from app.core.errors import AudioFormatError


def read_audio(path: Path, rate_hz: int) -> NDArray[np.int16]:
    """The sound in `path` (WAV, FLAC, MP3, Ogg) as int16 mono [n] at `rate_hz`: the mean of its channels, resampled.

    Raises AudioFormatError, with the path and the reason, when there is no sound in it.
    """
    try:
        samples, from_hz = soundfile.read(path, dtype="float32", always_2d=True)
        if not len(samples):
            raise AudioFormatError("it is empty")
        return resample(from_float(samples.mean(axis=1)), from_hz, rate_hz)
    except (soundfile.LibsndfileError, OSError, TypeError, AudioFormatError) as error:
        reason = _reason(path, error) if path.exists() else "there is no such file"
        raise AudioFormatError(f"{path} cannot be read as sound: {reason}") from None


def write_wav(path: Path, samples: NDArray[np.int16], rate_hz: int) -> None:
    """Write int16 mono `samples` [n] as a 16-bit WAV file. Raises AudioFormatError when the file cannot be written."""
    require_mono(samples)
    try:
        soundfile.write(path, samples, rate_hz, subtype="PCM_16", format="WAV")
    except (soundfile.LibsndfileError, OSError) as error:
        reason = _reason(path, error) if path.parent.is_dir() else "its directory does not exist"
        raise AudioFormatError(f"{path} cannot be written: {reason}") from None


def _reason(path: Path, error: Exception) -> str:
    """In a few words, without the path, which the sound library would name once more."""
    if path.is_dir():
        return "it is a directory"
    if isinstance(error, TypeError):  # what soundfile raises for the suffix .raw
        return "raw samples do not say what rate and format they have"
    return str(getattr(error, "error_string", error))
