"""Who speaks when: the turn-taking of one conversation as a state machine.

No asyncio, no audio, no clock, no I/O: `TurnTaking.handle` takes an event and returns the actions that follow from it.
`session.py` feeds the events in and carries the actions out. What must hold whatever happens:

1. Never two replies audible at once; never a reply to a turn that was taken back.
2. History holds what was said and heard.
3. A confirmed turn gets exactly one answer, or an apology, unless the user takes it back.
4. After the end nothing is decided any more.
"""

from collections.abc import Callable
from typing import Any

from app.conversation import actions as act
from app.conversation import events as ev
from app.conversation.events import Timer
from app.conversation.turn_state import Pause, Reply, State, TurnRules


class TurnTaking:
    """Turn-taking of one conversation. Feed every event to `handle`, in order, and carry out what it returns."""

    def __init__(self, rules: TurnRules) -> None:
        self.rules = rules
        self.speculation = rules.speculation
        """Replies may be begun before it is sure that the turn is over."""
        self.state = State.LISTENING
        self.turn = 0
        """Number of the latest turn; 0 before the first."""
        self._said = ""
        """What is known of the open turn from before the utterance that is being kept."""
        self._typed = ""
        """Typed while the turn was being spoken; comes after what was spoken."""
        self._pause: Pause | None = None
        self._pauses = 0
        self._reply: Reply | None = None
        self._replies = 0
        self._voice = False
        self._sustained = False
        self._parting = False
        """The last words are being said, and nobody interrupts them."""
        self._leaving = ""
        """The conversation was about to end for this reason when the open turn began, which may be a noise."""
        self._timers: set[Timer] = set()
        self._actions: list[act.Action] = []

    def handle(self, event: ev.Event) -> list[act.Action]:
        """The actions that follow from `event`, in order."""
        if self.state is State.ENDED or (self._parting and not isinstance(event, _HEARD_WHEN_PARTING)):
            return []
        self._actions = []
        _REACTIONS[type(event)](self, event)
        return self._actions

    # --- the user's voice

    def _started(self, event: ev.Started) -> None:
        if self.state is not State.LISTENING:  # something was typed before
            return
        if event.greeting:
            self._say(0, event.greeting)
        else:
            self._set_idle(event.at_ms)

    def _speech_started(self, event: ev.SpeechStarted) -> None:
        self._voice, self._sustained = True, False
        if self.state is State.LISTENING:
            self._do(act.BeginUtterance(event.onset_ms))
            self._open_turn(event.at_ms)
        elif self.state is State.PAUSED and not self._the_pause.forced:
            self._take_back_pause()
            self._hear(event.at_ms)
        elif self.state in {State.REPLYING, State.SPEAKING}:
            self._hold(event.onset_ms)

    def _speech_sustained(self, event: ev.SpeechSustained) -> None:
        self._voice = self._sustained = True
        if self.state is State.LISTENING:  # the start of this voice was passed over (it began during a typed turn)
            self._do(act.BeginUtterance(event.at_ms))
            self._open_turn(event.at_ms)
        elif self.state in {State.HELD, State.REPLYING, State.SPEAKING}:
            self._do(act.BeginUtterance(event.at_ms))
            self._barge_in(event.at_ms)

    def _barge_in(self, at_ms: float) -> None:
        """The user speaks over a reply: it stops. If the user's turn was not answered yet, it just goes on."""
        owed = self._the_reply.owed
        self._end_reply()
        if owed:
            self._do(act.ReopenTurn(self.turn))
            self._hear(at_ms)
        else:
            self._open_turn(at_ms)

    def _speech_paused(self, event: ev.SpeechPaused) -> None:
        spoke = self._voice and self._sustained
        self._voice = self._sustained = False
        if self.state is State.HEARING:
            self._fall_silent(event.last_voice_ms)
        elif self.state is State.HELD:
            reply = self._the_reply
            self._do(act.ForgetUtterance(), act.Resume(reply.number))
            self.state = State.SPEAKING if reply.audible else State.REPLYING
            self._play_if_ready()
        elif self._pause and spoke and event.last_voice_ms > self._pause.last_voice_ms:
            self._pause.more_until_ms = event.last_voice_ms

    def _fall_silent(self, last_voice_ms: float) -> None:
        self._begin_pause(last_voice_ms)
        self._do(act.ShowSpeech(self.turn, speaking=False))
        endpointing = self.rules.endpointing
        if endpointing.window_ms:
            return
        if endpointing.scored:
            self._do(act.ScorePause(self.turn, self._the_pause.number))
        self._set(Timer.ENDPOINT, last_voice_ms + endpointing.max_ms)

    def _buffer_full(self, event: ev.BufferFull) -> None:
        """The utterance cannot grow any more: the turn is taken as it is, so that nothing of it is lost."""
        if self.state is State.HEARING:
            self._begin_pause(event.at_ms, over=True, forced=True)
        elif self.state is State.HELD:
            self._barge_in(event.at_ms)
            self._begin_pause(event.at_ms, over=True, forced=True)

    # --- the pause

    def _begin_pause(self, last_voice_ms: float, *, over: bool = False, forced: bool = False) -> None:
        self._pauses += 1
        self._pause = Pause(self._pauses, last_voice_ms, over=over, forced=forced)
        self._cancel(Timer.PARTIAL)
        self._do(act.Transcribe(self.turn, self._pauses))
        if over:
            self._cancel(Timer.WINDOW)
            self._do(act.EndTurn(self.turn))
        self.state = State.PAUSED

    def _take_back_pause(self) -> None:
        self._do(act.AbandonPause(self._the_pause.number))
        self._pause = None
        self._cancel(Timer.ENDPOINT, Timer.RESCORE)
        if self._reply:
            self._end_reply()

    def _pause_scored(self, event: ev.PauseScored) -> None:
        pause = self._pause
        if pause is None or pause.number != event.pause or pause.over:
            return
        endpointing = self.rules.endpointing
        due_ms = pause.last_voice_ms + endpointing.delay_ms(event.probability)
        if due_ms <= event.at_ms:
            self._end_turn(event.at_ms)
            return
        self._set(Timer.ENDPOINT, due_ms)
        if due_ms > event.at_ms + endpointing.rescore_ms:
            self._set(Timer.RESCORE, event.at_ms + endpointing.rescore_ms)

    def _transcribed(self, event: ev.Transcribed) -> None:
        pause = self._pause
        if pause is None or pause.number != event.pause or pause.text is not None or pause.failed:
            return
        pause.text = event.text.strip()
        if pause.over:
            self._confirm(event.at_ms)
        elif pause.text:
            text = self._turn_text()
            self._do(act.ShowPartial(self.turn, text))
            if self.speculation:
                reply = self._new_reply(self.turn)
                self._do(act.StartReply(reply.number, self.turn, text, speculative=True))

    def _transcription_failed(self, event: ev.TranscriptionFailed) -> None:
        pause = self._pause
        if pause is None or pause.number != event.pause or pause.text is not None:
            return
        pause.failed = True
        if pause.over:
            self._confirm(event.at_ms)

    def _end_turn(self, at_ms: float) -> None:
        pause = self._the_pause
        pause.over = True
        self._cancel(Timer.ENDPOINT, Timer.RESCORE, Timer.WINDOW)
        self._do(act.EndTurn(self.turn))
        if pause.text is not None or pause.failed:
            self._confirm(at_ms)

    def _confirm(self, at_ms: float) -> None:
        """The turn is over and its transcript is there, or will never be."""
        pause = self._the_pause
        text, failed = self._turn_text(), pause.failed
        self._pause = None
        self._said, self._typed = text, ""
        if (self._voice and self._sustained) or pause.more_until_ms is not None:
            self._go_on(pause, at_ms)
            return
        if not text and not failed:
            self._do(act.ForgetUtterance(), act.DropTurn(self.turn))
            if self._leaving:
                self._end_it(self._leaving)
            else:
                self._listen(at_ms)
            return
        self._leaving = ""
        self._do(act.ConfirmTurn(self.turn, text))
        if failed or (self._reply and self._reply.failed):
            self._apologise()
        else:
            self._answer(text)
        if self._voice:  # a voice has just begun
            self._hold(pause.last_voice_ms)

    def _go_on(self, pause: Pause, at_ms: float) -> None:
        """The end was forced, but the user spoke on: the turn is not over after all."""
        if self._reply:
            self._end_reply()
        self._do(act.KeepPart(self.turn, self._said), act.BeginUtterance(pause.last_voice_ms))
        self._hear(at_ms)
        if not self._voice:
            self._fall_silent(pause.more_until_ms or at_ms)

    # --- the reply

    def _answer(self, text: str) -> None:
        if parting := self.rules.parting(text):
            if self._reply:
                self._end_reply()
            self._say(self.turn, parting.answer, last=parting.reason)
            return
        if self._reply is None:
            reply = self._new_reply(self.turn)
            self._do(act.StartReply(reply.number, self.turn, text, speculative=False))
        self._do(act.CommitReply(self._the_reply.number))
        self.state = State.REPLYING
        if not self._voice:
            self._play_if_ready()

    def _say(self, turn: int, text: str, *, last: str = "") -> None:
        """Begin a reply of fixed words."""
        reply = self._new_reply(turn, fixed=True)
        reply.last = last
        self._cancel(Timer.IDLE)
        self._do(act.Say(reply.number, turn, text), act.CommitReply(reply.number))
        self.state = State.REPLYING

    def _apologise(self, *, after_all: bool = False) -> None:
        if self._reply:
            self._end_reply()
        reply = self._new_reply(self.turn, fixed=True, after_all=after_all)
        self._do(act.Apologise(reply.number, self.turn), act.CommitReply(reply.number))
        self.state = State.REPLYING

    def _reply_ready(self, event: ev.ReplyReady) -> None:
        if self._reply and self._reply.number == event.reply:
            self._reply.ready = True
            self._play_if_ready()

    def _play_if_ready(self) -> None:
        reply = self._the_reply
        if reply.ready and self.state is State.REPLYING:
            reply.audible = True
            self._do(act.Play(reply.number))
            self.state = State.SPEAKING

    def _reply_failed(self, event: ev.ReplyFailed) -> None:
        reply = self._reply
        if reply is None or reply.number != event.reply:
            return
        if reply.audible or self.state is State.PAUSED:  # there is more to hear, or the user may still go on
            reply.failed = True
        elif reply.fixed:  # even the apology cannot be spoken: it was shown, and that was the answer
            self._finish_reply()
            self._after_reply(event.at_ms, reply)
        else:
            held = self.state is State.HELD
            self._apologise()
            if held:
                self._hold(event.at_ms)

    def _playout_finished(self, event: ev.PlayoutFinished) -> None:
        reply = self._reply
        if reply is None or reply.number != event.reply or not reply.audible:
            return
        self._finish_reply()
        broke_off = reply.failed and not reply.fixed and not reply.last
        if broke_off and self.state is State.SPEAKING:
            self._apologise(after_all=True)
        else:
            self._after_reply(event.at_ms, reply)

    def _reply_ends_it(self, event: ev.ReplyEndsIt) -> None:
        if self._reply and self._reply.number == event.reply:
            self._reply.last = event.reason

    def _after_reply(self, at_ms: float, reply: Reply | None = None) -> None:
        """If someone began to speak over the reply, it is their turn now."""
        if self.state is State.HELD:
            self._open_turn(at_ms)
            self._leaving = reply.last if reply else ""
        elif reply and reply.last:
            self._end_it(reply.last)
        else:
            self._listen(at_ms)

    def _hold(self, onset_ms: float) -> None:
        """Someone may be interrupting."""
        self._do(act.BeginUtterance(onset_ms), act.Hold(self._the_reply.number))
        self.state = State.HELD

    def _finish_reply(self) -> None:
        reply = self._the_reply
        if self.state is State.HELD:
            self._do(act.Resume(reply.number))
        self._do(act.Finish(reply.number))
        self._reply = None

    def _end_reply(self) -> None:
        """Silence the reply, or forget it if nothing of it was audible."""
        reply = self._the_reply
        self._do(act.Stop(reply.number) if reply.audible else act.DiscardReply(reply.number))
        self._reply = None

    # --- typing, the button, the alarms

    def _typed_turn(self, event: ev.Typed) -> None:
        text = event.text.strip()
        if not text:
            return
        if self.state in {State.HEARING, State.PAUSED}:
            self._typed = _join(self._typed, text)
            self._end_turn_now(event.at_ms)
            return
        if self.state is State.HELD:
            self._do(act.ForgetUtterance())
        goes_on = self._reply is not None and self._reply.owed
        if self._reply:
            self._end_reply()
        if goes_on:
            self._do(act.ReopenTurn(self.turn))
            text = _join(self._said, text)
        else:
            self.turn += 1
        self._cancel(Timer.IDLE)
        self._said = text
        self._do(act.ConfirmTurn(self.turn, text))
        self._answer(text)

    def _end_turn_now(self, at_ms: float) -> None:
        """Something was typed while the user spoke or paused: both together are the turn, even if a voice goes on."""
        self._voice = self._sustained = False
        if self.state is State.HEARING:
            self._begin_pause(at_ms, over=True, forced=True)
        pause = self._the_pause
        pause.forced = True
        if self._reply:  # it answered only the spoken part
            self._end_reply()
        if not pause.over:
            self._end_turn(at_ms)

    def _interrupted(self, event: ev.Interrupted) -> None:
        reply = self._reply
        if reply is None or self.state is State.PAUSED:
            return
        self._end_reply()
        self._after_reply(event.at_ms)

    def _announced(self, event: ev.Announced) -> None:
        text = event.text.strip()
        if not text and not event.reason:
            return
        answers = 0
        if self._reply:
            answers = self.turn if self._reply.owed else 0
            self._end_reply()
        if self.state in {State.HEARING, State.PAUSED}:
            answers = self._cut_turn_short()
        self._do(act.ForgetUtterance())
        self._cancel(*Timer)
        self._voice = self._sustained = False
        self._parting = bool(event.reason)
        if text:
            self._say(answers, text, last=event.reason)
        else:
            self._end_it(event.reason)

    def _cut_turn_short(self) -> int:
        """What is known of the open turn is all there will be of it. Returns its number; 0 when there was nothing."""
        known = self._turn_text()
        self._pause = None
        self._said, self._typed = known, ""
        self._do(act.ConfirmTurn(self.turn, known) if known else act.DropTurn(self.turn))
        return self.turn if known else 0

    def _end_it(self, reason: str) -> None:
        self._do(act.EndConversation(reason))
        self.state = State.ENDED

    def _timer_fired(self, event: ev.TimerFired) -> None:
        if event.timer not in self._timers:
            return
        self._timers.discard(event.timer)
        match event.timer:  # each is set only while there is what it is about
            case Timer.ENDPOINT:
                self._end_turn(event.at_ms)
            case Timer.RESCORE:
                self._do(act.ScorePause(self.turn, self._the_pause.number))
            case Timer.PARTIAL:
                self._do(act.TranscribePartial(self.turn, self._said))
                self._set(Timer.PARTIAL, event.at_ms + self.rules.partial_ms)
            case Timer.WINDOW if self.state is State.HEARING:
                self._begin_pause(event.at_ms, over=True, forced=True)
            case Timer.WINDOW:
                self._end_turn(event.at_ms)
            case Timer.IDLE:
                self._end_it("idle")

    def _ended(self, _: ev.Ended) -> None:
        self.state = State.ENDED

    # --- small steps

    def _open_turn(self, at_ms: float) -> None:
        self.turn += 1
        self._said = self._typed = self._leaving = ""
        self._cancel(Timer.IDLE)
        self._hear(at_ms)

    def _hear(self, at_ms: float) -> None:
        self._do(act.ShowSpeech(self.turn, speaking=True))
        self.state = State.HEARING
        if self.rules.partial_ms:
            self._set(Timer.PARTIAL, at_ms + self.rules.partial_ms)
        if self.rules.endpointing.window_ms and Timer.WINDOW not in self._timers:
            self._set(Timer.WINDOW, at_ms + self.rules.endpointing.window_ms)

    def _listen(self, at_ms: float) -> None:
        self.state = State.LISTENING
        self._set_idle(at_ms)

    def _set_idle(self, at_ms: float) -> None:
        if self.rules.idle_ms:
            self._set(Timer.IDLE, at_ms + self.rules.idle_ms)

    def _new_reply(self, turn: int, *, fixed: bool = False, after_all: bool = False) -> Reply:
        self._replies += 1
        self._reply = Reply(self._replies, turn, fixed=fixed, after_all=after_all)
        return self._reply

    @property
    def _the_reply(self) -> Reply:
        if self._reply is None:
            raise RuntimeError(f"no reply in state {self.state.name}")
        return self._reply

    @property
    def _the_pause(self) -> Pause:
        if self._pause is None:
            raise RuntimeError(f"no pause in state {self.state.name}")
        return self._pause

    def with_said(self, words: str) -> str:
        """These words of the utterance that is being kept, and what the open turn has from before it."""
        return _join(self._said, words)

    def _turn_text(self) -> str:
        spoken = (self._pause.text if self._pause else None) or ""
        return _join(_join(self._said, spoken), self._typed)

    def _do(self, *actions: act.Action) -> None:
        self._actions.extend(actions)

    def _set(self, timer: Timer, at_ms: float) -> None:
        self._timers.add(timer)
        self._do(act.SetTimer(timer, at_ms))

    def _cancel(self, *timers: Timer) -> None:
        for timer in timers:
            if timer in self._timers:
                self._timers.discard(timer)
                self._do(act.CancelTimer(timer))


