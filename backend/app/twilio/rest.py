"""Twilio's REST API for calls: place one, hang one up, give one new instructions, ask how one stands.

The official SDK builds the requests and reads the answers; how they travel is ours. The SDK's own HTTP client has no
time-out for connecting, cannot tell a request that never left from one whose answer got lost, and logs the account.
Here every request has a connection of its own and goes out once: a retry could dial twice.
"""

# mypy: disable-error-code="import-untyped"
import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import orjson
from twilio.base.exceptions import TwilioRestException, TwilioServiceException
from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.rest import Client
from twilio.rest.api.v2010.account.call import CallContext

from app.core.config import Settings
from app.core.errors import TwilioError
from app.twilio.rest_errors import explained

CONNECT_TIMEOUT_S = 5.0
TOTAL_TIMEOUT_S = 15.0
CALL_EVENTS = ("initiated", "ringing", "answered", "completed")
"""What Twilio reports about a call on its way; by itself it would report the end only."""

_SID = re.compile(r"CA[0-9A-Za-z]{1,64}")
_NOT_IN_PROGRESS = 21220
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


class CallState(NamedTuple):
    """How a call stands at Twilio."""

    sid: str
    status: str
    """Twilio's CallStatus: queued, ringing, in-progress, completed, busy, failed, no-answer, canceled."""
    answered_by: str
    duration_s: int
    """Seconds that were talked; 0 while the call goes on."""


class TwilioRest:
    """The calls of one Twilio account. Every method raises TwilioError; `close()` once at the end."""

    def __init__(self, settings: Settings) -> None:
        token = settings.twilio_auth_token
        self._client: Client | None = None
        self._http: _Http | None = None
        if settings.twilio_account_sid and token:
            self._http = _Http(settings.twilio_api_url)
            self._client = Client(settings.twilio_account_sid, token.get_secret_value(), http_client=self._http)

    @property
    def configured(self) -> bool:
        """There is an account to ask for."""
        return self._client is not None

    async def create_call(
        self,
        *,
        to: str,
        from_: str,
        url: str,
        status_callback: str,
        timeout_s: int,
        machine_detection: str | None = None,
        amd_callback: str | None = None,
    ) -> tuple[str, str]:
        """Place a call and return its SID and status. `to` and `from_` are E.164; Twilio asks `url` for TwiML when it
        is answered, and reports to `status_callback`. `timeout_s` is how long it rings. `machine_detection` is None,
        Enable (who answered) or DetectMessageEnd (and when its announcement is over); the finding goes to
        `amd_callback` while the call goes on.

        A TwilioError with `outcome_unknown` means that the call may have been placed all the same.
        """
        options: dict[str, Any] = {}
        if machine_detection:
            options["machine_detection"] = machine_detection
            if amd_callback:
                options |= {
                    "async_amd": "true",
                    "async_amd_status_callback": amd_callback,
                    "async_amd_status_callback_method": "POST",
                }
        async with self._asking(dials=True) as client:
            call = await client.calls.create_async(
                to=to,
                from_=from_,
                url=url,
                method="POST",
                status_callback=status_callback,
                status_callback_method="POST",
                status_callback_event=list(CALL_EVENTS),
                timeout=timeout_s,
                **options,
            )
            if not call.sid:
                raise _GarbledError
            return call.sid, call.status or "queued"

    async def complete(self, sid: str) -> None:
        """Hang up, whether the call is queued, rings or goes on. A call that is over already is left as it is."""
        try:
            async with self._asking() as client:
                await _call(client, sid).update_async(status="completed")
        except TwilioError as error:
            if error.twilio_code != _NOT_IN_PROGRESS:
                raise

    async def redirect(self, sid: str, twiml: str) -> None:
        """Give a call that goes on these instructions in place of what it is doing (a media stream ends)."""
        async with self._asking() as client:
            await _call(client, sid).update_async(twiml=twiml)

    async def fetch(self, sid: str) -> CallState:
        """Ask how a call stands."""
        async with self._asking() as client:
            call = await _call(client, sid).fetch_async()
            if not call.status:
                raise _GarbledError
            return CallState(call.sid or sid, call.status, call.answered_by or "", int(call.duration or 0))

    async def close(self) -> None:
        """End the connections. Nothing can be asked after that."""
        if self._http is not None:
            await self._http.close()

    @asynccontextmanager
    async def _asking(self, *, dials: bool = False) -> AsyncIterator[Client]:
        """The SDK's client; whatever goes wrong with it becomes a TwilioError."""
        if self._client is None:
            raise TwilioError(
                "There is no Twilio account: set TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN",
                code="twilio_not_configured",
                http_status=503,
            )
        if self._http is None or self._http.closed:
            raise TwilioError("The server is shutting down", code="shutting_down", http_status=503)
        try:
            yield self._client
        except (TwilioRestException, TwilioServiceException) as error:
            raise explained(error, dials=dials) from None
        except _NEVER_SENT as error:
            raise TwilioError(
                f"Twilio cannot be reached, and nothing was asked of it ({type(error).__name__}): check the network "
                "and TWILIO_API_URL",
                code="twilio_unreachable",
            ) from error
        except TimeoutError:
            raise _lost(f"Twilio did not answer within {TOTAL_TIMEOUT_S:.0f} s", 504, dials=dials) from None
        except httpx.HTTPError as error:
            reason = f"the connection to Twilio broke before its answer came ({type(error).__name__})"
            raise _lost(reason, 502, dials=dials) from error
        except _GarbledError:
            raise _lost("Twilio's answer is not what its API gives (check TWILIO_API_URL)", 502, dials=dials) from None


