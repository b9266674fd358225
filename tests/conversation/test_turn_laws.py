"""The laws of turn-taking hold for every order of events, possible or not."""

from dataclasses import dataclass, field

import pytest
from app.conversation import actions as act
from app.conversation import events as ev
from app.conversation.endpointing import Endpointing
from app.conversation.events import Timer
from app.conversation.parting import GOODBYE, TRANSFER, Parting
from app.conversation.turn_state import State, TurnRules
from app.conversation.turns import TurnTaking
from hypothesis import given, settings
from hypothesis import strategies as st

WORDS = st.sampled_from(["", "yes", "tell me more", "  ", "thank you, goodbye", "an operator please"])
PARTINGS = (Parting(("bye", "goodbye"), "Goodbye!", GOODBYE), Parting(("operator",), "One moment.", TRANSFER))
ENDPOINTINGS = {
    "scored": Endpointing(200, 1600),
    "silence": Endpointing(600, 600, scored=False),
    "window": Endpointing(scored=False, window_ms=2000),
}


@dataclass
class Referee:
    """Watches one conversation from outside: sees events and actions, never the machine's own state."""

    audible: int | None = None
    audible_turn: int = 0
    made: dict[int, int] = field(default_factory=dict)
    """Replies begun and not yet ended, with their turn."""
    committed: set[int] = field(default_factory=set)
    owed: int | None = None
    """The confirmed turn that still waits for its answer."""
    fixed: set[int] = field(default_factory=set)
    """The greetings and apologies."""
    broken: int | None = None
    """The audible answer that broke off."""
    regretted: int | None = None
    """The turn whose answer broke off, which may be apologised for."""
    ready: set[int] = field(default_factory=set)
    held: int | None = None
    said: dict[int, str] = field(default_factory=dict)
    """What is known of each turn."""
    understood: str | None = None
    """The transcript of the open pause; None while it is awaited, empty when it failed."""
    typed: str = ""
    answered: set[int] = field(default_factory=set)
    ended: bool = False
    reason: str | None = None
    """Why the machine ended the conversation."""
    last_words: str = ""
    """Announced to be the last ones, for this reason."""
    wishes: dict[int, str] = field(default_factory=dict)
    """The replies after which the conversation may end, and why."""
    left_for: str = ""
    """The wish of the reply that was heard last, until someone says something."""
    replies: set[int] = field(default_factory=set)
    open_pause: int | None = None

    def see(self, event: ev.Event, actions: list[act.Action]) -> None:
        if self.ended:
            assert actions == [], "something was decided after the end"
            return
        if self.last_words:
            self._see_last_words(event, actions)
        if (
            isinstance(event, ev.Transcribed | ev.TranscriptionFailed | ev.PauseScored)
            and event.pause != self.open_pause
        ):
            assert actions == [], "an answer about a pause that is no more changed something"
        about_reply = ev.ReplyReady | ev.ReplyFailed | ev.ReplyEndsIt | ev.PlayoutFinished
        if isinstance(event, about_reply) and event.reply not in self.made:
            assert actions == [], "what became of a reply that is no more changed something"
        if isinstance(event, ev.ReplyReady):
            self.ready.add(event.reply)
        if isinstance(event, ev.Interrupted) and not self.last_words:
            self.owed = self.regretted = None  # the user does not want the answer
        if isinstance(event, ev.ReplyFailed) and event.reply == self.audible and event.reply not in self.fixed:
            self.broken = self.audible
        if isinstance(event, ev.Transcribed | ev.TranscriptionFailed) and event.pause == self.open_pause:
            text = event.text.strip() if isinstance(event, ev.Transcribed) else ""
            self.understood = text if self.understood is None else self.understood
        if isinstance(event, ev.ReplyEndsIt):
            assert actions == [], "a reply ended the conversation before it was heard"
            if event.reply in self.made:
                self.wishes[event.reply] = event.reason
        if isinstance(event, ev.Announced) and actions:
            self.regretted = None  # what is announced is said, not an apology
            self.last_words = event.reason
        if isinstance(event, ev.Typed) and not self.last_words:
            self.typed = f"{self.typed} {event.text}".strip()
        for action in actions:
            assert not self.ended, "something was decided behind the end"
            self._see(action)
        if isinstance(event, ev.Announced) and event.text.strip() and actions:
            assert [action.text for action in actions if isinstance(action, act.Say)] == [event.text.strip()]
        if isinstance(event, ev.TimerFired) and event.timer is Timer.IDLE and self.reason is not None:
            assert self.reason == "idle"
        if isinstance(event, ev.Ended):
            assert actions == []
            self.ended = True

    def _see_last_words(self, event: ev.Event, actions: list[act.Action]) -> None:
        if not isinstance(event, ev.ReplyReady | ev.ReplyFailed | ev.PlayoutFinished | ev.Ended):
            assert actions == [], "the last words were interrupted"
        allowed = act.Play | act.Finish | act.EndConversation
        assert all(isinstance(action, allowed) for action in actions), "there were words after the last ones"

    def _see(self, action: act.Action) -> None:
        if isinstance(action, act.Stop | act.DiscardReply) and action.reply == self.held:
            self.held = None
        if isinstance(action, act.ShowSpeech | act.ConfirmTurn):
            self.regretted = None  # the user goes on: it is too late to apologise
        assert self.held is None or self.held in self.made, "a reply ended while it was held"
        match action:
            case act.Transcribe(pause=pause):
                self.open_pause, self.understood = pause, None
            case act.AbandonPause():
                self.open_pause, self.understood = None, None  # it will be in the next transcript
            case act.DropTurn(turn):
                self._know(turn, "")
            case act.KeepPart(turn, text):
                self._know(turn, text)
            case (
                act.StartReply(reply=reply, turn=turn)
                | act.Say(reply=reply, turn=turn)
                | act.Apologise(reply=reply, turn=turn)
            ):
                assert reply not in self.replies, "a reply number was used twice"
                assert not self.made, "two replies were being made at once"
                self.replies.add(reply)
                self.made[reply] = turn
                if not isinstance(action, act.StartReply):
                    self.fixed.add(reply)
                if isinstance(action, act.Say):
                    self._note_wish(reply, turn, action.text)
                if self.regretted is not None:
                    assert turn == self.regretted
                    assert reply in self.fixed, "a turn was answered twice"
            case act.CommitReply(reply):
                assert reply in self.made
                self.committed.add(reply)
            case act.Play(reply):
                assert self.audible is None, "two replies were audible at once"
                assert reply in self.made
                assert reply in self.committed
                assert reply in self.ready, "there was nothing to hear yet"
                turn = self.made[reply]
                if turn > 0 and not (reply in self.fixed and turn == self.regretted):
                    assert self.owed == turn, "a turn that was taken back or answered got a reply"
                    self.owed = None
                    self.answered.add(turn)
                self.regretted = None
                self.audible, self.audible_turn = reply, turn
            case act.Stop(reply):
                assert self.audible == reply, "a silent reply was stopped"
                self.audible = None
                del self.made[reply]
            case act.Finish(reply):
                assert reply in self.made
                if self.audible == reply:
                    self.audible = None
                    self.regretted = self.made[reply] if reply == self.broken else None
                elif self.made[reply] == self.owed:  # an apology that could only be shown
                    self.owed = None
                self.left_for = self.wishes.get(reply, "")
                del self.made[reply]
            case act.DiscardReply(reply):
                assert self.audible != reply, "an audible reply was discarded without a word to the listener"
                del self.made[reply]
            case act.Hold(reply):
                assert reply in self.made
                assert self.held is None, "a reply was held twice"
                self.held = reply
            case act.Resume(reply):
                assert self.held == reply, "a reply came back that was not held"
                self.held = None
            case act.ConfirmTurn(turn, text):
                self._know(turn, text)
                assert self.audible is None, "a turn was confirmed while a reply was audible"
                assert self.owed is None, "a confirmed turn was left without an answer"
                self.left_for = ""
                assert turn not in self.answered, "a turn was answered twice"
                self.owed = turn
            case act.ReopenTurn(turn):
                assert self.owed == turn, "only a turn that waits for its answer can be taken back"
                self.owed = None
            case act.EndConversation(reason):
                assert reason == (self.last_words or self.left_for or "idle"), "it ended for no good reason"
                assert self.audible is None, "it ended in the middle of a word"
                self.ended, self.reason = True, reason
            case _:
                pass

    def _note_wish(self, reply: int, turn: int, text: str) -> None:
        """Fixed words after which the conversation ends: the last ones, and the answer to a goodbye."""
        said = next((parting for parting in PARTINGS if parting.asked_for(self.said.get(turn, ""))), None)
        if self.last_words:
            self.wishes[reply] = self.last_words
        elif said and text == said.answer:
            self.wishes[reply] = said.reason

    def _know(self, turn: int, text: str) -> None:
        """A turn's words are all that was understood and typed, in order, and nothing else."""
        known = f"{self.said.get(turn, '')} {self.understood or ''} {self.typed}"
        assert text.split() == known.split(), "words were lost, made up or doubled"
        self.said[turn] = text
        self.open_pause = self.understood = None
        self.typed = ""


