"""A client of the browser's protocol that takes nothing on trust: the judge sees every message of the server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from wire_schema import Judge

RATE_HZ = 16_000
FRAME_MS = 20
FRAME = RATE_HZ * FRAME_MS // 1000
PATIENCE_S = 20.0

Message = dict[str, Any]


class WireClient:
    """One WebSocket to a server. What the server sends is kept, and judged as it comes; leaving raises what the judge
    found. `start` has the fields of the start message; None does not send it."""

    def __init__(self, url: str, *, start: Message | None = None, **options: Any) -> None:
        self.judge = Judge()
        self.messages: list[Message] = []
        self.audio: dict[int, bytearray] = {}
        """The audio of each reply."""
        self.audio_at_s: list[float] = []
        """When each piece of audio came (`time.monotonic`)."""
        self.connection: ClientConnection
        self._url = url
        self._start = {"type": "start", "greeting": False, **start} if start is not None else None
        self._options = {"max_size": None, "compression": None, **options}
        self._news = asyncio.Condition()
        self._over = False
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self.connection = await connect(self._url, open_timeout=PATIENCE_S, **self._options)
        self._reading = asyncio.create_task(self._read())
        if self._start:
            await self.expect("ready")
            await self.send(self._start)
            await self.expect("started")
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None and not self._over:
            await self.leave()
        await self.connection.close()
        await asyncio.wait({self._reading}, timeout=PATIENCE_S)
        self._reading.cancel()
        await self._reading

    # --- what is sent

    async def send(self, message: Message | str | bytes) -> None:
        """Send a message as it is, or as JSON."""
        await self.connection.send(json.dumps(message) if isinstance(message, dict) else message)

    async def type(self, text: str) -> Message:
        """Send a typed turn and hear the answer out; returns its reply.done."""
        done = len(self.of("reply.done"))
        await self.send({"type": "text", "text": text})
        await self.until(lambda: len(self.of("reply.done")) > done, f"an answer to {text!r}")
        return self.of("reply.done")[-1]

    async def speak(self, samples: NDArray[np.int16], *, then_silent: bool = True) -> Message:
        """Say a recording in real time, go on with silence until an answer was heard out; returns its reply.done."""
        done = len(self.of("reply.done"))
        answered = lambda: len(self.of("reply.done")) > done  # noqa: E731 (a name for what is asked)
        await self.stream(samples)
        quiet = np.zeros(FRAME, np.int16)
        due_s = time.monotonic()
        end_s = due_s + PATIENCE_S
        while then_silent and not answered() and not self._over and due_s < end_s:
            due_s = await self._frame(quiet, due_s)
        await self.until(answered, "an answer to what was said")
        return self.of("reply.done")[-1]

    async def stream(self, samples: NDArray[np.int16]) -> None:
        """Send audio in real time, as a microphone does."""
        due_s = time.monotonic()
        for start in range(0, len(samples), FRAME):
            due_s = await self._frame(samples[start : start + FRAME], due_s)

    async def leave(self) -> None:
        """Say bye, and wait for the server's bye and close."""
        await self.send({"type": "bye"})
        assert (await self.expect("bye"))["reason"] == "client"
        assert await self.closed() == 1000

    # --- what is awaited

    def of(self, kind: str) -> list[Message]:
        """The messages of this type so far."""
        return [message for message in self.messages if message["type"] == kind]

    @property
    def errors(self) -> list[str]:
        """The codes of the errors so far."""
        return [message["code"] for message in self.of("error")]

    async def expect(self, kind: str, **fields: object) -> Message:
        """The first message of this type with these fields, now or later."""
        found: list[Message] = []

        def came() -> bool:
            found[:] = [message for message in self.of(kind) if fields.items() <= message.items()]
            return bool(found)

        await self.until(came, f"{kind} {fields or ''}")
        return found[0]

    async def until(self, holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until something holds; looked at whenever the server has sent something."""
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: holds() or self._over), patience_s)
            except TimeoutError:
                raise AssertionError(f"waited in vain for {what}; came: {self.judge.seen[-10:]}") from None
        if not holds():
            if self._reading.done():
                self._reading.result()
            raise AssertionError(f"the connection ended ({self.connection.close_code}) before {what}")

    async def closed(self) -> int:
        """Wait for the server to close; the close code."""
        await self.until(lambda: self._over, "the close")
        assert self.connection.close_code is not None
        return self.connection.close_code

    def samples(self, reply: int) -> NDArray[np.int16]:
        """The audio of a reply so far."""
        return np.frombuffer(bytes(self.audio[reply]), "<i2")

    async def _read(self) -> None:
        playing = 0
        try:
            async for data in self.connection:
                if isinstance(data, bytes):
                    self.judge.audio(data)
                    self.audio[playing] += data
                    self.audio_at_s.append(time.monotonic())
                    continue
                message = json.loads(data)
                self.judge.text(message)
                if message["type"] == "audio.start":
                    playing = message["reply"]
                    self.audio[playing] = bytearray()
                self.messages.append(message)
                await self._tell()
        except ConnectionClosed:
            pass
        finally:
            self._over = True
            await self._tell()
        protocol = self.connection.protocol
        if protocol.close_rcvd and protocol.close_rcvd_then_sent:  # else the client itself, or the network, ended it
            self.judge.closed(protocol.close_rcvd.code)

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _frame(self, samples: NDArray[np.int16], due_s: float) -> float:
        due_s += FRAME_MS / 1000
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        await self.send(samples.astype("<i2").tobytes())
        return due_s


@asynccontextmanager
async def an_undisturbed_neighbour(url: str) -> AsyncIterator[WireClient]:
    """Another conversation on the same server, while something happens: it is answered before, during and after, in
    full and without an error."""
    async with WireClient(url, start={}) as neighbour:
        await answered_in_full(neighbour)
        enough = asyncio.Event()
        talking = asyncio.create_task(_talk_on(neighbour, enough))
        try:
            yield neighbour
        finally:
            enough.set()
            await talking
        await answered_in_full(neighbour)
        assert neighbour.errors == []


async def answered_in_full(client: WireClient) -> None:
    """A typed turn gets its answer, heard to its end."""
    done = await client.type("Are you there?")
    assert done["turn"] == client.of("transcript.final")[-1]["turn"]
    assert done["heard"] == done["text"] != ""
    assert not done["interrupted"]
    assert len(client.samples(done["reply"]))


async def _talk_on(client: WireClient, enough: asyncio.Event) -> None:
    while not enough.is_set():
        await answered_in_full(client)
