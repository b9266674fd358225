"""Turn-taking, decision by decision: what happens is on the left, what is decided is on the right."""

from app.conversation import actions as act
from app.conversation import events as ev
from app.conversation.endpointing import Endpointing
from app.conversation.events import Timer
from app.conversation.turn_state import State, TurnRules
from app.conversation.turns import TurnTaking

RULES = TurnRules(Endpointing(200, 1600, rescore_ms=400), idle_ms=60_000, partial_ms=1000)


class Table:
    """A machine that is told what happens and when (milliseconds)."""

    def __init__(self, rules: TurnRules = RULES) -> None:
        self.turns = TurnTaking(rules)

    def at(self, at_ms: float, kind: type, *what: object, **named: object) -> list[act.Action]:
        return self.turns.handle(kind(at_ms, *what, **named))

    def decided(self, at_ms: float, kind: type, *what: object) -> list[act.Action]:
        """Without alarms, which have their own tests."""
        return [
            action for action in self.at(at_ms, kind, *what) if not isinstance(action, act.SetTimer | act.CancelTimer)
        ]

    @property
    def state(self) -> State:
        return self.turns.state


def hearing() -> Table:
    """Turn 1 is spoken since 1000."""
    table = Table()
    table.at(0, ev.Started)
    table.at(1064, ev.SpeechStarted, 1000.0)
    table.at(1160, ev.SpeechSustained)
    return table


def paused(rules: TurnRules = RULES) -> Table:
    """It paused at 2000, which is known at 2064."""
    table = Table(rules)
    table.at(0, ev.Started)
    table.at(1064, ev.SpeechStarted, 1000.0)
    table.at(1160, ev.SpeechSustained)
    table.at(2064, ev.SpeechPaused, 2000.0)
    return table


def brewing() -> Table:
    """It was understood, and reply 1 is being made."""
    table = paused()
    table.at(2150, ev.Transcribed, 1, "tell me more")
    return table


def replying() -> Table:
    """The turn is over."""
    table = brewing()
    table.at(2200, ev.PauseScored, 1, 1.0)
    return table


def speaking() -> Table:
    """Reply 1 is heard."""
    table = replying()
    table.at(2400, ev.ReplyReady, 1)
    assert table.state is State.SPEAKING
    return table


def held() -> Table:
    """A voice has begun over it."""
    table = speaking()
    table.at(3064, ev.SpeechStarted, 3000.0)
    assert table.state is State.HELD
    return table


# --- listening


def test_a_conversation_begins_with_its_greeting():
    table = Table()
    assert table.decided(0, ev.Started, "Ahoy!") == [act.Say(1, 0, "Ahoy!"), act.CommitReply(1)]
    assert table.decided(80, ev.ReplyReady, 1) == [act.Play(1)]
    assert table.at(1500, ev.PlayoutFinished, 1) == [act.Finish(1), act.SetTimer(Timer.IDLE, 61_500)]


def test_without_a_greeting_it_listens_and_silence_ends_it():
    table = Table()
    assert table.at(0, ev.Started) == [act.SetTimer(Timer.IDLE, 60_000)]
    assert table.at(60_000, ev.TimerFired, Timer.IDLE) == [act.EndConversation("idle")]
    assert table.at(60_001, ev.Typed, "hello?") == []


def test_a_voice_opens_a_turn_and_stops_the_idle_alarm():
    table = Table()
    table.at(0, ev.Started)
    assert table.at(1064, ev.SpeechStarted, 1000.0) == [
        act.BeginUtterance(1000.0),
        act.CancelTimer(Timer.IDLE),
        act.ShowSpeech(1, speaking=True),
        act.SetTimer(Timer.PARTIAL, 2064),
    ]


def test_while_the_user_speaks_partial_transcripts_come_again_and_again():
    table = hearing()
    assert table.at(2064, ev.TimerFired, Timer.PARTIAL) == [
        act.TranscribePartial(1, ""),
        act.SetTimer(Timer.PARTIAL, 3064),
    ]


