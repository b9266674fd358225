"""<Dial>: another leg, a word to whoever answers there, and the two lines put together.

Source: twilio.com/docs/voice/twiml/dial and /number.
"""

import asyncio
import re
from collections import deque
from typing import TYPE_CHECKING

from app.emulator import twiml
from app.emulator.faults import INVALID_CALLER_ID, INVALID_DIAL_NUMBER, Fault, TwilioFault
from app.emulator.line import FINAL, Change, End, Line

if TYPE_CHECKING:
    from app.emulator.legs import Leg

E164 = re.compile(r"\+[1-9][0-9]{6,14}")
MAX_FRAMES = 50
"""Frames that wait between two lines: their clocks beat at different moments."""


async def dial(leg: "Leg", verb: twiml.Dial, base: str, outcome: dict[str, str]) -> None:
    """Call the number and talk until one of both hangs up; `outcome` becomes what the action is told."""
    from app.emulator.legs import Callback, Leg  # noqa: PLC0415 (a leg dials, and what is dialled is a leg)

    exchange, caller = leg.exchange, leg.line
    outcome |= {"DialCallStatus": "completed", "DialBridged": "false"}  # told when the caller hangs up before the end
    shown = verb.caller_id or caller.from_
    fault = _fault(verb, shown, {*exchange.numbers, caller.from_, caller.to})
    if fault is not None:
        caller.fault(fault)
        outcome["DialCallStatus"] = "failed"
        return
    child = exchange.new_line(shown, verb.number.number, "outbound-dial", parent=caller)
    caller.legs.append(child)
    outcome["DialCallSid"] = child.sid
    number = verb.number
    callback = None
    if number.status_callback:
        url = exchange.webhooks.absolute(number.status_callback, base)
        callback = Callback(url, number.status_callback_method, number.status_callback_events)
    other = Leg(exchange, child, callback)
    behaviour = exchange.behaviour(number.number)
    try:
        result = await other.ring(behaviour, verb.timeout_s)
        if result != "in-progress":
            other.status(result)
            outcome["DialCallStatus"] = result
            return
        other.answer(behaviour)
        if number.url and not await _whispered(other, exchange.webhooks.absolute(number.url, base), number.method):
            return
        if caller.answered_s is None:
            leg.status("in-progress")
            exchange.answered(caller)
        outcome["DialBridged"] = "true"
        caller.event("bridged", "to the number that was dialled")
        await _talk(caller, child)
    finally:
        if child.status not in FINAL:
            other.status("completed" if child.answered_s is not None else "canceled")
        if child.answered_s is not None:
            outcome["DialCallDuration"] = str(child.duration_s)
        await exchange.webhooks.told(child)
        child.finish()


def _fault(verb: twiml.Dial, shown: str, allowed: set[str]) -> Fault | None:
    if not E164.fullmatch(verb.number.number):
        return Fault(INVALID_DIAL_NUMBER, "Dial: Invalid phone number format: it is not in E.164")
    if shown not in allowed:
        return Fault(INVALID_CALLER_ID, "Dial: Invalid callerId: not a number of this account, nor of this call")
    return None


async def _whispered(other: "Leg", url: str, method: str) -> bool:
    """Say to whoever answered what the document at `url` says; False if the call is over then."""
    from app.emulator.execution import Execution  # noqa: PLC0415 (see above)

    # a document that ends without <Hangup> is followed by the connection: its end is not the end of the leg
    execution = Execution(other, whisper=True)
    saying = asyncio.create_task(execution.run(Change(url=url, method=method)))
    ordered = asyncio.create_task(other.line.orders.get())
    try:
        await asyncio.wait({saying, ordered}, return_when=asyncio.FIRST_COMPLETED)
        if ordered.done():
            return False
        saying.result()
        return not any(event.kind == "verb" and event.detail == "Hangup" for event in other.line.events)
    except TwilioFault as error:
        other.line.fault(error.fault)
        if other.line.parent is not None:
            other.line.parent.fault(error.fault)
        return False
    finally:
        for task in (saying, ordered):
            task.cancel()
        await asyncio.gather(saying, ordered, return_exceptions=True)


async def _talk(caller: Line, child: Line) -> None:
    there, back = _Wire(), _Wire()
    caller.connect(_End(there, back))
    child.connect(_End(back, there))
    try:
        while not isinstance(await child.orders.get(), End):
            pass
    finally:
        caller.connect(None)
        child.connect(None)


class _Wire:
    """One direction between two lines."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque(maxlen=MAX_FRAMES)


class _End:
    def __init__(self, out: _Wire, back: _Wire) -> None:
        self._out = out
        self._back = back

    def feed(self, frame: bytes) -> None:
        self._out.frames.append(frame)

    def play(self, _: float) -> bytes:
        return self._back.frames.popleft() if self._back.frames else b""
