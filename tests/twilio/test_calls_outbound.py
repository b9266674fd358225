"""Calls that are placed, from the request to their end, whoever or whatever answers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from app.emulator import NUMBER, Behaviour, Busy, Exchange, Failed, Human, Line, NoAnswer, Refused, Rejected, Voicemail
from call_stage import GREETING, THEM, PhoneServer, answered, greeted, sentence, telephone, words

BEEP = np.round(8000 * np.sin(2 * np.pi * 1000 / 8000 * np.arange(3200))).astype(np.int16)
MACHINE = np.concatenate((words(), np.zeros(800, np.int16), BEEP))
"""What a voicemail box says, with its beep."""


class Watcher:
    """Somebody at the page: places a call, and sees how it stands until it is over."""

    def __init__(self, client: httpx.AsyncClient, sid: str) -> None:
        self.sid = sid
        self.client = client
        self.snapshots: list[dict[str, Any]] = []
        self._watching = asyncio.create_task(self._watch())

    @property
    def statuses(self) -> list[str]:
        """Every status that was shown, in order."""
        seen: list[str] = []
        for snapshot in self.snapshots:
            if not seen or snapshot["status"] != seen[-1]:
                seen.append(snapshot["status"])
        return seen

    async def to_the_end(self) -> dict[str, Any]:
        """The last that was shown."""
        async with asyncio.timeout(15):
            await self._watching
        return self.snapshots[-1]

    async def hang_up(self) -> httpx.Response:
        return await self.client.delete(f"/api/call/{self.sid}")

    async def _watch(self) -> None:
        async with self.client.stream("GET", f"/api/call/{self.sid}/events") as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    self.snapshots.append(json.loads(line.removeprefix("data:")))


@asynccontextmanager
async def placed(behaviour: Behaviour, **settings: Any) -> AsyncIterator[tuple[PhoneServer, Exchange, Watcher]]:
    """A call to somebody at whose number this happens, and who watches it."""
    async with telephone(**settings) as (server, twilio):
        twilio.when_called(THEM, behaviour)
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as client:
            answer = await client.post("/api/call", json={"number": THEM})
            assert answer.status_code == 201, answer.text
            assert answer.json()["status"] == "queued"
            yield server, twilio, Watcher(client, answer.json()["sid"])


def told(twilio: Exchange) -> list[str]:
    """The statuses that Twilio has told the server, in order."""
    return [one.parameters["CallStatus"] for one in twilio.webhooks.requests if one.url.endswith("/twilio/status")]


def follows_twilio(watcher: Watcher, *expected: str) -> bool:
    """The page was shown these statuses in order; those that passed in a moment may be missing, but for the last."""
    every = iter(expected)
    return all(status in every for status in watcher.statuses) and watcher.statuses[-1] == expected[-1]


# --- who answers


async def test_a_person_who_answers_is_greeted_and_talked_to() -> None:
    async with placed(Human()) as (server, twilio, watcher):
        line = await twilio.next_answered()
        assert (line.from_, line.to) == (NUMBER, THEM)
        await greeted(line)
        await answered(line)
        line.hang_up()
        assert await line.ended() == "completed"
        last = await watcher.to_the_end()
        assert told(twilio) == ["initiated", "ringing", "in-progress", "completed"]
        assert follows_twilio(watcher, "queued", "initiated", "ringing", "in-progress", "completed")
        assert [(caption["who"], caption["final"]) for caption in last["captions"]] == [
            ("assistant", True),
            ("caller", True),
            ("assistant", True),
        ]
        assert last["captions"][0]["text"] == GREETING
        assert last["answered_by"] == "human"
        assert last["duration_s"] > 1
        assert server.remembered(line.sid)[0] == ("assistant", GREETING)


async def test_captions_are_shown_while_the_call_goes_on() -> None:
    async with placed(Human()) as (_, twilio, watcher):
        line = await twilio.next_answered()
        await greeted(line)
        await line.until(lambda: watcher.snapshots[-1]["captions"])
        live = watcher.snapshots[-1]
        assert (live["status"], live["captions"][0]["text"]) == ("in-progress", GREETING)
        line.hang_up()
        await watcher.to_the_end()


@pytest.mark.parametrize(
    ("behaviour", "status", "reason"),
    [
        (Busy(), "busy", "The line is busy."),
        (Rejected(), "busy", "The line is busy."),
        (NoAnswer(after_s=0.1), "no-answer", "Nobody answered."),
        (Failed(), "failed", "The call failed: 404"),
    ],
    ids=["busy", "declined", "no answer", "failed"],
)
async def test_a_call_that_nobody_takes_says_why(behaviour: Behaviour, status: str, reason: str) -> None:
    async with placed(behaviour) as (server, twilio, watcher):
        last = await watcher.to_the_end()
        assert (last["status"], last["reason"], last["captions"]) == (status, reason, [])
        assert last["duration_s"] == 0.0
        assert told(twilio)[-1] == status
        assert server.opened == 0


async def test_a_number_that_twilio_refuses_is_an_error_and_no_call() -> None:
    async with telephone() as (server, twilio):
        twilio.when_called(THEM, Refused(21215, "Geographic permission"))
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as client:
            answer = await client.post("/api/call", json={"number": THEM})
        assert answer.json()["error"]["twilio_code"] == 21215
        assert server.telephone.calls.live() == []


# --- a machine answers


async def test_a_machine_is_hung_up_on() -> None:
    async with placed(Voicemail(greeting=MACHINE), voicemail="hangup") as (server, _, watcher):
        last = await watcher.to_the_end()
        assert (last["status"], last["answered_by"]) == ("completed", "machine_start")
        assert last["reason"] == "An answering machine answered."
        assert not server.engine.conversations


async def test_a_machine_is_left_a_message_after_its_beep() -> None:
    recorded: list[Line] = []
    box = Voicemail(greeting=MACHINE, ended=recorded.append)
    async with placed(box, voicemail="message", scripted_audio_ms=900) as (server, _, watcher):
        last = await watcher.to_the_end()
        assert (last["status"], last["answered_by"]) == ("completed", "machine_end_beep")
        assert last["captions"][-1] == {"who": "assistant", "text": server.settings.voicemail_message, "final": True}
        (line,) = recorded
        after_beep = line.heard_from(len(MACHINE) / 8 + 40)
        loud = np.flatnonzero(np.abs(after_beep) > 1000)
        assert (loud[-1] - loud[0]) / 8 >= 2 * 900 - 40, "every sentence of it, from its first word to its last"


async def test_a_machine_is_talked_to_if_that_is_wanted() -> None:
    async with placed(Voicemail(greeting=MACHINE), voicemail="talk") as (server, twilio, watcher):
        line = await twilio.next_answered()
        await line.until(lambda: len(server.said(line.sid)) >= 3)
        line.hang_up()
        last = await watcher.to_the_end()
        assert (last["status"], last["answered_by"]) == ("completed", "")


async def test_a_person_is_never_taken_for_a_machine() -> None:
    async with placed(Human(detected_s=0.05), voicemail="message") as (server, twilio, watcher):
        line = await twilio.next_answered()
        await greeted(line)
        await answered(line)
        assert server.settings.voicemail_message not in [text for _, text in server.said(line.sid)]
        line.hang_up()
        await watcher.to_the_end()


# --- hung up


async def test_a_call_that_rings_can_be_hung_up() -> None:
    async with placed(NoAnswer()) as (server, twilio, watcher):
        line = twilio.lines[watcher.sid]
        await line.reaches("ringing")
        answer = await watcher.hang_up()
        assert answer.json()["status"] == "canceled"
        assert await line.ended() == "canceled"
        last = await watcher.to_the_end()
        assert (last["status"], last["reason"]) == ("canceled", "Hung up before anybody answered.")
        assert server.opened == 0


async def test_a_call_that_goes_on_can_be_hung_up() -> None:
    async with placed(Human()) as (server, twilio, watcher):
        line = await twilio.next_answered()
        await greeted(line)
        talking = line.begin(sentence())
        assert (await watcher.hang_up()).json()["status"] == "completed"
        assert await line.ended() == "completed"
        assert (await watcher.to_the_end())["status"] == "completed"
        assert talking.exception(), "it broke off in the middle of a sentence"
        assert not server.engine.conversations


async def test_whoever_answers_and_hangs_up_at_once_ends_the_call() -> None:
    async def slam(line: Line) -> None:
        """Answer, and put the receiver down."""

    async with placed(Human(talk=slam)) as (_, twilio, watcher):
        last = await watcher.to_the_end()
        assert last["status"] == "completed"
        assert told(twilio)[-1] == "completed"


async def test_a_server_that_is_full_when_somebody_answers_says_so() -> None:
    async with (
        telephone(max_conversations=1) as (server, twilio),
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as client,
    ):
        twilio.when_called(THEM, Human(after_s=1.0))
        answer = await client.post("/api/call", json={"number": THEM})
        watcher = Watcher(client, answer.json()["sid"])
        other = await twilio.dial()
        await greeted(other)
        last = await watcher.to_the_end()
        assert twilio.lines[watcher.sid].spoken == [server.settings.phone_full]
        assert last["status"] == "completed"
        assert last["reason"].startswith("All 1 lines are busy")
        other.hang_up()