def test_a_voice_whose_beginning_was_passed_over_opens_a_turn_when_it_lasts():
    table = Table()
    table.at(0, ev.Started)
    assert table.decided(500, ev.SpeechSustained) == [act.BeginUtterance(500), act.ShowSpeech(1, speaking=True)]


def test_after_the_end_nothing_is_decided():
    table = brewing()
    assert table.at(2160, ev.Ended) == []
    assert table.state is State.ENDED
    assert table.at(2200, ev.PauseScored, 1, 1.0) == []
    assert table.at(2300, ev.Typed, "hello") == []


# --- the pause


def test_a_pause_is_transcribed_and_scored_and_ends_the_turn_at_the_latest_after_the_longest_delay():
    table = hearing()
    assert table.at(2064, ev.SpeechPaused, 2000.0) == [
        act.CancelTimer(Timer.PARTIAL),
        act.Transcribe(1, 1),
        act.ShowSpeech(1, speaking=False),
        act.ScorePause(1, 1),
        act.SetTimer(Timer.ENDPOINT, 3600),
    ]


def test_the_score_moves_the_end_and_a_doubtful_one_is_asked_for_again():
    (end,) = paused().at(2150, ev.PauseScored, 1, 0.9)
    assert end.timer is Timer.ENDPOINT
    assert 2200 < end.at_ms < 2250
    end, again = paused().at(2150, ev.PauseScored, 1, 0.0)
    assert end == act.SetTimer(Timer.ENDPOINT, 3600)
    assert again == act.SetTimer(Timer.RESCORE, 2550)


def test_asked_again_the_model_may_change_its_mind():
    table = paused()
    table.at(2150, ev.PauseScored, 1, 0.0)
    assert table.at(2550, ev.TimerFired, Timer.RESCORE) == [act.ScorePause(1, 1)]
    assert act.EndTurn(1) in table.at(2600, ev.PauseScored, 1, 1.0)


def test_the_longest_delay_ends_the_turn_whatever_the_model_thinks_or_does_not_say():
    table = brewing()
    assert table.decided(3600, ev.TimerFired, Timer.ENDPOINT)[:2] == [
        act.EndTurn(1),
        act.ConfirmTurn(1, "tell me more"),
    ]


def test_the_end_of_a_turn_leaves_no_alarm_of_the_pause():
    table = brewing()
    table.at(2160, ev.PauseScored, 1, 0.0)
    actions = table.at(2200, ev.PauseScored, 1, 1.0)
    alarms = [action for action in actions if isinstance(action, act.SetTimer | act.CancelTimer)]
    assert alarms == [act.CancelTimer(Timer.ENDPOINT), act.CancelTimer(Timer.RESCORE)]


def test_a_pause_that_is_taken_back_leaves_no_alarm():
    table = brewing()
    table.at(2160, ev.PauseScored, 1, 0.0)
    actions = table.at(2364, ev.SpeechStarted, 2300.0)
    assert act.CancelTimer(Timer.ENDPOINT) in actions
    assert act.CancelTimer(Timer.RESCORE) in actions


def test_once_the_turn_is_over_no_score_and_no_alarm_changes_that():
    table = paused()
    table.at(2160, ev.PauseScored, 1, 1.0)
    table.at(2200, ev.PauseScored, 1, 1.0)
    assert table.at(2210, ev.PauseScored, 1, 0.0) == []
    assert table.at(3600, ev.TimerFired, Timer.ENDPOINT) == []
    assert table.at(3600, ev.TimerFired, Timer.RESCORE) == []


def test_a_transcription_that_fails_when_the_turn_is_over_is_apologised_for_at_once():
    table = paused()
    table.at(2200, ev.PauseScored, 1, 1.0)
    assert table.decided(2900, ev.TranscriptionFailed, 1)[:2] == [act.ConfirmTurn(1, ""), act.Apologise(1, 1)]


