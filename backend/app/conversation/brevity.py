"""Keeps a reply short: what a caller is told ends with a sentence, whatever the language model goes on to say.

The beginning of a reply is spoken before the rest of it exists, so the first sentence is cut at a word when it is too
long by itself; every later one is said whole or not at all.
"""

import re
from collections.abc import Callable

from app.conversation.chunker import ends_sentence
from app.conversation.parting import MARKS

_MARK = re.compile("|".join(re.escape(mark) for mark in MARKS), re.I)


class Brevity:
    """Lets at most `characters` of one reply through, and no marks: `on_wish` is called with what they stand for."""

    def __init__(self, characters: int, on_wish: Callable[[str], None]) -> None:
        self.full = False
        """Something did not fit; nothing more is let through."""
        self._room = characters
        self._on_wish = on_wish
        self._begun = self._sentence_given = False
        self._held: list[str] = []
        """The pieces of a later sentence whose end is not known yet."""

    def pass_on(self, piece: str) -> list[str]:
        """The pieces to say now that `piece` has come."""
        piece = _MARK.sub(self._wish, piece)
        if not self._begun:
            piece = piece.lstrip()
        if self.full or not piece:
            return []
        self._begun = True
        if not self._sentence_given:
            return self._first_sentence(piece)
        self._held.append(piece)
        if ends_sentence(piece):
            return self.rest()
        if len("".join(self._held)) > self._room:  # no need to wait for its end
            self._end()
        return []

    def rest(self) -> list[str]:
        """What was held back, if it fits: nothing more comes."""
        held, self._held = self._held, []
        if len("".join(held).rstrip()) > self._room:
            self._end()
            return []
        self._room -= sum(map(len, held))
        return held

    def _first_sentence(self, piece: str) -> list[str]:
        if len(piece.rstrip()) > self._room:
            piece = piece[: self._room + 1].rpartition(" ")[0] or piece[: self._room]
            self._end()
        self._room -= len(piece)
        self._sentence_given = ends_sentence(piece)
        return [piece] if piece else []

    def _end(self) -> None:
        self.full = True
        self._held.clear()

    def _wish(self, mark: re.Match[str]) -> str:
        self._on_wish(MARKS[mark[0].lower()])
        return ""
