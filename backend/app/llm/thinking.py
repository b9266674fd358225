"""What a model writes before it answers is not the answer.

Local reasoning models (Qwen, DeepSeek R1 and their kin) begin with `<think>...</think>`, where the server does not take
it out for them. None of it may be shown or spoken.
"""

import re

_OPENINGS = ("<think>", "<thinking>")
_OPENING = re.compile("|".join(_OPENINGS), re.I)


class ThinkFilter:
    """Takes one reply in pieces of any size and leaves out the blocks that it begins with, and the white space before
    its first word. Such a tag further on is only mentioned and stays. Holds back a few characters at most."""

    def __init__(self) -> None:
        self._held = ""
        """What may be, or is, the first part of a tag."""
        self._closing = ""
        """The tag that ends the block we are in; empty outside."""
        self._begun = False
        """The answer has begun: everything passes."""

    def push(self, text: str) -> str:
        """What there is to pass on, now that `text` has come."""
        if self._begun:
            return text
        text, self._held = self._held + text, ""
        while text:
            if self._closing:
                text = self._leave(text)
                continue
            text = text.lstrip()
            opening = _OPENING.match(text)
            if opening:
                self._closing = f"</{opening[0][1:].lower()}"
                text = text[opening.end() :]
            elif text and any(tag.startswith(text.lower()) for tag in _OPENINGS):
                self._held, text = text, ""
            elif text:
                self._begun = True
                return text
        return ""

    def flush(self) -> str:
        """The rest, when the reply has ended: nothing of a block that was never closed."""
        held = "" if self._closing else self._held
        self._held, self._begun = "", True
        return held

    def _leave(self, text: str) -> str:
        """What follows the block; empty while its end has not come."""
        closing = re.search(self._closing, text, re.I)
        if closing:
            self._closing = ""
            return text[closing.end() :]
        self._held = text[1 - len(self._closing) :]
        return ""
