"""Live recognition against a strict service: the words of what was said, once the speaker pauses or even before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from app.audio.g711 import decode_mulaw, encode_mulaw
from app.audio.resample import resample
from app.audio.wav import read_audio
from app.core.errors import ProviderError, ServiceError
from app.inference.store import ModelStore
from app.remote.client import ServiceClient
from app.stt import realtime
from app.stt.base import Transcript
from app.stt.realtime import LiveTranscription
from app.usage.meter import Usage, bind
from openai_service import OpenAiService

MODEL = "gpt-live-transcribe"
LIVE_HZ = 24_000


def recording(rate_hz: int, begin_s: float = 0, end_s: float = 3) -> np.ndarray:
    whole = read_audio(ModelStore().path("test-speech") / "beckett.wav", rate_hz)
    return whole[round(begin_s * rate_hz) : round(end_s * rate_hz)]


class Account:
    """Keeps what was put down, and for which turn."""

    def __init__(self) -> None:
        self.used: list[Usage] = []
        self.turns: list[int] = []

    def add(self, usage: Usage, turn: int) -> None:
        self.used.append(usage)
        self.turns.append(turn)


class Stage:
    """A conversation that is listened to."""

    def __init__(self, live: LiveTranscription, rate_hz: int, language: str | None) -> None:
        self.rate_hz = rate_hz
        self.shown: asyncio.Queue[str] = asyncio.Queue(1000)
        self.account = Account()
        bind(self.account, lambda: 1)
        self.listener = live.open(rate_hz, language=language, on_partial=self.shown.put_nowait)

    def say(self, samples: np.ndarray) -> None:
        """In frames of 20 ms, as transports bring them."""
        frame = self.rate_hz // 50
        for at in range(0, len(samples), frame):
            self.listener.hear(samples[at : at + frame])

    async def utterance(self, samples: np.ndarray) -> Transcript:
        self.listener.begin()
        self.say(samples)
        return await self.listener.finish()


@pytest.fixture
async def service() -> AsyncIterator[OpenAiService]:
    async with OpenAiService() as running:
        yield running


@asynccontextmanager
async def staged(
    service: OpenAiService, rate_hz: int = 16_000, *, language: str | None = "en", model: str = MODEL, **options: Any
) -> AsyncIterator[Stage]:
    client = ServiceClient("openai", service.base_url, service.key)
    live = LiveTranscription(client, model, **{"patience_s": 5.0} | options)
    stage = Stage(live, rate_hz, language)
    try:
        yield stage
    finally:
        await live.close()
        await client.close()


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two recordings of the same length."""
    return float(np.corrcoef(one.astype(float), other.astype(float))[0, 1])


# --- the words


async def test_what_was_said_comes_back_as_words(service: OpenAiService) -> None:
    service.realtime.reply("Ever tried. Ever failed.")
    async with staged(service) as stage:
        assert await stage.utterance(recording(16_000)) == Transcript("Ever tried. Ever failed.", "en")
    assert not service.refused


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
async def test_the_service_hears_all_of_it_at_its_own_rate(service: OpenAiService, rate_hz: int) -> None:
    speech = recording(rate_hz)
    async with staged(service, rate_hz) as stage:
        await stage.utterance(speech)
    (heard,) = service.realtime.received
    assert len(heard.samples) == len(speech) * LIVE_HZ // rate_hz
    assert likeness(heard.samples, resample(speech, rate_hz, LIVE_HZ)) > 0.999


async def test_the_telephone_s_audio_arrives_as_the_telephone_has_it(service: OpenAiService) -> None:
    speech = decode_mulaw(encode_mulaw(recording(8000)))
    async with staged(service, 8000) as stage:
        await stage.utterance(speech)
    (heard,) = service.realtime.received
    assert heard.format == "audio/pcmu"
    assert (decode_mulaw(heard.audio) == speech).all()


async def test_a_session_is_asked_for_what_the_documentation_says(service: OpenAiService) -> None:
    async with staged(service, hint=" Names: Ahoy. ") as stage:
        await stage.utterance(recording(16_000))
    (session,) = service.realtime.sessions
    asked = session.configuration["audio"]["input"]
    assert asked["transcription"] == {"model": MODEL, "prompt": "Names: Ahoy.", "languages": ["en"]}
    assert asked["turn_detection"] is None
    assert service.realtime.requests[0].query == {"intent": "transcription"}
    assert not service.refused


async def test_the_session_is_open_before_anybody_speaks(service: OpenAiService) -> None:
    async with staged(service):
        await service.realtime.next_request()


async def test_an_utterance_with_pauses_is_one_text_and_no_sample_is_lost(service: OpenAiService) -> None:
    for text in ("Ever tried.", "Ever failed.", "No matter."):
        service.realtime.reply(text)
    speech = recording(16_000, 0, 4.5)
    async with staged(service) as stage:
        stage.listener.begin()
        texts = []
        for part in np.split(speech, [24_000, 48_000]):
            stage.say(part)
            texts.append((await stage.listener.finish()).text)
    assert texts == ["Ever tried.", "Ever tried. Ever failed.", "Ever tried. Ever failed. No matter."]
    heard = np.concatenate([item.samples for item in service.realtime.received])
    assert likeness(heard, resample(speech, 16_000, LIVE_HZ)) > 0.999


