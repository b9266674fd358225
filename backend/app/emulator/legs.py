"""The life of one leg: ringing, answered, its TwiML, its end; and what the server is told of it.

Source: twilio.com/docs/voice/api/call-resource (statuses, status callbacks) and
twilio.com/docs/voice/answering-machine-detection.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.emulator.behaviours import Behaviour, Busy, Failed, Human, NoAnswer, Refused, Rejected, Voicemail
from app.emulator.execution import Execution, apologise
from app.emulator.faults import PhoneError, TwilioFault
from app.emulator.line import FINAL, Change, End, Line
from app.emulator.webhooks import timestamp

if TYPE_CHECKING:
    from app.emulator.exchange import Exchange

EVENTS = {"initiated": "initiated", "ringing": "ringing", "in-progress": "answered"}
"""Which event of StatusCallbackEvent stands for a status; all final ones are `completed`."""
SIP_CODES = {
    "completed": "200",
    "in-progress": "200",
    "busy": "486",
    "no-answer": "487",
    "canceled": "487",
    "failed": "404",
}


@dataclass(frozen=True, slots=True)
class Callback:
    """Where the statuses of a leg are told."""

    url: str
    method: str = "POST"
    events: tuple[str, ...] = ("completed",)


@dataclass(frozen=True, slots=True)
class Detection:
    """Answering-machine detection: `Enable` or `DetectMessageEnd`, and where an asynchronous result goes."""

    mode: str
    callback: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """An outbound call as the REST API was asked for it."""

    url: str = ""
    method: str = "POST"
    twiml: str = ""
    timeout_s: float = 60
    detection: Detection | None = None


class Leg:
    """Drives one line."""

    def __init__(self, exchange: "Exchange", line: Line, callback: Callback | None = None) -> None:
        self.exchange = exchange
        self.line = line
        self.callback = callback
        self._told = 0

    def status(self, status: str) -> None:
        """The leg is in another state; the server is told if it asked for that."""
        self.line.set_status(status)
        if status == "queued":  # what was answered to the request; nothing that is told
            return
        number, self._told = self._told, self._told + 1  # counts what happens, whether the server wants it or not
        if self.callback is None or EVENTS.get(status, "completed") not in self.callback.events:
            return
        more = {"CallbackSource": "call-progress-events", "SequenceNumber": str(number), "Timestamp": timestamp()}
        if status in FINAL:
            more |= {"CallDuration": str(self.line.duration_s), "Duration": str(-(-self.line.duration_s // 60))}
        if status in SIP_CODES:
            more["SipResponseCode"] = SIP_CODES[status]
        webhooks = self.exchange.webhooks
        webhooks.notify(self.line, self.callback.url, self.callback.method, webhooks.parameters(self.line) | more)

    async def inbound(self, url: str, method: str) -> None:
        """Somebody calls: ask the server what to do, and do it."""
        self.line.event("status", "ringing")
        self.line.statuses.append(("ringing", asyncio.get_running_loop().time()))
        await self._follow(Change(url=url, method=method))

    async def outbound(self, order: Order, behaviour: Behaviour) -> None:
        """Call somebody for the server; once it is answered do what the server says."""
        result = await self.ring(behaviour, order.timeout_s)
        if result != "in-progress":
            self.status(result)
        else:
            self.answer(behaviour)
            detecting = await self._detect(order.detection, behaviour)
            try:
                await self._follow(Change(order.twiml, order.url, order.method))
            finally:
                if detecting is not None:
                    detecting.cancel()
                    await asyncio.gather(detecting, return_exceptions=True)
            if isinstance(behaviour, Voicemail) and behaviour.ended is not None:
                behaviour.ended(self.line)

    async def ring(self, behaviour: Behaviour, timeout_s: float) -> str:
        """Ring until something comes of it: the status that follows."""
        self.status("initiated")
        if isinstance(behaviour, Failed):
            return await self._after(behaviour.after_s, "failed")
        self.status("ringing")
        match behaviour:
            case Human(after_s) | Voicemail(after_s) if after_s < timeout_s:
                return await self._after(after_s, "in-progress")
            case Busy(after_s) | Rejected(after_s) if after_s < timeout_s:
                return await self._after(after_s, "busy")
            case NoAnswer(after_s=float(after_s)):
                return await self._after(after_s, "no-answer")
            case Refused():
                return await self._after(0, "failed")
            case _:
                return await self._after(timeout_s, "no-answer")

    def answer(self, behaviour: Behaviour) -> None:
        """Somebody picked up."""
        self.status("in-progress")
        match behaviour:
            case Human(talk=talk) if talk is not None:
                self.exchange.own(self._talk(talk(self.line)))
            case Voicemail(greeting=greeting) if greeting is not None:
                self.exchange.own(self._talk(self.line.say(greeting), stay=True))
            case _:
                pass
        self.exchange.answered(self.line)

    async def _talk(self, talk: Awaitable[Any], *, stay: bool = False) -> None:
        with contextlib.suppress(PhoneError):  # cut off: the call ended
            await talk
        if not stay:
            self.line.hang_up()

    async def _after(self, wait_s: float, status: str) -> str:
        """`status` after `wait_s`, unless the leg is ended before."""
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    order = await self.line.orders.get()
                    if isinstance(order, End):
                        return order.unanswered
        except TimeoutError:
            return status

    async def _detect(self, detection: Detection | None, behaviour: Behaviour) -> asyncio.Task[None] | None:
        """Find out who answered: now, or (asynchronously) in the task that is returned."""
        if detection is None or not isinstance(behaviour, (Human, Voicemail)):
            return None
        if detection.callback:
            return self.exchange.own(self._detected(detection, behaviour))
        await self._detected(detection, behaviour)
        return None

    async def _detected(self, detection: Detection, behaviour: Human | Voicemail) -> None:
        began_ms = self.line.now_ms
        if isinstance(behaviour, Voicemail) and detection.mode == "DetectMessageEnd":
            samples = 0 if behaviour.greeting is None else len(behaviour.greeting)
            await self.line.silence(ms=samples / 8)
            found = "machine_end_beep"
        else:
            await asyncio.sleep(behaviour.detected_s)
            found = "human" if isinstance(behaviour, Human) else "machine_start"
        self.line.answered_by = found
        self.line.event("answered-by", found)
        if detection.callback and self.line.status not in FINAL:
            took_ms = round(self.line.now_ms - began_ms)
            more = {"AnsweredBy": found, "MachineDetectionDuration": str(took_ms)}
            webhooks = self.exchange.webhooks
            webhooks.notify(self.line, detection.callback, "POST", webhooks.brief(self.line) | more)

    async def _follow(self, change: Change) -> None:
        """Do what the server says until the call is over, and again what it says instead when that is changed."""
        while True:
            execution = Execution(self)
            doing = asyncio.create_task(execution.run(change))
            ordered = asyncio.create_task(self.line.orders.get())
            try:
                await asyncio.wait({doing, ordered}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (doing, ordered):
                    if not task.done():
                        task.cancel()
                await asyncio.gather(doing, ordered, return_exceptions=True)
            order = None if ordered.cancelled() else ordered.result()
            if isinstance(order, Change):
                change = order
            elif isinstance(order, End) and doing.cancelled():
                self.status("completed" if self.line.answered_s is not None else order.unanswered)
                await self._afterwards(execution)
                return
            else:
                self.status(self._outcome(doing))
                return

    def _outcome(self, doing: asyncio.Task[str]) -> str:
        try:
            return doing.result()
        except TwilioFault as error:
            self.line.fault(error.fault)
            apologise(self.line)
            if self.line.answered_s is None:
                self.status("in-progress")
            return "completed"

    async def _afterwards(self, execution: Execution) -> None:
        """The caller has gone: an action is asked for all the same, and its answer does not matter any more."""
        if execution.unfinished is None:
            return
        url, method, more = execution.unfinished
        with contextlib.suppress(TwilioFault):
            await self.exchange.webhooks.fetch(self.line, url, method, more)
