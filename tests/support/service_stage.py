"""The real application with OpenAI's services, imitated on this machine, and somebody who takes over: the scripted
providers, whose words are known.

    async with OpenAiService() as service, talking(service) as (server, client):
        service.chat.reply("It is noon.")
        await client.type("What is the time?")
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import app.providers
import pytest
from app_server import AppServer, scripted
from openai_service import OpenAiService
from wire_client import WireClient


def service_settings(service: OpenAiService, **changes: Any) -> Any:
    """OpenAI first, the scripted providers behind it; `changes` win."""
    usual = {
        "openai_api_key": service.key,
        "openai_base_url": service.base_url,
        "stt_provider": "openai,scripted",
        "llm_provider": "openai,scripted",
        "tts_provider": "openai,scripted",
        "stt_streaming": "true",
        "endpointing": "silence",
        "endpointing_silence_ms": 300,
        "apology": "Sorry about that.",
    }
    return scripted(**{**usual, **changes})


@asynccontextmanager
async def served(service: OpenAiService, **changes: Any) -> AsyncIterator[AppServer]:
    """A server that takes the imitation for the real OpenAI."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.providers, "is_official", lambda url: True)
        server = AppServer(service_settings(service, **changes))
        await asyncio.to_thread(server.__enter__)  # the service answers in this loop meanwhile
        try:
            yield server
            await asyncio.to_thread(server.nothing_is_left)
        finally:
            await asyncio.to_thread(server.stop)


@asynccontextmanager
async def talking(service: OpenAiService, **changes: Any) -> AsyncIterator[tuple[AppServer, WireClient]]:
    """A server, and a client in conversation with it."""
    async with (
        served(service, **changes) as server,
        WireClient(server.ws_url, start={}, origin=server.url) as client,
    ):
        yield server, client
