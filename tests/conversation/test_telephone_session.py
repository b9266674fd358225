"""Whole telephone conversations in virtual time: 8 kHz, whole frames, replies that wait, announcements, marks."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import numpy as np
import pytest
from app.conversation import messages as msg
from app.conversation.endpointing import Endpointing
from app.conversation.options import TELEPHONE
from app.conversation.parting import GOODBYE, TRANSFER, Parting
from app.conversation.phrases import Phrases
from app.conversation.turn_state import State
from app.core.errors import ProviderError
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from stage import FRAME_MS, OPTIONS, SILENCE, VOICE, Stage, ToldVoice, run_in_virtual_time

pytestmark = pytest.mark.looptime
MS = 8
FRAME = 160
ANSWER = "Here is one thing. And here is another, which is longer."
COUNTING = "One two three four five six seven eight nine ten eleven twelve."
PARTINGS = (Parting(("bye", "goodbye"), "Goodbye!", GOODBYE), Parting(("operator",), "One moment.", TRANSFER))


def call(**options: object) -> Stage:
    """A telephone call."""
    rules = replace(OPTIONS.rules, partings=PARTINGS, partial_ms=0.0)
    settings: dict[str, object] = {"transport": TELEPHONE, "reply_max_characters": 300, "rules": rules, **options}
    return Stage(**settings)  # type: ignore[arg-type]


async def until(stage: Stage, state: State, level: int = SILENCE) -> None:
    for _ in range(500):
        if stage.conversation.state is state:
            return
        await stage.send(level, FRAME_MS)
    raise AssertionError(f"{state.name} was never reached; it is {stage.conversation.state.name}")


async def speaking(stage: Stage, for_ms: float = 600) -> None:
    """Ask, and hear the beginning of the reply."""
    await stage.send(VOICE, 1000)
    await until(stage, State.SPEAKING)
    await stage.send(SILENCE, for_ms)


def ordered(stage: Stage) -> list[object]:
    """What is told from now on, and how many samples are heard in between."""
    order: list[object] = []
    tell, play = stage.tell, stage.play
    stage.tell = lambda message: (order.append(message), tell(message))[1]  # type: ignore[method-assign]
    stage.play = lambda samples: (order.append(len(samples)), play(samples))[1]  # type: ignore[method-assign]
    return order


def heard_ms(stage: Stage, since_s: float = 0.0) -> float:
    return sum(len(audio) for at_s, audio in stage.heard if at_s >= since_s) / MS


# --- listening


async def test_a_question_is_answered_in_whole_frames_at_8_khz():
    async with call() as stage:
        await stage.say(then_silent_ms=6000)
    assert stage.said == ["tell me more"]
    (answer,) = stage.answers
    assert answer.text == answer.heard == ANSWER
    assert heard_ms(stage) == 2 * 1500
    assert all(len(audio) % FRAME == 0 for _, audio in stage.heard)
    begun_s = stage.when(msg.AudioStarted)
    later = [len(audio) for at_s, audio in stage.heard if at_s > begun_s]
    assert set(later[1:]) == {FRAME}, "one frame a beat, after the lead"


async def test_the_models_get_all_that_was_said_at_16_khz():
    async with call() as stage:
        await stage.send(SILENCE, 1000)
        await stage.say(1000)
    (audio,) = stage.stt.given
    assert audio.dtype == np.int16
    voiced = np.abs(audio) > VOICE / 2
    assert voiced.sum() / 16 == pytest.approx(1000, abs=2), "every millisecond of the voice"
    assert 300 - 32 <= int(np.argmax(voiced)) / 16 <= 300 + 32, "with what was before it"
    assert len(audio) % 2 == 0, "every sample became two"


async def test_a_pause_is_converted_once_for_both_models():
    async with call() as stage:
        await stage.say(1000)
    assert len(stage.turn.given) == 1
    assert stage.turn.given[0] is stage.stt.given[0]


async def test_a_later_look_at_a_pause_has_the_silence_that_came_since():
    async with call() as stage:
        stage.turn.probabilities = [0.0, 0.98]
        await stage.say(1000)
    first, second = stage.turn.given
    assert len(second) / 16 == pytest.approx(len(first) / 16 + 450, abs=60)
    assert np.array_equal(second[: len(first) - 160], first[:-160]), "and the same beginning"


async def test_in_the_browser_nothing_is_converted():
    async with Stage() as stage:
        await stage.say(1000)
    assert set(np.unique(stage.stt.given[0])) == {SILENCE, VOICE}


async def test_who_goes_on_while_a_pause_is_converted_is_understood_as_a_whole():
    async with call() as stage:
        stage.turn.probabilities = [0.05, 0.05, 0.98]
        stage.stt.words = ["tell me", "tell me about whales"]
        await stage.say(800, then_silent_ms=160)
        await stage.say(800, then_silent_ms=6000)
    assert stage.said == ["tell me about whales"]
    assert len(stage.answers) == 1


# --- simple endpointing


async def test_a_fixed_silence_ends_a_turn_without_the_turn_model():
    endpointing = Endpointing(600, 600, scored=False)
    async with call(rules=replace(OPTIONS.rules, endpointing=endpointing)) as stage:
        ended_s = await stage.say(then_silent_ms=6000)
    assert stage.turn.given == []
    assert (stage.when(msg.AudioStarted) - ended_s) * 1000 == pytest.approx(600, abs=60)
    assert [answer.heard for answer in stage.answers] == [ANSWER]


@pytest.mark.parametrize("voice_ms", [1000, 1500, 1900, 2600])
async def test_a_fixed_time_ends_a_turn_and_nothing_of_it_is_lost(voice_ms: int):
    endpointing = Endpointing(scored=False, window_ms=2000)
    async with call(rules=replace(OPTIONS.rules, endpointing=endpointing)) as stage:
        stage.stt.words = ["first part", "second part"] if voice_ms > 2000 else ["tell me more"]
        begun_s = stage.now_s()
        await stage.say(voice_ms, then_silent_ms=9000)
    assert stage.turn.given == []
    assert [answer.heard for answer in stage.answers] == [ANSWER]
    assert stage.said == (["first part second part"] if voice_ms > 2000 else ["tell me more"])
    voiced = sum(int((np.abs(audio) > VOICE / 2).sum()) for audio in stage.stt.given)
    assert voiced / 16 == pytest.approx(voice_ms, abs=40)
    if voice_ms <= 1500:  # time enough for a reply to brew
        assert stage.when(msg.AudioStarted) - begun_s == pytest.approx(2.07, abs=0.05)


# --- interruptions


async def test_a_noise_withholds_the_reply_and_brings_it_back_without_a_word_lost():
    async with call() as stage:
        await speaking(stage)
        await stage.say(80, then_silent_ms=6000)
    assert [message.held for message in stage.messages(msg.AudioHeld)] == [True, False]
    assert stage.messages(msg.AudioCleared) == []
    assert [answer.heard for answer in stage.answers] == [ANSWER]
    assert not stage.answers[0].interrupted
    assert heard_ms(stage) >= 2 * 1500
    held_s, resumed_s = stage.when(msg.AudioHeld), stage.when(msg.AudioHeld, 1)
    assert [at_s for at_s, _ in stage.heard if held_s < at_s < resumed_s] == [], "nothing is sent meanwhile"


async def test_a_noise_within_the_lead_is_not_heard_in_the_reply_at_all():
    async with call(pause_ms=64) as stage:
        await speaking(stage)
        await stage.say(60, then_silent_ms=6000)
    assert stage.when(msg.AudioHeld, 1) - stage.when(msg.AudioHeld) < 0.2
    assert heard_ms(stage) == 2 * 1500, "nothing is said twice"
    assert [answer.heard for answer in stage.answers] == [ANSWER]


async def test_a_voice_stops_the_reply_within_250_ms_and_what_was_heard_is_kept():
    async with call() as stage:
        stage.llm.replies = [COUNTING, "Fine."]
        await speaking(stage, 300)
        spoken_s = stage.now_s()
        await stage.say(600, then_silent_ms=4000)
    assert stage.when(msg.AudioCleared) - spoken_s <= 0.25
    first, second = stage.answers
    assert first.interrupted
    assert 0 < len(first.heard.split()) < 12
    assert first.text.startswith(first.heard)
    assert second.heard == "Fine."
    assert stage.llm.given[-1][2].content == first.heard


async def test_a_voice_that_comes_back_after_a_noise_stops_the_reply_that_goes_on():
    async with call() as stage:
        await speaking(stage, 300)
        await stage.say(80, then_silent_ms=400)
        await stage.say(600, then_silent_ms=5000)
    assert [message.held for message in stage.messages(msg.AudioHeld)] == [True, False, True]
    assert len(stage.messages(msg.AudioCleared)) == 1
    assert [answer.interrupted for answer in stage.answers] == [True, False]


async def test_a_noise_at_the_end_of_a_reply_does_not_keep_it_from_ending():
    async with call() as stage:
        stage.llm.replies = ["Just one sentence."]
        stage.stt.words = ["tell me more", ""]
        await speaking(stage, 1320)
        await stage.say(100, then_silent_ms=3000)
        assert stage.conversation.state is State.LISTENING
    assert [answer.heard for answer in stage.answers] == ["Just one sentence."]
    assert heard_ms(stage) == 1500


# --- marks


def marks(stage: Stage) -> list[tuple[str, float]]:
    """What was told about the audio, with how much of it there was by then."""
    found = []
    for at, (_, message) in enumerate(stage.told):
        match message:
            case msg.AudioStarted():
                found.append(("start", 0.0))
            case msg.AudioReached(_, at_ms):
                found.append(("reached", at_ms))
            case msg.AudioEnded(_, duration_ms):
                found.append(("end", duration_ms))
            case msg.ReplyDone() if at:
                found.append(("done", 0.0))
            case _:
                pass
    return found


async def test_marks_come_behind_the_audio_of_each_sentence_in_order():
    async with call() as stage:
        order = ordered(stage)
        await stage.say(then_silent_ms=6000)
    assert marks(stage) == [("start", 0), ("reached", 1500), ("reached", 3000), ("end", 3000), ("done", 0)]
    sent = 0
    for entry in order:
        if isinstance(entry, int):
            sent += entry
        elif isinstance(entry, msg.AudioReached):
            assert sent == entry.at_ms * MS, "all of the sentence and nothing of the next"


class SlowToEnd(ToldVoice):
    """A voice of the telephone's own rate that takes its time to say that there is nothing more."""

    rate_hz = 8000

    async def speak(
        self, text: str, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[np.ndarray, None]:
        async for piece in super().speak(text, voice=voice):
            yield piece
        await asyncio.sleep(4)


async def test_a_sentence_that_turns_out_to_be_over_only_when_all_of_it_was_sent_has_its_mark():
    stage = call()
    stage.tts = SlowToEnd(first_audio_ms=80, audio_ms=1000)
    stage.phrases = Phrases(stage.tts)
    async with stage:
        await stage.say(then_silent_ms=14_000)
    assert [message.at_ms for message in stage.messages(msg.AudioReached)] == [2000, 4000]


async def test_marks_decide_what_was_heard_when_the_line_is_slow():
    async with call() as stage:
        stage.llm.replies = [f"{COUNTING} {COUNTING}"]
        await speaking(stage, 2600)
        stage.conversation.played(1, 1500)  # the mark of the first sentence comes back only now
        stage.conversation.interrupt()
    (answer,) = stage.answers
    assert answer.heard.strip() == COUNTING


async def test_half_a_minute_may_pass_between_two_marks():
    async with call(tone_ms=20_000) as stage:
        stage.llm.replies = ["Here it comes. " + "five " * 40]
        await speaking(stage, 21_000)
        stage.conversation.played(1, 20_000)
        await stage.send(SILENCE, 10_000)
        stage.conversation.interrupt()
    heard = stage.answers[0].heard.removeprefix("Here it comes. ").split()
    assert 17 <= len(heard) <= 23, "half of them"


# --- announcements


async def test_what_is_announced_is_heard_and_the_conversation_goes_on():
    async with call() as stage:
        stage.conversation.announce("One moment, please.")
        await stage.send(SILENCE, 2500)
        await stage.say(then_silent_ms=5000)
    assert [answer.heard for answer in stage.answers] == ["One moment, please.", ANSWER]


async def test_an_announcement_stops_the_reply_and_history_has_both_in_order():
    async with call() as stage:
        stage.llm.replies = [COUNTING]
        await speaking(stage, 500)
        stage.conversation.announce("One moment, please.")
        await stage.send(SILENCE, 2500)
        await stage.say(then_silent_ms=2500)
    first, announced, _ = stage.answers
    assert first.interrupted
    assert announced.heard == "One moment, please."
    assert [(entry.role, entry.content) for entry in stage.llm.given[-1][1:]] == [
        ("user", "tell me more"),
        ("assistant", f"{first.heard}\nOne moment, please."),
        ("user", "tell me more"),
    ]


async def test_announcements_are_remembered_where_they_were_made():
    async with call(greeting="Ahoy!") as stage:
        await stage.send(SILENCE, 2500)
        await stage.say(then_silent_ms=5000)
        stage.conversation.announce("One moment, please.")
        await stage.send(SILENCE, 2500)
        stage.conversation.announce("Still there.")
        await stage.send(SILENCE, 2500)
        said = [(entry.role, entry.content) for entry in stage.conversation.history.context()]
    assert said[1:] == [
        ("assistant", "Ahoy!"),
        ("user", "tell me more"),
        ("assistant", f"{ANSWER}\nOne moment, please. Still there."),
    ]


async def test_what_was_understood_before_an_announcement_is_remembered():
    async with call() as stage:
        stage.turn.probabilities = [0.05]
        await stage.say(then_silent_ms=500)
        stage.conversation.announce("One moment, please.")
        await stage.send(SILENCE, 3000)
        said = [(entry.role, entry.content) for entry in stage.conversation.history.context()]
    assert stage.said == ["tell me more"]
    assert said[1:] == [("user", "tell me more"), ("assistant", "One moment, please.")]
    assert stage.llm.running == stage.stt.running == 0


async def test_who_is_cut_short_by_an_announcement_can_speak_afterwards():
    async with call() as stage:
        await stage.send(VOICE, 800)
        stage.conversation.announce("One moment, please.")
        await stage.send(VOICE, 300)
        await stage.send(SILENCE, 3000)
        stage.stt.words = ["and now this"]
        await stage.say(then_silent_ms=5000)
    assert stage.said == ["", "and now this"]
    assert [answer.heard for answer in stage.answers] == ["One moment, please.", ANSWER]
    (audio,) = stage.stt.given[-1:]
    assert (np.abs(audio) > VOICE / 2).sum() / 16 == pytest.approx(1000, abs=2), "and is not heard with what was before"


async def test_nothing_announced_is_nothing():
    async with call() as stage:
        await speaking(stage, 300)
        told = len(stage.told)
        stage.conversation.announce("  ")
        assert len(stage.told) == told
        await stage.send(SILENCE, 5000)
    assert [answer.heard for answer in stage.answers] == [ANSWER]


@pytest.mark.parametrize("meanwhile", ["nothing", "a voice", "typing", "the button", "another announcement"])
async def test_last_words_are_heard_to_their_end_whatever_happens(meanwhile: str):
    async with call() as stage:
        await speaking(stage, 300)
        stage.conversation.announce("You could not be reached. Goodbye.", then_end=GOODBYE)
        await stage.send(SILENCE, 200)
        match meanwhile:
            case "a voice":
                await stage.say(800, then_silent_ms=500)
            case "typing":
                stage.conversation.type("wait")
            case "the button":
                stage.conversation.interrupt()
            case "another announcement":
                stage.conversation.announce("One moment.")
                stage.conversation.announce("One moment.", then_end=TRANSFER)
        assert await stage.ended() == GOODBYE
        assert stage.answers[-1].heard == "You could not be reached. Goodbye."
        assert heard_ms(stage, stage.when(msg.AudioStarted, 1)) == 2 * 1500
        assert len(stage.answers) == 2


async def test_last_words_that_cannot_be_spoken_end_it_all_the_same():
    async with call() as stage:
        stage.tts.failure = ProviderError("On strike.")
        stage.conversation.announce("Goodbye.", then_end=GOODBYE)
        assert await stage.ended() == GOODBYE


async def test_last_words_without_a_word_are_the_end():
    async with call() as stage:
        stage.conversation.announce("", then_end=TRANSFER)
        assert await stage.ended() == TRANSFER


async def test_what_is_announced_before_the_greeting_is_heard_takes_its_place():
    async with call(greeting="Ahoy!") as stage:
        stage.conversation.announce("You could not be reached.", then_end=GOODBYE)
        assert await stage.ended() == GOODBYE
    assert [answer.heard for answer in stage.answers if answer.heard] == ["You could not be reached."]


# --- goodbye


async def test_a_goodbye_is_answered_and_ends_the_conversation_when_it_was_heard():
    async with call() as stage:
        stage.stt.words = ["Thank you, goodbye."]
        await stage.say(then_silent_ms=1000)
        assert await stage.ended() == GOODBYE
    (answer,) = stage.answers
    assert answer.heard == "Goodbye!"
    assert heard_ms(stage) == 1500


async def test_who_goes_on_over_the_goodbye_stays():
    async with call() as stage:
        stage.stt.words = ["goodbye", "oh, one more thing"]
        await stage.say(then_silent_ms=1200)
        await stage.say(then_silent_ms=5000)
        assert stage.conversation.reason == ""
    assert [answer.heard for answer in stage.answers if not answer.interrupted] == [ANSWER]


async def test_putting_the_receiver_down_during_the_goodbye_does_not_keep_the_line_open():
    async with call() as stage:
        stage.stt.words = ["goodbye", ""]
        await stage.send(VOICE, 1000)
        await until(stage, State.SPEAKING)
        await stage.send(SILENCE, 1320)
        await stage.say(100, then_silent_ms=2000)
        assert await stage.ended() == GOODBYE


async def test_who_asks_how_to_say_goodbye_is_told():
    async with call() as stage:
        stage.stt.words = ["How do you say goodbye in French?"]
        await stage.say(then_silent_ms=5000)
        assert stage.conversation.reason == ""
    assert [answer.heard for answer in stage.answers] == [ANSWER]


async def test_who_asks_for_the_operator_is_put_through():
    async with call() as stage:
        stage.stt.words = ["Operator, please."]
        await stage.say(then_silent_ms=1000)
        assert await stage.ended() == TRANSFER
    assert [answer.heard for answer in stage.answers] == ["One moment."]


# --- hold


async def test_on_hold_the_caller_is_told_to_wait_and_not_heard():
    async with call() as stage:
        await speaking(stage, 300)
        stage.conversation.mute(True)
        stage.conversation.announce("One moment, please.")
        await stage.send(VOICE, 3000)
        stage.conversation.announce("One moment, please.")
        await stage.send(VOICE, 3000)
        assert stage.said == ["tell me more"], "nothing of what was said on hold"
        stage.conversation.mute(False)
        await stage.send(SILENCE, 200)
        stage.stt.words = ["there you are"]
        await stage.say(then_silent_ms=5000)
    assert stage.said == ["tell me more", "there you are"]
    assert [answer.heard for answer in stage.answers][1:] == ["One moment, please."] * 2 + [ANSWER]


async def test_who_is_put_on_hold_in_the_middle_of_a_word_is_heard_afterwards():
    async with call() as stage:
        await stage.send(VOICE, 700)
        stage.conversation.mute(True)
        stage.conversation.announce("One moment, please.")
        await stage.send(VOICE, 3000)
        stage.conversation.mute(False)
        await stage.say(then_silent_ms=5000)
    assert stage.said[-1] == "tell me more"
    assert stage.answers[-1].heard == ANSWER


async def test_a_hold_that_is_announced_again_and_again_is_not_idle():
    async with call() as stage:
        stage.conversation.mute(True)
        for _ in range(5):
            stage.conversation.announce("One moment, please.")
            await stage.send(SILENCE, 30_000)
        assert stage.conversation.reason == ""
        assert await stage.ended() == "idle"


# --- history


async def test_another_conversation_goes_on_where_one_ended():
    async with call(greeting="Ahoy!") as first:
        await first.send(SILENCE, 2500)
        first.stt.words, first.llm.replies = ["My name is Alice."], ["Hello Alice."]
        await first.say(then_silent_ms=3000)
        first.stt.words = ["I want the operator.", "operator"]
        await first.say(then_silent_ms=3000)
        assert await first.ended() == TRANSFER
    async with call(greeting="I could not reach anyone.", history=first.conversation.history) as second:
        await second.send(SILENCE, 2500)
        second.stt.words = ["What is my name?"]
        await second.say(then_silent_ms=5000)
        said = [(entry.role, entry.content) for entry in second.conversation.history.context()]
    assert [(entry.role, entry.content) for entry in second.llm.given[0]] == [
        ("system", "Be brief."),
        ("assistant", "Ahoy!"),
        ("user", "My name is Alice."),
        ("assistant", "Hello Alice."),
        ("user", "I want the operator."),
        ("assistant", "One moment.\nI could not reach anyone."),
        ("user", "What is my name?"),
    ]
    assert said[-1] == ("assistant", ANSWER)
    assert said[:-1] == [(entry.role, entry.content) for entry in second.llm.given[0]]


# --- whatever happens

noises = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 60)), min_size=1, max_size=5)


