"""Whether everybody who may do the work does it, how soon, and what is wrong otherwise: one real request to each.

The voices are asked first; what one of them has said is what the recognisers are given to understand.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.audio.resample import resample
from app.conversation.recording import MODELS_HZ
from app.core.errors import AhoyError, ProviderError
from app.engine import Engine
from app.llm.base import Message
from app.remote.chain import Member
from app.usage.meter import Capability, bind

QUESTION = [Message("system", "Answer in one short sentence."), Message("user", "Please say hello.")]
SENTENCE = "Hello, this is a test of the voice."
TIMEOUT_S = 15.0
QUIET_S = 0.5
"""Silence behind the test sentence."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one provider did when it was tried."""

    capability: Capability
    provider: str
    model: str
    works: bool
    first_ms: float | None
    """Until the first words or sound came; for recognition, until the words were there."""
    words: str
    """What happened, for a person."""

    def as_json(self) -> dict[str, Any]:
        """The same, for the API."""
        return asdict(self)


class _UselessError(Exception):
    """It gave an answer that is of no use, or could not be tried at all. Nobody is left alone for that: in
    conversations an empty transcript is what silence is understood as."""


async def check(engine: Engine) -> list[Finding]:
    """Try everybody, the chains of recognition, language model and voice in their order. Costs a fraction of a cent at
    services that charge, which the account of the day has from then on for what this task uses. Who fails is left
    alone as after a conversation, who works is asked again. Raises OverloadedError before the engine is ready."""
    _ = engine.providers
    bind(engine.day, lambda: 0)
    members = engine.provision.members
    voices = [await _tried("tts", member, _speak) for member in members["tts"]]
    spoken = next((audio for _, audio in voices if audio is not None), None)

    async def answer(model: Any) -> tuple[float, str, None]:
        return await _answer(model, engine.settings.reply_max_tokens)

    models = await asyncio.gather(*(_tried("llm", member, answer) for member in members["llm"]))

    async def understand(provider: Any) -> tuple[float, str, None]:
        return await _understand(provider, spoken)

    recognisers = [await _tried("stt", member, understand) for member in members["stt"]]
    return [finding for finding, _ in (*recognisers, *models, *voices)]


async def _tried(capability: Capability, member: Member[Any], attempt: Any) -> tuple[Finding, NDArray[np.int16] | None]:
    first_ms: float | None = None
    audio: NDArray[np.int16] | None = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            first_ms, words, audio = await attempt(member.provider)
        works = True
        member.health.succeeded()
    except TimeoutError:
        works, words = False, f"It gave nothing for {TIMEOUT_S:g} s."
        member.health.failed(ProviderError(words))
    except _UselessError as useless:
        works, words = False, str(useless)
    except AhoyError as error:
        works, words = False, error.message
        member.health.failed(error)
    except Exception:
        log.exception("%s failed when it was tried", member.name)
        works, words = False, "It failed with a defect; the server's log says how."
    return Finding(capability, member.name, member.model, works, first_ms, words), audio


async def _speak(voice: Any) -> tuple[float, str, NDArray[np.int16]]:
    started_s = time.perf_counter()
    first_ms, pieces = await _collect(voice.speak(SENTENCE), started_s)
    audio = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    took_s, lasts_s = time.perf_counter() - started_s, len(audio) / voice.rate_hz
    if not len(audio):
        raise _UselessError("It made no sound.")
    silence = np.zeros(int(QUIET_S * MODELS_HZ), np.int16)
    heard = await asyncio.to_thread(resample, audio, voice.rate_hz, MODELS_HZ)
    words = f"Spoke {lasts_s:.1f} s, {lasts_s / took_s:.1f} times as fast as it plays."
    return first_ms, words, np.concatenate((heard, silence))


async def _answer(model: Any, max_tokens: int) -> tuple[float, str, None]:
    started_s = time.perf_counter()
    first_ms, pieces = await _collect(model.reply(QUESTION, max_tokens=max_tokens), started_s)
    if not "".join(pieces).strip():
        raise _UselessError("It gave no words. One that thinks first may need a larger REPLY_MAX_TOKENS.")
    return first_ms, f"Answered with {len(''.join(pieces).split())} words.", None


async def _understand(recogniser: Any, spoken: NDArray[np.int16] | None) -> tuple[float, str, None]:
    if spoken is None:
        raise _UselessError("It was not tried: no voice works that could speak to it.")
    started_s = time.perf_counter()
    transcript = await recogniser.transcribe(spoken, language="en")
    took_ms = (time.perf_counter() - started_s) * 1000
    if not transcript.text:
        raise _UselessError("It understood nothing.")
    return took_ms, f"Understood “{transcript.text}”", None


async def _collect(stream: AsyncGenerator[Any, None], started_s: float) -> tuple[float, list[Any]]:
    pieces: list[Any] = []
    first_ms = 0.0
    async with aclosing(stream):
        async for piece in stream:
            if not pieces:
                first_ms = (time.perf_counter() - started_s) * 1000
            pieces.append(piece)
    return first_ms, pieces
