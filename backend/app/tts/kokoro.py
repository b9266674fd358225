"""The richer embedded voices: Kokoro-82M (int8, ONNX), two to three times as fast as speech on two threads.

There are 28, all English. The model takes the phonemes that hibari's pronunciation rules give, American or British. Its
inputs are `tokens` [1, n + 2] with 0 at both ends, n at most 510, `style` [1, 256], the row of the voice for n tokens,
and `speed` [1]; its output is float32 [samples] at 24 kHz. What a run costs grows with the audio, of which up to a
second is silence around the words, so very short pieces are dear.
"""

import json
import statistics
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.audio.pcm import from_float
from app.core.errors import ModelError, ProviderError
from app.inference.worker import Worker
from app.tts.base import Voice
from app.tts.cutting import cut, pieces, trimmed

RATE_HZ = 24_000
LANGUAGE = "en"
STYLE_ROWS, STYLE_WIDTH = 510, 256
MAX_TOKENS = 150
"""Tokens (phonemes and marks) of one run. The model takes 510, but a run cannot be stopped, and its memory (some
hundred MB at 150) grows with them. Only text full of digits or signs has more in a piece."""
FIRST_CHARACTERS, MAX_CHARACTERS = 60, 120
"""Length of the first piece of a chunk, about 3 s of speech, and of any, about 7 s."""
TRIAL = "The boat was built by two brothers."
TRIALS = 3
FAST_ENOUGH = 1.5
"""Times as fast as speech. Below it, what varies from run to run makes gaps in a single conversation."""

_ACCENTS = {"a": "American", "b": "British"}
_GENDERS = {"f": "female", "m": "male"}
_NAMES = {
    "af": ("heart", "alloy", "aoede", "bella", "jessica", "kore", "nicole", "nova", "river", "sarah", "sky"),
    "am": ("adam", "echo", "eric", "fenrir", "liam", "michael", "onyx", "puck", "santa"),
    "bf": ("alice", "emma", "isabella", "lily"),
    "bm": ("daniel", "fable", "george", "lewis"),
}


VOICES = tuple(
    Voice(f"{kind}_{name}", f"{name.title()} ({_ACCENTS[kind[0]]}, {_GENDERS[kind[1]]})", LANGUAGE)
    for kind, names in _NAMES.items()
    for name in names
)
"""All there are; known without loading anything. The ids are the model's own."""


class KokoroVoice:
    """Implements TextToSpeech at 24 kHz, English only.

    `directory` holds the model (`*.onnx`), `vocab.json` and `voices/*.bin` (float32 [510, 1, 256]). A run computes on
    `threads` threads; runs take turns in the one thread of `worker` (its own if None, else the caller closes it).
    Loading blocks; raises ModelError when a file is missing or is not what it should be.
    """

    def __init__(self, directory: Path, *, threads: int, worker: Worker | None = None) -> None:
        self._voices = voices_in(directory)
        if not self._voices:
            raise ModelError(f"There is no voice in {directory}, such as voices/{VOICES[0].id}.bin.")
        try:
            self._styles = {voice.id: _style(_style_file(directory, voice.id)) for voice in self._voices}
            self._vocabulary = _vocabulary(directory)
            self._session = _session(directory, threads)
            self._pronunciation = _Pronunciation()
            self._make(self._tokens(self._pronunciation(TRIAL, british=False))[0], self._voices[0].id)
        except Exception as error:
            raise ModelError(f"The voices in {directory} cannot be loaded: {error}") from None
        self._worker = worker or Worker("tts")
        self._owns_worker = worker is None
        # a thread of its own: it takes a millisecond, and need not wait for somebody else's sentence to be made
        self._speller = Worker("phonemes")

    @property
    def rate_hz(self) -> int:
        """24 kHz."""
        return RATE_HZ

    @property
    def voices(self) -> Sequence[Voice]:
        """Those of VOICES whose file is there."""
        return self._voices

    async def speak(
        self, text: str, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[NDArray[np.int16], None]:
        """Speak a chunk; see TextToSpeech."""
        if language not in {None, LANGUAGE}:
            raise ProviderError(f"These voices speak English only, not '{language}'.", code="language_not_spoken")
        voice_id = voice if voice in self._styles else self._voices[0].id
        for piece in pieces(text, first=FIRST_CHARACTERS, most=MAX_CHARACTERS):
            for tokens in await self._speller.run(partial(self._spell, piece, british=voice_id.startswith("b"))):
                audio = await self._worker.run(partial(self._make, tokens, voice_id))
                if len(audio):
                    yield audio

    async def measured_speed(self) -> float:
        """How many times as fast as it is spoken a sentence is made on this machine, now. Ask when nothing else runs:
        it is what one conversation gets, and several share it."""
        tokens = (await self._speller.run(partial(self._spell, TRIAL, british=False)))[0]
        return statistics.median([await self._worker.run(partial(self._timed, tokens)) for _ in range(TRIALS)])

    async def close(self) -> None:
        """End the threads."""
        self._speller.close()
        if self._owns_worker:
            self._worker.close()

    def _spell(self, text: str, *, british: bool) -> list[list[int]]:
        try:
            return self._tokens(self._pronunciation(text, british=british))
        except Exception as error:  # the text is the user's: it is not repeated here
            raise _failed(f"a text of {len(text)} characters", error) from None

    def _tokens(self, phonemes: str) -> list[list[int]]:
        """The runs that say `phonemes`, without those the model does not know: none if there is nothing but marks."""
        known = "".join(p for p in phonemes if p in self._vocabulary)
        if not any(map(str.isalpha, known)):
            return []
        return [[self._vocabulary[p] for p in run] for run in cut(known, MAX_TOKENS)]

    def _make(self, tokens: list[int], voice_id: str) -> NDArray[np.int16]:
        inputs = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": self._styles[voice_id][min(len(tokens), STYLE_ROWS - 1)],
            "speed": np.ones(1, np.float32),
        }
        try:
            audio = np.asarray(self._session.run(None, inputs)[0], np.float32).ravel()
            return from_float(trimmed(audio, RATE_HZ))
        except Exception as error:
            raise _failed(f"{len(tokens)} phonemes", error) from None

    def _timed(self, tokens: list[int]) -> float:
        started = time.perf_counter()
        audio = self._make(tokens, self._voices[0].id)
        return len(audio) / RATE_HZ / (time.perf_counter() - started)


