"""The telephone calls of this process: those that go on, and what is known of the latest that ended.

A call is changed by Twilio's webhooks, by its media stream and by the REST API, and watched by whoever placed it.
"""

import asyncio
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from app.conversation import messages as msg
from app.conversation.history import History
from app.conversation.session import Conversation
from app.usage.account import Account

KEPT_CALLS = 1000
"""Calls that are remembered after their end."""
KEPT_SIDS = 100_000
"""Calls that are known to be over; nothing that is said in their name counts any more."""
LONGEST_CALL_S = 86_400.0
"""No call is longer (the most that Twilio's TimeLimit allows): one that nothing was heard of since has ended."""
KEPT_CAPTIONS = 200
"""Lines of a call that are remembered."""


class CallStatus(StrEnum):
    """Where a call stands, in Twilio's words (its CallStatus values)."""

    QUEUED = "queued"
    INITIATED = "initiated"
    RINGING = "ringing"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    CANCELED = "canceled"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """The call is over."""
        return self in _FINAL


_FINAL = frozenset(
    {CallStatus.COMPLETED, CallStatus.BUSY, CallStatus.NO_ANSWER, CallStatus.CANCELED, CallStatus.FAILED}
)
_ORDER = {CallStatus.QUEUED: 0, CallStatus.INITIATED: 1, CallStatus.RINGING: 2, CallStatus.IN_PROGRESS: 3}


@dataclass(slots=True)
class Caption:
    """One line of a call: what the caller said, or what was answered."""

    who: Literal["caller", "assistant"]
    stream: int
    """Which of the call's media streams it belongs to; each counts its turns and replies from the beginning."""
    turn: int
    reply: int
    text: str
    final: bool = False


@dataclass(slots=True)
class Transfer:
    """Where a call is put through to."""

    number: str = field(repr=False)
    """E.164"""
    warm: bool
    """Whoever answers there hears a summary first."""
    summary: asyncio.Task[str] | None = field(default=None, repr=False)


