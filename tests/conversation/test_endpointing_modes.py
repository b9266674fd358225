"""The two simple ways to end a turn, decision by decision: a fixed silence, and a fixed time."""

import pytest
from app.conversation import actions as act
from app.conversation import events as ev
from app.conversation.endpointing import Endpointing
from app.conversation.events import Timer
from app.conversation.options import Options
from app.conversation.turn_state import State, TurnRules
from app.conversation.turns import TurnTaking
from app.core.config import Settings

SILENCE = Endpointing(600, 600, scored=False)
WINDOW = Endpointing(scored=False, window_ms=2000)


class Table:
    """Turn 1 is spoken since 1000, and that is known since 1064."""

    def __init__(self, endpointing: Endpointing) -> None:
        self.turns = TurnTaking(TurnRules(endpointing, idle_ms=0, partial_ms=0))
        self.at(0, ev.Started)
        self.opened = self.at(1064, ev.SpeechStarted, 1000.0)
        self.at(1160, ev.SpeechSustained)

    def at(self, at_ms: float, kind: type, *what: object) -> list[act.Action]:
        return self.turns.handle(kind(at_ms, *what))

    def decided(self, at_ms: float, kind: type, *what: object) -> list[act.Action]:
        """Without alarms."""
        return [
            action for action in self.at(at_ms, kind, *what) if not isinstance(action, act.SetTimer | act.CancelTimer)
        ]

    @property
    def state(self) -> State:
        return self.turns.state


def test_the_settings_choose_between_three_ways_to_end_a_turn():
    def chosen(**settings: object) -> Endpointing:
        return Options.for_telephone(Settings(**settings)).rules.endpointing  # type: ignore[arg-type]

    assert chosen().scored
    assert chosen(endpointing="silence", endpointing_silence_ms=600) == SILENCE
    assert chosen(endpointing="window") == WINDOW
    assert chosen(endpointing="window", endpointing_window_s=3.5).window_ms == 3500


# --- a fixed silence


def test_a_pause_is_transcribed_and_not_scored_and_the_silence_ends_the_turn():
    table = Table(SILENCE)
    assert table.at(2064, ev.SpeechPaused, 2000.0) == [
        act.Transcribe(1, 1),
        act.ShowSpeech(1, speaking=False),
        act.SetTimer(Timer.ENDPOINT, 2600),
    ]
    assert table.at(2150, ev.Transcribed, 1, "tell me more") == [
        act.ShowPartial(1, "tell me more"),
        act.StartReply(1, 1, "tell me more", speculative=True),
    ]
    assert table.at(2600, ev.TimerFired, Timer.ENDPOINT) == [
        act.EndTurn(1),
        act.ConfirmTurn(1, "tell me more"),
        act.CommitReply(1),
    ]


def test_who_goes_on_within_the_silence_goes_on_in_the_same_turn():
    table = Table(SILENCE)
    table.at(2064, ev.SpeechPaused, 2000.0)
    table.at(2150, ev.Transcribed, 1, "tell me")
    assert table.at(2564, ev.SpeechStarted, 2500.0) == [
        act.AbandonPause(1),
        act.CancelTimer(Timer.ENDPOINT),
        act.DiscardReply(1),
        act.ShowSpeech(1, speaking=True),
    ]
    assert act.SetTimer(Timer.ENDPOINT, 3600) in table.at(3064, ev.SpeechPaused, 3000.0)
    table.at(3150, ev.Transcribed, 2, "tell me about whales")
    assert act.ConfirmTurn(1, "tell me about whales") in table.at(3600, ev.TimerFired, Timer.ENDPOINT)


# --- a fixed time


def test_the_time_begins_with_the_first_word():
    assert Table(WINDOW).opened == [
        act.BeginUtterance(1000.0),
        act.ShowSpeech(1, speaking=True),
        act.SetTimer(Timer.WINDOW, 3064),
    ]


def test_what_is_said_within_it_is_understood_in_the_pause_and_answered_when_it_is_over():
    table = Table(WINDOW)
    assert table.at(2064, ev.SpeechPaused, 2000.0) == [act.Transcribe(1, 1), act.ShowSpeech(1, speaking=False)]
    assert table.at(2150, ev.Transcribed, 1, "tell me more") == [
        act.ShowPartial(1, "tell me more"),
        act.StartReply(1, 1, "tell me more", speculative=True),
    ]
    assert table.at(2300, ev.ReplyReady, 1) == [], "not before the time is up"
    assert table.at(3064, ev.TimerFired, Timer.WINDOW) == [
        act.EndTurn(1),
        act.ConfirmTurn(1, "tell me more"),
        act.CommitReply(1),
        act.Play(1),
    ]


