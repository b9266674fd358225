"""Counting tokens, and what of a conversation fits into a context."""

import string

from app.llm.base import Message
from app.llm.tokens import count_tokens, fitting, halved, tokens_of
from app.llm.tools import ToolCall
from hypothesis import given
from hypothesis import strategies as st

SYSTEM = Message("system", "Be brief.")
CALL = ToolCall("call_1", "weather", "{}")

spoken = st.lists(
    st.builds(Message, st.sampled_from(["user", "assistant"]), st.text(string.ascii_lowercase + " ", max_size=60)),
    max_size=12,
)


@given(st.text(string.ascii_letters + " ,.", max_size=80), st.text(string.ascii_letters + " ", max_size=80))
def test_longer_text_never_counts_less(one: str, more: str) -> None:
    assert count_tokens(f"{one} {more}") >= count_tokens(one)


@given(spoken, st.integers(0, 300))
def test_what_fits_are_the_latest_messages_and_the_system_prompt(said: list[Message], limit_tokens: int) -> None:
    talk = [SYSTEM, *said]
    kept = list(fitting(talk, limit_tokens))
    rest = kept[1:]
    assert kept[0] == SYSTEM
    assert rest == said[len(said) - len(rest) :]
    users = [index for index, message in enumerate(said) if message.role == "user"]
    needed = said[users[-1] :] if users else said[-1:]
    assert rest[len(rest) - len(needed) :] == needed
    assert tokens_of(kept) <= limit_tokens or rest == needed
    if len(rest) < len(said):
        assert tokens_of([SYSTEM, *said[len(said) - len(rest) - 1 :]]) > limit_tokens, "only what must be is left out"


@given(spoken)
def test_halving_again_and_again_ends_with_the_users_last_message(said: list[Message]) -> None:
    talk: list[Message] = [SYSTEM, *said]
    while len(shorter := list(halved(talk))) < len(talk):
        assert shorter[0] == SYSTEM
        assert shorter[1:] == talk[-len(shorter) + 1 :]
        assert len(shorter) - 1 <= (len(talk) - 1) // 2 or shorter[1].role == "user"
        talk = shorter
    assert [message for message in talk if message.role == "user"] == [m for m in said if m.role == "user"][-1:]


def test_the_result_of_a_tool_does_not_stay_without_its_call() -> None:
    talk = [
        Message("user", "What is the weather?"),
        Message("assistant", "", tool_calls=(CALL,)),
        Message("tool", "windy", tool_call_id="call_1"),
        Message("assistant", "It is windy."),
        Message("user", "And now?"),
    ]
    assert halved(talk) == talk[3:]
    windy = tokens_of(talk[2:])
    assert fitting(talk, windy) == talk[3:]


def test_calls_of_tools_cost_tokens_too() -> None:
    plain = Message("assistant", "")
    assert tokens_of([Message("assistant", "", tool_calls=(CALL,))]) > tokens_of([plain])
