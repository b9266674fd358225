"""One conversation at work: carries events to `turns.py` and its decisions out.

Everything of a conversation that runs is a task of the group in `run`; when `run` returns, nothing of it is left. Input
comes in through methods that never block, output goes out through an Outlet that never blocks.
"""

import asyncio
import logging
from collections import deque

import numpy as np
from numpy.typing import NDArray

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
from app.conversation.patience import Deadline
from app.conversation.tasks import Tasks
from app.conversation.turn_state import State
from app.conversation.turns import TurnTaking
from app.conversation.understanding import Understanding
from app.core.errors import AhoyError
from app.core.languages import only_speaks
from app.usage.account import Account
from app.usage.meter import bind

BUDGET = "budget"
"""Reason of a conversation that ended because its budget, or the day's, was used up."""
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
        account: Account,
        history: History | None = None,
    ) -> None:
        self.name = name
        self.account = account
        """What the conversation has cost."""
        self.reason = ""
        """Why the conversation ended."""
        self._providers = providers
        self._options = options
        self._outlet = outlet
        self._metronome = metronome
        self._now_s = metronome.now_s
        self._turns = TurnTaking(options.rules)
        self._tasks = Tasks(name, prepare=self._bind_account, on_defect=self._break_off)
        self.history = history or History(
            options.system_prompt,
            limit_tokens=options.history_limit_tokens,
            count_tokens=providers.llm.count_tokens,
        )
        self.history.begin()
        account.begin()
        self._user = Understanding(
            providers,
            options,
            metronome,
            self._tasks,
            on_event=self._dispatch,
            on_partial=self._heard_partly,
            on_failure=self._failed,
        )
        self.ear = Ear(
            providers.vad.open(options.transport.rate_hz),
            self._user.buffer,
            SpeechGate(sustained_ms=options.barge_in_ms, pause_ms=options.pause_ms),
            client_silence_ms=options.client_silence_ms,
            timeout_s=options.provider_timeout_s,
            now_s=self._now_s,
            crowded=lambda: metronome.crowded,
            on_event=self._dispatch,
            on_time=self._fire_timers,
            on_audio=self._user.hear,
        )
        self._user.listen_to(self.ear)
        self._mouth = Mouth(
            providers,
            options,
            self.history,
            metronome,
            tell=self._tell,
            play=self._play,
            clock_ms=lambda: self.ear.clock_ms,
            spawn=self._tasks.spawn,
            on_event=self._dispatch,
            on_failure=self._reply_failed,
            account=account,
        )
        self._events: deque[ev.Event] = deque()
        self._dispatching = False
        self._timers: dict[ev.Timer, float] = {}
        self._over = asyncio.Event()
        self._spoken = self._clock_from_now()
        self._unspoken = ""
        """The language that was said to be one that no voice speaks."""
        self._apology = options.apology

    # --- what comes in

    @property
    def state(self) -> State:
        """Where the conversation stands."""
        return self._turns.state

    @property
    def busy(self) -> bool:
        """Something is being worked on that will change the conversation without anyone saying anything."""
        resting = self._mouth.resting
        return not self.ear.idle or any(task is not resting and not task.done() for task in self._tasks.running)

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
                self._tasks.open(group)
                listening = group.create_task(self._listen())
                try:
                    self._tasks.spawn(self._open_words)
                    self._mouth.language = self._spoken_language()
                    self._dispatch(ev.Started(self.ear.clock_ms, self._options.greeting))
                    await self._over.wait()
                finally:
                    self.end("failed")
                    listening.cancel()
                    self._tasks.cancel()
        finally:
            self._metronome.remove(key)
            await self._user.words.close()
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
            self._tell_usage()
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
        if self._dispatching or not self._tasks.opened:
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
                self._user.begin(onset_ms)
            case act.ForgetUtterance():
                self._user.forget()
            case act.ShowSpeech(turn, speaking):
                self._tell(msg.SpeechShown(turn, speaking, self.ear.clock_ms))
                if speaking:
                    self._tasks.side(self._warm, turn)
            case act.Transcribe(_, pause):
                self._tasks.stop_side()
                affordable = self.account.may_speculate and not self.account.over
                self._turns.speculation = self._options.rules.speculation and affordable
                self._spoken = self._user.transcribe(pause)
            case act.ScorePause(_, pause):
                self._user.score(pause)
            case act.AbandonPause():
                self._user.abandon()
            case act.TranscribePartial(turn, said):
                self._tasks.side(self._transcribe_partial, turn, said)
            case act.ShowPartial(turn, text):
                self._tell(msg.TranscriptShown(turn, text, final=False))
            case act.KeepPart(turn, text):
                self._user.take()
                self._tell(msg.TranscriptShown(turn, text, final=False))
            case act.EndTurn():
                self._spoken.decided_s = self._now_s()
            case act.ConfirmTurn(turn, text):
                self._confirm(turn, text)
            case act.ReopenTurn(turn):
                self._tell(msg.TurnReopened(turn))
            case act.DropTurn(turn):
                self._user.abandon()
                self._tell(msg.TranscriptShown(turn, "", final=True))
                if self.account.over:  # a television is listened to, and paid for, without ever being answered
                    self.announce(self._options.budget_phrase, then_end=BUDGET)
            case act.EndConversation(reason):
                self.end(reason)
            case _:
                self._carry_out_reply(action)

    def _carry_out_reply(self, action: act.Action) -> None:
        match action:
            case act.StartReply(number, turn, text, speculative):
                self._start_reply(number, turn, text, speculative=speculative)
            case act.Say(number, turn, text):
                self._mouth.say(number, turn, text)
            case act.Apologise(number, turn):
                self._mouth.say(number, turn, self._apology)
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

    def _start_reply(self, number: int, turn: int, text: str, *, speculative: bool) -> None:
        self._tasks.stop_side()
        if self.account.over and not speculative:
            self.announce(self._options.budget_phrase, then_end=BUDGET)
            return
        begun_s = self._spoken.last_voice_s if speculative else self._now_s() - self._spoken.stt_s
        deadline = Deadline(begun_s, self._options.turn_deadline_s, self._now_s)
        self._mouth.language = self._spoken_language()
        self._mouth.answer(number, turn, self.history.context(turn, text), speculative=speculative, deadline=deadline)

    def _spoken_language(self) -> str | None:
        """The language of the reply, if there is a voice for it; where there is none, the voice does what it can."""
        language = self._user.words.language
        if language is None:
            return None
        spoken = {voice.language for voice in self._providers.tts.voices}
        if language in spoken or "mul" in spoken:
            return language
        if self._unspoken != language:
            self._unspoken = language
            text = f"You are understood, but {only_speaks(sorted(spoken))}."
            self._tell(msg.Trouble("language_not_spoken", text))
        return None

    # --- what it costs

    def _bind_account(self) -> None:
        """What the task that begins now asks of providers is put down to the turn that goes on."""
        turn = self._turns.turn
        bind(self.account, lambda: turn)

    def _tell_usage(self, *, at_once: bool = False) -> None:
        if usage := self.account.due(self._now_s(), at_once=at_once):
            self._tell(usage)

    # --- the user's turn

    async def _transcribe_partial(self, turn: int, said: str) -> None:
        words = "" if self._user.words.listens else await self._user.words.partly(self._user.record())
        if words and self._turns.state is State.HEARING and self._turns.turn == turn:
            text = f"{said} {words}".strip()
            self._tell(msg.TranscriptShown(turn, text, final=False))
            await self._warm(turn, text.rpartition(" ")[0])  # the last word may have been cut in the middle

    def _heard_partly(self, words: str) -> None:
        """The recogniser that listens along has understood more."""
        if words and self._turns.state is State.HEARING:
            self._tell(msg.TranscriptShown(self._turns.turn, self._turns.with_said(words), final=False))

    async def _warm(self, turn: int, text: str = "") -> None:
        self._providers.open_ahead()
        await self._providers.llm.warm(self.history.context(turn, text))

    async def _open_words(self) -> None:
        bind(self.account, lambda: self._turns.turn)  # who listens along works for whatever turn there is
        self._user.words.open()

    def _confirm(self, turn: int, text: str) -> None:
        self._user.take()
        if text:
            self.history.user_said(turn, text)
        self._tell(msg.TranscriptShown(turn, text, final=True))

    def _clock_from_now(self) -> TurnClock:
        """The account of what needs no decision: a greeting, a typed turn."""
        return TurnClock(self._now_s(), decided_s=self._now_s())

    # --- what goes out, and what goes wrong

    def _reply_failed(self, error: Exception) -> None:
        filtered = isinstance(error, AhoyError) and error.code == "content_filtered"
        self._apology = self._options.refusal if filtered else self._options.apology
        self._failed(error)

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
        if self.reason:
            return
        self._outlet.tell(message)
        if isinstance(message, msg.ReplyDone):
            self._tell_usage(at_once=True)

    def _play(self, samples: NDArray[np.int16]) -> None:
        if not self.reason:
            self._outlet.play(samples)
