"""How long to wait in a pause before the turn counts as over.

The turn model's probability is turned into a delay: next to nothing when it is sure that the speaker has finished, up
to a limit when it is sure that more is coming. Where a turn model costs too much, a fixed silence ends a turn, or a
fixed time.
"""

from dataclasses import dataclass

RESCORE_MS = 400.0
"""A long pause is scored again this often: the silence itself is evidence, and a second look catches turns that the
first one took for unfinished."""
CURVE = 2.0
"""Exponent of the curve between the two delays; 2 keeps the delay short while the model leans to "finished"."""


@dataclass(frozen=True, slots=True)
class Endpointing:
    """Delays in milliseconds, counted from the last voice."""

    min_ms: float = 240.0
    max_ms: float = 1600.0
    rescore_ms: float = RESCORE_MS
    scored: bool = True
    """Ask the turn model; otherwise `max_ms` of silence end a turn."""
    window_ms: float = 0.0
    """Neither: a turn is what is said within this time of its first word. 0 for no window."""

    def delay_ms(self, probability: float) -> float:
        """The delay for a turn that is complete with this probability (0..1): `max_ms` at 0, `min_ms` at 1."""
        doubt = 1.0 - min(max(0.0, probability), 1.0)  # in this order, what is not a number counts as no evidence
        return self.min_ms + (self.max_ms - self.min_ms) * float(doubt**CURVE)
