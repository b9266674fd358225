"""What requests cost: OpenAI's by its prices, others by those of the settings, and what is not known is not guessed."""

import logging

import pytest
from app.usage.meter import Usage
from app.usage.prices import OPENAI, Prices
from hypothesis import given
from hypothesis import strategies as st

NONE_OF_THEIR_OWN = Prices(())


def chat(model: str = "gpt-5.4-mini", service: str = "openai", **amounts: int) -> Usage:
    return Usage("llm", service, model, **amounts)  # type: ignore[arg-type]


def test_tokens_cost_what_they_are_and_those_from_the_cache_less() -> None:
    usage = chat(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=100_000)
    assert NONE_OF_THEIR_OWN.usd(usage) == pytest.approx(0.6 * 0.75 + 0.4 * 0.075 + 0.1 * 4.50)


def test_listening_costs_by_the_minute() -> None:
    assert NONE_OF_THEIR_OWN.usd(Usage("stt", "openai", "whisper-1", audio_s=90)) == pytest.approx(0.009)


def test_speaking_costs_by_the_character_or_by_the_minute_as_the_model_is_sold() -> None:
    spoken = {"characters": 2000, "audio_s": 120.0}
    assert NONE_OF_THEIR_OWN.usd(Usage("tts", "openai", "tts-1", **spoken)) == pytest.approx(0.03)  # type: ignore[arg-type]
    by_the_minute = Usage("tts", "openai", "gpt-4o-mini-tts", **spoken)  # type: ignore[arg-type]
    assert NONE_OF_THEIR_OWN.usd(by_the_minute) == pytest.approx(0.03)


def test_a_service_that_tells_the_tokens_is_paid_for_those_and_not_for_the_minutes() -> None:
    told = Usage("stt", "openai", "gpt-4o-transcribe", input_tokens=1000, output_tokens=100, audio_s=3600)
    assert NONE_OF_THEIR_OWN.usd(told) == pytest.approx(0.0025 + 0.001)


def test_a_version_with_a_date_has_the_price_of_its_model() -> None:
    dated, plain = (chat(model, output_tokens=1000) for model in ("gpt-5.4-mini-2026-03-17", "gpt-5.4-mini"))
    assert NONE_OF_THEIR_OWN.usd(dated) == NONE_OF_THEIR_OWN.usd(plain) == pytest.approx(0.0045)


@pytest.mark.parametrize("service", ["embedded", "scripted"])
def test_what_works_on_this_machine_is_free(service: str) -> None:
    assert NONE_OF_THEIR_OWN.usd(chat("gpt-5.4", service, output_tokens=1_000_000)) == 0


def test_a_model_nobody_knows_has_no_price() -> None:
    assert NONE_OF_THEIR_OWN.usd(chat("gpt-99", output_tokens=1)) is None


def test_a_server_of_ones_own_that_calls_its_model_like_one_of_openai_is_not_charged_for() -> None:
    assert NONE_OF_THEIR_OWN.usd(Usage("tts", "kokoro", "tts-1", characters=1000)) is None


def test_prices_of_the_settings_hold_for_every_service() -> None:
    prices = Prices((("llama-3.3-70b", "input", 0.59), ("llama-3.3-70b", "output", 0.79)))
    usage = chat("llama-3.3-70b", "groq", input_tokens=1_000_000, output_tokens=1_000_000)
    assert prices.usd(usage) == pytest.approx(1.38)


def test_prices_of_the_settings_win_and_leave_the_others_as_they_are() -> None:
    prices = Prices((("gpt-5.4-mini", "output", 1.0),))
    assert prices.usd(chat(input_tokens=1_000_000, output_tokens=1_000_000)) == pytest.approx(0.75 + 1.0)
    assert prices.usd(chat("gpt-5.4-nano", output_tokens=1_000_000)) == pytest.approx(1.25)


def test_a_price_for_one_version_is_for_that_version_alone() -> None:
    prices = Prices((("gpt-5.4-mini-2026-03-17", "output", 1.0),))
    assert prices.usd(chat("gpt-5.4-mini-2026-03-17", output_tokens=1_000_000)) == pytest.approx(1.0)
    assert prices.usd(chat("gpt-5.4-mini", output_tokens=1_000_000)) == pytest.approx(4.50)


def test_a_price_by_the_minute_says_that_tokens_do_not_count() -> None:
    prices = Prices((("gpt-4o-transcribe", "minute", 0.001),))
    usage = Usage("stt", "openai", "gpt-4o-transcribe", input_tokens=1000, output_tokens=1000, audio_s=60)
    assert prices.usd(usage) == pytest.approx(0.001)


def test_a_price_of_nothing_is_a_price() -> None:
    prices = Prices((("llama3.2:3b", "input", 0.0), ("llama3.2:3b", "output", 0.0)))
    assert prices.usd(chat("llama3.2:3b", "ollama", input_tokens=10, output_tokens=10)) == 0


def test_half_a_price_is_none() -> None:
    prices = Prices((("llama3.2:3b", "input", 0.5),))
    assert prices.usd(chat("llama3.2:3b", "ollama", input_tokens=10, output_tokens=10)) is None


def test_a_missing_price_is_pointed_out_once_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    prices = Prices(())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            prices.usd(chat("llama3.2:3b", "ollama", output_tokens=1))
    (record,) = caplog.records
    assert "PRICES=llama3.2:3b:input=0,llama3.2:3b:output=0" in record.getMessage()


AMOUNTS = st.builds(
    Usage,
    st.sampled_from(["stt", "llm", "tts"]),
    st.just("openai"),
    st.sampled_from(sorted(OPENAI)),
    input_tokens=st.integers(0, 10**6),
    cached_tokens=st.integers(0, 10**6),
    output_tokens=st.integers(0, 10**6),
    audio_s=st.floats(0, 36_000),
    characters=st.integers(0, 10**6),
)


@given(AMOUNTS)
def test_nothing_costs_less_than_nothing_and_the_cache_never_makes_it_dearer(usage: Usage) -> None:
    usd = NONE_OF_THEIR_OWN.usd(usage)
    without_cache = Usage(usage.capability, "openai", usage.model, usage.input_tokens, 0, usage.output_tokens,
                          usage.audio_s, usage.characters)  # fmt: skip
    dearest = NONE_OF_THEIR_OWN.usd(without_cache)
    assert usd is None or (dearest is not None and 0 <= usd <= dearest + 1e-12)
