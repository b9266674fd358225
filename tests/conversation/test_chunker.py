"""A reply is cut where a speaker would breathe, and nothing of it is lost."""

from itertools import pairwise

import pytest
from app.conversation.chunker import CHUNK_MAX_CHARACTERS, FIRST_CHUNK_MAX_WORDS, SpeechChunker
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.sampled_from(["Hello", "there", "don't", "3.14", "1. ", "Dr. ", "e.g. ", "[link](https://a.b/c)", "x" * 50])
MARKS = st.sampled_from([" ", "  ", "\n", "\n\n", "\t", ". ", "! ", "? ", ", ", "; ", ".", "...", "…", "- ", '"', ") "])
SIGNS = st.sampled_from(["今日", "は", "。", "、", "」", "👋", "🇩🇪", "é", "ß", "\u200b"])
texts = st.one_of(st.text(), st.lists(st.one_of(WORDS, MARKS, SIGNS), max_size=80).map("".join))


def chunks(text: str, step: int = 1) -> list[str]:
    """The text arrives in pieces of `step` characters."""
    chunker = SpeechChunker()
    pieces = [text[start : start + step] for start in range(0, len(text), step)]
    return [chunk for piece in pieces for chunk in chunker.push(piece)] + chunker.flush()


@given(text=texts, cuts=st.lists(st.integers(0, 400), max_size=30))
def test_put_together_the_pieces_are_the_text(text, cuts):
    chunker = SpeechChunker()
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    given_out = []
    for start, end in pairwise(borders):
        given_out += chunker.push(text[start:end])
    given_out += chunker.flush()
    assert "".join(given_out) == text
    assert all(given_out)
    assert all(len(chunk) <= CHUNK_MAX_CHARACTERS for chunk in given_out)
    assert chunker.flush() == []


@given(text=texts)
def test_what_waits_to_be_cut_is_never_longer_than_one_piece(text):
    chunker = SpeechChunker()
    waiting = 0
    for character in text:
        waiting += 1 - sum(len(chunk) for chunk in chunker.push(character))
        assert waiting <= CHUNK_MAX_CHARACTERS + 1


@given(words=st.lists(st.sampled_from(["one", "two", "three,", "four.", "Mr.", "é"]), min_size=1, max_size=60))
def test_words_are_never_cut_in_two(words):
    text = " ".join(words)
    assert [word for chunk in chunks(text) for word in chunk.split()] == words


def test_each_sentence_is_a_piece():
    assert chunks("It rains. Does it? It does! So be it.") == ["It rains. ", "Does it? ", "It does! ", "So be it."]


def test_the_first_piece_may_end_at_a_comma_and_later_ones_do_not():
    text = "Well of course, you can. But then again, you need not."
    assert chunks(text) == ["Well of course, ", "you can. ", "But then again, you need not."]


def test_a_comma_after_a_word_or_two_is_too_early():
    assert chunks("Yes, of course. Fine.") == ["Yes, of course. ", "Fine."]


def test_without_any_mark_speaking_begins_after_a_dozen_words():
    words = [f"word{number} " for number in range(30)]
    first, *rest = chunks("".join(words))
    assert first == "".join(words[:FIRST_CHUNK_MAX_WORDS])
    assert len(rest) == 1


def test_a_sentence_that_runs_on_is_cut_at_its_last_clause():
    sentence = "Here it begins. " + "and on it goes, " * 20 + "until it ends."
    first, second, *_ = chunks(sentence)
    assert first == "Here it begins. "
    assert second.endswith("and on it goes, ")
    assert CHUNK_MAX_CHARACTERS - 16 < len(second) <= CHUNK_MAX_CHARACTERS


@pytest.mark.parametrize(
    "whole",
    [
        "Ask Dr. Smith or Mrs. Jones about it. ",
        "That is, e.g. a whale. ",
        "See No. 5 in St. Louis. ",
        "J. S. Bach wrote it. ",
        "The U.S. economy grew. ",
        "It costs 3.50 dollars. ",
        "Pi is 3.14159 or so. ",
        "Wait for www.example.com to load. ",
    ],
)
def test_a_full_stop_that_ends_no_sentence_is_no_place_to_cut(whole):
    assert chunks("So it is. " + whole + "Next.") == ["So it is. ", whole, "Next."]


def test_a_list_is_cut_by_its_lines_and_keeps_its_numbers():
    assert chunks("1. Take flour.\n2. Add water.\n3. Bake.") == ["1. Take flour.\n", "2. Add water.\n", "3. Bake."]


def test_marks_within_quotes_and_brackets_stay_with_their_sentence():
    assert chunks('He said "Stop!" and left. (It was late.) She stayed.') == [
        'He said "Stop!" ',
        "and left. ",
        "(It was late.) ",
        "She stayed.",
    ]


def test_chinese_and_japanese_are_cut_at_their_own_marks():
    assert chunks("こんにちは、元気ですか。はい、元気です。「そう。」ね。") == [
        "こんにちは、",
        "元気ですか。",
        "はい、元気です。",
        "「そう。」",
        "ね。",
    ]


def test_one_endless_word_is_cut_all_the_same():
    pieces = chunks("a" * 20_000, step=20_000)
    assert [len(piece) for piece in pieces[:-1]] == [CHUNK_MAX_CHARACTERS] * (len(pieces) - 1)


def test_the_pieces_do_not_depend_on_how_the_text_came():
    text = "Well of course, you can. But then again, you need not. " * 10
    assert chunks(text, step=1) == chunks(text, step=7) == chunks(text, step=len(text))


def test_an_empty_reply_has_no_pieces():
    assert chunks("") == []
    assert SpeechChunker().push("") == []