numbers = st.integers(min_value=0, max_value=6)
events = st.one_of(
    st.builds(ev.Started, at_ms=st.just(0.0), greeting=st.sampled_from(["", "Ahoy!"])),
    st.builds(ev.SpeechStarted, at_ms=st.just(0.0), onset_ms=st.just(0.0)),
    st.builds(ev.SpeechSustained, at_ms=st.just(0.0)),
    st.builds(ev.SpeechPaused, at_ms=st.just(0.0), last_voice_ms=st.just(0.0)),
    st.builds(ev.PauseScored, at_ms=st.just(0.0), pause=numbers, probability=st.floats(0, 1)),
    st.builds(ev.Transcribed, at_ms=st.just(0.0), pause=numbers, text=WORDS),
    st.builds(ev.TranscriptionFailed, at_ms=st.just(0.0), pause=numbers),
    st.builds(ev.ReplyReady, at_ms=st.just(0.0), reply=numbers),
    st.builds(ev.ReplyFailed, at_ms=st.just(0.0), reply=numbers),
    st.builds(ev.PlayoutFinished, at_ms=st.just(0.0), reply=numbers),
    st.builds(ev.ReplyEndsIt, at_ms=st.just(0.0), reply=numbers, reason=st.sampled_from([GOODBYE, TRANSFER])),
    st.builds(ev.Typed, at_ms=st.just(0.0), text=WORDS),
    st.builds(
        ev.Announced,
        at_ms=st.just(0.0),
        text=st.sampled_from(["Hear this.", "  ", ""]),
        reason=st.sampled_from(["", "", "", "voicemail"]),
    ),
    st.builds(ev.Interrupted, at_ms=st.just(0.0)),
    st.builds(ev.BufferFull, at_ms=st.just(0.0)),
    st.builds(ev.TimerFired, at_ms=st.just(0.0), timer=st.sampled_from(Timer)),
)
"""Numbers are small, so that they often, and not always, name what exists: see `aimed`."""