def test_a_turn_may_pause_and_go_on_within_it_and_the_time_does_not_begin_again():
    table = Table(WINDOW)
    table.at(1564, ev.SpeechPaused, 1500.0)
    table.at(1650, ev.Transcribed, 1, "tell me")
    assert table.at(1864, ev.SpeechStarted, 1800.0) == [
        act.AbandonPause(1),
        act.DiscardReply(1),
        act.ShowSpeech(1, speaking=True),
    ]
    table.at(2564, ev.SpeechPaused, 2500.0)
    table.at(2650, ev.Transcribed, 2, "tell me more")
    assert act.ConfirmTurn(1, "tell me more") in table.at(3064, ev.TimerFired, Timer.WINDOW)


def test_a_transcript_that_comes_after_it_is_waited_for():
    table = Table(WINDOW)
    table.at(2964, ev.SpeechPaused, 2900.0)
    assert table.at(3064, ev.TimerFired, Timer.WINDOW) == [act.EndTurn(1)]
    assert table.decided(3200, ev.Transcribed, 1, "tell me more") == [
        act.ConfirmTurn(1, "tell me more"),
        act.StartReply(1, 1, "tell me more", speculative=False),
        act.CommitReply(1),
    ]


def test_who_still_speaks_when_it_is_over_gets_as_much_time_again():
    table = Table(WINDOW)
    assert table.at(3064, ev.TimerFired, Timer.WINDOW) == [act.Transcribe(1, 1), act.EndTurn(1)]
    assert table.at(3200, ev.Transcribed, 1, "it was the best of times") == [
        act.KeepPart(1, "it was the best of times"),
        act.BeginUtterance(3064),
        act.ShowSpeech(1, speaking=True),
        act.SetTimer(Timer.WINDOW, 5200),
    ]
    table.at(4064, ev.SpeechPaused, 4000.0)
    table.at(4150, ev.Transcribed, 2, "it was the worst of times")
    assert act.ConfirmTurn(1, "it was the best of times it was the worst of times") in table.at(
        5200, ev.TimerFired, Timer.WINDOW
    )


def test_who_fell_silent_while_it_was_being_transcribed_is_understood_to_the_end():
    table = Table(WINDOW)
    table.at(3064, ev.TimerFired, Timer.WINDOW)
    table.at(3128, ev.SpeechPaused, 3090.0)
    actions = table.at(3200, ev.Transcribed, 1, "tell me")
    assert act.KeepPart(1, "tell me") in actions
    assert act.Transcribe(1, 2) in actions
    table.at(3300, ev.Transcribed, 2, "more")
    assert table.state is State.PAUSED
    assert act.ConfirmTurn(1, "tell me more") in table.at(5200, ev.TimerFired, Timer.WINDOW)


def test_who_goes_on_before_the_answer_is_heard_gets_the_time_again_in_the_same_turn():
    table = Table(WINDOW)
    table.at(2064, ev.SpeechPaused, 2000.0)
    table.at(2150, ev.Transcribed, 1, "book a table")
    table.at(3064, ev.TimerFired, Timer.WINDOW)
    table.at(3164, ev.SpeechStarted, 3100.0)
    assert table.at(3300, ev.SpeechSustained) == [
        act.BeginUtterance(3300),
        act.DiscardReply(1),
        act.ReopenTurn(1),
        act.ShowSpeech(1, speaking=True),
        act.SetTimer(Timer.WINDOW, 5300),
    ]


def test_a_noise_is_dropped_when_it_is_over():
    table = Table(WINDOW)
    table.at(2064, ev.SpeechPaused, 2000.0)
    table.at(2150, ev.Transcribed, 1, "")
    assert table.decided(3064, ev.TimerFired, Timer.WINDOW) == [act.EndTurn(1), act.ForgetUtterance(), act.DropTurn(1)]


@pytest.mark.parametrize(
    "end",
    [
        ev.Typed(2500, "number 42"),
        ev.BufferFull(2500),
        ev.Announced(2500, "One moment."),
    ],
)
def test_a_turn_that_ends_otherwise_leaves_no_time_running(end):
    table = Table(WINDOW)
    assert act.CancelTimer(Timer.WINDOW) in table.turns.handle(end)
    assert table.at(3064, ev.TimerFired, Timer.WINDOW) == []


def test_a_voice_over_a_reply_opens_a_turn_with_its_own_time():
    table = Table(WINDOW)
    table.at(2064, ev.SpeechPaused, 2000.0)
    table.at(2150, ev.Transcribed, 1, "tell me more")
    table.at(2300, ev.ReplyReady, 1)
    table.at(3064, ev.TimerFired, Timer.WINDOW)
    assert table.at(4064, ev.SpeechStarted, 4000.0) == [act.BeginUtterance(4000.0), act.Hold(1)]
    assert act.SetTimer(Timer.WINDOW, 6160) in table.at(4160, ev.SpeechSustained)