async def test_words_that_come_in_another_order_are_put_into_that_of_the_speech(service: OpenAiService) -> None:
    service.realtime.reply("first", delay_s=0.2)
    service.realtime.reply("second", delay_s=0.0)
    async with staged(service) as stage:
        stage.listener.begin()
        stage.say(recording(16_000, 0, 1))
        taken_back = asyncio.create_task(stage.listener.finish())
        await service.realtime.next_heard()
        taken_back.cancel()
        stage.say(recording(16_000, 1, 2))
        assert (await stage.listener.finish()).text == "first second"


async def test_whoever_asks_twice_gets_the_same_words_and_they_are_transcribed_once(service: OpenAiService) -> None:
    async with staged(service) as stage:
        stage.listener.begin()
        stage.say(recording(16_000))
        one, other = await asyncio.gather(stage.listener.finish(), stage.listener.finish())
    assert one == other
    assert len(service.realtime.received) == 1


async def test_less_than_a_tenth_of_a_second_waits_for_more(service: OpenAiService) -> None:
    speech = recording(16_000, 0, 1)
    async with staged(service) as stage:
        stage.listener.begin()
        stage.say(speech[:1500])
        assert (await stage.listener.finish()).text == ""
        stage.say(speech[1500:])
        assert (await stage.listener.finish()).text == service.realtime.usual.text
        stage.say(speech[:1500])
        assert (await stage.listener.finish()).text == service.realtime.usual.text
    (heard,) = service.realtime.received
    assert likeness(heard.samples, resample(speech, 16_000, LIVE_HZ)) > 0.999
    assert not service.refused


async def test_the_hint_that_comes_back_was_not_said(service: OpenAiService) -> None:
    service.realtime.reply("names: ahoy")
    async with staged(service, hint="Names: Ahoy.") as stage:
        assert (await stage.utterance(recording(16_000))).text == ""


# --- words while they are spoken


async def test_words_are_shown_before_the_speaker_pauses(service: OpenAiService) -> None:
    service.realtime.reply("Ever tried. Ever failed.", tokens=["Ever", " tried", ".", " Ever", " failed", "."])
    async with staged(service) as stage:
        stage.listener.begin()
        stage.say(recording(16_000, 0, 0.7))
        assert await stage.shown.get() in {"Ever", "Ever tried", "Ever tried."}
        stage.say(recording(16_000, 0.7, 3))
        assert (await stage.listener.finish()).text == "Ever tried. Ever failed."
        stage.say(recording(16_000, 3, 4))
        shown = ""
        while len(shown) <= len("Ever tried. Ever failed."):
            shown = await stage.shown.get()
        assert shown.startswith(f"Ever tried. Ever failed. {service.realtime.usual.deltas()[0]}")


async def test_words_are_shown_a_few_times_a_second_only(service: OpenAiService) -> None:
    service.realtime.delta_ms = 20
    service.realtime.reply("word " * 400)
    times = []
    async with staged(service) as stage:
        stage.listener.begin()
        for at_s in range(5):
            stage.say(recording(16_000, at_s, at_s + 1))
            await stage.shown.get()
            times.append(asyncio.get_running_loop().time())
    assert min(np.diff(times)) > 0.09


async def test_no_words_are_shown_after_the_last_ones(service: OpenAiService) -> None:
    service.realtime.delta_ms = 20
    async with staged(service) as stage:
        await stage.utterance(recording(16_000))
        while not stage.shown.empty():
            stage.shown.get_nowait()
        stage.listener.begin()
        service.realtime.reply("second")
        assert (await stage.utterance(recording(16_000))).text == "second"
        assert {stage.shown.get_nowait() for _ in range(stage.shown.qsize())} <= {"second"}


# --- what is forgotten


async def test_what_was_heard_and_not_finished_is_forgotten(service: OpenAiService) -> None:
    speech = recording(16_000, 1.5, 3)
    async with staged(service) as stage:
        stage.listener.begin()
        stage.say(recording(16_000, 0, 1))
        await stage.shown.get()  # it has arrived
        assert (await stage.utterance(speech)).text == service.realtime.usual.text
    (heard,) = service.realtime.received
    assert likeness(heard.samples, resample(speech, 16_000, LIVE_HZ)) > 0.999
    forgotten, finished = stage.account.used
    assert (forgotten.given_up, forgotten.estimated) == (True, True), "who listens is paid for it"
    assert forgotten.audio_s == pytest.approx(1.0, abs=0.05)
    assert finished.audio_s == 1.5
    assert not service.refused


