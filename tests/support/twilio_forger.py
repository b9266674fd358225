"""Somebody who asks the server what Twilio asks, and signs it as they like.

async with Forger(server.port) as forger:
    answer = await forger.ask("/voice", call_fields(sid))
    async with forger.stream() as stream:
        await stream.start(sid, parameters(answer)["token"])
"""

import asyncio
import base64
import contextlib
import secrets
from typing import Any, Self
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

import httpx
import numpy as np
from app.audio.g711 import encode_mulaw
from app.emulator import ACCOUNT_SID, AUTH_TOKEN, NUMBER, PUBLIC_URL, Exchange, wire
from numpy.typing import NDArray
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

CALLER = "+15005550001"
PATIENCE_S = 20.0
FRAME = 160
"""Samples of 20 ms."""
STREAM_URL = "wss://voice.example.com/twilio/ws"


def new_sid() -> str:
    """The SID of a call that nobody has heard of."""
    return "CA" + secrets.token_hex(16)


def rings(twilio: Exchange) -> str:
    """The SID of a call that Twilio knows, and that nobody else speaks for."""
    return twilio.new_line(CALLER, NUMBER, "inbound").sid


def call_fields(sid: str, **changes: str) -> dict[str, str]:
    """What Twilio says about an inbound call; `changes` win."""
    usual = {
        "AccountSid": ACCOUNT_SID,
        "CallSid": sid,
        "CallStatus": "ringing",
        "Direction": "inbound",
        "From": CALLER,
        "To": NUMBER,
    }
    return {**usual, **changes}


def signature(url: str, fields: dict[str, str] | None = None, token: str = AUTH_TOKEN) -> str:
    """Twilio's signature of a request, by its own SDK."""
    computed: str = RequestValidator(token).compute_signature(url, fields or {})
    return computed


def parameters(answer: httpx.Response) -> dict[str, str]:
    """What the stream of this TwiML is to say at its start; empty when there is no stream in it."""
    root = ElementTree.fromstring(answer.content)  # noqa: S314 (from the server under test)
    return {one.attrib["name"]: one.attrib["value"] for one in root.iter("Parameter")}


class Forger:
    """Asks the server at `port` in the name of `public`. Everything it sends is as Twilio would send it through a proxy
    unless a request says otherwise."""

    def __init__(self, port: int, public: str = PUBLIC_URL) -> None:
        self.public = public
        self._host = urlsplit(public).netloc
        self._port = port
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            trust_env=False,
            timeout=PATIENCE_S,
            limits=httpx.Limits(max_keepalive_connections=0),  # what is left of a call shows at once
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(
        self,
        path: str,
        fields: dict[str, str],
        *,
        method: str = "POST",
        signed: str | None = "",
        headers: dict[str, str] | None = None,
        content: str | None = None,
    ) -> httpx.Response:
        """Send a request. `signed` is its signature: empty for the right one, None for none; `content` is sent in place
        of the fields; `headers` win, and one that is empty is left out."""
        query = "?" + urlencode(fields) if method == "GET" else ""
        sent = {"Host": self._host, "X-Forwarded-For": "203.0.113.24", "X-Forwarded-Proto": "https"}
        if signed is not None:
            sent["X-Twilio-Signature"] = signed or self.sign(path, fields, method=method)
        if method == "POST":
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        sent |= headers or {}
        body = None if method == "GET" else (content if content is not None else urlencode(fields)).encode()
        return await self._client.request(
            method,
            path + query,
            content=body,
            headers={name: value.encode("latin-1") for name, value in sent.items() if value},
        )

    def sign(
        self, path: str, fields: dict[str, str], *, method: str = "POST", public: str = "", token: str = AUTH_TOKEN
    ) -> str:
        """How Twilio would sign this request to `public`, if the token of its account were `token`."""
        address = (public or self.public) + path
        return (
            signature(f"{address}?{urlencode(fields)}", token=token)
            if method == "GET"
            else signature(address, fields, token)
        )

    def stream(self, *, signed: str | None = "", host: str = "", **headers: str) -> "ForgedStream":
        """A media stream, to be opened with `async with`. `signed` as in `ask`."""
        sent = {"X-Forwarded-For": "203.0.113.24", **headers}  # one that is empty is left out
        if signed is not None:
            sent["X-Twilio-Signature"] = signed or signature(STREAM_URL)
        return ForgedStream(self._port, host or self._host, {name: value for name, value in sent.items() if value})


class ForgedStream:
    """One end of a media stream that sends what it is told to."""

    def __init__(self, port: int, host: str, headers: dict[str, str]) -> None:
        self.sid = "MZ" + secrets.token_hex(16)
        self._chunk = 0
        self.messages: list[str | bytes] = []
        """What the server has sent, as far as it was looked at."""
        self._connect = connect(
            f"ws://{host}/twilio/ws", host="127.0.0.1", port=port, additional_headers=headers, proxy=None
        )
        self._connection: ClientConnection

    async def __aenter__(self) -> Self:
        """Raises InvalidStatus when the server does not accept it."""
        self._connection = await self._connect
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    async def send(self, message: str | bytes) -> None:
        """Send a message as it is."""
        await self._connection.send(message)

    async def start(self, call_sid: str, token: str | None, **changes: Any) -> None:
        """Say what stream this is; `changes` are of account_sid and parameters."""
        parameters = changes.get("parameters", {} if token is None else {"token": token})
        await self.send(wire.CONNECTED)
        await self.send(wire.start(1, self.sid, changes.get("account_sid", ACCOUNT_SID), call_sid, parameters))

    async def say(self, samples: NDArray[np.int16]) -> None:
        """Say this (int16 [n], 8 kHz), all at once: nobody waits for time to pass."""
        for start in range(0, len(samples) // FRAME * FRAME, FRAME):
            payload = base64.b64encode(encode_mulaw(samples[start : start + FRAME])).decode()
            self._chunk += 1
            await self.send(wire.media(self._chunk + 1, self.sid, self._chunk, (self._chunk - 1) * 20, payload))

    async def dial(self, keys: str) -> None:
        """Press these keys."""
        for key in keys:
            await self.send(wire.dtmf(self._chunk + 2, self.sid, key))

    async def marked(self, name: str) -> None:
        """Say that everything before this mark was played."""
        await self.send(wire.mark(self._chunk + 2, self.sid, name))

    async def hang_up(self, call_sid: str) -> None:
        """Say that the stream is over."""
        await self.send(wire.stop(self._chunk + 2, self.sid, ACCOUNT_SID, call_sid))

    def rewind(self, frames: int) -> None:
        """Count the frames that follow as if so many had not been sent (or, below 0, more)."""
        self._chunk -= frames

    async def pinged(self) -> None:
        """Wait until the server has read all that was sent."""
        await (await self._connection.ping())

    def cut(self) -> None:
        """Break the connection off without a word."""
        self._connection.transport.abort()

    async def closed(self) -> int | None:
        """Wait until the server closes, whatever it sends before; the code. TimeoutError when it does not."""
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    self.messages.append(await self._connection.recv())
        return self._connection.close_code

    async def received(self) -> str:
        """The next message of the server."""
        message = await self._connection.recv()
        self.messages.append(message)
        assert isinstance(message, str), "Twilio takes text messages only"
        return message
