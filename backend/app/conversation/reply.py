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

from app.audio.converter import StreamConverter
from app.conversation.brevity import Brevity
from app.conversation.chunker import SpeechChunker
from app.conversation.latency import ReplyClock
from app.conversation.options import Options, Providers, Transport
from app.conversation.patience import FIRST_AUDIO, FIRST_TOKEN, NO_DEADLINE, Deadline, within
from app.conversation.playout import Playout
from app.conversation.spoken import SpokenText
from app.core.errors import BrokenOffError, ProviderError
from app.llm.base import Message

CHUNKS_AHEAD = 4
"""Chunks of text that may wait for the synthesiser."""

T = TypeVar("T", str, NDArray[np.int16])


class Reply:
    """One reply and how far it has come.

    `on_text` is called with each new piece of text, `on_rewritten` when its text became shorter, `on_ready` once, when
    there is audio to play, `on_wish` with the reason when the model wants to end the conversation with it; `work_s` is
    the clock that its making is timed by.
    """

    def __init__(
        self,
        number: int,
        turn: int,
        *,
        transport: Transport,
        speculative: bool = False,
        work_s: Callable[[], float],
        on_text: Callable[[str], None],
        on_rewritten: Callable[[], None] = lambda: None,
        on_wish: Callable[[str], None] = lambda _: None,
        on_ready: Callable[[], None],
    ) -> None:
        self.number = number
        self.turn = turn
        self.text = ""
        self.committed = False
        self.playing = False
        self.held = False
        self.announced_end = False
        self.reached_ms = 0.0
        """The last end of a sentence that was told."""
        self.playout = Playout(transport.rate_hz, frame_ms=transport.frame_ms, report_lag_ms=transport.report_lag_ms)
        self.clock = ReplyClock(speculative)
        self.task: asyncio.Task[None] | None = None
        self._work_s = work_s
        self._on_text = on_text
        self._on_rewritten = on_rewritten
        self._on_wish = on_wish
        self._on_ready = on_ready
        self._ready = self._stopped = False
        self._wished = ""

    def stop(self) -> None:
        """Make no more of it."""
        self._stopped = True
        if self.task:
            self.task.cancel()

    async def say(self, text: str, providers: Providers, options: Options) -> None:
        """Say fixed words. The text is there at once, whatever becomes of the audio.

        Raises ProviderError when there is no audio for it.
        """
        self._add_text(text)
        started = self._work_s()
        phrase = await providers.phrases.audio(text, options.voice, timeout_s=options.provider_timeout_s)
        self.clock.tts_s = self._work_s() - started
        for chunk, audio in phrase:
            converter = StreamConverter(providers.phrases.rate_hz, self.playout.rate_hz)
            self.playout.begin_chunk(chunk)
            self._add_audio(np.concatenate((await converter.push(audio), converter.flush())))
            self.playout.end_chunk()
        self.playout.finish()

    async def answer(
        self,
        messages: Sequence[Message],
        providers: Providers,
        options: Options,
        *,
        language: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> None:
        """Answer `messages`, in `language` (ISO 639-1) if it is known; `deadline` is when it should be heard.

        Raises ProviderError when the reply came to nothing, or broke off; what was ready by then can still be played.
        """
        chunks: asyncio.Queue[str | None] = asyncio.Queue(CHUNKS_AHEAD)
        failure: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                generating = group.create_task(self._generate(messages, chunks, providers, options, deadline))
                group.create_task(self._speak(chunks, providers, options, language, deadline))
            failure = generating.result()
        except ExceptionGroup as failures:
            failure = _first(failures)
        if not failure and not self._ready and (farewell := options.rules.words_for(self._wished)):
            await self.say(farewell, providers, options)
        self.playout.finish()
        if failure or not self._ready:
            raise failure or ProviderError("The language model gave no words to say.")

    async def _generate(
        self,
        messages: Sequence[Message],
        chunks: asyncio.Queue[str | None],
        providers: Providers,
        options: Options,
        deadline: Deadline,
    ) -> Exception | None:
        """Returns what ended the text early, if anything did: what was there before can still be said."""
        started = self._work_s()
        failure: Exception | None = None
        said = ""
        limit = options.reply_max_characters
        brevity = Brevity(limit, self._wish if options.obeys_marks else lambda _: None) if limit else None

        async def give(pieces: list[str]) -> None:
            nonlocal said
            for piece in pieces:
                if brevity:
                    self._add_text(piece)
                if not said:
                    self.clock.llm_s = self._work_s() - started
                said += piece
                await chunks.put(piece)

        async def shorten(pieces: list[str]) -> None:
            for piece in pieces:
                await give(brevity.pass_on(piece) if brevity else [piece])

        words = providers.llm.reply(messages, max_tokens=options.reply_max_tokens)
        first_s = min(options.provider_timeout_s, deadline.left_s(FIRST_TOKEN))
        while True:
            chunker, begun = SpeechChunker(), False
            try:
                async with aclosing(_each(words, first_s, options.provider_timeout_s, "language model")) as stream:
                    async for piece in stream:
                        if self._stopped:  # a provider may have taken our cancellation for an end of its own
                            return None
                        text = piece if begun else piece.lstrip()
                        begun = begun or bool(text)
                        if not brevity:
                            self._add_text(text)
                        await shorten(chunker.push(text))
                        if brevity and brevity.full:
                            break
                break
            except BrokenOffError as error:  # somebody else goes on where a sentence ended
                if self._stopped:
                    raise
                if not brevity:
                    self._take_text_back(said)
                words = error.go_on(said)
            except Exception as error:
                if self._stopped or not said:
                    raise
                failure = error
                break
        await shorten(chunker.flush())
        if brevity:
            await give(brevity.rest())
        await chunks.put(None)
        return failure

    def _wish(self, reason: str) -> None:
        self._wished = reason
        self._on_wish(reason)

    async def _speak(
        self,
        chunks: asyncio.Queue[str | None],
        providers: Providers,
        options: Options,
        language: str | None,
        deadline: Deadline,
    ) -> None:
        spoken = SpokenText(language)
        try:
            while (chunk := await chunks.get()) is not None and not self._stopped:
                self.playout.begin_chunk(chunk)
                if words := spoken.say(chunk):
                    speech = providers.tts.speak(words, voice=options.voice, language=language)
                    await self._speak_chunk(chunk, words, speech, providers.tts.rate_hz, options, deadline)
                self.playout.end_chunk()
        finally:
            self._stopped = True

    async def _speak_chunk(
        self,
        chunk: str,
        words: str,
        speech: AsyncGenerator[NDArray[np.int16], None],
        rate_hz: int,
        options: Options,
        deadline: Deadline,
    ) -> None:
        started = self._work_s()
        timeout_s = options.provider_timeout_s
        first_s = timeout_s if self._ready else min(timeout_s, deadline.left_s(FIRST_AUDIO))
        while True:
            converter = StreamConverter(rate_hz, self.playout.rate_hz)
            try:
                async with aclosing(_each(speech, first_s, timeout_s, "speech synthesiser")) as stream:
                    async for samples in stream:
                        if self._stopped:
                            return
                        if not self._ready:
                            self.clock.tts_s = self._work_s() - started
                        self._add_audio(await converter.push(samples))
                        await self.playout.has_room.wait()
                break
            except BrokenOffError as error:  # somebody else says it again
                if self._stopped:
                    raise
                self.playout.take_back()
                self.playout.begin_chunk(chunk)
                speech = error.go_on(words)
        self._add_audio(converter.flush())

    def _take_text_back(self, said: str) -> None:
        """What was not given to the voice will not be said: what comes instead follows `said`."""
        if self.text != said:
            self.text = said
            self._on_rewritten()

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


async def _each(stream: AsyncGenerator[T, None], first_s: float, timeout_s: float, who: str) -> AsyncGenerator[T, None]:
    """The items of `stream` that hold anything; ProviderError when the first one takes longer than `first_s`, or a
    later one longer than `timeout_s`."""
    async with aclosing(stream):
        while (item := await within(first_s, who, _next(stream))) is not None:
            yield item
            first_s = timeout_s


async def _next(stream: AsyncGenerator[T, None]) -> T | None:
    async for item in stream:
        if len(item):
            return item
    return None


def _first(failures: ExceptionGroup[Exception]) -> Exception:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, ExceptionGroup) else failure
