"""The language model that decides what is answered."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from app.llm.tools import ToolCall

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the context a model sees. An assistant's may have `tool_calls`; one of the role "tool" holds what
    came of such a call and names it by `tool_call_id`."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class LanguageModel(Protocol):
    """Streams replies; shared by all conversations."""

    @property
    def context_tokens(self) -> int:
        """How many tokens one conversation's context and reply may have together."""
        ...

    def count_tokens(self, text: str) -> int:
        """About how many tokens `text` costs. Cheap enough for the event loop; errs on the high side."""
        ...

    def reply(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncGenerator[str, None]:
        """Stream the reply to `messages` as pieces of text of any size. Closing the generator (or cancelling the task
        that iterates it) stops the model within a few tokens.

        Raises ProviderError when the model fails and OverloadedError when too many replies are waiting.
        """
        ...

    async def warm(self, messages: Sequence[Message]) -> None:
        """Prepare for a reply that will begin with `messages` (fills the prompt cache). May do nothing; never raises
        anything but CancelledError."""
        ...

    async def close(self) -> None:
        """Stop the model."""
        ...
