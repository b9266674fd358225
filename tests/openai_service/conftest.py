"""The service and the official SDK as its client."""

from collections.abc import AsyncIterator

import openai
import pytest
from openai_service import OpenAiService


@pytest.fixture
async def service() -> AsyncIterator[OpenAiService]:
    async with OpenAiService() as running:
        yield running


@pytest.fixture
async def client(service: OpenAiService) -> AsyncIterator[openai.AsyncOpenAI]:
    plain = openai.DefaultAsyncHttpxClient(verify=False)  # no certificates to be read for plain http
    async with openai.AsyncOpenAI(
        base_url=service.base_url, api_key=service.key, max_retries=0, http_client=plain
    ) as made:
        yield made
