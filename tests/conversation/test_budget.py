"""What a conversation may cost: it ends politely, and answers that are thrown away do not become expensive."""

from collections.abc import AsyncGenerator, Sequence

import numpy as np
import pytest
from app.conversation import messages as msg
from app.llm.base import Message
from app.stt.base import Transcript
from app.usage.account import Account
from app.usage.meter import Usage, report
from app.usage.prices import Prices
from stage import Stage, ToldModel, ToldRecognizer, rules

pytestmark = pytest.mark.looptime

A_CENT = 10_000
"""Tokens for a cent, at a dollar a million."""


class CostlyModel(ToldModel):
    """A reply costs a cent, whatever becomes of it."""

    async def reply(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncGenerator[str, None]:
        complete = False
        try:
            async for word in super().reply(messages, max_tokens=max_tokens):
                yield word
            complete = True
        finally:
            report(Usage("llm", "openai", "costly", output_tokens=A_CENT, given_up=not complete))


def costing(limit_usd: float = 0.0, speculation_usd: float = 0.0, **options: object) -> Stage:
    stage = Stage(**options)  # type: ignore[arg-type]
    prices = Prices((("costly", "output", 1.0),))
    stage.account = Account(prices, None, limit_usd=limit_usd, speculation_usd=speculation_usd)
    stage.llm = CostlyModel()
    return stage


async def test_when_it_is_used_up_the_assistant_says_goodbye_in_place_of_an_answer() -> None:
    async with costing(limit_usd=0.015) as stage:
        await stage.say(800, then_silent_ms=5000)
        await stage.say(800, then_silent_ms=5000)
        assert len(stage.llm.given) == 2
        await stage.say(800, then_silent_ms=5000)
        assert await stage.ended() == "budget"
        assert stage.answers[-1].heard == stage.options.budget_phrase
        assert len(stage.llm.given) == 2, "nothing was asked for that is not paid for any more"


class CostlyRecognizer(ToldRecognizer):
    """Listening costs a cent, also to what is nobody's words."""

    async def transcribe(self, audio: np.ndarray, *, language: str | None = None, partial: bool = False) -> Transcript:
        transcript = await super().transcribe(audio, language=language, partial=partial)
        report(Usage("stt", "openai", "costly", output_tokens=A_CENT))
        return transcript


async def test_listening_to_what_is_never_answered_has_an_end_as_well() -> None:
    stage = costing(limit_usd=0.015)
    stage.stt = CostlyRecognizer(words=[""])
    async with stage:
        for _ in range(2):
            await stage.say(800, then_silent_ms=5000)
        assert await stage.ended() == "budget"
        assert stage.answers[-1].heard == stage.options.budget_phrase
    assert len(stage.stt.given) == 2


async def test_without_a_budget_it_goes_on() -> None:
    async with costing() as stage:
        for _ in range(3):
            await stage.say(800, then_silent_ms=5000)
        assert len(stage.answers) == 3
        assert stage.conversation.account.spent_usd == pytest.approx(0.03)


async def test_what_is_used_is_put_down_to_its_turn() -> None:
    async with costing() as stage:
        await stage.say(800, then_silent_ms=5000)
        await stage.say(800, then_silent_ms=5000)
        account = stage.conversation.account
        assert [account.of_turn(turn).usd for turn in (1, 2)] == pytest.approx([0.01, 0.01])


async def test_the_page_is_told() -> None:
    async with costing() as stage:
        await stage.say(800, then_silent_ms=5000)
        assert stage.messages(msg.UsageShown)[-1].conversation_usd == pytest.approx(0.01)


async def test_answers_are_begun_early_until_too_much_was_thrown_away() -> None:
    async with costing(speculation_usd=0.015) as stage:
        stage.turn.probabilities = [0.05]
        stage.llm.replies = ["word " * 200]
        for _ in range(5):  # pauses of somebody who goes on: each time an answer was begun for nothing
            await stage.say(600, then_silent_ms=500)
        assert len(stage.llm.given) == 2
        await stage.say(600, then_silent_ms=5000)
        assert len(stage.llm.given) == 3, "the turn is answered all the same"


async def test_who_never_begins_early_wastes_nothing() -> None:
    async with costing(rules=rules(speculation=False)) as stage:
        await stage.say(800, then_silent_ms=5000)
        assert stage.conversation.account.wasted_usd == 0