async def test_what_was_not_sent_yet_is_never_sent(service: OpenAiService) -> None:
    async with staged(service) as stage:
        stage.listener.begin()
        stage.say(recording(16_000, 0, 1))
        await stage.utterance(recording(16_000, 1.5, 3))
        (session,) = service.realtime.sessions
        assert "input_audio_buffer.clear" not in [event["type"] for event in session.events]
    (heard,) = service.realtime.received
    assert len(heard.samples) == 1.5 * LIVE_HZ


async def test_words_of_a_forgotten_utterance_come_too_late_and_are_paid_for(service: OpenAiService) -> None:
    service.realtime.reply("old", delay_s=0.1)
    service.realtime.reply("new", delay_s=0.3)
    async with staged(service) as stage:
        forgotten = asyncio.create_task(stage.utterance(recording(16_000, 0, 1)))
        await service.realtime.next_heard()
        stage.listener.begin()
        with pytest.raises(ProviderError):
            await forgotten
        assert (await stage.utterance(recording(16_000, 1.5, 3))).text == "new"
    assert [usage.audio_s for usage in stage.account.used] == [1.0, 1.5]


# --- what it takes


async def test_each_pause_is_put_down_for_the_turn_that_asked(service: OpenAiService) -> None:
    async def of_turn(stage: Stage, turn: int) -> None:
        bind(stage.account, lambda: turn)
        await stage.listener.finish()

    async with staged(service) as stage:
        for turn, end_s in ((1, 1), (2, 2.5)):
            stage.say(recording(16_000, 0, end_s))
            await asyncio.create_task(of_turn(stage, turn))
    expected = [Usage("stt", "openai", MODEL, audio_s=seconds) for seconds in (1.0, 2.5)]
    assert stage.account.used == expected
    assert stage.account.turns == [1, 2]


async def test_a_model_that_is_paid_by_the_token_says_how_many(service: OpenAiService) -> None:
    service.realtime.reply("Ever tried.")
    async with staged(service, model="gpt-4o-mini-transcribe") as stage:
        await stage.utterance(recording(16_000, 0, 1.5))
    (used,) = stage.account.used
    assert (used.input_tokens, used.output_tokens, used.estimated) == (15, 2, False)
    assert not service.refused


async def test_words_that_nobody_waits_for_any_more_are_put_down_as_given_up(service: OpenAiService) -> None:
    service.realtime.delay_s = 60.0
    async with staged(service) as stage:
        asked = asyncio.create_task(stage.utterance(recording(16_000, 0, 1)))
        await service.realtime.next_heard()
        asked.cancel()
    assert stage.account.used == [Usage("stt", "openai", MODEL, audio_s=1.0, estimated=True, given_up=True)]


# --- sessions


async def test_a_session_is_renewed_before_the_service_ends_it(
    service: OpenAiService, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = recording(16_000)
    async with staged(service) as stage:
        await stage.utterance(speech)
        monkeypatch.setattr(realtime, "RENEW_S", 0.0)
        service.realtime.reply("Afterwards.")
        assert (await stage.utterance(speech)).text == "Afterwards."
    assert len(service.realtime.sessions) == 2
    assert len(service.realtime.received[1].samples) == len(speech) * 3 // 2


@pytest.mark.parametrize(
    ("model", "language", "refused"),
    [("gpt-realtime-whisper", "en", "transcription.prompt"), (MODEL, "haw", "transcription.languages[0]")],
)
async def test_what_a_session_does_not_take_is_left_out(
    service: OpenAiService, model: str, language: str, refused: str
) -> None:
    async with staged(service, model=model, language=language, hint="Ahoy") as stage:
        assert (await stage.utterance(recording(16_000))).text == service.realtime.usual.text
    assert [one.refusal.param for one in service.refused if one.refusal] == [f"session.audio.input.{refused}"]


def test_a_service_that_knows_no_mu_law_is_sent_pcm(service: OpenAiService) -> None:
    live = LiveTranscription(ServiceClient("openai", service.base_url), MODEL)
    error = ServiceError("no", code="service_refused", parameter="session.audio.input.format.type")
    assert '"audio/pcmu"' in live.session_update(8000, None)[0]
    assert live.adapt(error, None)
    assert '"audio/pcm","rate":24000' in live.session_update(8000, None)[0]
    assert not live.adapt(error, None), "there is nothing else to try"


async def test_many_conversations_are_kept_apart(service: OpenAiService) -> None:
    client = ServiceClient("openai", service.base_url, service.key)
    live = LiveTranscription(client, MODEL, patience_s=20.0)
    speech = recording(8000)
    listeners = [live.open(8000, language="en", on_partial=lambda _: None) for _ in range(8)]
    for seconds, listener in enumerate(listeners):
        listener.hear(speech[: 1000 * (seconds + 1)])
    await asyncio.gather(*(listener.finish() for listener in listeners))
    assert sorted(len(heard.audio) for heard in service.realtime.received) == [1000 * (n + 1) for n in range(8)]
    await live.close()
    await client.close()