def test_answers_about_an_earlier_pause_come_too_late():
    table = brewing()
    table.at(2364, ev.SpeechStarted, 2300.0)
    table.at(3064, ev.SpeechPaused, 3000.0)
    for late in (ev.Transcribed(3100, 1, "tell"), ev.TranscriptionFailed(3100, 1), ev.PauseScored(3100, 1, 1.0)):
        assert table.turns.handle(late) == [], late
    assert table.decided(3150, ev.Transcribed, 2, "tell me more")[0] == act.ShowPartial(1, "tell me more")


def test_an_alarm_rings_once():
    table = paused()
    table.at(2150, ev.PauseScored, 1, 0.0)
    table.at(2550, ev.TimerFired, Timer.RESCORE)
    assert table.at(2600, ev.TimerFired, Timer.RESCORE) == []


def test_an_alarm_that_was_cancelled_does_not_ring():
    table = hearing()
    table.at(2064, ev.SpeechPaused, 2000.0)
    assert table.at(2100, ev.TimerFired, Timer.PARTIAL) == []
    table.at(2364, ev.SpeechStarted, 2300.0)
    assert table.at(3600, ev.TimerFired, Timer.ENDPOINT) == []


def test_words_whose_beginning_was_passed_over_in_the_pause_are_not_lost():
    table = brewing()
    table.at(2180, ev.SpeechSustained)
    assert table.decided(2200, ev.PauseScored, 1, 1.0) == [
        act.EndTurn(1),
        act.DiscardReply(1),
        act.KeepPart(1, "tell me more"),
        act.BeginUtterance(2000.0),
        act.ShowSpeech(1, speaking=True),
    ]


def test_the_transcript_is_shown_and_its_answer_is_begun_in_the_pause():
    assert paused().at(2150, ev.Transcribed, 1, " tell me more ") == [
        act.ShowPartial(1, "tell me more"),
        act.StartReply(1, 1, "tell me more", speculative=True),
    ]


def test_without_speculation_the_answer_is_begun_when_the_turn_is_over():
    table = paused(TurnRules(Endpointing(200, 1600), speculation=False))
    assert table.decided(2150, ev.Transcribed, 1, "tell me more") == [act.ShowPartial(1, "tell me more")]
    assert table.decided(2200, ev.PauseScored, 1, 1.0) == [
        act.EndTurn(1),
        act.ConfirmTurn(1, "tell me more"),
        act.StartReply(1, 1, "tell me more", speculative=False),
        act.CommitReply(1),
    ]


def test_a_voice_takes_the_pause_back_and_throws_the_answer_away():
    table = brewing()
    assert table.decided(2364, ev.SpeechStarted, 2300.0) == [
        act.AbandonPause(1),
        act.DiscardReply(1),
        act.ShowSpeech(1, speaking=True),
    ]
    assert table.at(2400, ev.PauseScored, 1, 1.0) == []
    assert table.at(2400, ev.ReplyReady, 1) == []
    assert table.decided(3064, ev.SpeechPaused, 3000.0)[0] == act.Transcribe(1, 2)


def test_when_the_turn_is_over_its_answer_is_shown_and_heard_as_soon_as_it_is_ready():
    table = brewing()
    table.at(2190, ev.ReplyReady, 1)
    assert table.decided(2200, ev.PauseScored, 1, 1.0) == [
        act.EndTurn(1),
        act.ConfirmTurn(1, "tell me more"),
        act.CommitReply(1),
        act.Play(1),
    ]


def test_a_turn_that_is_over_waits_for_its_transcript():
    table = paused()
    assert table.decided(2200, ev.PauseScored, 1, 1.0) == [act.EndTurn(1)]
    assert table.state is State.PAUSED
    assert table.decided(2900, ev.Transcribed, 1, "tell me more")[0] == act.ConfirmTurn(1, "tell me more")


def test_who_goes_on_before_the_transcript_is_there_goes_on_in_the_same_turn():
    table = paused()
    table.at(2200, ev.PauseScored, 1, 1.0)
    assert table.decided(2364, ev.SpeechStarted, 2300.0) == [act.AbandonPause(1), act.ShowSpeech(1, speaking=True)]


