"""Voices that stand in for each other: a real service over real connections, and the real voice of this machine."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from app.core.errors import BrokenOffError, OverloadedError, ProviderError, ServiceError
from app.remote.chain import Chain, Member
from app.remote.client import ServiceClient
from app.remote.health import Doubt, Health
from app.tts.base import TextToSpeech, Voice
from app.tts.embedded import EmbeddedVoices
from app.tts.fallback import FallbackVoice
from app.tts.scripted import ScriptedVoice
from app.tts.tts import SpeechService, text_to_speech
from app.usage.meter import Usage, bind
from openai_service import (
    KEY,
    Cut,
    Empty,
    OpenAiService,
    Stall,
    forbidden,
    login_page,
    overloaded,
    rate_limited,
    server_error,
    tone,
)

RATE_HZ = 24_000
MS = RATE_HZ // 1000
TEXT = "The boat was built by two brothers."
SPOKEN = tone(len(TEXT))
WAIT_S = 10.0
"""No test waits so long unless something is broken."""


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedVoices]:
    voices = EmbeddedVoices(None, None)
    yield voices
    asyncio.run(voices.close())


@pytest.fixture
async def service() -> AsyncIterator[OpenAiService]:
    async with OpenAiService() as service:
        yield service


@pytest.fixture
async def speaking(service: OpenAiService) -> AsyncIterator[SpeechService]:
    client = ServiceClient("openai", service.base_url, KEY)
    yield SpeechService(client, "gpt-4o-mini-tts", None, official=True)
    await client.close()


@pytest.fixture
async def older(service: OpenAiService) -> AsyncIterator[SpeechService]:
    """Another account with an older model, which speaks with the voice echo."""
    client = ServiceClient("other", service.base_url, KEY)
    yield SpeechService(client, "tts-1", "echo", official=True)
    await client.close()


def member(name: str, voice: TextToSpeech, patience_s: float = 5.0) -> Member[TextToSpeech]:
    return Member(name, voice, Health(name, Doubt(asyncio.get_running_loop().time)), patience_s)


def voices(*members: Member[TextToSpeech]) -> FallbackVoice:
    return FallbackVoice(Chain(members))


async def broken_off(speech: AsyncGenerator[np.ndarray, None]) -> tuple[np.ndarray, BrokenOffError]:
    """What was given before it broke off, and the error."""
    pieces: list[np.ndarray] = []

    async def listen() -> None:
        async for piece in speech:
            pieces.append(piece)

    with pytest.raises(BrokenOffError) as caught:
        await listen()
    return np.concatenate(pieces), caught.value


async def whole(speech: AsyncGenerator[np.ndarray, None]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int16), *[piece async for piece in speech]])


def is_tone(audio: np.ndarray) -> bool:
    """The service speaks with a tone of 440 Hz; people and the voice of this machine do not."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), RATE_HZ)) ** 2
    return bool(spectrum[430:451].sum() > 0.9 * spectrum.sum())


# --- who speaks


