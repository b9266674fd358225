"""The recordings that are measured with, cut into utterances, each with the moments where its speech begins and ends.

The labels come from the sound itself, by its level, and not from the detectors that are measured.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from app.audio.wav import read_audio
from app.inference.store import ModelStore
from numpy.typing import NDArray

RATE_HZ = 16_000
STEP_MS = 10
GAP_MS = 300
"""Silence that separates two utterances."""
MARGIN_MS = 200
SPEECH_DB = 12.0
"""Louder than this below the recording's loud tenth is speech; this much more below it, in one stretch with speech, is
its fading end."""
FADE_DB = 6.0
SHORTEST_MS = 500
ROOM_MS = 200

REFERENCES = {
    "beckett": "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better.",
    "two_cities": (
        "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
        "foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of light, it was "
        "the season of darkness, it was the spring of hope, it was the winter of despair, we had everything before us, "
        "we had nothing before us, we were all going direct to heaven, we were all going direct the other way. In "
        "short, the period was so far like the present period that some of its noisiest authorities insisted on its "
        "being received, for good or for evil, in the superlative degree of comparison only."
    ),
}
"""What is read in the recordings (Beckett, Worstward Ho; Dickens, A Tale of Two Cities)."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of speech: int16 mono 16 kHz, with a little of its surroundings."""

    source: str
    audio: NDArray[np.int16]
    begins_ms: float
    """First sound of speech in `audio`."""
    ends_ms: float
    """Last sound of speech in `audio`."""
    room: NDArray[np.int16]
    """How the room sounds without speech, to be heard over and over."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A whole recording: int16 mono 16 kHz, and its pauses as (begin, end) in milliseconds."""

    source: str
    audio: NDArray[np.int16]
    pauses_ms: tuple[tuple[float, float], ...]
    room: NDArray[np.int16]


def utterances(folder: Path | None = None) -> list[Utterance]:
    """The test speech cut at its pauses; with `folder`, each sound file in it as one utterance instead."""
    if folder:
        paths = sorted(path for path in folder.iterdir() if path.suffix in {".wav", ".flac", ".mp3", ".ogg"})
        return [_whole(path) for path in paths]
    speech = ModelStore().path("test-speech")
    return [part for name in REFERENCES for part in _cut(name, read_audio(speech / f"{name}.wav", RATE_HZ))]


def passages() -> list[Passage]:
    """The test speech as it was read, pauses and all."""
    speech = ModelStore().path("test-speech")
    found = []
    for name in REFERENCES:
        audio = read_audio(speech / f"{name}.wav", RATE_HZ)
        stretches = _stretches(audio)
        pauses = tuple((before[1], after[0]) for before, after in pairwise(stretches))
        found.append(Passage(name, audio, pauses, _room(audio)))
    return found


def plain(text: str) -> str:
    """The words, as word errors are counted: without case and punctuation."""
    return " ".join(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def _cut(name: str, audio: NDArray[np.int16]) -> list[Utterance]:
    return [
        _part(name, audio, begin_ms, end_ms)
        for begin_ms, end_ms in _stretches(audio)
        if end_ms - begin_ms >= SHORTEST_MS
    ]


def _stretches(audio: NDArray[np.int16]) -> list[tuple[int, int]]:
    """Where there is speech (begin and end in milliseconds), cut at its pauses."""
    speech, fading = _levels(audio)
    found: list[tuple[int, int]] = []
    begin = last = None
    for step in range(len(speech) + GAP_MS // STEP_MS + 1):
        if step < len(speech) and (speech[step] or (fading[step] and last == step - 1)):
            begin = step if begin is None else begin
            last = step
        elif begin is not None and last is not None and (step - last) * STEP_MS >= GAP_MS:
            found.append((begin * STEP_MS, (last + 1) * STEP_MS))
            begin = last = None
    return found


def _whole(path: Path) -> Utterance:
    audio = read_audio(path, RATE_HZ)
    loud = np.flatnonzero(_levels(audio)[0])
    return _part(path.stem, audio, int(loud[0]) * STEP_MS, (int(loud[-1]) + 1) * STEP_MS)


def _part(name: str, audio: NDArray[np.int16], begin_ms: int, end_ms: int) -> Utterance:
    start_ms = max(0, begin_ms - MARGIN_MS)
    stop = min(len(audio), (end_ms + MARGIN_MS // 2) * RATE_HZ // 1000)
    cut = audio[start_ms * RATE_HZ // 1000 : stop]
    return Utterance(name, cut, begin_ms - start_ms, end_ms - start_ms, _room(audio))


def _room(audio: NDArray[np.int16]) -> NDArray[np.int16]:
    """The quietest moment of a recording, forwards and backwards so that it can be repeated without a click."""
    size = ROOM_MS * RATE_HZ // 1000
    starts = range(0, len(audio) - size, size // 4)
    quietest = min(starts, key=lambda start: float(np.mean(audio[start : start + size].astype(np.float64) ** 2)))
    moment = audio[quietest : quietest + size]
    return np.concatenate((moment, moment[::-1]))


def _levels(audio: NDArray[np.int16]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """For each 10 ms, whether it is loud enough for speech, and for the fading end of speech."""
    size = STEP_MS * RATE_HZ // 1000
    frames = audio[: len(audio) // size * size].reshape(-1, size).astype(np.float64) / 32768
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)
    threshold = float(np.percentile(level, 90)) - SPEECH_DB
    return level > threshold, level > threshold - FADE_DB
