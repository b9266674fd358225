"""Server-sent events arrive whole, however the network cuts the stream."""

import itertools

import pytest
from app.remote.sse import MAX_EVENT_BYTES, EventStream
from hypothesis import given
from hypothesis import strategies as st

STREAM = (
    'id: 7\r\ndata: {"a": "ñ🦜"}\r\n\r\n: still here\n\ndata:one\ndata: two\r\rdata\n\nevent: x\n\ndata: [DONE]\n\n'
)
EVENTS = ['{"a": "ñ🦜"}', "one\ntwo", "", "[DONE]"]


def events_of(*received: bytes) -> list[str]:
    stream = EventStream()
    return [event.decode() for piece in received for event in stream.push(piece)]


def test_comments_other_fields_and_events_without_data_say_nothing() -> None:
    assert events_of(STREAM.encode()) == EVENTS


@given(st.lists(st.integers(0, len(STREAM.encode()))))
def test_wherever_the_stream_is_cut_the_events_are_the_same(cuts: list[int]) -> None:
    data = STREAM.encode()
    ends = [0, *sorted(cuts), len(data)]
    assert events_of(*(data[begin:end] for begin, end in itertools.pairwise(ends))) == EVENTS


def test_byte_by_byte_the_events_are_the_same() -> None:
    assert events_of(*(bytes([byte]) for byte in STREAM.encode())) == EVENTS


@given(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), st.sampled_from(["\n", "\r", "\r\n"])
)
def test_any_text_comes_through_with_any_line_ending(text: str, end: str) -> None:
    assert events_of(f"data: {text}{end}{end}".encode(), b": next\n") == [text]


def test_an_event_is_there_as_soon_as_its_empty_line_is() -> None:
    stream = EventStream()
    assert stream.push(b"data: a\r\n\r") == [b"a"]
    assert stream.push(b"\ndata: b\r") == []
    assert stream.push(b"\n\r") == [b"b"], "a line feed that belongs to a carriage return is no empty line"


def test_a_byte_order_mark_in_front_is_no_part_of_it() -> None:
    assert events_of(b"\xef", b"\xbb\xbfdata: a\n\n") == ["a"]


def test_what_was_not_ended_by_an_empty_line_is_there_at_the_end() -> None:
    stream = EventStream()
    assert stream.push(b"data: a\n\ndata: b\r\n") == [b"a"]
    assert stream.flush() == [b"b"]
    assert stream.flush() == []


@pytest.mark.parametrize("piece", [b"x" * 10_000, b"data: " + b"x" * 9_000 + b"\n", b"data:\n" * 1000])
def test_an_event_without_an_end_is_given_up(piece: bytes) -> None:
    with pytest.raises(ValueError, match="no end"):
        events_of(*[piece] * (MAX_EVENT_BYTES // 1000 + 1))