@settings(max_examples=20, phases=[Phase.generate])  # a conversation takes too long to be made smaller again and again
@given(noises=noises)
def test_whatever_is_said_over_replies_they_wait_and_then_go_on_or_are_silenced(noises):
    async def talk() -> list[object]:
        async with call(tone_ms=1000) as stage:
            order = ordered(stage)
            await speaking(stage, 100)
            stage.stt.words = ["no"]  # there is time to say that in every noise that is long enough for a turn
            for voice_frames, silent_frames in noises:
                await stage.say(voice_frames * FRAME_MS, then_silent_ms=silent_frames * FRAME_MS)
            await stage.send(SILENCE, 8000)
            assert stage.conversation.state is State.LISTENING
        return order

    sent, held, whole = 0, False, 0
    for entry in run_in_virtual_time(talk()):
        match entry:
            case msg.AudioStarted():
                sent, held = 0, False
            case msg.AudioHeld(held=now):
                assert now != held
                held = now
            case int(samples):
                assert not held, "audio was sent while the reply waited"
                sent += samples
            case msg.ReplyDone(text=text, heard=heard, interrupted=False):
                assert heard == text
                assert sent >= 2 * 1000 * MS, "all of it was sent"
                whole += 1
            case msg.ReplyDone(text=text, heard=heard):
                assert text.startswith(heard)
                assert heard != text
            case _:
                pass
    assert whole, "in the end an answer is heard to its end"
