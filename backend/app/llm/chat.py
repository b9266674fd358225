"""A language model behind OpenAI's Chat Completions API, as OpenAI itself and most servers of models speak it.

Fields: developers.openai.com, API reference, "Create chat completion". What one model takes, another one refuses:
a field that is refused is left out or replaced and the request is made again, which costs nothing but the first reply a
moment. What was learnt is remembered for the model.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import orjson

from app.core.errors import ServiceError
from app.llm.base import Message
from app.llm.completion import Completion
from app.llm.tokens import count_tokens, fitting, halved, tokens_of
from app.llm.tools import Tool, ToolCall
from app.remote.client import ServiceClient, pieces
from app.remote.faults import nonsense
from app.remote.sse import EventStream
from app.usage.meter import Usage, report

MAX_REQUESTS = 6
"""How often a reply is asked for in other words before the service's refusal is believed."""
TAIL_S = 0.5
"""How long the rest of an answer may take whose words are complete: what it took, and the end that lets the connection
be used again."""
REASONING_TOKENS = 2000
"""What a model that thinks first may spend on that; its thoughts count as part of the answer."""
CHARACTERS_PER_TOKEN = 8
"""More than any language needs on average: a longer answer is one of a server that knows no limit."""
MAX_ANSWER_BYTES = 4 << 20
"""Of an answer that comes in one piece."""
NEXT_CONTEXT = 0.75
"""The share of a context that was too long that is tried with the next reply."""
_REASONS = re.compile(r"(gpt-(?![34])\d|o\d)(?!.*-chat)")
"""Names of OpenAI's models that take reasoning_effort."""
_THOUGHTLESS = (("none",), ("minimal",))


@dataclass(frozen=True, slots=True)
class _Dialect:
    """What a model takes. Of a field with several names or values the first is used, the others are left to try."""

    limits: tuple[str, ...]
    """Names of the field that bounds the answer."""
    efforts: tuple[str, ...]
    temperature: float | None
    counts: bool = True
    """It says how many tokens a streamed answer took."""

    def without(self, parameter: str | None) -> "_Dialect | None":
        """What to try when this parameter is refused; None when nothing can be done about it."""
        match re.split(r"[.\[]", parameter or "")[0]:
            case "max_tokens" | "max_completion_tokens" if len(self.limits) > 1:
                return replace(self, limits=self.limits[1:])
            case "reasoning_effort" if self.efforts:
                return replace(self, efforts=self.efforts[1:])
            case "temperature" if self.temperature is not None:
                return replace(self, temperature=None)
            case "stream_options" | "" if self.counts:  # not every server says what it does not know
                return replace(self, counts=False)
        return None


