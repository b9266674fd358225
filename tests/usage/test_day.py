"""What a day has cost: all conversations together, over restarts, until midnight."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path

import orjson
import pytest
from app.usage.account import Account
from app.usage.day import KEPT_DAYS, Day
from app.usage.ledger import Amounts
from app.usage.meter import Usage
from app.usage.prices import Prices
from hypothesis import given
from hypothesis import strategies as st

PRICES = Prices((("a-dollar-each", "characters", 1_000_000.0),))
EVE = date(2026, 11, 20)
PATIENCE_S = 10.0


class Clock:
    """A calendar that a test turns."""

    def __init__(self, today: date = EVE) -> None:
        self.today = today

    def __call__(self) -> date:
        return self.today


def costing(usd: int) -> Usage:
    return Usage("tts", "openai", "a-dollar-each", characters=usd)


def day_of(path: Path, clock: Clock | None = None, *, limit_usd: float = 0.0) -> Day:
    return Day(path / "usage.json", PRICES, limit_usd=limit_usd, today=clock or Clock(), written_every_s=3600)


async def spend(path: Path, usd: int, clock: Clock | None = None) -> None:
    """A server that runs, spends and ends."""
    day = day_of(path, clock)
    await day.open()
    day.add(costing(usd))
    await day.close()


async def spent(path: Path, clock: Clock | None = None) -> float:
    """What a server that is started now knows of today."""
    day = day_of(path, clock)
    await day.open()
    await day.close()
    return day.spent_usd


async def eventually(holds: Callable[[], object]) -> None:
    """Look again and again, from another thread: the file is written in one."""

    def look() -> None:
        end = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)

    await asyncio.to_thread(look)


def files(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_all_conversations_and_what_belongs_to_none_count_together(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    for usd in (1, 2):
        Account(PRICES, day).add(costing(usd), 1)
    day.add(costing(4))
    assert day.spent_usd == 7


def test_the_budget_of_the_day_ends_every_conversation(tmp_path: Path) -> None:
    day = day_of(tmp_path, limit_usd=5)
    one, other = Account(PRICES, day, limit_usd=100), Account(PRICES, day)
    one.add(costing(4), 1)
    assert (one.over, other.over, day.over) == ("", "", False)
    one.add(costing(1), 1)
    assert (one.over, other.over, day.over) == ("day", "day", True)


async def test_asking_whether_the_budget_is_used_up_adds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every conversation asks fifty times a second; a hundred of them left the processor no time for anything else."""
    await spend(tmp_path, 2)
    day = day_of(tmp_path, limit_usd=5)
    await day.open()
    account = Account(PRICES, day)
    account.add(costing(3), 1)

    def add(one: Amounts, other: Amounts) -> Amounts:
        raise AssertionError("added up")

    with monkeypatch.context() as patch:
        patch.setattr(Amounts, "__add__", add)
        assert (day.spent_usd, day.over, account.over) == (5, True, "day")
    await day.close()


def test_at_midnight_a_new_day_begins(tmp_path: Path) -> None:
    clock = Clock()
    day = day_of(tmp_path, clock, limit_usd=5)
    day.add(costing(5))
    clock.today += timedelta(days=1)
    assert not day.over
    assert day.spent_usd == 0
    day.add(costing(2))
    totals = day.totals(30)
    assert {of: amounts.usd for of, amounts in totals.items()} == {EVE + timedelta(days=1): 2, EVE: 5}
    assert list(totals) == [EVE + timedelta(days=1), EVE], "the latest first"


async def test_a_restart_keeps_the_day(tmp_path: Path) -> None:
    await spend(tmp_path, 3)
    await spend(tmp_path, 4)
    assert await spent(tmp_path) == 7


async def test_a_restart_keeps_the_days_before(tmp_path: Path) -> None:
    clock = Clock()
    await spend(tmp_path, 3, clock)
    clock.today += timedelta(days=1)
    await spend(tmp_path, 4, clock)
    day = day_of(tmp_path, clock)
    await day.open()
    await day.close()
    assert [amounts.usd for amounts in day.totals(30).values()] == [4, 3]
    assert [amounts.usd for amounts in day.totals(1).values()] == [4]


async def test_two_servers_with_one_file_count_what_both_used(tmp_path: Path) -> None:
    one, other = day_of(tmp_path, limit_usd=5), day_of(tmp_path, limit_usd=5)
    await one.open()
    await other.open()
    one.add(costing(3))
    await one.close()
    other.add(costing(4))
    await other.close()
    assert other.spent_usd == 7
    assert other.over
    assert await spent(tmp_path) == 7