def voices_in(directory: Path) -> tuple[Voice, ...]:
    """Those of VOICES whose file is in the model's `directory`."""
    return tuple(voice for voice in VOICES if _style_file(directory, voice.id).exists())


def slow_warning(voice_id: str, speed: float) -> str | None:
    """What to tell whoever chose `voice_id` when it is made only `speed` times as fast as it is spoken; None if that is
    fast enough for one conversation."""
    if speed >= FAST_ENOUGH:
        return None
    return (
        f"The voice '{voice_id}' is made only {speed:.1f} times as fast as it is spoken on this machine: replies will "
        "have gaps. Choose VOICE=heart, which takes a small part of that work, or give the server more processors."
    )


class _Pronunciation:
    """hibari's rules: text to phonemes. The British ones (0.3 s, 50 MB) are loaded when they are asked for."""

    def __init__(self) -> None:
        from hibari.g2p import G2P  # noqa: PLC0415 (loaded only where it is used)

        self._load = G2P
        self._american = G2P()
        self._british: Any = None

    def __call__(self, text: str, *, british: bool) -> str:
        if british and self._british is None:
            self._british = self._load(british=True)
        return str((self._british if british else self._american)(text))


def _style_file(directory: Path, voice_id: str) -> Path:
    return directory / "voices" / f"{voice_id}.bin"


def _style(file: Path) -> NDArray[np.float32]:
    """[510, 1, 256], read from the file as it is used."""
    if file.stat().st_size != 4 * STYLE_ROWS * STYLE_WIDTH:
        raise ValueError(f"{file.name} is not a voice: it has {file.stat().st_size} bytes.")
    return np.memmap(file, np.float32, "r", shape=(STYLE_ROWS, 1, STYLE_WIDTH))


def _vocabulary(directory: Path) -> dict[str, int]:
    return {str(p): int(n) for p, n in json.loads((directory / "vocab.json").read_text("utf-8"))["vocab"].items()}


def _session(directory: Path, threads: int) -> Any:
    models = sorted(directory.glob("*.onnx"))
    if not models:
        raise FileNotFoundError("there is no .onnx file in it.")
    import onnxruntime  # noqa: PLC0415 (a large library: the names of the voices are wanted without it)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # threads that wait for the next operator asleep: as fast, and a fifth less of the processors that others need
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(models[0]), options, providers=["CPUExecutionProvider"])


def _failed(what: str, error: Exception) -> ProviderError:
    return ProviderError(f"The voice failed on {what} ({type(error).__name__}).")
