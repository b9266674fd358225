"""What a model behind the Chat Completions API answers, read piece by piece.

Objects and fields: developers.openai.com, API reference, "Chat Completions", the completion and the chunk object. Only
what is used is decoded; servers that imitate the API leave out or add the rest as they please.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from app.llm.thinking import ThinkFilter
from app.llm.tools import ToolCall
from app.remote.faults import broken_off, filtered, nonsense, stream_error

MAX_ARGUMENTS = 1 << 20
"""Characters of a call's arguments; more are no arguments."""
_DONE = b"[DONE]"


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class Count(msgspec.Struct):
    """What the service says a request took."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None

    @property
    def cached_tokens(self) -> int:
        """How many tokens of the prompt were cached."""
        return (self.prompt_tokens_details and self.prompt_tokens_details.cached_tokens) or 0


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Words(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    """What the model says in place of an answer it does not want to give."""
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    delta: _Words | None = None
    message: _Words | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Chunk)


def _count(told: Any) -> Count | None:
    """What the service says a request took; None if that is no account: it would make the request free, or worse."""
    try:
        count = msgspec.convert(told, Count | None, strict=False)
    except msgspec.ValidationError:
        return None
    parts = (count.prompt_tokens, count.completion_tokens, count.cached_tokens) if count else (None,)
    return None if any(part is None or part < 0 for part in parts) else count


class _Wish:
    """A tool call that is still being told."""

    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.name = ""
        self.arguments = ""


class Completion:
    """One answer of `service`: give it what arrives, it gives the words and the calls of tools. What a model that
    `thinks_aloud` writes in front of its answer is left out."""

    def __init__(self, service: str, *, thinks_aloud: bool = False) -> None:
        self.count: Count | None = None
        """What the service says it took; it says so at the end."""
        self.written: list[str] = []
        """All that the model wrote, whatever of it was given on."""
        self.finished = False
        """The model has come to an end: nothing but the count may follow."""
        self._service = service
        self._said = False
        self._thoughts = ThinkFilter() if thinks_aloud else None
        self._wishes: dict[int, _Wish] = {}

    def take(self, data: bytes, *, last: bool = False) -> Iterator[str]:
        """The words in the data of one event. `last` is for an event that the stream's end cut off, perhaps.

        Raises ServiceError for an error in its place, for what is no chunk, and when the service's rules forbid to
        answer (if it has said something by then, the answer just ends).
        """
        if not data:
            return
        if data == _DONE:
            self.finished = True
            return
        try:
            chunk = _DECODER.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise (broken_off(self._service) if last else nonsense(self._service, "a piece that is no JSON")) from None
        if chunk.error:
            raise stream_error(self._service, chunk.error)
        self.count = _count(chunk.usage) or self.count
        for choice in chunk.choices or ():
            if words := choice.delta or choice.message:
                yield from self._words(words)
            if choice.finish_reason == "content_filter" and not self._said:
                raise filtered(self._service)
            self.finished = self.finished or bool(choice.finish_reason)

    def end(self, *, calls: bool) -> Iterator[str | ToolCall]:
        """The rest of the words, and the `calls` of tools if there are any to call. Raises ServiceError when the answer
        is not complete, and for a call that cannot be made."""
        if not self.finished:
            raise broken_off(self._service)
        if self._thoughts and (text := self._thoughts.flush()):
            yield text
        for wish in self._wishes.values() if calls else ():
            arguments = wish.arguments or "{}"
            try:
                whole = isinstance(msgspec.json.decode(arguments), dict)
            except msgspec.DecodeError:
                whole = False
            if not (wish.name and whole):
                raise nonsense(self._service, "a call of a tool whose arguments are no JSON object")
            yield ToolCall(wish.id, wish.name, arguments)

    def _words(self, words: _Words) -> Iterator[str]:
        if words.reasoning_content:
            self.written.append(words.reasoning_content)
        for text in (words.content, words.refusal):
            if not text:
                continue
            self.written.append(text)
            said = self._thoughts.push(text) if self._thoughts else text
            if said:
                self._said = True
                yield said
        for position, call in enumerate(words.tool_calls or ()):
            self._add(call, position)

    def _add(self, call: _Call, position: int) -> None:
        """Pieces of a call belong together by their index. Servers that give none send each call whole, or name it
        with its first piece at least."""
        index = call.index
        if index is None:
            known = (index for index, wish in self._wishes.items() if wish.id == call.id)
            index = next(known, len(self._wishes)) if call.id else max(len(self._wishes) - 1, position)
        wish = self._wishes.setdefault(index, _Wish(call.id or f"call_{index}"))
        if call.function:
            wish.name = wish.name or call.function.name or ""
            wish.arguments += call.function.arguments or ""
            self.written += filter(None, (call.function.name, call.function.arguments))
        if len(wish.arguments) > MAX_ARGUMENTS:
            raise nonsense(self._service, "a call of a tool without end")
