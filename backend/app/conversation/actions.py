"""What `turns.py` decides, for `session.py` to carry out."""

from dataclasses import dataclass

from app.conversation.events import Timer


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Raise TimerFired when the audio clock reaches `at_ms`; replaces an earlier alarm of the same name."""

    timer: Timer
    at_ms: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    timer: Timer


@dataclass(frozen=True, slots=True)
class BeginUtterance:
    """Keep the audio from `onset_ms` (and the pre-roll before it) on. Does nothing if an utterance is being kept."""

    onset_ms: float


@dataclass(frozen=True, slots=True)
class ForgetUtterance:
    """What was kept was not speech to the assistant."""


@dataclass(frozen=True, slots=True)
class ShowSpeech:
    """Tell the user that they are heard (or no longer heard) speaking in this turn."""

    turn: int
    speaking: bool


@dataclass(frozen=True, slots=True)
class Transcribe:
    """Transcribe the utterance so far; answer with Transcribed or TranscriptionFailed of the same pause."""

    turn: int
    pause: int


@dataclass(frozen=True, slots=True)
class ScorePause:
    """Ask the turn model about the utterance so far; answer with PauseScored of the same pause."""

    turn: int
    pause: int


@dataclass(frozen=True, slots=True)
class AbandonPause:
    """The speaker went on: stop transcribing and scoring this pause."""

    pause: int


@dataclass(frozen=True, slots=True)
class TranscribePartial:
    """Show what is understood so far while the user goes on speaking; `said` is the part already known."""

    turn: int
    said: str


@dataclass(frozen=True, slots=True)
class ShowPartial:
    """Show this text as the turn so far."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class KeepPart:
    """The turn goes on, but this much of it is understood; its audio has been used."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class EndTurn:
    """It is decided that the turn is over, whether or not its transcript is there yet."""

    turn: int


@dataclass(frozen=True, slots=True)
class ConfirmTurn:
    """The turn is over and this is what was said; its audio has been used. Empty when it could not be understood."""

    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class ReopenTurn:
    """The user went on before the reply was audible: a confirmed turn is not over after all."""

    turn: int


@dataclass(frozen=True, slots=True)
class DropTurn:
    """The turn turned out to be no turn: nothing was said."""

    turn: int


@dataclass(frozen=True, slots=True)
class StartReply:
    """Begin to make a reply to the turn, whose words so far are `text`. Nothing of it may be shown or heard yet."""

    reply: int
    turn: int
    text: str
    speculative: bool


@dataclass(frozen=True, slots=True)
class Say:
    """Begin a reply of fixed words (a greeting, an apology). Nothing of it may be heard yet."""

    reply: int
    turn: int
    text: str


@dataclass(frozen=True, slots=True)
class Apologise:
    """Like Say, with the apology for a failure."""

    reply: int
    turn: int


@dataclass(frozen=True, slots=True)
class CommitReply:
    """The reply is the answer to its turn: its text may be shown."""

    reply: int


@dataclass(frozen=True, slots=True)
class DiscardReply:
    """Stop making the reply and forget it; nothing of it was heard."""

    reply: int


@dataclass(frozen=True, slots=True)
class Play:
    """Let the reply be heard from its beginning."""

    reply: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Someone may be interrupting: duck the reply."""

    reply: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Nobody was interrupting, or the reply ends all the same: bring it back. A reply that is held is always brought
    back, stopped or discarded."""

    reply: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Silence the reply at once and keep in history what was heard of it."""

    reply: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The reply was heard to its end: keep it in history."""

    reply: int


@dataclass(frozen=True, slots=True)
class EndConversation:
    """End the conversation for this reason."""

    reason: str


Action = (
    SetTimer
    | CancelTimer
    | BeginUtterance
    | ForgetUtterance
    | ShowSpeech
    | Transcribe
    | ScorePause
    | AbandonPause
    | TranscribePartial
    | ShowPartial
    | KeepPart
    | EndTurn
    | ConfirmTurn
    | ReopenTurn
    | DropTurn
    | StartReply
    | Say
    | Apologise
    | CommitReply
    | DiscardReply
    | Play
    | Hold
    | Resume
    | Stop
    | Finish
    | EndConversation
)
