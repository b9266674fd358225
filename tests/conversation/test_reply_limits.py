"""Replies on the telephone: not longer than their limit, and able to end the conversation by a mark nobody hears."""

import asyncio
from dataclasses import replace

import pytest
from app.conversation import messages as msg
from app.conversation.options import TELEPHONE, Options, Providers
from app.conversation.parting import GOODBYE, TRANSFER, Parting
from app.conversation.phrases import Phrases
from app.conversation.reply import Reply
from app.conversation.spoken import speakable
from app.core.errors import ProviderError
from app.llm.base import Message
from hypothesis import given
from hypothesis import strategies as st
from stage import (
    OPTIONS,
    LoudnessDetector,
    Stage,
    ToldModel,
    ToldRecognizer,
    ToldTurnDetector,
    ToldVoice,
    run_in_virtual_time,
)

pytestmark = pytest.mark.looptime
FAREWELL = Parting(("bye",), "Goodbye!", GOODBYE)


class Limited:
    """A reply of at most so many characters, made by a model that says this."""

    def __init__(self, limit: int, *said: str, obeys_marks: bool = True) -> None:
        loop = asyncio.get_running_loop()
        self.llm = ToldModel(list(said))
        self.tts = ToldVoice(first_audio_ms=80, audio_ms=500)
        self.providers = Providers(
            LoudnessDetector(), ToldTurnDetector(), ToldRecognizer(), self.llm, self.tts, Phrases(self.tts)
        )
        self.options: Options = replace(OPTIONS, reply_max_characters=limit, obeys_marks=obeys_marks)
        self.shown: list[str] = []
        self.wishes: list[str] = []
        self.ready_s: list[float] = []
        self.reply = Reply(
            1,
            1,
            transport=TELEPHONE,
            work_s=loop.time,
            on_text=self.shown.append,
            on_wish=self.wishes.append,
            on_ready=lambda: self.ready_s.append(loop.time()),
        )

    async def answer(self) -> None:
        await self.reply.answer([Message("user", "Tell me.")], self.providers, self.options)
        assert "".join(self.shown) == self.reply.text


async def said(limit: int, text: str) -> str:
    """What becomes of this text."""
    making = Limited(limit, text)
    await making.answer()
    assert (making.llm.running, making.tts.running) == (0, 0)
    assert " ".join(making.tts.given) == speakable(making.reply.text), "what is shown is what is spoken"
    return making.reply.text


SENTENCES = "Here is one thing. And here is another, which is longer. A third one follows."
LONG = "This sentence goes on and on " + "and on " * 40 + "to its end."


@pytest.mark.parametrize("limit", [len(SENTENCES), 300, 1_000_000])
async def test_what_fits_is_said_as_it_is(limit: int) -> None:
    assert await said(limit, SENTENCES) == SENTENCES


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (len(SENTENCES) - 1, "Here is one thing. And here is another, which is longer. "),
        (57, "Here is one thing. And here is another, which is longer. "),
        (56, "Here is one thing. And here is another, which is longer. "),
        (55, "Here is one thing. "),
        (18, "Here is one thing. "),
    ],
)
async def test_a_longer_one_ends_with_its_last_sentence_that_fits(limit: int, text: str) -> None:
    assert (await said(limit, SENTENCES)).rstrip() == text.rstrip()


@pytest.mark.parametrize(
    ("limit", "text"),
    [(10, "Here is"), (12, "Here is one"), (17, "Here is one"), (7, "Here is"), (4, "Here"), (2, "He")],
)
async def test_a_first_sentence_that_is_longer_is_cut_at_a_word(limit: int, text: str) -> None:
    assert await said(limit, SENTENCES) == text


async def test_a_first_sentence_that_is_spoken_in_pieces_is_cut_at_the_last_word_that_fits() -> None:
    text = await said(100, LONG)
    assert LONG.startswith(text)
    assert 100 - len("and on ") < len(text) <= 100


async def test_no_later_sentence_is_begun_that_does_not_fit() -> None:
    assert await said(300, f"Here is one thing. {LONG}") == "Here is one thing. "
    assert await said(400, f"Here is one thing. {LONG} Fine.") == f"Here is one thing. {LONG} Fine."


