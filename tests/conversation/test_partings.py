"""How a conversation ends by its own words: goodbyes, transfers, last words that are announced."""

from dataclasses import replace

import pytest
from app.conversation import actions as act
from app.conversation import events as ev
from app.conversation.endpointing import Endpointing
from app.conversation.events import Timer
from app.conversation.options import Options
from app.conversation.parting import GOODBYE, TRANSFER, Parting
from app.conversation.turn_state import State, TurnRules
from app.conversation.turns import TurnTaking
from app.core.config import Settings

RULES = TurnRules(
    Endpointing(200, 1600),
    idle_ms=60_000,
    partial_ms=0,
    partings=(
        Parting(("bye", "goodbye", "hang up"), "Goodbye!", GOODBYE),
        Parting(("operator", "human being"), "I am putting you through.", TRANSFER),
    ),
)


class Table:
    """A machine that is told what happens and when (milliseconds)."""

    def __init__(self, rules: TurnRules = RULES) -> None:
        self.turns = TurnTaking(rules)
        self.at(0, ev.Started)

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


def hearing() -> Table:
    """Turn 1 is spoken since 1000."""
    table = Table()
    table.at(1064, ev.SpeechStarted, 1000.0)
    table.at(1160, ev.SpeechSustained)
    return table


def brewing(said: str) -> Table:
    """This was said until 2000, and a reply is being made already."""
    table = hearing()
    table.at(2064, ev.SpeechPaused, 2000.0)
    assert table.at(2150, ev.Transcribed, 1, said)[-1] == act.StartReply(1, 1, said, speculative=True)
    return table


def parting(said: str = "thank you, goodbye") -> Table:
    """The turn is over, and it was a goodbye: reply 2 says so."""
    table = brewing(said)
    table.at(2200, ev.PauseScored, 1, 1.0)
    return table


def saying_goodbye() -> Table:
    """It is heard."""
    table = parting()
    assert table.at(2400, ev.ReplyReady, 2) == [act.Play(2)]
    return table


# --- what counts


def phone() -> Options:
    """A telephone call that can be put through, with the words as they come."""
    return Options.for_telephone(Settings(transfer_number="+15005550007", phone_reply_characters=300))


@pytest.mark.parametrize(
    "said",
    [
        "bye",
        "Bye bye!",
        "Goodbye.",
        "Good bye!",
        "Good night.",
        "Thank you, goodbye.",
        "No, that's all, thank you. Bye!",
        "No, that’s all, thanks, bye.",
        "Okay, great, thanks so much for your help. Bye-bye.",
        "I have to go now, goodbye.",
        "You can hang up now.",
        "Please hang up",
        "Bye now, see you later!",
        "Goodbye, and have a nice day.",
    ],
)
def test_people_say_goodbye_in_many_ways(said):
    assert phone().rules.parting(said).reason == GOODBYE


@pytest.mark.parametrize(
    "said", ["Operator!", "I'd like to speak to a human being, please.", "Can I talk to a person?", "An agent, please."]
)
def test_people_ask_for_a_person_in_many_ways(said):
    assert phone().rules.parting(said).reason == TRANSFER


@pytest.mark.parametrize(
    "said",
    [
        "",
        "...",
        "How do you say goodbye in French?",
        "What does goodbye mean?",
        "Don't hang up.",
        "Please don't hang up on me",
        "Why did you hang up?",
        "Sing bye bye baby.",
        "Is there a goodbye song?",
        "By the way, what time is it?",
        "Goodness, what a night.",
        "Who is the first person on the moon?",
        "What is a travel agent?",
        "I don't want an operator.",
        "Are you a human being?",
        "Is this a real person?",
        "Is it a person?",
        "I see someone.",
        "Thank you.",
        "No.",
    ],
)
def test_who_only_talks_about_it_goes_on_talking(said):
    assert phone().rules.parting(said) is None


def test_without_a_number_to_put_it_through_to_nobody_is_put_through():
    options = Options.for_telephone(Settings())
    assert options.rules.parting("operator") is None


def test_in_the_browser_a_goodbye_is_a_turn_like_any_other():
    assert Options.from_settings(Settings()).rules.parting("goodbye") is None


def test_farewells_may_be_none_at_all():
    assert not Parting((), "Goodbye!", GOODBYE).asked_for("goodbye")
    assert not Parting(("", "!"), "Goodbye!", GOODBYE).asked_for("thank you")


# --- what follows


