"""The REST API for the official SDK: making, changing and asking for calls.

Source: twilio.com/docs/voice/api/call-resource, and the codes' pages below twilio.com/docs/api/errors.
"""

import asyncio
import base64
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from app.emulator.behaviours import Refused
from app.emulator.dialling import E164
from app.emulator.legs import Callback, Detection, Leg, Order
from app.emulator.line import FINAL, Change, End, Line

if TYPE_CHECKING:
    from app.emulator.exchange import Exchange

MAX_TWIML = 4000
"""Characters of the parameter Twiml."""
_PLACED = {"To", "From", "Url", "Twiml", "Method", "Timeout", "TimeLimit"}
_WATCHED = {"StatusCallback", "StatusCallbackMethod", "StatusCallbackEvent"}
_DETECTED = {"MachineDetection", "MachineDetectionTimeout"}
_DETECTED_LATER = {"AsyncAmd", "AsyncAmdStatusCallback", "AsyncAmdStatusCallbackMethod"}
CREATE = frozenset(_PLACED | _WATCHED | _DETECTED | _DETECTED_LATER)
"""The parameters of a new call that are known here."""
UPDATE = frozenset({"Status", "Url", "Twiml", "Method"})
STATUS_EVENTS = frozenset({"initiated", "ringing", "answered", "completed"})

Mishap = Literal["lose the answer", "lose the request", "hang"]


