"""What a conversation tells the other side, whatever transport carries it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.usage import account


@dataclass(frozen=True, slots=True)
class SpeechShown:
    """The user is heard speaking, or no longer heard."""

    turn: int
    speaking: bool
    at_ms: float


@dataclass(frozen=True, slots=True)
class TranscriptShown:
    """What the user has said in a turn: so far, or in the end."""

    turn: int
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class TurnReopened:
    """The turn whose final transcript was shown goes on after all."""

    turn: int


@dataclass(frozen=True, slots=True)
class ReplyText:
    """More text of a reply, to be appended."""

    turn: int
    reply: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyRewritten:
    """The text of a reply so far is this: what was shown beyond it broke off, and will not be said."""

    turn: int
    reply: int
    text: str


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """Nothing more of this reply follows. `heard` is the part of `text` that was heard."""

    turn: int
    reply: int
    text: str
    heard: str
    interrupted: bool


@dataclass(frozen=True, slots=True)
class AudioStarted:
    """Audio of this reply follows."""

    turn: int
    reply: int


@dataclass(frozen=True, slots=True)
class AudioReached:
    """The audio of this reply that was played so far, `at_ms` of it, ends with a chunk of text. For transports whose
    listeners report when they have heard so far."""

    reply: int
    at_ms: float


@dataclass(frozen=True, slots=True)
class AudioEnded:
    """All audio of this reply has been sent."""

    reply: int
    duration_ms: float


@dataclass(frozen=True, slots=True)
class AudioHeld:
    """Duck the reply (or bring it back): someone may be interrupting."""

    reply: int
    held: bool


@dataclass(frozen=True, slots=True)
class AudioCleared:
    """Silence the reply at once and drop what is queued of it."""

    reply: int


@dataclass(frozen=True, slots=True)
class LatencyShown:
    """How long the user waited for a reply; all in milliseconds. See `latency.py` for what each stage means."""

    turn: int
    reply: int
    voice_to_voice_ms: float
    speculative: bool
    endpointing_ms: float
    stt_ms: float
    llm_ms: float
    tts_ms: float
    engine_ms: float


UsageShown = account.UsageShown
"""What the conversation has cost so far, as its account tells it."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something went wrong; `code` is of `core/errors.py`, `message` is for a person."""

    code: str
    message: str
    fatal: bool = False


Message = (
    SpeechShown
    | TranscriptShown
    | TurnReopened
    | ReplyText
    | ReplyRewritten
    | ReplyDone
    | AudioStarted
    | AudioReached
    | AudioEnded
    | AudioHeld
    | AudioCleared
    | LatencyShown
    | UsageShown
    | Trouble
)


class Outlet(Protocol):
    """The way out of a conversation: a transport. Neither call may block or raise; both keep their order."""

    def tell(self, message: Message) -> None:
        """Send a message."""
        ...

    def play(self, samples: NDArray[np.int16]) -> None:
        """Send reply audio: int16 mono [n] at the transport's rate, of the reply announced last."""
        ...