class World:
    """A machine, its referee, and the numbers that are in use, so that answers can be aimed at what was asked."""

    def __init__(self, *, speculation: bool = True, ends: str = "scored") -> None:
        self.endpointing = ENDPOINTINGS[ends]
        rules = TurnRules(self.endpointing, idle_ms=60_000, partial_ms=1000, speculation=speculation, partings=PARTINGS)
        self.turns = TurnTaking(rules)
        self.referee = Referee()
        self.now_ms = 0.0
        self.pause = 0
        self.reply = 0
        self.failed: set[int] = set()
        self.armed: set[Timer] = set()

    def feed(self, event: ev.Event) -> list[act.Action]:
        if isinstance(event, ev.PauseScored) and not self.endpointing.scored:
            return []  # nobody was asked
        actions = self.turns.handle(event)
        for action in actions:
            if isinstance(action, act.Transcribe):
                self.pause = action.pause
            elif isinstance(action, act.StartReply | act.Say | act.Apologise):
                self.reply = action.reply
        self.referee.see(event, actions)
        self._look_at_timers(event, actions)
        if isinstance(event, ev.ReplyFailed):
            self.failed.add(event.reply)
        return actions

    def _look_at_timers(self, event: ev.Event, actions: list[act.Action]) -> None:
        """A timer may only act while it is set, and is only set while there is what it is about."""
        if isinstance(event, ev.TimerFired):
            assert event.timer in self.armed or actions == [], "an alarm that was not set did something"
            self.armed.discard(event.timer)
        for action in actions:
            if isinstance(action, act.SetTimer):
                self.armed.add(action.timer)
            elif isinstance(action, act.CancelTimer):
                self.armed.discard(action.timer)
            elif isinstance(action, act.ScorePause):
                assert self.endpointing.scored, "the turn model was asked"
        if self.turns.state is State.ENDED:
            return
        meant = {
            Timer.PARTIAL: {State.HEARING},
            Timer.ENDPOINT: {State.PAUSED},
            Timer.RESCORE: {State.PAUSED},
            Timer.WINDOW: {State.HEARING, State.PAUSED},
            Timer.IDLE: {State.LISTENING},
        }
        for timer in self.armed:
            assert self.turns.state in meant[timer], f"{timer.name} runs while {self.turns.state.name}"
        if self.endpointing.window_ms and self.turns.state is State.HEARING:
            assert Timer.WINDOW in self.armed, "the turn has no end"

    def aimed(self, event: ev.Event, age: int) -> ev.Event:
        """The event at the present time; small ages make it about the latest pause or reply, others about old ones."""
        match event:
            case ev.PauseScored(_, _, probability):
                return ev.PauseScored(self.now_ms, self.pause - age, probability)
            case ev.Transcribed(_, _, text):
                return ev.Transcribed(self.now_ms, self.pause - age, text)
            case ev.TranscriptionFailed():
                return ev.TranscriptionFailed(self.now_ms, self.pause - age)
            case ev.ReplyReady() | ev.ReplyFailed() | ev.PlayoutFinished():
                return type(event)(self.now_ms, self.reply - age)
            case ev.ReplyEndsIt(_, _, reason):
                return ev.ReplyEndsIt(self.now_ms, self.reply - age, reason)
            case ev.Announced(_, text, reason):
                return ev.Announced(self.now_ms, text, reason)
            case ev.Started(_, greeting):
                return ev.Started(self.now_ms, greeting)
            case ev.SpeechStarted():
                return ev.SpeechStarted(self.now_ms, self.now_ms - 64)
            case ev.SpeechPaused():
                return ev.SpeechPaused(self.now_ms, self.now_ms - 130)
            case ev.Typed(_, text):
                return ev.Typed(self.now_ms, text)
            case ev.TimerFired(_, timer):
                return ev.TimerFired(self.now_ms, timer)
            case _:
                return type(event)(self.now_ms)  # type: ignore[call-arg]  # the rest has nothing but its time

    def settle(self) -> None:
        """Everything that was asked for is answered, nobody speaks any more, and time passes."""
        for _ in range(12):
            self.now_ms += 5000
            self.feed(ev.SpeechPaused(self.now_ms, self.now_ms - 200))
            self.feed(ev.TimerFired(self.now_ms, Timer.ENDPOINT))
            self.feed(ev.TimerFired(self.now_ms, Timer.WINDOW))
            self.feed(ev.Transcribed(self.now_ms, self.pause, "and this"))
            if self.reply not in self.failed:  # what has failed never becomes ready
                self.feed(ev.ReplyReady(self.now_ms, self.reply))
            self.feed(ev.PlayoutFinished(self.now_ms, self.reply))


