"""What can happen to a conversation, as `turns.py` sees it.

Every event carries `at_ms`, its time on the conversation's audio clock (milliseconds of audio received), so that the
same recording always gives the same conversation.
"""

from dataclasses import dataclass
from enum import Enum, auto


class Timer(Enum):
    """The alarms a conversation can set; there is at most one of each."""

    ENDPOINT = auto()
    """The pause has lasted long enough: the turn is over."""
    RESCORE = auto()
    """The pause goes on: ask the turn model again."""
    PARTIAL = auto()
    """Time for the next partial transcript."""
    WINDOW = auto()
    """The time for this turn is up (only where turns have a fixed time)."""
    IDLE = auto()
    """Nobody has said anything for too long."""


@dataclass(frozen=True, slots=True)
class Started:
    """The conversation begins, with a greeting or without."""

    at_ms: float
    greeting: str = ""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Voice was detected; it began at `onset_ms`, a little before it could be known."""

    at_ms: float
    onset_ms: float


@dataclass(frozen=True, slots=True)
class SpeechSustained:
    """The voice has lasted long enough to be someone talking rather than a cough or a click."""

    at_ms: float


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    """No voice since `last_voice_ms`, long enough to call it a pause."""

    at_ms: float
    last_voice_ms: float


@dataclass(frozen=True, slots=True)
class PauseScored:
    """The turn model's probability (0..1) that the turn ended with this pause."""

    at_ms: float
    pause: int
    probability: float


@dataclass(frozen=True, slots=True)
class Transcribed:
    """What was understood of the turn up to this pause; empty when nothing was said."""

    at_ms: float
    pause: int
    text: str


@dataclass(frozen=True, slots=True)
class TranscriptionFailed:
    """The turn up to this pause could not be transcribed."""

    at_ms: float
    pause: int


@dataclass(frozen=True, slots=True)
class ReplyReady:
    """The first audio of a reply is there."""

    at_ms: float
    reply: int


@dataclass(frozen=True, slots=True)
class ReplyFailed:
    """A reply came to nothing, or broke off: what is ready of it is all there will ever be."""

    at_ms: float
    reply: int


@dataclass(frozen=True, slots=True)
class ReplyEndsIt:
    """The reply that is being made wants to be the last: the conversation ends for this reason when it was heard."""

    at_ms: float
    reply: int
    reason: str


@dataclass(frozen=True, slots=True)
class PlayoutFinished:
    """All audio of a reply has been heard."""

    at_ms: float
    reply: int


@dataclass(frozen=True, slots=True)
class Typed:
    """The user typed a turn instead of speaking it."""

    at_ms: float
    text: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The user asked for silence (a button, a key)."""

    at_ms: float


@dataclass(frozen=True, slots=True)
class Announced:
    """Something has to be said now, whoever speaks. With a `reason` these are the last words: nobody interrupts them,
    and the conversation ends for it when they were heard."""

    at_ms: float
    text: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BufferFull:
    """The utterance has reached the longest length that is kept."""

    at_ms: float


@dataclass(frozen=True, slots=True)
class TimerFired:
    """An alarm went off."""

    at_ms: float
    timer: Timer


@dataclass(frozen=True, slots=True)
class Ended:
    """The conversation is over, whatever was going on."""

    at_ms: float


Event = (
    Started
    | SpeechStarted
    | SpeechSustained
    | SpeechPaused
    | PauseScored
    | Transcribed
    | TranscriptionFailed
    | ReplyReady
    | ReplyFailed
    | ReplyEndsIt
    | PlayoutFinished
    | Typed
    | Interrupted
    | Announced
    | BufferFull
    | TimerFired
    | Ended
)