def test_a_noise_is_dropped():
    table = paused()
    table.at(2150, ev.Transcribed, 1, "")
    assert table.decided(2200, ev.PauseScored, 1, 1.0) == [act.EndTurn(1), act.ForgetUtterance(), act.DropTurn(1)]
    assert table.state is State.LISTENING


def test_what_cannot_be_understood_is_apologised_for():
    table = paused()
    table.at(2150, ev.TranscriptionFailed, 1)
    assert table.decided(2200, ev.PauseScored, 1, 1.0) == [
        act.EndTurn(1),
        act.ConfirmTurn(1, ""),
        act.Apologise(1, 1),
        act.CommitReply(1),
    ]


# --- the reply


def test_a_reply_that_comes_to_nothing_is_apologised_for():
    assert replying().decided(2300, ev.ReplyFailed, 1) == [
        act.DiscardReply(1),
        act.Apologise(2, 1),
        act.CommitReply(2),
    ]


def test_one_that_fails_in_the_pause_only_matters_when_the_turn_is_over():
    table = brewing()
    assert table.at(2160, ev.ReplyFailed, 1) == []
    assert table.decided(2200, ev.PauseScored, 1, 1.0)[-3:] == [
        act.DiscardReply(1),
        act.Apologise(2, 1),
        act.CommitReply(2),
    ]


def test_one_that_breaks_off_is_heard_out_and_then_apologised_for():
    table = speaking()
    assert table.at(2500, ev.ReplyFailed, 1) == []
    assert table.decided(4000, ev.PlayoutFinished, 1) == [act.Finish(1), act.Apologise(2, 1), act.CommitReply(2)]
    assert table.decided(4100, ev.ReplyReady, 2) == [act.Play(2)]
    table.at(5000, ev.PlayoutFinished, 2)
    assert table.state is State.LISTENING


def test_who_speaks_over_the_end_of_one_that_broke_off_is_heard_and_not_apologised_to():
    table = held()
    table.at(3080, ev.ReplyFailed, 1)
    assert table.decided(3100, ev.PlayoutFinished, 1) == [
        act.Resume(1),
        act.Finish(1),
        act.ShowSpeech(2, speaking=True),
    ]


def test_a_reply_cannot_be_heard_to_its_end_before_it_is_heard():
    assert replying().at(2300, ev.PlayoutFinished, 1) == []


def test_what_becomes_of_an_earlier_reply_does_not_touch_this_one():
    table = replying()
    table.at(2300, ev.ReplyFailed, 1)
    assert table.at(2310, ev.ReplyReady, 1) == []
    assert table.at(2310, ev.ReplyFailed, 1) == []
    assert table.decided(2400, ev.ReplyReady, 2) == [act.Play(2)]


def test_an_apology_that_fails_too_is_left_at_that():
    table = replying()
    table.at(2300, ev.ReplyFailed, 1)
    assert table.decided(2400, ev.ReplyFailed, 2) == [act.Finish(2)]
    assert table.state is State.LISTENING


def test_words_after_an_answer_that_broke_off_are_a_new_turn():
    table = speaking()
    table.at(2500, ev.ReplyFailed, 1)
    table.at(4000, ev.PlayoutFinished, 1)
    table.at(4064, ev.SpeechStarted, 4000.0)
    assert table.decided(4160, ev.SpeechSustained) == [
        act.BeginUtterance(4160),
        act.DiscardReply(2),
        act.ShowSpeech(2, speaking=True),
    ]


def test_a_reply_heard_to_its_end_leaves_the_floor_to_the_user():
    assert speaking().at(5000, ev.PlayoutFinished, 1) == [act.Finish(1), act.SetTimer(Timer.IDLE, 65_000)]


# --- interruptions


def test_a_voice_over_a_reply_lowers_it_and_is_kept_from_its_onset():
    assert speaking().decided(3064, ev.SpeechStarted, 3000.0) == [act.BeginUtterance(3000.0), act.Hold(1)]


