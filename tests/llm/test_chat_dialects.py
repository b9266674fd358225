"""What one model takes, another one refuses: a reply is there all the same, and the service is not asked twice."""

from collections.abc import Callable
from typing import Any

import pytest
from app.core.errors import ServiceError
from app.llm.base import Message
from app.llm.chat import MAX_REQUESTS, ChatModel
from app.usage.meter import Usage
from openai_service import OpenAiService
from openai_service.refusals import Status, context_too_long

ModelOf = Callable[..., ChatModel]

CONTEXT = [Message("system", "Be brief."), Message("user", "Hello!")]
UNNAMED = Status(422, None, "Unprocessable request.")


async def said(model: ChatModel, messages: list[Message] = CONTEXT) -> str:
    return "".join([piece async for piece in model.reply(messages, max_tokens=50)])


def fields(service: OpenAiService, number: int = -1) -> dict[str, Any]:
    return {
        name: value for name, value in service.chat.requests[number].body.items() if name not in ("messages", "model")
    }


@pytest.mark.parametrize(
    ("model", "options", "refusals", "taken"),
    [
        ("gpt-5.4-mini", {}, 0, {"max_completion_tokens": 50, "reasoning_effort": "none"}),
        (
            "gpt-5.4",
            {"temperature": 0.7},
            0,
            {"max_completion_tokens": 50, "temperature": 0.7, "reasoning_effort": "none"},
        ),
        ("gpt-5.1", {"reasoning": "low"}, 0, {"max_completion_tokens": 2050, "reasoning_effort": "low"}),
        ("gpt-5-mini", {}, 1, {"max_completion_tokens": 50, "reasoning_effort": "minimal"}),
        ("gpt-5-mini", {"temperature": 0.7}, 2, {"max_completion_tokens": 50, "reasoning_effort": "minimal"}),
        ("o3-mini", {}, 2, {"max_completion_tokens": 2050}),
        ("o4-mini", {"temperature": 0.2}, 3, {"max_completion_tokens": 2050}),
        ("gpt-4.1-mini", {"temperature": 0.7}, 0, {"max_completion_tokens": 50, "temperature": 0.7}),
        ("gpt-5-chat-latest", {"reasoning": "low"}, 0, {"max_completion_tokens": 50}),
    ],
)
async def test_each_of_openais_models_gets_the_fields_that_it_takes_and_is_not_asked_for_more_again(
    service: OpenAiService,
    model_of: ModelOf,
    bills: list[Usage],
    model: str,
    options: dict[str, Any],
    refusals: int,
    taken: dict[str, Any],
) -> None:
    asked = model_of(service, model, **options)
    for _ in range(2):
        assert await said(asked) == "Hello! What can I do for you today?"
    assert fields(service) == {"stream": True, "stream_options": {"include_usage": True}, **taken}
    assert len(service.refused) == refusals, "what is learnt is remembered"
    assert len(bills) == 2, "what was refused is not charged"


async def test_other_servers_get_the_fields_that_all_of_them_know(compatible: OpenAiService, model_of: ModelOf) -> None:
    await said(model_of(compatible, "llama3.2:3b", temperature=0.5))
    assert fields(compatible) == {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 50,
        "temperature": 0.5,
    }
    assert not compatible.refused


async def test_other_servers_are_asked_how_long_to_think_if_that_is_set_and_once_only_if_they_do_not_know_it(
    compatible: OpenAiService, model_of: ModelOf
) -> None:
    model = model_of(compatible, "qwen3:8b", reasoning="low")
    for _ in range(2):
        assert await said(model)
    assert [asked.body["reasoning_effort"] for asked in compatible.refused] == ["low"]
    assert "reasoning_effort" not in fields(compatible)


async def test_a_server_that_is_taken_for_openai_is_asked_in_the_older_way_after_all(
    compatible: OpenAiService, model_of: ModelOf
) -> None:
    model = model_of(compatible, "gpt-5-mini", official=True)
    await said(model)
    await said(model)
    assert fields(compatible) == {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 50}
    assert len(compatible.refused) <= 3