async def test_a_sentence_may_end_with_a_title_in_the_middle() -> None:
    text = f"Fine. {'He spoke and spoke, ' * 10}said Dr. Example. More."
    assert await said(len(text) - 1, text) == f"Fine. {'He spoke and spoke, ' * 10}said Dr. Example. "


async def test_a_reply_that_is_full_is_not_generated_any_further() -> None:
    making = Limited(60, "This is a sentence. " * 100)
    making.llm.word_s = 0.1
    begun_s = asyncio.get_running_loop().time()
    await making.answer()
    assert making.reply.text == "This is a sentence. " * 3
    assert asyncio.get_running_loop().time() - begun_s < 5, "of 40 s"
    assert making.llm.running == 0


async def test_a_sentence_that_never_ends_is_not_waited_for() -> None:
    making = Limited(300, "This is a sentence. This one goes on " + "and on " * 1000)
    making.llm.word_s = 0.1
    begun_s = asyncio.get_running_loop().time()
    await making.answer()
    assert making.reply.text.rstrip() == "This is a sentence."
    assert asyncio.get_running_loop().time() - begun_s < 20, "of 200 s"


async def test_the_first_words_are_heard_long_before_the_rest_is_there() -> None:
    making = Limited(300, "First this. " + "And then there is more. " * 20)
    making.llm.word_s = 0.1
    await making.answer()
    (ready_s,) = making.ready_s
    assert ready_s == pytest.approx(0.1 + 2 * 0.1 + 0.08, abs=0.01)


async def test_it_is_shown_sentence_by_sentence() -> None:
    making = Limited(300, SENTENCES)
    await making.answer()
    assert making.shown == ["Here is one thing. ", "And here is another, which is longer. ", "A third one follows."]


async def test_a_model_that_fails_in_the_middle_is_heard_until_there() -> None:
    making = Limited(300, SENTENCES)
    making.llm.failure, making.llm.fail_after_words = ProviderError("On strike."), 6
    with pytest.raises(ProviderError, match="On strike"):
        await making.answer()
    assert making.reply.text == "Here is one thing. And here"


words = st.lists(
    st.sampled_from(
        ["one", "two,", "three.", "Four!", "five?\n", "Dr.", "3.", "extraordinarily", "「六。」", "👋", "[hangup]"]
    ),
    min_size=1,
    max_size=60,
)


@given(words=words, limit=st.integers(1, 200))
def test_whatever_the_model_says_it_is_a_beginning_of_it_within_the_limit(words: list[str], limit: int) -> None:
    text = " ".join(words)

    async def make() -> None:
        making = Limited(limit, text)
        try:
            await making.answer()
        except ProviderError:
            assert not making.reply.playout.duration_ms, "there was nothing to hear"
        spoken = " ".join(text.replace("[hangup]", "").split())
        reply = " ".join(making.reply.text.split())
        assert spoken.startswith(reply)
        assert len(making.reply.text.rstrip()) <= limit
        assert "[" not in making.reply.text
        if len(text) <= limit:
            assert reply == spoken, "nothing is lost of what fits"
            assert set(making.wishes) == ({GOODBYE} if "[hangup]" in text else set())

    run_in_virtual_time(make())


# --- marks


@pytest.mark.parametrize(
    ("text", "shown", "wish"),
    [
        ("Goodbye then! [hangup]", "Goodbye then!", GOODBYE),
        ("Goodbye then.[hangup]", "Goodbye then.", GOODBYE),
        ("[hangup] Goodbye then!", "Goodbye then!", GOODBYE),
        ("Goodbye [Hangup] then!", "Goodbye then!", GOODBYE),
        ("One moment, please.\n[TRANSFER]\n", "One moment, please.", TRANSFER),
        ("I put you through, that takes a moment [transfer].", "I put you through, that takes a moment .", TRANSFER),
    ],
)
async def test_a_mark_is_neither_spoken_nor_shown_and_is_a_wish(text: str, shown: str, wish: str) -> None:
    making = Limited(300, text)
    await making.answer()
    assert " ".join(making.reply.text.split()) == shown
    assert " ".join(" ".join(making.tts.given).split()) == shown
    assert making.wishes == [wish]


