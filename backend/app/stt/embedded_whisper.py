"""The embedded recogniser: Whisper through CTranslate2, on a window no longer than it has to be.

Whisper reads 30 s whatever was said, and reading is nearly all of its cost. Its encoder takes a shorter window as well,
at a third of the time for a short sentence; but with too little silence behind the words the decoder tends to begin
again. So there are always two seconds of it, and what looks like a loop or a guess is read once more with the next
longer window. What then still is a loop, or is found where there hardly was speech, is not believed.
"""

import asyncio
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import ctranslate2
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from app.audio.log_mel import log_mel
from app.audio.pcm import level_dbfs
from app.core.errors import AudioFormatError, ModelError, OverloadedError, ProviderError
from app.inference.worker import Worker
from app.stt.base import Transcript
from app.stt.plausible import without_loop

RATE_HZ = 16_000
PADDING_S = 2.0
WINDOWS_S = (10, 14, 20, 30)
"""Measured on 53 short sentences: 5 s makes the decoder loop in every second one, 7 s in two, 8 s in one, 10 s in none.
Reading again costs as much as the shorter window saves, and not every loop looks like one."""
TOKENS_BASE, TOKENS_PER_S = 12, 8
"""Nobody speaks more tokens than that (quick English has about six a second)."""
SILENCE_DBFS = -60.0
DOUBTFUL_LOGPROB = -1.0
"""Mean log probability of a token below which Whisper's own decoder tries again (whisper/transcribe.py)."""
NO_SPEECH = 0.6
"""Probability of "no speech" from which a doubtful text is not believed (whisper/transcribe.py)."""
AGAIN_WORDS = 2
"""From so many words on, a phrase said twice in a row is a reason to look again (people do that, too)."""
AGAIN_LIKENESS = 0.9
"""Share of letters in common from which two sentences in a row are one said twice, once misheard."""
MAX_THREADS = 4
MAX_PARTIALS = 2
_STUTTER = re.compile(r"(\S{1,6}?)\1{4,}")
"""A few characters five times in a row, as in "1,5,5,5,5,5": what the decoder makes of noise."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one run of the model gave."""

    text: str
    logprob: float
    no_speech: float
    cut: bool
    """The text was cut off at the token limit."""

    @property
    def nothing(self) -> bool:
        """Nobody spoke."""
        return self.no_speech > NO_SPEECH and (
            self.logprob < DOUBTFUL_LOGPROB or _STUTTER.search(self.text) is not None
        )

    @property
    def doubtful(self) -> bool:
        return (
            self.cut
            or self.logprob < DOUBTFUL_LOGPROB
            or _STUTTER.search(self.text) is not None
            or _said_again(self.text)
        )


