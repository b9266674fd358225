"""Twilio's requests to the server: signed over the public address, delivered to the port on this machine.

Source: twilio.com/docs/usage/webhooks/webhooks-security and /docs/voice/twiml (request parameters).
"""

import asyncio
import base64
import hmac
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import SplitResult, urlencode, urljoin, urlsplit, urlunsplit

import aiohttp
import phonenumbers

from app.emulator import twiml
from app.emulator.faults import CALLBACK, CONTENT_TYPE, HTTP_RETRIEVAL, Fault, TwilioFault
from app.emulator.line import Line

TIMEOUT_S = 15.0
"""What Twilio gives a webhook."""
FORWARDED_FOR = "203.0.113.24"
"""An address for documentation (RFC 5737), as that of Twilio's machine in front of the tunnel."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
API_VERSION = "2010-04-01"


@dataclass(frozen=True, slots=True)
class Request:
    """A webhook that was delivered. `status` is 0 if there was no answer."""

    url: str
    method: str
    parameters: dict[str, str]
    status: int
    body: bytes


class Webhooks:
    """Sends requests and opens sockets.

    `public_url` is what the server is called outside, `server` where it is. With an `auth_token` requests are signed
    and, where the two differ, come as through a tunnel: with the public name and forwarding headers. Without it they
    come as from any program on the same machine.
    """

    def __init__(self, server: str, public_url: str, account_sid: str, auth_token: str | None) -> None:
        self.server = server.rstrip("/")
        self.public_url = public_url.rstrip("/")
        self.requests: list[Request] = []
        self._account_sid = account_sid
        self._tunnelled = auth_token is not None and self.public_url != self.server
        self._key = auth_token.encode() if auth_token else None
        self._session: aiohttp.ClientSession | None = None
        self._callbacks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Be ready to send. `close()` gives back what this takes."""
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )

    async def close(self) -> None:
        """Wait for nothing more."""
        for task in list(self._callbacks.values()):
            task.cancel()
        await asyncio.gather(*self._callbacks.values(), return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def fetch(
        self, line: Line, url: str, method: str, more: dict[str, str] | None = None
    ) -> tuple[list[twiml.Verb], str]:
        """Ask the server what to do with the call: the verbs, and the address that links in them are relative to.

        Raises TwilioFault when it cannot be had: 11200, 12300, 12100, 12200.
        """
        line.event("webhook", f"{method} {urlsplit(url).path}")
        answer, content_type = await self._request(url, method, self.parameters(line) | (more or {}))
        if not 200 <= answer.status < 300:
            raise TwilioFault(HTTP_RETRIEVAL, f"Got HTTP {answer.status} response to {_shown(url)}")
        if content_type not in {"text/xml", "application/xml"}:
            raise TwilioFault(CONTENT_TYPE, f"Invalid Content-Type: '{content_type}' from {_shown(url)} is not XML")
        return twiml.parse(answer.body), url

    def notify(self, line: Line, url: str, method: str, parameters: dict[str, str]) -> None:
        """Tell the server something about a call; what is told about one call is told in order."""
        before = self._callbacks.get(line.sid)
        task = asyncio.create_task(self._deliver(before, line, url, method, parameters))
        self._callbacks[line.sid] = task

    async def told(self, line: Line) -> None:
        """Wait until all that was to be told about a call has been delivered."""
        while (task := self._callbacks.get(line.sid)) is not None:
            await asyncio.wait([task])
            if self._callbacks.get(line.sid) is task:
                del self._callbacks[line.sid]

    async def _deliver(
        self, before: asyncio.Task[None] | None, line: Line, url: str, method: str, parameters: dict[str, str]
    ) -> None:
        if before is not None:
            await asyncio.wait([before])
        try:
            answer, _ = await self._request(url, method, parameters)
        except TwilioFault as error:
            line.fault(error.fault)
            return
        if not 200 <= answer.status < 300:
            line.fault(Fault(CALLBACK, f"Call Progress: Warning Response to Callback URL: HTTP {answer.status}"))

    async def open_socket(self, url: str) -> aiohttp.ClientWebSocketResponse:
        """Open the WebSocket of a stream. Raises what aiohttp raises, and OSError."""
        headers = self._headers(url) | self._signature(url, {})
        headers["User-Agent"] = "Twilio.TmeWs/1.0"
        return await self._opened.ws_connect(
            self._where(url),
            headers=headers,
            compress=0,
            max_msg_size=4 * 1024 * 1024,
            timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
        )

    def parameters(self, line: Line) -> dict[str, str]:
        """What every request about a call says."""
        callee, caller = _country(line.to), _country(line.from_)
        said = {
            "AccountSid": self._account_sid,
            "ApiVersion": API_VERSION,
            "CallSid": line.sid,
            "CallStatus": line.status,
            "Called": line.to,
            "CalledCity": "",
            "CalledCountry": callee,
            "CalledState": "",
            "CalledZip": "",
            "Caller": line.from_,
            "CallerCity": "",
            "CallerCountry": caller,
            "CallerState": "",
            "CallerZip": "",
            "Direction": line.direction,
            "From": line.from_,
            "FromCity": "",
            "FromCountry": caller,
            "FromState": "",
            "FromZip": "",
            "To": line.to,
            "ToCity": "",
            "ToCountry": callee,
            "ToState": "",
            "ToZip": "",
        }
        if line.parent is not None:
            said["ParentCallSid"] = line.parent.sid
        if line.answered_by:
            said["AnsweredBy"] = line.answered_by
        return said

    def brief(self, line: Line) -> dict[str, str]:
        """What callbacks about a stream and about who answered say of the call."""
        return {"AccountSid": self._account_sid, "CallSid": line.sid}

    def absolute(self, url: str, base: str) -> str:
        """The address a TwiML document at `base` means by `url`."""
        return urljoin(base, url)

    def local_stream(self, url: str) -> bool:
        """A stream without TLS to the server itself, which has no public name: there is no Twilio to refuse it."""
        parts = urlsplit(url)
        return urlsplit(self.public_url).scheme == "http" and parts.scheme == "ws" and self._is_server(parts)

    @property
    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("The emulator has not been started; use it in `async with`.")
        return self._session

    async def _request(self, url: str, method: str, parameters: dict[str, str]) -> tuple[Request, str]:
        if method == "GET":
            url += ("&" if urlsplit(url).query else "?") + urlencode(parameters)
        signed = {} if method == "GET" else parameters
        headers = self._headers(url) | self._signature(url, signed)
        headers |= {
            "User-Agent": "TwilioProxy/1.1",
            "Accept": "*/*",
            "I-Twilio-Idempotency-Token": str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),
        }
        body = None if method == "GET" else urlencode(parameters).encode()
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded; charset=UTF-8"
        try:
            where = self._where(url)
            async with self._opened.request(
                method, where, data=body, headers=headers, allow_redirects=False
            ) as response:
                answered = await response.read()
                request = Request(url, method, parameters, response.status, answered)
                content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.requests.append(Request(url, method, parameters, 0, b""))
            raise TwilioFault(
                HTTP_RETRIEVAL, f"No answer from {_shown(url)}: {str(error) or type(error).__name__}"
            ) from None
        self.requests.append(request)
        return request, content_type

    def _where(self, url: str) -> str:
        """The address on this machine of a public one. Raises _NowhereError for one that is not the server's."""
        parts, server = urlsplit(url), urlsplit(self.server)
        if self._is_server(parts):
            return urlunsplit((server.scheme, server.netloc, parts.path, parts.query, ""))
        raise _NowhereError(f"{_shown(url)} cannot be reached from here: the server under test is {self.public_url}")

    def _is_server(self, parts: SplitResult) -> bool:
        for known in (urlsplit(self.public_url), urlsplit(self.server)):
            names = LOOPBACK if known.hostname in LOOPBACK else {known.hostname}
            if parts.hostname in names and parts.port == known.port:
                return True
        return False

    def _headers(self, url: str) -> dict[str, str]:
        if not self._tunnelled:
            return {}
        host = urlsplit(url).netloc
        return {"Host": host, "X-Forwarded-For": FORWARDED_FOR, "X-Forwarded-Proto": "https"}

    def _signature(self, url: str, parameters: dict[str, str]) -> dict[str, str]:
        if self._key is None:
            return {}
        signed = url + "".join(name + value for name, value in sorted(parameters.items()))
        digest = hmac.digest(self._key, signed.encode(), "sha1")
        return {"X-Twilio-Signature": base64.b64encode(digest).decode()}


class _NowhereError(OSError):
    """An address that only the real Twilio could reach."""


def timestamp() -> str:
    """Now, as callbacks say it (RFC 2822)."""
    return format_datetime(datetime.now(UTC))


def _country(number: str) -> str:
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        return ""
    return phonenumbers.region_code_for_country_code(parsed.country_code or 0)


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
