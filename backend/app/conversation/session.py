"""One conversation at work: carries events to `turns.py` and its decisions out.

Everything of a conversation that runs is a task of the group in `run`; when `run` returns, nothing of it is left. Input
comes in through methods that never block, output goes out through an Outlet that never blocks.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.audio.buffer import AudioBuffer
from app.audio.resample import resample
from app.conversation import actions as act
from app.conversation import events as ev
from app.conversation import messages as msg
from app.conversation.ear import Ear
from app.conversation.hearing import SpeechGate
from app.conversation.history import History
from app.conversation.latency import TurnClock
from app.conversation.metronome import Metronome
from app.conversation.mouth import Mouth
from app.conversation.options import Options, Providers
from app.conversation.patience import within
from app.conversation.turn_state import State
from app.conversation.turns import TurnTaking
from app.core.errors import AhoyError

MODELS_HZ = 16_000
"""What recognition and the turn model take."""
log = logging.getLogger(__name__)


class Conversation:
    """One conversation over audio at `options.transport.rate_hz`. Create it, `await run()`, and call the input methods
    from the same loop. With a `history` it goes on where another one ended."""

    def __init__(
        self,
        name: str,
        providers: Providers,
        options: Options,
        outlet: msg.Outlet,
        metronome: Metronome,
        *,
        history: History | None = None,
    ) -> None:
        self.name = name
        self.reason = ""
        """Why the conversation ended."""
        self._providers = providers
        self._options = options
        self._outlet = outlet
        self._metronome = metronome
        self._now_s = metronome.now_s
        self._turns = TurnTaking(options.rules)
        self.history = history or History(
            options.system_prompt,
            limit_tokens=options.history_limit_tokens,
            count_tokens=providers.llm.count_tokens,
        )
        self.history.begin()
        rate_hz = options.transport.rate_hz
        self._buffer = AudioBuffer(rate_hz, preroll_ms=options.preroll_ms, limit_ms=options.buffer_limit_s * 1000)
        self.ear = Ear(
            providers.vad.open(rate_hz),
            self._buffer,
            SpeechGate(sustained_ms=options.barge_in_ms, pause_ms=options.pause_ms),
            client_silence_ms=options.client_silence_ms,
            timeout_s=options.provider_timeout_s,
            now_s=self._now_s,
            crowded=lambda: metronome.crowded,
            on_event=self._dispatch,
            on_time=self._fire_timers,
        )
        self._mouth = Mouth(
            providers,
            options,
            self.history,
            metronome,
            tell=self._tell,
            play=self._play,
            clock_ms=lambda: self.ear.clock_ms,
            spawn=self._spawn,
            on_event=self._dispatch,
            on_failure=self._failed,
        )
        self._events: deque[ev.Event] = deque()
        self._dispatching = False
        self._timers: dict[ev.Timer, float] = {}
        self._over = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause_tasks: list[asyncio.Task[None]] = []
        self._side_task: asyncio.Task[None] | None = None
        self._spoken = self._clock_from_now()
        self._covered_ms = 0.0
        self._recorded: _Recorded | None = None

    # --- what comes in

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._turns.state

    @property
    def busy(self) -> bool:
        """Something is being worked on that will change the conversation without anyone saying anything."""
        resting = self._mouth.resting
        return not self.ear.idle or any(task is not resting and not task.done() for task in self._tasks)

    def hear(self, samples: NDArray[np.int16]) -> None:
        """Audio from the user: int16 mono [n] at the transport's rate. Ignored while muted."""
        self.ear.hear(samples)

    def type(self, text: str) -> None:
        """A typed turn."""
        if text.strip():
            self._spoken = self._clock_from_now()
            self._dispatch(ev.Typed(self.ear.clock_ms, text))

    def interrupt(self) -> None:
        """The user wants the reply to stop."""
        self._dispatch(ev.Interrupted(self.ear.clock_ms))

    def announce(self, text: str, *, then_end: str = "") -> None:
        """Say this now, whatever is going on. With `then_end`, a reason, these are the last words of the conversation,
        and nobody interrupts them."""
        self._spoken = self._clock_from_now()
        self._dispatch(ev.Announced(self.ear.clock_ms, text, then_end))

    def played(self, reply: int, played_ms: float) -> None:
        """The listener has heard this much of the reply. Reports about other replies are late and ignored."""
        self._mouth.played(reply, played_ms)

    def mute(self, muted: bool) -> None:
        """The user turned the microphone off or on; off, it counts as silence."""
        self.ear.mute(muted)

    def end(self, reason: str) -> None:
        """End the conversation; `run` returns soon and nothing more is told or played."""
        if self.reason:
            return
        try:
            self._mouth.close(interrupted=True)
        finally:
            self.reason = reason
            self._turns.handle(ev.Ended(self.ear.clock_ms))
            self._events.clear()
            self.ear.close()
            self._over.set()

    async def run(self) -> str:
        """Hold the conversation until it ends; returns why. Cancelling it ends the conversation too."""
        key = self._metronome.add(self._tick)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                listening = group.create_task(self._listen())
                try:
                    self._dispatch(ev.Started(self.ear.clock_ms, self._options.greeting))
                    await self._over.wait()
                finally:
                    self.end("failed")
                    for task in (listening, *self._tasks):
                        task.cancel()
        finally:
            self._metronome.remove(key)
        return self.reason

    async def _listen(self) -> None:
        try:
            await self.ear.listen()
        except Exception as error:
            self._break_off(error)

    def _tick(self) -> None:
        """Called by the metronome: silence passes, and what is due is sent."""
        if self.reason:
            return
        try:
            self.ear.tick()
            self._mouth.tick()
        except Exception as error:
            self._break_off(error)

    def _fire_timers(self) -> None:
        """The audio clock has moved."""
        for timer, due_ms in sorted(self._timers.items(), key=lambda item: item[1]):
            if due_ms <= self.ear.clock_ms and self._timers.get(timer) == due_ms:
                del self._timers[timer]
                self._dispatch(ev.TimerFired(self.ear.clock_ms, timer))

    # --- deciding

    def _dispatch(self, event: ev.Event) -> None:
        """Let turns.py decide about the event and do what it says. Events that arise meanwhile, or before the
        conversation runs, wait their turn; after the end there are none."""
        if self.reason:
            return
        self._events.append(event)
        if self._dispatching or self._group is None:
            return
        self._dispatching = True
        try:
            while self._events:
                for action in self._turns.handle(self._events.popleft()):
                    if not self.reason:
                        self._carry_out(action)
        except Exception as error:  # a defect: better no conversation than one that does not answer
            self._break_off(error)
        finally:
            self._dispatching = False

    def _carry_out(self, action: act.Action) -> None:
        match action:
            case act.SetTimer(timer, at_ms):
                self._timers[timer] = at_ms
            case act.CancelTimer(timer):
                self._timers.pop(timer, None)
            case act.BeginUtterance(onset_ms):
                self._buffer.begin_utterance(onset_ms)
            case act.ForgetUtterance():
                self._buffer.drop_utterance()
            case act.ShowSpeech(turn, speaking):
                self._tell(msg.SpeechShown(turn, speaking, self.ear.clock_ms))
                if speaking:
                    self._side(self._warm, turn)
            case act.Transcribe(_, pause):
                self._transcribe(pause)
            case act.ScorePause(_, pause):
                same = self._recorded if self._covered_ms == self.ear.clock_ms else None
                self._pause_tasks.append(self._spawn(self._score, pause, same or self._record()))
            case act.AbandonPause():
                self._stop_pause()
            case act.TranscribePartial(turn, said):
                self._side(self._transcribe_partial, turn, said)
            case act.ShowPartial(turn, text):
                self._tell(msg.TranscriptShown(turn, text, final=False))
            case act.KeepPart(turn, text):
                self._use_audio()
                self._tell(msg.TranscriptShown(turn, text, final=False))
            case act.EndTurn():
                self._spoken.decided_s = self._now_s()
            case act.ConfirmTurn(turn, text):
                self._confirm(turn, text)
            case act.ReopenTurn(turn):
                self._tell(msg.TurnReopened(turn))
            case act.DropTurn(turn):
                self._stop_pause()
                self._tell(msg.TranscriptShown(turn, "", final=True))
            case act.EndConversation(reason):
                self.end(reason)
            case _:
                self._carry_out_reply(action)

    def _carry_out_reply(self, action: act.Action) -> None:
        match action:
            case act.StartReply(number, turn, text, speculative):
                self._stop_side()
                self._mouth.answer(number, turn, self.history.context(turn, text), speculative=speculative)
            case act.Say(number, turn, text):
                self._mouth.say(number, turn, text)
            case act.Apologise(number, turn):
                self._mouth.say(number, turn, self._options.apology)
            case act.CommitReply():
                self._mouth.commit()
            case act.DiscardReply() | act.Stop():
                self._mouth.close(interrupted=True)
            case act.Finish():
                self._mouth.close(interrupted=False)
            case act.Play():
                self._mouth.play(self._spoken)
            case act.Hold():
                self._mouth.hold(True)
            case act.Resume():
                self._mouth.hold(False)
                self._spoken.decided_s = self._now_s()  # until now the turn might have gone on

    # --- the user's turn

    def _transcribe(self, pause: int) -> None:
        self._stop_side()
        self._covered_ms = self.ear.clock_ms
        last_voice_s = self.ear.last_voice_s()
        self._spoken = TurnClock(last_voice_s, pause_s=max(0.0, self._now_s() - last_voice_s))
        self._recorded = self._record()
        self._pause_tasks.append(self._spawn(self._understand, pause, self._recorded, self._spoken))

    async def _understand(self, pause: int, recorded: "_Recorded", spoken: TurnClock) -> None:
        started = self._metronome.work_s()
        try:
            audio = await recorded.for_models()
            work = self._providers.stt.transcribe(audio, language=self._options.language)
            transcript = await within(self._options.provider_timeout_s, "speech recogniser", work)
        except Exception as error:
            self._pause_failed(error)
            self._dispatch(ev.TranscriptionFailed(self.ear.clock_ms, pause))
            return
        spoken.stt_s = self._metronome.work_s() - started
        self._dispatch(ev.Transcribed(self.ear.clock_ms, pause, transcript.text))

    async def _score(self, pause: int, recorded: "_Recorded") -> None:
        try:
            work = self._providers.turn.score(await recorded.for_models())
            probability = await within(self._options.provider_timeout_s, "turn model", work)
        except Exception as error:
            self._pause_failed(error)
            probability = 0.5
        self._dispatch(ev.PauseScored(self.ear.clock_ms, pause, probability))

    async def _transcribe_partial(self, turn: int, said: str) -> None:
        audio = await self._record().for_models()
        work = self._providers.stt.transcribe(audio, language=self._options.language, partial=True)
        transcript = await within(self._options.provider_timeout_s, "speech recogniser", work)
        if transcript.text and self._turns.state is State.HEARING and self._turns.turn == turn:
            text = f"{said} {transcript.text}".strip()
            self._tell(msg.TranscriptShown(turn, text, final=False))
            await self._warm(turn, text.rpartition(" ")[0])  # the last word may have been cut in the middle

    async def _warm(self, turn: int, text: str = "") -> None:
        await self._providers.llm.warm(self.history.context(turn, text))

    def _record(self) -> "_Recorded":
        return _Recorded(self._buffer.peek(), self._buffer.rate_hz)

    def _stop_pause(self) -> None:
        for task in self._pause_tasks:
            task.cancel()
        self._pause_tasks.clear()

    def _pause_failed(self, error: Exception) -> None:
        if asyncio.current_task() in self._pause_tasks:  # what was given up may end as it likes
            self._failed(error)

    def _use_audio(self) -> None:
        self._stop_pause()
        self._buffer.consume(until_ms=self._covered_ms)

    def _confirm(self, turn: int, text: str) -> None:
        self._use_audio()
        if text:
            self.history.user_said(turn, text)
        self._tell(msg.TranscriptShown(turn, text, final=True))

    def _clock_from_now(self) -> TurnClock:
        """The account of what needs no decision: a greeting, a typed turn."""
        return TurnClock(self._now_s(), decided_s=self._now_s())

    # --- tasks

    def _spawn(self, work: Callable[..., Coroutine[Any, Any, None]], *what: object) -> asyncio.Task[None]:
        if self._group is None:
            raise RuntimeError("the conversation is not running")
        task = self._group.create_task(self._guard(work, *what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guard(self, work: Callable[..., Coroutine[Any, Any, None]], *what: object) -> None:
        try:
            await work(*what)
        except Exception as error:  # each kind of work tells of its failures itself: this is a defect
            self._break_off(error)

    def _side(self, work: Callable[..., Coroutine[Any, Any, None]], *what: object) -> None:
        """Work that is nice to have, one at a time: it makes room for what the user waits for."""
        if self._side_task is None or self._side_task.done():
            self._side_task = self._spawn(self._try, work, *what)

    async def _try(self, work: Callable[..., Coroutine[Any, Any, None]], *what: object) -> None:
        try:
            await work(*what)
        except Exception as error:  # what is really broken shows when it is needed
            log.debug("%s: side work failed: %s", self.name, type(error).__name__)

    def _stop_side(self) -> None:
        if self._side_task:
            self._side_task.cancel()
            self._side_task = None

    def _failed(self, error: Exception, *, fatal: bool = False) -> None:
        if not isinstance(error, AhoyError):  # a defect of ours or of a library: the trace is for us, not for the user
            log.error("%s: a defect", self.name, exc_info=error)
            error = AhoyError("Something failed inside the server; its log says what.")
        log.warning("%s: %s: %s", self.name, error.code, error.message)
        self._tell(msg.Trouble(error.code, error.message, fatal=fatal))

    def _break_off(self, error: Exception) -> None:
        """The conversation cannot go on."""
        self._failed(error, fatal=True)
        self.end("failed")

    def _tell(self, message: msg.Message) -> None:
        if not self.reason:
            self._outlet.tell(message)

    def _play(self, samples: NDArray[np.int16]) -> None:
        if not self.reason:
            self._outlet.play(samples)


class _Recorded:
    """An utterance so far, for models that take 16 kHz: converted once, in a thread, whoever asks first."""

    def __init__(self, samples: NDArray[np.int16], rate_hz: int) -> None:
        self._samples = samples
        self._rate_hz = rate_hz
        self._converting = asyncio.Lock()

    async def for_models(self) -> NDArray[np.int16]:
        """int16 mono 16 kHz [n]."""
        async with self._converting:
            if self._rate_hz != MODELS_HZ:
                self._samples = await asyncio.to_thread(resample, self._samples, self._rate_hz, MODELS_HZ)
                self._rate_hz = MODELS_HZ
        return self._samples
