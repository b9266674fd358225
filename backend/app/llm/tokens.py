"""How many tokens text costs, about, without a tokeniser: cheap enough for the event loop, on the high side."""

import re
from collections.abc import Callable, Sequence

from app.llm.base import Message

MESSAGE_OVERHEAD_TOKENS = 6
"""What a chat template adds around each message, about."""

_TOKENS = re.compile(r"[A-Za-z]+|[^\sA-Za-z]|\s+(?=[^A-Za-z\s])|\s\s+")
"""A word, another character, and space that is not merely the one in front of a word."""
_LETTERS_PER_TOKEN = 4


def count_tokens(text: str) -> int:
    """At most about how many tokens `text` has: a word of Latin letters counts one and one more for every four letters,
    anything else its bytes in UTF-8 (what a tokeniser falls back to for characters it does not know)."""
    return sum(
        1 + (len(part) - 1) // _LETTERS_PER_TOKEN if part.isascii() else len(part.encode())
        for part in _TOKENS.findall(text)
    )


def tokens_of(messages: Sequence[Message], count: Callable[[str], int] = count_tokens) -> int:
    """What a whole context costs, with what is around each message."""
    return sum(
        MESSAGE_OVERHEAD_TOKENS
        + count(message.content)
        + sum(count(call.name) + count(call.arguments) for call in message.tool_calls)
        for message in messages
    )


def fitting(
    messages: Sequence[Message], limit_tokens: int, count: Callable[[str], int] = count_tokens
) -> Sequence[Message]:
    """The latest of `messages` that cost `limit_tokens` or less. What the system says stays, and so does the last
    message of the user with all that follows it, whatever they cost."""
    left = limit_tokens - tokens_of([message for message in messages if message.role == "system"], count)
    spoken = [message for message in messages if message.role != "system"]
    kept = len(spoken) - _last_word(spoken)
    left -= tokens_of(spoken[len(spoken) - kept :], count)
    for message in reversed(spoken[: len(spoken) - kept]):
        left -= tokens_of([message], count)
        if left < 0:
            break
        kept += 1
    return _latest(messages, spoken, kept)


def halved(messages: Sequence[Message]) -> Sequence[Message]:
    """`messages` without the older half of what was said. The user's last message stays, so in the end nothing is left
    out any more."""
    spoken = [message for message in messages if message.role != "system"]
    dropped = min((len(spoken) + 1) // 2, _last_word(spoken))
    return _latest(messages, spoken, len(spoken) - dropped)


def _last_word(spoken: Sequence[Message]) -> int:
    """Where the user's last message is; the last message of all if the user said nothing."""
    users = [index for index, message in enumerate(spoken) if message.role == "user"]
    return users[-1] if users else max(0, len(spoken) - 1)


def _latest(messages: Sequence[Message], spoken: Sequence[Message], kept: int) -> Sequence[Message]:
    if kept == len(spoken):
        return messages
    rest = list(spoken[len(spoken) - kept :])
    while rest and rest[0].role == "tool":  # an answer to what nobody asked any more
        del rest[0]
    return [*(message for message in messages if message.role == "system"), *rest]
