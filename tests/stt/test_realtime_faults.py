"""Live recognition when something goes wrong: the utterance is given back at once, and the next one goes well."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from app.core.errors import ProviderError, ServiceError
from app.remote.client import ServiceClient
from app.remote.health import Doubt, Health
from app.stt import realtime
from app.stt.base import Transcript
from app.stt.realtime import LiveTranscription
from app.usage.meter import Usage, bind
from openai_service import (
    OpenAiService,
    Page,
    Stall,
    Status,
    forbidden,
    model_not_found,
    no_quota,
    overloaded,
    rate_limited,
    unauthorized,
)
from openai_service.faults import Close, Cut, Drop, ErrorEvent, FailedTranscription, Silence

MODEL = "gpt-live-transcribe"
RATE_HZ = 16_000
SPEECH = np.random.default_rng(1).normal(0, 3000, RATE_HZ).astype(np.int16)
APPEND, COMMIT, UPDATE = "input_audio_buffer.append", "input_audio_buffer.commit", "session.update"


class Stage:
    """A conversation that is listened to; the clock of the service's health is the test's."""

    def __init__(self, base_url: str, key: str | None, patience_s: float) -> None:
        self.now_s = 0.0
        self.health = Health("openai (live recognition)", Doubt(lambda: self.now_s))
        self.client = ServiceClient("openai", base_url, key)
        self.live = LiveTranscription(self.client, MODEL, patience_s=patience_s, health=self.health)
        self.shown: asyncio.Queue[str] = asyncio.Queue(1000)
        self.listener = self.live.open(RATE_HZ, language="en", on_partial=self.shown.put_nowait)
        self.used: list[Usage] = []

    def add(self, usage: Usage, turn: int) -> None:
        self.used.append(usage)

    async def utterance(self) -> Transcript:
        self.listener.begin()
        self.listener.hear(SPEECH)
        return await self.listener.finish()

    async def lost(self) -> str:
        """An utterance whose words are not had; the code says why."""
        with pytest.raises(ProviderError) as caught:
            await self.utterance()
        return caught.value.code

    async def understood(self) -> str:
        """The first words that come again."""
        while True:
            try:
                return (await self.utterance()).text
            except ProviderError:
                await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime, "PAUSE_S", 0.01)
    monkeypatch.setattr(realtime, "MAX_PAUSE_S", 0.05)


@pytest.fixture
async def service() -> AsyncIterator[OpenAiService]:
    async with OpenAiService() as running:
        yield running


@asynccontextmanager
async def staged(service: OpenAiService, *, patience_s: float = 5.0) -> AsyncIterator[Stage]:
    stage = Stage(service.base_url, service.key, patience_s)
    bind(stage, lambda: 1)
    try:
        yield stage
    finally:
        await stage.live.close()
        await stage.client.close()


def our_tasks() -> list[str]:
    """The tasks that the app runs."""
    files = [task.get_coro().cr_code.co_filename for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    return [file for file in files if "/backend/app/" in file]


# --- within a session


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (ErrorEvent(), "service_failed"),
        (ErrorEvent(on=APPEND), "service_failed"),
        (ErrorEvent(close=1011), "service_failed"),
        (ErrorEvent("rate_limit_exceeded"), "rate_limited"),
        (ErrorEvent("insufficient_quota"), "quota_exceeded"),
        (ErrorEvent("invalid_api_key", type="invalid_request_error"), "key_refused"),
        (Close(), "service_failed"),
        (Close(1008, on=APPEND), "service_failed"),
        (Drop(), "service_unreachable"),
        (Drop(on=APPEND, reset=False), "service_unreachable"),
        (FailedTranscription(), "service_failed"),
        (FailedTranscription("content_policy_violation"), "content_filtered"),
    ],
    ids=str,
)
async def test_an_utterance_that_is_lost_is_given_back_and_the_next_goes_well(
    service: OpenAiService, fault: Any, code: str
) -> None:
    service.realtime.fault(fault)
    async with staged(service) as stage:
        assert await stage.lost() == code
        stage.now_s += 100
        assert await stage.understood() == service.realtime.usual.text
        assert stage.health.works
        assert stage.health.problem == ""
    assert {one.refusal.code for one in service.refused if one.refusal} <= {"input_audio_buffer_commit_empty"}, (
        "of audio that the fault has lost"
    )


async def test_words_that_do_not_come_in_time_are_not_waited_for(service: OpenAiService) -> None:
    async with staged(service) as stage:
        await stage.utterance()
        service.realtime.fault(Silence())
        stage.live.patience_s = 0.1
        assert await stage.lost() == "service_late"
        stage.live.patience_s = 5.0
        assert await stage.understood() == service.realtime.usual.text
    assert len(service.realtime.sessions) == 2, "whoever is stuck is not asked again"
    given_up = Usage("stt", "openai", MODEL, audio_s=1.0, estimated=True, given_up=True)
    words = Usage("stt", "openai", MODEL, audio_s=1.0)
    assert stage.used == [words, given_up, words]


async def test_a_commit_that_comes_to_nothing_is_harmless(service: OpenAiService) -> None:
    service.realtime.fault(ErrorEvent("input_audio_buffer_commit_empty", type="invalid_request_error"))
    async with staged(service) as stage:
        assert (await stage.utterance()).text == ""
        assert (await stage.utterance()).text == service.realtime.usual.text
    assert len(service.realtime.sessions) == 1
    assert stage.used == [Usage("stt", "openai", MODEL, audio_s=1.0)]


async def test_an_utterance_is_lost_for_good_even_if_the_speaker_goes_on(service: OpenAiService) -> None:
    service.realtime.fault(Drop())
    async with staged(service) as stage:
        await stage.lost()
        stage.listener.hear(SPEECH)
        with pytest.raises(ServiceError):
            await stage.listener.finish()
        assert await stage.understood() == service.realtime.usual.text
    assert {len(heard.samples) for heard in service.realtime.received} == {len(SPEECH) * 3 // 2}


async def test_what_the_service_was_asked_for_and_lost_is_put_down_as_given_up(service: OpenAiService) -> None:
    service.realtime.fault(Drop())
    async with staged(service) as stage:
        await stage.lost()
    assert stage.used == [Usage("stt", "openai", MODEL, audio_s=1.0, estimated=True, given_up=True)]


async def test_a_session_that_ends_between_two_utterances_harms_neither(service: OpenAiService) -> None:
    async with staged(service) as stage:
        await stage.utterance()
        await service.realtime.sessions[0].close()
        assert await stage.understood() == service.realtime.usual.text
        assert stage.health.problem == ""


async def test_three_who_wait_in_vain_leave_it_alone_until_one_has_tried_again(service: OpenAiService) -> None:
    service.realtime.delay_s = 60.0
    async with staged(service, patience_s=0.1) as stage:
        while stage.health.works:
            await stage.lost()
            await asyncio.sleep(0.01)  # a new session opens
        assert await stage.lost() == "service_failed", "at once: it is left alone"
        stage.now_s += 100
        while stage.health.admits():  # a new session opens, and its words do not come either: once is enough now
            await stage.lost()
            await asyncio.sleep(0.01)
        stage.now_s += 100
        stage.live.patience_s, service.realtime.delay_s = 5.0, 0.0
        assert await stage.understood() == service.realtime.usual.text
        assert stage.health.works


async def test_more_than_the_queue_takes_loses_the_utterance(service: OpenAiService) -> None:
    async with staged(service) as stage:
        stage.listener.begin()
        stage.listener.hear(np.tile(SPEECH, 9))
        stage.listener.hear(np.tile(SPEECH, 2))
        with pytest.raises(ServiceError) as caught:
            await stage.listener.finish()
        assert caught.value.code == "service_late"
        assert await stage.understood() == service.realtime.usual.text
    assert [len(heard.samples) for heard in service.realtime.received] == [len(SPEECH) * 3 // 2]


# --- before and between sessions


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (unauthorized(), "key"),
        (forbidden(), "key"),
        (model_not_found(MODEL), "does not know"),
        (rate_limited(30), "no more requests"),
        (no_quota(), "HTTP 429"),
    ],
    ids=lambda value: getattr(value, "code", None) or "problem",
)
async def test_a_service_that_refuses_is_left_alone_for_a_while(
    service: OpenAiService, fault: Status, problem: str
) -> None:
    service.realtime.fault(fault)
    async with staged(service) as stage:
        assert await stage.lost() in {"key_refused", "model_not_found", "rate_limited", "service_failed"}
        assert problem in stage.health.problem
        assert not stage.health.admits()
        stage.now_s += 100
        assert await stage.understood() == service.realtime.usual.text


@pytest.mark.parametrize("fault", [overloaded(), Cut(), Page(b"<h1>Hello</h1>"), ErrorEvent(on=UPDATE)], ids=str)
async def test_a_handshake_that_fails_is_tried_again(service: OpenAiService, fault: Any) -> None:
    service.realtime.fault(fault)
    async with staged(service) as stage:
        assert await stage.understood() == service.realtime.usual.text
        assert stage.health.works


async def test_a_handshake_that_stalls_is_waited_for_as_long_as_words_are(service: OpenAiService) -> None:
    service.realtime.fault(Stall())
    async with staged(service, patience_s=0.2) as stage:
        assert await stage.lost() == "service_late"
        stage.live.patience_s = 5.0
        service.realtime.release()
        assert await stage.understood() == service.realtime.usual.text


async def test_a_service_that_dies_in_the_middle_and_comes_back(service: OpenAiService) -> None:
    async with staged(service) as stage:
        stage.listener.begin()
        stage.listener.hear(SPEECH)
        await stage.shown.get()  # it has arrived
        await service.kill()
        with pytest.raises(ServiceError) as caught:
            await stage.listener.finish()
        assert caught.value.code == "service_unreachable"
        assert await stage.lost() in {"service_unreachable", "service_failed"}
        await service.revive()
        stage.now_s += 100
        assert await stage.understood() == service.realtime.usual.text


async def test_a_service_that_freezes_is_given_up_in_time_and_taken_up_again(service: OpenAiService) -> None:
    async with staged(service) as stage:
        await stage.utterance()
        await service.freeze()
        stage.live.patience_s = 0.1
        assert await stage.lost() == "service_late"
        service.thaw()
        stage.live.patience_s = 5.0
        assert await stage.understood() == service.realtime.usual.text


@pytest.mark.parametrize(
    "message",
    [
        "no JSON",
        "[]",
        '{"type": 1}',
        b"binary",
        '{"type": "input_audio_buffer.committed", "item_id": "x"}',
        '{"type": "input_audio_buffer.cleared"}',
    ],
    ids=str,
)
async def test_a_service_that_talks_nonsense_is_told_so(message: str | bytes) -> None:
    async with talking(lambda kind: [message] if kind == APPEND else []) as stage:
        assert await stage.lost() == "service_answer"


def transcription(kind: str, item_id: str, **fields: str) -> str:
    event = {"type": f"conversation.item.input_audio_transcription.{kind}", "item_id": item_id} | fields
    return json.dumps(event)


async def test_words_that_come_before_the_commit_is_confirmed_are_taken() -> None:
    said = [
        transcription("completed", "item_1", transcript="Ever tried."),
        json.dumps({"type": "input_audio_buffer.committed", "item_id": "item_1"}),
        transcription("completed", "item_1", transcript="Said twice."),
    ]
    async with talking(lambda kind: said if kind == COMMIT else []) as stage:
        assert (await stage.utterance()).text == "Ever tried."
        assert (await stage.listener.finish()).text == "Ever tried."
    assert len(stage.used) == 1


async def test_words_of_what_is_about_to_be_forgotten_are_not_shown() -> None:
    answers = {
        APPEND: [transcription("delta", "item_1", delta="old")],
        "input_audio_buffer.clear": [
            transcription("delta", "item_0", delta="older"),
            json.dumps({"type": "input_audio_buffer.cleared"}),
        ],
    }
    async with talking(lambda kind: answers.get(kind, [])) as stage:
        stage.listener.begin()
        stage.listener.hear(SPEECH)
        assert await stage.shown.get() == "old"
        answers[APPEND] = [transcription("delta", "item_2", delta="new")]
        stage.listener.begin()
        stage.listener.hear(SPEECH)
        assert await stage.shown.get() == "new"


@asynccontextmanager
async def talking(answers: Callable[[str], Sequence[str | bytes]]) -> AsyncIterator[Stage]:
    """A service that answers each type of event with these messages."""

    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for said in socket:
            kind = json.loads(said.data)["type"]
            for message in ['{"type": "session.updated"}'] if kind == UPDATE else answers(kind):
                await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
        return socket

    application = web.Application()
    application.router.add_get("/v1/realtime", talk)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stage = Stage(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", None, 5.0)
    bind(stage, lambda: 1)
    try:
        yield stage
    finally:
        await stage.live.close()
        await stage.client.close()
        await runner.cleanup()


# --- the end


@pytest.mark.parametrize("moment", ["opening", "open", "waiting", "frozen", "down"])
async def test_nothing_runs_on_after_the_end(service: OpenAiService, moment: str) -> None:
    service.realtime.fault(*{"opening": [Stall()], "waiting": [Silence()]}.get(moment, []))
    waiting = None
    async with staged(service) as stage:
        match moment:
            case "opening":
                await service.realtime.next_stalled()
            case "open" | "frozen":
                await stage.utterance()
            case "waiting":
                waiting = asyncio.create_task(stage.utterance())
                await service.realtime.next_request()
            case "down":
                await service.kill()
                await stage.lost()
        if moment == "frozen":
            await service.freeze()
    assert our_tasks() == []
    stage.listener.begin()
    stage.listener.hear(SPEECH)
    with pytest.raises(ProviderError):
        await stage.listener.finish()
    if waiting:
        with pytest.raises(ProviderError, match="closed"):
            await waiting