class Refusal(Exception):  # noqa: N818 (an answer, not a failure)
    """An error as Twilio answers it."""

    def __init__(self, http_status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request to the API, as it came."""

    method: str
    path: str
    parameters: tuple[tuple[str, str], ...]


class RestApi:
    """Answers for one exchange."""

    def __init__(self, exchange: "Exchange") -> None:
        self.requests: list[ApiRequest] = []
        self._exchange = exchange
        self._refusals: list[Refusal] = []
        self._mishaps: list[Mishap] = []
        self._times: dict[str, datetime] = {}
        self._release = asyncio.Event()

    def refuse_next(self, http_status: int = 429, code: int = 20429, message: str = "Too Many Requests") -> None:
        """Answer the next request with an error (by default that there were too many)."""
        self._refusals.append(Refusal(http_status, code, message))

    def next_mishap(self, mishap: Mishap) -> None:
        """What the network does to the next request: it is lost, or done and the answer lost, or nothing comes."""
        self._mishaps.append(mishap)

    def close(self) -> None:
        """Let go of the requests that hang."""
        self._release.set()

    def application(self) -> web.Application:
        """The web application."""
        application = web.Application(client_max_size=1_000_000)
        application.router.add_route("*", "/{path:.*}", self._answer)
        return application

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        mishap = self._mishaps.pop(0) if self._mishaps else None
        if mishap == "lose the request":
            return self._cut(request)
        if mishap == "hang":
            await self._release.wait()
        try:
            answer = await self._route(request)
        except Refusal as refusal:
            answer = web.json_response(
                {
                    "code": refusal.code,
                    "message": refusal.message,
                    "more_info": f"https://www.twilio.com/docs/errors/{refusal.code}",
                    "status": refusal.http_status,
                },
                status=refusal.http_status,
            )
        return self._cut(request) if mishap == "lose the answer" else answer

    def _cut(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    async def _route(self, request: web.Request) -> web.Response:
        body = await request.text()
        parameters = parse_qsl(body, keep_blank_values=True, strict_parsing=bool(body))
        self.requests.append(ApiRequest(request.method, request.path, tuple(parameters)))
        self._authenticate(request)
        if self._refusals:
            raise self._refusals.pop(0)
        calls = f"/2010-04-01/Accounts/{self._exchange.account_sid}/Calls"
        if request.path == calls + ".json":
            if request.method != "POST":
                raise Refusal(405, 20004, "Method not allowed")
            return self._create(parameters)
        one = re.fullmatch(re.escape(calls) + r"/(CA[0-9a-f]{32})\.json", request.path)
        line = self._exchange.lines.get(one.group(1)) if one else None
        if line is None:
            raise Refusal(404, 20404, f"The requested resource {request.path} was not found")
        if request.method == "GET":
            return web.json_response(self._resource(line))
        if request.method != "POST":
            raise Refusal(405, 20004, "Method not allowed")
        return self._update(line, parameters)

    def _authenticate(self, request: web.Request) -> None:
        if self._exchange.auth_token is None:
            return
        expected = base64.b64encode(f"{self._exchange.account_sid}:{self._exchange.auth_token}".encode()).decode()
        if not hmac.compare_digest(request.headers.get("Authorization", ""), f"Basic {expected}"):
            raise Refusal(401, 20003, "Authenticate")

    def _create(self, given: list[tuple[str, str]]) -> web.Response:
        values = _single(given, CREATE, several={"StatusCallbackEvent"})
        to, from_ = values.get("To", ""), values.get("From", "")
        if not to:
            raise Refusal(400, 21201, "No 'To' number is specified")
        if not from_:
            raise Refusal(400, 21213, "No 'From' number is specified")
        if not E164.fullmatch(to):
            raise Refusal(400, 21211, f"The phone number you are attempting to call, {to}, is not valid.")
        if not E164.fullmatch(from_):
            raise Refusal(400, 21212, f"The source phone number provided, {from_}, is not a valid phone number.")
        if from_ not in self._exchange.numbers:
            raise Refusal(
                400, 21210, f"The source phone number provided, {from_}, is not yet verified for your account."
            )
        behaviour = self._exchange.behaviour(to)
        if isinstance(behaviour, Refused):
            raise Refusal(behaviour.http_status, behaviour.code, behaviour.message)
        order = Order(
            **_document(values, needed=True),
            timeout_s=_number(values, "Timeout", 1, 600, 60),
            detection=_detection(values),
        )
        events = tuple(value for name, value in given if name == "StatusCallbackEvent") or ("completed",)
        if wrong := set(events) - STATUS_EVENTS:
            raise Refusal(400, 21626, f"Invalid StatusCallbackEvent: {sorted(wrong)}")
        callback = None
        if url := _address(values, "StatusCallback", 21609):
            callback = Callback(url, _method(values, "StatusCallbackMethod"), events)
        _number(values, "TimeLimit", 1, 86_400, 14_400)
        line = self._exchange.new_line(from_, to, "outbound-api")
        self._times[line.sid] = datetime.now(UTC)
        leg = Leg(self._exchange, line, callback)
        leg.status("queued")
        answer = web.json_response(self._resource(line), status=201)
        self._exchange.place(line, leg.outbound(order, behaviour))
        return answer

    def _update(self, line: Line, given: list[tuple[str, str]]) -> web.Response:
        values = _single(given, UPDATE)
        status = values.get("Status")
        if status is not None and values.keys() != {"Status"}:
            raise Refusal(400, 20001, "Status goes with no other parameter")
        if status not in {None, "completed", "canceled"}:
            raise Refusal(400, 20001, f"Status '{status}' is not one of completed, canceled")
        if line.status in FINAL:
            raise Refusal(400, 21220, "Call is not in-progress. Cannot redirect.")
        if status == "completed" or (status == "canceled" and line.answered_s is None):
            line.event("rest", status)
            line.order(End("canceled"))
        elif status is None:
            change = _document(values, needed=True)
            if line.answered_s is None:
                raise Refusal(400, 21220, "Call is not in-progress. Cannot redirect.")
            if line.direction == "outbound-dial":
                raise Refusal(400, 20001, "The local phone cannot redirect a leg that <Dial> made")
            line.event("rest", "new TwiML")
            line.order(Change(**change))
        return web.json_response(self._resource(line))

    def _resource(self, line: Line) -> dict[str, Any]:
        account, calls = self._exchange.account_sid, f"/2010-04-01/Accounts/{self._exchange.account_sid}/Calls"
        made = format_datetime(self._times.setdefault(line.sid, datetime.now(UTC)))
        over = line.status in FINAL
        return {
            "sid": line.sid,
            "account_sid": account,
            "parent_call_sid": line.parent.sid if line.parent else None,
            "to": line.to,
            "to_formatted": line.to,
            "from": line.from_,
            "from_formatted": line.from_,
            "status": "queued" if line.status == "initiated" else line.status,
            "direction": line.direction,
            "answered_by": line.answered_by or None,
            "api_version": "2010-04-01",
            "date_created": made,
            "date_updated": made,
            "start_time": made if line.answered_s is not None else None,
            "end_time": format_datetime(datetime.now(UTC)) if over else None,
            "duration": str(line.duration_s) if over else None,
            "price": None,
            "price_unit": "USD",
            "phone_number_sid": None,
            "forwarded_from": None,
            "group_sid": None,
            "caller_name": None,
            "queue_time": "0",
            "trunk_sid": None,
            "annotation": None,
            "uri": f"{calls}/{line.sid}.json",
            "subresource_uris": {},
        }


def _single(given: list[tuple[str, str]], known: frozenset[str], several: set[str] | None = None) -> dict[str, str]:
    """Each parameter once. Twilio ignores what it does not know; here that is refused, since it is a slip."""
    values: dict[str, str] = {}
    for name, value in given:
        if name not in known:
            raise Refusal(400, 20001, f"The local phone does not know the parameter '{name}' ({sorted(known)})")
        if name in values and name not in (several or set()):
            raise Refusal(400, 20001, f"The parameter '{name}' is given twice")
        values[name] = value
    return values


def _document(values: dict[str, str], *, needed: bool) -> dict[str, Any]:
    url, twiml = _address(values, "Url", 21205), values.get("Twiml", "")
    if url and twiml:
        raise Refusal(400, 20001, "Url and Twiml exclude each other")
    if needed and not url and not twiml:
        raise Refusal(400, 21205, "Url parameter is required.")
    if len(twiml) > MAX_TWIML:
        raise Refusal(400, 20001, f"Twiml has {len(twiml)} characters; {MAX_TWIML} is the most")
    return {"url": url, "twiml": twiml, "method": _method(values, "Method")}


def _detection(values: dict[str, str]) -> Detection | None:
    mode, asynchronous = values.get("MachineDetection"), values.get("AsyncAmd", "false")
    callback = _address(values, "AsyncAmdStatusCallback", 20001)
    _number(values, "MachineDetectionTimeout", 3, 59, 30)
    if asynchronous not in {"true", "false"}:
        raise Refusal(400, 20001, f"AsyncAmd '{asynchronous}' is not true or false")
    if _method(values, "AsyncAmdStatusCallbackMethod") != "POST":
        raise Refusal(400, 20001, "AsyncAmdStatusCallbackMethod can only be POST")
    if mode is None:
        if callback or asynchronous == "true":
            raise Refusal(400, 20001, "AsyncAmd needs MachineDetection")
        return None
    if mode not in {"Enable", "DetectMessageEnd"}:
        raise Refusal(400, 20001, f"MachineDetection '{mode}' is not Enable or DetectMessageEnd")
    if (asynchronous == "true") != bool(callback):
        raise Refusal(400, 20001, "AsyncAmd=true and AsyncAmdStatusCallback belong together")
    return Detection(mode, callback)


def _address(values: dict[str, str], name: str, code: int) -> str:
    url = values.get(name, "")
    parts = urlsplit(url)
    if url and (parts.scheme not in {"http", "https"} or not parts.hostname or "_" in parts.hostname):
        raise Refusal(400, code, f"{name} is not a valid URL: {url}")
    return url


def _method(values: dict[str, str], name: str) -> str:
    method = values.get(name, "POST")
    if method not in {"GET", "POST"}:
        raise Refusal(400, 21403, f"{name} '{method}' is not GET or POST")
    return method


def _number(values: dict[str, str], name: str, least: int, most: int, default: int) -> int:
    text = values.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,6}", text) or not least <= int(text) <= most:
        raise Refusal(400, 20001, f"{name} '{text}' is not a whole number from {least} to {most}")
    return int(text)
