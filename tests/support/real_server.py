"""The real server as its own process: `ahoy serve` on a free port of loopback, with a test's settings and no others.

    with RealServer({"LLM_PROVIDER": "scripted"}) as server:
        httpx.get(server.url + "health")

What the server logs goes to the running test's standard error as well, which pytest shows when the test fails.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx
from app.core.config import Settings

START_LIMIT_S = 90.0
"""Loading the embedded models takes a few seconds; on a busy machine several times as much."""
LOADING = "still being loaded"
"""What /ready says while waiting is worth it; any other reason is for good."""
STOP_LIMIT_S = 20.0
"""After this long without an end the process is killed."""


class RealServer:
    """`ahoy serve` in a process of its own; the port stays the same over `stop` and `start`.

    `env` holds settings as environment variables, `{"GREETING": "Hello!"}`; what is not in it has its default. Neither
    the environment of the developer nor a `.env` file changes that.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.port = _free_port()
        self._settings = dict(env or {})
        self._process: subprocess.Popen[str] | None = None
        self._reading: threading.Thread | None = None
        self._log: list[str] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the page is, with a slash at the end."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def ws_url(self) -> str:
        """The WebSocket of the browser's conversation."""
        return f"ws://127.0.0.1:{self.port}{self._settings.get('WS_PATH') or '/ws'}"

    @property
    def pid(self) -> int:
        """The id of the process that runs. Raises AssertionError when none does."""
        assert self._process, "the server does not run"
        return self._process.pid

    def start(self) -> None:
        """Run the server and wait until it can hold conversations.

        Raises AssertionError, with the log, when it cannot, or not within START_LIMIT_S.
        """
        assert self._process is None, "the server runs already"
        self._process = subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-m", "app.cli", "serve", "--port", str(self.port)],
            env=_environment(self._settings),
            cwd=tempfile.gettempdir(),  # `serve` reads the `.env` of the directory it is started in
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reading = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reading.start()
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int | None:
        """End the process as Ctrl-C or a service manager would; its exit code, None when it did not run."""
        return self._end(kill=False)

    def kill(self) -> None:
        """End the process as a power cut would: at once, with no goodbye to anybody."""
        self._end(kill=True)

    def log_text(self) -> str:
        """What all runs of the server have written so far, to standard output and standard error."""
        return "".join(self._log)

    def _end(self, *, kill: bool) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reading:
            self._reading.join(STOP_LIMIT_S)
        return process.returncode

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        end = time.monotonic() + START_LIMIT_S
        reason = "it does not listen"
        while time.monotonic() < end and process.poll() is None:
            with suppress(httpx.TransportError):  # it does not listen yet
                answer = httpx.get(self.url + "ready", timeout=5, trust_env=False).json()
                if answer["ready"]:
                    return
                reason = answer["reason"]
                if LOADING not in reason:
                    break
            time.sleep(0.05)
        raise AssertionError(f"no server (exit code {process.poll()}, {reason}):\n{self.log_text()}")

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        with process.stdout:
            for line in process.stdout:
                self._log.append(line)
                sys.stderr.write(f"[server] {line}")


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with every setting said outright: empty means its default, and wins over `.env`."""
    names = {name.upper(): field for name, field in Settings.model_fields.items()}
    unknown = settings.keys() - names
    assert not unknown, f"not settings: {', '.join(sorted(unknown))}"
    kept = {name: value for name, value in os.environ.items() if name.upper() not in names}
    defaults = dict.fromkeys(names, "") | {"GREETING": str(names["GREETING"].default)}  # an empty greeting is none
    return kept | defaults | {"PYTHONUNBUFFERED": "1"} | dict(settings)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