def test_a_voice_that_falls_silent_was_nothing():
    table = held()
    assert table.decided(3200, ev.SpeechPaused, 3100.0) == [act.ForgetUtterance(), act.Resume(1)]
    assert table.state is State.SPEAKING


def test_a_voice_that_goes_on_stops_the_reply_and_is_a_new_turn():
    table = held()
    assert table.decided(3160, ev.SpeechSustained) == [
        act.BeginUtterance(3160),
        act.Stop(1),
        act.ShowSpeech(2, speaking=True),
    ]


def test_a_reply_that_ends_while_it_is_held_comes_back_first_and_the_turn_is_the_users():
    table = held()
    assert table.decided(3100, ev.PlayoutFinished, 1) == [
        act.Resume(1),
        act.Finish(1),
        act.ShowSpeech(2, speaking=True),
    ]


def test_words_before_the_reply_is_heard_belong_to_the_turn():
    table = replying()
    assert table.decided(2264, ev.SpeechStarted, 2210.0) == [act.BeginUtterance(2210.0), act.Hold(1)]
    assert table.decided(2300, ev.ReplyReady, 1) == [], "not while someone may be going on"
    assert table.decided(2360, ev.SpeechSustained) == [
        act.BeginUtterance(2360),
        act.DiscardReply(1),
        act.ReopenTurn(1),
        act.ShowSpeech(1, speaking=True),
    ]
    table.at(3064, ev.SpeechPaused, 3000.0)
    assert table.decided(3150, ev.Transcribed, 2, "about whales")[0] == act.ShowPartial(1, "tell me more about whales")


def test_a_cough_before_the_reply_is_heard_only_delays_it():
    table = replying()
    table.at(2264, ev.SpeechStarted, 2210.0)
    table.at(2300, ev.ReplyReady, 1)
    assert table.decided(2400, ev.SpeechPaused, 2290.0) == [act.ForgetUtterance(), act.Resume(1), act.Play(1)]


def test_words_before_the_greeting_is_heard_are_the_first_turn():
    table = Table()
    table.at(0, ev.Started, "Ahoy!")
    table.at(64, ev.SpeechStarted, 0.0)
    assert table.decided(160, ev.SpeechSustained) == [
        act.BeginUtterance(160),
        act.DiscardReply(1),
        act.ShowSpeech(1, speaking=True),
    ]


def test_a_failing_reply_is_replaced_by_an_apology_that_is_held_as_well():
    table = replying()
    table.at(2264, ev.SpeechStarted, 2210.0)
    assert table.decided(2300, ev.ReplyFailed, 1)[:4] == [
        act.DiscardReply(1),
        act.Apologise(2, 1),
        act.CommitReply(2),
        act.BeginUtterance(2300),
    ]
    assert table.state is State.HELD
    assert act.Resume(2) in table.decided(2400, ev.SpeechPaused, 2290.0)


def test_the_button_stops_a_reply_and_the_next_words_are_a_new_turn():
    table = speaking()
    assert table.decided(3000, ev.Interrupted) == [act.Stop(1)]
    assert act.ShowSpeech(2, speaking=True) in table.at(4064, ev.SpeechStarted, 4000.0)


def test_the_button_means_nothing_while_no_reply_is_due():
    for table in (Table(), hearing(), paused(), brewing()):
        assert table.at(3000, ev.Interrupted) == []


# --- typing


def test_typed_words_are_a_turn():
    table = Table()
    table.at(0, ev.Started)
    assert table.at(100, ev.Typed, " hello ") == [
        act.CancelTimer(Timer.IDLE),
        act.ConfirmTurn(1, "hello"),
        act.StartReply(1, 1, "hello", speculative=False),
        act.CommitReply(1),
    ]


def test_nothing_typed_is_nothing():
    for table in (Table(), hearing(), brewing(), replying(), speaking(), held()):
        assert table.at(3100, ev.Typed, "  \n ") == []


def test_a_greeting_comes_too_late_when_something_was_typed_before():
    table = Table()
    table.at(0, ev.Typed, "hello")
    assert table.at(0, ev.Started, "Ahoy!") == []


