"""A real server that speaks OpenAI's API: llama.cpp's, with the small model."""

import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import xllamacpp
from app.core.errors import ServiceError
from app.inference.store import ModelStore
from app.llm.base import Message
from app.llm.chat import ChatModel
from app.remote.client import ServiceClient
from app.usage.meter import Usage

CONTEXT_TOKENS = 512
KEY = secrets.token_urlsafe()
CAPITAL = [Message("system", "Answer in one short sentence."), Message("user", "What is the capital of France?")]
STORY = [Message("user", "Tell me a long story about a ship and its crew.")]


def model_path() -> Path:
    store = ModelStore()
    if not store.present("smollm2-135m"):
        pytest.fail("the language model is not there: run `make models`")
    return store.path("smollm2-135m") / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    params: Any = xllamacpp.CommonParams()
    params.model.path = str(model_path())
    params.n_parallel = 1
    params.n_ctx = CONTEXT_TOKENS
    params.n_batch = params.n_ubatch = 64
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.api_keys = [KEY]
    params.n_threads_http = 4
    params.endpoint_metrics = True
    params.ui = False
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
async def model(address: str) -> AsyncIterator[ChatModel]:
    client = ServiceClient("llamacpp", address, KEY)
    yield ChatModel(client, "smollm2", temperature=0, context_tokens=4096, official=False)
    await client.close()


async def said(model: ChatModel, messages: list[Message], max_tokens: int = 40) -> list[str]:
    return [piece async for piece in model.reply(messages, max_tokens=max_tokens)]


async def tokens_made(address: str) -> int:
    """How many tokens the server has made so far, of replies that have ended."""
    metrics, key = address.removesuffix("/v1") + "/metrics", {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession() as session, session.get(metrics, headers=key) as answer:
        counted = re.search(r"^llamacpp:tokens_predicted_total (\d+)", await answer.text(), re.MULTILINE)
    assert counted
    return int(counted[1])


async def test_it_answers_word_by_word_and_says_what_that_took(model: ChatModel, bills: list[Usage]) -> None:
    pieces = await said(model, CAPITAL)
    assert len(pieces) > 3
    assert "Paris" in "".join(pieces)
    (used,) = bills
    assert 20 <= used.input_tokens <= sum(model.count_tokens(message.content) + 6 for message in CAPITAL) + 20
    assert len(pieces) <= used.output_tokens <= len(pieces) + 2
    assert (used.estimated, used.given_up) == (False, False)


async def test_closing_a_reply_stops_the_server(model: ChatModel, bills: list[Usage], address: str) -> None:
    before = await tokens_made(address)
    async with aclosing(model.reply(STORY, max_tokens=450)) as reply:
        for _ in range(3):
            assert await anext(reply)
    assert (bills[0].given_up, bills[0].output_tokens >= 3) == (True, True)
    assert await said(model, CAPITAL, max_tokens=5)
    assert await tokens_made(address) - before < 450 // 2


async def test_a_conversation_that_is_too_long_for_it_goes_on_without_its_beginning(model: ChatModel) -> None:
    long = [CAPITAL[0]]
    for _ in range(8):
        long += [Message("user", "Tell me about the sea. " * 12), Message("assistant", "It is deep.")]
    assert await said(model, [*long, CAPITAL[1]], max_tokens=20)
    assert model.context_tokens < 4096


async def test_a_question_that_is_too_long_for_it_is_an_error_that_says_so(
    model: ChatModel, bills: list[Usage]
) -> None:
    with pytest.raises(ServiceError, match="HISTORY_LIMIT_TOKENS") as caught:
        await said(model, [Message("user", "sea " * 1000)])
    assert (caught.value.code, caught.value.refused) == ("context_too_long", True)
    assert not bills


async def test_a_wrong_key_is_refused(address: str) -> None:
    client = ServiceClient("llamacpp", address, "wrong")
    with pytest.raises(ServiceError) as caught:
        await said(ChatModel(client, "smollm2", context_tokens=512, official=False), CAPITAL)
    assert caught.value.code == "key_refused"
    assert "SERVICE_KEYS" in caught.value.message
    await client.close()
