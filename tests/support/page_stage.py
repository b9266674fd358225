"""A stage for the page: a server that speaks the wire protocol as a test tells it to, and a browser in front of it.

Everything runs on loopback. The server keeps what the page sends, line by line (a line is one WebSocket), and sends
what the test says; a tone stands for speech. The browser is a real Chromium with a made microphone, so that permission,
AudioWorklets and the audio clock are the real ones.
"""

import base64
import json
import mimetypes
import os
import select
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
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
    "default-src 'self'; connect-src 'self' ws: wss: http: https:; img-src 'self' data:; script-src 'self' blob:; "
    "style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
FINAL = {"completed", "busy", "no-answer", "canceled", "failed"}
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


class Phone:
    """The server's telephone API as the page meets it: the calls are as a test tells it."""

    def __init__(self) -> None:
        self.about: dict[str, Any] = {
            "outbound": True,
            "reason": "",
            "region": None,
            "country_code": None,
            "allowed": ["+1", "+49"],
        }
        self.key = ""
        self.origin = ""  # of a page from elsewhere that may ask
        self.streams = "live"  # "held back" by a proxy, "missing" from the server, or "full"
        self.services: dict[str, list[dict[str, Any]]] = {}  # "providers" and "findings"; none: an older server
        self.refusal: tuple[int, dict[str, Any]] | None = None  # of calls to be placed: status and error
        self.silent: set[str] = set()  # methods that get no answer, though they are carried out
        self.stubborn = False  # a call does not end by hanging up
        self.waiting = threading.Event()  # set: POST and DELETE are answered at once
        self.waiting.set()
        self.asked: list[dict[str, Any]] = []
        self.calls: dict[str, dict[str, Any]] = {}
        self.by_key: dict[str, str] = {}
        self._changed = threading.Condition()
        self._down = False  # streams that are asked for now end at once
        self._open: set[socket.socket] = set()

    def requests(self, method: str, path: str = "") -> list[dict[str, Any]]:
        """Those that have come so far."""
        return [one for one in self.asked if one["method"] == method and one["path"].startswith(path)]

    def tell(self, sid: str = "CA1", **fields: Any) -> None:
        """The call is like this now."""
        with self._changed:
            self.calls[sid] = {**self.calls[sid], **fields}
            self._changed.notify_all()

    def cut(self, *, down: bool = False) -> None:
        """Break every event stream off; `down` also those that are on their way."""
        with self._changed:
            self._down = down
            self._open.clear()
            self._changed.notify_all()

    def forget(self) -> None:
        """Like a server that was started again."""
        with self._changed:
            self.calls.clear()
            self.cut()

    def place(self, number: str, key: str) -> tuple[int, dict[str, Any]]:
        """Dial, unless that was done under this key."""
        if key in self.by_key:
            return 200, self.calls[self.by_key[key]]
        sid = f"CA{len(self.calls) + 1}"
        self.by_key[key] = sid
        call = {"sid": sid, "direction": "outbound", "from": "+15005550006", "to": number, "status": "queued"}
        self.calls[sid] = call | {"reason": "", "answered_by": "", "on_hold": False, "duration_s": 0.0, "captions": []}
        return 201, self.calls[sid]

    def answer(self, connection: socket.socket) -> None:
        """One request."""
        phone = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                self.raw_requestline = self.rfile.readline()
                if self.parse_request():
                    self.respond()

            def send(self, status: int, body: object = None, kind: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                if phone.origin:
                    self.send_header("Access-Control-Allow-Origin", phone.origin)
                    self.send_header("Access-Control-Allow-Methods", "GET, POST, DELETE")
                    self.send_header("Access-Control-Allow-Headers", "authorization, content-type, idempotency-key")
                self.end_headers()
                if body is not None:
                    self.wfile.write(json.dumps(body).encode())

            def respond(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
                given = {name.lower(): value for name, value in self.headers.items()}
                phone.asked.append({"method": self.command, "path": self.path, "json": body, "headers": given})
                if self.command == "OPTIONS":
                    self.send(204)
                elif phone.key and given.get("authorization") != f"Bearer {phone.key}":
                    self.refuse(401, "unauthorized", "This server wants its key.")
                elif self.path == "/api/phone":
                    self.send(200 if phone.about else 404, phone.about)
                elif self.path == "/api/usage":
                    self.send(200, {"today": {"usd": 0.31, "priced": True}})
                elif self.path.startswith("/api/providers"):
                    if self.command == "POST":
                        phone.waiting.wait(PATIENCE_S)
                    self.send(200 if phone.services else 404, {"age_s": 0.0, **phone.services})
                elif self.path == "/api/call" and phone.refusal:
                    self.send(phone.refusal[0], {"error": phone.refusal[1]})
                elif self.path == "/api/call":
                    phone.waiting.wait(PATIENCE_S)
                    status, call = phone.place(body["number"], given["idempotency-key"])
                    if "POST" not in phone.silent:
                        self.send(status, call)
                else:
                    self.about_one(*self.path.removeprefix("/api/call/").split("/"))

            def about_one(self, sid: str, what: str = "") -> None:
                if sid not in phone.calls:
                    self.refuse(404, "unknown_call", "There is no such call.")
                elif what == "events":
                    self.stream(sid)
                else:
                    if self.command == "DELETE":
                        phone.waiting.wait(PATIENCE_S)
                        if "DELETE" in phone.silent:
                            return
                        phone.tell(sid, status=phone.calls[sid]["status"] if phone.stubborn else "completed")
                    self.send(200, phone.calls[sid])

            def stream(self, sid: str) -> None:
                if phone.streams == "missing":
                    self.refuse(404, "not_found", "There is nothing at this address.")
                    return
                if phone.streams == "full":
                    self.refuse(503, "too_many_watchers", "100 calls are being watched already.")
                    return
                self.send(200, kind="text/event-stream")
                shown: object = None
                with phone._changed:
                    phone._open.add(connection)
                    while connection in phone._open and not phone._down:
                        call = phone.calls.get(sid)
                        if phone.streams == "live" and call and call is not shown:
                            shown = call
                            self.wfile.write(f": a comment\r\n\r\ndata: {json.dumps(call)}\r\n\r\n".encode())
                            if call["status"] in FINAL:
                                phone._open.discard(connection)
                                return
                        phone._changed.wait()

            def refuse(self, status: int, code: str, message: str) -> None:
                self.send(status, {"error": {"code": code, "message": message}})

        Handler(connection, ("127.0.0.1", 0), None)  # type: ignore[arg-type]


class PageServer:
    """Serves the page and its WebSocket on one port, which stays the same over `down` and `up`."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.origins: list[str | None] = []
        self.full = False
        self.refusing = False
        self.port = 0
        self.phone = Phone()
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
        self.phone.cut()
        self._server = serve(self._converse, "127.0.0.1", self.port, process_request=self._file, compression=None)
        self._websockets, self._server.handler = self._server.handler, self._serve_one
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def down(self, code: int = 1001) -> None:
        """Stop listening and hang up."""
        self.phone.cut(down=True)
        if self._server:
            self._server.shutdown()
        for connection in list(self._open):
            with suppress(ConnectionClosed):
                connection.close(code)

    def line(self, number: int = 0) -> Line:
        """The line with this number, from 0, once the page has opened it."""
        wait_until(lambda: len(self.lines) > number, f"line {number}")
        return self.lines[number]

    def _serve_one(self, connection: socket.socket, address: object) -> None:
        """The WebSocket library answers GET alone, so that requests of the API go past it."""
        server = self._server
        assert server
        try:
            with suppress(OSError):  # a browser that has left resets its connections
                first = self._first_bytes(connection, server)
                if first and b" /api/" not in first.partition(b"\r\n")[0]:
                    self._websockets(connection, address)
                elif first:
                    self.phone.answer(connection)
        finally:  # the library waits for every thread that it has not seen end
            connection.close()
            with server.lock:
                server.handler_threads.discard(threading.current_thread())

    @staticmethod
    def _first_bytes(connection: socket.socket, server: Server) -> bytes:
        """What a request begins with; nothing for a connection that is not used: browsers open some in advance."""
        while not server.socket_closed.is_set():
            if select.select([connection], [], [], 0.05)[0]:
                return connection.recv(256, socket.MSG_PEEK)
        return b""

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