class WhisperRecognizer:
    """Implements SpeechToText. `english` and `multilingual` are model directories; at least one is needed.

    English goes to the English model if there is one. Each run computes on `threads` (default: all processors, up to
    MAX_THREADS); runs take turns in `worker`, else in a thread of its own. Loading blocks; raises ModelError
    for a directory that holds no model.
    """

    def __init__(
        self,
        english: Path | None,
        multilingual: Path | None,
        *,
        threads: int | None = None,
        worker: Worker | None = None,
    ) -> None:
        threads = threads or min(MAX_THREADS, os.cpu_count() or 1)
        self._english = _Model(english, threads) if english else None
        self._multilingual = _Model(multilingual, threads) if multilingual else None
        if not english and not multilingual:
            raise ModelError("Speech recognition needs a model; set STT_MODEL.")
        self._worker = worker or Worker("stt")
        self._owns_worker = worker is None
        self._partials = 0

    async def transcribe(
        self, audio: NDArray[np.int16], *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """The words in `audio`; see SpeechToText."""
        if audio.dtype != np.int16 or audio.ndim != 1:
            raise AudioFormatError(f"Audio of type {audio.dtype} and shape {audio.shape} is not mono int16.")
        model = self._model_for(language)
        if not partial:
            return await self._worker.run(lambda: model.transcribe(audio, language))
        if self._partials >= MAX_PARTIALS:
            raise OverloadedError("There is too much to transcribe for partial transcripts.")
        self._partials += 1
        given_up = threading.Event()
        try:
            return await self._worker.run(
                lambda: model.transcribe_partial(audio, language, given_up.is_set), low_priority=True
            )
        finally:
            given_up.set()  # cancelled: what has begun must not keep the final transcript waiting for long
            self._partials -= 1

    def listen(self, rate_hz: int, *, language: str | None = None, on_partial: Callable[[str], None]) -> None:
        """It takes whole utterances only."""

    async def close(self) -> None:
        """End the thread, if it is the recogniser's own, and free the models."""
        if self._owns_worker:
            self._worker.close()
            await asyncio.to_thread(self._worker.join)
        self._english = self._multilingual = None

    def _model_for(self, language: str | None) -> "_Model":
        if language == "en" and self._english:
            return self._english
        if self._multilingual:
            return self._multilingual
        if self._english and language is None:
            return self._english
        raise ProviderError(
            f"The language {language!r} needs the multilingual recogniser: run `ahoy models pull whisper-base` "
            "and start again."
        )


class _Model:
    """One Whisper model. Several threads may use it; inside CTranslate2 their runs take turns."""

    def __init__(self, directory: Path, threads: int) -> None:
        try:
            self._whisper = ctranslate2.models.Whisper(
                str(directory), device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
            )
            self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:
            raise ModelError(f"The recogniser in {directory} cannot be loaded: {error}") from None
        self._start = self._id("<|startoftranscript|>")
        self._no_timestamps = self._id("<|notimestamps|>")
        self._first_special = self._id("<|endoftext|>")
        self._read(self._encode(np.zeros(RATE_HZ, np.int16), WINDOWS_S[0]), 1.0, "en")  # the first run is slower

    def transcribe(self, audio: NDArray[np.int16], language: str | None) -> Transcript:
        """Blocks for as long as the model works."""
        if level_dbfs(audio) < SILENCE_DBFS:
            return Transcript("", language)
        seconds = len(audio) / RATE_HZ
        before: list[str] = []
        for window_s in _windows(seconds):
            encoded = self._encode(audio, window_s)
            language = language or self._detect(encoded)
            reading = self._read(encoded, seconds, language)
            if reading.nothing:
                return Transcript("", language)
            words = _plain(reading.text)
            if not reading.doubtful or words == before:  # the same in two windows is what was said
                break
            before = words
        return Transcript(without_loop(reading.text), language, reading.logprob)

    def transcribe_partial(
        self, audio: NDArray[np.int16], language: str | None, given_up: Callable[[], bool]
    ) -> Transcript:
        """One look through the shortest window, left half way when it is `given_up`. Blocks."""
        if level_dbfs(audio) < SILENCE_DBFS:
            return Transcript("", language)
        seconds = len(audio) / RATE_HZ
        encoded = self._encode(audio, _windows(seconds)[0])
        if given_up():
            return Transcript("", language)
        language = language or self._detect(encoded)
        reading = self._read(encoded, seconds, language)
        return Transcript("" if reading.nothing else without_loop(reading.text), language, reading.logprob)

    def _detect(self, encoded: ctranslate2.StorageView) -> str | None:
        if not self._whisper.is_multilingual:
            return None
        return str(self._whisper.detect_language(encoded)[0][0][0]).strip("<|>")

    def _encode(self, audio: NDArray[np.int16], window_s: int) -> ctranslate2.StorageView:
        samples = np.zeros(window_s * RATE_HZ, np.float32)
        taken = audio[: len(samples)]
        samples[: len(taken)] = taken.astype(np.float32) / np.float32(32768)
        return self._whisper.encode(ctranslate2.StorageView.from_array(log_mel(samples)[None]))

    def _read(self, encoded: ctranslate2.StorageView, seconds: float, language: str | None) -> _Reading:
        prompt = [self._start]
        if self._whisper.is_multilingual:
            token = self._tokenizer.token_to_id(f"<|{language}|>")
            if token is None:
                raise ProviderError(f"The recogniser does not know the language {language!r}.")
            prompt += [token, self._id("<|transcribe|>")]
        prompt.append(self._no_timestamps)
        limit = len(prompt) + TOKENS_BASE + int(TOKENS_PER_S * seconds)
        (result,) = self._whisper.generate(
            encoded,
            [prompt],
            beam_size=1,
            max_length=limit,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_blank=True,
        )
        tokens = [token for token in result.sequences_ids[0] if token < self._first_special]
        text = " ".join(self._tokenizer.decode(tokens).split())
        cut = len(result.sequences_ids[0]) >= limit - len(prompt)
        return _Reading(text, result.scores[0], result.no_speech_prob, cut)

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ModelError(f"The recogniser's tokenizer.json has no {token}.")
        return int(number)


def _windows(seconds: float) -> Sequence[int]:
    """The windows that have room for the speech and the silence behind it; the longest if none has."""
    return [window_s for window_s in WINDOWS_S if window_s >= seconds + PADDING_S] or WINDOWS_S[-1:]


def _said_again(text: str) -> bool:
    """A phrase comes twice in a row, or a sentence nearly does."""
    words = _plain(text)
    phrases = any(
        _repeats(words[start:], length, 2)
        for length in range(AGAIN_WORDS, len(words) // 2 + 1)
        for start in range(len(words) - 2 * length + 1)
    )
    sentences = ["".join(_plain(sentence)) for sentence in _SENTENCE_END.split(text) if len(_plain(sentence)) > 1]
    return phrases or any(
        SequenceMatcher(None, before, after, autojunk=False).ratio() >= AGAIN_LIKENESS
        for before, after in pairwise(sentences)
    )


def _plain(text: str) -> list[str]:
    return [word.strip(".,!?;:").lower() for word in text.split()]


def _repeats(words: Sequence[str], length: int, times: int) -> bool:
    return all(words[index] == words[index % length] for index in range(length * times))
