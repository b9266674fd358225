"""Watching a call: its whole state at once and after every change, until it is over; no watcher costs anybody else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from app.api import call_events
from app.api.call_events import WATCHERS
from app.conversation import messages as msg
from app.twilio.calls import Call, CallStatus
from phone_stage import PhoneStage, phone_stage, refusal

PATIENCE_S = 10.0


@pytest_asyncio.fixture
async def stage() -> AsyncIterator[PhoneStage]:
    async with phone_stage() as running:
        yield running
    assert WATCHERS.now == 0


class Watcher:
    """One stream of events as it comes."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def line(self) -> str:
        """The next line that is not empty; "" at the end."""
        async with asyncio.timeout(PATIENCE_S):
            async for line in self._lines:
                if line:
                    return line
        return ""

    async def snapshot(self) -> dict[str, Any]:
        line = await self.line()
        assert line.startswith("data: "), line
        snapshot: dict[str, Any] = json.loads(line.removeprefix("data: "))
        return snapshot

    async def until(self, status: str) -> dict[str, Any]:
        while (snapshot := await self.snapshot())["status"] != status:
            pass
        return snapshot


@asynccontextmanager
async def watching(stage: PhoneStage, call: Call) -> AsyncIterator[Watcher]:
    async with stage.client.stream("GET", f"/api/call/{call.sid}/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        yield Watcher(answer.aiter_lines())


async def watched_by(count: int) -> None:
    for _ in range(1000):
        if WATCHERS.now == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{WATCHERS.now} watch, not {count}")


async def test_the_call_is_told_at_once_and_after_every_change_and_the_stream_ends_with_it(stage: PhoneStage) -> None:
    call = await stage.placed()
    async with watching(stage, call) as watcher:
        assert (await watcher.snapshot())["sid"] == call.sid
        call.moved_to(CallStatus.IN_PROGRESS)
        await watcher.until("in-progress")
        call.told(msg.TranscriptShown(1, "Hello", False))
        assert (await watcher.snapshot())["captions"] == [{"who": "caller", "text": "Hello", "final": False}]
        call.told(msg.TranscriptShown(1, "Hello there.", True))
        assert (await watcher.snapshot())["captions"] == [{"who": "caller", "text": "Hello there.", "final": True}]
        call.moved_to(CallStatus.COMPLETED)
        last = await watcher.snapshot()
        assert (last["status"], last["captions"][0]["text"]) == ("completed", "Hello there.")
        assert await watcher.line() == ""


async def test_the_state_of_a_call_that_is_over_is_told_once(stage: PhoneStage) -> None:
    call = await stage.placed()
    await stage.telephone.hang_up(call)
    async with watching(stage, call) as watcher:
        assert (await watcher.snapshot())["status"] == "canceled"
        assert await watcher.line() == ""


async def test_several_watch_the_same_call(stage: PhoneStage) -> None:
    call = await stage.placed()
    async with watching(stage, call) as one, watching(stage, call) as other:
        await asyncio.gather(one.snapshot(), other.snapshot())
        await stage.telephone.hang_up(call)
        assert [(await watcher.until("canceled"))["sid"] for watcher in (one, other)] == [call.sid] * 2


async def test_changes_that_come_while_nobody_reads_are_told_as_one(stage: PhoneStage) -> None:
    call = await stage.placed()
    async with watching(stage, call) as watcher:
        call.moved_to(CallStatus.IN_PROGRESS)  # what Twilio tells of its ringing comes too late now
        await watcher.until("in-progress")
        for number in range(50):
            call.told(msg.TranscriptShown(number, f"Line {number}", True))
        texts = [line["text"] for line in (await watcher.snapshot())["captions"]]
        assert texts == [f"Line {number}" for number in range(50)]


async def test_a_watcher_who_leaves_gives_its_place_back(stage: PhoneStage) -> None:
    call = await stage.placed()
    for _ in range(3):
        async with watching(stage, call) as watcher:
            await watcher.snapshot()
            assert WATCHERS.now == 1
        await watched_by(0)


async def test_only_so_many_watch_at_once(stage: PhoneStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WATCHERS, "limit", 2)
    call = await stage.placed()
    async with watching(stage, call) as one, watching(stage, call) as other:
        await asyncio.gather(one.snapshot(), other.snapshot())
        answer = await stage.client.get(f"/api/call/{call.sid}/events")
        assert refusal(answer) == (503, "too_many_watchers")
        assert int(answer.headers["Retry-After"]) > 0
        assert (await stage.client.get(f"/api/call/{call.sid}")).status_code == 200
    await watched_by(0)
    async with watching(stage, call) as watcher:
        await watcher.snapshot()


async def test_a_silent_call_is_kept_alive_by_comments(stage: PhoneStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_events, "KEEP_ALIVE_S", 0.05)
    monkeypatch.setattr(call_events, "_LOOK_S", 0.02)
    call = await stage.placed()
    call.moved_to(CallStatus.IN_PROGRESS)
    async with watching(stage, call) as watcher:
        while (line := await watcher.line()).startswith("data:"):
            pass
        assert line == ": still here"
        assert await watcher.line() == ": still here"
        call.told(msg.TranscriptShown(1, "Hello", True))
        while (line := await watcher.line()).startswith(":"):
            pass
        assert "Hello" in line


async def test_a_stream_ends_when_the_server_is_to_stop(stage: PhoneStage) -> None:
    call = await stage.placed()
    async with watching(stage, call) as watcher:
        await watcher.snapshot()
        stage.engine.closing = True
        while await watcher.line():
            pass
    await watched_by(0)


async def test_a_client_that_takes_nothing_is_let_go(stage: PhoneStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_events, "SEND_TIMEOUT_S", 0.3)
    call = await stage.placed()
    host, port = stage.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(f"GET /api/call/{call.sid}/events HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    await watched_by(1)
    async with asyncio.timeout(PATIENCE_S):
        number = 0
        while WATCHERS.now:  # more than the buffers between here and there hold
            number += 1
            call.told(msg.TranscriptShown(number, "x" * 20_000, True))
            await asyncio.sleep(0.001)
    writer.close()