def test_a_goodbye_is_answered_by_one_and_not_by_what_was_brewing():
    table = brewing("thank you, goodbye")
    assert table.decided(2200, ev.PauseScored, 1, 1.0) == [
        act.EndTurn(1),
        act.ConfirmTurn(1, "thank you, goodbye"),
        act.DiscardReply(1),
        act.Say(2, 1, "Goodbye!"),
        act.CommitReply(2),
    ]


def test_the_conversation_ends_when_the_goodbye_was_heard_and_not_before():
    table = saying_goodbye()
    assert table.state is State.SPEAKING
    assert table.at(3400, ev.PlayoutFinished, 2) == [act.Finish(2), act.EndConversation(GOODBYE)]
    assert table.state is State.ENDED
    assert table.at(3500, ev.Typed, "hello?") == []


def test_who_asks_for_a_person_is_put_through():
    table = parting("an operator, please")
    assert table.at(2400, ev.ReplyReady, 2) == [act.Play(2)]
    assert table.at(3400, ev.PlayoutFinished, 2) == [act.Finish(2), act.EndConversation(TRANSFER)]


def test_a_goodbye_may_be_typed():
    table = Table()
    assert table.decided(1000, ev.Typed, "bye") == [
        act.ConfirmTurn(1, "bye"),
        act.Say(1, 1, "Goodbye!"),
        act.CommitReply(1),
    ]


def test_who_has_more_to_say_before_the_goodbye_is_heard_takes_it_back():
    table = parting()
    table.at(2264, ev.SpeechStarted, 2210.0)
    assert table.decided(2370, ev.SpeechSustained) == [
        act.BeginUtterance(2370),
        act.DiscardReply(2),
        act.ReopenTurn(1),
        act.ShowSpeech(1, speaking=True),
    ]
    table.at(3064, ev.SpeechPaused, 3000.0)
    table.at(3150, ev.Transcribed, 2, "or wait, one more thing")
    actions = table.decided(3200, ev.PauseScored, 2, 1.0)
    assert act.ConfirmTurn(1, "thank you, goodbye or wait, one more thing") in actions
    assert act.CommitReply(3) in actions
    assert not any(isinstance(action, act.Say) for action in actions), "that is no goodbye any more"


def test_who_speaks_over_the_goodbye_takes_it_back():
    table = saying_goodbye()
    table.at(2564, ev.SpeechStarted, 2500.0)
    assert act.Stop(2) in table.decided(2660, ev.SpeechSustained)
    table.at(3064, ev.SpeechPaused, 3000.0)
    table.at(3150, ev.Transcribed, 2, "one more thing")
    assert act.ConfirmTurn(2, "one more thing") in table.at(3200, ev.PauseScored, 2, 1.0)


def test_the_button_takes_it_back_too():
    table = saying_goodbye()
    assert table.decided(2500, ev.Interrupted) == [act.Stop(2)]
    assert table.state is State.LISTENING


def test_a_noise_during_the_goodbye_only_delays_it():
    table = saying_goodbye()
    assert table.decided(2564, ev.SpeechStarted, 2500.0) == [act.BeginUtterance(2500.0), act.Hold(2)]
    assert table.decided(2700, ev.SpeechPaused, 2600.0) == [act.ForgetUtterance(), act.Resume(2)]
    assert table.at(3400, ev.PlayoutFinished, 2) == [act.Finish(2), act.EndConversation(GOODBYE)]


def held_at_its_end() -> Table:
    """The goodbye has just been heard, and a voice, or a noise, has begun."""
    table = saying_goodbye()
    table.at(3364, ev.SpeechStarted, 3300.0)
    assert table.decided(3400, ev.PlayoutFinished, 2)[:2] == [act.Resume(2), act.Finish(2)]
    assert table.state is State.HEARING
    table.at(3500, ev.SpeechPaused, 3450.0)
    return table


def test_a_noise_at_the_very_end_of_the_goodbye_does_not_keep_the_line_open():
    table = held_at_its_end()
    table.at(3550, ev.Transcribed, 2, "")
    assert table.decided(3700, ev.PauseScored, 2, 1.0) == [
        act.EndTurn(2),
        act.ForgetUtterance(),
        act.DropTurn(2),
        act.EndConversation(GOODBYE),
    ]


