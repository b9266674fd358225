"""Telephone calls with the real application: Twilio imitated on this machine, the server on a real socket, a recording
of a voice as the caller.

    async with telephone() as (server, twilio):
        line = await twilio.dial()
        ...
        line.hang_up()

When the block is left nothing of any call may be left in the server, nothing may have failed in it, and it may not have
done anything that Twilio would not have taken (`allow` names the codes a test provokes).
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import uvicorn
from app.audio.wav import read_audio
from app.core.config import Settings
from app.emulator import ACCOUNT_SID, AUTH_TOKEN, NUMBER, PUBLIC_URL, Exchange, Line, MediaStream
from app.inference.store import ModelStore
from app.twilio.calls import Call
from app.twilio.telephone import Telephone
from app_server import PATIENCE_S, AppServer, scripted, wait_until
from numpy.typing import NDArray
from scipy import signal

RATE_HZ = 8000
GREETING = "Ahoy there."
THEM = "+12025550123"
"""Somebody who is called; 555-01 is for fiction."""
COLLEAGUE = "+12025550199"


def phone_settings(**changes: Any) -> Settings:
    """Quick conversations on the telephone: a turn ends after 300 ms of silence; `changes` win."""
    quick: dict[str, Any] = {
        "twilio_account_sid": ACCOUNT_SID,
        "twilio_auth_token": AUTH_TOKEN,
        "twilio_phone_number": NUMBER,
        "public_base_url": PUBLIC_URL,
        "endpointing": "silence",
        "endpointing_silence_ms": 300,
        "greeting": GREETING,
        "outbound_allowed": "+1",
    }
    return scripted(**{**quick, **changes})


class PhoneServer(AppServer):
    """The application with a telephone. `plain` runs it as `uvicorn app.main:app` does, with uvicorn's own WebSocket
    implementation."""

    def __init__(self, settings: Settings | None = None, *, plain: bool = False, load: bool = True) -> None:
        super().__init__(settings or phone_settings(), load=load)
        app: Any = self._server.config.app
        self.telephone: Telephone = app.state.telephone
        self.opened = 0
        """How many conversations were begun."""
        opens = self.engine.open

        def counted(*args: Any, **options: Any) -> Any:
            self.opened += 1
            return opens(*args, **options)

        self.engine.open = counted  # type: ignore[method-assign]
        if plain:
            self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5))

    def stand_in(self, **providers: Any) -> None:
        """Let others do the work: stt, llm, tts... for conversations that begin from now on."""
        self.engine._providers = replace(self.engine.providers, **providers)

    def call(self, sid: str) -> Call:
        """What the server knows of a call."""
        call = self.telephone.calls.get(sid)
        assert call is not None, "the server does not know the call"
        return call

    def said(self, sid: str) -> list[tuple[str, str]]:
        """The captions of a call: who, and what."""
        return [(line["who"], line["text"]) for line in self.call(sid).as_json()["captions"]]

    def remembered(self, sid: str) -> list[tuple[str, str]]:
        """What the model would be told of a call, as role and text, without its instructions."""
        call = self.call(sid)
        history = call.conversation.history if call.conversation else call.history
        return [(message.role, message.content) for message in history.context()[1:]] if history else []

    def in_the_loop(self, work: Callable[[], Any]) -> Any:
        """Call something on the server's own loop, where its parts belong; the result."""

        async def run() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE_S)

    def is_idle(self) -> bool:
        """No conversation and no task of the application is left."""
        return not self.engine.conversations and not self.our_tasks()


@asynccontextmanager
async def telephone(
    *,
    plain: bool = False,
    allow: Collection[int] = (),
    voice_method: str = "POST",
    **changes: Any,
) -> AsyncIterator[tuple[PhoneServer, Exchange]]:
    """A server with these settings and the line to it. `allow` are codes of Twilio's errors that may occur."""
    faults = _Faults()
    logging.getLogger().addHandler(faults)
    api_port = _free_port()
    settings = phone_settings(**{"twilio_api_url": f"http://127.0.0.1:{api_port}", **changes})
    try:
        with PhoneServer(settings, plain=plain) as server:
            async with Exchange(server.url, port=api_port, voice_method=voice_method) as twilio:
                yield server, twilio
            server.nothing_is_left()
            assert [fault for fault in twilio.errors if fault.code not in allow] == []
            assert not server.telephone._tasks, "the telephone has work left"
    finally:
        logging.getLogger().removeHandler(faults)
    assert faults.seen == []


async def greeted(line: Line) -> MediaStream:
    """Wait until the greeting has been heard to its end."""
    stream = await line.streaming()
    await line.hears_the_end(quiet_ms=300)
    return stream


async def answered(line: Line, said: NDArray[np.int16] | None = None) -> float:
    """Say something and hear the answer to its end; when it began (ms of the line)."""
    await line.say(words() if said is None else said)
    onset_ms = await line.hears()
    await line.hears_the_end(quiet_ms=300)
    return onset_ms


def likeness(part: NDArray[np.int16], whole: NDArray[np.int16]) -> float:
    """How much like `part` the most similar piece of `whole` is: 1.0 for the very same sound, 0 for another."""
    if len(whole) < len(part):
        return 0.0
    wanted, heard = part.astype(np.float64), whole.astype(np.float64)
    product = signal.fftconvolve(heard, wanted[::-1], "valid")
    energy = signal.fftconvolve(heard**2, np.ones(len(wanted)), "valid")
    return float(np.max(product / np.sqrt(np.maximum(energy, 1.0) * np.sum(wanted**2))))


async def eventually(holds: Callable[[], object], what: str) -> None:
    """Look again and again, while calls go on; AssertionError with `what` when it does not come to hold."""
    await asyncio.to_thread(wait_until, holds, what)


@cache
def words() -> NDArray[np.int16]:
    """Somebody says two words: int16 [n] at 8 kHz, a second."""
    return _cut("beckett", 1.8, 2.8)


@cache
def sentence() -> NDArray[np.int16]:
    """Somebody says a sentence without a pause: int16 [n] at 8 kHz, three seconds and a half."""
    return _cut("two_cities", 1.1, 4.6)


def _cut(name: str, begin_s: float, end_s: float) -> NDArray[np.int16]:
    read = read_audio(ModelStore().path("test-speech") / f"{name}.wav", RATE_HZ)
    return read[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)]


class _Faults(logging.Handler):
    """Collects what failed in the server and was not foreseen: everything that is logged with a trace."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0]:
            self.seen.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
