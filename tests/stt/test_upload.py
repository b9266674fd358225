"""Recognition by upload, against a strict service: what it is sent, what its answers mean, and what goes wrong."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from app.audio.wav import read_audio
from app.core.errors import AudioFormatError, OverloadedError, ServiceError
from app.inference.store import ModelStore
from app.remote.client import ServiceClient
from app.stt.base import Transcript
from app.stt.whisper import UploadRecognizer, cleaned
from app.usage.meter import Usage, bind
from openai_service import (
    KEY,
    Cut,
    Empty,
    OpenAiService,
    Page,
    Stall,
    Status,
    bad_gateway,
    content_refused,
    forbidden,
    login_page,
    no_quota,
    overloaded,
    rate_limited,
    server_error,
    unauthorized,
)

RATE_HZ = 16_000


def recording(begin_s: float = 0, end_s: float = 1.5) -> np.ndarray:
    whole = read_audio(ModelStore().path("test-speech") / "beckett.wav", RATE_HZ)
    return whole[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)]


SPEECH = recording()


class Account:
    """Keeps what was put down."""

    def __init__(self) -> None:
        self.used: list[Usage] = []

    def add(self, usage: Usage, turn: int) -> None:
        self.used.append(usage)


@pytest.fixture
async def service() -> AsyncIterator[OpenAiService]:
    async with OpenAiService() as running:
        yield running


@pytest.fixture
def account() -> Account:
    return Account()


@asynccontextmanager
async def recogniser(
    service: OpenAiService, account: Account, model: str = "gpt-transcribe", **options: Any
) -> AsyncIterator[UploadRecognizer]:
    bind(account, lambda: 1)
    client = ServiceClient("openai", service.base_url, service.key)
    try:
        yield UploadRecognizer(client, model, **options)
    finally:
        await client.close()


async def understood(service: OpenAiService, account: Account, model: str = "gpt-transcribe", **options: Any) -> str:
    async with recogniser(service, account, model, **options) as stt:
        return (await stt.transcribe(SPEECH, language="en")).text


def says(**answer: Any) -> Page:
    """A good answer with just these fields."""
    return Page(json.dumps(answer).encode(), "application/json")


# --- what is sent, and what comes back


async def test_the_service_hears_exactly_what_was_said(service: OpenAiService, account: Account) -> None:
    service.transcriptions.reply("Ever tried.")
    async with recogniser(service, account) as stt:
        assert await stt.transcribe(SPEECH, language="en") == Transcript("Ever tried.", "en")
    (heard,) = service.transcriptions.received
    assert heard.rate_hz == RATE_HZ
    assert (heard.samples == SPEECH).all()
    assert not service.refused


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("gpt-transcribe", {"response_format": "json", "languages": ["en"]}),
        ("gpt-4o-mini-transcribe", {"response_format": "json", "language": "en"}),
        ("whisper-1", {"response_format": "verbose_json", "language": "en"}),
    ],
)
async def test_each_model_is_asked_in_its_own_way(
    service: OpenAiService, account: Account, model: str, fields: dict[str, Any]
) -> None:
    assert await understood(service, account, model, hint=" Names: Ahoy. ") == service.transcriptions.usual
    (exchange,) = service.transcriptions.requests
    assert exchange.body == {"model": model, "prompt": "Names: Ahoy."} | fields
    assert not service.refused


async def test_a_compatible_server_is_sent_what_all_of_them_know(account: Account) -> None:
    async with OpenAiService(compatible=True, key=None) as speaches:
        text = await understood(speaches, account, "Systran/faster-whisper-small", official=False, hint="Ahoy")
        assert text == speaches.transcriptions.usual
        (exchange,) = speaches.transcriptions.requests
        assert exchange.body["response_format"] == "verbose_json"
        assert exchange.body["language"] == "en"
        assert not speaches.refused


async def test_without_a_language_and_a_hint_none_is_told(service: OpenAiService, account: Account) -> None:
    async with recogniser(service, account, "whisper-1") as stt:
        assert (await stt.transcribe(SPEECH)).language == "en"
    (exchange,) = service.transcriptions.requests
    assert set(exchange.body) == {"model", "response_format"}


async def test_how_sure_whisper_is_comes_with_the_words(service: OpenAiService, account: Account) -> None:
    segments = [{"text": " Ever tried.", "avg_logprob": -0.25}, {"text": " Ever failed.", "avg_logprob": -0.75}]
    service.transcriptions.fault(says(text="Ever tried. Ever failed.", segments=segments))
    async with recogniser(service, account, "whisper-1") as stt:
        assert await stt.transcribe(SPEECH) == Transcript("Ever tried. Ever failed.", None, -0.5)


async def test_what_whisper_itself_takes_for_silence_is_not_believed(service: OpenAiService, account: Account) -> None:
    service.transcriptions.reply("Thanks for watching!")
    service.transcriptions.logprob, service.transcriptions.no_speech_prob = -1.3, 0.8
    assert await understood(service, account, "whisper-1") == ""


async def test_only_the_segment_that_was_made_up_is_left_out(service: OpenAiService, account: Account) -> None:
    said = {"text": " Ever tried.", "avg_logprob": -0.2, "no_speech_prob": 0.7}
    made_up = {"text": " Subscribe!", "avg_logprob": -1.4, "no_speech_prob": 0.9}
    service.transcriptions.fault(says(text="Ever tried. Subscribe!", segments=[said, made_up]))
    assert await understood(service, account, "whisper-1") == "Ever tried."


async def test_the_hint_that_comes_back_was_not_said(service: OpenAiService, account: Account) -> None:
    service.transcriptions.reply("names that come up: Ahoy, Zephyr Bay")
    assert await understood(service, account, hint="Names that come up: Ahoy, Zephyr Bay.") == ""


@pytest.mark.parametrize(
    ("answer", "language"),
    [
        ({"language": "german"}, "de"),
        ({"language": "Haitian Creole"}, "ht"),
        ({"language": "de"}, "de"),
        ({"language": "en-US"}, "en"),
        ({"languages": [{"code": "es"}, {"code": "pt"}]}, "es"),
        ({"languages": []}, "fr"),
        ({"language": "klingon"}, "fr"),
        ({"language": None, "languages": "es"}, "fr"),
        ({}, "fr"),
    ],
)
async def test_the_language_is_a_code_whatever_the_service_calls_it(
    service: OpenAiService, account: Account, answer: dict[str, Any], language: str
) -> None:
    service.transcriptions.fault(says(text="...", **answer))
    async with recogniser(service, account) as stt:
        assert (await stt.transcribe(SPEECH, language="fr")).language == language


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("  Ever tried.\n Ever\tfailed. ", "Ever tried. Ever failed."),
        ('"Ever tried."', "Ever tried."),
        ("\u201cEver tried.\u201d", "Ever tried."),
        ("\u201eImmer versucht.\u201c", "Immer versucht."),
        ('"Tried" and "failed"', '"Tried" and "failed"'),
        ('He said "no"', 'He said "no"'),
        ("'Bout time we're goin'", "'Bout time we're goin'"),
        ("\ufeffEver\u200b tried.\x00", "Ever tried."),
        ('"', '"'),
        ("", ""),
    ],
)
def test_text_is_cleaned_to_what_was_spoken(text: str, spoken: str) -> None:
    assert cleaned(text) == spoken


# --- what needs no service


@pytest.mark.parametrize(
    "audio",
    [np.zeros(0, np.int16), np.full(RATE_HZ // 20, 9000, np.int16), np.zeros(3 * RATE_HZ, np.int16)],
    ids=["nothing", "50 ms", "digital silence"],
)
async def test_where_there_can_be_no_word_nobody_is_asked(
    service: OpenAiService, account: Account, audio: np.ndarray
) -> None:
    async with recogniser(service, account) as stt:
        assert await stt.transcribe(audio, language="en") == Transcript("", "en")
    assert not service.transcriptions.requests
    assert account.used == []


async def test_a_partial_transcript_is_refused_because_each_would_be_paid_for(
    service: OpenAiService, account: Account
) -> None:
    async with recogniser(service, account) as stt:
        with pytest.raises(OverloadedError):
            await stt.transcribe(SPEECH, partial=True)
        assert stt.listen(RATE_HZ, on_partial=print) is None
    assert not service.connections


async def test_audio_of_another_type_is_refused(service: OpenAiService, account: Account) -> None:
    async with recogniser(service, account) as stt:
        with pytest.raises(AudioFormatError):
            await stt.transcribe(SPEECH.astype(np.float32))  # type: ignore[arg-type]


# --- what a service does not take


async def test_a_format_that_is_refused_is_not_asked_for_again(service: OpenAiService, account: Account) -> None:
    async with recogniser(service, account, "gpt-4o-transcribe", official=False) as stt:
        assert (await stt.transcribe(SPEECH, language="en")).text == service.transcriptions.usual
        assert (await stt.transcribe(SPEECH, language="en")).text == service.transcriptions.usual
    assert [exchange.body["response_format"] for exchange in service.refused] == ["verbose_json"]
    assert [exchange.body["response_format"] for exchange in service.transcriptions.requests] == ["json", "json"]
    assert len(account.used) == 2, "what was refused costs nothing"


async def test_a_hint_that_is_refused_is_left_out(service: OpenAiService, account: Account) -> None:
    text = await understood(service, account, "gpt-4o-transcribe-diarize", hint="Ahoy")
    assert text == service.transcriptions.usual
    assert [exchange.refusal.param for exchange in service.refused if exchange.refusal] == ["prompt"]


async def test_a_language_that_is_refused_is_left_to_be_detected_and_others_are_still_told(
    service: OpenAiService, account: Account
) -> None:
    async with recogniser(service, account, "whisper-1") as stt:
        for language in ("haw", "haw", "de"):
            assert (await stt.transcribe(SPEECH, language=language)).text == service.transcriptions.usual
    assert [heard.language for heard in service.transcriptions.received] == [None, None, "de"]
    assert len(service.refused) == 1


async def test_two_who_find_out_at_once_leave_out_no_more_than_one(service: OpenAiService, account: Account) -> None:
    async with recogniser(service, account, "gpt-4o-transcribe", official=False) as stt:
        await asyncio.gather(*(stt.transcribe(SPEECH) for _ in range(4)))
        await stt.transcribe(SPEECH)
    assert {exchange.body.get("response_format") for exchange in service.transcriptions.requests} == {"json"}
    assert len(service.transcriptions.requests) == 5


async def test_what_cannot_be_left_out_is_an_error(service: OpenAiService, account: Account) -> None:
    service.transcriptions.fault(Status(400, "invalid_value", "Audio file might be corrupted.", param="file"))
    async with recogniser(service, account) as stt:
        with pytest.raises(ServiceError) as caught:
            await stt.transcribe(SPEECH)
    assert caught.value.code == "service_refused"
    assert len(service.transcriptions.requests) == 1


# --- what it takes is put down


@pytest.mark.parametrize(
    ("model", "amounts"),
    [
        ("gpt-transcribe", {"audio_s": 2.0}),
        ("whisper-1", {"audio_s": 2.0}),
        ("gpt-4o-transcribe", {"audio_s": 1.5, "input_tokens": 15, "output_tokens": 4}),
    ],
)
async def test_the_service_s_own_numbers_are_put_down_once(
    service: OpenAiService, account: Account, model: str, amounts: dict[str, Any]
) -> None:
    await understood(service, account, model)
    assert account.used == [Usage("stt", "openai", model, **amounts)]


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"usage": None},
        {"usage": {"type": "duration", "seconds": "many"}},
        {"usage": {"type": "duration", "seconds": -1}},
        {"usage": {"type": "tokens", "input_tokens": -1, "output_tokens": -1}},
    ],
    ids=str,
)
async def test_a_service_that_does_not_say_is_measured(
    service: OpenAiService, account: Account, told: dict[str, Any]
) -> None:
    service.transcriptions.fault(says(text="Ever tried.", **told))
    assert await understood(service, account) == "Ever tried."
    assert account.used == [Usage("stt", "openai", "gpt-transcribe", audio_s=1.5, estimated=True)]


async def test_what_is_given_up_ends_at_the_service_and_is_put_down(service: OpenAiService, account: Account) -> None:
    service.transcriptions.fault(Stall())
    async with recogniser(service, account) as stt:
        asked = asyncio.create_task(stt.transcribe(SPEECH))
        await service.transcriptions.next_stalled()
        asked.cancel()
        await service.transcriptions.next_gone()
        with pytest.raises(asyncio.CancelledError):
            await asked
    given_up = Usage("stt", "openai", "gpt-transcribe", audio_s=1.5, estimated=True, given_up=True)
    assert account.used == [given_up]


# --- what goes wrong


@pytest.mark.parametrize(
    ("fault", "code", "paid"),
    [
        (unauthorized(), "key_refused", False),
        (forbidden(), "key_refused", False),
        (no_quota(), "quota_exceeded", False),
        (rate_limited(2), "rate_limited", False),
        (content_refused(), "content_filtered", False),
        (server_error(), "service_failed", False),
        (overloaded(), "service_failed", False),
        (bad_gateway(), "service_failed", True),
        (login_page(), "service_answer", True),
        (Page(b"Ever tried.", "text/plain; charset=utf-8"), "service_answer", True),
        (Page(b'{"text": "Ever', "application/json"), "service_answer", True),
        (says(error="no"), "service_answer", True),
        (says(text=None), "service_answer", True),
        (Page(b"[]", "application/json"), "service_answer", True),
        (Empty(), "service_answer", True),
        (Cut(), "service_unreachable", True),
        (Cut(after_bytes=5), "service_unreachable", True),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str | bool) else str(value),
)
async def test_what_goes_wrong_is_told_apart_and_put_down_if_it_may_be_paid(
    service: OpenAiService, account: Account, fault: Any, code: str, paid: bool
) -> None:
    service.transcriptions.fault(fault)
    async with recogniser(service, account) as stt:
        with pytest.raises(ServiceError) as caught:
            await stt.transcribe(SPEECH)
        assert caught.value.code == code
        assert KEY not in caught.value.message
        assert caught.value.refused is not paid
        assert [usage.given_up for usage in account.used] == [True] * paid
        assert (await stt.transcribe(SPEECH)).text == service.transcriptions.usual, "the next one goes well"


async def test_nobody_at_the_address_is_a_refusal(service: OpenAiService, account: Account) -> None:
    await service.kill()
    async with recogniser(service, account) as stt:
        with pytest.raises(ServiceError) as caught:
            await stt.transcribe(SPEECH)
        assert caught.value.code == "service_unreachable"
        assert caught.value.refused
        await service.revive()
        assert (await stt.transcribe(SPEECH)).text == service.transcriptions.usual
    assert len(account.used) == 1


async def test_a_certificate_that_nobody_trusts_is_explained(account: Account) -> None:
    async with OpenAiService(tls=True) as service, recogniser(service, account) as stt:
        with pytest.raises(ServiceError, match="certificate") as caught:
            await stt.transcribe(SPEECH)
        assert caught.value.refused
    assert account.used == []
