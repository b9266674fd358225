"""A conversation held by a program: recordings or typed lines in, an account of every turn out.

It goes through the same engine as a call. In real time it takes as long as the recordings; fast, time is moved by hand:
20 ms of audio at a time, waiting for the models in between, so that the outcome does not depend on the machine.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.conversation import messages as msg
from app.conversation.metronome import TICK_MS, HandMetronome
from app.conversation.options import Options
from app.conversation.session import Conversation
from app.conversation.turn_state import State
from app.engine import Engine

RATE_HZ = 16_000
FRAME = int(TICK_MS * RATE_HZ / 1000)
POLL_S = 0.001
AFTER_SPEECH_MS = 600.0
"""After a recording, silence for this long at least: a pause has been noticed by then if there was speech."""
LIMIT_MS = 120_000.0
"""No answer takes longer than this."""


@dataclass(slots=True)
class Turn:
    """What became of one turn. Turn 0 is the greeting."""

    number: int
    said: str = ""
    reply: str = ""
    heard: str = ""
    interrupted: bool = False
    latency: msg.LatencyShown | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(slots=True)
class Moment:
    """Something the conversation told, `at_s` seconds of real time after its start."""

    at_s: float
    message: msg.Message


@dataclass
class Dialogue:
    """Implements Outlet. `on_message` sees everything the conversation tells."""

    engine: Engine
    options: Options
    on_message: Callable[[msg.Message], None] = lambda _: None
    turns: dict[int, Turn] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    audio: list[NDArray[np.int16]] = field(default_factory=list)
    audio_at_s: list[float] = field(default_factory=list)
    """When each piece of `audio` was sent."""
    room: NDArray[np.int16] = field(default_factory=lambda: np.zeros(FRAME, np.int16))
    """What the microphone hears over and over while nobody speaks (int16 mono 16 kHz [n])."""

    def __post_init__(self) -> None:
        self._conversation = self.engine.open("dialogue", self.options, self)
        self._running: asyncio.Task[str] | None = None
        self._started_s = self._due_s = time.perf_counter()

    def tell(self, message: msg.Message) -> None:
        """Keep account of what the conversation tells."""
        self.moments.append(Moment(self.now_s(), message))
        match message:
            case msg.TranscriptShown(turn, text, final=True):
                self._turn(turn).said = text
            case msg.ReplyDone(turn, _, text, heard, interrupted):
                entry = self._turn(turn)
                entry.reply, entry.heard, entry.interrupted = text, heard, interrupted
            case msg.LatencyShown(turn=turn):
                self._turn(turn).latency = message
            case _:
                pass
        self.on_message(message)

    def play(self, samples: NDArray[np.int16]) -> None:
        """Keep the reply's audio."""
        self.audio.append(samples)
        self.audio_at_s.append(self.now_s())

    @property
    def conversation(self) -> Conversation:
        """The conversation itself."""
        return self._conversation

    def now_s(self) -> float:
        """Seconds of real time since the start; what `moments` and `audio_at_s` are given in."""
        return time.perf_counter() - self._started_s

    async def start(self) -> None:
        """Begin, and hear the greeting out if there is one."""
        self._started_s = self._due_s = time.perf_counter()
        self._running = asyncio.create_task(self.engine.hold(self._conversation))
        await asyncio.sleep(0)
        await self._until_quiet(0.0)

    async def speak(self, samples: NDArray[np.int16]) -> None:
        """Say a recording (int16 mono 16 kHz) and hear the answers out."""
        await self.send(samples)
        await self._until_quiet(AFTER_SPEECH_MS)

    async def type(self, text: str) -> None:
        """Type a line and hear the answer out."""
        self._conversation.type(text)
        await self._until_quiet(0.0)

    async def stop(self) -> str:
        """End the conversation; returns the reason it ended for."""
        self._conversation.end("client")
        return await self._running if self._running else "client"

    async def send(self, samples: NDArray[np.int16]) -> float:
        """Send a recording as a microphone would: a frame when its last sample has been spoken. Returns the time at
        which its first sample was spoken."""
        self._due_s = max(self._due_s, time.perf_counter())
        began_s = self._due_s - self._started_s
        for start in range(0, len(samples), FRAME):
            await self._frame(samples[start : start + FRAME])
        return began_s

    async def silence(self, until: Callable[[], bool], *, limit_ms: float = LIMIT_MS) -> float:
        """Be silent until something is the case, or the limit is reached; returns for how long (milliseconds)."""
        frames = 0
        while frames * TICK_MS < limit_ms and not until() and not self._conversation.reason:
            positions = np.arange(frames * FRAME, (frames + 1) * FRAME)
            await self._frame(self.room.take(positions, mode="wrap"))
            frames += 1
        return frames * TICK_MS

    async def _until_quiet(self, at_least_ms: float) -> None:
        await self.silence(lambda: False, limit_ms=at_least_ms)
        # In real time the ear always has the latest frame before it; it is far from being behind by as much as that.
        by_hand = isinstance(self.engine.metronome, HandMetronome)
        ear = self._conversation.ear
        await self.silence(lambda: self._conversation.state is State.LISTENING and (ear.idle or not by_hand))

    async def _frame(self, samples: NDArray[np.int16]) -> None:
        metronome = self.engine.metronome
        self._due_s += TICK_MS / 1000
        if not isinstance(metronome, HandMetronome):
            await asyncio.sleep(max(0.0, self._due_s - time.perf_counter()))
            self._conversation.hear(samples)
            return
        self._conversation.hear(samples)
        metronome.advance()
        await asyncio.sleep(0)
        while self._conversation.busy and not self._conversation.reason:
            await asyncio.sleep(POLL_S)

    def _turn(self, number: int) -> Turn:
        return self.turns.setdefault(number, Turn(number))
