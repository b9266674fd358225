"""A reply's audio as Twilio wants it: frames of exactly 20 ms, and marks that come back when they were heard.

What goes out when is the playout's business: it is called 50 times a second from the process's one metronome and keeps
a small lead. Here samples become messages. Twilio plays what it is sent in order, returns a mark when everything before
it has been played, and at a `clear` drops what it holds and returns the marks in it at once
(twilio.com/docs/voice/media-streams/websocket-messages).
"""

import re

import numpy as np
from numpy.typing import NDArray

from app.audio.twilio_audio import FRAME, pcm16_to_twilio_payload

_MARK = re.compile(r"([0-9]{1,9}):([0-9]{1,9})")


class TwilioFrames:
    """The messages of one stream. Every call returns those that are to be sent now, in order; any of them is one of
    media, mark and clear, as JSON text."""

    def __init__(self, stream_sid: str) -> None:
        self._head = f'{{"event":"media","streamSid":"{stream_sid}","media":{{"payload":"'
        self._mark_head = f'{{"event":"mark","streamSid":"{stream_sid}","mark":{{"name":"'
        self._clear = f'{{"event":"clear","streamSid":"{stream_sid}"}}'
        self._rest: NDArray[np.int16] = np.zeros(0, np.int16)
        self._marks: list[str] = []
        self._last_mark = ""

    def audio(self, samples: NDArray[np.int16]) -> list[str]:
        """Audio (int16 mono 8 kHz [n]) in whole frames; what does not fill one waits for the next call or `end`."""
        if len(self._rest):
            samples = np.concatenate((self._rest, samples))
        whole = len(samples) // FRAME * FRAME
        self._rest = samples[whole:]
        messages = [
            f'{self._head}{pcm16_to_twilio_payload(samples[start : start + FRAME])}"}}}}'
            for start in range(0, whole, FRAME)
        ]
        if messages and self._marks:  # what they mark lies in the first of these frames
            messages[1:1] = self._due_marks()
        return messages

    def mark(self, reply: int, at_ms: float) -> list[str]:
        """A mark behind all audio so far, `at_ms` of this reply: it goes out when the frame that it lies in is full."""
        name = f"{reply}:{round(at_ms)}"
        if name != self._last_mark:
            self._marks.append(name)
            self._last_mark = name
        return [] if len(self._rest) else self._due_marks()

    def end(self) -> list[str]:
        """Nothing follows for now: the last frame, filled up with silence, and the marks in it."""
        if not len(self._rest):
            return self._due_marks()
        return self.audio(np.zeros(FRAME - len(self._rest), np.int16))

    def clear(self) -> list[str]:
        """Drop everything that was not heard yet, here and at Twilio."""
        self._rest = self._rest[:0]
        self._marks.clear()
        self._last_mark = ""
        return [self._clear]

    def _due_marks(self) -> list[str]:
        messages = [f'{self._mark_head}{name}"}}}}' for name in self._marks]
        self._marks.clear()
        return messages


def heard_mark(name: str) -> tuple[int, float] | None:
    """The reply and the milliseconds of it that a returned mark stands for; None for a mark that is not ours."""
    match = _MARK.fullmatch(name)
    return (int(match[1]), float(match[2])) if match else None
