"""One leg of a call and the person at its end: what a test holds in its hand.

The line has one clock from the moment it is answered: every 20 ms, at a time counted from the first, the mouth gives a
frame to whoever is connected and the ear takes one from there. All times are ms on that clock.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.audio.g711 import decode_mulaw
from app.emulator.faults import Fault, PhoneError
from app.emulator.mouth import FRAME_BYTES, FRAME_MS, Mouth, Said
from app.emulator.onsets import is_loud, speech_onsets_ms
from app.emulator.playback import SILENCE

if TYPE_CHECKING:
    from app.emulator.stream import MediaStream

FINAL = frozenset({"completed", "busy", "no-answer", "canceled", "failed"})
KEYS = frozenset("0123456789*#ABCD")
LOUD_DBFS = -45.0
"""What the ear takes for speech: 20 ms at least as loud as this. Synthetic voices are silent in between."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a line. `at_ms` is negative before it was answered."""

    at_ms: float
    kind: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """The order to end a leg, and the status it has then if it was never answered."""

    unanswered: str = "canceled"


@dataclass(frozen=True, slots=True)
class Change:
    """The order to go on with other TwiML (REST: Twiml or Url)."""

    twiml: str = ""
    url: str = ""
    method: str = "POST"


class Remote(Protocol):
    """What the line is connected to: a media stream, or another line."""

    def feed(self, frame: bytes) -> None:
        """Take 20 ms of what the person says (160 bytes mu-law)."""

    def play(self, at_ms: float) -> bytes:
        """Up to 160 bytes that the person hears from `at_ms` on."""


