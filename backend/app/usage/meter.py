"""How a provider says what its work took, without knowing whom it works for.

A conversation binds its account (and the turn that is worked for) in the task that asks a provider; whatever the
provider reports in that task, or in tasks it starts, is put down there.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol

Capability = Literal["stt", "llm", "tts"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request took. Which of the amounts count depends on the capability and on the model's price."""

    capability: Capability
    service: str
    """Name of the provider: openai, embedded, or one of SERVICES."""
    model: str
    input_tokens: int = 0
    """All tokens of the input, those that were cached included."""
    cached_tokens: int = 0
    """Those of the input tokens that the service had in its cache, which are cheaper."""
    output_tokens: int = 0
    audio_s: float = 0.0
    """Seconds of audio that were listened to (stt) or made (tts)."""
    characters: int = 0
    """Characters that were spoken (tts)."""
    estimated: bool = False
    """The service did not say: counted here, on the high side."""
    given_up: bool = False
    """Stopped before its end: a reply that nobody hears. What was asked for is paid for all the same."""


class Meter(Protocol):
    """Takes down what is used."""

    def add(self, usage: Usage, turn: int) -> None:
        """Something was used for this turn (0: for none)."""
        ...


_BOUND: ContextVar[tuple[Meter, Callable[[], int]] | None] = ContextVar("meter", default=None)


def bind(meter: Meter, turn: Callable[[], int]) -> None:
    """From now on, what is reported in this task goes to `meter`, for the turn that `turn` gives then."""
    _BOUND.set((meter, turn))


def report(usage: Usage) -> None:
    """Put down what was used; nowhere if nobody asked."""
    if bound := _BOUND.get():
        meter, turn = bound
        meter.add(usage, turn())
