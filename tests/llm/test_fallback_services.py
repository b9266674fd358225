"""Two services, one standing in for the other: what each of them is asked, and what is paid for."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from app.core.errors import BrokenOffError, ServiceError
from app.llm.base import LanguageModel, Message
from app.llm.chat import ChatModel
from app.llm.fallback import FallbackModel
from app.remote.chain import Chain, Member
from app.remote.health import Doubt, Health
from app.usage.meter import Usage
from openai_service import OpenAiService, Reply, refusals
from openai_service.faults import Cut, Fault, Stall, login_page

ModelOf = Callable[..., ChatModel]

CONTEXT = [Message("user", "Hello!")]
PATIENT_S = 60.0


@pytest.fixture
async def other() -> AsyncIterator[OpenAiService]:
    """A service that stands in."""
    async with OpenAiService(compatible=True) as other:
        other.chat.usual = Reply("The other one speaks.")
        yield other


def fallback(*models: ChatModel, patience_s: float = PATIENT_S, hedge_s: float = 0.0) -> FallbackModel:
    members: list[Member[LanguageModel]] = [
        Member(f"number {number}", model, Health(f"number {number}", Doubt()), patience_s)
        for number, model in enumerate(models)
    ]
    return FallbackModel(Chain(members, hedge_s=hedge_s))


async def said(model: FallbackModel) -> str:
    return "".join([piece async for piece in model.reply(CONTEXT, max_tokens=50)])


@pytest.mark.parametrize("fault", [refusals.bad_gateway(), Cut(), Cut(after=1), login_page()], ids=str)
async def test_what_may_have_been_worked_for_is_asked_of_somebody_else_and_not_of_the_same_again(
    service: OpenAiService, other: OpenAiService, model_of: ModelOf, bills: list[Usage], fault: Fault
) -> None:
    service.chat.fault(fault)
    assert await said(fallback(model_of(service), model_of(other))) == "The other one speaks."
    assert (len(service.chat.requests), len(other.chat.requests)) == (1, 1)
    assert [used.estimated for used in bills] == [True, False]


async def test_alone_it_is_not_asked_again_either(
    service: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    service.chat.fault(Cut())
    with pytest.raises(ServiceError, match="broke off"):
        await said(fallback(model_of(service)))
    assert len(service.chat.requests) == 1
    assert len(bills) == 1


async def test_what_was_turned_down_for_the_moment_is_asked_again_and_paid_once(
    service: OpenAiService, other: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    service.chat.fault(refusals.overloaded())
    assert (await said(fallback(model_of(service), model_of(other)))).startswith("Hello!")
    assert (len(service.chat.requests), len(other.chat.requests)) == (2, 0)
    assert len(bills) == 1


async def test_a_service_that_dies_in_the_midst_is_gone_on_for(
    service: OpenAiService, other: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    service.chat.fault(Stall(after=3))
    reply = fallback(model_of(service), model_of(other)).reply(CONTEXT, max_tokens=50)
    assert [await anext(reply), await anext(reply)] == ["Hello!", " What"]
    await service.kill()
    with pytest.raises(BrokenOffError) as caught:
        await anext(reply)
    assert "".join([piece async for piece in caught.value.go_on("Hello!")]) == "The other one speaks."
    assert other.chat.requests[0].body["messages"] == [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello!"},
    ]
    assert [(used.estimated, used.given_up) for used in bills] == [(True, False), (False, False)]


async def test_a_service_that_hangs_is_overtaken_and_left(
    service: OpenAiService, other: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    service.chat.fault(Stall())
    assert await said(fallback(model_of(service), model_of(other), patience_s=0.05)) == "The other one speaks."
    async with asyncio.timeout(5):
        await service.chat.next_gone()
    assert [(used.estimated, used.given_up) for used in bills] == [(True, True), (False, False)]


async def test_of_two_identical_requests_the_first_token_wins_and_the_other_ones_connection_is_closed(
    service: OpenAiService, other: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    service.chat.fault(Stall(after=0))
    model = fallback(model_of(service), model_of(other), hedge_s=0.05)
    assert (await said(model)).startswith("Hello!")
    async with asyncio.timeout(5):
        gone = await service.chat.next_gone()
    one, two = service.chat.requests
    assert one.body == two.body
    assert (gone is one, one.outcome, two.outcome) == (True, "gone", "answered")
    assert not other.chat.requests
    assert [(used.service, used.estimated, used.given_up) for used in bills] == [
        ("openai", True, True),
        ("openai", False, False),
    ]


async def test_without_need_there_is_no_second_request(service: OpenAiService, model_of: ModelOf) -> None:
    await said(fallback(model_of(service), hedge_s=30))
    assert len(service.chat.requests) == 1
