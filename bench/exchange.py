"""One exchange of a measured conversation: a recorded utterance is said, an answer comes; and the account of many."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from app.cli.dialogue import Dialogue
from app.conversation import messages as msg
from app.conversation.turn_state import State

from bench.recordings import RATE_HZ, Utterance

AUDIBLE = 10 ** (-45 / 20) * 32768
"""A reply begins with its first sample above -45 dBFS."""
LATE_MS = 2000.0
"""An answer that comes later than this after the last word is late."""
ANSWER_LIMIT_MS = 8000.0
LISTEN_MS = 400.0
"""How long an answer is listened to before the next turn; it is stopped then."""
REST_MS = 400.0


@dataclass
class Exchange:
    """One utterance and what came of it; times in milliseconds after the end of its last word."""

    voice_to_voice_ms: float | None = None
    cut_off: bool = False
    latency: msg.LatencyShown | None = None


@dataclass
class Run:
    """The exchanges of one conversation, and what they cost."""

    exchanges: list[Exchange] = field(default_factory=list)
    transcripts: dict[str, list[str]] = field(default_factory=dict)
    cpu_s: float = 0.0
    wall_s: float = 0.0


async def exchange(dialogue: Dialogue, utterance: Utterance) -> Exchange:
    """Say the utterance, wait for the answer, listen to its beginning, stop it and rest."""
    moments, pieces = len(dialogue.moments), len(dialogue.audio)
    dialogue.room = utterance.room
    began_s = await dialogue.send(utterance.audio)
    ended_s = began_s + utterance.ends_ms / 1000
    await dialogue.silence(lambda: _audible_s(dialogue, pieces) is not None, limit_ms=ANSWER_LIMIT_MS)
    await dialogue.silence(lambda: False, limit_ms=LISTEN_MS)
    dialogue.conversation.interrupt()
    await dialogue.silence(lambda: dialogue.conversation.state is State.LISTENING, limit_ms=ANSWER_LIMIT_MS)
    await dialogue.silence(lambda: False, limit_ms=REST_MS)
    new = dialogue.moments[moments:]
    audible_s = _audible_s(dialogue, pieces)
    started = [moment.at_s for moment in new if isinstance(moment.message, msg.AudioStarted)]
    latencies = [moment.message for moment in new if isinstance(moment.message, msg.LatencyShown)]
    cut_off = any(at_s < ended_s for at_s in started)
    return Exchange(
        voice_to_voice_ms=None if audible_s is None or cut_off else (audible_s - ended_s) * 1000,
        cut_off=cut_off,
        latency=latencies[-1] if latencies and not cut_off else None,
    )


def _audible_s(dialogue: Dialogue, first: int) -> float | None:
    """When the first audible sample after piece number `first` is heard by a listener who plays at once."""
    for at_s, audio in zip(dialogue.audio_at_s[first:], dialogue.audio[first:], strict=True):
        loud = np.flatnonzero(np.abs(audio.astype(np.int32)) > AUDIBLE)
        if len(loud):
            return at_s + int(loud[0]) / RATE_HZ
    return None


def account(run: Run) -> dict[str, Any]:
    """What a run comes to; times in milliseconds."""
    waits = [exchange.voice_to_voice_ms for exchange in run.exchanges if exchange.voice_to_voice_ms is not None]
    latencies = [exchange.latency for exchange in run.exchanges if exchange.latency is not None]
    stages = ("endpointing_ms", "stt_ms", "llm_ms", "tts_ms", "engine_ms")
    return {
        "voice_to_voice_ms": percentiles(waits),
        "stages": {stage: percentiles([getattr(latency, stage) for latency in latencies]) for stage in stages},
        "turns": len(run.exchanges),
        "cut_offs": sum(exchange.cut_off for exchange in run.exchanges),
        "late_answers": sum(wait > LATE_MS for wait in waits),
        "unanswered": sum(exchange.voice_to_voice_ms is None and not exchange.cut_off for exchange in run.exchanges),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """The middle and the slow end of `values`; nothing of nothing."""
    if not values:
        return {}
    return {f"p{share}": round(float(np.percentile(values, share)), 1) for share in (50, 95)}
