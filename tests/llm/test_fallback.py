"""A reply comes from whoever is there, goes on with somebody else when it breaks off, and is nobody's twice."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from app.core.errors import BrokenOffError, ProviderError, ServiceError
from app.llm.base import LanguageModel, Message
from app.llm.fallback import FallbackModel
from app.llm.tokens import count_tokens
from app.remote.chain import Chain, Member
from app.remote.health import FAILURES, Doubt, Health

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

PATIENCE_S = 2.0
CONTEXT = [Message("system", "Be brief."), Message("user", "Tell me about the sea.")]
DOWN = ServiceError("It is down.", code="service_failed")
FILTERED = ServiceError("The rules.", code="content_filtered")


class Script:
    """A model that says `pieces`; a number among them is a wait in seconds, an error is raised."""

    def __init__(self, *pieces: str | float | Exception, context_tokens: int = 1000) -> None:
        self.pieces = pieces
        self.context_tokens = context_tokens
        self.asked: list[list[Message]] = []
        self.warmed: list[list[Message]] = []
        self.closed = self.stopped = 0

    def count_tokens(self, text: str) -> int:
        return count_tokens(text)

    async def reply(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncGenerator[str, None]:
        self.asked.append(list(messages))
        try:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                if isinstance(piece, str):
                    yield piece
                else:
                    await asyncio.sleep(piece)
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped += 1
            raise

    async def warm(self, messages: Sequence[Message]) -> None:
        self.warmed.append(list(messages))

    async def close(self) -> None:
        self.closed += 1


def fallback(*models: Script) -> tuple[FallbackModel, list[Health]]:
    now_s = asyncio.get_running_loop().time
    health = [Health(f"number {number}", Doubt(now_s)) for number in range(len(models))]
    members: list[Member[LanguageModel]] = [
        Member(one.name, model, one, PATIENCE_S) for model, one in zip(models, health, strict=True)
    ]
    return FallbackModel(Chain(members)), health


async def said(model: FallbackModel, messages: Sequence[Message] = CONTEXT) -> list[str]:
    return [piece async for piece in model.reply(messages, max_tokens=50)]


async def broken(reply: AsyncGenerator[str, None]) -> tuple[list[str], BrokenOffError]:
    """What a reply says until it breaks off."""
    pieces: list[str] = []

    async def take() -> None:
        async for piece in reply:
            pieces.append(piece)

    with pytest.raises(BrokenOffError) as caught:
        await take()
    return pieces, caught.value


async def test_the_preferred_one_answers() -> None:
    one, two = Script("The sea", " is deep."), Script("No.")
    model, _ = fallback(one, two)
    assert await said(model) == ["The sea", " is deep."]
    assert not two.asked


@pytest.mark.parametrize(
    "pieces", [(DOWN,), (), (" ", "\n"), (0.5, DOWN)], ids=["fails", "says nothing", "says space", "fails late"]
)
async def test_before_a_word_was_said_the_next_one_answers_in_its_place(
    pieces: tuple[str | float | Exception, ...],
) -> None:
    model, _ = fallback(Script(*pieces), Script("The sea", " is deep."))
    assert "".join(await said(model)) == "The sea is deep."


async def test_one_that_never_says_a_word_is_left_alone_in_the_end() -> None:
    model, health = fallback(Script(), Script("Deep."))
    for _ in range(FAILURES):
        await said(model)
    assert not health[0].works
    assert "no words" in health[0].problem


async def test_when_the_only_one_says_nothing_that_is_an_error() -> None:
    model, _ = fallback(Script("  "))
    with pytest.raises(ServiceError, match="no words") as caught:
        await said(model)
    assert caught.value.code == "service_answer"


async def test_whoever_takes_too_long_for_the_first_word_is_overtaken(looptime: float) -> None:
    one = Script(60.0, "Slow.")
    model, _ = fallback(one, Script(0.5, "Quick."))
    assert await said(model) == ["Quick."]
    assert looptime == PATIENCE_S + 0.5
    assert one.stopped == 1


async def test_a_reply_that_breaks_off_is_gone_on_with_by_the_next_one_behind_what_was_said() -> None:
    one, two = Script("The sea is deep. And", DOWN), Script(" It is", " wide.")
    model, health = fallback(one, two)
    pieces, error = await broken(model.reply(CONTEXT, max_tokens=50))
    assert pieces == ["The sea is deep. And"]
    assert "It is down." in error.message
    assert health[0].problem == "It is down."
    assert [piece async for piece in error.go_on("The sea is deep.")] == [" It is", " wide."]
    assert two.asked == [[*CONTEXT, Message("assistant", "The sea is deep.")]]


async def test_if_no_sentence_was_complete_the_next_one_begins_anew() -> None:
    one, two = Script("The", DOWN), Script("It is deep.")
    model, _ = fallback(one, two)
    _, error = await broken(model.reply(CONTEXT, max_tokens=50))
    assert [piece async for piece in error.go_on("")] == ["It is deep."]
    assert two.asked == [CONTEXT]


async def test_whoever_goes_on_may_break_off_too_until_nobody_is_left() -> None:
    last = ServiceError("The last one is down.", code="service_failed")
    model, _ = fallback(Script("One.", DOWN), Script("Two.", DOWN), Script("Three.", last))
    _, error = await broken(model.reply(CONTEXT, max_tokens=50))
    pieces, error = await broken(error.go_on("One."))
    assert pieces == ["Two."]
    rest = error.go_on("One. Two.")
    assert await anext(rest) == "Three."
    with pytest.raises(ServiceError, match="last one"):
        await anext(rest)


async def test_with_nobody_else_the_error_itself_is_raised() -> None:
    model, health = fallback(Script("One.", DOWN))
    reply = model.reply(CONTEXT, max_tokens=50)
    assert await anext(reply) == "One."
    with pytest.raises(ServiceError, match=r"It is down\."):
        await anext(reply)
    assert health[0].problem


async def test_a_reply_that_stalls_is_one_that_breaks_off(looptime: float) -> None:
    one = Script("The sea", 1.9, " is", 60.0, " deep.")
    model, health = fallback(one, Script("It is deep."))
    pieces, _ = await broken(model.reply(CONTEXT, max_tokens=50))
    assert pieces == ["The sea", " is"]
    assert looptime == pytest.approx(1.9 + PATIENCE_S)
    assert one.stopped == 1
    assert "nothing for 2 s" in health[0].problem
    assert health[0].patience_s(PATIENCE_S) < PATIENCE_S, "it is doubted"


async def test_a_reply_that_stalls_is_waited_for_if_nobody_else_could_go_on() -> None:
    model, _ = fallback(Script("The sea", 5.0, " is deep."))
    assert await said(model) == ["The sea", " is deep."]


async def test_a_listener_who_takes_time_is_no_stall() -> None:
    model, _ = fallback(Script("The sea", " is deep."), Script("No."))
    pieces = []
    async for piece in model.reply(CONTEXT, max_tokens=50):
        pieces.append(piece)
        await asyncio.sleep(30)
    assert pieces == ["The sea", " is deep."]


@pytest.mark.parametrize("said_before", [(), ("Once",)], ids=["at once", "in the midst"])
async def test_what_the_rules_of_one_forbid_is_not_shown_to_the_next(said_before: tuple[str, ...]) -> None:
    two = Script("Gladly!")
    model, health = fallback(Script(*said_before, FILTERED), two)
    with pytest.raises(ServiceError) as caught:
        await said(model)
    assert caught.value.code == "content_filtered"
    assert not two.asked
    assert not health[0].problem


async def test_a_defect_in_the_midst_of_a_reply_is_logged_and_gone_on_from(caplog: pytest.LogCaptureFixture) -> None:
    model, _ = fallback(Script("One.", ZeroDivisionError()), Script("Two."))
    _, error = await broken(model.reply(CONTEXT, max_tokens=50))
    assert "ZeroDivisionError" in caplog.text
    assert [piece async for piece in error.go_on("One.")] == ["Two."]


@pytest.mark.parametrize("pieces", [(60.0,), ("One", 60.0)], ids=["before the first word", "in the midst"])
async def test_giving_a_reply_up_is_held_against_nobody(pieces: tuple[str | float, ...]) -> None:
    one = Script(*pieces)
    model, health = fallback(one, Script("Two."))
    reading = asyncio.create_task(said(model))
    await asyncio.sleep(1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert one.stopped == 1
    assert health[0].works
    assert not health[0].problem


async def test_closing_a_reply_stops_the_model() -> None:
    one = Script("One", "Two")
    model, health = fallback(one, Script("No."))
    async with aclosing(model.reply(CONTEXT, max_tokens=50)) as reply:
        await anext(reply)
    assert one.stopped == 1
    assert not health[0].problem


async def test_each_one_is_given_as_much_of_the_conversation_as_it_takes() -> None:
    talk = [Message("system", "Be brief.")]
    for number in range(10):
        talk += [Message("user", f"Question {number}? {'sea ' * 20}"), Message("assistant", f"Answer {number}.")]
    talk.append(Message("user", "And now?"))
    big, small = Script(DOWN, context_tokens=4000), Script("Now.", context_tokens=150)
    model, _ = fallback(big, small)
    assert await said(model, talk) == ["Now."]
    assert model.context_tokens == 4000
    assert big.asked == [talk]
    (given,) = small.asked
    assert given[0] == talk[0]
    assert given[1:] == talk[-len(given) + 1 :]
    assert 2 < len(given) < 8


async def test_what_is_made_ready_is_the_one_that_would_be_asked() -> None:
    one, two = Script(ServiceError("Gone.", code="key_refused")), Script("Hello.")
    model, _ = fallback(one, two)
    await model.warm(CONTEXT)
    await said(model)
    await model.warm(CONTEXT)
    assert (one.warmed, two.warmed) == ([CONTEXT], [CONTEXT])


async def test_closing_closes_all() -> None:
    one, two = Script(), Script()
    model, _ = fallback(one, two)
    await model.close()
    assert (one.closed, two.closed) == (1, 1)


async def test_a_failure_to_answer_is_a_provider_error_like_any_other() -> None:
    model, _ = fallback(Script(DOWN), Script(DOWN))
    with pytest.raises(ProviderError, match=r"It is down\."):
        await said(model)
