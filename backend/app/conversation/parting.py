"""What people say to end a conversation, and what they are told then.

Recognised by the words, not by the language model: it works with any model, and at once. A turn that says more than
such a phrase and what goes around it out of politeness is no parting: "how do you say goodbye in French" is a question.
"""

import re
from dataclasses import dataclass

GOODBYE, TRANSFER = "goodbye", "transfer"
"""Reasons for which a conversation ends by its own words."""
HANG_UP_MARK, TRANSFER_MARK = "[hangup]", "[transfer]"
"""What a language model writes into its reply to end the conversation with it; it is not spoken."""
MARKS = {HANG_UP_MARK: GOODBYE, TRANSFER_MARK: TRANSFER}
_AROUND = re.compile(
    "a|alright|all|an|and|anyway|be|can|could|connect|day|enough|everything|fine|for|go|good|got|gotta|great|have|help|"
    "i|i'd|i'll|it|just|kindly|let|like|me|much|my|need|nice|no|nope|now|of|oh|ok|okay|perfect|please|put|right|so|"
    "speak|talk|thank|thanks|that|that's|the|then|time|through|to|too|very|want|we|well|will|with|would|yeah|yes|you|"
    "your"
)
"""Words around a phrase that do not change it. No forms of "be": "is that a person" is a question."""
_SEE_YOU = re.compile(r"\bsee (?:you|ya)(?: again| later| soon| then| tomorrow)?\b")


@dataclass(frozen=True, slots=True)
class Parting:
    """Turns that end the conversation for `reason`, after `answer` was heard."""

    phrases: tuple[str, ...]
    """In lower case, without punctuation."""
    answer: str
    reason: str

    def asked_for(self, text: str) -> bool:
        """Whether the turn `text` says one of the phrases, once or twice, and nothing else that matters."""
        words = _words(text)
        return any(self._says(words, _words(phrase)) for phrase in self.phrases)

    @staticmethod
    def _says(words: list[str], phrase: list[str]) -> bool:
        if not phrase:
            return False
        rest: list[str] = []
        found = at = 0
        while at < len(words):
            if words[at : at + len(phrase)] == phrase:
                found += 1
                at += len(phrase)
            else:
                rest.append(words[at])
                at += 1
        return found > 0 and all(_AROUND.fullmatch(word) for word in rest)


def _words(text: str) -> list[str]:
    text = re.sub(r"[^\w' ]", " ", text.lower().replace("’", "'"))
    return _SEE_YOU.sub(" ", text).split()
