"""The telephone over HTTP: place a call, watch it, put it through or on hold, hang it up.

Every answer that is not the thing asked for has one shape: {"error": {"code", "message", "twilio_code"?}}. Nothing of a
request is looked at before it is known that whoever sent it may.
"""

import logging
import math
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from app.api.call_events import CallEvents
from app.api.call_shapes import (
    TWILIO_TROUBLE,
    UNKNOWN_CALL,
    Body,
    CallSnapshot,
    Holding,
    NewCall,
    NewTransfer,
    PhoneState,
    errors,
    takes,
)
from app.core.access import who_calls
from app.core.errors import AccessError, AhoyError, CallError, TwilioError
from app.twilio.calls import Call
from app.twilio.numbers import check_allowed, home, parse_number
from app.twilio.outbound import Exchange, make_outbound_call, why_not

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4096
_KEY = re.compile(r"[!-~]{1,255}")
_LOST_PLUS = re.compile(r"^ (?=[1-9])")
"""A + in an address stands for a space: ?number=+1202... arrives like this, and nothing else begins with a space."""
_Body = TypeVar("_Body", bound=Body)


class Telephone(Exchange, Protocol):
    """What is needed of the telephone here."""

    async def hang_up(self, call: Call) -> None: ...
    async def transfer(self, call: Call, number: str, *, warm: bool) -> None: ...
    def hold(self, call: Call, held: bool) -> None: ...


class _Route(APIRoute):
    """Answers every error in our shape, FastAPI's own included."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except AhoyError as error:
                response = _error(error)
            except RequestValidationError:
                response = _error(CallError("This address does not take such a request", code="bad_request"))
            except Exception:
                log.exception("A request about a call failed")
                response = _error(AhoyError("Something went wrong in the server; its log says more"))
            response.headers["Cache-Control"] = "no-store"
            return response

        return answer


router = APIRouter(prefix="/api", tags=["telephone"], route_class=_Route)


def _error(error: AhoyError) -> JSONResponse:
    details: dict[str, Any] = {"code": error.code, "message": error.message}
    http_status, headers = 500, {}
    if isinstance(error, CallError | AccessError):
        http_status = error.http_status
    if isinstance(error, TwilioError) and error.twilio_code is not None:
        details["twilio_code"] = error.twilio_code
    if isinstance(error, CallError) and error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": details}, http_status, headers)


# --- what the routes need


def the_telephone(request: Request) -> Telephone:
    """The telephone of the application."""
    telephone: Telephone = request.app.state.telephone
    return telephone


Phone = Annotated[Telephone, Depends(the_telephone)]


async def the_caller(request: Request, telephone: Phone) -> str:
    """Who asks; AccessError for whoever may not."""
    client = request.client.host if request.client else None
    return who_calls(client, request.headers, telephone.settings)


Who = Annotated[str, Depends(the_caller)]


async def the_call(sid: str, _: Who, telephone: Phone) -> Call:
    """The call that the address names."""
    call = telephone.calls.get(sid)
    if call is None:
        raise CallError("There is no such call, or it ended long ago", code="unknown_call", http_status=404)
    return call


TheCall = Annotated[Call, Depends(the_call)]


def _json(body: type[_Body]) -> Callable[..., Awaitable[_Body]]:
    """Reads the request's JSON; no body at all is one without fields."""

    async def read(request: Request, _: Who) -> _Body:
        data = await _data(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if data and kind != "application/json":
            raise CallError(
                "The body is not JSON: send Content-Type: application/json", code="not_json", http_status=415
            )
        try:
            return body.model_validate_json(data or b"{}")
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, fault["loc"])) or "the body"
            raise CallError(f"{where}: {fault['msg']}", code="bad_request") from None

    return read


async def _data(request: Request) -> bytes:
    data = bytearray()
    try:
        async for piece in request.stream():
            data += piece
            if len(data) > MAX_BODY_BYTES:
                raise CallError(
                    f"The body is larger than {MAX_BODY_BYTES} bytes", code="body_too_large", http_status=413
                )
    except ClientDisconnect:
        raise CallError("The request broke off", code="bad_request") from None
    return bytes(data)


def _number(request: Request, body: NewCall) -> str:
    """The number to call, which may be given in the address or in the body."""
    given = [_LOST_PLUS.sub("+", text) for text in request.query_params.getlist("number")]
    if body.number is not None:
        given.append(body.number)
    if not given:
        raise CallError(
            'No number was given: send {"number": "+12025550123"}, or ?number=%2B12025550123', code="not_a_number"
        )
    if len(set(given)) > 1:
        raise CallError("Different numbers were given: send one, in the body or in the address", code="bad_request")
    return given[0]


def _idempotency_key(request: Request, body: NewCall) -> str | None:
    given = request.headers.getlist("idempotency-key")
    if body.idempotency_key is not None:
        given.append(body.idempotency_key)
    if len(set(given)) > 1:
        raise CallError("Different idempotency keys were given: send one", code="bad_request")
    if given and not _KEY.fullmatch(given[0]):
        raise CallError("An idempotency key is 1 to 255 visible ASCII characters", code="bad_request")
    return given[0] if given else None


# --- the routes


