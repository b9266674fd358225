"""The context fits its limit, tells the two sides apart, and holds what was said and heard."""

from itertools import pairwise

from app.conversation.history import MESSAGE_OVERHEAD_TOKENS, History
from hypothesis import given
from hypothesis import strategies as st

SYSTEM = "You are brief."


def count(text: str) -> int:
    return len(text.split())


def history(limit_tokens: int = 1000) -> History:
    return History(SYSTEM, limit_tokens=limit_tokens, count_tokens=count)


def contents(history: History, turn: int | None = None, text: str = "") -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in history.context(turn, text)]


def test_turns_follow_the_system_prompt_in_order():
    past = history()
    past.assistant_said(0, "Ahoy!")
    past.user_said(1, "What is a bell?")
    past.assistant_said(1, "It rings.")
    past.user_said(2, "Why?")
    assert contents(past) == [
        ("system", SYSTEM),
        ("assistant", "Ahoy!"),
        ("user", "What is a bell?"),
        ("assistant", "It rings."),
        ("user", "Why?"),
    ]


def test_a_turn_that_goes_on_replaces_what_it_was():
    past = history()
    past.user_said(1, "Book a table")
    past.user_said(1, "Book a table for two")
    assert contents(past)[1:] == [("user", "Book a table for two")]


def test_trying_out_a_turn_keeps_nothing_of_it():
    past = history()
    past.user_said(1, "Hello")
    assert contents(past, 2, "and then?")[-1] == ("user", "Hello\nand then?")
    assert contents(past, 1, "Hello there")[1:] == [("user", "Hello there")]
    assert contents(past)[1:] == [("user", "Hello")]


def test_what_was_heard_of_several_replies_to_one_turn_is_put_together():
    past = history()
    past.user_said(1, "Hello")
    past.assistant_said(1, "Well, ")
    past.assistant_said(1, "  ")
    past.assistant_said(1, " sorry.")
    assert contents(past)[2:] == [("assistant", "Well, sorry.")]


def test_a_reply_of_which_nothing_was_heard_leaves_no_trace():
    past = history()
    past.user_said(1, "Hello")
    past.assistant_said(1, "")
    past.user_said(2, "Anyone?")
    assert contents(past)[1:] == [("user", "Hello\nAnyone?")]


def test_the_oldest_turns_go_first_and_go_whole():
    room = count(SYSTEM) + MESSAGE_OVERHEAD_TOKENS + 2 * (2 * MESSAGE_OVERHEAD_TOKENS + 4)
    past = history(room)
    for turn in range(1, 6):
        past.user_said(turn, f"question {turn}")
        past.assistant_said(turn, f"answer {turn}")
    assert [content for _, content in contents(past)[1:]] == ["question 4", "answer 4", "question 5", "answer 5"]


def test_one_turn_that_is_larger_than_the_limit_is_all_that_is_kept():
    past = history(40)
    past.user_said(1, "short")
    past.assistant_said(1, "answer")
    past.user_said(2, "word " * 500)
    assert [role for role, _ in contents(past)] == ["system", "user"]
    past.assistant_said(2, "fine")
    assert [role for role, _ in contents(past)] == ["system", "user", "assistant"]
    past.user_said(3, "short again")
    assert contents(past)[1:] == [("user", "short again")], "and it goes as soon as it is not the latest any more"


def test_a_system_prompt_that_is_larger_than_the_limit_stays_and_so_does_the_latest_turn():
    past = History("word " * 100, limit_tokens=50, count_tokens=count)
    past.user_said(1, "hello")
    past.assistant_said(1, "hi")
    past.user_said(2, "bye")
    assert [role for role, _ in contents(past)] == ["system", "user"]
    assert contents(past, 3, "really")[1:] == [("user", "really")]


said = st.text(st.sampled_from("ab \n"), max_size=30)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("user"), said),
        st.tuples(st.just("again"), said),
        st.tuples(st.just("assistant"), said),
    ),
    max_size=30,
)


@given(steps=steps, limit=st.integers(0, 120), tried=said)
def test_whatever_is_said_the_context_is_well_formed_and_fits(steps, limit, tried):
    past = history(limit)
    turn = 0
    latest = ""
    for what, text in steps:
        if what == "user":
            turn += 1
        if what == "assistant":
            past.assistant_said(turn, text)
        else:
            past.user_said(turn, text)
            latest = text
    for messages in (past.context(), past.context(turn + 1, tried)):
        roles = [message.role for message in messages]
        assert roles[0] == "system"
        assert messages[0].content == SYSTEM
        assert all(first != second for first, second in pairwise(roles))
        assert all(message.content for message in messages)
        tokens = sum(count(message.content) + MESSAGE_OVERHEAD_TOKENS for message in messages)
        assert tokens <= limit or roles.count("user") <= 1
    if tried:
        assert past.context(turn + 1, tried)[-1].content.endswith(tried)
    if latest and turn:
        assert any(latest in message.content for message in past.context())


def test_what_belongs_to_no_turn_is_remembered_where_it_was_said():
    past = history()
    past.assistant_said(0, "Ahoy!")
    past.user_said(1, "Hello")
    past.assistant_said(1, "Hello you.")
    past.assistant_said(0, "One moment.")
    past.assistant_said(0, "Still there.")
    assert contents(past)[1:] == [
        ("assistant", "Ahoy!"),
        ("user", "Hello"),
        ("assistant", "Hello you.\nOne moment. Still there."),
    ]


def test_another_conversation_counts_its_turns_anew_and_forgets_nothing():
    past = history()
    past.begin()
    past.assistant_said(0, "Ahoy!")
    past.user_said(1, "My name is Alice.")
    past.begin()
    assert contents(past, 1, "Hello?")[1:] == [
        ("assistant", "Ahoy!"),
        ("user", "My name is Alice.\nHello?"),
    ]
    past.user_said(1, "What is my name?")
    past.assistant_said(1, "Alice.")
    assert contents(past)[1:] == [
        ("assistant", "Ahoy!"),
        ("user", "My name is Alice.\nWhat is my name?"),
        ("assistant", "Alice."),
    ]
