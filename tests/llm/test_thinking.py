"""What a reasoning model thinks is not part of its answer."""

from itertools import pairwise

import pytest
from app.llm.thinking import ThinkFilter
from hypothesis import example, given
from hypothesis import strategies as st

PARTS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<thinking>",
        "</thinking>",
        "<THINK>",
        "<thi",
        "nk>",
        "</",
        "<",
        ">",
        " ",
        "\n",
        "Yes",
        "é",
    ]
)
texts = st.one_of(st.text(), st.lists(PARTS, max_size=20).map("".join))


def answer(*pieces: str) -> str:
    """What is passed on of a reply that comes in these pieces."""
    thoughts = ThinkFilter()
    return "".join([thoughts.push(piece) for piece in pieces] + [thoughts.flush()])


@pytest.mark.parametrize(
    ("reply", "passed_on"),
    [
        ("<think>They greet me. I greet them.</think>Hello!", "Hello!"),
        ("<think>\nTwo lines.\nOf thought.\n</think>\n\nHello!\nHow are you?", "Hello!\nHow are you?"),
        ("\n\n<think>\n\n</think>\n\nNo thought at all.", "No thought at all."),
        ("<thinking>Hm.</thinking> Hello!", "Hello!"),
        ("<Think>Hm.</THINK>Hello!", "Hello!"),
        ("<think>One.</think>\n<think>Another.</think>Hello!", "Hello!"),
        ("<think>1 < 2, so <b>yes</b>: </thinking> is no end</think>Yes.", "Yes."),
        ("<think>\u0130\u0130\u0130</think>Hello!", "Hello!"),
        ("<think>and so on for ever", ""),
        ("<think>nearly </thin", ""),
        ("<think></think>", ""),
        ("", ""),
    ],
)
def test_what_was_thought_before_the_answer_is_left_out(reply: str, passed_on: str) -> None:
    assert answer(reply) == answer(*reply) == passed_on


@pytest.mark.parametrize(
    "reply",
    [
        "Write <think> to begin and </think> to end.",
        "Hello! <think>Too late for that.</think>",
        "I think so.",
        "<b>Think</b> about it.",
        "</think> comes first here.",
        "<thinker> is another tag.",
        "< think>",
        "<thi",
        "<",
    ],
)
def test_what_only_looks_like_it_stays(reply: str) -> None:
    assert answer(reply) == answer(*reply) == reply


def test_an_answer_is_passed_on_as_it_comes() -> None:
    thoughts = ThinkFilter()
    assert [thoughts.push(piece) for piece in ["<thi", "nk>Hm", ".</", "think>\n", "\nWell", ", ", "<", "yes"]] == [
        *[""] * 4,
        *["Well", ", ", "<", "yes"],
    ]
    assert thoughts.flush() == ""


def test_a_doubtful_beginning_is_passed_on_as_soon_as_it_is_known_to_be_none() -> None:
    thoughts = ThinkFilter()
    assert thoughts.push(" <th") == ""
    assert thoughts.push("e end>") == "<the end>"


def test_a_thought_without_end_takes_no_memory() -> None:
    thoughts = ThinkFilter()
    thoughts.push("<think>")
    for _ in range(1000):
        assert thoughts.push("So what about the next one? " * 10) == ""
        assert len(thoughts._held) < len("</think>")


@given(text=texts, cuts=st.lists(st.integers(0, 200), max_size=20))
@example(text="<think>x</think>", cuts=[3, 10, 14])
def test_it_does_not_matter_how_a_reply_is_cut_into_pieces(text: str, cuts: list[int]) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(borders)]
    assert answer(*pieces) == answer(text)


@given(text=texts)
def test_the_answer_is_the_end_of_the_reply_and_nothing_is_missing_from_it(text: str) -> None:
    passed_on = answer(text)
    assert text.endswith(passed_on)
    if not text.lstrip().lower().startswith(("<think>", "<thinking>")):
        assert passed_on == text.lstrip()


@given(thought=st.text(), reply=st.text())
def test_whatever_is_thought_the_answer_is_the_same(thought: str, reply: str) -> None:
    thought = thought.replace("<", "")
    reply = reply.lstrip("< \n")
    assert answer(f"<think>{thought}</think>\n\n{reply}") == reply.lstrip()
