"""A stage for conversations in virtual time: the real session, with providers that do as they are told.

The audio is made: `VOICE` is loud, `SILENCE` is not, and the voice detector of this stage goes by that. Run it under
`looptime`, where a sleep takes no time and `loop.time()` is exact.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import looptime
import numpy as np
import orjson
from app.conversation import messages as msg
from app.conversation.endpointing import Endpointing
from app.conversation.history import History
from app.conversation.metronome import Metronome
from app.conversation.options import Options, Providers
from app.conversation.phrases import Phrases
from app.conversation.session import Conversation
from app.conversation.turn_state import TurnRules
from app.llm.base import Message
from app.stt.base import Transcript
from app.tts.base import Voice
from app.tts.scripted import ScriptedVoice
from app.usage.account import Account
from app.usage.prices import Prices
from app.vad.base import WINDOW_MS
from app.websocket import wire
from wire_schema import BYTES_PER_MS, BrokenProtocolError, Judge

RATE_HZ = 16_000
FRAME_MS = 20
FRAME = RATE_HZ * FRAME_MS // 1000
VOICE = 8000
SILENCE = 0
T = TypeVar("T")


class LoudnessDetector:
    """A voice detector that takes loud for voice, at the rate it is opened for."""

    def __init__(self) -> None:
        self.rate_hz = RATE_HZ
        self._kept = np.zeros(0, np.int16)
        self.failure: Exception | None = None

    def open(self, rate_hz: int) -> "LoudnessDetector":
        assert rate_hz in {8000, 16_000}
        self.rate_hz = rate_hz
        self.reset()
        return self

    async def feed(self, samples: np.ndarray) -> list[float]:
        if self.failure:
            raise self.failure
        audio = np.concatenate((self._kept, samples))
        window = self.rate_hz * WINDOW_MS // 1000
        whole = len(audio) // window * window
        self._kept = audio[whole:]
        return [0.97 if np.abs(one).max() > 1000 else 0.02 for one in audio[:whole].reshape(-1, window)]

    def reset(self) -> None:
        self._kept = np.zeros(0, np.int16)

    async def close(self) -> None: ...


@dataclass
class ToldTurnDetector:
    """Gives the probabilities it was told, the last one again and again; keeps the audio it was given."""

    probabilities: list[float] = field(default_factory=lambda: [0.98])
    failure: Exception | None = None
    given: list[np.ndarray] = field(default_factory=list)

    async def score(self, audio: np.ndarray) -> float:
        self.given.append(audio)
        await asyncio.sleep(0.05)
        if self.failure:
            raise self.failure
        return self.probabilities.pop(0) if len(self.probabilities) > 1 else self.probabilities[0]

    async def close(self) -> None: ...


@dataclass
class ToldRecognizer:
    """Understands the words it was told, utterance by utterance; keeps the audio it was given."""

    words: list[str] = field(default_factory=lambda: ["tell me more"])
    delay_s: float = 0.1
    failure: Exception | None = None
    given: list[np.ndarray] = field(default_factory=list)
    running: int = 0
    listener: "ToldListener | None" = None
    """Who listens along, if anybody does."""

    def listen(
        self, rate_hz: int, *, language: str | None = None, on_partial: Callable[[str], None]
    ) -> "ToldListener | None":
        if self.listener:
            self.listener.on_partial = on_partial
        return self.listener

    async def transcribe(self, audio: np.ndarray, *, language: str | None = None, partial: bool = False) -> Transcript:
        self.running += 1
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.running -= 1
        if partial:
            return Transcript("so far")
        self.given.append(audio)
        if self.failure:
            raise self.failure
        return Transcript(self.words.pop(0) if len(self.words) > 1 else self.words[0])

    async def close(self) -> None: ...


@dataclass
class ToldListener:
    """Listens along and understands what it was told; keeps the audio of each utterance as it was finished."""

    words: list[str] = field(default_factory=lambda: ["tell me more"])
    delay_s: float = 0.05
    failure: Exception | None = None
    given: list[np.ndarray] = field(default_factory=list)
    utterances: int = 0
    closed: bool = False
    on_partial: Callable[[str], None] = lambda _: None
    _heard: list[np.ndarray] = field(default_factory=list)

    def begin(self) -> None:
        self.utterances += 1
        self._heard = []

    def hear(self, samples: np.ndarray) -> None:
        self._heard.append(samples)

    async def finish(self) -> Transcript:
        self.given.append(np.concatenate(self._heard))
        await asyncio.sleep(self.delay_s)
        if self.failure:
            raise self.failure
        return Transcript(self.words.pop(0) if len(self.words) > 1 else self.words[0])

    async def close(self) -> None:
        self.closed = True


@dataclass
class ToldModel:
    """Says what it was told, word by word; keeps the contexts it was given."""

    replies: list[str] = field(default_factory=lambda: ["Here is one thing. And here is another, which is longer."])
    first_s: float = 0.1
    word_s: float = 0.01
    failure: Exception | None = None
    fail_after_words: int = 0
    given: list[list[Message]] = field(default_factory=list)
    running: int = 0
    context_tokens: int = 4096

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def reply(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncGenerator[str, None]:
        self.given.append(list(messages))
        self.running += 1
        try:
            await asyncio.sleep(self.first_s)
            text = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            for number, word in enumerate(text.split(" ")):
                if self.failure and number >= self.fail_after_words:
                    raise self.failure
                yield f" {word}" if number else word
                await asyncio.sleep(self.word_s)
        finally:
            self.running -= 1

    async def warm(self, messages: Sequence[Message]) -> None: ...

    async def close(self) -> None: ...


class ToldVoice(ScriptedVoice):
    """A tone for each chunk, or a failure; keeps the chunks it was given."""

    failure: Exception | None = None
    fail_after_chunks: int = 0
    fail_after_pieces: int = 0
    silent: bool = False

    def __init__(self, *, first_audio_ms: int, audio_ms: int) -> None:
        super().__init__(first_audio_ms=first_audio_ms, audio_ms=audio_ms)
        self.given: list[str] = []
        self.running = 0

    async def speak(
        self, text: str, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[np.ndarray, None]:
        self.given.append(text)
        failure = self.failure if len(self.given) > self.fail_after_chunks else None
        self.running += 1
        pieces = 0
        try:
            if failure and not self.fail_after_pieces:
                raise failure
            async for piece in super().speak(text, voice=voice):
                yield piece[:0] if self.silent else piece
                pieces += 1
                if failure and pieces >= self.fail_after_pieces:
                    raise failure
        finally:
            self.running -= 1

    @property
    def voices(self) -> Sequence[Voice]:
        return super().voices


OPTIONS = Options(
    rules=TurnRules(Endpointing(240, 1600), idle_ms=60_000, partial_ms=1000),
    system_prompt="Be brief.",
    greeting="",
    apology="Sorry, please say that again.",
    language="en",
    voice=None,
    pause_ms=128,
    barge_in_ms=160,
    preroll_ms=300,
    buffer_limit_s=30,
    client_silence_ms=500,
    history_limit_tokens=1000,
    reply_max_tokens=100,
    provider_timeout_s=5,
)


def rules(**changes: Any) -> TurnRules:
    """The rules of the stage, but for these changes."""
    return replace(OPTIONS.rules, **changes)


def run_in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, for property tests, which cannot be coroutines."""
    loop = looptime.patch_event_loop(asyncio.new_event_loop())
    loop.setup_looptime()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def stall(seconds: float) -> None:
    """The event loop does nothing for so long: virtual time goes on, and nobody has noticed."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, looptime.LoopTimeEventLoop)
    loop.setup_looptime(start=loop.time() + seconds)


class TelephoneJudge(Judge):
    """Of a line that cannot lower the volume: a reply that waited may have said its last word twice."""

    def audio(self, data: bytes) -> None:
        """8 kHz, 16 bits."""
        super().audio(data * 2)

    def _audio_end(self, message: Mapping[str, Any]) -> None:
        reply = self._playing_reply(message)
        self._rule(not reply.ended, "audio.end twice")
        self._rule(message["duration_ms"] <= reply.audio_bytes / BYTES_PER_MS + 0.1, "audio.end of what was not sent")
        reply.ended = True


class Stage:
    """A conversation and the person in it. Implements Outlet: keeps what the person is told and hears, and when. With a
    `history` it goes on where another conversation ended."""

    def __init__(
        self, *, typed_first: str = "", tone_ms: int = 1500, history: History | None = None, **options: Any
    ) -> None:
        loop = asyncio.get_running_loop()
        self.typed_first = typed_first
        self.history = history
        self.account: Account | None = None
        """What it may cost; set before the conversation begins."""
        self.now_s: Callable[[], float] = loop.time
        self.vad = LoudnessDetector()
        self.turn = ToldTurnDetector()
        self.stt = ToldRecognizer()
        self.llm = ToldModel()
        self.tts = ToldVoice(first_audio_ms=80, audio_ms=tone_ms)
        self.phrases = Phrases(self.tts)
        self.metronome = Metronome(loop.time)
        self.options = replace(OPTIONS, **options)
        self.rate_hz = self.options.transport.rate_hz
        self.judge = (Judge if self.options.transport.ducks else TelephoneJudge)(seen=["ready", "started"])
        """Holds everything that is told against the written protocol."""
        self.broken_rules: list[str] = []
        self.told: list[tuple[float, msg.Message]] = []
        self.heard: list[tuple[float, np.ndarray]] = []
        self.conversation: Conversation
        self._running: asyncio.Task[str]

    def tell(self, message: msg.Message) -> None:
        self.told.append((self.now_s(), message))
        try:
            if text := wire.encode(message):
                self.judge.text(orjson.loads(text))
        except BrokenProtocolError as broken:
            self.broken_rules.append(str(broken))

    def play(self, samples: np.ndarray) -> None:
        self.heard.append((self.now_s(), samples))
        try:
            self.judge.audio(samples.tobytes())
        except BrokenProtocolError as broken:
            self.broken_rules.append(str(broken))

    async def __aenter__(self) -> "Stage":
        await self.phrases.audio(self.options.apology, None)
        providers = Providers(self.vad, self.turn, self.stt, self.llm, self.tts, self.phrases)
        self.conversation = Conversation(
            "stage",
            providers,
            self.options,
            self,
            self.metronome,
            account=self.account or Account(Prices(()), None),
            history=self.history,
        )
        self.conversation.type(self.typed_first)
        self._running = asyncio.create_task(self.conversation.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.conversation.end("client")
        await self._running
        assert self.broken_rules == []

    async def ended(self) -> str:
        """Wait until the conversation has ended; returns why."""
        return await self._running

    def cancel(self) -> None:
        """Cancel the task that holds the conversation."""
        self._running.cancel()

    async def send(self, level: int, length_ms: float) -> None:
        """Send this much audio in real time: `VOICE` or `SILENCE`."""
        for _ in range(int(length_ms / FRAME_MS)):
            self.conversation.hear(np.full(self.rate_hz * FRAME_MS // 1000, level, np.int16))
            await asyncio.sleep(FRAME_MS / 1000)

    async def say(self, voice_ms: float = 1000, then_silent_ms: float = 2000) -> float:
        """Speak, then be silent; returns when the voice ended (seconds)."""
        await self.send(VOICE, voice_ms)
        ended_s = self.now_s()
        await self.send(SILENCE, then_silent_ms)
        return ended_s

    def messages(self, kind: type[Any]) -> list[Any]:
        """What was told of one kind, in order."""
        return [message for _, message in self.told if isinstance(message, kind)]

    def when(self, kind: type[Any], number: int = 0) -> float:
        """When a message of this kind was told."""
        return [at_s for at_s, message in self.told if isinstance(message, kind)][number]

    @property
    def said(self) -> list[str]:
        """The final transcripts, in order."""
        return [message.text for message in self.messages(msg.TranscriptShown) if message.final]

    @property
    def answers(self) -> list[msg.ReplyDone]:
        """The replies that are over, in order."""
        return self.messages(msg.ReplyDone)