SPEECH = [ev.SpeechStarted(0.0, 0.0), ev.SpeechSustained(0.0), ev.SpeechPaused(0.0, 0.0)]
HEARD = ev.Transcribed(0.0, 0, "tell me more")
BYE = ev.Transcribed(0.0, 0, "thank you, goodbye")
NOISE = ev.Transcribed(0.0, 0, "")
OVER = ev.PauseScored(0.0, 0, 1.0)
READY = ev.ReplyReady(0.0, 0)
PLAYED = ev.PlayoutFinished(0.0, 0)
flows = st.sampled_from(
    [
        SPEECH,
        [*SPEECH, HEARD],
        [*SPEECH, HEARD, OVER],
        [*SPEECH, OVER, HEARD],
        [HEARD, OVER, READY],
        [READY, PLAYED],
        [ev.ReplyFailed(0.0, 0), OVER],
        [*SPEECH, BYE, OVER, READY],
        [*SPEECH, BYE, OVER, READY, SPEECH[0], PLAYED, SPEECH[2], HEARD, OVER],
        [*SPEECH, BYE, OVER, READY, SPEECH[0], PLAYED, SPEECH[2], NOISE, OVER],
        [ev.Typed(0.0, "an operator please"), READY, PLAYED],
        [*SPEECH, HEARD, ev.ReplyEndsIt(0.0, 0, GOODBYE), OVER, READY, PLAYED],
        [*SPEECH, HEARD, ev.TimerFired(0.0, Timer.WINDOW), READY],
        [*SPEECH[:2], ev.TimerFired(0.0, Timer.WINDOW), SPEECH[2], HEARD],
        [ev.Announced(0.0, "Hear this.", "voicemail"), READY, PLAYED],
        [ev.SpeechStarted(0.0, 0.0), ev.BufferFull(0.0), HEARD],
        [*SPEECH[:2], ev.BufferFull(0.0), SPEECH[2], HEARD],
        [READY, ev.ReplyFailed(0.0, 0), PLAYED, READY],
    ]
)
"""What usually happens together; the rest of the moves breaks it up in every way."""


