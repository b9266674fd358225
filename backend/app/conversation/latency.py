"""How long a user waited for a reply, and what the time went into.

With speculation the work runs inside the wait for the end of the turn, so stages overlap. What counts as the engine's
own share is what remains when the longest way through wait and work is taken off:

    work begins  = pause detected + transcription                          (speculative)
                 = the later of that and the end-of-turn decision          (not speculative)
    longest way  = the later of the decision and (work begins + model + synthesis)
    engine       = voice to voice - longest way
"""

from dataclasses import dataclass

from app.conversation.messages import LatencyShown


@dataclass(slots=True)
class TurnClock:
    """Moments (seconds of one steady clock) and durations (seconds) of one turn."""

    last_voice_s: float
    """When the last word's end reached us, or the typed turn."""
    pause_s: float = 0.0
    """From the last word until the pause was noticed and transcription began."""
    stt_s: float = 0.0
    decided_s: float | None = None
    """When the turn was decided to be over, with its transcript or before it."""


@dataclass(slots=True)
class ReplyClock:
    """Durations (seconds) of one reply's making."""

    speculative: bool
    llm_s: float = 0.0
    """From the request until the first chunk was complete."""
    tts_s: float = 0.0
    """From that chunk until its first audio."""


def turn_latency(turn: int, reply: int, spoken: TurnClock, made: ReplyClock, now_s: float) -> LatencyShown:
    """The account of a reply whose first audio is sent at `now_s`."""
    decided_s = spoken.decided_s if spoken.decided_s is not None else now_s
    endpointing = max(0.0, decided_s - spoken.last_voice_s)
    transcribed = spoken.pause_s + spoken.stt_s
    begins = transcribed if made.speculative else max(transcribed, endpointing)
    longest = max(endpointing, begins + made.llm_s + made.tts_s)
    total = max(longest, now_s - spoken.last_voice_s)  # where time is moved by hand, work takes none of it
    return LatencyShown(
        turn=turn,
        reply=reply,
        voice_to_voice_ms=total * 1000,
        speculative=made.speculative,
        endpointing_ms=endpointing * 1000,
        stt_ms=spoken.stt_s * 1000,
        llm_ms=made.llm_s * 1000,
        tts_ms=made.tts_s * 1000,
        engine_ms=(total - longest) * 1000,
    )
