"""The sending side of one WebSocket: a bounded queue and the one task that empties it.

A conversation must never wait for its listener, so what it tells goes into the queue at once. A client that stops
reading is noticed by the size of the queue or by a message that will not leave, and is let go.
"""

import asyncio
from collections import deque

import numpy as np
from fastapi import WebSocket
from numpy.typing import NDArray

from app.audio.pcm import to_bytes
from app.conversation.messages import Message
from app.websocket.wire import encode

MAX_WAITING_BYTES = 2_000_000
"""About a minute of audio, which a reading client never lets come together."""
MAX_WAITING_MESSAGES = 5000
SEND_TIMEOUT_S = 10.0


class SlowClientError(Exception):
    """The client does not read what it is sent."""


class Outbox:
    """Implements Outlet over a WebSocket. `run` sends until `close`."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._waiting: deque[str | bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._closed = False

    def tell(self, message: Message) -> None:
        """Queue a message of the conversation, if it is one for browsers."""
        if text := encode(message):
            self.put(text)

    def play(self, samples: NDArray[np.int16]) -> None:
        """Queue reply audio (int16 mono 16 kHz [n])."""
        self.put(to_bytes(samples))

    def put(self, item: str | bytes) -> None:
        """Queue a text or binary message; what comes after an overflow is dropped, `run` reports it."""
        if self._bytes <= MAX_WAITING_BYTES and len(self._waiting) <= MAX_WAITING_MESSAGES:
            self._waiting.append(item)
            self._bytes += len(item)
        self._wake.set()

    def close(self) -> None:
        """Let `run` return once everything queued has been sent."""
        self._closed = True
        self._wake.set()

    async def run(self) -> None:
        """Send what is queued, in order. Raises SlowClientError; a connection that is gone raises what the server's
        WebSocket raises then."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                if self._bytes > MAX_WAITING_BYTES or len(self._waiting) > MAX_WAITING_MESSAGES:
                    raise SlowClientError
                item = self._waiting.popleft()
                self._bytes -= len(item)
                try:
                    async with asyncio.timeout(SEND_TIMEOUT_S):
                        await (self._socket.send_text(item) if isinstance(item, str) else self._socket.send_bytes(item))
                except TimeoutError:
                    raise SlowClientError from None
            if self._closed:
                return
