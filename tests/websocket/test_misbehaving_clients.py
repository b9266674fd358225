"""Clients that do not keep to the network's manners: they stall, vanish, and flood. Nobody else notices."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from app.audio.wav import read_audio
from app.conversation import ear
from app.inference.store import ModelStore
from app.websocket import handler, outbox
from app.websocket import server as websocket_server
from app_server import AppServer, wait_until
from websockets.exceptions import ConnectionClosed
from wire_client import FRAME, RATE_HZ, WireClient, an_undisturbed_neighbour, answered_in_full

START = {"type": "start", "greeting": False}
TELL = {"type": "text", "text": "Tell me."}


class BareClient:
    """A TCP connection that has opened a WebSocket by hand, and can do with it what no library would."""

    def __init__(self, server: AppServer, *, receive_buffer_bytes: int | None = None) -> None:
        self.line = socket.socket()
        if receive_buffer_bytes:
            self.line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.line.connect(("127.0.0.1", server.port))
        request = (
            f"GET {server.settings.ws_path} HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        )
        self.line.sendall("\r\n".join([*request, "", ""]).encode())
        assert self.line.recv(12) == b"HTTP/1.1 101"

    def send(self, *messages: dict[str, Any]) -> None:
        """Frames of text, masked with zeros (RFC 6455 section 5.2)."""
        for message in messages:
            data = json.dumps(message).encode()
            size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack("!H", len(data))
            self.line.sendall(b"\x81" + size + bytes(4) + data)

    def read_until(self, word: bytes) -> None:
        """Read until the server has sent this."""
        seen = b""
        while word not in seen:
            seen += self.line.recv(4096)

    def reset(self) -> None:
        """Vanish as a crashed machine does: with a TCP reset."""
        self.line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.line.close()


@contextmanager
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[AppServer]:
    """A server that waits for a stalled client only for a moment, with little room for it in the kernel."""
    monkeypatch.setattr(outbox, "SEND_TIMEOUT_S", 0.3)
    monkeypatch.setattr(handler, "CLOSE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(websocket_server, "LINGER_S", 0.3)
    with AppServer(send_buffer_bytes=4096) as server:
        yield server


# --- they stall


async def test_a_client_that_stops_reading_is_let_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with impatient(monkeypatch) as server:
        async with an_undisturbed_neighbour(server.ws_url):
            stalled = await asyncio.to_thread(BareClient, server, receive_buffer_bytes=4096)
            talk = {"type": "text", "text": "Why? " * 800}  # comes back as a transcript, which fills the way
            await asyncio.to_thread(stalled.send, START, *[talk] * 100)
            await asyncio.to_thread(wait_until, lambda: "did not read" in caplog.text, "a word in the log")
            await asyncio.to_thread(wait_until, lambda: server.connections == 1, "the end of the stalled connection")
            assert len(server.engine.conversations) == 1
            stalled.line.close()
        server.nothing_is_left()


async def test_a_client_that_is_only_slow_gets_everything(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}, max_queue=1) as client:
        await client.send(TELL)
        transport = client.connection.transport
        for _ in range(5):
            transport.pause_reading()
            await asyncio.sleep(0.1)  # not to synchronise with anything: this is the slowness
            transport.resume_reading()
            await asyncio.sleep(0)
        done = await client.expect("reply.done")
        assert done["heard"] == done["text"]


async def test_the_end_of_the_server_does_not_wait_for_a_stalled_client(monkeypatch: pytest.MonkeyPatch) -> None:
    with impatient(monkeypatch) as server:
        stalled = BareClient(server, receive_buffer_bytes=4096)
        stalled.send(START, *[{"type": "text", "text": "Why? " * 800}] * 50)
        wait_until(lambda: server.engine.conversations, "the conversation")
        server.stop()
        stalled.line.close()


# --- they vanish


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
@pytest.mark.parametrize("when", ["before start", "after start", "in a reply"])
async def test_a_client_that_vanishes_leaves_nothing_behind(server: AppServer, when: str, how: str) -> None:
    async with an_undisturbed_neighbour(server.ws_url):
        client = await asyncio.to_thread(BareClient, server)
        if when != "before start":
            client.send(START)
            await asyncio.to_thread(client.read_until, b"started")
        if when == "in a reply":
            client.send(TELL)
            await asyncio.to_thread(client.read_until, b"audio.start")
        if how == "reset":
            client.reset()
        elif how == "close":
            client.line.close()
        else:
            client.line.shutdown(socket.SHUT_WR)
        await asyncio.to_thread(wait_until, lambda: server.connections == 1, "the end of the connection")
        await asyncio.to_thread(wait_until, lambda: len(server.engine.conversations) == 1, "the conversation's end")
        client.line.close()


async def test_a_hundred_connections_that_open_and_vanish_leave_nothing_behind(server: AppServer) -> None:
    def come_and_go(number: int) -> None:
        if number % 4 == 0:
            socket.create_connection(("127.0.0.1", server.port)).close()
            return
        client = BareClient(server)
        if number % 4 > 1:
            client.send(START, TELL)
        if number % 4 == 3:
            client.read_until(b"transcript.final")
        client.reset() if number % 2 else client.line.close()

    async with an_undisturbed_neighbour(server.ws_url):
        await asyncio.gather(*(asyncio.to_thread(come_and_go, number) for number in range(100)))
        await asyncio.to_thread(wait_until, lambda: server.connections == 1, "the end of all others")


async def test_closing_without_bye_is_a_way_to_leave(server: AppServer) -> None:
    async with an_undisturbed_neighbour(server.ws_url), WireClient(server.ws_url, start={}) as client:
        await client.send(TELL)
        await client.expect("audio.start")
        await client.connection.close(1000)
        await client.closed()
        assert client.of("bye") == []


# --- they flood


def recording(name: str) -> np.ndarray:
    return read_audio(ModelStore().path("test-speech") / f"{name}.wav", RATE_HZ)


async def send_until_closed(client: WireClient, messages: list[str | bytes]) -> None:
    """Send as fast as the server takes it, again and again."""
    try:
        while True:
            for message in messages:
                await client.connection.send(message)
                await asyncio.sleep(0)  # a send that needs not wait would keep the client from reading
    except ConnectionClosed:
        return


async def flood_with_audio(server: AppServer, audio: bytes) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        await send_until_closed(client, [audio])
        assert await client.closed() == 1008
        assert set(client.errors) == {"audio_overrun", "too_many_errors"}


async def test_floods_of_audio_are_dropped_told_and_ended_while_others_are_understood(server: AppServer) -> None:
    speech = recording("two_cities")[: 30 * RATE_HZ].tobytes()

    async def flood_again_and_again() -> None:
        while True:
            await flood_with_audio(server, speech)

    async with WireClient(server.ws_url, start={}) as speaker:
        await flood_with_audio(server, speech)
        flooding = asyncio.create_task(flood_again_and_again())
        done = await speaker.speak(recording("beckett")[: RATE_HZ * 3 // 2])
        assert done["heard"] == done["text"] != ""
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        assert flooding.cancelled(), flooding.exception()
        await answered_in_full(speaker)
        assert speaker.errors == []


async def test_audio_that_waits_is_bounded(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        (conversation,) = server.engine.conversations
        waiting = []

        def told() -> bool:
            waiting.append(conversation.ear._inbox_samples)
            return "audio_overrun" in client.errors

        flooding = asyncio.create_task(send_until_closed(client, [bytes(2 * RATE_HZ)]))
        await client.until(told, "a notice")
        await client.closed()
        await flooding
        assert max(waiting) <= (ear.INBOX_LIMIT_MS / 1000 + 1) * RATE_HZ


@pytest.mark.parametrize("samples", [0, 1, FRAME // 2])
async def test_many_small_audio_messages_disturb_nobody(server: AppServer, samples: int) -> None:
    async with an_undisturbed_neighbour(server.ws_url), WireClient(server.ws_url, start={}) as client:
        for _ in range(2500):
            await client.send(bytes(2 * samples))
        await answered_in_full(client)
        assert client.errors == []


@pytest.mark.parametrize(
    "message",
    [{"type": "text", "text": "Hello?"}, {"type": "interrupt"}, {"type": "playback", "reply": 1, "played_ms": 0}],
    ids=lambda message: str(message["type"]),
)
async def test_a_flood_of_messages_is_not_taken_told_and_ended(server: AppServer, message: dict[str, Any]) -> None:
    async with an_undisturbed_neighbour(server.ws_url), WireClient(server.ws_url, start={}) as client:
        await send_until_closed(client, [json.dumps(message)])
        assert await client.closed() == 1008
        assert set(client.errors) == {"too_many_messages", "too_many_errors"}
        assert len(client.of("transcript.final")) <= handler.MESSAGES_AT_ONCE * 2


async def test_a_burst_after_the_network_was_away_is_no_mistake(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        for number in range(handler.MESSAGES_AT_ONCE - 20):
            await client.send({"type": "playback", "reply": 1, "played_ms": number})
        await answered_in_full(client)
        assert client.errors == []


async def test_a_flood_before_start_is_ended_too(server: AppServer) -> None:
    async with an_undisturbed_neighbour(server.ws_url), WireClient(server.ws_url) as client:
        await send_until_closed(client, [json.dumps(TELL), bytes(640)])
        assert await client.closed() == 1008
        assert set(client.errors) == {"not_started", "too_many_errors"}