def test_words_at_the_very_end_of_the_goodbye_take_it_back():
    table = held_at_its_end()
    table.at(3550, ev.Transcribed, 2, "one more thing")
    assert act.ConfirmTurn(2, "one more thing") in table.at(3700, ev.PauseScored, 2, 1.0)
    table.at(3800, ev.ReplyReady, 3)
    assert table.decided(4500, ev.PlayoutFinished, 3) == [act.Finish(3)]
    table.at(5064, ev.SpeechStarted, 5000.0)
    table.at(5500, ev.SpeechPaused, 5400.0)
    table.at(5550, ev.Transcribed, 3, "")
    assert table.decided(5600, ev.PauseScored, 3, 1.0)[-1] == act.DropTurn(3), "and no noise brings it back"
    assert table.state is State.LISTENING


def test_words_there_that_could_not_be_understood_take_it_back_too():
    table = held_at_its_end()
    table.at(3550, ev.TranscriptionFailed, 2)
    assert act.Apologise(3, 2) in table.at(3700, ev.PauseScored, 2, 1.0)
    table.at(3764, ev.SpeechStarted, 3710.0)
    assert act.ReopenTurn(2) in table.at(3870, ev.SpeechSustained)
    table.at(4000, ev.SpeechPaused, 3900.0)
    table.at(4050, ev.Transcribed, 3, "")
    assert table.decided(4100, ev.PauseScored, 3, 1.0)[-1] == act.DropTurn(2)


def test_a_goodbye_that_cannot_be_spoken_was_shown_and_ends_it():
    table = parting()
    assert table.at(2500, ev.ReplyFailed, 2) == [act.Finish(2), act.EndConversation(GOODBYE)]


# --- a reply that wants to be the last


def wishing() -> Table:
    """Reply 1 answers a question, and wants to be the last."""
    table = brewing("that was all")
    assert table.at(2160, ev.ReplyEndsIt, 1, GOODBYE) == []
    table.at(2200, ev.PauseScored, 1, 1.0)
    return table


def test_a_reply_that_wants_to_be_the_last_ends_it_when_it_was_heard():
    table = wishing()
    table.at(2400, ev.ReplyReady, 1)
    assert table.at(3400, ev.PlayoutFinished, 1) == [act.Finish(1), act.EndConversation(GOODBYE)]


def test_the_wish_of_a_reply_that_was_never_heard_means_nothing():
    table = wishing()
    table.at(2264, ev.SpeechStarted, 2210.0)
    table.at(2370, ev.SpeechSustained)
    assert table.at(2400, ev.ReplyEndsIt, 1, GOODBYE) == []
    table.at(3064, ev.SpeechPaused, 3000.0)
    table.at(3150, ev.Transcribed, 2, "or no")
    table.at(3200, ev.PauseScored, 2, 1.0)
    table.at(3300, ev.ReplyReady, 2)
    assert table.decided(4000, ev.PlayoutFinished, 2) == [act.Finish(2)]
    assert table.state is State.LISTENING


def test_a_reply_that_comes_to_nothing_has_no_wish():
    table = wishing()
    assert table.decided(2300, ev.ReplyFailed, 1) == [act.DiscardReply(1), act.Apologise(2, 1), act.CommitReply(2)]
    table.at(2400, ev.ReplyReady, 2)
    assert table.decided(3400, ev.PlayoutFinished, 2) == [act.Finish(2)]


def test_one_that_breaks_off_ends_it_all_the_same():
    table = wishing()
    table.at(2400, ev.ReplyReady, 1)
    assert table.at(2500, ev.ReplyFailed, 1) == []
    assert table.at(3400, ev.PlayoutFinished, 1) == [act.Finish(1), act.EndConversation(GOODBYE)]


# --- announcements


def test_what_is_announced_is_said_and_the_conversation_goes_on():
    table = Table()
    assert table.at(1000, ev.Announced, "One moment.") == [
        act.ForgetUtterance(),
        act.CancelTimer(Timer.IDLE),
        act.Say(1, 0, "One moment."),
        act.CommitReply(1),
    ]
    assert table.at(1100, ev.ReplyReady, 1) == [act.Play(1)]
    assert table.at(2000, ev.PlayoutFinished, 1) == [act.Finish(1), act.SetTimer(Timer.IDLE, 62_000)]


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_announced_is_nothing(text):
    table = brewing("tell me more")
    assert table.at(2160, ev.Announced, text) == []
    assert table.state is State.PAUSED
    assert act.ConfirmTurn(1, "tell me more") in table.at(2200, ev.PauseScored, 1, 1.0)


def test_it_stops_the_reply_that_is_heard():
    table = brewing("tell me more")
    table.at(2200, ev.PauseScored, 1, 1.0)
    table.at(2400, ev.ReplyReady, 1)
    assert table.decided(2500, ev.Announced, "One moment.")[0] == act.Stop(1)