class _GarbledError(Exception):
    """An answer that says it went well and cannot be read."""


class _Http(AsyncHttpClient):  # type: ignore[misc] # the SDK has no types
    """How the SDK's requests travel. `base_url` takes the place of https://api.twilio.com."""

    def __init__(self, base_url: str | None) -> None:
        super().__init__(logger=None, is_async=True, timeout=TOTAL_TIMEOUT_S)
        self._base_url = base_url
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(TOTAL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            # A kept connection that the other side is just closing looks like a lost answer.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=base_url is None,  # proxies lead to Twilio, not to an imitation of it on this machine
        )

    @property
    def closed(self) -> bool:
        return self._http.is_closed

    async def request(
        self,
        method: str,
        url: str,
        params: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
        allow_redirects: bool = False,
    ) -> Response:
        """Ask once. Raises httpx's errors, TimeoutError, and _GarbledError for a success without a JSON object."""
        if self._base_url:
            url = re.sub(r"^https://[^/]+", lambda _: self._base_url or "", url)
        try:
            async with asyncio.timeout(timeout or TOTAL_TIMEOUT_S):
                answer = await self._http.request(method, url, params=params, data=data, headers=headers, auth=auth)
        except (httpx.ReadTimeout, httpx.WriteTimeout):
            raise TimeoutError from None
        if answer.is_success and not _is_object(answer.content):
            raise _GarbledError
        return Response(answer.status_code, answer.text, answer.headers)

    async def close(self) -> None:
        await self._http.aclose()


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(orjson.loads(body), dict)
    except ValueError:
        return False


def _call(client: Client, sid: str) -> CallContext:
    """The SDK puts the SID into an address as it is: nothing but a SID may come so far."""
    if not _SID.fullmatch(sid):
        raise TwilioError("That is not the SID of a call", code="unknown_call", http_status=404)
    return client.calls(sid)


def _lost(reason: str, http_status: int, *, dials: bool) -> TwilioError:
    """What was asked may have been done."""
    what = "whether the call was placed" if dials else "whether it did what was asked"
    advice = "look at the call log of the Twilio console before trying again" if dials else "try again"
    message = f"{reason[0].upper()}{reason[1:]}, so it is not known {what}: {advice}"
    return TwilioError(message, code="twilio_no_answer", http_status=http_status, outcome_unknown=True)
