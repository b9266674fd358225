"""Chat completions, asked for by the official SDK."""

from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from openai_service import OpenAiService, ToolCall

HELLO: list[Any] = [{"role": "user", "content": "Hello?"}]
TOOLS: list[Any] = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
CALL: dict[str, Any] = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


async def stream(client: openai.AsyncOpenAI, **fields: Any) -> list[ChatCompletionChunk]:
    asked: dict[str, Any] = {"model": "gpt-4o-mini", "messages": HELLO, "stream": True, **fields}
    return [chunk async for chunk in await client.chat.completions.create(**asked)]


def words(chunks: list[ChatCompletionChunk]) -> list[str]:
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]


async def test_a_streamed_reply_comes_word_by_word(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.reply("Grüß dich, Welt!")
    chunks = await stream(client)
    assert words(chunks) == ["Grüß", " dich,", " Welt!"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 4 + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


async def test_the_last_chunk_says_what_it_cost_if_asked(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.reply("One two three")
    *said, last = await stream(client, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage
    assert last.usage.completion_tokens == 3
    assert last.usage.total_tokens == last.usage.prompt_tokens + 3
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in said)


async def test_a_reply_in_one_piece(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.reply("All at once.")
    answer = await client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert answer.choices[0].message.content == "All at once."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.completion_tokens == 3


async def test_replies_are_used_in_order_and_then_the_usual_one(
    service: OpenAiService, client: openai.AsyncOpenAI
) -> None:
    service.chat.reply("First.")
    service.chat.reply("Second.")
    replies = ["".join(words(await stream(client))) for _ in range(3)]
    assert replies == ["First.", "Second.", service.chat.usual.text]


async def test_a_reply_ends_at_the_limit(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.reply("One two three four")
    chunks = await stream(client, model="gpt-5-mini", max_completion_tokens=2)
    assert words(chunks) == ["One", " two"]
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_a_reply_ends_before_a_stop_sequence(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.reply("One two. Three")
    chunks = await stream(client, stop=["o. "])
    assert words(chunks) == ["One", " tw"]
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_the_filter_may_end_a_reply(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.reply("Well,", finish_reason="content_filter")
    assert (await stream(client))[-1].choices[0].finish_reason == "content_filter"


async def test_a_tool_call_comes_as_a_name_and_pieces_of_arguments(
    service: OpenAiService, client: openai.AsyncOpenAI
) -> None:
    service.chat.reply(tool_calls=(ToolCall("look_up", '{"what": "the weather"}'),))
    chunks = await stream(client, tools=TOOLS)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert calls[0].id
    assert calls[0].function
    assert calls[0].function.name == "look_up"
    assert "".join(call.function.arguments or "" for call in calls if call.function) == '{"what": "the weather"}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_the_answer_to_a_tool_call_is_taken(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    asked = [
        *HELLO,
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "x"},
    ]
    assert await stream(client, messages=asked)
    assert not service.refused


async def test_requests_are_kept_without_the_key(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    await stream(client)
    exchange = await service.chat.next_ended()
    assert service.chat.requests == [exchange]
    assert exchange.body == {"model": "gpt-4o-mini", "messages": HELLO, "stream": True}
    assert "authorization" not in exchange.headers
    assert exchange.outcome == "answered"
    assert exchange.chunks == len(service.chat.usual.pieces()) + 3
    assert exchange.bytes > 1000


async def test_connections_are_counted(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    await stream(client)
    await stream(client)
    assert service.connections == 1


async def test_models_are_listed(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == service.models


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"extra_body": {"surprise": 1}}, "surprise", "unknown_parameter"),
        ({"messages": [{"role": "user", "content": "Hi", "mood": 1}]}, "messages[0].mood", "unknown_parameter"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": "Hi"}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": ""}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL]}, *HELLO]}, "messages[1]", "invalid_value"),
        ({"messages": [{"role": "assistant"}]}, "messages[0]", "invalid_value"),
        ({"temperature": "warm"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 10.0}, "max_tokens", "invalid_type"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "invalid_parameter_combination"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "array_above_max_length"),
        ({"stream": False, "stream_options": {"include_usage": True}}, "stream_options", "invalid_parameter"),
        ({"stream_options": {"usage": True}}, "stream_options.usage", "unknown_parameter"),
        ({"tool_choice": "auto"}, "tool_choice", "invalid_parameter"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", "missing_required_parameter"),
        ({"response_format": {"type": "poem"}}, "response_format.type", "invalid_value"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "unsupported_parameter"),
        ({"model": "gpt-5-mini", "max_tokens": 5}, "max_tokens", "unsupported_parameter"),
        ({"model": "o3", "max_tokens": 5}, "max_tokens", "unsupported_parameter"),
        ({"model": "gpt-5-mini", "temperature": 0.3}, "temperature", "unsupported_value"),
        ({"model": "gpt-5-mini", "reasoning_effort": "none"}, "reasoning_effort", "unsupported_value"),
        ({"model": "gpt-5.1", "reasoning_effort": "low", "top_p": 0.5}, "top_p", "unsupported_value"),
    ],
)
async def test_what_breaks_the_rules_is_refused(
    service: OpenAiService, client: openai.AsyncOpenAI, fields: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await stream(client, **fields)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert refused.value.type == "invalid_request_error"
    assert [exchange.outcome for exchange in service.refused] == ["refused"]
    assert not service.chat.requests


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.3, "max_tokens": 5, "seed": 1, "user": "u", "frequency_penalty": 0.5},
        {"model": "gpt-5.1", "reasoning_effort": "none", "temperature": 0.3, "verbosity": "low"},
        {"model": "gpt-5-mini", "reasoning_effort": "minimal", "temperature": 1, "max_completion_tokens": 9},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "look_up"}}},
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "Be kind."}]}, *HELLO]},
        {"messages": [{"role": "developer", "content": "Be kind.", "name": "x"}, *HELLO], "stop": "END"},
        {"prompt_cache_key": "k", "service_tier": "priority", "store": False, "metadata": {"a": "b"}},
    ],
)
async def test_what_keeps_the_rules_is_answered(
    service: OpenAiService, client: openai.AsyncOpenAI, fields: dict[str, Any]
) -> None:
    assert words(await stream(client, **fields))
    assert not service.refused


async def test_a_model_that_does_not_exist_is_not_found(client: openai.AsyncOpenAI) -> None:
    for model in ("gpt-nope", "tts-1"):
        with pytest.raises(openai.NotFoundError) as refused:
            await stream(client, model=model)
        assert refused.value.code == "model_not_found"


async def test_a_wrong_key_is_refused(service: OpenAiService) -> None:
    async with openai.AsyncOpenAI(base_url=service.base_url, api_key="sk-wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            await stream(stranger)
    assert refused.value.code == "invalid_api_key"


async def test_a_compatible_server_knows_any_model_but_no_newer_fields() -> None:
    async with (
        OpenAiService(compatible=True, key=None) as service,
        openai.AsyncOpenAI(base_url=service.base_url, api_key="none", max_retries=0) as client,
    ):
        chunks = await stream(client, model="llama", max_tokens=2)
        assert len(words(chunks)) == 2
        with pytest.raises(openai.BadRequestError) as refused:
            await stream(client, model="llama", max_completion_tokens=2)
        assert refused.value.param == "max_completion_tokens"