def test_instead_of_an_answer_that_was_not_heard_yet_it_is_the_answer():
    table = brewing("tell me more")
    table.at(2200, ev.PauseScored, 1, 1.0)
    assert table.decided(2300, ev.Announced, "One moment.") == [
        act.DiscardReply(1),
        act.ForgetUtterance(),
        act.Say(2, 1, "One moment."),
        act.CommitReply(2),
    ]
    table.at(2364, ev.SpeechStarted, 2310.0)
    assert act.ReopenTurn(1) in table.at(2470, ev.SpeechSustained), "and who goes on still goes on in that turn"


def test_a_turn_of_which_nothing_is_known_is_dropped_for_it():
    table = hearing()
    assert table.decided(1500, ev.Announced, "One moment.") == [
        act.DropTurn(1),
        act.ForgetUtterance(),
        act.Say(1, 0, "One moment."),
        act.CommitReply(1),
    ]


def test_what_was_understood_of_an_open_turn_is_kept_and_the_announcement_is_its_answer():
    table = brewing("tell me more")
    assert table.decided(2160, ev.Announced, "One moment.") == [
        act.DiscardReply(1),
        act.ConfirmTurn(1, "tell me more"),
        act.ForgetUtterance(),
        act.Say(2, 1, "One moment."),
        act.CommitReply(2),
    ]


def test_what_was_typed_into_an_open_turn_is_kept_as_well():
    table = hearing()
    table.at(1500, ev.Typed, "number 42")
    assert act.ConfirmTurn(1, "number 42") in table.at(1600, ev.Announced, "One moment.")
    assert table.at(1700, ev.Transcribed, 1, "tell me about") == []


def test_no_alarm_of_the_turn_is_left():
    table = brewing("tell me more")
    actions = table.at(2160, ev.Announced, "One moment.")
    assert act.CancelTimer(Timer.ENDPOINT) in actions
    assert table.at(3600, ev.TimerFired, Timer.ENDPOINT) == []


def test_an_announcement_is_spoken_over_whoever_speaks_and_can_be_interrupted():
    table = hearing()
    table.at(1500, ev.Announced, "One moment.")
    assert table.at(1600, ev.ReplyReady, 1) == [act.Play(1)]
    assert table.at(1700, ev.SpeechPaused, 1650.0) == []
    table.at(1864, ev.SpeechStarted, 1800.0)
    assert act.Stop(1) in table.at(1970, ev.SpeechSustained)


def test_last_words_are_not_interrupted_and_end_it_when_they_were_heard():
    table = Table()
    table.at(1000, ev.Announced, "You could not be reached.", GOODBYE)
    assert table.at(1100, ev.ReplyReady, 1) == [act.Play(1)]
    for nobody_minds in (
        ev.SpeechStarted(1200, 1150),
        ev.SpeechSustained(1300),
        ev.Typed(1400, "wait"),
        ev.Interrupted(1500),
        ev.Announced(1600, "One moment."),
        ev.Announced(1600, "Something else.", TRANSFER),
        ev.SpeechPaused(1700, 1650),
        ev.TimerFired(61_000, Timer.IDLE),
    ):
        assert table.turns.handle(nobody_minds) == []
    assert table.at(2000, ev.PlayoutFinished, 1) == [act.Finish(1), act.EndConversation(GOODBYE)]


def test_last_words_without_a_word_end_it_at_once():
    table = hearing()
    assert table.decided(1500, ev.Announced, " ", TRANSFER)[-1] == act.EndConversation(TRANSFER)
    assert table.state is State.ENDED


def test_last_words_that_cannot_be_spoken_end_it():
    table = Table()
    table.at(1000, ev.Announced, "Goodbye!", GOODBYE)
    assert table.at(1100, ev.ReplyFailed, 1) == [act.Finish(1), act.EndConversation(GOODBYE)]


def test_last_words_that_break_off_end_it():
    table = Table()
    table.at(1000, ev.Announced, "Goodbye!", GOODBYE)
    table.at(1100, ev.ReplyReady, 1)
    table.at(1200, ev.ReplyFailed, 1)
    assert table.at(1300, ev.PlayoutFinished, 1) == [act.Finish(1), act.EndConversation(GOODBYE)]


def test_what_is_announced_before_the_conversation_begins_is_said_instead_of_the_greeting():
    turns = TurnTaking(replace(RULES, partings=()))
    assert act.Say(1, 0, "One moment.") in turns.handle(ev.Announced(0, "One moment."))
    assert turns.handle(ev.Started(0, "Ahoy!")) == []
