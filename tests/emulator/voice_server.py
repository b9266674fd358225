"""A small voice server that tests tell what to answer: aiohttp, on a port of its own."""

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import WSMsgType, web
from app.emulator import PUBLIC_URL

Talk = Callable[["Socket"], Awaitable[None]]
STREAM = "wss://voice.example.com/stream"
CONNECT = f'<Response><Connect><Stream url="{STREAM}"/></Connect></Response>'


def payload(audio: bytes) -> str:
    return base64.b64encode(audio).decode()


class Socket:
    """The server's end of a media stream."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.headers = request.headers
        self.messages: list[dict[str, Any]] = []
        self.raw: list[str] = []
        self.audio = b""
        self.stream_sid = ""

    async def next(self, *events: str) -> dict[str, Any]:
        """The next message (of these kinds)."""
        while True:
            raw = await self.socket.receive()
            if raw.type is not WSMsgType.TEXT:
                raise ConnectionError(f"the phone closed the stream: {raw}")
            self.raw.append(raw.data)
            try:
                message = json.loads(raw.data)
            except json.JSONDecodeError:
                continue
            self.messages.append(message)
            if message["event"] == "media":
                with contextlib.suppress(binascii.Error):  # garbled on the way
                    self.audio += base64.b64decode(message["media"]["payload"])
            self.stream_sid = message.get("streamSid", self.stream_sid)
            if not events or message["event"] in events:
                return message

    async def media(self, audio: bytes) -> None:
        await self.send({"event": "media", "streamSid": self.stream_sid, "media": {"payload": payload(audio)}})

    async def mark(self, name: str) -> None:
        await self.send({"event": "mark", "streamSid": self.stream_sid, "mark": {"name": name}})

    async def clear(self) -> None:
        await self.send({"event": "clear", "streamSid": self.stream_sid})

    async def send(self, message: object) -> None:
        await self.socket.send_str(json.dumps(message))

    async def to_the_end(self) -> None:
        """Take messages until the phone closes."""
        while True:
            try:
                await self.next()
            except ConnectionError:
                return


class VoiceServer:
    """Answers each path with what is in `answers` (TwiML), and talks on /stream as it is told."""

    def __init__(self) -> None:
        self.answers = {"/voice": CONNECT}
        self.refuse: dict[str, int] = {}
        """Paths that are answered with an error."""
        self.content_type = "text/xml"
        self.talk: Talk = Socket.to_the_end
        self.sockets: list[Socket] = []
        self.requests: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        """Method, address with query, headers, form."""
        self.port = 0

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_get("/stream", self._stream)
        application.router.add_route("*", "/{path:.*}", self._webhook)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, path: str) -> list[dict[str, str]]:
        """What requests to a path said."""
        return [form for _, url, _, form in self.requests if url.partition("?")[0] == PUBLIC_URL + path]

    async def _webhook(self, request: web.Request) -> web.StreamResponse:
        form = dict(await request.post()) if request.method == "POST" else dict(request.query)
        headers = dict(request.headers)
        self.requests.append((request.method, f"https://{request.host}{request.path_qs}", headers, form))  # type: ignore[arg-type]
        status = self.refuse.get(request.path, 200)
        return web.Response(text=self.answers.get(request.path, ""), status=status, content_type=self.content_type)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if request.path in self.refuse:
            return web.Response(status=self.refuse[request.path])
        response = web.WebSocketResponse(compress=False)
        await response.prepare(request)
        socket = Socket(response, request)
        self.sockets.append(socket)
        await socket.next("start")
        try:
            await self.talk(socket)
        except ConnectionError:
            pass
        except asyncio.CancelledError:
            await response.close()
            raise
        await response.close()
        return response
