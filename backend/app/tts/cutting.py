"""What every embedded voice does around its model: long text into pieces before it, silence off the ends behind it."""

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

AUDIBLE = 0.0056
"""-45 dBFS: what is quieter at the ends is taken for silence. The models lead with about 300 ms of it."""
LEAD_MS = 10
"""Kept in front of the first audible sample, faded in, so that a soft onset is not cut."""
TAIL_MS = 150
"""Kept behind the last one: the pause before the next chunk."""
MAX_DIGITS = 12
"""The pronunciation rules fail on endless numbers; in groups they are also easier to follow."""
GROWTH = 2
"""No piece is more than this many times as long as the one before it, where the marks allow that: it is made while that
one is heard."""
_PIECE_END = re.compile(r"(?<=[.!?;:,])\s+")
_LONG_NUMBER = re.compile(rf"(\d{{{MAX_DIGITS}}})(?=\d)")
_SPEAKABLE = re.compile(r"\w")


def pieces(text: str, *, first: int, most: int) -> Iterator[str]:
    """`text` in pieces of at most `most` characters, cut behind punctuation or else between words.

    The first one ends before `first` characters if a mark allows it, so that it is heard soon. Nothing is given for
    what has no letter or digit: the models would speak it as noise.
    """
    piece, room = "", first
    for words in _clauses(text, most):
        length = len(piece) + 1 + len(words)
        if piece and (length > most or (length > room and len(words) <= GROWTH * len(piece))):
            yield from _spoken(piece)
            piece, room = "", min(most, GROWTH * len(piece))
        piece = f"{piece} {words}".strip()
    yield from _spoken(piece)


def trimmed(audio: NDArray[np.float32], rate_hz: int) -> NDArray[np.float32]:
    """`audio` [n] without the silence at both ends, but for a breath, and without a click where it is cut."""
    audible = np.flatnonzero(np.abs(audio) > AUDIBLE)
    if not len(audible):
        return audio[:0]
    lead, tail = LEAD_MS * rate_hz // 1000, TAIL_MS * rate_hz // 1000
    audio = audio[max(0, audible[0] - lead) : audible[-1] + tail].copy()
    fade = np.linspace(0, 1, min(lead, len(audio)), dtype=np.float32)
    audio[: len(fade)] *= fade
    audio[len(audio) - len(fade) :] *= fade[::-1]
    return audio


def cut(text: str, most: int) -> Iterator[str]:
    """`text` in parts of at most `most` characters, cut between words where there are any."""
    while len(text) > most:
        end = text.rfind(" ", 1, most + 1)
        end = end if end > 0 else most
        yield text[:end].strip()
        text = text[end:].strip()
    if text:
        yield text


def _clauses(text: str, most: int) -> Iterator[str]:
    """Clauses, those without a mark cut between words before they are longer than `most`."""
    for clause in _PIECE_END.split(_LONG_NUMBER.sub(r"\1 ", text.strip())):
        yield from cut(clause, most)


def _spoken(piece: str) -> Iterator[str]:
    if _SPEAKABLE.search(piece):
        yield piece
