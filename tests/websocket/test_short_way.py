"""The short way into a conversation: every message arrives once and in order, however its bytes come."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import uvicorn
from app.websocket.direct import line_of
from app.websocket.server import WebSocketProtocol
from fastapi import FastAPI, WebSocket
from hypothesis import given, settings
from hypothesis import strategies as st

MAX_BYTES = 100_000
TEXT, BINARY, CONTINUED, PING, PONG, CLOSE = 1, 2, 0, 9, 10, 8


def frame(opcode: int, payload: bytes, *, final: bool = True, mask: bytes | None = None) -> bytes:
    """A frame as a client sends it."""
    key = os.urandom(4) if mask is None else mask
    head = (0x80 if final else 0) | opcode
    size = len(payload)
    if size < 126:
        start = struct.pack("!BB", head, 0x80 | size)
    elif size < 65536:
        start = struct.pack("!BBH", head, 0xFE, size)
    else:
        start = struct.pack("!BBQ", head, 0xFF, size)
    return start + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


@dataclass
class Echo:
    """An application that keeps what it is told and sends every text back twice."""

    got: list[str] = field(default_factory=list)
    gone: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.websocket("/")
        async def serve(socket: WebSocket) -> None:
            await socket.accept()
            line = line_of(socket)

            def take(message: bytes | str) -> None:
                text = message if isinstance(message, str) else message.decode()
                self.got.append(text)
                line.send([text, text])

            await line.run(take, lambda: self.got.append("<binary>"))
            self.gone.release()

        return app


class Client:
    """A client that sends bytes as it likes."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def ask(self) -> bytes:
        return (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    async def answered(self) -> None:
        assert b" 101 " in (await self._reader.readuntil(b"\r\n\r\n"))

    async def receive(self) -> tuple[int, bytes]:
        head, size = await self._reader.readexactly(2)
        assert not size & 0x80, "a server does not mask"
        if size > 125:
            size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
        return head & 0x0F, await self._reader.readexactly(size)

    async def texts(self, count: int) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            opcode, payload = await self.receive()
            if opcode == TEXT:
                found.append(payload.decode())
        return found

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Stage:
    """The server on a socket of its own."""

    def __init__(self) -> None:
        self.echo = Echo()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    async def __aenter__(self) -> "Stage":
        config = uvicorn.Config(
            self.echo.app(), ws=WebSocketProtocol, ws_per_message_deflate=False, ws_max_size=MAX_BYTES, log_config=None
        )
        self._server = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:  # noqa: ASYNC110 (there is no event for it)
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._serving

    async def client(self) -> Client:
        client = Client(self.port)
        await client.open()
        return client


def cut(data: bytes, at: Sequence[int]) -> Iterator[bytes]:
    edges = [0, *sorted({min(edge, len(data)) for edge in at}), len(data)]
    return (data[start:stop] for start, stop in pairwise(edges) if stop > start)


MESSAGES = st.lists(st.text(st.characters(codec="utf-8"), max_size=400), min_size=1, max_size=6)


@settings(max_examples=8, deadline=None)
@given(messages=MESSAGES, edges=st.lists(st.integers(0, 3000), max_size=12), parts=st.integers(1, 3))
def test_messages_arrive_whole_and_in_order_however_they_are_cut(
    messages: list[str], edges: list[int], parts: int
) -> None:
    async def talk() -> None:
        async with Stage() as stage:
            client = await stage.client()
            client.send(client.ask())
            await client.answered()
            data = b""
            for number, message in enumerate(messages):
                text = message.encode()
                step = max(1, -(-len(text) // parts))
                pieces = [text[start : start + step] for start in range(0, len(text), step)] or [b""]
                for at, piece in enumerate(pieces):
                    if number == 1:
                        data += frame(PING, b"still there?")  # allowed between the frames of a message
                    data += frame(CONTINUED if at else TEXT, piece, final=at == len(pieces) - 1)
            for piece in cut(data, edges):
                client.send(piece)
                await asyncio.sleep(0)
            back = await client.texts(2 * len(messages))
            assert stage.echo.got == messages
            assert back == [message for message in messages for _ in range(2)]
            await client.close()

    asyncio.run(talk())


async def test_what_comes_before_the_application_listens_is_not_lost() -> None:
    async with Stage() as stage:
        client = await stage.client()
        client.send(client.ask())
        await client.answered()  # the application has accepted, and may not have come any further
        client.send(frame(TEXT, b"first") + frame(TEXT, b"second"))
        assert await client.texts(4) == ["first", "first", "second", "second"]
        await client.close()


async def test_binary_messages_are_told_of_and_pings_answered() -> None:
    async with Stage() as stage:
        client = await stage.client()
        client.send(client.ask())
        await client.answered()
        client.send(frame(BINARY, b"\x00\xff") + frame(PING, b"hello") + frame(TEXT, b"on"))
        assert await client.receive() == (PONG, b"hello")
        assert await client.texts(2) == ["on", "on"]
        assert stage.echo.got == ["<binary>", "on"]
        await client.close()


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536, MAX_BYTES])
async def test_messages_of_any_length_up_to_the_limit_come_back_the_same(size: int) -> None:
    async with Stage() as stage:
        client = await stage.client()
        client.send(client.ask())
        await client.answered()
        client.send(frame(TEXT, b"x" * size))
        assert await client.texts(2) == ["x" * size] * 2
        await client.close()


async def test_a_message_beyond_the_limit_is_refused_by_its_head() -> None:
    async with Stage() as stage:
        client = await stage.client()
        client.send(client.ask())
        await client.answered()
        client.send(frame(TEXT, b"x" * (MAX_BYTES + 1))[:200])
        opcode, payload = await client.receive()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 1009)
        assert stage.echo.got == []
        await client.close()


async def test_a_frame_that_is_not_masked_ends_the_connection() -> None:
    async with Stage() as stage:
        client = await stage.client()
        client.send(client.ask())
        await client.answered()
        client.send(b"\x81\x05plain")
        opcode, payload = await client.receive()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, 1002)
        assert stage.echo.got == []
        await client.close()


async def test_a_client_that_closes_or_vanishes_ends_the_line() -> None:
    async with Stage() as stage:
        polite, abrupt = await stage.client(), await stage.client()
        for client in (polite, abrupt):
            client.send(client.ask())
            await client.answered()
            client.send(frame(TEXT, b"here"))
            await client.texts(2)
        polite.send(frame(CLOSE, struct.pack("!H", 1000)))
        assert (await polite.receive())[0] == CLOSE
        await polite.close()
        await abrupt.close()
        async with asyncio.timeout(5):
            await stage.echo.gone.acquire()
            await stage.echo.gone.acquire()
