"""A stage for the page: a server that speaks the wire protocol as a test tells it to, and a browser in front of it.

Everything runs on loopback. The server keeps what the page sends, line by line (a line is one WebSocket), and sends
what the test says; a tone stands for speech. The browser is a real Chromium with a made microphone, so that permission,
AudioWorklets and the audio clock are the real ones.
"""

import base64
import json
import mimetypes
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

FRONTEND = Path(__file__).resolve().parents[2] / "frontend"
RATE_HZ = 16_000
PATIENCE_S = 10.0
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
_FLAGS = [
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Stricter than what the real server sends: the page must get by with it.
CSP = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; script-src 'self' blob:; "
    "style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_NOTHING = Headers({"Content-Length": "0", "Connection": "close"})
READY = {
    "type": "ready",
    "protocol": 1,
    "session": "a-session",
    "audio_in": {"encoding": "pcm_s16le", "rate_hz": RATE_HZ, "channels": 1},
    "audio_out": {"encoding": "pcm_s16le", "rate_hz": RATE_HZ, "channels": 1},
    "voices": [
        {"id": "heart", "name": "Heart", "language": "en"},
        {"id": "marlene", "name": "Marlene", "language": "de"},
    ],
    "languages": ["auto", "en", "de"],
    "defaults": {"voice": "heart", "language": "en"},
}


def tone(seconds: float, hz: float = 440.0, level: float = 0.5) -> NDArray[np.int16]:
    """A sine, int16 mono 16 kHz."""
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (level * 32767 * np.sin(2 * np.pi * hz * times)).astype(np.int16)


def wait_until(holds: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Look again and again; AssertionError with `what` when it does not come to hold."""
    end = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end, f"{what} did not happen within {patience_s:g} s"
        time.sleep(0.01)


class Line:
    """One WebSocket of the page that has sent `start`, from the server's side."""

    def __init__(self, connection: ServerConnection, start: dict[str, Any]) -> None:
        self.connection = connection
        self.start = start
        self.messages: list[dict[str, Any]] = []
        self.audio: list[bytes] = []

    def tell(self, kind: str, **fields: object) -> None:
        """Send one message."""
        self.connection.send(json.dumps({"type": kind, **fields}))

    def speak(self, reply: int, samples: NDArray[np.int16], *, turn: int = 1, end: bool = True) -> None:
        """Send a reply's audio, in pieces of 20 ms."""
        self.tell("audio.start", turn=turn, reply=reply)
        for start in range(0, len(samples), 320):
            self.connection.send(samples[start : start + 320].tobytes())
        if end:
            self.tell("audio.end", reply=reply, duration_ms=len(samples) / 16)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The messages of this type that have come so far."""
        return [message for message in self.messages if message["type"] == kind]

    def expect(self, kind: str, **fields: object) -> dict[str, Any]:
        """Wait for a message with these fields."""
        found: list[dict[str, Any]] = []

        def came() -> bool:
            found[:] = [one for one in self.of(kind) if fields.items() <= one.items()]
            return bool(found)

        wait_until(came, f"{kind} with {fields}")
        return found[0]

    def frames(self) -> int:
        """How many audio messages have come."""
        return len(self.audio)

    def samples(self) -> NDArray[np.int16]:
        """All microphone audio so far."""
        return np.frombuffer(b"".join(self.audio), dtype=np.int16)


class PageServer:
    """Serves the page and its WebSocket on one port, which stays the same over `down` and `up`."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.origins: list[str | None] = []
        self.full = False
        self.refusing = False
        self.port = 0
        self._server: Server | None = None
        self._open: set[ServerConnection] = set()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}/"

    def up(self) -> None:
        """Listen, on the same port as before."""
        self._server = serve(self._converse, "127.0.0.1", self.port, process_request=self._file, compression=None)
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def down(self, code: int = 1001) -> None:
        """Stop listening and hang up."""
        if self._server:
            self._server.shutdown()
        for connection in list(self._open):
            with suppress(ConnectionClosed):
                connection.close(code)

    def line(self, number: int = 0) -> Line:
        """The line with this number, from 0, once the page has opened it."""
        wait_until(lambda: len(self.lines) > number, f"line {number}")
        return self.lines[number]

    def _file(self, _connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.split("?")[0]
        if path == "/ws":
            return Response(HTTPStatus.FORBIDDEN, "Forbidden", _NOTHING) if self.refusing else None
        if path == "/health":
            return Response(HTTPStatus.OK, "OK", _NOTHING)
        file = FRONTEND / ("index.html" if path == "/" else path.lstrip("/"))
        if not file.is_file():
            return Response(HTTPStatus.NOT_FOUND, "Not Found", _NOTHING)
        body = file.read_bytes()
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        headers = Headers({"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"})
        headers["Content-Security-Policy"] = CSP
        return Response(HTTPStatus.OK, "OK", headers, body)

    def _converse(self, connection: ServerConnection) -> None:
        self._open.add(connection)
        line = None
        with suppress(ConnectionClosed):
            self.origins.append(connection.request.headers.get("Origin") if connection.request else None)
            if self.full:
                message = {"code": "server_full", "message": "Try again later.", "fatal": True}
                connection.send(json.dumps({"type": "error", **message}))
                connection.close(1013)
                return
            connection.send(json.dumps(READY))
            for data in connection:
                if isinstance(data, bytes):
                    assert line, "audio came before start"
                    line.audio.append(data)
                    continue
                message = json.loads(data)
                if message["type"] == "start":
                    line = Line(connection, message)
                    line.tell("started", voice="heart", language="en")
                    self.lines.append(line)
                elif line:
                    line.messages.append(message)
                if message["type"] == "bye":
                    connection.send(json.dumps({"type": "bye", "reason": "client"}))
                    connection.close(1000)
        self._open.discard(connection)


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """A headless Chromium with a made microphone that beeps once a second; nothing is permitted yet."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*_FLAGS, *flags])
        yield browser
        browser.close()


@contextmanager
def visitor(browser: Browser, *, microphone: bool = True, init: str = "", **options: Any) -> Iterator[Page]:
    """A fresh page of a fresh browser profile. At its end no script of the page may have failed."""
    context: BrowserContext = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_S * 1000)
    if microphone:
        context.grant_permissions(["microphone"])
    if init:
        context.add_init_script(init)
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda said: failures.append(said.text) if "Content Security" in said.text else None)
    yield page
    context.close()
    assert not failures


def talk(page: Page, server: PageServer, query: str = "") -> Line:
    """Open the page, press the button, wait until the conversation runs."""
    page.goto(server.url + query)
    before = len(server.lines)
    page.get_by_role("button", name="Start talking").click()
    line = server.line(before)
    in_state(page, "phase", "live")
    return line


def wait_for(page: Page, expression: str, arg: object = None, *, patience_s: float = PATIENCE_S) -> None:
    """Wait until the expression holds in the page.

    Playwright's own `wait_for_function` compiles its text inside the page, which a strict content policy refuses.
    """
    wait_until(lambda: page.evaluate(expression, arg), f"{expression} with {arg}", patience_s)


def in_state(page: Page, name: str, value: str | bool) -> None:
    """Wait until the page's state has this value."""
    wait_for(page, f"(value) => ahoy.state.{name} === value", value)


def recording(page: Page) -> tuple[NDArray[np.float64], int]:
    """What the playback worklet has rendered so far (-1 to 1), and its rate in Hz. Needs ?record=1."""
    taken = page.evaluate("ahoy.recording()")
    pcm = np.frombuffer(base64.b64decode(taken["pcm16"]), dtype="<i2")
    return pcm / 32767, taken["rate_hz"]


@contextmanager
def page_from_disk() -> Iterator[str]:
    """The page copied to some folder, as its file:// address."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FRONTEND, Path(folder) / "page")
        yield (Path(folder) / "page" / "index.html").as_uri()
