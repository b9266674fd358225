"""Who does the work, over HTTP, and the test of everybody: the real server, asking services that work and that fail."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from app.api import providers
from app.core.config import Settings
from app.core.errors import ServiceError
from app.engine import Engine
from app_server import AppServer, scripted
from fastapi import FastAPI
from openai_service import OpenAiService, Stall, no_quota, unauthorized

KEY = "a-long-random-text"
HERE = ("127.0.0.1", 50_000)


class Clock:
    """Stands until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def asking(engine: Engine, client: tuple[str, int] = HERE, host: str = "localhost", clock: Any = None) -> Any:
    app = FastAPI()
    app.state.engine = engine
    app.include_router(providers.provider_routes(clock or Clock()))
    transport = httpx.ASGITransport(app=app, client=client)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}:8000", timeout=30)


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Engine]:
    engine = Engine(settings)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def with_services(good: OpenAiService, bad: OpenAiService, **changes: Any) -> Settings:
    """The model of `bad` is asked first, everything else of `good`; the scripted ones stand behind them. Nothing is
    spoken ahead of the test."""
    chosen = {
        "services": f"good={good.base_url},bad={bad.base_url}",
        "service_keys": f"good={good.key},bad={bad.key}",
        "stt_provider": "good:whisper-large-v3,scripted",
        "llm_provider": "bad:llama3.2:3b,good:llama3.2:3b",
        "tts_provider": "good:kokoro@af_bella,scripted",
        "apology": "",
        "refusal": "",
    }
    return scripted(**{**chosen, **changes})


@pytest.fixture
async def good() -> AsyncIterator[OpenAiService]:
    async with OpenAiService(compatible=True) as service:
        service.transcriptions.reply("Hello, this is a test of the voice.")
        yield service


@pytest.fixture
async def bad() -> AsyncIterator[OpenAiService]:
    async with OpenAiService(compatible=True) as service:
        yield service


@pytest.fixture
def server(good: OpenAiService, bad: OpenAiService) -> Iterator[AppServer]:
    with AppServer(with_services(good, bad), load=False) as running:
        yield running


