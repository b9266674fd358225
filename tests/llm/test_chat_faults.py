"""Whatever goes wrong on the way to a service is one error that says what it was, and nothing is paid twice."""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing

import pytest
from app.core.errors import ServiceError
from app.llm.base import Message
from app.llm.chat import ChatModel
from app.usage.meter import Usage
from openai_service import OpenAiService, refusals
from openai_service.faults import (
    Cut,
    Empty,
    Fault,
    HalfCharacter,
    Insert,
    Page,
    broken_json,
    error_event,
    login_page,
)

ModelOf = Callable[..., ChatModel]

CONTEXT = [Message("user", "Tell me about my secret plans.")]
MOJIBAKE = Insert(b'data: {"choices":[{"delta":{"content":"\xc3"}}]}\n\n', after=1, ends=True)


async def read(model: ChatModel) -> tuple[list[str], ServiceError]:
    """What was said, and the error that ended it."""
    pieces: list[str] = []

    async def take() -> None:
        async for piece in model.reply(CONTEXT, max_tokens=50):
            pieces.append(piece)

    with pytest.raises(ServiceError) as caught:
        await take()
    return pieces, caught.value


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (refusals.unauthorized(), "key_refused"),
        (refusals.forbidden(), "key_refused"),
        (refusals.no_quota(), "quota_exceeded"),
        (refusals.rate_limited(2), "rate_limited"),
        (refusals.rate_limited(None), "rate_limited"),
        (refusals.model_not_found("gpt-5.4-mini"), "model_not_found"),
        (refusals.content_refused(), "content_filtered"),
        (refusals.server_error(), "service_failed"),
        (refusals.overloaded(), "service_failed"),
        (refusals.context_too_long(), "context_too_long"),
    ],
    ids=lambda value: value.code or value.type if isinstance(value, refusals.Status) else value,
)
async def test_a_request_that_is_turned_down_is_made_once_and_costs_nothing(
    service: OpenAiService, model_of: ModelOf, bills: list[Usage], fault: refusals.Status, code: str
) -> None:
    service.chat.fault(fault)
    pieces, error = await read(model_of(service))
    assert (pieces, error.code, error.refused) == ([], code, True)
    assert error.retry_after_s == (2 if "Retry-After" in fault.headers else None)
    assert len(service.chat.requests) == 1
    assert not bills


@pytest.mark.parametrize(
    ("fault", "words", "code"),
    [
        pytest.param(refusals.bad_gateway(), 0, "service_failed", id="bad gateway"),
        pytest.param(Cut(), 0, "service_unreachable", id="cut before the head"),
        pytest.param(Cut(reset=False), 0, "service_unreachable", id="closed before the head"),
        pytest.param(Cut(after=0), 0, "service_unreachable", id="cut behind the head"),
        pytest.param(Cut(after=3), 2, "service_unreachable", id="cut between two words"),
        pytest.param(Cut(after=3, reset=False), 2, "service_unreachable", id="closed between two words"),
        pytest.param(Cut(after_bytes=400), 0, "service_unreachable", id="cut within a word"),
        pytest.param(HalfCharacter(then="cut"), 1, "service_unreachable", id="cut within a character"),
        pytest.param(Empty(), 0, "service_failed", id="no body"),
        pytest.param(Insert(b"", after=3, ends=True), 2, "service_failed", id="ended in good order, but too soon"),
        pytest.param(Insert(b'data: {"choices":[{"del', 3, ends=True), 2, "service_failed", id="ended within a chunk"),
        pytest.param(login_page(), 0, "service_answer", id="a web page"),
        pytest.param(Page(b"Hello!", "text/plain"), 0, "service_answer", id="plain text"),
        pytest.param(Page(b"<html>", "application/json"), 0, "service_answer", id="JSON that is none"),
        pytest.param(broken_json(after=3), 2, "service_answer", id="a chunk that is no JSON"),
        pytest.param(MOJIBAKE, 0, "service_answer", id="a chunk that is no UTF-8"),
        pytest.param(error_event(after=3), 2, "service_failed", id="an error in the stream"),
        pytest.param(error_event(0, refusals.no_quota()), 0, "quota_exceeded", id="no quota in the stream"),
        pytest.param(
            Page(json.dumps(refusals.server_error().body()).encode(), "application/json"),
            0,
            "service_failed",
            id="an error with 200",
        ),
    ],
)
async def test_a_request_that_may_have_been_worked_for_is_not_made_again_and_is_put_down_once(
    service: OpenAiService, model_of: ModelOf, bills: list[Usage], fault: Fault, words: int, code: str
) -> None:
    service.chat.reply("Hello, señor! What can I do for you?")
    service.chat.fault(fault)
    pieces, error = await read(model_of(service))
    assert (error.code, error.refused) == (code, False)
    assert pieces == ["Hello,", " señor!"][:words]
    assert len(service.chat.requests) == 1
    (used,) = bills
    assert used.estimated
    assert not used.given_up
    assert used.input_tokens > 5
    assert bool(used.output_tokens) == bool(words)
    assert "secret" not in error.message
    assert "openai" in error.message


async def test_after_any_fault_the_next_reply_works(service: OpenAiService, model_of: ModelOf) -> None:
    model = model_of(service)
    service.chat.fault(refusals.server_error(), Cut(), Cut(after=3), login_page(), broken_json())
    for _ in range(5):
        await read(model)
    assert "".join([piece async for piece in model.reply(CONTEXT, max_tokens=50)]).startswith("Hello!")


async def test_a_service_that_dies_in_the_midst_of_a_reply_breaks_it_off(
    service: OpenAiService, model_of: ModelOf
) -> None:
    service.chat.pace_s = 0.05
    model = model_of(service)
    async with aclosing(model.reply(CONTEXT, max_tokens=50)) as reply:
        assert await anext(reply) == "Hello!"
        await service.kill()
        with pytest.raises(ServiceError) as caught:
            async for _ in reply:
                pass
    assert caught.value.code == "service_unreachable"
    _, error = await read(model)
    assert (error.code, error.refused) == ("service_unreachable", True)
    assert "nobody answers" in error.message


async def test_a_service_that_is_silent_is_given_up_by_who_waits(
    service: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    await service.freeze()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await read(model_of(service))
    (used,) = bills
    assert used.given_up
    service.thaw()


async def test_a_certificate_that_nobody_vouches_for_is_named_as_the_reason(
    model_of: ModelOf, bills: list[Usage]
) -> None:
    async with OpenAiService(tls=True) as service:
        pieces, error = await read(model_of(service))
        assert not service.chat.requests
    assert (pieces, error.code, error.refused) == ([], "service_unreachable", True)
    assert "certificate" in error.message
    assert not bills


async def test_a_wrong_key_is_not_repeated(service: OpenAiService, model_of: ModelOf) -> None:
    model = model_of(service)
    service.key = "sk-another-key"
    _, error = await read(model)
    assert error.code == "key_refused"
    assert "sk-" not in error.message
    assert "OPENAI_API_KEY" in error.message
