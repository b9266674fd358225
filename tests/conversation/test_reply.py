"""How a reply is made: text to chunks to speech, streaming, waiting for room, and stopped at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import numpy as np
import pytest
from app.conversation.options import Providers, Transport
from app.conversation.phrases import Phrases
from app.conversation.playout import BACKLOG_MS
from app.conversation.reply import CHUNKS_AHEAD, Reply
from app.core.errors import ProviderError
from app.llm.base import Message
from app.tts.base import Voice
from app.tts.scripted import ScriptedVoice
from stage import OPTIONS, LoudnessDetector, ToldModel, ToldRecognizer, ToldTurnDetector, ToldVoice

pytestmark = pytest.mark.looptime
RATE_HZ = 16_000
QUESTION = [Message("user", "Tell me.")]
FAILURE = ProviderError("The provider is on strike.")


class Making:
    """A reply being made by providers that do as they are told."""

    def __init__(self, tts: ScriptedVoice | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.llm = ToldModel()
        self.tts = tts or ToldVoice(first_audio_ms=80, audio_ms=500)
        self.providers = Providers(
            LoudnessDetector(), ToldTurnDetector(), ToldRecognizer(), self.llm, self.tts, Phrases(self.tts)
        )
        self.shown: list[str] = []
        self.ready_s: list[float] = []
        self.reply = Reply(
            1,
            1,
            transport=Transport(rate_hz=RATE_HZ),
            work_s=loop.time,
            on_text=self.shown.append,
            on_ready=lambda: self.ready_s.append(loop.time()),
        )

    async def answer(self) -> None:
        await self.reply.answer(QUESTION, self.providers, OPTIONS)

    async def say(self, text: str) -> None:
        await self.reply.say(text, self.providers, OPTIONS)

    def audio(self) -> np.ndarray:
        """All audio, taken as fast as it goes."""
        pieces = []
        for now_ms in range(0, 120_000, 200):
            piece = self.reply.playout.due(now_ms)
            if piece is not None:
                pieces.append(piece)
        return np.concatenate([np.zeros(0, np.int16), *pieces])

    @property
    def heard(self) -> str:
        return self.reply.playout.heard_text(1e9)


@pytest.fixture
async def making() -> AsyncIterator[Making]:
    making = Making()
    yield making
    assert (making.llm.running, making.tts.running) == (0, 0)


async def test_text_comes_as_it_grows_and_audio_chunk_by_chunk(making: Making) -> None:
    making.llm.replies = ["First this. Then that."]
    await making.answer()
    assert "".join(making.shown) == making.reply.text == "First this. Then that."
    assert len(making.shown) == 4, "word by word"
    assert making.tts.given == ["First this.", "Then that."]
    assert len(making.audio()) == 2 * 500 * 16
    assert making.reply.playout.all_sent
    assert making.heard == "First this. Then that."


async def test_the_first_audio_is_ready_long_before_the_text_is_complete(making: Making) -> None:
    making.llm.replies = ["First this. " + "And then there is more. " * 20]
    making.llm.word_s = 0.1
    await making.answer()
    (ready_s,) = making.ready_s
    assert ready_s == pytest.approx(0.1 + 2 * 0.1 + 0.08, abs=0.01), "first token, two more words, first audio"
    assert making.reply.clock.llm_s == pytest.approx(0.3, abs=0.01)
    assert making.reply.clock.tts_s == pytest.approx(0.08, abs=0.01)


async def test_space_before_the_first_word_is_not_shown(making: Making) -> None:
    making.llm.replies = ["\n\n  Hello there."]
    await making.answer()
    assert making.reply.text == "Hello there."


async def test_what_has_no_sound_is_shown_and_not_spoken(making: Making) -> None:
    making.llm.replies = ["Hello there. \n***\n Goodbye now."]
    await making.answer()
    assert making.tts.given == ["Hello there.", "Goodbye now."]
    making.audio()
    assert making.heard == making.reply.text


@pytest.mark.parametrize("reply", ["", " ", "\n\n", "*** ---"])
async def test_a_model_that_has_nothing_to_say_has_failed(making: Making, reply: str) -> None:
    making.llm.replies = [reply]
    making.tts.silent = True
    with pytest.raises(ProviderError, match="no words"):
        await making.answer()
    assert making.ready_s == []


async def test_fixed_words_are_there_at_once_and_their_audio_later(making: Making) -> None:
    saying = asyncio.create_task(making.say("Ahoy!"))
    await asyncio.sleep(0.01)
    assert making.shown == ["Ahoy!"]
    assert making.ready_s == []
    await saying
    assert making.ready_s == [pytest.approx(0.08)]
    assert len(making.audio()) == 500 * 16
    assert making.heard == "Ahoy!"


# --- bounds


async def test_a_reply_that_nobody_hears_stops_at_some_seconds_of_audio(making: Making) -> None:
    making.llm.replies, making.llm.word_s = ["This is a sentence. " * 400], 0.001
    making_it = asyncio.create_task(making.answer())
    await asyncio.sleep(600)
    assert making.reply.playout.duration_ms <= BACKLOG_MS + 200
    spoken = len(making.tts.given)
    assert making.reply.text.count(".") <= spoken + CHUNKS_AHEAD + 2, "and the text does not run far ahead"
    making.reply.stop()
    making_it.cancel()
    await asyncio.wait({making_it})


async def test_a_reply_that_is_heard_is_made_to_its_end(making: Making) -> None:
    making.llm.replies = ["This is a sentence. " * 60]
    making_it = asyncio.create_task(making.answer())
    heard = 0
    while not making.reply.playout.all_sent:
        await asyncio.sleep(0.02)
        piece = making.reply.playout.due(asyncio.get_running_loop().time() * 1000)
        heard += 0 if piece is None else len(piece)
    await making_it
    assert heard == 60 * 500 * 16


async def test_waiting_for_the_listener_is_not_taken_for_a_provider_that_hangs(making: Making) -> None:
    making.llm.replies = ["This is a sentence. " * 60]
    making_it = asyncio.create_task(making.answer())
    await asyncio.sleep(10 * OPTIONS.provider_timeout_s)
    assert not making_it.done()
    making.audio()
    await making_it
    assert making.reply.playout.finished


# --- failures


async def test_a_model_that_fails_before_its_first_clause_gives_no_reply(making: Making) -> None:
    making.llm.failure, making.llm.fail_after_words = FAILURE, 2
    with pytest.raises(ProviderError, match="on strike"):
        await making.answer()
    assert making.ready_s == []
    assert making.heard == ""


async def test_a_model_that_fails_later_is_heard_out_and_the_failure_told(making: Making) -> None:
    making.llm.failure, making.llm.fail_after_words = FAILURE, 6
    with pytest.raises(ProviderError, match="on strike"):
        await making.answer()
    assert making.reply.playout.finished
    assert len(making.audio()) == 2 * 500 * 16
    assert making.heard == making.reply.text == "Here is one thing. And here"


@pytest.mark.parametrize(("chunks", "heard"), [(0, ""), (1, "Here is one thing. ")])
async def test_a_voice_that_fails_is_heard_until_then_and_the_failure_told(
    making: Making, chunks: int, heard: str
) -> None:
    making.tts.failure, making.tts.fail_after_chunks = FAILURE, chunks
    with pytest.raises(ProviderError, match="on strike"):
        await making.answer()
    assert len(making.ready_s) == chunks
    assert making.reply.playout.finished
    making.audio()
    assert making.heard == heard


async def test_silent_pieces_do_not_keep_a_provider_alive(making: Making) -> None:
    async def dreams(*_: object, **__: object) -> AsyncGenerator[np.ndarray, None]:
        while True:
            await asyncio.sleep(1)
            yield np.zeros(0, np.int16)

    making.tts.speak = dreams  # type: ignore[method-assign]
    with pytest.raises(ProviderError, match="speech synthesiser gave nothing for 5 s"):
        await making.answer()


# --- stopping


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.15, 0.25, 1.0, 30.0])
async def test_stopping_stops_everything_at_once(making: Making, after_s: float) -> None:
    making.llm.replies = ["This is a sentence. " * 100]
    making.reply.task = asyncio.create_task(making.answer())
    await asyncio.sleep(after_s)
    shown = len(making.shown)
    making.reply.stop()
    await asyncio.wait({making.reply.task})
    assert making.reply.task.cancelled()
    assert (making.llm.running, making.tts.running) == (0, 0)
    await asyncio.sleep(10)
    assert len(making.shown) == shown


@pytest.mark.parametrize("broken", ["llm", "tts"])
async def test_a_provider_that_takes_stopping_for_a_reason_to_go_on_is_left_behind(broken: str) -> None:
    making = Making()

    async def stubborn(*_: object, **__: object) -> AsyncGenerator[object, None]:
        while True:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                await asyncio.sleep(0.01)
            yield {"llm": "And so on. ", "tts": np.ones(1600, np.int16)}[broken]

    setattr(getattr(making, broken), {"llm": "reply", "tts": "speak"}[broken], stubborn)
    making.reply.task = asyncio.create_task(making.answer())
    await asyncio.sleep(0.5)
    making.reply.stop()
    await asyncio.wait({making.reply.task}, timeout=5)
    assert making.reply.task.done()


async def test_when_the_voice_fails_a_model_that_will_not_stop_is_left_behind() -> None:
    making = Making()

    async def stubborn(*_: object, **__: object) -> AsyncGenerator[str, None]:
        while True:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                await asyncio.sleep(0.01)
            yield "And so on. "

    making.llm.reply = stubborn  # type: ignore[method-assign]
    making.tts.failure, making.tts.fail_after_chunks = FAILURE, 2
    async with asyncio.timeout(60):
        with pytest.raises(ProviderError, match="on strike"):
            await making.answer()


# --- rates


class Voice24(ScriptedVoice):
    """A synthesiser of another rate than the line's."""

    running = 0

    @property
    def rate_hz(self) -> int:
        return 24_000

    async def speak(
        self, text: str, *, voice: str | None = None, language: str | None = None
    ) -> AsyncGenerator[np.ndarray, None]:
        tone = np.sin(2 * np.pi * 440 * np.arange(12_000) / 24_000) * 8000
        for start in range(0, 12_000, 1700):
            yield tone[start : start + 1700].astype(np.int16)

    @property
    def voices(self) -> tuple[Voice, ...]:
        return (Voice("tone", "Tone", "en"),)


@pytest.mark.looptime(False)
@pytest.mark.parametrize("fixed", [False, True])
async def test_speech_of_another_rate_is_converted_without_a_sample_lost(fixed: bool) -> None:
    making = Making(Voice24(first_audio_ms=0, audio_ms=500))
    making.llm = replace(making.llm, replies=["Just one sentence."], first_s=0.0, word_s=0.0)
    making.providers = replace(making.providers, llm=making.llm)
    await (making.say("Ahoy!") if fixed else making.answer())
    audio = making.audio()
    assert len(audio) == 8000, "half a second at 16 kHz"
    expected = np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000) * 8000
    assert np.abs(audio[200:-200] - expected[200:-200]).max() < 20
