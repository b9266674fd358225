"""What it costs, over HTTP: all the figures, for those who may know them, and nothing that was said."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from app.api import usage
from app.conversation.messages import Message
from app.conversation.options import Options
from app.core.config import Settings
from app.engine import Engine
from app.usage.day import Day
from app.usage.meter import Usage
from app_server import scripted
from fastapi import FastAPI
from numpy.typing import NDArray

KEY = "a-long-random-text"
PRICES = "ten-for-a-dollar:characters=100000"
TODAY = date(2026, 11, 20)
HERE = ("127.0.0.1", 50_000)


class Nobody:
    """Listens to no conversation."""

    def tell(self, message: Message) -> None: ...

    def play(self, samples: NDArray[Any]) -> None: ...


def costing(usd: int, **more: bool) -> Usage:
    return Usage("tts", "openai", "ten-for-a-dollar", characters=10 * usd, **more)


def asking(engine: Engine, client: tuple[str, int] = HERE, host: str = "localhost") -> httpx.AsyncClient:
    app = FastAPI()
    app.state.engine = engine
    app.include_router(usage.router)
    transport = httpx.ASGITransport(app=app, client=client)
    return httpx.AsyncClient(transport=transport, base_url=f"http://{host}:8000")


def engine_of(tmp_path: Path, **changes: Any) -> Engine:
    """The real one, on a day that does not end while a test runs."""
    engine = Engine(settings_of(tmp_path, **changes))
    limit_usd = engine.settings.budget_per_day_usd
    engine.day = Day(tmp_path / "usage.json", engine.prices, limit_usd=limit_usd, today=lambda: TODAY)
    return engine


def settings_of(tmp_path: Path, **changes: Any) -> Settings:
    return scripted(**{"data_dir": str(tmp_path), "prices": PRICES, **changes})


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return engine_of(tmp_path, budget_per_day_usd=10, budget_per_conversation_usd=5)


async def usage_of(engine: Engine) -> Any:
    async with asking(engine) as client:
        answer = await client.get("/api/usage")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    usage.UsageNow.model_validate_json(answer.content)  # as /openapi.json describes it
    return answer.json()


async def test_before_anything_was_used_everything_is_nothing(engine: Engine) -> None:
    shown = await usage_of(engine)
    assert (shown["today"]["usd"], shown["today"]["requests"], shown["conversations"]) == (0, 0, [])
    assert shown["today"]["date"] == "2026-11-20"


async def test_today_is_shown_in_all_and_by_model(engine: Engine) -> None:
    engine.day.add(costing(2))
    engine.day.add(costing(1, given_up=True))
    engine.day.add(Usage("llm", "openai", "gpt-5.4-nano", input_tokens=1000, output_tokens=100))
    today = (await usage_of(engine))["today"]
    assert (today["requests"], today["wasted_usd"], today["priced"]) == (3, 1, True)
    dearest, other = today["services"]
    assert (dearest["model"], dearest["usd"], dearest["given_up"]) == ("ten-for-a-dollar", 3, 1)
    assert (other["capability"], other["service"], other["input_tokens"]) == ("llm", "openai", 1000)
    assert today["usd"] == pytest.approx(dearest["usd"] + other["usd"])


async def test_what_has_no_price_is_said_not_to_have_one(engine: Engine) -> None:
    engine.day.add(Usage("llm", "ollama", "llama3.2:3b", output_tokens=100))
    today = (await usage_of(engine))["today"]
    assert (today["usd"], today["priced"], today["output_tokens"]) == (0, False, 100)


async def test_budgets_are_shown_and_whether_the_day_is_over(engine: Engine) -> None:
    budgets = (await usage_of(engine))["budgets"]
    assert budgets == {"conversation_usd": 5, "day_usd": 10, "speculation_usd": 0.05, "day_over": False}
    engine.day.add(costing(10))
    assert (await usage_of(engine))["budgets"]["day_over"]


async def test_where_there_is_no_budget_there_is_none(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, speculation_budget_usd=0)
    budgets = (await usage_of(engine))["budgets"]
    assert budgets == {"conversation_usd": None, "day_usd": None, "speculation_usd": None, "day_over": False}


async def test_the_days_before_are_shown_the_latest_first(tmp_path: Path) -> None:
    entry = {"capability": "llm", "service": "openai", "model": "gpt-5.4"}
    days = {(TODAY - timedelta(days=back)).isoformat(): [{**entry, "usd": back}] for back in range(1, 60)}
    (tmp_path / "usage.json").write_bytes(orjson.dumps({"version": 1, "days": days}))
    engine = engine_of(tmp_path)
    await engine.day.open()
    engine.day.add(costing(7))
    shown = (await usage_of(engine))["days"]
    await engine.day.close()
    assert [day["usd"] for day in shown] == [7, *range(1, 30)]
    assert shown[1]["date"] == "2026-11-19"


async def test_conversations_that_go_on_are_shown_without_their_names(engine: Engine) -> None:
    await engine.start()
    conversation = engine.open("a-secret-name", Options.from_settings(engine.settings), Nobody())
    conversation.account.add(costing(2), 1)
    async with asking(engine) as client:
        answer = await client.get("/api/usage")
    assert answer.json()["conversations"] == [{"usd": 2, "wasted_usd": 0, "priced": True}]
    assert "a-secret-name" not in answer.text
    engine.conversations.clear()
    await engine.close()


async def test_only_somebody_at_this_computer_is_told(engine: Engine) -> None:
    for client, host in ((("192.0.2.7", 50_000), "localhost"), (HERE, "voice.example.com")):
        async with asking(engine, client, host) as elsewhere:
            answer = await elsewhere.get("/api/usage")
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "local_only"
        assert set(answer.json()) == {"error"}
        assert answer.headers["cache-control"] == "no-store"


async def test_with_a_key_whoever_sends_it_is_told_and_nobody_else(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, api_key=KEY)
    async with asking(engine, ("192.0.2.7", 50_000), "voice.example.com") as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            answer = await client.get("/api/usage", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        answer = await client.get("/api/usage", headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200


async def test_a_page_from_elsewhere_is_told_nothing(engine: Engine) -> None:
    async with asking(engine) as client:
        answer = await client.get("/api/usage", headers={"Origin": "https://elsewhere.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
