"""The speaking half of a conversation: replies are made, played in step with time, and what was heard of them is kept.

There is one reply at a time. Nothing of it is shown before it is committed, nothing of it is heard before it is played.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.conversation import messages as msg
from app.conversation.events import Event, PlayoutFinished, ReplyEndsIt, ReplyFailed, ReplyReady
from app.conversation.history import History
from app.conversation.latency import TurnClock, turn_latency
from app.conversation.metronome import Metronome
from app.conversation.options import Options, Providers
from app.conversation.patience import Deadline
from app.conversation.reply import Reply
from app.llm.base import Message
from app.usage.account import Account, Tally
from app.usage.meter import bind


class Mouth:
    """Speaks for one conversation. `clock_ms` is the audio clock that its events go by, `spawn` starts a
    task that ends with the conversation."""

    def __init__(
        self,
        providers: Providers,
        options: Options,
        history: History,
        metronome: Metronome,
        *,
        tell: Callable[[msg.Message], None],
        play: Callable[[NDArray[np.int16]], None],
        clock_ms: Callable[[], float],
        spawn: Callable[..., asyncio.Task[None]],
        on_event: Callable[[Event], None],
        on_failure: Callable[[Exception], None],
        account: Account,
    ) -> None:
        self._account = account
        self._providers = providers
        self._options = options
        self._history = history
        self._metronome = metronome
        self._tell = tell
        self._play = play
        self._clock_ms = clock_ms
        self._spawn = spawn
        self._on_event = on_event
        self._on_failure = on_failure
        self.language: str | None = options.language
        """ISO 639-1 code of what the replies are in; None when it is not known."""
        self._reply: Reply | None = None
        self._tally = Tally(account)
        """What the making of the reply has cost."""

    @property
    def resting(self) -> asyncio.Task[None] | None:
        """The task that makes a reply, while it waits for audio to be heard before it makes more."""
        return self._reply.task if self._reply and not self._reply.playout.has_room.is_set() else None

    def answer(
        self, number: int, turn: int, context: Sequence[Message], *, speculative: bool, deadline: Deadline
    ) -> None:
        """Begin to make the answer to `context`, to be heard by `deadline`."""
        reply = self._begin(number, turn, speculative=speculative)
        answer = partial(reply.answer, language=self.language, deadline=deadline)
        reply.task = self._spawn(self._make, reply, self._tally, answer, context)

    def say(self, number: int, turn: int, text: str) -> None:
        """Begin to make a reply of fixed words."""
        reply = self._begin(number, turn)
        reply.task = self._spawn(self._make, reply, self._tally, reply.say, text)

    def commit(self) -> None:
        """Its text may be shown: what there is, and what comes."""
        if self._reply:
            self._reply.committed = True
            self._show_text(self._reply, self._reply.text)

    def play(self, spoken: TurnClock) -> None:
        """Let it be heard; `spoken` is the account of the turn it answers."""
        reply = self._reply
        if reply is None:
            return
        reply.playing = True
        self._tell(msg.AudioStarted(reply.turn, reply.number))
        started_s = self._metronome.now_s()
        self._send(reply)
        self._tell(turn_latency(reply.turn, reply.number, spoken, reply.clock, started_s))

    def hold(self, held: bool) -> None:
        """Lower it, or bring it back. Before it is heard there is nothing to lower."""
        reply = self._reply
        if reply and reply.playing and reply.held != held:
            reply.held = held
            self._tell(msg.AudioHeld(reply.number, held))
            if self._options.transport.ducks:
                return
            if held:
                reply.playout.wait(self._now_ms())
            else:
                reply.playout.go_on(self._now_ms())
                self._send(reply)

    def played(self, number: int, played_ms: float) -> None:
        """The listener has heard this much. Reports about other replies are late and ignored."""
        if self._reply and self._reply.number == number and self._reply.playing:
            self._reply.playout.report(played_ms, self._now_ms())

    def tick(self) -> None:
        """Call often: sends what is due."""
        reply = self._reply
        if reply is None or not reply.playing:
            return
        self._send(reply)
        if reply.playout.is_over(self._now_ms()):
            self._on_event(PlayoutFinished(self._clock_ms(), reply.number))

    def close(self, *, interrupted: bool) -> None:
        """The reply is over: what was heard of it goes into history, the rest is forgotten."""
        reply, self._reply = self._reply, None
        if reply is None:
            return
        reply.stop()
        if not reply.playing:
            self._tally.waste(reply.turn)
        heard = reply.playout.heard_text(self._now_ms()) if reply.playing else ""
        if reply.playing and interrupted:
            self._tell(msg.AudioCleared(reply.number))
        if reply.committed:
            self._tell(msg.ReplyDone(reply.turn, reply.number, reply.text, heard, interrupted))
        self._history.assistant_said(reply.turn, heard)

    def _begin(self, number: int, turn: int, *, speculative: bool = False) -> Reply:
        reply = Reply(
            number,
            turn,
            transport=self._options.transport,
            speculative=speculative,
            work_s=self._metronome.work_s,
            on_text=lambda text: self._show_text(reply, text),
            on_rewritten=lambda: self._show_rewritten(reply),
            on_wish=lambda reason: self._on_event(ReplyEndsIt(self._clock_ms(), number, reason)),
            on_ready=lambda: self._on_event(ReplyReady(self._clock_ms(), number)),
        )
        self._reply = reply
        self._tally = Tally(self._account)
        return reply

    async def _make(
        self, reply: Reply, tally: Tally, how: Callable[..., Coroutine[Any, Any, None]], what: object
    ) -> None:
        bind(tally, lambda: reply.turn)
        try:
            await how(what, self._providers, self._options)
        except Exception as error:
            if reply is self._reply:  # what was given up may end as it likes
                self._on_failure(error)
                self._on_event(ReplyFailed(self._clock_ms(), reply.number))

    def _show_rewritten(self, reply: Reply) -> None:
        if reply.committed and reply is self._reply:
            self._tell(msg.ReplyRewritten(reply.turn, reply.number, reply.text))

    def _show_text(self, reply: Reply, text: str) -> None:
        if text and reply.committed and reply is self._reply:
            self._tell(msg.ReplyText(reply.turn, reply.number, text))

    def _send(self, reply: Reply) -> None:
        now_ms = self._now_ms()
        while (samples := reply.playout.due(now_ms)) is not None:
            self._play(samples)
            self._tell_reached(reply)
        self._tell_reached(reply)  # of what was sent before it was known to be the end of a sentence
        if reply.playout.all_sent and not reply.announced_end:
            reply.announced_end = True
            self._tell(msg.AudioEnded(reply.number, reply.playout.duration_ms))

    def _tell_reached(self, reply: Reply) -> None:
        reached_ms = reply.playout.sentence_sent_ms
        if reached_ms is not None and reached_ms != reply.reached_ms:
            reply.reached_ms = reached_ms
            self._tell(msg.AudioReached(reply.number, reached_ms))

    def _now_ms(self) -> float:
        return self._metronome.now_s() * 1000