class ChatModel:
    """Implements LanguageModel with a model of the service `client`, which stays its owner's to close.

    `official`: it is OpenAI (or Azure), whose newer fields others do not know. `temperature` None is the model's own;
    `reasoning` is how much a model that can think does so before it speaks; None asks OpenAI's for none.
    `context_tokens` is what is assumed until the service says that it is too much.
    """

    def __init__(
        self,
        client: ServiceClient,
        model: str,
        *,
        temperature: float | None = None,
        reasoning: str | None = None,
        context_tokens: int,
        official: bool,
    ) -> None:
        self._client = client
        self._model = model
        self._thinks_aloud = not official
        """It may write its thoughts in front of the answer."""
        self._context_tokens = context_tokens
        self._believed = True
        """Nobody has said that `context_tokens` is too much."""
        reasons = _REASONS.match(model) if official else bool(reasoning)
        reasoning = reasoning or "none"
        limits = ("max_completion_tokens", "max_tokens")
        self._dialect = _Dialect(
            limits=limits if official else limits[::-1],
            efforts=() if not reasons else ("none", "minimal") if reasoning == "none" else (reasoning,),
            temperature=temperature,
        )
        self._reasons = bool(reasons)

    @property
    def context_tokens(self) -> int:
        """How many tokens one conversation's context and reply may have together."""
        return self._context_tokens

    def count_tokens(self, text: str) -> int:
        """At most about how many tokens `text` has."""
        return count_tokens(text)

    async def reply(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncGenerator[str, None]:
        """Stream the reply; see LanguageModel. Raises ServiceError."""
        async with aclosing(self.stream(messages, max_tokens=max_tokens)) as stream:
            async for item in stream:
                if isinstance(item, str):
                    yield item

    async def stream(
        self, messages: Sequence[Message], *, max_tokens: int, tools: Sequence[Tool] = ()
    ) -> AsyncGenerator[str | ToolCall, None]:
        """Stream the answer: words, then the calls of `tools` that the model wants to be made. A speculative reply is
        not to be given tools. Raises ServiceError; a call that cannot be made is one as well."""
        dialect = self._dialect
        if not self._believed:
            messages = fitting(messages, self._context_tokens - max_tokens)
        for left in reversed(range(MAX_REQUESTS)):
            try:
                async with aclosing(self._once(dialect, messages, max_tokens, tools)) as items:
                    async for item in items:
                        yield item
                return
            except ServiceError as error:  # one that was refused has given nothing before
                if not (error.refused and left):
                    raise
                if error.code == "context_too_long":
                    shorter = halved(messages)
                    if len(shorter) == len(messages):
                        raise
                    refused_tokens = tokens_of(messages) + max_tokens
                    self._context_tokens = min(self._context_tokens, int(refused_tokens * NEXT_CONTEXT))
                    messages, self._believed = shorter, False
                elif error.code == "service_refused" and (other := dialect.without(error.parameter)):
                    dialect = other
                else:
                    raise

    async def warm(self, messages: Sequence[Message]) -> None:
        """Have a connection ready. The service reads nothing ahead: that would be paid for."""
        self._client.open_ahead()

    async def close(self) -> None:
        """Nothing to stop: replies end with those who read them."""

    async def _once(
        self, dialect: _Dialect, messages: Sequence[Message], max_tokens: int, tools: Sequence[Tool]
    ) -> AsyncGenerator[str | ToolCall, None]:
        """One request and its answer."""
        body = self._body(dialect, messages, max_tokens, tools)
        answer = Completion(self._client.name, thinks_aloud=self._thinks_aloud)
        room = max_tokens * CHARACTERS_PER_TOKEN
        with self._counted(answer, messages, tools):
            async with self._client.post("/chat/completions", model=self._model, json=body) as response:
                self._dialect = dialect
                async with aclosing(self._events(response, answer)) as events:
                    async for data, last in events:
                        for text in answer.take(data, last=last):
                            yield text[:room]
                            room -= len(text)
                            if room <= 0:
                                return
                for item in answer.end(calls=bool(tools)):
                    yield item

    async def _events(
        self, response: aiohttp.ClientResponse, answer: Completion
    ) -> AsyncGenerator[tuple[bytes, bool], None]:
        """The data of each event, and whether the stream ended in its midst."""
        whole = response.content_type == "application/json"  # servers that do not stream answer in one piece
        if not whole and response.content_type != "text/event-stream":
            raise nonsense(self._client.name, f"{response.content_type!r} in place of a stream")
        events = EventStream()
        body = bytearray()
        async with aclosing(pieces(response, self._client.name)) as received:
            while piece := await _next(received, TAIL_S if answer.finished else None):
                if whole:
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        raise nonsense(self._client.name, "an answer without end")
                    continue
                try:
                    complete = events.push(piece)
                except ValueError:
                    raise nonsense(self._client.name, "an event without end") from None
                for data in complete:
                    yield data, False
        if whole:
            yield bytes(body), False
            answer.finished = True
        elif not answer.finished:
            for data in events.flush():
                yield data, True

    def _body(
        self, dialect: _Dialect, messages: Sequence[Message], max_tokens: int, tools: Sequence[Tool]
    ) -> dict[str, Any]:
        limit = dialect.limits[0]
        thinks = limit == "max_completion_tokens" and self._reasons and dialect.efforts[:1] not in _THOUGHTLESS
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [_as_json(message) for message in messages],
            "stream": True,
            limit: max_tokens + (REASONING_TOKENS if thinks else 0),
        }
        if dialect.counts:
            body["stream_options"] = {"include_usage": True}
        if dialect.efforts:
            body["reasoning_effort"] = dialect.efforts[0]
        if dialect.temperature is not None:
            body["temperature"] = dialect.temperature
        if tools:
            body["tools"] = [_tool_as_json(tool) for tool in tools]
        return body

    @contextmanager
    def _counted(self, answer: Completion, messages: Sequence[Message], tools: Sequence[Tool]) -> Iterator[None]:
        """Puts down what the request took, whatever way it ends. One that was refused took nothing."""
        try:
            yield
        except Exception as error:
            if not (isinstance(error, ServiceError) and error.refused):
                self._report(answer, messages, tools)
            raise
        except BaseException:  # the task was cancelled, or nobody reads on
            self._report(answer, messages, tools, given_up=True)
            raise
        self._report(answer, messages, tools)

    def _report(
        self, answer: Completion, messages: Sequence[Message], tools: Sequence[Tool], *, given_up: bool = False
    ) -> None:
        said = answer.count
        report(
            Usage(
                "llm",
                self._client.name,
                self._model,
                input_tokens=(said.prompt_tokens or 0) if said else tokens_of(messages) + _tokens_of_tools(tools),
                cached_tokens=said.cached_tokens if said else 0,
                output_tokens=(said.completion_tokens or 0) if said else count_tokens("".join(answer.written)),
                estimated=said is None,
                given_up=given_up,
            )
        )


def _as_json(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        fields["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    return fields


def _tool_as_json(tool: Tool) -> dict[str, Any]:
    about = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": about}


def _tokens_of_tools(tools: Sequence[Tool]) -> int:
    return sum(count_tokens(orjson.dumps(_tool_as_json(tool)).decode()) for tool in tools)


async def _next(received: AsyncGenerator[bytes, None], timeout_s: float | None) -> bytes:
    """The next piece of a body; nothing at its end, or when the time is over."""
    try:
        async with asyncio.timeout(timeout_s):
            return await anext(received, b"")
    except TimeoutError:
        return b""