def _join(before: str, after: str) -> str:
    return f"{before} {after}".strip() if before and after else before or after


_HEARD_WHEN_PARTING = (ev.ReplyReady, ev.ReplyFailed, ev.PlayoutFinished, ev.Ended)
"""What still counts while the last words are said."""
_REACTIONS: dict[type[ev.Event], Callable[[TurnTaking, Any], None]] = {
    ev.Started: TurnTaking._started,
    ev.SpeechStarted: TurnTaking._speech_started,
    ev.SpeechSustained: TurnTaking._speech_sustained,
    ev.SpeechPaused: TurnTaking._speech_paused,
    ev.PauseScored: TurnTaking._pause_scored,
    ev.Transcribed: TurnTaking._transcribed,
    ev.TranscriptionFailed: TurnTaking._transcription_failed,
    ev.ReplyReady: TurnTaking._reply_ready,
    ev.ReplyFailed: TurnTaking._reply_failed,
    ev.ReplyEndsIt: TurnTaking._reply_ends_it,
    ev.PlayoutFinished: TurnTaking._playout_finished,
    ev.Typed: TurnTaking._typed_turn,
    ev.Interrupted: TurnTaking._interrupted,
    ev.Announced: TurnTaking._announced,
    ev.BufferFull: TurnTaking._buffer_full,
    ev.TimerFired: TurnTaking._timer_fired,
    ev.Ended: TurnTaking._ended,
}
