"""How a reply is made: language model → chunks → speech → playout, all streaming.

A reply is made without anyone hearing it; `session.py` decides whether and when it plays. It stops when its task is
cancelled, and it waits while enough audio is ready (`Playout.has_room`), so a long answer nobody hears costs little.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from app.audio.resample import StreamResampler
from app.conversation.chunker import SpeechChunker, speakable
from app.conversation.latency import ReplyClock
from app.conversation.options import Options, Providers
from app.conversation.playout import Playout
from app.core.errors import ProviderError
from app.llm.base import Message

CHUNKS_AHEAD = 4
"""Chunks of text that may wait for the synthesiser."""

T = TypeVar("T")


class Reply:
    """One reply and how far it has come. `on_text` is called with each new piece of text, `on_ready` once, when there
    is audio to play; `work_s` is the clock that its making is timed by."""

    def __init__(
        self,
        number: int,
        turn: int,
        *,
        rate_hz: int,
        speculative: bool = False,
        work_s: Callable[[], float],
        on_text: Callable[[str], None],
        on_ready: Callable[[], None],
    ) -> None:
        self.number = number
        self.turn = turn
        self.text = ""
        self.committed = False
        self.playing = False
        self.announced_end = False
        self.broken: Exception | None = None
        """What ended the reply early, after it had begun."""
        self.playout = Playout(rate_hz)
        self.clock = ReplyClock(speculative)
        self.task: asyncio.Task[None] | None = None
        self._work_s = work_s
        self._on_text = on_text
        self._on_ready = on_ready
        self._ready = False

    async def say(self, text: str, providers: Providers, options: Options) -> None:
        """Say fixed words. The text is there at once, whatever becomes of the audio.

        Raises ProviderError when there is no audio for it.
        """
        self._add_text(text)
        started = self._work_s()
        try:
            audio = await providers.phrases.audio(text, options.voice, timeout_s=options.provider_timeout_s)
        except TimeoutError:
            raise ProviderError(
                f"The speech synthesiser gave nothing within {options.provider_timeout_s:g} s."
            ) from None
        self.clock.tts_s = self._work_s() - started
        self.playout.begin_chunk(text)
        await self._add_phrase(audio, providers.phrases.rate_hz)
        self.playout.finish()

    async def answer(self, messages: Sequence[Message], providers: Providers, options: Options) -> None:
        """Answer `messages`. A failure after the first chunk ends the reply with the apology, and is kept in `broken`.

        Raises ProviderError when the reply came to nothing before that.
        """
        chunks: asyncio.Queue[str | None] = asyncio.Queue(CHUNKS_AHEAD)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._generate(messages, chunks, providers, options))
                group.create_task(self._speak(chunks, providers, options))
        except ExceptionGroup as failures:
            failure = _first(failures)
            if not self._ready:
                raise failure from None
            self.broken = failure
        if not self._ready:
            raise self.broken or ProviderError("The language model gave no words to say.")
        if self.broken:
            await self._apologise(providers, options)
        self.playout.finish()

    async def _generate(
        self, messages: Sequence[Message], chunks: asyncio.Queue[str | None], providers: Providers, options: Options
    ) -> None:
        chunker = SpeechChunker()
        started = self._work_s()
        pieces = providers.llm.reply(messages, max_tokens=options.reply_max_tokens)
        try:
            async for piece in _each(pieces, options.provider_timeout_s, "language model"):
                text = piece if self.text else piece.lstrip()
                self._add_text(text)
                for chunk in chunker.push(text):
                    self.clock.llm_s = self.clock.llm_s or self._work_s() - started
                    await chunks.put(chunk)
            for chunk in chunker.flush():
                self.clock.llm_s = self.clock.llm_s or self._work_s() - started
                await chunks.put(chunk)
        except Exception as failure:  # what is already there can still be said
            if not self.clock.llm_s:
                raise
            self.broken = failure
        await chunks.put(None)

    async def _speak(self, chunks: asyncio.Queue[str | None], providers: Providers, options: Options) -> None:
        while (chunk := await chunks.get()) is not None:
            self.playout.begin_chunk(chunk)
            words = speakable(chunk)
            if not words:
                continue
            started = self._work_s()
            converter = StreamConverter(providers.tts.rate_hz, self.playout.rate_hz)
            speech = providers.tts.speak(words, voice=options.voice)
            async for samples in _each(speech, options.provider_timeout_s, "speech synthesiser"):
                if not self._ready:
                    self.clock.tts_s = self._work_s() - started
                self._add_audio(await converter.push(samples))
                await self.playout.has_room.wait()
            self._add_audio(await converter.flush())

    async def _apologise(self, providers: Providers, options: Options) -> None:
        text = " " + options.apology
        self._add_text(text)
        self.playout.begin_chunk(text)
        audio = await providers.phrases.audio(options.apology, options.voice, timeout_s=options.provider_timeout_s)
        await self._add_phrase(audio, providers.phrases.rate_hz)

    async def _add_phrase(self, audio: NDArray[np.int16], rate_hz: int) -> None:
        converter = StreamConverter(rate_hz, self.playout.rate_hz)
        self._add_audio(np.concatenate((await converter.push(audio), await converter.flush())))

    def _add_text(self, text: str) -> None:
        if text:
            self.text += text
            self._on_text(text)

    def _add_audio(self, samples: NDArray[np.int16]) -> None:
        if not len(samples):
            return
        self.playout.add(samples)
        if not self._ready:
            self._ready = True
            self._on_ready()


class StreamConverter:
    """Brings speech to the transport's rate, piece by piece, in a thread: a sentence costs milliseconds."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._resampler = None if from_hz == to_hz else StreamResampler(from_hz, to_hz)

    async def push(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """What `samples` (int16 mono [n]) become; a few of them stay behind until the next call."""
        return samples if self._resampler is None else await asyncio.to_thread(self._resampler.push, samples)

    async def flush(self) -> NDArray[np.int16]:
        """What stayed behind."""
        return np.zeros(0, np.int16) if self._resampler is None else await asyncio.to_thread(self._resampler.flush)


async def _each(stream: AsyncGenerator[T, None], timeout_s: float, who: str) -> AsyncGenerator[T, None]:
    """The items of `stream`; ProviderError when the next one takes longer than `timeout_s`."""
    async with aclosing(stream):
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    item = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise ProviderError(f"The {who} gave nothing for {timeout_s:g} s.") from None
            yield item


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, ExceptionGroup) else failure
