"""A language model that always says the same, at a given pace: for load tests and latency accounting."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import cycle, islice

from app.llm.base import Message

SENTENCE = "Well, the first words ever meant for a telephone were a hearty ahoy, and that still works today."
WORDS = SENTENCE.split()


class ScriptedModel:
    """Implements LanguageModel: the first token after `first_token_ms`, `tokens` in all, one every `token_ms`."""

    def __init__(self, *, first_token_ms: int, token_ms: int, tokens: int) -> None:
        self._first_s = first_token_ms / 1000
        self._token_s = token_ms / 1000
        self._tokens = tokens

    @property
    def context_tokens(self) -> int:
        """Any context will do."""
        return 1_000_000

    def count_tokens(self, text: str) -> int:
        """One token a word."""
        return len(text.split())

    async def reply(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncGenerator[str, None]:
        """The fixed words, repeated as often as it takes; see LanguageModel."""
        for number, word in enumerate(islice(cycle(WORDS), min(self._tokens, max_tokens))):
            await asyncio.sleep(self._token_s if number else self._first_s)
            yield word if number == 0 else f" {word}"

    async def warm(self, messages: Sequence[Message]) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        """Nothing to stop."""
