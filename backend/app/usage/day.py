"""What all conversations of a day have cost, kept over restarts in one small file.

The file holds amounts and names of services and models; nothing that was said, no keys, no names of people. Several
processes may keep the same file: each adds what it used itself, and sees what the others did whenever it writes.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock

from app.usage.ledger import Amounts, Ledger, Work
from app.usage.meter import Usage
from app.usage.prices import Prices

log = logging.getLogger(__name__)

KEPT_DAYS = 366
WRITTEN_EVERY_S = 1.0
LOCK_TIMEOUT_S = 5.0
_VERSION = 1

Days = Mapping[date, Ledger]


class Day:
    """The account of the current day (as this machine's clock and time zone have it), for everything that reports here.
    Use it from one event loop. `limit_usd` 0 is no budget.

    No trouble with the file ever stops anything: it is logged, and what could not be written is kept for the next time.
    """

    def __init__(
        self,
        path: Path,
        prices: Prices,
        *,
        limit_usd: float = 0.0,
        today: Callable[[], date] = date.today,
        written_every_s: float = WRITTEN_EVERY_S,
    ) -> None:
        self.limit_usd = limit_usd
        self._path = path
        self._prices = prices
        self._today = today
        self._written_every_s = written_every_s
        self._written: Days = {}
        self._writing: Days = {}
        self._unwritten: dict[date, Ledger] = {}
        self._due = asyncio.Event()
        self._turn_to_write = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._trouble = ""

    async def open(self) -> None:
        """Read what was used before, and write from now on."""
        try:
            self._written = await asyncio.to_thread(_read, self._path)
        except OSError as error:
            self._warn("read", error)
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Write what is not written yet."""
        async with self._turn_to_write:  # a write goes on in its thread when its task is cancelled
            if self._keeper:
                self._keeper.cancel()
                await asyncio.gather(self._keeper, return_exceptions=True)
            if self._due.is_set():
                await self._write_down()

    def add(self, usage: Usage, turn: int = 0) -> None:
        """Something was used, in a conversation or for none."""
        del turn
        amounts = Amounts.of(usage, self._prices.usd(usage))
        work = Work(usage.capability, usage.service, usage.model)
        self._unwritten.setdefault(self._today(), Ledger()).put(work, amounts)
        if amounts.costs:
            self._due.set()

    def waste(self, usage: Usage) -> None:
        """What this took was for nothing after all. It was added before."""
        amounts = Amounts(wasted_usd=self._prices.usd(usage) or 0.0)
        work = Work(usage.capability, usage.service, usage.model)
        self._unwritten.setdefault(self._today(), Ledger()).put(work, amounts)
        if amounts.wasted_usd:
            self._due.set()

    @property
    def ledger(self) -> Ledger:
        """What was used today."""
        return self._of(self._today())

    @property
    def spent_usd(self) -> float:
        """What today has cost, as far as prices are known."""
        return sum(part.total.usd for part in self._parts(self._today()))

    @property
    def over(self) -> bool:
        """The budget of the day is used up."""
        return self.limit_usd > 0 and self.spent_usd >= self.limit_usd

    def totals(self, days: int) -> dict[date, Amounts]:
        """Of the latest days that anything was used on, today among them: at most `days`, the latest first."""
        known = self._written.keys() | self._writing.keys() | self._unwritten.keys() | {self._today()}
        return {day: self._of(day).total for day in sorted(known, reverse=True)[:days]}

    def _of(self, day: date) -> Ledger:
        return sum(self._parts(day), Ledger())

    def _parts(self, day: date) -> list[Ledger]:
        return [days[day] for days in (self._written, self._writing, self._unwritten) if day in days]

    # --- the file

    async def _keep(self) -> None:
        while True:
            await self._due.wait()
            async with self._turn_to_write:
                await self._write_down()
            await asyncio.sleep(self._written_every_s)

    async def _write_down(self) -> None:
        self._due.clear()
        self._writing, self._unwritten = self._unwritten, {}
        try:
            self._written = await asyncio.to_thread(_add_to_file, self._path, self._writing)
            self._trouble = ""
        except Exception as error:  # whatever it is (file systems that cannot lock raise other things than OSError)
            self._unwritten = dict(_sum(self._writing, self._unwritten))
            self._due.set()
            self._warn("written", error)
        self._writing = {}

    def _warn(self, what: str, error: Exception) -> None:
        """Once for each kind of trouble, not every second."""
        trouble = f"{what}: {error}"
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("The account of the day cannot be %s (DATA_DIR says where it is)", trouble)


def _sum(one: Days, other: Days) -> Days:
    return {day: one.get(day, Ledger()) + other.get(day, Ledger()) for day in one.keys() | other.keys()}


def _add_to_file(path: Path, used: Days) -> Days:
    """Add what was used to the file; returns all that is in it now. Blocks; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_S):
        known = _sum(_read(path), used)
        kept = {day: known[day] for day in sorted(known)[-KEPT_DAYS:]}
        content = {"version": _VERSION, "days": {day.isoformat(): ledger.as_json() for day, ledger in kept.items()}}
        beside = path.with_name(f"{path.name}.new")
        with beside.open("wb") as file:
            file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    return kept


def _read(path: Path) -> Days:
    """What is in the file. One that is damaged is put aside, with a warning, and counts as empty. Raises OSError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        return _parsed(orjson.loads(content))
    except ValueError as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        log.warning("The account of the days is damaged (%s): it is put aside as %s, and begins anew", error, aside)
        return {}


def _parsed(content: Any) -> Days:
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        raise ValueError(f"it is not of version {_VERSION}")
    days = content.get("days")
    if not isinstance(days, dict) or not all(isinstance(entries, list) for entries in days.values()):
        raise ValueError("it has no days")
    return {date.fromisoformat(day): Ledger.from_json(entries) for day, entries in days.items()}
