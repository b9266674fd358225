"""What was said and heard in a conversation: the context the language model answers from."""

from collections.abc import Callable
from dataclasses import dataclass

from app.llm.base import Message

MESSAGE_OVERHEAD_TOKENS = 6
"""What a chat template adds around each message, about."""
_BEFORE = -1
"""Number of all turns of earlier conversations."""


@dataclass(slots=True)
class _Turn:
    number: int
    user: str = ""
    assistant: str = ""
    tokens: int = 0


class History:
    """The turns of one conversation, as many of the latest as fit into `limit_tokens` together with the system prompt.
    Whole turns are dropped, oldest first; the system prompt and the latest turn always stay."""

    def __init__(self, system_prompt: str, *, limit_tokens: int, count_tokens: Callable[[str], int]) -> None:
        self._system = system_prompt
        self._count = count_tokens
        self._limit = limit_tokens - count_tokens(system_prompt) - MESSAGE_OVERHEAD_TOKENS
        self._turns: list[_Turn] = []

    def begin(self) -> None:
        """A conversation begins, perhaps where another one ended: its turns are counted anew."""
        for entry in self._turns:
            entry.number = _BEFORE

    def user_said(self, turn: int, text: str) -> None:
        """The user's part of a turn; said again it replaces what was there (the turn went on)."""
        entry = self._entry(turn)
        entry.user = text
        self._measure(entry)

    def assistant_said(self, turn: int, heard: str) -> None:
        """The part of a reply that was heard, added to what was already heard in this turn."""
        heard = heard.strip()
        if heard:
            entry = self._entry(turn)
            entry.assistant = f"{entry.assistant} {heard}".strip()
            self._measure(entry)

    def context(self, turn: int | None = None, text: str = "") -> list[Message]:
        """The messages for the model; with `turn` and `text` as if the user had just said that (nothing is kept)."""
        turns = self._turns
        if turn is not None:
            said = _Turn(turn, user=text)
            self._measure(said)
            turns = self._fitting([*(entry for entry in turns if entry.number != turn), said])
        messages = [Message("system", self._system)]
        for entry in turns:
            if entry.user:
                self._append(messages, Message("user", entry.user))
            if entry.assistant:
                self._append(messages, Message("assistant", entry.assistant))
        return messages

    def _append(self, messages: list[Message], message: Message) -> None:
        """Turns that got no answer would put two messages of one side in a row, which many chat templates refuse."""
        if messages[-1].role == message.role:
            message = Message(message.role, f"{messages.pop().content}\n{message.content}")
        messages.append(message)

    def _entry(self, turn: int) -> _Turn:
        """The turn, if it is the latest: what belongs to none (0) may be said between any two."""
        if self._turns and self._turns[-1].number == turn:
            return self._turns[-1]
        entry = _Turn(turn)
        self._turns.append(entry)
        return entry

    def _measure(self, entry: _Turn) -> None:
        parts = [part for part in (entry.user, entry.assistant) if part]
        entry.tokens = sum(self._count(part) + MESSAGE_OVERHEAD_TOKENS for part in parts)
        self._turns = self._fitting(self._turns)

    def _fitting(self, turns: list[_Turn]) -> list[_Turn]:
        left = self._limit
        kept = 0
        for entry in reversed(turns):
            left -= entry.tokens
            if left < 0 and kept:
                break
            kept += 1
        return turns[len(turns) - kept :]