async def test_while_the_preferred_one_works_it_speaks_and_nobody_else(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    both = voices(member("openai", speaking), member("embedded", embedded))
    assert np.array_equal(await text_to_speech(TEXT, both), SPOKEN)
    assert both.rate_hz == RATE_HZ


@pytest.mark.parametrize("fault", [Cut(), Empty(), login_page(), forbidden(), rate_limited(30), Stall()])
async def test_when_it_fails_before_a_sound_another_one_speaks_and_it_is_not_asked_again(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices, fault: Any
) -> None:
    service.speech.fault(fault)
    both = voices(member("openai", speaking, patience_s=0.2), member("embedded", embedded))
    async with asyncio.timeout(WAIT_S):
        audio = await text_to_speech(TEXT, both)
    assert len(audio) > RATE_HZ
    assert not is_tone(audio)
    assert len(service.speech.requests) == 1, "it may have been processed, and may be charged"


async def test_a_service_that_certainly_did_nothing_may_be_asked_once_more(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    service.speech.fault(overloaded())
    both = voices(member("openai", speaking), member("embedded", embedded))
    assert is_tone(await text_to_speech(TEXT, both))
    assert len(service.speech.requests) == 2


async def test_whoever_was_too_late_is_stopped(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    service.speech.fault(Stall())
    both = voices(member("openai", speaking, patience_s=0.1), member("embedded", embedded))
    async with asyncio.timeout(WAIT_S):
        await text_to_speech(TEXT, both)
        await service.speech.next_gone()


async def test_one_that_is_gone_is_left_alone_for_the_next_chunks(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    await service.kill()
    first = member("openai", speaking)
    both = voices(first, member("embedded", embedded))
    assert not is_tone(await text_to_speech(TEXT, both))
    await service.revive()
    assert not first.health.works
    assert not is_tone(await text_to_speech(TEXT, both))
    assert not service.speech.requests


async def test_when_nobody_can_it_is_the_first_ones_error(
    service: OpenAiService, speaking: SpeechService, older: SpeechService
) -> None:
    service.speech.fault(forbidden(), login_page())
    both = voices(member("openai", speaking), member("other", older))
    with pytest.raises(ServiceError) as caught:
        await text_to_speech(TEXT, both)
    assert caught.value.code == "key_refused"


@pytest.mark.parametrize("text", ["", "...", "🎉"])
async def test_text_without_a_sound_is_no_failure_and_nobody_is_asked(
    service: OpenAiService, speaking: SpeechService, text: str
) -> None:
    only = member("openai", speaking)
    assert not len(await text_to_speech(text, voices(only)))
    assert only.health.works
    assert not service.connections
    only.health.failed(ServiceError("No key.", code="key_refused"))
    await text_to_speech(text, voices(only))
    assert not only.health.works, "nor does it show that somebody works again"


# --- in the middle


@pytest.mark.parametrize("fault", [Cut(after=4, reset=False), Stall(after=4)])
async def test_what_breaks_off_in_the_middle_is_spoken_anew_by_another_one(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices, fault: Any
) -> None:
    service.speech.fault(fault)
    both = voices(member("openai", speaking, patience_s=0.2), member("embedded", embedded))
    async with asyncio.timeout(WAIT_S):
        given, broken = await broken_off(both.speak(TEXT))
        assert np.array_equal(given, SPOKEN[: 400 * MS])
        assert "openai" in broken.message
        assert "brothers" not in broken.message
        again = await whole(broken.go_on(TEXT))
    alone = await text_to_speech(TEXT, embedded)
    assert not is_tone(again)
    assert abs(len(again) - len(alone)) < RATE_HZ / 2, "all of it, not the rest"
    assert len(service.speech.requests) == 1


async def test_a_whole_text_is_in_one_voice_whatever_breaks_off(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    service.speech.fault(Cut(after=4, reset=False))
    both = voices(member("openai", speaking), member("embedded", embedded))
    audio = await text_to_speech(TEXT, both)
    assert not is_tone(audio[: 400 * MS])


async def test_a_stall_reaches_the_service_as_the_end_of_the_connection(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    service.speech.fault(Stall(after=2))
    both = voices(member("openai", speaking, patience_s=0.1), member("embedded", embedded))
    async with asyncio.timeout(WAIT_S):
        await broken_off(both.speak(TEXT))
        await service.speech.next_gone()


async def test_the_next_chunk_goes_to_the_preferred_one_again_if_that_has_recovered(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    service.speech.fault(Cut(after=4, reset=False))
    both = voices(member("openai", speaking), member("embedded", embedded))
    await broken_off(both.speak(TEXT))
    assert is_tone(await text_to_speech(TEXT, both))


async def test_with_nobody_left_it_is_the_error_itself(service: OpenAiService, speaking: SpeechService) -> None:
    service.speech.fault(Cut(after=4, reset=False))
    with pytest.raises(ServiceError) as caught:
        await text_to_speech(TEXT, voices(member("openai", speaking)))
    assert caught.value.code == "service_unreachable"


async def test_when_the_others_cannot_either_the_error_tells_what_broke_off(
    service: OpenAiService, speaking: SpeechService, older: SpeechService
) -> None:
    service.speech.fault(Cut(after=4, reset=False), server_error(), server_error())
    both = voices(member("openai", speaking), member("other", older))
    _, broken = await broken_off(both.speak(TEXT))
    with pytest.raises(ServiceError) as caught:
        await whole(broken.go_on(TEXT))
    assert caught.value.code == "service_unreachable", "and not what became of the other one"


async def test_an_accent_is_better_than_silence(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    both = voices(member("openai", speaking), member("embedded", embedded))
    await service.kill()
    assert not is_tone(await text_to_speech("Guten Morgen.", both, language="de"))


async def test_both_that_were_asked_are_paid_for_once(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    usages: list[Usage] = []

    class Account:
        def add(self, usage: Usage, turn: int) -> None:
            usages.append(usage)

    bind(Account(), lambda: 1)
    service.speech.fault(Stall(), Stall(after=2))
    both = voices(member("openai", speaking, patience_s=0.1), member("embedded", embedded))
    async with asyncio.timeout(WAIT_S):
        await text_to_speech(TEXT, both)
        await text_to_speech(TEXT, both)
        await text_to_speech(TEXT, both)
    assert [(usage.given_up, usage.estimated, usage.characters) for usage in usages] == [
        (True, True, len(TEXT)),
        (True, True, len(TEXT)),
        (False, False, len(TEXT)),
    ]


async def test_closing_reaches_the_service(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    service.speech.fault(Stall(after=2))
    both = voices(member("openai", speaking), member("embedded", embedded))
    async with asyncio.timeout(WAIT_S):
        async with aclosing(both.speak(TEXT)) as speech:
            await anext(speech)
            await service.speech.next_stalled()
        await service.speech.next_gone()


@pytest.mark.parametrize("after", [None, 2])
async def test_cancelling_reaches_the_service(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices, after: int | None
) -> None:
    service.speech.fault(Stall(after=after))
    first = member("openai", speaking)
    task = asyncio.create_task(text_to_speech(TEXT, voices(first, member("embedded", embedded))))
    async with asyncio.timeout(WAIT_S):
        await service.speech.next_stalled()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await service.speech.next_gone()
    assert task.cancelled()
    assert first.health.works, "which says nothing about it"


# --- languages and voices


async def test_who_does_not_speak_the_language_is_passed_over_and_remains_well(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    first = member("embedded", embedded)
    both = voices(first, member("openai", speaking))
    assert is_tone(await text_to_speech("Guten Morgen.", both, language="de"))
    assert service.speech.requests[0].body["instructions"] == "Speak German."
    assert first.health.works
    assert not first.health.problem
    assert not is_tone(await text_to_speech(TEXT, both, language="en"))


async def test_when_nobody_speaks_the_language_the_voice_does_what_it_can(embedded: EmbeddedVoices) -> None:
    only = member("embedded", embedded)
    assert len(await text_to_speech("Guten Morgen.", voices(only), language="de"))
    assert only.health.works


async def test_all_voices_can_be_chosen_and_none_is_listed_twice(
    speaking: SpeechService, older: SpeechService, embedded: EmbeddedVoices
) -> None:
    three = voices(member("openai", speaking), member("other", older), member("embedded", embedded))
    ids = [voice.id for voice in three.voices]
    assert ids[0] == "coral"
    assert ids[-1] == "heart"
    assert len(ids) == len(set(ids)) == 14


async def test_a_voice_that_only_one_has_is_spoken_by_that_one(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    both = voices(member("openai", speaking), member("embedded", embedded))
    assert not is_tone(await text_to_speech(TEXT, both, voice="heart"))
    assert not service.speech.requests
    for voice in ("sage", "nobody"):
        assert is_tone(await text_to_speech(TEXT, both, voice=voice))
    assert [request.body["voice"] for request in service.speech.requests] == ["sage", "coral"]


async def test_when_the_one_with_the_voice_fails_another_one_speaks_in_its_own(
    service: OpenAiService, speaking: SpeechService, embedded: EmbeddedVoices
) -> None:
    service.speech.fault(forbidden())
    both = voices(member("embedded", embedded), member("openai", speaking))
    assert not is_tone(await text_to_speech(TEXT, both, voice="sage"))
    assert service.speech.requests[0].body["voice"] == "sage"


async def test_a_voice_that_several_have_is_spoken_by_the_preferred_one(
    service: OpenAiService, speaking: SpeechService, older: SpeechService
) -> None:
    await text_to_speech(TEXT, voices(member("openai", speaking), member("other", older)), voice="echo")
    assert [request.body["model"] for request in service.speech.requests] == ["gpt-4o-mini-tts"]


async def test_one_with_another_rate_speaks_as_long_and_as_high(
    service: OpenAiService, speaking: SpeechService
) -> None:
    await service.kill()
    scripted = ScriptedVoice(first_audio_ms=0, audio_ms=1500)
    both = voices(member("openai", speaking), member("scripted", scripted))
    audio = await text_to_speech(TEXT, both)
    assert len(audio) == 1500 * MS
    assert is_tone(audio)
    pieces = [piece async for piece in both.speak(TEXT)]
    assert len(pieces) > 5, "and is not held back until its end"


# --- voices that do as they are told, in virtual time


class ToldVoice:
    """Gives pieces of so many ms, each after so many s; then raises `error` if there is one."""

    rate_hz = RATE_HZ

    def __init__(
        self, *script: tuple[float, int], error: BaseException | None = None, close: Callable[[], None] = lambda: None
    ) -> None:
        self.script = script
        self.error = error
        self.stopped = 0
        self._close = close

    @property
    def voices(self) -> Sequence[Voice]:
        return (Voice("told", "Told", "en"),)

    async def speak(
        self, text: str, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[np.ndarray, None]:
        try:
            for wait_s, length_ms in self.script:
                await asyncio.sleep(wait_s)
                yield np.full(length_ms * MS, 1000, np.int16)
            if self.error:
                raise self.error
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped += 1
            raise

    async def close(self) -> None:
        self._close()


@pytest.mark.looptime
async def test_a_voice_may_pause_while_there_is_something_to_hear(looptime: float) -> None:
    slow = ToldVoice((0.5, 3000), (3.9, 1000), (1.9, 500))
    audio = await text_to_speech(TEXT, voices(member("slow", slow, 1.0), member("other", ToldVoice((0, 100)), 1.0)))
    assert len(audio) == 4500 * MS
    assert looptime == pytest.approx(6.3)


@pytest.mark.looptime
async def test_a_voice_has_stalled_when_it_is_silent_for_its_patience(looptime: float) -> None:
    slow = ToldVoice((0.5, 3000), (4.1, 1000))
    chain = voices(member("slow", slow, 1.0), member("other", ToldVoice((0, 100)), 1.0))
    given, broken = await broken_off(chain.speak(TEXT))
    assert len(given) == 3000 * MS
    assert looptime == pytest.approx(4.5)
    assert slow.stopped == 1
    assert len(await whole(broken.go_on(TEXT))) == 100 * MS


@pytest.mark.looptime
async def test_a_listener_that_takes_its_time_is_not_the_voices_fault() -> None:
    voice = ToldVoice((0, 100), (0, 100), (0, 100))
    given = 0
    async for piece in voices(member("one", voice, 0.5), member("other", ToldVoice((0, 10)), 0.5)).speak(TEXT):
        given += len(piece)
        await asyncio.sleep(60)
    assert given == 300 * MS


@pytest.mark.looptime
async def test_it_goes_on_to_the_last_of_them_and_then_gives_the_first_error() -> None:
    errors = [ProviderError("One broke."), OverloadedError("Two is busy."), ProviderError("Three broke.")]
    chain = voices(*(member(f"{number}", ToldVoice((0.1, 100), error=error)) for number, error in enumerate(errors)))
    _, broken = await broken_off(chain.speak(TEXT))
    _, broken = await broken_off(broken.go_on(TEXT))
    with pytest.raises(ProviderError, match=r"^One broke\.$"):
        await whole(broken.go_on(TEXT))


@pytest.mark.looptime
async def test_a_defect_in_one_is_logged_and_another_one_speaks(caplog: pytest.LogCaptureFixture) -> None:
    first = member("defective", ToldVoice((0.1, 100), error=RuntimeError("a defect")))
    chain = voices(first, member("other", ToldVoice((0, 200))))
    with caplog.at_level(logging.ERROR):
        assert len(await text_to_speech(TEXT, chain)) == 200 * MS
    assert "a defect" in caplog.text
    assert first.health.problem


async def test_connections_are_opened_to_those_who_would_be_asked(
    service: OpenAiService, speaking: SpeechService
) -> None:
    opened: list[str] = []

    class Connected(ToldVoice):
        def __init__(self, name: str) -> None:
            super().__init__((0, 100))
            self.name = name

        def open_ahead(self) -> None:
            opened.append(self.name)

    gone = member("gone", Connected("gone"))
    gone.health.failed(ServiceError("No key.", code="key_refused"))
    voices(gone, member("unconnected", ToldVoice()), member("well", Connected("well"))).open_ahead()
    assert opened == ["well"]
    voices(member("openai", speaking)).open_ahead()
    async with asyncio.timeout(WAIT_S):
        await service.model_list.next_request()


async def test_closing_closes_all_of_them() -> None:
    closed: list[str] = []
    names = ("one", "two", "three")
    await voices(*(member(name, ToldVoice(close=lambda name=name: closed.append(name))) for name in names)).close()
    assert closed == [*names]
