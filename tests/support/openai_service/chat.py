"""POST /v1/chat/completions, streaming and in one piece. What the assistant says is written by the test."""

import re
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import (
    Choice as ChunkChoice,
)
from openai.types.chat.chat_completion_chunk import (
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
)
from openai.types.chat.chat_completion_message_function_tool_call import ChatCompletionMessageFunctionToolCall, Function
from openai.types.completion_usage import CompletionTokensDetails, CompletionUsage, PromptTokensDetails

from openai_service.chat_rules import check_chat
from openai_service.endpoint import MAX_KEPT, Endpoint
from openai_service.exchange import Answer, Exchange, House, Piece, event, read_json
from openai_service.refusals import refuse

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
USUAL_TEXT = "Hello! What can I do for you today?"
_TOKEN = re.compile(r"\s*\S+|\s+")
_ID = "chatcmpl-Ahoy0123456789"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model wants a tool to be used; `arguments` is JSON."""

    name: str
    arguments: str
    id: str = "call_0123456789"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says. `tokens` are the pieces in which it says it, by default words. The finish reason follows
    from the reply and the request's limits unless it is given. Delays: until the first chunk, and before each token."""

    text: str = USUAL_TEXT
    tool_calls: tuple[ToolCall, ...] = ()
    tokens: tuple[str, ...] | None = None
    finish_reason: FinishReason | None = None
    first_s: float | None = None
    pace_s: float | None = None

    def pieces(self) -> list[str]:
        """The text, token by token."""
        return list(self.tokens) if self.tokens is not None else _TOKEN.findall(self.text)


class Chat(Endpoint):
    """Answers with the queued replies, then with `usual`."""

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.usual = Reply()
        self.first_s = 0.0
        """Delay before the first chunk of replies that do not say it themselves."""
        self.pace_s = 0.0
        """Delay before each token of them."""
        self._replies: deque[Reply] = deque(maxlen=MAX_KEPT)

    def reply(
        self,
        text: str = "",
        *,
        tool_calls: tuple[ToolCall, ...] = (),
        tokens: tuple[str, ...] | None = None,
        finish_reason: FinishReason | None = None,
        first_s: float | None = None,
        pace_s: float | None = None,
    ) -> None:
        """The next request that has no other reply yet is answered so; see Reply."""
        self._replies.append(Reply(text, tool_calls, tokens, finish_reason, first_s, pace_s))

    async def answer(self, request: web.Request, exchange: Exchange) -> Answer:
        """Checks the request and takes the next reply."""
        exchange.body = body = await read_json(request)
        check_chat(body, self.house.models, self.house.compatible)
        reply = self._replies.popleft() if self._replies else self.usual
        if reply.tool_calls and not body.get("tools"):
            raise refuse("invalid_parameter", "The test's reply calls a tool, but the request offers none.", "tools")
        said = _Said(body, reply, official=not self.house.compatible)
        first_s = self.first_s if reply.first_s is None else reply.first_s
        pace_s = self.pace_s if reply.pace_s is None else reply.pace_s
        if not body.get("stream"):
            whole = Piece(said.whole().encode(), first_s + pace_s * len(said.tokens))
            return Answer("application/json", [whole], streamed=False)
        pieces = [Piece(event(chunk), pace_s if is_token else 0.0) for chunk, is_token in said.chunks()]
        pieces[0] = Piece(pieces[0].data, first_s)
        return Answer("text/event-stream; charset=utf-8", pieces, headers={"Cache-Control": "no-cache"})


class _Said:
    """A reply as an answer to one request: within its limits, with what it costs, as the SDK's models."""

    def __init__(self, body: dict[str, Any], reply: Reply, official: bool) -> None:
        self._model = body["model"]
        self._options = body.get("stream_options") or {}
        self._calls = reply.tool_calls
        self._official = official
        self._created = int(time.time())
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        tokens, stopped = _until(reply.pieces(), stops)
        self.tokens = tokens[:limit]
        self._finish: FinishReason = reply.finish_reason or (
            "length" if len(self.tokens) < len(tokens) and not stopped else "tool_calls" if self._calls else "stop"
        )
        self._prompt_tokens = sum(4 + len(_TOKEN.findall(str(one.get("content")))) for one in body["messages"])

    def usage(self) -> CompletionUsage:
        """Tokens: a word is one."""
        spoken = len(self.tokens) + sum(len(_TOKEN.findall(call.arguments)) + 1 for call in self._calls)
        return CompletionUsage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=spoken,
            total_tokens=self._prompt_tokens + spoken,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=0, audio_tokens=0),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=0, audio_tokens=0),
        )

    def whole(self) -> str:
        """The answer in one piece."""
        calls = [
            ChatCompletionMessageFunctionToolCall(
                id=call.id, type="function", function=Function(name=call.name, arguments=call.arguments)
            )
            for call in self._calls
        ]
        message = ChatCompletionMessage(
            role="assistant", content="".join(self.tokens) or None, refusal=None, tool_calls=calls or None
        )
        return ChatCompletion(
            id=_ID,
            object="chat.completion",
            created=self._created,
            model=self._model,
            choices=[Choice(index=0, message=message, logprobs=None, finish_reason=self._finish)],
            usage=self.usage(),
            system_fingerprint=None,
        ).model_dump_json(exclude_unset=True)

    def chunks(self) -> list[tuple[str, bool]]:
        """The answer as chunks of a stream, the end mark included, and whether each is a token. A name of a function
        comes with the first chunk of its call, the arguments in those behind it."""
        found = [(self._chunk(ChoiceDelta(role="assistant", content="", refusal=None)), False)]
        found += [(self._chunk(ChoiceDelta(content=token)), True) for token in self.tokens]
        for index, call in enumerate(self._calls):
            named = ChoiceDeltaToolCallFunction(name=call.name, arguments="")
            start = ChoiceDeltaToolCall(index=index, id=call.id, type="function", function=named)
            found.append((self._chunk(ChoiceDelta(tool_calls=[start])), True))
            for part in _TOKEN.findall(call.arguments):
                more = ChoiceDeltaToolCall(index=index, function=ChoiceDeltaToolCallFunction(arguments=part))
                found.append((self._chunk(ChoiceDelta(tool_calls=[more])), True))
        found.append((self._chunk(ChoiceDelta(), self._finish), False))
        if self._options.get("include_usage"):
            found.append((self._as_json([], self.usage()), False))
        return [*found, ("[DONE]", False)]

    def _chunk(self, delta: ChoiceDelta, finish_reason: FinishReason | None = None) -> str:
        return self._as_json([ChunkChoice(index=0, delta=delta, logprobs=None, finish_reason=finish_reason)], None)

    def _as_json(self, choices: list[ChunkChoice], usage: CompletionUsage | None) -> str:
        chunk = ChatCompletionChunk(
            id=_ID,
            object="chat.completion.chunk",
            created=self._created,
            model=self._model,
            choices=choices,
            system_fingerprint=None,
        )
        if self._options.get("include_usage"):
            chunk.usage = usage
        extra = {"obfuscation": "x7Kq"} if self._official and self._options.get("include_obfuscation", True) else {}
        return chunk.model_copy(update=extra).model_dump_json(exclude_unset=True)


def _until(tokens: list[str], stops: list[str]) -> tuple[list[str], bool]:
    """The tokens up to the first of the stop sequences, and whether there was one."""
    text = "".join(tokens)
    ends = [text.index(stop) for stop in stops if stop in text]
    if not ends:
        return tokens, False
    room, kept = min(ends), []
    for token in tokens:
        kept.append(token[:room])
        room -= len(token)
        if room <= 0:
            break
    return [token for token in kept if token], True
