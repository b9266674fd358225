"""The embedded language model: any GGUF file, run by llama.cpp inside this process.

llama.cpp's server does the work: it has one slot for each reply that runs at the same time, decodes all slots in one
batch, and keeps the prompt of every slot (and of some earlier ones, in memory), so that a conversation's next turn
only costs its new words. Each reply is one blocking call in a thread of ours; its callback hands the text to the
event loop and, by what it returns, stops the model. The chat template comes from the file.
"""

import asyncio
import json
import logging
import os
import secrets
import urllib.request
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import xllamacpp

from app.core.errors import ModelError, ProviderError
from app.inference.worker import Worker
from app.llm.base import Message
from app.llm.tokens import count_tokens

log = logging.getLogger(__name__)

WAITING_PER_SLOT = 4
"""Replies that may wait for each slot before new ones are refused."""

BATCH_TOKENS = 64
"""Tokens of a prompt that are read in one go. Between two goes other replies get their tokens and a stopped one ends;
on a processor larger batches measured no faster."""

PROMPT_CACHE_MIB = 512
"""Memory for prompts whose slot another conversation took: some 20 000 tokens of a model of 135 M parameters."""

MAX_THREADS = 8
"""Decoding is bound by memory bandwidth: more threads than this seldom help."""

SAMPLING: dict[str, float] = {
    "temperature": 0.3,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.05,
    "repeat_penalty": 1.1,
    "repeat_last_n": 128,
}
"""Close to the likeliest words, as a small model strays quickly, with a penalty on repetition, into which it falls as
easily."""

ENOUGH_SHARE = 0.5
"""Once a reply has this share of the tokens it may have, the next end of a sentence ends it: a listener would rather
miss a sentence than have one broken off."""

_READ_PROPS_S = 10.0


