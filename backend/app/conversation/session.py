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
from app.conversation import actions as act
from app.conversation import events as ev
from app.conversation import messages as msg
from app.conversation.ear import Ear
from app.conversation.hearing import SpeechGate
from app.conversation.history import History
from app.conversation.latency import TurnClock, turn_latency
from app.conversation.metronome import Metronome
from app.conversation.options import Options, Providers
from app.conversation.reply import Reply
from app.conversation.turn_state import State
from app.conversation.turns import TurnTaking
from app.core.errors import AhoyError, OverloadedError

RATE_HZ = 16_000
log = logging.getLogger(__name__)


class Conversation:
    """One conversation over 16 kHz audio. Create it, `await run()`, and call the input methods from the same loop."""

    def __init__(
        self, name: str, providers: Providers, options: Options, outlet: msg.Outlet, metronome: Metronome
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
        self._history = History(
            options.system_prompt,
            limit_tokens=options.history_limit_tokens,
            count_tokens=providers.llm.count_tokens,
        )
        self._buffer = AudioBuffer(RATE_HZ, preroll_ms=options.preroll_ms, limit_ms=options.buffer_limit_s * 1000)
        self.ear = Ear(
            providers.vad.open(RATE_HZ),
            self._buffer,
            SpeechGate(sustained_ms=options.barge_in_ms, pause_ms=options.pause_ms),
            client_silence_ms=options.client_silence_ms,
            now_s=self._now_s,
            on_event=self._dispatch,
            on_time=self._fire_timers,
        )
        self._events: deque[ev.Event] = deque()
        self._dispatching = False
        self._timers: dict[ev.Timer, float] = {}
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause_tasks: list[asyncio.Task[None]] = []
        self._side_task: asyncio.Task[None] | None = None
        self._reply: Reply | None = None
        self._spoken = TurnClock(self._now_s())
        self._covered_ms = 0.0

    # --- what comes in

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._turns.state

    @property
    def busy(self) -> bool:
        """Something is being worked on that will change the conversation without anyone saying anything."""
        if not self.ear.idle:
            return True
        resting = self._reply.task if self._reply and not self._reply.playout.has_room.is_set() else None
        return any(task is not resting and not task.done() for task in self._tasks)

    def hear(self, samples: NDArray[np.int16]) -> None:
        """Audio from the user: int16 mono 16 kHz [n]. Ignored while muted."""
        self.ear.hear(samples)

    def type(self, text: str) -> None:
        """A typed turn."""
        self._spoken = TurnClock(self._now_s())
        self._dispatch(ev.Typed(self.ear.clock_ms, text))

    def interrupt(self) -> None:
        """The user wants the reply to stop."""
        self._dispatch(ev.Interrupted(self.ear.clock_ms))

    def played(self, reply: int, played_ms: float) -> None:
        """The listener has heard this much of the reply. Reports about other replies are late and ignored."""
        if self._reply and self._reply.number == reply and self._reply.playing:
            self._reply.playout.report(played_ms)

    def mute(self, muted: bool) -> None:
        """The user turned the microphone off or on; off, it counts as silence."""
        self.ear.mute(muted)

    def end(self, reason: str) -> None:
        """End the conversation; `run` returns soon and nothing more is told or played."""
        if self.reason:
            return
        self._keep_reply(interrupted=True)
        self._dispatch(ev.Ended(self.ear.clock_ms))
        self.reason = reason
        self.ear.close()

    async def run(self) -> str:
        """Hold the conversation until it ends; returns why. Cancelling it ends the conversation too."""
        key = self._metronome.add(self._tick)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._dispatch(ev.Started(self.ear.clock_ms, self._options.greeting))
                await self._listen()
                for task in self._tasks:
                    task.cancel()
        finally:
            self._metronome.remove(key)
            self.end("failed")
            self._group = None
        return self.reason

    async def _listen(self) -> None:
        try:
            await self.ear.listen()
        except AhoyError as error:
            self._trouble(error, fatal=True)
            self.end("failed")

    def _tick(self) -> None:
        """Called by the metronome: silence passes, and what is due is sent."""
        self.ear.tick()
        if self._reply and self._reply.playing:
            self._send(self._reply)

    def _fire_timers(self) -> None:
        """The audio clock has moved."""
        for timer, due_ms in sorted(self._timers.items(), key=lambda item: item[1]):
            if due_ms <= self.ear.clock_ms and self._timers.get(timer) == due_ms:
                del self._timers[timer]
                self._dispatch(ev.TimerFired(self.ear.clock_ms, timer))

    # --- deciding

    def _dispatch(self, event: ev.Event) -> None:
        """Let turns.py decide about the event and do what it says. Events that arise meanwhile wait their turn."""
        self._events.append(event)
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while self._events:
                for action in self._turns.handle(self._events.popleft()):
                    self._carry_out(action)
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
                self._pause_tasks.append(self._spawn(self._score, pause))
            case act.AbandonPause():
                self._abandon_pause()
            case act.TranscribePartial(turn, said):
                self._side(self._transcribe_partial, turn, said)
            case act.ShowPartial(turn, text):
                self._tell(msg.TranscriptShown(turn, text, final=False))
            case act.ConfirmTurn(turn, text):
                self._confirm(turn, text)
            case act.ReopenTurn(turn):
                self._tell(msg.TurnReopened(turn))
            case act.DropTurn(turn):
                self._tell(msg.TranscriptShown(turn, "", final=True))
            case act.StartReply(number, turn, text, speculative):
                reply = self._new_reply(number, turn, speculative=speculative)
                context = self._history.context(turn, text)
                reply.task = self._spawn(self._make, reply, reply.answer, context)
            case act.Say(number, turn, text):
                self._say(number, turn, text)
            case act.Apologise(number, turn):
                self._say(number, turn, self._options.apology)
            case act.CommitReply(number):
                self._commit(number)
            case act.DiscardReply() | act.Stop():
                self._keep_reply(interrupted=True)
            case act.Finish():
                self._keep_reply(interrupted=False)
            case act.Play(number):
                self._play(number)
            case act.Hold(number) | act.Resume(number):
                if self._reply and self._reply.playing:
                    self._tell(msg.AudioHeld(number, held=isinstance(action, act.Hold)))
            case act.EndConversation(reason):
                self.end(reason)

    # --- the user's turn

    def _transcribe(self, pause: int) -> None:
        self._stop_side()
        self._covered_ms = self.ear.clock_ms
        last_voice_s = self.ear.last_voice_s()
        self._spoken = TurnClock(last_voice_s, pause_s=max(0.0, self._now_s() - last_voice_s))
        self._pause_tasks.append(self._spawn(self._understand, pause, self._buffer.peek()))

    async def _understand(self, pause: int, audio: NDArray[np.int16]) -> None:
        spoken = self._spoken
        started = self._metronome.work_s()
        try:
            async with asyncio.timeout(self._options.provider_timeout_s):
                transcript = await self._providers.stt.transcribe(audio, language=self._options.language)
        except Exception as error:
            self._failed("speech recognition", error)
            self._dispatch(ev.TranscriptionFailed(self.ear.clock_ms, pause))
            return
        spoken.stt_s = self._metronome.work_s() - started
        self._dispatch(ev.Transcribed(self.ear.clock_ms, pause, transcript.text))

    async def _score(self, pause: int) -> None:
        try:
            async with asyncio.timeout(self._options.provider_timeout_s):
                probability = await self._providers.turn.score(self._buffer.peek())
        except Exception as error:
            self._failed("turn detection", error)
            probability = 0.5
        self._dispatch(ev.PauseScored(self.ear.clock_ms, pause, probability))

    async def _transcribe_partial(self, turn: int, said: str) -> None:
        try:
            transcript = await self._providers.stt.transcribe(
                self._buffer.peek(), language=self._options.language, partial=True
            )
        except OverloadedError:
            return  # partial transcripts are the first thing to go without when there is much to do
        if transcript.text and self._turns.state is State.HEARING and self._turns.turn == turn:
            self._tell(msg.TranscriptShown(turn, f"{said} {transcript.text}".strip(), final=False))

    async def _warm(self, turn: int) -> None:
        await self._providers.llm.warm(self._history.context(turn, ""))

    def _abandon_pause(self) -> None:
        for task in self._pause_tasks:
            task.cancel()
        self._pause_tasks.clear()

    def _confirm(self, turn: int, text: str) -> None:
        self._spoken.confirmed_s = self._now_s()
        self._abandon_pause()
        self._buffer.consume(until_ms=self._covered_ms)
        if text:
            self._history.user_said(turn, text)
            self._tell(msg.TranscriptShown(turn, text, final=True))

    # --- the reply

    def _new_reply(self, number: int, turn: int, *, speculative: bool = False) -> Reply:
        self._stop_side()
        reply = Reply(
            number,
            turn,
            rate_hz=RATE_HZ,
            speculative=speculative,
            work_s=self._metronome.work_s,
            on_text=lambda text: self._show_text(reply, text),
            on_ready=lambda: self._dispatch(ev.ReplyReady(self.ear.clock_ms, number)),
        )
        self._reply = reply
        return reply

    def _say(self, number: int, turn: int, text: str) -> None:
        reply = self._new_reply(number, turn)
        reply.task = self._spawn(self._make, reply, reply.say, text)

    async def _make(self, reply: Reply, how: Callable[..., Coroutine[Any, Any, None]], what: object) -> None:
        try:
            await how(what, self._providers, self._options)
        except Exception as error:
            self._failed("reply", error)
            self._dispatch(ev.ReplyFailed(self.ear.clock_ms, reply.number))
        if reply.broken:
            self._failed("reply", reply.broken)

    def _show_text(self, reply: Reply, text: str) -> None:
        if reply.committed and reply is self._reply:
            self._tell(msg.ReplyText(reply.turn, reply.number, text))

    def _commit(self, number: int) -> None:
        reply = self._reply
        if reply and reply.number == number:
            reply.committed = True
            if reply.text:
                self._show_text(reply, reply.text)

    def _play(self, number: int) -> None:
        reply = self._reply
        if reply is None or reply.number != number:
            return
        reply.playing = True
        self._tell(msg.AudioStarted(reply.turn, number))
        started_s = self._now_s()
        self._send(reply)
        self._tell(turn_latency(reply.turn, number, self._spoken, reply.clock, started_s))

    def _send(self, reply: Reply) -> None:
        now_ms = self._now_s() * 1000
        samples = reply.playout.due(now_ms)
        if samples is not None and not self.reason:
            self._outlet.play(samples)
        if reply.playout.all_sent and not reply.announced_end:
            reply.announced_end = True
            self._tell(msg.AudioEnded(reply.number, reply.playout.duration_ms))
        if reply.playout.is_over(now_ms):
            reply.playing = False
            self._dispatch(ev.PlayoutFinished(self.ear.clock_ms, reply.number))

    def _keep_reply(self, *, interrupted: bool) -> None:
        """The reply is over: what was heard of it goes into history, the rest is forgotten."""
        reply, self._reply = self._reply, None
        if reply is None:
            return
        if reply.task:
            reply.task.cancel()
        audible = reply.playing or not interrupted
        heard = reply.playout.heard_text(self._now_s() * 1000) if audible else ""
        if reply.playing and interrupted:
            self._tell(msg.AudioCleared(reply.number))
        self._history.assistant_said(reply.turn, heard)
        if reply.committed:
            self._tell(msg.ReplyDone(reply.turn, reply.number, reply.text, heard, interrupted))

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
        except Exception as error:
            self._failed("conversation", error)

    def _side(self, work: Callable[..., Coroutine[Any, Any, None]], *what: object) -> None:
        """Work that is nice to have, one at a time: it makes room for what the user waits for."""
        if self._side_task is None or self._side_task.done():
            self._side_task = self._spawn(work, *what)

    def _stop_side(self) -> None:
        if self._side_task:
            self._side_task.cancel()
            self._side_task = None

    def _failed(self, what: str, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            error = AhoyError(
                f"The {what} gave nothing within {self._options.provider_timeout_s:g} s.", code="provider_failed"
            )
        if not isinstance(error, AhoyError):  # a defect of ours or of a library: the trace is for us, not for the user
            log.error("%s: the %s failed", self.name, what, exc_info=error)
            error = AhoyError(f"The {what} failed; the server's log says why.")
        self._trouble(error)

    def _trouble(self, error: AhoyError, *, fatal: bool = False) -> None:
        log.warning("%s: %s: %s", self.name, error.code, error.message)
        self._tell(msg.Trouble(error.code, error.message, fatal=fatal))

    def _tell(self, message: msg.Message) -> None:
        if not self.reason:
            self._outlet.tell(message)
