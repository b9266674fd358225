"""Sums of what was used: of a turn, of a conversation, of a day."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from operator import add
from typing import Any, NamedTuple, get_args

from app.usage.meter import Capability, Usage

USD_DIGITS = 9
"""Digits behind the point in which money is given away: a token may cost a hundred-millionth of a dollar."""


class Work(NamedTuple):
    """What was asked for: which of its models a service used for what."""

    capability: Capability
    service: str
    model: str


@dataclass(frozen=True, slots=True)
class Amounts:
    """What some requests took together; the parts are those of `Usage`."""

    requests: int = 0
    given_up: int = 0
    """Requests that were stopped before their end."""
    estimated: int = 0
    """Requests whose amounts are estimates."""
    unpriced: int = 0
    """Requests that no price is known for: `usd` is without them."""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    audio_s: float = 0.0
    characters: int = 0
    usd: float = 0.0
    wasted_usd: float = 0.0
    """The part of `usd` that was paid for what was given up."""

    @classmethod
    def of(cls, usage: Usage, usd: float | None) -> "Amounts":
        """Those of one request; `usd` is None when no price is known."""
        cost = usd or 0.0
        return cls(
            requests=1,
            given_up=int(usage.given_up),
            estimated=int(usage.estimated),
            unpriced=int(usd is None),
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.output_tokens,
            audio_s=usage.audio_s,
            characters=usage.characters,
            usd=cost,
            wasted_usd=cost if usage.given_up else 0.0,
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Amounts":
        """The opposite of `as_json`; what is missing is 0. Raises ValueError when a part is not an amount."""
        read: dict[str, Any] = {}
        for part in fields(cls):
            given = value.get(part.name, 0)
            number = isinstance(given, int | float) and not isinstance(given, bool)
            if not number or not math.isfinite(given) or given < 0:
                raise ValueError(f"{part.name} is {given!r:.50}, which is no amount")
            read[part.name] = type(part.default)(given)  # type: ignore[misc]
        return cls(**read)

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(*map(add, astuple(self), astuple(other)))

    @property
    def priced(self) -> bool:
        """Everything has a price: `usd` is all that it costs."""
        return not self.unpriced

    @property
    def costs(self) -> bool:
        """Something of it costs money, or may."""
        return self.usd > 0 or not self.priced

    def as_json(self) -> dict[str, Any]:
        """All of its parts by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def shown(self) -> dict[str, Any]:
        """What programs and pages are told: amounts, with `priced` and `estimated` as plain answers."""
        rounded = {
            "audio_s": round(self.audio_s, 3),
            "usd": round(self.usd, USD_DIGITS),
            "wasted_usd": round(self.wasted_usd, USD_DIGITS),
            "priced": self.priced,
            "estimated": self.estimated > 0,
        }
        parts = self.as_json() | rounded
        del parts["unpriced"]
        return parts


class Ledger:
    """Adds up what was used, for each kind of work on its own. How many kinds there are is up to the settings."""

    def __init__(self, entries: Mapping[Work, Amounts] | None = None) -> None:
        self._entries = dict(entries or {})
        self._total = sum(self._entries.values(), Amounts())

    def __iter__(self) -> Iterator[tuple[Work, Amounts]]:
        return iter(self._entries.items())

    def __add__(self, other: "Ledger") -> "Ledger":
        result = Ledger(self._entries)
        for work, amounts in other:
            result.put(work, amounts)
        return result

    @property
    def total(self) -> Amounts:
        """Everything together; kept, because budgets are asked for it with every beat of every conversation."""
        return self._total

    def put(self, work: Work, amounts: Amounts) -> None:
        """Something more was used."""
        self._entries[work] = self._entries.get(work, Amounts()) + amounts
        self._total += amounts

    def as_json(self) -> list[dict[str, Any]]:
        """To be read again by `from_json`."""
        return [work._asdict() | amounts.as_json() for work, amounts in self]

    def shown(self) -> list[dict[str, Any]]:
        """What programs and pages are told, the dearest work first."""
        dearest_first = sorted(self, key=lambda entry: (-entry[1].usd, entry[0]))
        return [work._asdict() | amounts.shown() for work, amounts in dearest_first]

    @classmethod
    def from_json(cls, value: Iterable[Any]) -> "Ledger":
        """The opposite of `as_json`. Raises ValueError when it is something else."""
        ledger = cls()
        for entry in value:
            if not isinstance(entry, dict):
                raise ValueError("an entry is not an object")
            work = Work(*(entry.get(name) for name in Work._fields))  # type: ignore[arg-type]
            if work.capability not in get_args(Capability) or not all(isinstance(name, str) for name in work):
                raise ValueError("an entry does not say which work it is about")
            ledger.put(work, Amounts.from_json(entry))
        return ledger
