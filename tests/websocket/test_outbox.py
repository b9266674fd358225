"""The queue in front of a socket: in order, bounded, and honest about a client that does not read."""

import asyncio

import numpy as np
import pytest
from app.conversation import messages as msg
from app.websocket import outbox
from app.websocket.outbox import Outbox, SlowClientError


class Door:
    """Stands for the WebSocket: sends only while it is open."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.open = asyncio.Event()
        self.waiting = asyncio.Event()

    async def send_text(self, item: str) -> None:
        await self._send(item)

    async def send_bytes(self, item: bytes) -> None:
        await self._send(item)

    async def _send(self, item: str | bytes) -> None:
        self.waiting.set()
        await self.open.wait()
        self.sent.append(item)


async def test_messages_and_audio_leave_in_the_order_they_came() -> None:
    door = Door()
    door.open.set()
    box = Outbox(door)  # type: ignore[arg-type]  # it has what is used of a WebSocket
    box.tell(msg.AudioStarted(1, 1))
    box.play(np.array([1, -2], np.int16))
    box.tell(msg.AudioEnded(1, 0.1))
    box.close()
    await box.run()
    assert door.sent == [
        '{"type":"audio.start","turn":1,"reply":1}',
        b"\x01\x00\xfe\xff",
        '{"type":"audio.end","reply":1,"duration_ms":0.1}',
    ]


async def test_what_is_queued_is_still_sent_after_close() -> None:
    door = Door()
    box = Outbox(door)  # type: ignore[arg-type]
    running = asyncio.create_task(box.run())
    for number in range(3):
        box.put(str(number))
    await door.waiting.wait()
    box.close()
    door.open.set()
    await running
    assert door.sent == ["0", "1", "2"]


@pytest.mark.parametrize("item", [bytes(640), '{"type":"bye"}', ""], ids=["audio", "text", "nothing"])
async def test_a_client_that_does_not_read_costs_a_bounded_amount(item: str | bytes) -> None:
    door = Door()
    box = Outbox(door)  # type: ignore[arg-type]
    running = asyncio.create_task(box.run())
    for _ in range(100_000):
        box.put(item)
    assert len(box._waiting) <= outbox.MAX_WAITING_MESSAGES + 1
    assert sum(map(len, box._waiting)) <= outbox.MAX_WAITING_BYTES + len(item)
    door.open.set()
    with pytest.raises(SlowClientError):
        await running


async def test_a_message_that_does_not_leave_is_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "SEND_TIMEOUT_S", 0.05)
    box = Outbox(Door())  # type: ignore[arg-type]
    box.put("hello")
    with pytest.raises(SlowClientError):
        await box.run()