class Line:
    """A call as one of its two ends sees it. Made by an Exchange."""

    def __init__(self, sid: str, from_: str, to: str, direction: str, parent: "Line | None" = None) -> None:
        self.sid = sid
        self.from_ = from_
        self.to = to
        self.direction = direction
        self.parent = parent
        self.status = "queued" if direction == "outbound-api" else "ringing"
        self.statuses: list[tuple[str, float]] = []
        """Every status with the time (loop.time(), s) it was reached."""
        self.answered_by = ""
        self.errors: list[Fault] = []
        self.events: list[Event] = []
        self.on_event: Callable[[Event], None] | None = None
        self.spoken: list[str] = []
        """The texts of <Say>, and Twilio's own announcements."""
        self.played: list[str] = []
        """The URLs of <Play>."""
        self.pressed = ""
        self.streams: list[MediaStream] = []
        self.legs: list[Line] = []
        """The calls that <Dial> made from this one."""
        self.late_ms = 0.0
        """The most that this line's own clock was late: what it measured is no better than this."""
        self.orders: asyncio.Queue[End | Change] = asyncio.Queue(maxsize=100)
        self.answered_s: float | None = None
        self.ended_s: float | None = None
        self._loop = asyncio.get_running_loop()
        self._made_s = self._loop.time()
        self._mouth = Mouth()
        self._remote: Remote | None = None
        self._heard = bytearray()
        self._loud_ms: float | None = None
        self._ticks = 0
        self._timer: asyncio.Handle | None = None
        self._waiters: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        self.over = asyncio.Event()
        """Set when the call has ended and every callback about it has been delivered."""

    # --- what the person does

    async def say(self, samples: NDArray[np.int16]) -> Said:
        """Say `samples` (int16 [n], 8 kHz) in real time, after what is being said. Raises PhoneError if the call ends
        before they are said."""
        return await self.begin(samples)

    def begin(self, samples: NDArray[np.int16]) -> asyncio.Future[Said]:
        """Say `samples` without waiting; the future ends when they are said, and is cancelled by `hush()`."""
        self._check_alive("say something")
        return self._mouth.say(samples)

    async def silence(self, ms: float | None = None, until: Callable[[], object] | None = None) -> None:
        """Say nothing for `ms`, or until `until()` is true (looked at every 20 ms and whenever something happens)."""
        if ms is not None:
            end_ms = self.now_ms + ms
            await self.until(lambda: self.now_ms >= end_ms, timeout_s=ms / 1000 + 10)
        if until is not None:
            await self.until(until)

    def hush(self) -> None:
        """Break off what is being said."""
        self._mouth.hush()

    def room_noise(self, samples: NDArray[np.int16] | None) -> None:
        """What the room sounds like while nothing is said: `samples` (int16 [n], 8 kHz) over and over."""
        self._mouth.set_noise(samples)

    def press(self, keys: str) -> None:
        """Press keys: each becomes a `dtmf` message at once. Raises PhoneError for what is no key."""
        self._check_alive("press keys")
        if wrong := set(keys) - KEYS:
            raise PhoneError(f"{sorted(wrong)} are no keys of a telephone; use 0-9, *, #, A-D.")
        for key in keys:
            self.pressed += key
            self.event("key", key)
            if self.stream is not None:
                self.stream.dtmf(key)

    def hang_up(self) -> None:
        """Put the receiver down. `ended()` says when the call is over."""
        if self.status not in FINAL:
            self.event("hang-up")
            self.order(End())

    # --- what is seen and heard

    @property
    def now_ms(self) -> float:
        """Time on the line: 0 when it was answered. Before that, the time since it was made."""
        since = self._made_s if self.answered_s is None else self.answered_s
        return (self._loop.time() - since) * 1000

    @property
    def stream(self) -> "MediaStream | None":
        """The media stream that is open, if any."""
        return self.streams[-1] if self.streams and self.streams[-1].live else None

    @property
    def heard(self) -> NDArray[np.int16]:
        """All that the person heard (int16 [n], 8 kHz): sample 8 * t at t ms of the line; silence where there was
        nothing."""
        return decode_mulaw(bytes(self._heard))

    @property
    def heard_ms(self) -> float:
        """How long that is."""
        return len(self._heard) / 8

    def heard_from(self, start_ms: float, end_ms: float | None = None) -> NDArray[np.int16]:
        """What was heard between two times."""
        end = None if end_ms is None else int(end_ms * 8)
        return decode_mulaw(bytes(self._heard[max(0, int(start_ms * 8)) : end]))

    def speech_onsets(self, after_silence_ms: float = 300, loud_dbfs: float = LOUD_DBFS) -> list[float]:
        """When speech began in what was heard (ms), each time after at least `after_silence_ms` of quiet."""
        return speech_onsets_ms(self.heard, after_silence_ms, loud_dbfs)

    def hears_speech(self, within_ms: float = 60) -> bool:
        """There was speech in the last `within_ms` of what was heard."""
        return self._loud_ms is not None and self.heard_ms - self._loud_ms < within_ms

    def quiet_for(self, ms: float) -> bool:
        """Nothing has been heard for the last `ms`, and something was at some time before."""
        return self._loud_ms is not None and self.heard_ms - self._loud_ms >= ms

    # --- waiting

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Wait until `condition()` is true: looked at every 20 ms and whenever something happens on the line.

        Raises PhoneError when that does not happen in `timeout_s`, or the call ends before; it tells what happened.
        """
        if condition():
            return
        if self.over.is_set():
            raise PhoneError(self._story("The call is over, and it has not come to what was waited for."))
        future: asyncio.Future[None] = self._loop.create_future()
        waiter = (condition, future)
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                while not future.done():  # nothing ticks before the answer, and another line's news do not come here
                    await asyncio.wait([future], timeout=FRAME_MS / 1000)
                    self._look()
                future.result()
        except TimeoutError:
            raise PhoneError(self._story(f"It has not happened in {timeout_s:g} s.")) from None
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def reaches(self, status: str, timeout_s: float = 10.0) -> None:
        """Wait until the call has had this status."""
        await self.until(lambda: any(status == reached for reached, _ in self.statuses), timeout_s)

    async def streaming(self, timeout_s: float = 10.0) -> "MediaStream":
        """Wait for the next media stream (or the one that is open)."""
        await self.until(lambda: self.stream is not None, timeout_s)
        if self.stream is None:
            raise PhoneError(self._story("The stream ended at once."))
        return self.stream

    async def hears(self, timeout_s: float = 10.0) -> float:
        """Wait until the person hears speech; the time it began (ms)."""
        await self.until(self.hears_speech, timeout_s)
        return self.speech_onsets()[-1]

    async def hears_the_end(self, quiet_ms: float = 700, timeout_s: float = 60.0) -> None:
        """Wait until speech was heard and then nothing for `quiet_ms`."""
        await self.until(lambda: self.quiet_for(quiet_ms), timeout_s)

    async def ended(self, timeout_s: float = 10.0) -> str:
        """Wait until the call is over and its callbacks are delivered; its status then."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.over.wait()
        except TimeoutError:
            raise PhoneError(self._story(f"The call has not ended in {timeout_s:g} s.")) from None
        return self.status

    # --- what the exchange does with it

    def order(self, order: End | Change) -> None:
        """Have the leg ended, or go on with other TwiML."""
        self.orders.put_nowait(order)

    def event(self, kind: str, detail: str = "") -> None:
        """Note that something happened."""
        noted = Event(self.now_ms if self.answered_s is not None else -1.0, kind, detail)
        self.events.append(noted)
        if self.on_event is not None:
            self.on_event(noted)
        self._look()

    def fault(self, fault: Fault) -> None:
        """Note a fault of the server."""
        self.errors.append(fault)
        self.event("error", f"{fault.code}: {fault.message}")

    def set_status(self, status: str) -> None:
        """The call is in another state."""
        self.status = status
        self.statuses.append((status, self._loop.time()))
        if status == "in-progress":
            self.answered_s = self._loop.time()
            self._timer = self._loop.call_soon(self._tick)
        elif status in FINAL:
            self.ended_s = self._loop.time()
            self._stop()
        self.event("status", status)

    def connect(self, remote: Remote | None) -> None:
        """Put the line through to `remote`, or to nobody."""
        self._remote = remote

    @property
    def duration_s(self) -> int:
        """Whole seconds since the call was answered, at least 1 (as they are billed); 0 if it never was."""
        if self.answered_s is None:
            return 0
        end_s = self.ended_s if self.ended_s is not None else self._loop.time()
        return max(1, round(end_s - self.answered_s))

    def finish(self) -> None:
        """All is done that was to be done about this call."""
        self.over.set()
        self._look()
        for _, future in self._waiters:
            if not future.done():
                future.set_exception(PhoneError(self._story("The call ended before what was waited for.")))
        self._waiters.clear()

    def _tick(self) -> None:
        if self.answered_s is None:
            return
        now_s = self._loop.time()
        due_s = self.answered_s + self._ticks * FRAME_MS / 1000
        self.late_ms = max(self.late_ms, (now_s - due_s) * 1000)
        while due_s <= now_s:
            self._one_frame(self._ticks * FRAME_MS)
            self._ticks += 1
            due_s = self.answered_s + self._ticks * FRAME_MS / 1000
        self._look()
        if self.status not in FINAL:
            self._timer = self._loop.call_at(due_s, self._tick)

    def _one_frame(self, at_ms: float) -> None:
        frame = self._mouth.frame(at_ms)
        audio = b""
        if self._remote is not None:
            self._remote.feed(frame)
            audio = self._remote.play(at_ms)
            if audio and is_loud(audio, LOUD_DBFS):
                self._loud_ms = at_ms + FRAME_MS
        self._heard += audio + SILENCE * (FRAME_BYTES - len(audio))

    def _look(self) -> None:
        for waiter in list(self._waiters):
            condition, future = waiter
            if future.done():
                continue
            try:
                if condition():
                    future.set_result(None)
            except Exception as error:
                future.set_exception(error)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._remote = None
        self._mouth.hush(PhoneError("The call ended while this was being said."))

    def _check_alive(self, what: str) -> None:
        if self.status in FINAL:
            raise PhoneError(self._story(f"The call is over; nobody can {what}."))

    def _story(self, what: str) -> str:
        last = "; ".join(f"{event.kind} {event.detail}".strip() for event in self.events[-12:])
        return f"{what} Status: {self.status}. The last that happened: {last or 'nothing'}."


Talk = Callable[[Line], Awaitable[Any]]
"""What a person who was called does; the line is hung up when it returns, unless it has been already."""
