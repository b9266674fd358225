"""A reference server, and the emulator that calls it."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from app.emulator import Exchange

sys.path.insert(0, str(Path(__file__).parent))
from voice_server import VoiceServer


@pytest_asyncio.fixture
async def server() -> AsyncIterator[VoiceServer]:
    async with VoiceServer() as running:
        yield running


@pytest_asyncio.fixture
async def twilio(server: VoiceServer) -> AsyncIterator[Exchange]:
    async with Exchange(server.url) as exchange:
        yield exchange
