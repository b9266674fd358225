"""What the work of services costs: a table of OpenAI's prices, and the prices of the settings, which win over it."""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from app.usage.meter import Usage

log = logging.getLogger(__name__)

FREE = frozenset({"embedded", "scripted"})
"""Providers that work on this machine."""
AS_OF = "2026-11-20"
"""When the table was compared with its sources."""
_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens of input, of cached input and of output, for a minute of audio, and for a million
    characters; None for what the model is not paid by. A model may be priced in several ways: then tokens are what
    counts if the service tells them, and the others are its own estimates for when it does not."""

    input: float | None = None
    cached: float | None = None
    """None: as `input`."""
    output: float | None = None
    minute: float | None = None
    characters: float | None = None

    def of(self, usage: Usage) -> float | None:
        """What this costs; None when it is not known."""
        if (usage.input_tokens or usage.output_tokens) and (self.input is not None or self.output is not None):
            return self._of_tokens(usage)
        if self.minute is not None:
            return usage.audio_s / 60 * self.minute
        if self.characters is not None:
            return usage.characters / _MILLION * self.characters
        nothing = not (usage.input_tokens or usage.output_tokens or usage.audio_s or usage.characters)
        return 0.0 if nothing else None

    def _of_tokens(self, usage: Usage) -> float | None:
        cached_tokens = min(usage.cached_tokens, usage.input_tokens)
        usd = 0.0
        for tokens, price in (
            (usage.input_tokens - cached_tokens, self.input),
            (cached_tokens, self.input if self.cached is None else self.cached),
            (usage.output_tokens, self.output),
        ):
            if tokens and price is None:
                return None
            usd += tokens / _MILLION * (price or 0.0)
        return usd


# Sources: developers.openai.com/api/docs/models/MODEL and .../pricing as other publications quote them where the page
# itself was not at hand (gpt-5.4, gpt-5.4-mini, gpt-6-sol, gpt-5.6-terra, gpt-4.1-mini, gpt-4o-mini, and the estimates
# by the minute): compare them with your bill. Standard processing. What is written into the cache counts as input;
# gpt-5.6 and gpt-6 charge a quarter more for it.
OPENAI = {
    "gpt-6-sol": Price(input=2.00, cached=0.20, output=10.00),
    "gpt-6-luna": Price(input=0.10, cached=0.01, output=0.50),
    "gpt-5.6-terra": Price(input=2.00, cached=0.20, output=12.00),
    "gpt-5.6-luna": Price(input=0.20, cached=0.02, output=1.20),
    "gpt-5.4": Price(input=2.50, cached=0.25, output=15.00),
    "gpt-5.4-mini": Price(input=0.75, cached=0.075, output=4.50),
    "gpt-5.4-nano": Price(input=0.20, cached=0.02, output=1.25),
    "gpt-5-nano": Price(input=0.05, cached=0.005, output=0.40),
    "gpt-4.1-mini": Price(input=0.40, cached=0.10, output=1.60),
    "gpt-4o-mini": Price(input=0.15, cached=0.075, output=0.60),
    "gpt-transcribe": Price(minute=0.0045),
    "gpt-live-transcribe": Price(minute=0.017),
    "gpt-realtime-whisper": Price(minute=0.017),
    "gpt-4o-transcribe": Price(input=2.50, output=10.00, minute=0.006),
    "gpt-4o-mini-transcribe": Price(input=1.25, output=5.00, minute=0.003),
    "whisper-1": Price(minute=0.006),
    "gpt-4o-mini-tts": Price(input=0.60, output=12.00, minute=0.015),
    "tts-1": Price(characters=15.00),
    "tts-1-hd": Price(characters=30.00),
}


class Prices:
    """Says what requests cost. `overrides` are those of the settings: (model, unit, US dollars), units as in `Price`.

    They hold for every service; the table holds for OpenAI alone, because others give its models' names to their own.
    """

    def __init__(self, overrides: Iterable[tuple[str, str, float]]) -> None:
        self._overrides: dict[str, dict[str, float]] = {}
        for model, unit, usd in overrides:
            self._overrides.setdefault(model, {})[unit] = usd
        self._missed: set[tuple[str, str]] = set()

    def usd(self, usage: Usage) -> float | None:
        """What this costs; None when no price is known for that model."""
        if usage.service in FREE:
            return 0.0
        price = self._price(usage.service, usage.model)
        usd = price.of(usage) if price else None
        if usd is None:
            self._say_missed(usage)
        return usd

    def _price(self, service: str, model: str) -> Price | None:
        """A version with a date has the price of its model, unless it has one of its own."""
        names = (model, _DATE.sub("", model))
        table = OPENAI if service == "openai" else {}
        listed = next((table[name] for name in names if name in table), None)
        told = next((self._overrides[name] for name in names if name in self._overrides), None)
        if told is None:
            return listed
        if "minute" in told or "characters" in told:  # says how the model is paid, not only how much
            return Price(**told)
        return replace(listed or Price(), **told)

    def _say_missed(self, usage: Usage) -> None:
        if (usage.service, usage.model) in self._missed:
            return
        self._missed.add((usage.service, usage.model))
        units = {"stt": ("minute",), "llm": ("input", "output"), "tts": ("characters",)}[usage.capability]
        example = ",".join(f"{usage.model}:{unit}=0" for unit in units)
        log.warning(
            "No price is known for %s of %s: what it costs is in no account and no budget; example, if it is free: "
            "PRICES=%s",
            usage.model,
            usage.service,
            example,
        )
