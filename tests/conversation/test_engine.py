"""The engine: opens conversations when it is ready, ends them when it closes, and starts even if it cannot greet."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from app.conversation import messages as msg
from app.conversation.options import Options
from app.conversation.session import Conversation
from app.core.errors import OverloadedError
from app.engine import Engine
from app_server import scripted


class Listener:
    """An Outlet that keeps what it is told, and can be waited for."""

    def __init__(self) -> None:
        self.told: list[msg.Message] = []
        self.samples = 0
        self._news = asyncio.Event()

    def tell(self, message: msg.Message) -> None:
        self.told.append(message)
        self._news.set()

    def play(self, samples: np.ndarray) -> None:
        self.samples += len(samples)

    async def until(self, found: Callable[[msg.Message], bool]) -> None:
        async with asyncio.timeout(30):
            while not any(found(message) for message in self.told):
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def engine(**settings: Any) -> AsyncIterator[Engine]:
    engine = Engine(scripted(**settings))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def opened(engine: Engine, listener: Listener) -> tuple[Conversation, asyncio.Task[str]]:
    conversation = engine.open("test", Options.from_settings(engine.settings), listener)
    return conversation, asyncio.create_task(engine.hold(conversation))


async def test_a_conversation_through_the_engine_is_answered() -> None:
    async with engine() as it:
        listener = Listener()
        conversation, running = opened(it, listener)
        conversation.type("hello")
        await listener.until(lambda message: isinstance(message, msg.ReplyDone))
        assert listener.samples == 200 * 16
        conversation.end("client")
        assert await running == "client"
        assert it.conversations == set()


async def test_before_it_is_ready_nobody_is_let_in() -> None:
    it = Engine(scripted())
    with pytest.raises(OverloadedError, match="still being loaded"):
        it.open("test", Options.from_settings(it.settings), Listener())
    waiting = asyncio.create_task(it.wait_until_ready())
    await asyncio.sleep(0)
    assert not waiting.done()
    await it.start()
    await waiting
    await it.close()


async def test_there_are_no_more_conversations_than_allowed_and_one_that_ends_makes_room() -> None:
    async with engine(max_conversations=1) as it:
        first, running = opened(it, Listener())
        with pytest.raises(OverloadedError) as refused:
            opened(it, Listener())
        assert refused.value.code == "server_full"
        first.end("client")
        await running
        second, running = opened(it, Listener())
        second.end("client")
        await running


async def test_closing_ends_every_conversation() -> None:
    async with engine() as it:
        held = [opened(it, Listener()) for _ in range(3)]
        held[0][0].type("hello")
        await asyncio.sleep(0)
        await it.close()
        assert [await running for _, running in held] == ["shutdown"] * 3
        with pytest.raises(OverloadedError):
            it.open("late", Options.from_settings(it.settings), Listener())


async def test_a_greeting_that_cannot_be_spoken_is_shown_and_the_engine_starts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        async with engine(greeting="👋") as it:
            listener = Listener()
            conversation, running = opened(it, listener)
            await listener.until(lambda message: isinstance(message, msg.ReplyDone) and message.text == "👋")
            conversation.type("hello")
            await listener.until(lambda message: isinstance(message, msg.ReplyDone) and message.turn == 1)
            conversation.end("client")
            await running
    assert "GREETING cannot be spoken" in caplog.text
