"""Cuts a growing reply into pieces that can be spoken: a short first one, then whole sentences."""

import re
from itertools import islice

FIRST_CHUNK_WORDS = 3
"""The first piece may end at a comma once it has this many words: speaking can begin, and it still sounds whole."""
FIRST_CHUNK_MAX_WORDS = 12
"""Without any mark the first piece ends after this many words."""
CHUNK_MAX_CHARACTERS = 220
"""No piece is longer: a sentence that runs on is cut at its last clause mark (or space) before this."""
_SENTENCE_END = re.compile(r"[.!?…]+[\"')\]]*\s+|\n+|[。！？][」』）”’]*(?=[^」』）”’])")
_FULL_STOP = re.compile(r"(?:[.!?…]+[\"')\]]*|[。！？][」』）”’]*)$")
_CLAUSE_END = re.compile(r"[,;:—–][\"')\]]*\s+|[，、；：]")
SPACELESS = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]")
"""Chinese and Japanese, which put no space between words (Unicode blocks from CJK Symbols to Halfwidth Forms)."""
_ABBREVIATION = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|vs|no|e\.g|i\.e|etc|approx|dept|est|fig|jr|sr)|\b[A-Za-z])\.$", re.I
)


class SpeechChunker:
    """Takes text as it is generated and gives the pieces to speak. Put together they are the text, unchanged."""

    def __init__(self) -> None:
        self._text = ""
        self._first = True

    def push(self, text: str) -> list[str]:
        """The pieces that `text` completes."""
        self._text += text
        chunks = []
        while cut := self._cut():
            chunks.append(self._text[:cut])
            self._text = self._text[cut:]
            self._first = False
        return chunks

    def flush(self) -> list[str]:
        """The rest, when the reply has ended."""
        rest, self._text = self._text, ""
        return [rest] if rest else []

    def _cut(self) -> int:
        """Where the first complete piece ends; 0 while there is none."""
        head = self._text[:CHUNK_MAX_CHARACTERS]
        cut = _sentence(head)
        if self._first:
            cut = _first_clause(head[: cut or None]) or cut
        if not cut and len(self._text) > CHUNK_MAX_CHARACTERS:
            cut = _last_clause(head)
        return cut


def ends_sentence(piece: str) -> bool:
    """Whether this piece ends where a sentence does."""
    said = piece.rstrip()
    return "\n" in piece[len(said) :] or bool(_FULL_STOP.search(said) and not _ABBREVIATION.search(said))


def _sentence(head: str) -> int:
    for match in _SENTENCE_END.finditer(head):
        before = head[: match.end()].strip()
        if before and not _ABBREVIATION.search(before) and not re.fullmatch(r"\d+\.", before):
            return match.end()
    return 0


def _first_clause(head: str) -> int:
    words = [match.end() for match in islice(re.finditer(r"\S+\s+", head), FIRST_CHUNK_MAX_WORDS + 1)]
    too_long = len(words) > FIRST_CHUNK_MAX_WORDS
    for match in _CLAUSE_END.finditer(head[: words[-1]] if too_long else head):
        if _count_words(head[: match.end()]) >= FIRST_CHUNK_WORDS:
            return match.end()
    return words[-2] if too_long else 0


def _last_clause(head: str) -> int:
    marks = [match.end() for match in _CLAUSE_END.finditer(head)]
    if marks:
        return marks[-1]
    space = head.rfind(" ")
    return space + 1 if space > 0 else len(head)


def _count_words(text: str) -> int:
    return len(SPACELESS.sub(" x ", text).split())
