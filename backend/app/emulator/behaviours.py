"""What happens at a number that is called."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.emulator.line import Line, Talk

RING_S = 0.02
"""How long it rings, unless a behaviour says otherwise: tests are in a hurry."""


@dataclass(frozen=True, slots=True)
class Human:
    """Somebody answers after `after_s` and does what `talk` says (nothing: the test does it)."""

    after_s: float = RING_S
    talk: Talk | None = None
    detected_s: float = 0.2
    """When answering-machine detection is asked for: the time it takes to say `human`."""


@dataclass(frozen=True, slots=True)
class Voicemail:
    """A machine answers after `after_s`, says its greeting (int16 [n], 8 kHz; it ends with the beep) and records.

    Detection says machine_start `detected_s` after the answer if it is to say so at once (Enable), and machine_end_beep
    when the greeting is over if it is to wait for that (DetectMessageEnd).
    """

    after_s: float = RING_S
    greeting: NDArray[np.int16] | None = None
    detected_s: float = 0.2
    ended: Callable[[Line], None] | None = None
    """Called when the call is over: `line.heard` is what was recorded, and the greeting's time before it."""


@dataclass(frozen=True, slots=True)
class Busy:
    """It is engaged."""

    after_s: float = RING_S


@dataclass(frozen=True, slots=True)
class Rejected:
    """Somebody declines the call, which callers see as busy (SIP 603)."""

    after_s: float = RING_S


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """It rings until the caller's time-out, or for `after_s` if that is given: tests are in a hurry."""

    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """No carrier can connect the call."""

    after_s: float = RING_S


@dataclass(frozen=True, slots=True)
class Refused:
    """The REST API refuses the number with one of Twilio's codes, such as 21215 (no permission for the country)."""

    code: int
    message: str
    http_status: int = 400


Behaviour = Human | Voicemail | Busy | Rejected | NoAnswer | Failed | Refused