@dataclass(slots=True)
class Call:
    """One telephone call. `caller` and `callee` are E.164 numbers (or what Twilio gives instead, such as "anonymous");
    they are personal data and never logged."""

    sid: str
    direction: Literal["inbound", "outbound"]
    caller: str = field(default="", repr=False)
    callee: str = field(default="", repr=False)
    status: CallStatus = CallStatus.QUEUED
    reason: str = ""
    """Why it failed or ended, for a person."""
    answered_by: str = ""
    """Twilio's AnsweredBy: human, machine_start, machine_end_beep, fax, unknown, ..."""
    began_s: float = field(default_factory=time.monotonic)
    answered_s: float | None = None
    ended_s: float | None = None
    captions: deque[Caption] = field(default_factory=lambda: deque(maxlen=KEPT_CAPTIONS), repr=False)
    conversation: Conversation | None = None
    """The conversation of its media stream, while there is one."""
    history: History | None = None
    """What was said until its last conversation ended, for when it goes on."""
    account: Account | None = None
    """What it has cost."""
    outcome: str = ""
    """Why its last conversation ended; empty before the first, or when its stream could not start."""
    resumes_with: str | None = None
    """What its next conversation says first; None for the greeting."""
    streams: int = 0
    """How many media streams it has had."""
    lost: int = 0
    """How many of them broke off."""
    webhook_signature: str = field(default="", repr=False)
    """Signature of the webhook that was answered last."""
    spent: set[str] = field(default_factory=set, repr=False)
    """Signatures of webhooks whose stream has begun: they admit no other one."""
    transfer: "Transfer | None" = None
    on_hold: bool = False
    holding: asyncio.Task[None] | None = None
    """What tells whoever is on hold to wait."""
    changes: int = 0
    """How often something about it has changed: whoever was busy meanwhile sees that there is something new."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def moved_to(self, status: CallStatus, reason: str = "") -> None:
        """The call is in this state now. What comes late (Twilio's webhooks may overtake each other) is ignored."""
        if self.status.final or (not status.final and _ORDER[status] < _ORDER.get(self.status, 0)):
            return
        now_s = time.monotonic()
        if status is CallStatus.IN_PROGRESS and self.answered_s is None:
            self.answered_s = now_s
        if status.final:
            self.ended_s = now_s
        self.status, self.reason = status, reason or self.reason
        self.changed()

    def told(self, message: msg.Message) -> None:
        """Keep what a conversation tells, as lines for whoever watches the call."""
        match message:
            case msg.TranscriptShown(turn, text, final):
                self._caption("caller", turn, 0).text = text
                self._caption("caller", turn, 0).final = final
            case msg.ReplyText(turn, reply, text):
                self._caption("assistant", turn, reply).text += text
            case msg.ReplyRewritten(turn, reply, text):
                self._caption("assistant", turn, reply).text = text
            case msg.ReplyDone(turn, reply, _, heard, _):
                line = self._caption("assistant", turn, reply)
                line.text, line.final = heard, True
            case msg.UsageShown():
                pass  # it is asked of the account
            case _:
                return
        self.changed()

    @property
    def forgotten(self) -> bool:
        """It began so long ago that it must have ended, though nobody said so."""
        return not self.status.final and not self.conversation and self.began_s < time.monotonic() - LONGEST_CALL_S

    def changed(self) -> None:
        """Wake those who watch."""
        self.changes += 1
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    async def wait_for_change(self) -> None:
        """Return when something about the call has changed after this was called."""
        await self._changed.wait()

    def as_json(self) -> dict[str, Any]:
        """What whoever placed the call may know."""
        until_s = self.ended_s or time.monotonic()
        return {
            "sid": self.sid,
            "direction": self.direction,
            "from": self.caller,
            "to": self.callee,
            "status": self.status.value,
            "reason": self.reason,
            "answered_by": self.answered_by,
            "on_hold": self.on_hold,
            "duration_s": round(until_s - self.answered_s, 1) if self.answered_s else 0.0,
            "captions": [
                {"who": line.who, "text": line.text, "final": line.final} for line in self.captions if line.text
            ],
            "usage": self.account.summary() if self.account else None,
        }

    def _caption(self, who: Literal["caller", "assistant"], turn: int, reply: int) -> Caption:
        for line in reversed(self.captions):
            same = (line.who, line.stream, line.turn, line.reply) == (who, self.streams, turn, reply)
            if same and not (line.final and who == "assistant"):
                return line
        line = Caption(who, self.streams, turn, reply, "")
        self.captions.append(line)
        return line


class Calls:
    """Finds calls by their SID. Those that go on are never forgotten; of those that ended, KEPT_CALLS stay."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, Call] = OrderedDict()
        self._over: OrderedDict[str, None] = OrderedDict()

    def get(self, sid: str) -> Call | None:
        """The call of this SID, if it is known."""
        return self._calls.get(sid)

    def add(self, call: Call) -> Call:
        """Know the call; one of that SID that is known already is given back instead."""
        known = self._calls.setdefault(call.sid, call)
        for sid in [sid for sid, other in self._calls.items() if other.forgotten]:
            self._forget(sid)
        over = [sid for sid, other in self._calls.items() if other.status.final]
        for sid in over[: max(0, len(over) - KEPT_CALLS)]:
            self._forget(sid)
        while len(self._over) > KEPT_SIDS:
            self._over.popitem(last=False)
        return known

    def _forget(self, sid: str) -> None:
        del self._calls[sid]
        self._over[sid] = None

    def is_over(self, sid: str) -> bool:
        """Whether a call of this SID was here and has ended."""
        call = self._calls.get(sid)
        return call.status.final if call else sid in self._over

    def live(self, direction: str | None = None) -> list[Call]:
        """The calls that are not over, all or those of one direction."""
        return [call for call in self._calls.values() if not call.status.final and direction in {None, call.direction}]
