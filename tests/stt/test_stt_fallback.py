"""Several recognisers as one, with real services: who is asked, who takes over, and what is never asked of whom."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import numpy as np
import pytest
from app.core.errors import OverloadedError, ProviderError, ServiceError
from app.inference.store import ModelStore
from app.remote.chain import Chain, Member
from app.remote.client import ServiceClient
from app.remote.health import Doubt, Health
from app.stt.base import SpeechToText, Transcript
from app.stt.embedded_whisper import WhisperRecognizer
from app.stt.fallback import FallbackRecognizer
from app.stt.realtime import LiveTranscription
from app.stt.scripted import WORDS, ScriptedRecognizer
from app.stt.whisper import UploadRecognizer
from openai_service import OpenAiService, Stall, Status, content_refused, server_error, unauthorized
from openai_service.faults import Drop

RATE_HZ = 16_000
SPEECH = np.random.default_rng(1).normal(0, 3000, RATE_HZ).astype(np.int16)
LIVE_MODEL = "gpt-live-transcribe"


class Stage:
    """OpenAI, and a server of one's own that takes over from it."""

    def __init__(self, stack: AsyncExitStack, openai: OpenAiService, own: OpenAiService) -> None:
        self.openai, self.own = openai, own
        self._stack = stack
        self.openai.transcriptions.usual, self.own.transcriptions.usual = "from OpenAI", "from my own"

    def client(self, service: OpenAiService) -> ServiceClient:
        client = ServiceClient("openai" if service is self.openai else "own", service.base_url, service.key)
        self._stack.push_async_callback(client.close)
        return client

    def uploads(self) -> list[SpeechToText]:
        own = UploadRecognizer(self.client(self.own), "whisper-small", official=False)
        return [UploadRecognizer(self.client(self.openai), "gpt-transcribe"), own]

    def live(self, patience_s: float = 5.0) -> LiveTranscription:
        return LiveTranscription(self.client(self.openai), LIVE_MODEL, patience_s=patience_s)

    def recogniser(
        self, *providers: SpeechToText, live: LiveTranscription | None = None, patience_s: float = 5.0
    ) -> FallbackRecognizer:
        self.members = [
            Member(str(number), provider, Health(f"number {number}", Doubt()), patience_s)
            for number, provider in enumerate(providers)
        ]
        recogniser = FallbackRecognizer(Chain(self.members), live)
        self._stack.push_async_callback(recogniser.close)
        return recogniser


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with OpenAiService() as openai, OpenAiService(key=None, compatible=True) as own, AsyncExitStack() as stack:
        yield Stage(stack, openai, own)


# --- whole utterances


async def test_the_first_is_asked_and_nobody_else(stage: Stage) -> None:
    stt = stage.recogniser(*stage.uploads())
    assert (await stt.transcribe(SPEECH, language="en")).text == "from OpenAI"
    assert not stage.own.connections


@pytest.mark.parametrize("fault", [server_error(), unauthorized()], ids=["server error", "key refused"])
async def test_the_next_takes_over_from_one_that_fails(stage: Stage, fault: Status) -> None:
    stage.openai.transcriptions.fault(fault, fault)
    stt = stage.recogniser(*stage.uploads())
    assert (await stt.transcribe(SPEECH, language="en")).text == "from my own"


async def test_the_next_is_asked_as_well_when_one_is_late_and_the_late_one_stops(stage: Stage) -> None:
    stage.openai.transcriptions.fault(Stall())
    stt = stage.recogniser(*stage.uploads(), patience_s=0.05)
    assert (await stt.transcribe(SPEECH)).text == "from my own"
    await stage.openai.transcriptions.next_gone()


async def test_a_service_that_is_gone_is_not_asked_by_the_next_one(stage: Stage) -> None:
    stt = stage.recogniser(*stage.uploads())
    await stage.openai.kill()
    assert [(await stt.transcribe(SPEECH)).text for _ in range(3)] == ["from my own"] * 3
    assert not stage.members[0].health.works


async def test_when_nobody_can_the_first_one_s_reason_is_told(stage: Stage) -> None:
    await stage.openai.kill()
    await stage.own.kill()
    with pytest.raises(ServiceError, match="openai cannot be reached"):
        await stage.recogniser(*stage.uploads()).transcribe(SPEECH)


