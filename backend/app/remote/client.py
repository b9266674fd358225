"""HTTP and WebSocket connections to one service, kept open between requests.

A request that is given up closes its connection at once, so that the service stops working (and charging) within
milliseconds. Nothing is sent twice here: `chain.py` decides about asking again.
"""

import asyncio
import ipaddress
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson

from app.core.errors import ServiceError
from app.remote.faults import nonsense, refusal, unreachable

CONNECT_TIMEOUT_S = 3.0
KEEPALIVE_S = 55.0
"""How long an idle connection is kept; services close theirs after 5 s (uvicorn) to some minutes."""
MAX_ERROR_BYTES = 65_536
ERROR_BODY_S = 1.0
"""How long the explanation of a refusal is waited for; the status says most of it."""
MAX_ANSWER_BYTES = 4 << 20
"""Of an answer that is read as a whole: a transcript with all its details, a list."""
CLOSE_TIMEOUT_S = 0.5
"""How long a service has to take leave of a WebSocket."""

log = logging.getLogger(__name__)


class ServiceClient:
    """Asks one service. `name` is what it is called in messages, `base_url` ends before `/chat/completions`. Requests
    raise ServiceError for everything that is not the answer they ask for. Close it once at the end."""

    def __init__(self, name: str, base_url: str, key: str | None = None) -> None:
        self.name = name
        self._base_url = base_url.rstrip("/")
        # Compressed, a few kilobytes can be gigabytes, and a stream that is being compressed comes in lumps.
        self._headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._made: aiohttp.ClientSession | None = None
        self._ahead: asyncio.Task[None] | None = None
        self._used_s = float("-inf")
        self._closed = False

    @property
    def _session(self) -> aiohttp.ClientSession:
        """Made on first use: it belongs to the loop that runs then."""
        if self._closed:
            raise ServiceError(f"The connections to {self.name} are closed.", code="service_unreachable", refused=True)
        if self._made is None:
            self._made = aiohttp.ClientSession(
                # There are as many as conversations need: with a limit, those that listen live would keep out the rest.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S),
                headers=self._headers,
                proxy=_proxy_for(self._base_url),  # not trust_env: that reads .netrc with every request
                trace_configs=[_no_redirects()],
            )
        return self._made

    @asynccontextmanager
    async def post(
        self,
        path: str,
        *,
        model: str,
        json: dict[str, Any] | None = None,
        form: Callable[[], aiohttp.FormData] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and wait for the head of its answer; the body is read by whoever asks, and errors of reading
        come out as ServiceError as well. Leaving before the end closes the connection."""
        try:
            async with await self._send(path, json, form) as response:
                if response.status != 200:
                    raise await self._refusal(response, model)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unreachable(self.name, error) from error

    async def _send(
        self, path: str, json: dict[str, Any] | None, form: Callable[[], aiohttp.FormData] | None
    ) -> aiohttp.ClientResponse:
        self._used_s = asyncio.get_running_loop().time()
        kind = None if form is not None else {"Content-Type": "application/json"}
        for last in (False, True):
            body = form() if form is not None else orjson.dumps(json)
            try:
                return await self._session.post(self._base_url + path, data=body, headers=kind, allow_redirects=False)
            except aiohttp.ClientOSError as error:
                # An idle connection was being closed as the request was to be written to it: none of it has left.
                if last or not isinstance(error.__cause__, aiohttp.ClientConnectionResetError):
                    raise
        raise AssertionError("either of them returns or raises")

    async def post_for_json(
        self,
        path: str,
        *,
        model: str,
        json: dict[str, Any] | None = None,
        form: Callable[[], aiohttp.FormData] | None = None,
    ) -> dict[str, Any]:
        """Send a request and read its answer, a JSON object."""
        async with self.post(path, model=model, json=json, form=form) as response:
            body = await self._whole(response)
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise nonsense(self.name, f"{response.content_type!r} in place of JSON") from None
        if not isinstance(answer, dict):
            raise nonsense(self.name, "JSON that is no object")
        return answer

    @asynccontextmanager
    async def websocket(self, path: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket of the service, `path` with its query. Raises ServiceError when it is not accepted or breaks."""
        address = "ws" + self._base_url.removeprefix("http") + path
        try:
            async with self._session.ws_connect(
                address,
                heartbeat=20.0,
                max_msg_size=4 << 20,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
            ) as socket:
                yield socket
        except aiohttp.WSServerHandshakeError as error:
            raise refusal(self.name, error.status, error.headers or {}, b"", model="realtime") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unreachable(self.name, error) from error

    def open_ahead(self) -> None:
        """Have connections ready for the requests that will follow soon: two, for the words of a reply still come when
        their speech is asked for. It asks for the list of models, which costs nothing. Does nothing when there are
        connections already, and never fails."""
        now_s = asyncio.get_running_loop().time()
        if self._closed or now_s - self._used_s < KEEPALIVE_S / 2 or (self._ahead and not self._ahead.done()):
            return
        self._used_s = now_s
        self._ahead = asyncio.create_task(self._connect_ahead())

    async def _connect_ahead(self) -> None:
        await asyncio.gather(self._connect(), self._connect())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S * 2):
                async with self._session.get(self._base_url + "/models", allow_redirects=False) as answer:
                    await self._whole(answer)
        except (aiohttp.ClientError, OSError, TimeoutError, ServiceError) as error:
            log.debug("%s: no connection ahead of need: %s", self.name, type(error).__name__)

    async def models(self) -> list[str]:
        """Names of the models that the service offers to this key; empty when it does not say. Raises ServiceError."""
        answer = await self.get_json("/models")
        listed = answer.get("data") if isinstance(answer, dict) else None
        return [str(entry.get("id")) for entry in listed or () if isinstance(entry, dict)]

    async def get_json(self, path: str) -> Any:
        """What the service has there. Raises ServiceError."""
        try:
            async with self._session.get(self._base_url + path, allow_redirects=False) as response:
                if response.status != 200:
                    raise await self._refusal(response, path)
                return orjson.loads(await self._whole(response))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unreachable(self.name, error) from error
        except orjson.JSONDecodeError:
            raise nonsense(self.name, "something other than JSON") from None

    async def close(self) -> None:
        """Close all connections; requests that are still under way fail."""
        self._closed = True
        if self._ahead:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)
        if self._made:
            await self._made.close()

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        """The body of an answer. Raises ServiceError for one without an end."""
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise nonsense(self.name, "an answer without an end")
        return bytes(body)

    async def _refusal(self, response: aiohttp.ClientResponse, model: str) -> ServiceError:
        """What an answer with another status than 200 means."""
        body = bytearray()
        with suppress(TimeoutError):
            async with asyncio.timeout(ERROR_BODY_S):
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) >= MAX_ERROR_BYTES:
                        break
        return refusal(self.name, response.status, response.headers, bytes(body), model=model)


async def pieces(response: aiohttp.ClientResponse, service: str) -> AsyncGenerator[bytes, None]:
    """The body of an answer as it arrives. Raises ServiceError when it breaks off."""
    try:
        async for piece in response.content.iter_any():
            yield piece
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise unreachable(service, error) from error


def _no_redirects() -> aiohttp.TraceConfig:
    """WebSockets cannot be told not to follow to another address, where speech has no business."""

    async def refuse(_: object, __: object, redirect: aiohttp.TraceRequestRedirectParams) -> None:
        answer = redirect.response
        answer.close()
        raise aiohttp.WSServerHandshakeError(answer.request_info, (), status=answer.status, headers=answer.headers)

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(refuse)
    return config


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for `url`; none for this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or _is_loopback(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxy = getproxies().get(parts.scheme)
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
