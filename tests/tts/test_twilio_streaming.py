"""A reply on the telephone line: whole frames in order, and marks that stand where they were set."""

import base64
import json
from typing import Any

import numpy as np
from app.audio.g711 import encode_mulaw
from app.audio.twilio_audio import FRAME
from app.emulator import wire
from app.tts.twilio_streaming import TwilioFrames, heard_mark
from hypothesis import given
from hypothesis import strategies as st

SID = "MZ" + "0" * 32
SILENCE = b"\xff"


def taken(messages: list[str]) -> list[Any]:
    """What Twilio makes of messages; raises for those that it would not take."""
    return [wire.parse(message, SID) for message in messages]


def audio_of(messages: list[str]) -> bytes:
    return b"".join(message.audio for message in taken(messages) if isinstance(message, wire.Media))


def marks_of(messages: list[str]) -> list[str]:
    return [message.name for message in taken(messages) if isinstance(message, wire.Mark)]


def sound(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-30_000, 30_000, length, dtype=np.int16)


@given(st.lists(st.integers(0, 500), max_size=12), st.integers(0, 9))
def test_audio_cut_anywhere_is_the_same_audio_in_whole_frames(lengths: list[int], seed: int) -> None:
    whole = sound(sum(lengths), seed)
    frames = TwilioFrames(SID)
    messages: list[str] = []
    for piece in np.split(whole, np.cumsum(lengths)[:-1]) if lengths else []:
        messages += frames.audio(piece)
    messages += frames.end()
    sent = taken(messages)
    assert {len(message.audio) for message in sent} <= {FRAME}
    audio = audio_of(messages)
    assert audio[: len(whole)] == encode_mulaw(whole)
    padding = audio[len(whole) :]
    assert len(padding) < FRAME
    assert padding == SILENCE * len(padding)


def test_what_does_not_fill_a_frame_waits_for_what_follows() -> None:
    frames = TwilioFrames(SID)
    assert frames.audio(sound(FRAME - 1)) == []
    assert len(frames.audio(sound(1))) == 1
    assert frames.end() == []


def test_messages_have_the_form_that_twilio_documents() -> None:
    frames = TwilioFrames(SID)
    (media,) = frames.audio(np.zeros(FRAME, np.int16))
    payload = base64.b64encode(SILENCE * FRAME).decode()
    assert json.loads(media) == {"event": "media", "streamSid": SID, "media": {"payload": payload}}
    (mark,) = frames.mark(3, 20.4)
    assert json.loads(mark) == {"event": "mark", "streamSid": SID, "mark": {"name": "3:20"}}
    (clear,) = frames.clear()
    assert json.loads(clear) == {"event": "clear", "streamSid": SID}


def test_a_mark_comes_right_after_the_frame_that_it_lies_in() -> None:
    frames = TwilioFrames(SID)
    assert frames.audio(sound(100)) == []
    assert frames.mark(1, 12.5) == []
    frame, mark, another = taken(frames.audio(sound(2 * FRAME - 100)))
    assert (type(frame), mark, type(another)) == (wire.Media, wire.Mark("1:12"), wire.Media)
    assert marks_of(frames.mark(1, 20)) == ["1:20"], "at the end of a frame there is nothing to wait for"


steps = st.one_of(
    st.tuples(st.just("audio"), st.integers(0, 400)),
    st.tuples(st.just("mark"), st.just(0)),
    st.tuples(st.just("end"), st.just(0)),
    st.tuples(st.just("clear"), st.just(0)),
)


@given(st.lists(steps, max_size=30))
def test_marks_are_neither_early_nor_late_nor_lost_whatever_happens(told: list[tuple[str, int]]) -> None:
    frames = TwilioFrames(SID)
    position = sent = number = 0
    waiting: list[tuple[str, int]] = []
    """The marks that are to come, each with the end of the frame that it lies in."""
    for what, length in told:
        messages: list[str] = []
        match what:
            case "audio":
                position += length
                messages = frames.audio(sound(length))
            case "end":
                position = -(-position // FRAME) * FRAME
                messages = frames.end()
            case "mark":
                number += 1
                waiting.append((f"7:{number}", -(-position // FRAME) * FRAME))
                messages = frames.mark(7, number)
            case "clear":
                assert [type(message) for message in taken(frames.clear())] == [wire.Clear]
                position, waiting = sent, []
        for message in taken(messages):
            if isinstance(message, wire.Media):
                sent += len(message.audio)
            else:
                assert (message.name, sent) == waiting.pop(0)
        assert sent == position // FRAME * FRAME
        assert all(end > sent for _, end in waiting), "none that is due is kept back"


def test_the_same_place_is_marked_once() -> None:
    """The end of the last sentence is the end of the reply."""
    frames = TwilioFrames(SID)
    frames.audio(sound(FRAME))
    assert marks_of(frames.mark(1, 20)) == ["1:20"]
    assert frames.mark(1, 20) == []
    assert marks_of(frames.mark(2, 20)) == ["2:20"], "of another reply"
    frames.clear()
    assert marks_of(frames.mark(2, 20)) == ["2:20"]


def test_nothing_of_what_was_cleared_is_heard_later() -> None:
    frames = TwilioFrames(SID)
    frames.audio(np.full(100, 30_000, np.int16))
    frames.mark(1, 12)
    frames.clear()
    assert frames.end() == []
    later = frames.audio(np.zeros(FRAME, np.int16))
    assert audio_of(later) == SILENCE * FRAME
    assert marks_of(later) == []


# --- the names of marks


@given(st.integers(0, 999_999_999), st.integers(0, 999_999_999))
def test_a_mark_that_comes_back_says_what_was_heard(reply: int, at_ms: int) -> None:
    (name,) = marks_of(TwilioFrames(SID).mark(reply, at_ms))
    assert heard_mark(name) == (reply, at_ms)


def test_odd_names_are_no_marks_of_ours() -> None:
    for name in ("", ":", "1:", ":1", "1:2:3", "1 :2", "-1:2", "1:2\n", "x1:2", "1:1e9", "٣:٣", "1" * 5000 + ":1"):
        assert heard_mark(name) is None