async def test_what_the_rules_do_not_allow_is_not_asked_of_others(stage: Stage) -> None:
    stage.openai.transcriptions.fault(content_refused())
    with pytest.raises(ServiceError) as caught:
        await stage.recogniser(*stage.uploads()).transcribe(SPEECH)
    assert caught.value.code == "content_filtered"
    assert not stage.own.connections


# --- partial transcripts


async def test_partial_transcripts_come_from_whoever_makes_them_here(stage: Stage) -> None:
    stt = stage.recogniser(*stage.uploads(), ScriptedRecognizer(0))
    assert (await stt.transcribe(SPEECH, partial=True)).text == WORDS
    assert not stage.openai.connections
    assert not stage.own.connections


async def test_services_are_never_asked_for_partial_transcripts(stage: Stage) -> None:
    with pytest.raises(OverloadedError):
        await stage.recogniser(*stage.uploads()).transcribe(SPEECH, partial=True)
    assert not stage.openai.connections


async def test_a_partial_transcript_that_fails_says_nothing_about_anybody(stage: Stage) -> None:
    english = WhisperRecognizer(ModelStore().path("whisper-tiny.en"), None)
    stt = stage.recogniser(*stage.uploads()[:1], english)
    for _ in range(4):
        with pytest.raises(ProviderError, match="'de'"):
            await stt.transcribe(SPEECH, language="de", partial=True)
    assert [member.health.problem for member in stage.members] == ["", ""]


# --- listening along


def shown_to_nobody(_: str) -> None:
    """Partial words that are of no interest here."""


async def test_without_a_live_service_nobody_listens_along(stage: Stage) -> None:
    assert stage.recogniser(*stage.uploads()).listen(RATE_HZ, on_partial=shown_to_nobody) is None


async def test_a_live_service_listens_along(stage: Stage) -> None:
    stt = stage.recogniser(*stage.uploads(), live=stage.live())
    listener = stt.listen(RATE_HZ, language="en", on_partial=shown_to_nobody)
    assert listener is not None
    listener.begin()
    listener.hear(SPEECH)
    assert await listener.finish() == Transcript(stage.openai.realtime.usual.text, "en")
    assert not stage.openai.transcriptions.requests


async def test_a_live_service_that_does_not_work_is_left_alone(stage: Stage) -> None:
    live = stage.live()
    stt = stage.recogniser(*stage.uploads(), live=live)
    live.health.failed(ServiceError("no", code="key_refused"))
    assert stt.listen(RATE_HZ, on_partial=shown_to_nobody) is None
    assert not stage.openai.connections


async def test_what_the_live_service_loses_is_uploaded(stage: Stage) -> None:
    stage.openai.realtime.fault(Drop())
    stt = stage.recogniser(*stage.uploads(), live=stage.live())
    listener = stt.listen(RATE_HZ, on_partial=shown_to_nobody)
    assert listener is not None
    listener.begin()
    listener.hear(SPEECH)
    with pytest.raises(ProviderError):
        await listener.finish()
    assert (await stt.transcribe(SPEECH)).text == "from OpenAI"
    (heard,) = stage.openai.transcriptions.received
    assert (heard.samples == SPEECH).all()


class Stubborn(ScriptedRecognizer):
    """Cannot be closed."""

    async def close(self) -> None:
        raise OSError("no")


async def test_closing_ends_all_of_them_whatever_one_says(stage: Stage) -> None:
    closed = asyncio.Event()

    class Last(ScriptedRecognizer):
        async def close(self) -> None:
            closed.set()

    live = stage.live()
    stt = FallbackRecognizer(Chain([member_of(Last(0)), member_of(Stubborn(0))]), live)
    listener = stt.listen(RATE_HZ, on_partial=shown_to_nobody)
    with pytest.raises(OSError, match="no"):
        await stt.close()
    assert closed.is_set()
    assert listener is not None
    with pytest.raises(ProviderError, match="closed"):
        await listener.finish()


def member_of(provider: SpeechToText, now_s: Callable[[], float] = lambda: 0.0) -> Member[SpeechToText]:
    return Member("one", provider, Health("one", Doubt(now_s)), 1.0)