def test_typed_over_a_reply_they_stop_it():
    assert speaking().decided(3000, ev.Typed, "hello")[:2] == [act.Stop(1), act.ConfirmTurn(2, "hello")]


def test_typed_before_the_reply_is_heard_they_belong_to_its_turn():
    assert replying().decided(2300, ev.Typed, "about whales")[:3] == [
        act.DiscardReply(1),
        act.ReopenTurn(1),
        act.ConfirmTurn(1, "tell me more about whales"),
    ]


def test_typed_while_speaking_they_end_the_turn_and_come_after_what_was_spoken():
    table = hearing()
    assert table.decided(1500, ev.Typed, "42") == [act.Transcribe(1, 1), act.EndTurn(1)]
    assert table.decided(1600, ev.Transcribed, 1, "number")[0] == act.ConfirmTurn(1, "number 42")


def test_typed_over_a_held_reply_they_make_the_voice_nothing():
    assert held().decided(3100, ev.Typed, "hello")[:3] == [
        act.ForgetUtterance(),
        act.Stop(1),
        act.ConfirmTurn(2, "hello"),
    ]


def test_typed_in_the_pause_they_are_answered_together_with_what_was_spoken():
    table = brewing()
    assert table.decided(2160, ev.Typed, "about whales") == [
        act.DiscardReply(1),
        act.EndTurn(1),
        act.ConfirmTurn(1, "tell me more about whales"),
        act.StartReply(2, 1, "tell me more about whales", speculative=False),
        act.CommitReply(2),
    ]


def test_typed_in_a_pause_that_is_over_they_wait_for_its_transcript_too():
    table = paused()
    table.at(2200, ev.PauseScored, 1, 1.0)
    assert table.at(2300, ev.Typed, "about") == []
    assert table.at(2320, ev.SpeechStarted, 2310.0) == [], "a voice does not take typed words back"
    table.at(2340, ev.SpeechPaused, 2320.0)
    assert table.at(2350, ev.Typed, "whales") == []
    assert table.decided(2400, ev.Transcribed, 1, "tell me")[0] == act.ConfirmTurn(1, "tell me about whales")


def test_a_voice_that_begins_before_that_transcript_is_an_interruption_or_nothing():
    table = hearing()
    table.at(1500, ev.Typed, "42")
    assert table.at(1664, ev.SpeechStarted, 1600.0) == [], "it does not take typed words back"
    assert table.decided(1700, ev.Transcribed, 1, "number") == [
        act.ConfirmTurn(1, "number 42"),
        act.StartReply(1, 1, "number 42", speculative=False),
        act.CommitReply(1),
        act.BeginUtterance(1500),
        act.Hold(1),
    ]
    assert table.decided(1750, ev.SpeechPaused, 1690.0) == [act.ForgetUtterance(), act.Resume(1)]


def test_a_cough_between_typing_and_the_transcript_is_nothing():
    table = hearing()
    table.at(1500, ev.Typed, "42")
    table.at(1664, ev.SpeechStarted, 1600.0)
    table.at(1760, ev.SpeechPaused, 1690.0)
    assert table.decided(1800, ev.Transcribed, 1, "number")[0] == act.ConfirmTurn(1, "number 42")


def test_words_after_typed_ones_are_added_to_them_until_the_reply_is_heard():
    table = Table()
    table.at(0, ev.Started)
    table.at(100, ev.Typed, "hello")
    table.at(264, ev.SpeechStarted, 200.0)
    table.at(360, ev.SpeechSustained)
    table.at(1064, ev.SpeechPaused, 1000.0)
    assert table.decided(1100, ev.Transcribed, 1, "there")[0] == act.ShowPartial(1, "hello there")


def test_a_new_turn_knows_nothing_of_the_one_before():
    table = speaking()
    table.at(5000, ev.PlayoutFinished, 1)
    table.at(6064, ev.SpeechStarted, 6000.0)
    table.at(7064, ev.SpeechPaused, 7000.0)
    assert table.decided(7100, ev.Transcribed, 2, "bye")[0] == act.ShowPartial(2, "bye")


