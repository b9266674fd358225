"""The parts of the state that `turns.py` keeps: where a conversation stands, its rules, its pause, its reply."""

from dataclasses import dataclass
from enum import Enum, auto

from app.conversation.endpointing import Endpointing
from app.conversation.parting import Parting


class State(Enum):
    """Where the conversation stands."""

    LISTENING = auto()
    """Nobody speaks."""
    HEARING = auto()
    """The user speaks."""
    PAUSED = auto()
    """The user fell silent, perhaps only for a moment; a reply may already be brewing."""
    REPLYING = auto()
    """The turn is confirmed, its reply is not audible yet."""
    SPEAKING = auto()
    """A reply is audible."""
    HELD = auto()
    """A reply is made or audible, and someone may be interrupting."""
    ENDED = auto()
    """Over."""


@dataclass(frozen=True, slots=True)
class TurnRules:
    """The limits of turn-taking, in milliseconds of the audio clock."""

    endpointing: Endpointing
    idle_ms: float = 300_000.0
    """Silence after which the conversation ends; 0 for never."""
    partial_ms: float = 1000.0
    """Time between partial transcripts; 0 for none."""
    speculation: bool = True
    """Begin replies in the pause, before the turn is known to be over."""
    partings: tuple[Parting, ...] = ()
    """What a user may say to end the conversation."""

    def parting(self, text: str) -> Parting | None:
        """The parting that this turn asks for, if it does."""
        return next((parting for parting in self.partings if parting.asked_for(text)), None)

    def words_for(self, reason: str) -> str:
        """What is said when the conversation ends for this reason; empty if there is nothing to say."""
        return next((parting.answer for parting in self.partings if parting.reason == reason), "")


@dataclass(slots=True)
class Pause:
    """The latest pause of the open turn."""

    number: int
    last_voice_ms: float
    over: bool = False
    """The turn is over; only the transcript is awaited."""
    forced: bool = False
    """Over for another reason than silence: a voice does not take it back."""
    more_until_ms: float | None = None
    """Someone spoke on after a forced end, and fell silent here; the transcript will not have it."""
    text: str | None = None
    """The transcript; None while it is awaited."""
    failed: bool = False


@dataclass(slots=True)
class Reply:
    """The one reply that exists."""

    number: int
    turn: int
    fixed: bool = False
    """Fixed words (greeting, apology): there is nothing to fall back on."""
    after_all: bool = False
    """Says something to a turn that was answered already (the apology for an answer that broke off)."""
    ready: bool = False
    failed: bool = False
    audible: bool = False
    last: str = ""
    """The conversation ends for this reason when the reply was heard."""

    @property
    def owed(self) -> bool:
        """Its turn still waits for an answer: words that come now belong to that turn."""
        return self.turn > 0 and not self.after_all and not self.audible