def _timed(kinds):
    return st.tuples(kinds, st.integers(0, 3), st.integers(0, 900))


steps = st.lists(
    st.one_of(_timed(events).map(lambda move: [move]), flows.map(lambda flow: [(event, 0, 200) for event in flow])),
    max_size=40,
).map(lambda parts: [move for part in parts for move in part])


def play(world: World, moves: list[tuple[ev.Event, int, int]]) -> None:
    for event, age, passed_ms in moves:
        world.now_ms += passed_ms
        world.feed(world.aimed(event, max(0, age - 2)))


@pytest.mark.parametrize("ends", ENDPOINTINGS)
@settings(max_examples=500, deadline=None)
@given(moves=steps, speculation=st.booleans())
def test_the_laws_hold_whatever_happens(moves, speculation, ends):
    play(World(speculation=speculation, ends=ends), moves)


@pytest.mark.parametrize("ends", ENDPOINTINGS)
@settings(max_examples=500, deadline=None)
@given(moves=steps, speculation=st.booleans())
def test_every_confirmed_turn_is_answered_once_things_come_to_rest(moves, speculation, ends):
    world = World(speculation=speculation, ends=ends)
    world.feed(ev.Started(0.0))
    play(world, [move for move in moves if move[0] != ev.TimerFired(0.0, Timer.IDLE)])
    world.settle()
    assert world.referee.audible is None
    if world.referee.ended:
        return  # by its own words: see below
    assert world.referee.owed is None
    assert not world.referee.last_words, "nothing follows the last words"
    assert world.turns.state is State.LISTENING
    assert world.feed(ev.TimerFired(world.now_ms, Timer.IDLE)) == [act.EndConversation("idle")], "silence ends it"


@pytest.mark.parametrize("ends", ENDPOINTINGS)
@settings(max_examples=300, deadline=None)
@given(before=steps, meanwhile=steps, text=st.sampled_from(["Goodbye.", ""]))
def test_last_words_end_the_conversation_once_and_for_their_reason(before, meanwhile, text, ends):
    world = World(ends=ends)
    world.feed(ev.Started(0.0))
    play(world, before)
    if world.referee.ended or world.referee.last_words:
        return
    world.feed(ev.Announced(world.now_ms, text, "voicemail"))
    play(world, meanwhile)
    world.settle()
    assert world.referee.ended
    assert world.referee.reason == "voicemail"


@settings(max_examples=200, deadline=None)
@given(before=steps, after=steps)
def test_after_the_end_nothing_is_decided(before, after):
    world = World()
    play(world, before)
    world.feed(ev.Ended(world.now_ms))
    for event, age, _ in after:
        assert world.turns.handle(world.aimed(event, age)) == []


@settings(max_examples=300, deadline=None)
@given(moves=steps)
def test_the_same_events_always_give_the_same_decisions(moves):
    first, second = World(), World()
    for event, age, passed_ms in moves:
        for world in (first, second):
            world.now_ms += passed_ms
        aimed = first.aimed(event, age)
        assert first.feed(aimed) == second.feed(aimed)


@settings(max_examples=300, deadline=None)
@given(moves=steps)
def test_timers_that_were_cancelled_or_replaced_do_nothing(moves):
    """A timer may only act while it is set, whatever stray alarms arrive."""
    world = World()
    armed: set[Timer] = set()
    for event, age, passed_ms in moves:
        world.now_ms += passed_ms
        aimed = world.aimed(event, max(0, age - 2))
        stray = isinstance(aimed, ev.TimerFired) and aimed.timer not in armed
        actions = world.feed(aimed)
        if stray:
            assert actions == []
        if isinstance(aimed, ev.TimerFired):
            armed.discard(aimed.timer)
        for action in actions:
            if isinstance(action, act.SetTimer):
                armed.add(action.timer)
            elif isinstance(action, act.CancelTimer):
                armed.discard(action.timer)