async def test_what_is_used_is_written_soon_without_waiting_for_the_end(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    await day.open()
    day.add(costing(3))
    await eventually((tmp_path / "usage.json").exists)
    assert await spent(tmp_path) == 3
    day.add(costing(1))
    assert day.spent_usd == 4
    await day.close()
    assert await spent(tmp_path) == 4


async def test_a_busy_server_does_not_write_again_and_again(tmp_path: Path) -> None:
    day = day_of(tmp_path)  # once in an hour
    await day.open()
    day.add(costing(1))
    await eventually((tmp_path / "usage.json").exists)
    for _ in range(20):
        day.add(costing(1))
        assert await spent(tmp_path) == 1, "it was written a moment ago"
    await day.close()
    assert await spent(tmp_path) == 21


async def test_nothing_is_written_while_nothing_costs_anything(tmp_path: Path) -> None:
    day = day_of(tmp_path)
    await day.open()
    day.add(Usage("llm", "embedded", "smollm2-135m", output_tokens=100))
    await day.close()
    assert files(tmp_path) == set()


async def test_the_file_is_made_with_its_directory(tmp_path: Path) -> None:
    await spend(tmp_path / "not" / "there", 3)
    assert await spent(tmp_path / "not" / "there") == 3


async def test_the_file_is_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    await spend(tmp_path, 3)
    content = orjson.loads((tmp_path / "usage.json").read_bytes())
    ((day, entries),) = content["days"].items()
    assert day == "2026-11-20"
    assert entries[0]["service"] == "openai"
    assert not (tmp_path / "usage.json.new").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"version": 2, "days": {}}',
        b'{"version": 1}',
        b'{"version": 1, "days": {"yesterday": []}}',
        b'{"version": 1, "days": {"2026-11-20": {}}}',
        b'{"version": 1, "days": {"2026-11-20": [3]}}',
        b'{"version": 1, "days": {"2026-11-20": [{"capability": "llm", "service": "openai"}]}}',
        b'{"version": 1, "days": {"2026-11-20": [{"capability": "x", "service": "a", "model": "b"}]}}',
        b'{"version": 1, "days": {"2026-11-20": [{"capability": "llm", "service": "a", "model": "b", "usd": -1}]}}',
        b'{"version": 1, "days": {"2026-11-20": [{"capability": "llm", "service": "a", "model": "b", "usd": "1"}]}}',
    ],
)
async def test_a_damaged_file_is_put_aside_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "usage.json").write_bytes(content)
    await spend(tmp_path, 3)
    assert await spent(tmp_path) == 3
    (warning,) = warnings(caplog)
    assert "damaged" in warning
    assert (tmp_path / "usage.json.damaged").read_bytes() == content


async def test_a_file_that_cannot_be_written_is_a_warning_and_nothing_is_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "data"
    in_the_way.write_text("a file where the directory should be")
    day = Day(in_the_way / "usage.json", PRICES, limit_usd=5, today=Clock(), written_every_s=0)
    await day.open()
    day.add(costing(3))
    await eventually(lambda: warnings(caplog))
    day.add(costing(2))
    assert day.over, "the budget holds without a file"
    in_the_way.unlink()
    await day.close()
    assert await spent(in_the_way) == 5
    assert "DATA_DIR" in warnings(caplog)[0]


async def test_the_same_trouble_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "usage.json").mkdir()
    day = Day(tmp_path / "usage.json", PRICES, today=Clock(), written_every_s=0)
    await day.open()
    day.add(costing(3))
    lock = tmp_path / "usage.json.lock"
    for _ in range(5):  # it tries again and again
        await eventually(lock.exists)
        await asyncio.to_thread(lock.unlink, missing_ok=True)
    await day.close()
    assert len(warnings(caplog)) <= 2, "once for reading and once for writing"
    assert day.spent_usd == 3


async def test_a_year_is_remembered_and_no_more(tmp_path: Path) -> None:
    entry = {"capability": "llm", "service": "openai", "model": "gpt-5.4", "usd": 1.0}
    days = {(EVE - timedelta(days=back)).isoformat(): [entry] for back in range(1, 500)}
    (tmp_path / "usage.json").write_bytes(orjson.dumps({"version": 1, "days": days}))
    await spend(tmp_path, 3)
    kept = orjson.loads((tmp_path / "usage.json").read_bytes())["days"]
    assert len(kept) == KEPT_DAYS
    assert max(kept) == EVE.isoformat()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 100)), max_size=40))
def test_the_day_is_the_sum_of_its_conversations(uses: Sequence[tuple[int, int]]) -> None:
    day = Day(Path("never/written"), PRICES, today=Clock())
    accounts = [Account(PRICES, day) for _ in range(4)]
    for number, usd in uses:
        accounts[number].add(costing(usd), 1)
    assert day.spent_usd == pytest.approx(sum(account.spent_usd for account in accounts))
    assert day.ledger.total.requests == len(uses)