def test_a_voice_that_goes_on_under_typed_words_is_no_interruption():
    table = hearing()
    table.at(1500, ev.Typed, "42")
    table.at(1600, ev.Transcribed, 1, "number")
    table.at(1700, ev.ReplyReady, 1)
    assert table.state is State.SPEAKING
    assert table.at(1800, ev.SpeechPaused, 1750.0) == []


# --- the buffer is full


def test_a_full_buffer_takes_the_part_and_the_turn_goes_on():
    table = hearing()
    assert table.decided(31_000, ev.BufferFull) == [act.Transcribe(1, 1), act.EndTurn(1)]
    assert table.at(31_032, ev.BufferFull) == []
    assert table.decided(31_500, ev.Transcribed, 1, "a long part") == [
        act.KeepPart(1, "a long part"),
        act.BeginUtterance(31_000),
        act.ShowSpeech(1, speaking=True),
    ]
    assert table.at(32_000, ev.TimerFired, Timer.PARTIAL)[0] == act.TranscribePartial(1, "a long part")
    table.at(33_064, ev.SpeechPaused, 33_000.0)
    table.at(33_150, ev.Transcribed, 2, "and its end")
    assert act.ConfirmTurn(1, "a long part and its end") in table.at(33_200, ev.PauseScored, 2, 1.0)


def test_what_was_said_while_the_part_was_transcribed_is_transcribed_next():
    table = hearing()
    table.at(31_000, ev.BufferFull)
    assert table.at(31_600, ev.SpeechPaused, 31_500.0) == []
    assert table.decided(32_000, ev.Transcribed, 1, "a long part") == [
        act.KeepPart(1, "a long part"),
        act.BeginUtterance(31_000),
        act.ShowSpeech(1, speaking=True),
        act.Transcribe(1, 2),
        act.ShowSpeech(1, speaking=False),
        act.ScorePause(1, 2),
    ]


def test_who_falls_silent_just_when_the_buffer_is_full_is_answered():
    table = hearing()
    table.at(31_000, ev.BufferFull)
    table.at(31_064, ev.SpeechPaused, 31_000.0)
    assert table.decided(31_500, ev.Transcribed, 1, "a long part")[0] == act.ConfirmTurn(1, "a long part")


def test_a_full_buffer_under_a_held_reply_is_an_interruption():
    table = held()
    assert table.decided(31_000, ev.BufferFull) == [
        act.Stop(1),
        act.ShowSpeech(2, speaking=True),
        act.Transcribe(2, 2),
        act.EndTurn(2),
    ]


# --- late and stray events


def test_what_comes_late_changes_nothing():
    table = speaking()
    for late in (
        ev.Transcribed(3000, 1, "again"),
        ev.TranscriptionFailed(3000, 1),
        ev.PauseScored(3000, 1, 1.0),
        ev.ReplyReady(3000, 1),
        ev.ReplyReady(3000, 0),
        ev.ReplyFailed(3000, 7),
        ev.PlayoutFinished(3000, 7),
        ev.TimerFired(3000, Timer.ENDPOINT),
        ev.BufferFull(3000),
        ev.SpeechPaused(3000, 2900),
        ev.Started(3000, "Ahoy!"),
    ):
        assert [action for action in table.turns.handle(late) if not isinstance(action, act.SetTimer)] == [], late


def test_a_transcript_counts_once():
    table = brewing()
    assert table.at(2160, ev.Transcribed, 1, "something else") == []
    assert table.at(2160, ev.TranscriptionFailed, 1) == []
    assert act.CommitReply(1) in table.at(2200, ev.PauseScored, 1, 1.0), "and is answered"


def test_a_failure_is_not_followed_by_a_transcript():
    table = paused()
    table.at(2100, ev.TranscriptionFailed, 1)
    assert table.at(2150, ev.Transcribed, 1, "after all") == []
