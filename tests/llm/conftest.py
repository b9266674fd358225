"""The strict service, and language models that ask it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from app.llm.chat import ChatModel
from app.remote.client import ServiceClient
from app.usage import meter
from app.usage.meter import Usage
from openai_service import OpenAiService


class _Ledger:
    def __init__(self) -> None:
        self.bills: list[Usage] = []

    def add(self, usage: Usage, turn: int) -> None:
        self.bills.append(usage)


@pytest.fixture
def bills() -> Iterator[list[Usage]]:
    """What the test's requests took, as it is reported."""
    ledger = _Ledger()
    before = meter._BOUND.set((ledger, lambda: 1))
    yield ledger.bills
    meter._BOUND.reset(before)


@pytest.fixture
async def service() -> AsyncIterator[OpenAiService]:
    """OpenAI."""
    async with OpenAiService() as service:
        yield service


@pytest.fixture
async def compatible() -> AsyncIterator[OpenAiService]:
    """A server that knows OpenAI's old fields only."""
    async with OpenAiService(compatible=True) as service:
        yield service


@pytest.fixture
async def model_of() -> AsyncIterator[Callable[..., ChatModel]]:
    """Makes models that ask a service; their connections are closed at the end."""
    async with AsyncExitStack() as stack:

        def make(service: OpenAiService, model: str = "gpt-5.4-mini", **options: Any) -> ChatModel:
            client = ServiceClient("openai", service.base_url, service.key)
            stack.push_async_callback(client.close)
            defaults = {"context_tokens": 4096, "official": not service.compatible}
            return ChatModel(client, model, **defaults | options)

        yield make
