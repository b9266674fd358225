"""The real application behind the real server on a real socket, in a thread of the tests, so that they can look inside.

The voice detector and the turn model are the real ones; recognition, language and voice are the scripted providers
unless a test says otherwise, so a conversation takes a second and always goes the same way.
"""

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import app
import uvicorn
from app.cli.serve import make_server
from app.core.config import Settings
from app.engine import Engine
from app.main import create_app

PATIENCE_S = 20.0
_SOURCE = str(Path(app.__file__).parent)
_LASTING = {"lifespan", "Day"}
"""What runs as long as the application does."""


def scripted(**changes: Any) -> Settings:
    """Settings for quick conversations; `changes` win."""
    quick: dict[str, Any] = {
        "stt_provider": "scripted",
        "llm_provider": "scripted",
        "tts_provider": "scripted",
        "scripted_stt_ms": 20,
        "scripted_first_token_ms": 20,
        "scripted_token_ms": 1,
        "scripted_tokens": 6,
        "scripted_first_audio_ms": 20,
        "scripted_audio_ms": 200,
        "host": "127.0.0.1",
        "greeting": "",
        "data_dir": tempfile.mkdtemp(prefix="ahoy-tests-"),
    }
    return Settings(**{**quick, **changes})


class AppServer:
    """Runs the application from `with` to its end. `port` is free and stays the same."""

    def __init__(
        self, settings: Settings | None = None, *, load: bool = True, send_buffer_bytes: int | None = None
    ) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        if send_buffer_bytes:  # the kernel would keep megabytes for a client that does not read
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        self.port: int = self._listener.getsockname()[1]
        self.settings = (settings or scripted()).model_copy(update={"port": self.port})
        self.engine = Engine(self.settings)
        self._server: uvicorn.Server = make_server(create_app(self.settings, engine=self.engine), self.settings)
        self._load = load
        self._loop: asyncio.AbstractEventLoop
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="server")

    @property
    def url(self) -> str:
        """Where the page is, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Where conversations are."""
        return f"ws://127.0.0.1:{self.port}{self.settings.ws_path}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._running.wait(PATIENCE_S)
        wait_until(lambda: self._server.started, "the server's start")
        if self._load:
            asyncio.run_coroutine_threadsafe(self.engine.wait_until_ready(), self._loop).result(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop as Ctrl-C would, and wait for the end."""
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server does not end"

    def our_tasks(self) -> list[str]:
        """The tasks of the application that run on the server's loop now, by the name of what they run."""

        async def look() -> list[str]:
            return [name for task in asyncio.all_tasks() if (name := _ours(task)) and "look" not in name]

        return asyncio.run_coroutine_threadsafe(look(), self._loop).result(PATIENCE_S)

    @property
    def connections(self) -> int:
        """How many sockets are open on the server's side."""
        return len(self._server.server_state.connections)

    def nothing_is_left(self) -> None:
        """Wait until no conversation, no connection and no task of the application is left."""
        wait_until(
            lambda: not self.engine.conversations and not self.connections and not self.our_tasks(),
            lambda: f"the end of {self.engine.conversations}, {self.connections} connections, {self.our_tasks()}",
        )

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._running.set()
            await self._server.serve(sockets=[self._listener])

        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(main())


def wait_until(holds: Callable[[], object], what: str | Callable[[], str], patience_s: float = PATIENCE_S) -> None:
    """Look again and again from outside the server; AssertionError with `what` when it does not come to hold."""
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, f"waited in vain for {what if isinstance(what, str) else what()}"
        time.sleep(0.01)


def _ours(task: "asyncio.Task[Any]") -> str:
    """What of the application a task runs; empty when it runs none of it."""
    coroutine: Any = task.get_coro()
    while coroutine is not None:
        code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "ag_code", None)
        if code is not None and code.co_filename.startswith(_SOURCE) and not _LASTING & {*code.co_qualname.split(".")}:
            return str(code.co_qualname)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
    return ""
