"""What one conversation has cost, and whether it may go on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from app.usage.day import Day
from app.usage.ledger import USD_DIGITS, Amounts, Ledger, Work
from app.usage.meter import Usage
from app.usage.prices import Prices

KEPT_TURNS = 100
"""Turns that are remembered one by one; of earlier ones their sum is."""
TOLD_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class UsageShown:
    """What a conversation has cost so far, and the latest turn of it that anything was used for."""

    turn: int
    turn_usd: float
    conversation_usd: float
    wasted_usd: float
    """The part that was paid for what was given up: answers that were begun too early, or interrupted."""
    priced: bool
    """Everything has a price; if not, it cost more than it says."""
    services: Ledger


class Tally:
    """What is used for one reply, on its way to the account: nobody may ever hear it."""

    def __init__(self, account: "Account") -> None:
        self._account = account
        self._usages: list[Usage] = []

    def add(self, usage: Usage, turn: int) -> None:
        """See Meter."""
        self._account.add(usage, turn)
        if not usage.given_up:  # what was given up is known to be wasted
            self._usages.append(usage)

    def waste(self, turn: int) -> None:
        """Nobody has heard anything of it."""
        self._account.waste(self._usages, turn)
        self._usages.clear()


class Account:
    """Adds up one conversation, and tells `day`. A limit of 0 is none: `limit_usd` for all of it, `speculation_usd` for
    what is given up."""

    def __init__(
        self, prices: Prices, day: Day | None = None, *, limit_usd: float = 0.0, speculation_usd: float = 0.0
    ) -> None:
        self._prices = prices
        self._day = day
        self._limit_usd = limit_usd
        self._speculation_usd = speculation_usd
        self._ledger = Ledger()
        self._total = Amounts()
        self._turns: dict[int, Amounts] = {}
        self._earlier = Amounts()
        self._told = True
        self._told_s = float("-inf")

    def begin(self) -> None:
        """Another conversation goes on with this account: its turns are counted from the beginning again."""
        self._earlier = sum(self._turns.values(), self._earlier)
        self._turns.clear()

    def add(self, usage: Usage, turn: int) -> None:
        """Something was used. It counts even when a budget is used up: it is paid for."""
        amounts = Amounts.of(usage, self._prices.usd(usage))
        self._ledger.put(Work(usage.capability, usage.service, usage.model), amounts)
        self._total += amounts
        self._turns[turn] = self._turns.get(turn, Amounts()) + amounts
        if len(self._turns) > KEPT_TURNS:
            self._earlier += self._turns.pop(min(self._turns))
        self._told = False
        if self._day:
            self._day.add(usage, turn)

    def waste(self, usages: Iterable[Usage], turn: int) -> None:
        """What these requests took was for nothing after all: nobody heard what they made. It was added before."""
        for usage in usages:
            amounts = Amounts(wasted_usd=self._prices.usd(usage) or 0.0)
            self._ledger.put(Work(usage.capability, usage.service, usage.model), amounts)
            self._total += amounts
            self._turns[turn] = self._turns.get(turn, Amounts()) + amounts
            if self._day:
                self._day.waste(usage)
        self._told = False

    @property
    def total(self) -> Amounts:
        """Everything so far."""
        return self._total

    @property
    def earlier(self) -> Amounts:
        """What was used in turns that are not remembered one by one any more."""
        return self._earlier

    @property
    def spent_usd(self) -> float:
        """What it has cost, as far as prices are known."""
        return self._total.usd

    @property
    def wasted_usd(self) -> float:
        """The part of it that was paid for what was given up."""
        return self._total.wasted_usd

    @property
    def priced(self) -> bool:
        """Everything that was used has a price."""
        return self._total.priced

    @property
    def over(self) -> Literal["", "conversation", "day"]:
        """Which budget is used up, if any is."""
        if self._limit_usd and self.spent_usd >= self._limit_usd:
            return "conversation"
        return "day" if self._day and self._day.over else ""

    @property
    def may_speculate(self) -> bool:
        """Answers may be begun before it is known that they are wanted."""
        return not self._speculation_usd or self.wasted_usd < self._speculation_usd

    def of_turn(self, turn: int) -> Amounts:
        """What was used for a turn; nothing for one that is not remembered."""
        return self._turns.get(turn, Amounts())

    def due(self, now_s: float, *, at_once: bool = False) -> UsageShown | None:
        """What has to be told now: something that changed since, at most once in TOLD_EVERY_S unless `at_once`. While
        nothing costs anything, there is nothing to tell."""
        if self._told:
            return None
        waited = at_once or now_s - self._told_s >= TOLD_EVERY_S
        if not waited or not self._total.costs:
            return None
        self._told, self._told_s = True, now_s
        turn, services = max(self._turns, default=0), Ledger(dict(self._ledger))
        return UsageShown(turn, self.of_turn(turn).usd, self.spent_usd, self.wasted_usd, self.priced, services)

    def as_json(self) -> dict[str, Any]:
        """The whole account, without anything that was said."""
        return {
            **self._total.shown(),
            "services": self._ledger.shown(),
            "turns": [{"turn": turn, **self._turns[turn].shown()} for turn in sorted(self._turns)],
        }

    def summary(self) -> dict[str, Any]:
        """What it has cost, in a few words."""
        return {
            "usd": round(self.spent_usd, USD_DIGITS),
            "wasted_usd": round(self.wasted_usd, USD_DIGITS),
            "priced": self.priced,
        }