class LlamaModel:
    """Implements LanguageModel with the GGUF file `model_path`. Constructing it loads the file and blocks.

    `context_tokens` is what one conversation's context and reply may have together (less if the model was trained for
    less), `parallel` how many replies are made at once, `threads` how many threads compute (default: half of the
    processors this process may use, up to `MAX_THREADS`). Raises ModelError when the file cannot be loaded.
    """

    def __init__(self, model_path: Path, *, context_tokens: int, parallel: int, threads: int | None = None) -> None:
        if not model_path.is_file():
            raise ModelError(f"{model_path} is not a file: set LLM_MODEL to a GGUF file or run `ahoy models pull`.")
        api_key = secrets.token_urlsafe()
        params = _parameters(model_path, context_tokens, parallel, threads or _default_threads(), api_key)
        try:
            self._server: Any = xllamacpp.Server(params)
            self._context_tokens = min(context_tokens, _slot_tokens(self._server.listening_address, api_key))
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{model_path} cannot be loaded with LLM_CONTEXT_TOKENS={context_tokens} and LLM_PARALLEL={parallel}: "
                "it is not a GGUF file that llama.cpp knows, or memory is too short."
            ) from error
        self._worker = Worker("language model", threads=parallel, capacity=parallel * WAITING_PER_SLOT)
        self._running: set[_Generation] = set()

    @property
    def context_tokens(self) -> int:
        """How many tokens one conversation's context and reply may have together."""
        return self._context_tokens

    def count_tokens(self, text: str) -> int:
        """At most about how many tokens `text` has."""
        return count_tokens(text)

    async def reply(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncGenerator[str, None]:
        """Stream the reply; see LanguageModel. The slot is free again when the model is done, even if nobody reads."""
        generation = _Generation(asyncio.get_running_loop(), max_tokens)
        request = _request(messages, max_tokens)
        self._running.add(generation)
        task = asyncio.create_task(self._worker.run(partial(generation.run, self._server, request)))
        task.add_done_callback(lambda _: generation.end())
        try:
            while piece := await generation.pieces.get():
                yield piece
            await task
        finally:
            generation.stop()
            self._running.discard(generation)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def warm(self, messages: Sequence[Message]) -> None:
        """Read `messages` into a slot, so that a reply to them and something more begins sooner. Waits behind replies;
        does nothing when there is too much to do."""
        generation = _Generation(asyncio.get_running_loop(), max_tokens=1)
        self._running.add(generation)
        try:
            await self._worker.run(
                partial(generation.run, self._server, _request(messages, max_tokens=1)), low_priority=True
            )
        except ProviderError as error:
            log.debug("the prompt could not be prepared: %s", error.code)
        finally:
            generation.stop()
            self._running.discard(generation)

    async def close(self) -> None:
        """Stop every reply, end the threads and free the model. Replies that still run fail with ProviderError."""
        self._worker.close()
        for generation in self._running:
            generation.fail(ProviderError("The language model was closed before the reply was complete."))
        await asyncio.to_thread(self._worker.join)
        server, self._server = self._server, None
        if server is not None:
            holder = [server]
            del server
            await asyncio.to_thread(holder.clear)  # freeing it waits for llama.cpp's own threads


class _Generation:
    """One call of llama.cpp: made in a thread, read on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_tokens: int) -> None:
        self.pieces: asyncio.Queue[str] = asyncio.Queue(max_tokens + 1)
        """Text, then one empty string. The model gives at most `max_tokens` pieces: it never waits for a reader."""
        self._enough = max_tokens * ENOUGH_SHARE
        self._given = 0
        self._loop = loop
        self._stopped = False
        self._error: ProviderError | None = None

    def stop(self) -> None:
        """Make the model stop at its next token, or before the next batch of the prompt."""
        self._stopped = True

    def fail(self, error: ProviderError) -> None:
        """Stop, and raise `error` where the reply is read."""
        self._error = error
        self._stopped = True

    def end(self) -> None:
        """Tell the reader that nothing follows."""
        with suppress(asyncio.QueueFull):
            self.pieces.put_nowait("")

    def run(self, server: Any, request: dict[str, Any]) -> None:
        """Blocks until the reply is complete or stopped. Raises ProviderError."""
        if not self._stopped:
            try:
                server.handle_chat_completions(request, self._take)
            except Exception as error:
                raise ProviderError("The language model failed; see the log.") from error
        if self._error:
            raise self._error

    def _take(self, chunk: Any) -> bool:
        """Called by llama.cpp with each piece of the answer; True stops it."""
        try:
            if self._stopped:
                return True
            if "error" in chunk:
                self._error = _provider_error(chunk["error"])
                return True
            for choice in chunk.get("choices", ()):
                text = choice.get("delta", {}).get("content")
                if text:
                    self._loop.call_soon_threadsafe(self._put, text)
                    self._given += 1
                    if self._given >= self._enough and text.rstrip().endswith((".", "!", "?")):
                        return True
        except Exception as error:  # nothing may be raised through llama.cpp
            log.debug("a piece of a reply was not understood: %s", type(error).__name__)
            self._error = ProviderError("The language model gave an answer that cannot be read; see the log.")
            return True
        return False

    def _put(self, text: str) -> None:
        if self.pieces.full():
            self.fail(ProviderError("The language model gave more tokens than it was asked for."))
        elif not self._stopped:
            self.pieces.put_nowait(text)


def _request(messages: Sequence[Message], max_tokens: int) -> dict[str, Any]:
    """Fields of llama.cpp's /v1/chat/completions. Progress is asked for because it calls back between the batches of a
    long prompt, so that it can be stopped there; thinking aloud is not for a spoken reply."""
    return {
        "messages": [{"role": message.role, "content": message.content} for message in messages],
        "max_tokens": max_tokens,
        "stream": True,
        "return_progress": True,
        "cache_prompt": True,
        "chat_template_kwargs": {"enable_thinking": False},
        **SAMPLING,
    }


def _provider_error(details: Any) -> ProviderError:
    kind = details.get("type") if isinstance(details, dict) else None
    if kind == "exceed_context_size_error":
        return ProviderError(
            f"The context has {details.get('n_prompt_tokens')} tokens and the language model takes "
            f"{details.get('n_ctx')}: lower HISTORY_LIMIT_TOKENS or raise LLM_CONTEXT_TOKENS.",
            code="context_too_long",
        )
    return ProviderError(f"The language model refused the request ({kind or 'no reason given'}).")


def _parameters(path: Path, context_tokens: int, parallel: int, threads: int, api_key: str) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = parallel
    params.n_ctx = context_tokens * parallel
    params.n_batch = params.n_ubatch = max(BATCH_TOKENS, parallel)
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.prefill_assistant = False  # a context that ends with the assistant's words still asks for new ones
    params.verbosity = -1  # llama.cpp logs prompts
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = threads
        cpu.poll = 0  # waiting threads sleep
    # The server listens on a loopback port of its own choice, which only this module may use.
    params.api_keys = [api_key]
    params.n_threads_http = 1
    params.endpoint_slots = False
    params.ui = False
    return params


def _slot_tokens(address: str, api_key: str) -> int:
    """How many tokens a slot has room for: not more than the model was trained with."""
    request = urllib.request.Request(f"{address}/props", headers={"Authorization": f"Bearer {api_key}"})  # noqa: S310 (http, loopback)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_READ_PROPS_S) as answer:
        return int(json.load(answer)["default_generation_settings"]["n_ctx"])


def _default_threads() -> int:
    """Half of the processors. llama.cpp's threads wait for each other at every step, so that one of them that has to
    share its core holds up all: with a thread for each of two cores, first clauses came 50 ms sooner on an idle machine
    and seconds later on a busy one, for a third more processor time."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available // 2, MAX_THREADS))