@router.get("/phone", response_model=PhoneState, responses=errors(), summary="Whether calls can be placed")
async def get_phone(telephone: Phone, _: Who) -> PhoneState:
    """Whether calls can be placed here, why not, and how numbers are read."""
    reason, where = why_not(telephone), home(telephone.settings)
    return PhoneState(
        outbound=not reason,
        reason=reason,
        region=where.region,
        country_code=where.country_code,
        allowed=list(telephone.settings.outbound_allowed),
    )


@router.post(
    "/call",
    status_code=201,
    response_model=CallSnapshot,
    summary="Place a call",
    responses={
        200: {"model": CallSnapshot, "description": "The call of an earlier request with the same key."},
        **errors(
            {
                400: "Not a number that can be dialled, or not a request like this.",
                403: "Not from here, not by this page, or not to this number: see OUTBOUND_ALLOWED.",
                409: "The idempotency key belongs to another number.",
                429: "OUTBOUND_PER_DAY or OUTBOUND_PER_CALLER is used up; Retry-After says for how long.",
                503: "Calls are not set up, the models are being loaded, or all lines are busy.",
            },
            TWILIO_TROUBLE,
        ),
    },
    openapi_extra=takes(NewCall, required=False),
)
async def post_call(
    request: Request,
    who: Who,
    telephone: Phone,
    body: Annotated[NewCall, Depends(_json(NewCall))],
    number: Annotated[str | None, Query(description="Instead of the body; + is written %2B here.")] = None,
    idempotency_key: Annotated[str | None, Header(description="Names this call; send it again when unsure.")] = None,
) -> Response:
    """Calls a number; the assistant talks to whoever answers. The answer comes when Twilio has taken the call over: it
    is queued then, and rings in a moment.

    A request with an idempotency key can be repeated safely for 24 hours: the same key and number never dial twice.
    """
    call, new = await make_outbound_call(
        _number(request, body), telephone=telephone, who=who, idempotency_key=_idempotency_key(request, body)
    )
    return JSONResponse(call.as_json(), 201 if new else 200, {"Location": f"/api/call/{call.sid}"})


@router.get("/call/{sid}", response_model=CallSnapshot, responses=errors(UNKNOWN_CALL), summary="How a call stands")
async def get_call(call: TheCall) -> Response:
    """The call as it stands, with what was said. Calls that are over are remembered for a while."""
    return JSONResponse(call.as_json())


@router.get(
    "/call/{sid}/events",
    status_code=200,
    response_class=CallEvents,
    responses={
        200: {
            "description": "Server-sent events. Each `data:` is the whole call as GET /api/call/{sid} gives it. The "
            "stream ends when the call is over.",
        },
        **errors(UNKNOWN_CALL, {503: "Too many calls are being watched."}),
    },
    summary="Watch a call",
)
async def get_call_events(call: TheCall, telephone: Phone) -> Response:
    """The call as it stands, now and after every change, until it is over."""
    return CallEvents(call, closing=lambda: telephone.engine.closing)


@router.delete(
    "/call/{sid}", response_model=CallSnapshot, responses=errors(UNKNOWN_CALL, TWILIO_TROUBLE), summary="Hang up"
)
async def delete_call(call: TheCall, telephone: Phone) -> Response:
    """Ends the call, whether it rings or goes on. One that is over stays as it is."""
    await telephone.hang_up(call)
    return JSONResponse(call.as_json())


@router.post(
    "/call/{sid}/transfer",
    response_model=CallSnapshot,
    responses=errors(
        UNKNOWN_CALL,
        {
            400: "Not a number that can be dialled, or none where TRANSFER_NUMBER is not set.",
            403: "Not from here, not by this page, or not to this number: see OUTBOUND_ALLOWED.",
            409: "The call is not in conversation.",
            429: "OUTBOUND_PER_DAY or OUTBOUND_PER_CALLER is used up.",
        },
        TWILIO_TROUBLE,
    ),
    openapi_extra=takes(NewTransfer, required=False),
    summary="Put a call through",
)
async def post_transfer(
    call: TheCall, who: Who, telephone: Phone, body: Annotated[NewTransfer, Depends(_json(NewTransfer))]
) -> Response:
    """Puts the caller through to another number. The caller comes back when nobody answers there."""
    settings = telephone.settings
    number = settings.transfer_number
    if body.number is not None:
        number = parse_number(body.number, home(settings).region)
        if number != settings.transfer_number:
            check_allowed(number, settings)
    if number is None:
        raise CallError("No number was given, and TRANSFER_NUMBER is not set", code="not_a_number")
    # It dials, so it counts, though not as a line of its own: one of ours is given up for it.
    reservation = telephone.quotas.reserve(who, live=None)
    try:
        await telephone.transfer(call, number, warm=body.warm)
    except CallError as error:
        if not (isinstance(error, TwilioError) and error.outcome_unknown):
            telephone.quotas.release(reservation)
        raise
    return JSONResponse(call.as_json())


@router.post(
    "/call/{sid}/hold",
    response_model=CallSnapshot,
    responses=errors(UNKNOWN_CALL, {400: "Not a request like this.", 409: "The call is not in conversation."}),
    openapi_extra=takes(Holding, required=True),
    summary="Put a call on hold, or take it back",
)
async def post_hold(call: TheCall, telephone: Phone, body: Annotated[Holding, Depends(_json(Holding))]) -> Response:
    """A caller on hold is not heard, and is asked to wait now and then."""
    telephone.hold(call, body.held)
    return JSONResponse(call.as_json())
