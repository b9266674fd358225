"""Replies of a service that speaks OpenAI's Chat Completions API."""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing

import pytest
from app.core.errors import ServiceError
from app.llm import chat
from app.llm.base import Message
from app.llm.chat import ChatModel
from app.llm.tools import Tool, ToolCall
from app.usage.meter import Usage
from openai_service import OpenAiService
from openai_service import ToolCall as Called
from openai_service.faults import HalfCharacter, Insert, Page, Stall, comment

ModelOf = Callable[..., ChatModel]

CONTEXT = [
    Message("system", "You are a helpful voice assistant."),
    Message("user", "Hello!"),
    Message("assistant", "Ahoy!"),
    Message("user", "How deep is the sea?"),
]
WEATHER = Tool(
    "weather",
    "The weather at a place.",
    {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
)


async def said(model: ChatModel, messages: list[Message] = CONTEXT, max_tokens: int = 120) -> list[str]:
    return [piece async for piece in model.reply(messages, max_tokens=max_tokens)]


async def test_the_words_arrive_one_by_one_for_a_request_of_the_documented_form(
    service: OpenAiService, model_of: ModelOf
) -> None:
    service.chat.reply("It is deep. Very deep!")
    assert await said(model_of(service)) == ["It", " is", " deep.", " Very", " deep!"]
    assert service.chat.requests[0].body == {
        "model": "gpt-5.4-mini",
        "messages": [
            {"role": "system", "content": "You are a helpful voice assistant."},
            {"role": "user", "content": "Hello!"},
            {"role": "assistant", "content": "Ahoy!"},
            {"role": "user", "content": "How deep is the sea?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 120,
        "reasoning_effort": "none",
    }
    assert not service.refused


async def test_each_word_is_given_while_the_next_one_is_still_awaited(
    service: OpenAiService, model_of: ModelOf
) -> None:
    service.chat.fault(Stall(after=2))
    async with aclosing(model_of(service).reply(CONTEXT, max_tokens=50)) as reply:
        assert await anext(reply) == "Hello!"
        service.chat.release()
        assert await anext(reply) == " What"


async def test_what_a_reply_took_is_what_the_service_says(
    service: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    service.chat.reply("It is deep.")
    await said(model_of(service))
    (used,) = bills
    assert (used.capability, used.service, used.model) == ("llm", "openai", "gpt-5.4-mini")
    assert (used.input_tokens, used.output_tokens) == (29, 3)
    assert (used.estimated, used.given_up) == (False, False)


async def test_tokens_that_the_service_had_cached_are_told_apart(
    service: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    counts = {"prompt_tokens": 2000, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 1920}}
    service.chat.fault(Insert(f"data: {json.dumps({'choices': [], 'usage': counts})}\n\n".encode(), after=9, ends=True))
    service.chat.reply("one two three four five six seven eight nine")
    with pytest.raises(ServiceError):
        await said(model_of(service))
    (used,) = bills
    assert (used.input_tokens, used.cached_tokens, used.output_tokens) == (2000, 1920, 9)


async def test_one_reply_after_the_other_uses_the_same_connection(service: OpenAiService, model_of: ModelOf) -> None:
    model = model_of(service)
    for _ in range(3):
        await said(model)
    assert service.connections == 1


async def test_a_reply_that_reaches_its_limit_just_ends(
    service: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    service.chat.reply("one two three four")
    assert await said(model_of(service), max_tokens=2) == ["one", " two"]
    assert bills[0].output_tokens == 2


# --- giving up


async def test_closing_a_reply_ends_the_request_at_once_and_puts_down_what_there_was(
    service: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    service.chat.fault(Stall(after=3))
    async with aclosing(model_of(service).reply(CONTEXT, max_tokens=50)) as reply:
        assert [await anext(reply), await anext(reply)] == ["Hello!", " What"]
    async with asyncio.timeout(5):
        gone = await service.chat.next_gone()
    assert gone.chunks == 3
    (used,) = bills
    assert used.estimated
    assert used.given_up
    assert used.input_tokens >= 29
    assert 2 <= used.output_tokens <= 6


async def test_cancelling_the_one_who_waits_for_the_first_word_ends_the_request_at_once(
    service: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    service.chat.fault(Stall())
    waiting = asyncio.create_task(said(model_of(service)))
    await service.chat.next_stalled()
    waiting.cancel()
    async with asyncio.timeout(5):
        await service.chat.next_gone()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    (used,) = bills
    assert (used.estimated, used.given_up, used.output_tokens) == (True, True, 0)
    assert service.open_connections == 0


async def test_the_next_reply_after_one_that_was_given_up_works(service: OpenAiService, model_of: ModelOf) -> None:
    model = model_of(service)
    service.chat.fault(Stall(after=2))
    async with aclosing(model.reply(CONTEXT, max_tokens=50)) as reply:
        await anext(reply)
    service.chat.reply("Here I am.")
    assert "".join(await said(model)) == "Here I am."


# --- what servers send


async def test_characters_that_arrive_in_halves_are_whole(service: OpenAiService, model_of: ModelOf) -> None:
    service.chat.reply("Olá, mañana 🦜 日本語!")
    service.chat.fault(HalfCharacter(then="rest"))
    assert "".join(await said(model_of(service))) == "Olá, mañana 🦜 日本語!"


@pytest.mark.parametrize(
    "sent",
    [
        {"choices": []},
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
        {"choices": None},
        {"choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [{"delta": {"role": "assistant", "content": None}, "finish_reason": None, "x": [1]}], "id": 7},
        {"choices": [{"delta": {"reasoning_content": "They want a greeting."}}]},
        {"choices": [{"delta": None}]},
        {"choices": [{}], "usage": None},
        {},
    ],
    ids=json.dumps,
)
async def test_chunks_that_say_nothing_say_nothing(
    compatible: OpenAiService, model_of: ModelOf, sent: dict[str, object]
) -> None:
    compatible.chat.fault(Insert(f"data: {json.dumps(sent)}\r\n\r\n".encode(), after=2))
    assert "".join(await said(model_of(compatible))) == "Hello! What can I do for you today?"


async def test_comments_and_empty_events_say_nothing(service: OpenAiService, model_of: ModelOf) -> None:
    service.chat.fault(comment(after=1), Insert(b"event: ping\ndata:\n\n", after=1))
    for _ in range(2):
        assert len(await said(model_of(service))) == 8


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'])
async def test_either_of_the_two_ends_of_a_stream_is_enough(
    service: OpenAiService, model_of: ModelOf, end: bytes
) -> None:
    service.chat.fault(Insert(end, after=2, ends=True))
    assert await said(model_of(service)) == ["Hello!"]


async def test_a_stream_that_does_not_end_behind_the_last_word_is_not_waited_for(
    service: OpenAiService, model_of: ModelOf, bills: list[Usage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "TAIL_S", 0.05)
    service.chat.reply("It is deep.")
    service.chat.fault(Stall(after=5))  # the role, three words and the end
    assert "".join(await said(model_of(service))) == "It is deep."
    assert (bills[0].estimated, bills[0].given_up) == (True, False)
    async with asyncio.timeout(5):
        await service.chat.next_gone()


async def test_an_answer_in_one_piece_is_taken_from_servers_that_do_not_stream(
    compatible: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    answer = {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "All at once."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24},
    }
    compatible.chat.fault(Page(json.dumps(answer).encode(), "application/json"))
    assert await said(model_of(compatible)) == ["All at once."]
    assert (bills[0].input_tokens, bills[0].output_tokens) == (20, 4)


async def test_a_server_that_sends_more_than_it_may_is_stopped(compatible: OpenAiService, model_of: ModelOf) -> None:
    endless = b"".join(b'data: {"choices":[{"delta":{"content":"on "}}]}\n\n' for _ in range(200))
    compatible.chat.fault(Insert(endless, after=1))
    assert len("".join(await said(model_of(compatible), max_tokens=20))) == 20 * chat.CHARACTERS_PER_TOKEN


async def test_a_server_that_sends_more_than_it_may_in_one_piece_is_cut_short(
    compatible: OpenAiService, model_of: ModelOf
) -> None:
    compatible.chat.fault(Insert(b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % (b"on " * 100_000)))
    assert len("".join(await said(model_of(compatible), max_tokens=20))) == 20 * chat.CHARACTERS_PER_TOKEN


async def test_a_server_that_streams_letter_by_letter_is_not_cut_short(
    compatible: OpenAiService, model_of: ModelOf
) -> None:
    words = "It is deep, and deeper than that where the sea has its trenches."
    letters = b"".join(b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % letter.encode() for letter in words)
    compatible.chat.fault(Insert(letters + b"data: [DONE]\n\n", ends=True))
    assert "".join(await said(model_of(compatible), max_tokens=20)) == words


@pytest.mark.parametrize(
    "told",
    [
        "{}",
        '{"total_tokens": 9}',
        '{"prompt_tokens": -1, "completion_tokens": -1}',
        '"much"',
        '{"prompt_tokens": 9, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": -1}}',
    ],
)
async def test_an_account_that_is_none_does_not_make_a_reply_free(
    compatible: OpenAiService, model_of: ModelOf, bills: list[Usage], told: str
) -> None:
    stream = f"""data: {{"choices":[{{"delta":{{"content":"Deep."}}}}], "usage": {told}}}\n\ndata: [DONE]\n\n"""
    compatible.chat.fault(Insert(stream.encode(), ends=True))
    assert await said(model_of(compatible)) == ["Deep."]
    assert bills[0].estimated
    assert bills[0].input_tokens > 0
    assert bills[0].output_tokens > 0
    assert bills[0].cached_tokens == 0


async def test_tools_that_nobody_offered_are_not_called_and_spoil_no_answer(
    compatible: OpenAiService, model_of: ModelOf
) -> None:
    wish = '{"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "sink", "arguments": "{oops"}}]}'
    stream = (
        f"""data: {{"choices":[{{"delta":{{"content":"Deep."}}}}]}}\n\ndata: {{"choices":[{{"delta":{wish}}}]}}\n\n"""
    )
    compatible.chat.fault(Insert((stream + "data: [DONE]\n\n").encode(), ends=True))
    assert await said(model_of(compatible)) == ["Deep."]


async def test_what_the_rules_forbid_is_an_error_if_nothing_was_said_and_an_end_if_something_was(
    service: OpenAiService, model_of: ModelOf
) -> None:
    model = model_of(service)
    service.chat.reply("", finish_reason="content_filter")
    with pytest.raises(ServiceError) as caught:
        await said(model)
    assert caught.value.code == "content_filtered"
    service.chat.reply("Once upon a time.", finish_reason="content_filter")
    assert "".join(await said(model)) == "Once upon a time."


async def test_what_a_local_model_thinks_in_front_of_its_answer_is_not_said_but_counted(
    compatible: OpenAiService, model_of: ModelOf, bills: list[Usage]
) -> None:
    compatible.chat.reply(tokens=("<thi", "nk>", "They greet", " me.", "</think>", "\n\n", "Ahoy", "!"))
    assert await said(model_of(compatible)) == ["Ahoy", "!"]
    assert bills[0].output_tokens == 8


async def test_a_model_that_only_thinks_says_nothing(compatible: OpenAiService, model_of: ModelOf) -> None:
    compatible.chat.reply("<think>They greet me. What could I say to that", finish_reason="length")
    assert await said(model_of(compatible)) == []


async def test_a_word_that_looks_like_the_beginning_of_a_thought_is_said(
    compatible: OpenAiService, model_of: ModelOf
) -> None:
    compatible.chat.reply("<th")
    assert await said(model_of(compatible)) == ["<th"]


async def test_words_of_a_model_that_refuses_are_said(service: OpenAiService, model_of: ModelOf) -> None:
    refusal = b'data: {"choices":[{"delta":{"refusal":"I cannot help with that."}}]}\n\ndata: [DONE]\n\n'
    service.chat.fault(Insert(refusal, after=1, ends=True))
    assert await said(model_of(service)) == ["I cannot help with that."]


# --- tools


async def test_a_model_can_wish_for_tools_and_is_told_what_came_of_it(
    service: OpenAiService, model_of: ModelOf
) -> None:
    model = model_of(service)
    service.chat.reply(
        "Let me see.",
        tool_calls=(
            Called("weather", '{"place": "Zephyr Bay"}', "call_1"),
            Called("weather", '{"place": "Rio"}', "call_2"),
        ),
    )
    items = [item async for item in model.stream(CONTEXT, max_tokens=50, tools=[WEATHER])]
    calls = [item for item in items if isinstance(item, ToolCall)]
    assert "".join(item for item in items if isinstance(item, str)) == "Let me see."
    assert calls == [
        ToolCall("call_1", "weather", '{"place": "Zephyr Bay"}'),
        ToolCall("call_2", "weather", '{"place": "Rio"}'),
    ]
    asked = Message("assistant", "Let me see.", tool_calls=tuple(calls))
    told = [Message("tool", "windy", tool_call_id="call_1"), Message("tool", "sunny", tool_call_id="call_2")]
    service.chat.reply("Windy there, sunny here.")
    items = [item async for item in model.stream([*CONTEXT, asked, *told], max_tokens=50, tools=[WEATHER])]
    assert "".join(map(str, items)) == "Windy there, sunny here."
    assert not service.refused


@pytest.mark.parametrize("arguments", ["", "{}"])
async def test_a_call_may_have_no_arguments(service: OpenAiService, model_of: ModelOf, arguments: str) -> None:
    service.chat.reply(tool_calls=(Called("weather", arguments),))
    items = [item async for item in model_of(service).stream(CONTEXT, max_tokens=50, tools=[WEATHER])]
    assert items == [ToolCall("call_0123456789", "weather", "{}")]


@pytest.mark.parametrize("arguments", ['{"place": ', "[1, 2]", '"Rio"', "weather in Rio"])
async def test_a_call_whose_arguments_are_no_json_object_is_an_error(
    service: OpenAiService, model_of: ModelOf, arguments: str
) -> None:
    service.chat.reply(tool_calls=(Called("weather", arguments),))
    with pytest.raises(ServiceError) as caught:
        [item async for item in model_of(service).stream(CONTEXT, max_tokens=50, tools=[WEATHER])]
    assert caught.value.code == "service_answer"


async def test_calls_without_an_index_are_told_apart_by_their_ids(compatible: OpenAiService, model_of: ModelOf) -> None:
    deltas = [
        [{"id": "a", "function": {"name": "weather", "arguments": '{"place":'}}],
        [{"function": {"arguments": '"Rio"}'}}],
        [{"id": "b", "function": {"name": "weather", "arguments": "{}"}}],
    ]
    sent = "".join(f"data: {json.dumps({'choices': [{'delta': {'tool_calls': delta}}]})}\n\n" for delta in deltas)
    compatible.chat.fault(Insert(f"{sent}data: [DONE]\n\n".encode(), after=1, ends=True))
    items = [item async for item in model_of(compatible).stream(CONTEXT, max_tokens=50, tools=[WEATHER])]
    assert items == [ToolCall("a", "weather", '{"place":"Rio"}'), ToolCall("b", "weather", "{}")]


async def test_a_reply_offers_no_tools(service: OpenAiService, model_of: ModelOf) -> None:
    await said(model_of(service))
    assert "tools" not in service.chat.requests[0].body


# --- being ready


async def test_a_warm_model_has_connections_before_it_is_asked(service: OpenAiService, model_of: ModelOf) -> None:
    model = model_of(service)
    await model.warm(CONTEXT)
    await service.model_list.next_request()
    await service.model_list.next_request()
    assert not service.chat.requests, "what is read ahead would be paid for"
    assert model._client._ahead
    await model._client._ahead
    await said(model)
    assert service.connections == 2


async def test_a_model_cannot_be_warmed_into_an_error(service: OpenAiService, model_of: ModelOf) -> None:
    model = model_of(service)
    await service.kill()
    await model.warm(CONTEXT)
    assert model._client._ahead
    await model._client._ahead
