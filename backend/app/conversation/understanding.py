"""The user's turn at work: the utterance that is being kept, what is made of it in each pause, and for how long.

In a pause two things are asked at once: which words they were, and whether the speaker sounds finished. When the
speaker goes on, both are given up; what was heard stays.
"""

import asyncio
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.audio.buffer import AudioBuffer
from app.conversation import events as ev
from app.conversation.ear import Ear
from app.conversation.latency import TurnClock
from app.conversation.metronome import Metronome
from app.conversation.options import Options, Providers
from app.conversation.patience import WORDS, Deadline, within
from app.conversation.recording import Recording
from app.conversation.tasks import Tasks
from app.conversation.words import Words


class Understanding:
    """Understands one conversation. `on_event` gets what was found out, `on_partial` the words of the utterance so far
    from a recogniser that listens along, `on_failure` what went wrong with a pause that still counts."""

    def __init__(
        self,
        providers: Providers,
        options: Options,
        metronome: Metronome,
        tasks: Tasks,
        *,
        on_event: Callable[[ev.Event], None],
        on_partial: Callable[[str], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        rate_hz = options.transport.rate_hz
        self.buffer = AudioBuffer(rate_hz, preroll_ms=options.preroll_ms, limit_ms=options.buffer_limit_s * 1000)
        self.words = Words(providers, options, on_partial=on_partial)
        self._turn_model = providers.turn
        self._options = options
        self._metronome = metronome
        self._now_s = metronome.now_s
        self._tasks = tasks
        self._on_event = on_event
        self._on_failure = on_failure
        self._ear: Ear
        self._asked: list[asyncio.Task[None]] = []
        """What is being found out about the pause."""
        self._covered_ms = self._onset_ms = 0.0
        """The audio that is being transcribed ends there; the utterance that is being kept begins there."""
        self._recorded: Recording | None = None

    def listen_to(self, ear: Ear) -> None:
        """The ear that fills `buffer` and calls `hear`."""
        self._ear = ear

    def hear(self, samples: NDArray[np.int16]) -> None:
        """Audio as it is looked at, at the transport's rate."""
        self.words.hear(samples)

    # --- the utterance

    def begin(self, onset_ms: float) -> None:
        """An utterance begins, unless one is being kept already."""
        if not self.words.kept:
            self._onset_ms = onset_ms
        self.buffer.begin_utterance(onset_ms)
        self.words.begin(self.buffer.peek())

    def forget(self) -> None:
        """It was none."""
        self.buffer.drop_utterance()
        self.words.forget()

    def take(self) -> None:
        """What was transcribed last belongs to the turn; what came after it stays for the next utterance."""
        self.abandon()
        self.buffer.consume(until_ms=self._covered_ms)
        self.words.forget()

    def record(self) -> Recording:
        """The utterance so far."""
        return Recording(self.buffer.peek(), self.buffer.rate_hz)

    # --- the pause

    def transcribe(self, pause: int) -> TurnClock:
        """Begin to find out the words; gives the account of the turn."""
        self._covered_ms = self._ear.clock_ms
        last_voice_s = self._ear.last_voice_s()
        spoken = TurnClock(last_voice_s, pause_s=max(0.0, self._now_s() - last_voice_s))
        self._recorded = self.record()
        self._asked.append(self._tasks.spawn(self._transcribe, pause, self._recorded, spoken))
        return spoken

    def score(self, pause: int) -> None:
        """Begin to find out whether the speaker sounds finished."""
        same = self._recorded if self._covered_ms == self._ear.clock_ms else None
        self._asked.append(self._tasks.spawn(self._score, pause, same or self.record()))

    def abandon(self) -> None:
        """The pause does not count any more."""
        for task in self._asked:
            task.cancel()
        self._asked.clear()

    async def _transcribe(self, pause: int, recorded: Recording, spoken: TurnClock) -> None:
        started = self._metronome.work_s()
        deadline = Deadline(self._now_s(), self._options.turn_deadline_s, self._now_s)
        timeout_s = min(self._options.provider_timeout_s, deadline.left_s(WORDS))
        try:
            transcript = await self.words.of(recorded, self._ear.voiced_ms_since(self._onset_ms), timeout_s)
        except Exception as error:
            self._failed(error)
            self._on_event(ev.TranscriptionFailed(self._ear.clock_ms, pause))
            return
        spoken.stt_s = self._metronome.work_s() - started
        self._on_event(ev.Transcribed(self._ear.clock_ms, pause, transcript.text))

    async def _score(self, pause: int, recorded: Recording) -> None:
        try:
            work = self._turn_model.score(await recorded.for_models())
            probability = await within(self._options.provider_timeout_s, "turn model", work)
        except Exception as error:
            self._failed(error)
            probability = 0.5
        self._on_event(ev.PauseScored(self._ear.clock_ms, pause, probability))

    def _failed(self, error: Exception) -> None:
        if asyncio.current_task() in self._asked:  # what was given up may end as it likes
            self._on_failure(error)