async def answer_of(client: httpx.AsyncClient, method: str, path: str, shape: Any) -> Any:
    answer = await client.request(method, path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    shape.model_validate_json(answer.content)  # as /openapi.json describes it
    return answer.json()


async def who_works(client: httpx.AsyncClient) -> Any:
    return (await answer_of(client, "GET", "/api/providers", providers.WhoWorks))["providers"]


async def checked(client: httpx.AsyncClient) -> Any:
    return await answer_of(client, "POST", "/api/providers/check", providers.Checked)


async def test_everybody_is_listed_in_the_order_they_are_asked_in(good: OpenAiService, bad: OpenAiService) -> None:
    async with started(with_services(good, bad)) as engine, asking(engine) as client:
        listed = await who_works(client)
    assert [(one["capability"], one["provider"], one["model"]) for one in listed] == [
        ("stt", "good", "whisper-large-v3"),
        ("stt", "scripted", ""),
        ("llm", "bad", "llama3.2:3b"),
        ("llm", "good", "llama3.2:3b"),
        ("tts", "good", "kokoro"),
        ("tts", "scripted", ""),
    ]
    assert [one["provider"] for one in listed if one["asked"]] == ["good", "bad", "good"]
    assert all(one["works"] and not one["problem"] for one in listed)


async def test_who_is_left_alone_is_shown_with_the_reason_and_who_is_asked_instead(
    good: OpenAiService, bad: OpenAiService
) -> None:
    async with started(with_services(good, bad)) as engine, asking(engine) as client:
        preferred = engine.provision.members["llm"][0]
        preferred.health.failed(ServiceError("bad does not take the key.", code="key_refused"))
        first, second = [one for one in await who_works(client) if one["capability"] == "llm"]
    assert (first["works"], first["problem"], first["asked"]) == (False, "bad does not take the key.", False)
    assert (second["works"], second["problem"], second["asked"]) == (True, "", True)


async def test_the_test_says_of_everybody_what_happened_and_how_soon(
    server: AppServer, good: OpenAiService, bad: OpenAiService
) -> None:
    bad.chat.fault(unauthorized())
    await asyncio.wrap_future(ready(server))
    async with httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as client:
        shown = await checked(client)
        listed = await who_works(client)
    found = {(one["capability"], one["provider"]): one for one in shown["findings"]}
    assert [*found] == [(one["capability"], one["provider"]) for one in listed]
    assert shown["age_s"] == 0
    assert found["stt", "good"]["words"] == "Understood “Hello, this is a test of the voice.”"
    assert found["llm", "good"]["words"].startswith("Answered with ")
    assert found["tts", "good"]["words"].startswith("Spoke 2.1 s, ")
    wrong = found["llm", "bad"]
    assert (wrong["works"], wrong["first_ms"]) == (False, None)
    assert wrong["words"] == "bad does not take the key: check the one of 'bad' in SERVICE_KEYS."
    rest = [one for key, one in found.items() if key != ("llm", "bad")]
    assert all(one["works"] and one["first_ms"] > 0 for one in rest)
    assert not good.refused
    left_alone = next(one for one in listed if one["provider"] == "bad")
    assert (left_alone["works"], left_alone["problem"]) == (False, wrong["words"])


async def test_who_works_again_is_asked_again(good: OpenAiService, bad: OpenAiService) -> None:
    clock = Clock()
    async with started(with_services(good, bad)) as engine, asking(engine, clock=clock) as client:
        bad.chat.fault(no_quota())
        await checked(client)
        assert not engine.provision.members["llm"][0].health.works
        clock.now_s += 11
        shown = await checked(client)
        (asked,) = [one for one in await who_works(client) if one["capability"] == "llm" and one["asked"]]
    assert all(one["works"] for one in shown["findings"])
    assert (asked["provider"], asked["problem"]) == ("bad", "")


async def test_who_asks_while_a_test_runs_is_told_what_that_one_shows(good: OpenAiService, bad: OpenAiService) -> None:
    bad.chat.fault(Stall())
    async with started(with_services(good, bad)) as engine, asking(engine) as client:
        first = asyncio.create_task(checked(client))
        await bad.chat.next_stalled()
        others = [asyncio.create_task(checked(client)) for _ in range(3)]
        bad.chat.release()
        answers = await asyncio.gather(first, *others)
    assert len(bad.chat.requests) == 1
    assert all(answer["findings"] == answers[0]["findings"] for answer in answers)


async def test_within_ten_seconds_nobody_is_asked_again(good: OpenAiService, bad: OpenAiService) -> None:
    clock = Clock()
    async with started(with_services(good, bad)) as engine, asking(engine, clock=clock) as client:
        first = await checked(client)
        clock.now_s += 9.5
        second = await checked(client)
        assert len(bad.chat.requests) == 1
        clock.now_s += 0.5
        third = await checked(client)
    assert (first["age_s"], second["age_s"], third["age_s"]) == (0, 9.5, 0)
    assert second["findings"] == first["findings"]
    assert len(bad.chat.requests) == 2


async def test_who_gives_up_in_the_midst_of_a_test_leaves_the_next_one_a_whole_one(
    good: OpenAiService, bad: OpenAiService
) -> None:
    bad.chat.fault(Stall())
    async with started(with_services(good, bad)) as engine, asking(engine) as client:
        first = asyncio.create_task(checked(client))
        await bad.chat.next_stalled()
        second = asyncio.create_task(checked(client))
        first.cancel()
        await bad.chat.next_gone()
        assert all(one["works"] for one in (await second)["findings"])


async def test_what_the_test_costs_is_in_the_account_of_the_day(good: OpenAiService, bad: OpenAiService) -> None:
    prices = "llama3.2:3b:output=1000,kokoro:characters=1000"
    async with started(with_services(good, bad, prices=prices)) as engine, asking(engine) as client:
        await checked(client)
        shown = engine.day.ledger.shown()
    assert {(one["capability"], one["service"]) for one in shown} >= {("llm", "bad"), ("llm", "good"), ("tts", "good")}
    assert all(one["usd"] > 0 for one in shown if one["model"] == "kokoro")


async def test_without_a_voice_that_works_recognition_is_not_tried_and_not_blamed(
    good: OpenAiService, bad: OpenAiService
) -> None:
    settings = with_services(good, bad, tts_provider="bad:kokoro@af_bella")
    async with started(settings) as engine, asking(engine) as client:
        await bad.kill()
        shown = await checked(client)
        ears, *_ = await who_works(client)
    assert shown["findings"][0]["words"] == "It was not tried: no voice works that could speak to it."
    assert shown["findings"][-1]["words"] == "bad cannot be reached: nobody answers at its address."
    assert (ears["works"], ears["problem"]) == (True, "")
    assert not good.transcriptions.requests


async def test_before_the_engine_is_ready_it_says_why_nothing_is_known() -> None:
    engine = Engine(scripted())
    for reason in ("The models are still being loaded; try again in a moment.", "LLM_MODEL: no such file"):
        async with asking(engine) as client:
            for method, path in (("GET", "/api/providers"), ("POST", "/api/providers/check")):
                answer = await client.request(method, path)
                assert answer.status_code == 503
                assert answer.json() == {"error": {"code": "not_ready", "message": reason}}
                assert answer.headers["cache-control"] == "no-store"
        engine.problem = "LLM_MODEL: no such file"


async def test_only_somebody_at_this_computer_may_ask_and_nobody_else_costs_anything(
    good: OpenAiService, bad: OpenAiService
) -> None:
    async with started(with_services(good, bad)) as engine:
        for client, host in ((("192.0.2.7", 50_000), "localhost"), (HERE, "voice.example.com")):
            async with asking(engine, client, host) as elsewhere:
                for method, path in (("GET", "/api/providers"), ("POST", "/api/providers/check")):
                    answer = await elsewhere.request(method, path)
                    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "local_only")
                    assert answer.headers["cache-control"] == "no-store"
    assert not bad.chat.requests