async def test_what_is_no_mark_is_said() -> None:
    assert await said(300, "Press [one] to hang up.") == "Press [one] to hang up."


async def test_a_mark_that_the_model_was_not_told_of_is_left_out_and_means_nothing() -> None:
    making = Limited(300, "Goodbye then! [hangup]", obeys_marks=False)
    await making.answer()
    assert making.reply.text.rstrip() == "Goodbye then!"
    assert making.wishes == []


async def test_marks_take_no_room() -> None:
    making = Limited(13, "Goodbye then! [hangup]")
    await making.answer()
    assert making.reply.text.rstrip() == "Goodbye then!"
    assert making.wishes == [GOODBYE]


def calling(*replies: str, **options: object) -> Stage:
    """A telephone call with a model that says this."""
    rules = replace(OPTIONS.rules, partings=(FAREWELL,), partial_ms=0.0)
    usual = {"transport": TELEPHONE, "reply_max_characters": 300, "obeys_marks": True, "rules": rules}
    settings: dict[str, object] = {**usual, **options}
    stage = Stage(**settings)  # type: ignore[arg-type]
    stage.llm = ToldModel(list(replies))
    return stage


@pytest.mark.parametrize(
    ("reply", "reason"), [("It was nice to talk to you. [hangup]", GOODBYE), ("One moment. [transfer]", TRANSFER)]
)
async def test_a_reply_with_a_mark_ends_the_conversation_when_it_was_heard(reply: str, reason: str) -> None:
    async with calling(reply) as stage:
        await stage.say(then_silent_ms=1000)
        assert await stage.ended() == reason
        (answer,) = stage.answers
        assert answer.heard.rstrip() == answer.text.rstrip() == reply.partition(" [")[0]
        assert not answer.interrupted
        assert stage.now_s() - stage.when(msg.AudioStarted) == pytest.approx(1.5, abs=0.05), "the length of its tone"


async def test_who_speaks_over_a_reply_with_a_mark_goes_on() -> None:
    async with calling("It was nice to talk to you. [hangup]", "Of course.") as stage:
        await stage.say(then_silent_ms=1000)
        await stage.say(then_silent_ms=4000)
        assert [answer.interrupted for answer in stage.answers] == [True, False]
        assert stage.conversation.reason == ""


async def test_a_mark_in_a_reply_that_was_brewing_in_vain_means_nothing() -> None:
    async with calling("Goodbye. [hangup]", "Of course.") as stage:
        stage.turn.probabilities = [0.05, 0.05, 0.98]
        await stage.say(then_silent_ms=700)
        assert len(stage.llm.given) == 1, "a reply with a mark was made"
        await stage.say(then_silent_ms=4000)
        assert [answer.heard for answer in stage.answers] == ["Of course."]
        assert stage.conversation.reason == ""


@pytest.mark.parametrize("reply", ["[hangup]", "  [hangup]\n"])
async def test_a_model_that_only_wants_to_hang_up_says_goodbye_first(reply: str) -> None:
    async with calling(reply) as stage:
        await stage.say(then_silent_ms=1000)
        assert await stage.ended() == GOODBYE
        assert [answer.heard for answer in stage.answers if answer.heard] == ["Goodbye!"]


async def test_a_reply_with_a_mark_that_breaks_off_ends_it_all_the_same() -> None:
    async with calling("Goodbye then. [hangup] And there was something else.") as stage:
        stage.llm.failure, stage.llm.fail_after_words = ProviderError("On strike."), 5
        await stage.say(then_silent_ms=1000)
        assert await stage.ended() == GOODBYE
        assert [answer.heard.rstrip() for answer in stage.answers] == ["Goodbye then.  And there"]


async def test_without_words_for_it_a_lone_mark_is_a_model_that_has_nothing_to_say() -> None:
    async with calling("[transfer]") as stage:
        await stage.say(then_silent_ms=4000)
        assert [answer.heard for answer in stage.answers if answer.heard] == [OPTIONS.apology]
        assert stage.conversation.reason == ""