async def test_openai_is_asked_in_the_newer_way_after_all_when_it_is_not_known_as_such(
    service: OpenAiService, model_of: ModelOf
) -> None:
    await said(model_of(service, "gpt-5-mini", official=False))
    assert fields(service)["max_completion_tokens"] == 50
    assert len(service.refused) == 1


async def test_a_server_that_does_not_say_what_it_does_not_take_is_asked_without_the_count(
    compatible: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    model = model_of(compatible, "tiny")
    compatible.chat.fault(UNNAMED)
    assert await said(model)
    assert await said(model)
    assert [("stream_options" in request.body) for request in compatible.chat.requests] == [True, False, False]
    assert [(used.estimated, used.given_up) for used in bills] == [(True, False)] * 2
    assert bills[0].output_tokens >= 8


async def test_if_that_was_not_the_reason_it_is_an_error_and_nothing_is_remembered(
    compatible: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    model = model_of(compatible, "tiny")
    compatible.chat.fault(UNNAMED, UNNAMED)
    with pytest.raises(ServiceError) as caught:
        await said(model)
    assert caught.value.code == "service_refused"
    assert not bills
    await said(model)
    assert "stream_options" in fields(compatible)


async def test_a_field_that_cannot_be_left_out_is_an_error_at_once(service: OpenAiService, model_of: ModelOf) -> None:
    service.chat.fault(Status(400, "invalid_value", "Invalid.", param="messages[0].content"))
    with pytest.raises(ServiceError) as caught:
        await said(model_of(service))
    assert caught.value.parameter == "messages[0].content"
    assert len(service.chat.requests) == 1


async def test_a_service_that_refuses_everything_is_believed_in_the_end(
    service: OpenAiService, model_of: ModelOf
) -> None:
    long = [CONTEXT[0], *[Message("user", f"Number {number}.") for number in range(300)]]
    service.chat.fault(*[context_too_long()] * 50)
    with pytest.raises(ServiceError) as caught:
        await said(model_of(service), long)
    assert caught.value.code == "context_too_long"
    assert len(service.chat.requests) <= MAX_REQUESTS


# --- contexts that are too long

TALK = [
    Message("system", "Be brief."),
    *[Message(("user", "assistant")[number % 2], f"Number {number}: {'sea ' * 20}") for number in range(8)],  # type: ignore[arg-type]
    Message("user", "And now?"),
]


async def test_a_conversation_that_is_too_long_goes_on_without_its_older_half(
    service: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    model = model_of(service)
    service.chat.fault(context_too_long())
    assert await said(model, TALK)
    sent = service.chat.requests[-1].body["messages"]
    assert sent[0] == {"role": "system", "content": "Be brief."}
    assert sent[-1] == {"role": "user", "content": "And now?"}
    assert len(sent) == 1 + 4
    assert len(bills) == 1


async def test_what_was_too_long_once_is_not_tried_again(service: OpenAiService, model_of: ModelOf) -> None:
    model = model_of(service)
    service.chat.fault(context_too_long())
    await said(model, TALK)
    before = model.context_tokens
    assert before < 4096
    await said(model, TALK)
    assert len(service.chat.requests) == 3
    assert 5 <= len(service.chat.requests[-1].body["messages"]) < len(TALK)
    assert model.context_tokens == before


async def test_a_last_message_that_is_too_long_by_itself_is_an_error_that_says_so(
    service: OpenAiService, model_of: ModelOf
) -> None:
    service.chat.fault(*[context_too_long()] * 10)
    with pytest.raises(ServiceError, match="HISTORY_LIMIT_TOKENS") as caught:
        await said(model_of(service), TALK)
    assert caught.value.code == "context_too_long"
    assert [len(request.body["messages"]) for request in service.chat.requests] == [10, 5, 3, 2]