async def test_with_a_key_whoever_sends_it_may(tmp_path: Path) -> None:
    settings = scripted(api_key=KEY, data_dir=str(tmp_path))
    async with started(settings) as engine, asking(engine, ("192.0.2.7", 50_000), "voice.example.com") as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            answer = await client.post("/api/providers/check", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        client.headers["Authorization"] = f"Bearer {KEY}"
        assert all(one["works"] for one in (await checked(client))["findings"])


async def test_a_page_from_elsewhere_may_not(good: OpenAiService, bad: OpenAiService) -> None:
    async with started(with_services(good, bad)) as engine, asking(engine) as client:
        answer = await client.post("/api/providers/check", headers={"Origin": "https://elsewhere.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert not bad.chat.requests


async def test_a_server_that_stops_in_the_midst_of_a_test_lets_nothing_run_on(
    server: AppServer, bad: OpenAiService
) -> None:
    await asyncio.wrap_future(ready(server))
    server._server.config.timeout_graceful_shutdown = 1  # what open requests have; then they are cancelled
    bad.chat.fault(Stall())
    async with httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as client:
        asked = asyncio.create_task(client.post("/api/providers/check"))
        await bad.chat.next_stalled()
        await asyncio.to_thread(server.stop)
        await bad.chat.next_gone()
        await asyncio.gather(asked, return_exceptions=True)
    assert asked.exception() or asked.result().status_code >= 500


def ready(server: AppServer) -> Any:
    """The services are in this loop, which must not stand still while the server asks them."""
    return asyncio.run_coroutine_threadsafe(server.engine.wait_until_ready(), server._loop)
