"""Placing a call: everything that is checked before Twilio is asked to dial, and what becomes of its answer."""

import asyncio
import time
from typing import Protocol

from app.core.config import TWILIO_PATH, Settings
from app.core.errors import CallError, TwilioError
from app.engine import Engine
from app.twilio.calls import Call, Calls, CallStatus
from app.twilio.numbers import check_allowed, home, parse_number
from app.twilio.quotas import Quotas
from app.twilio.rest import CallState, TwilioRest

STATUS_PATH = TWILIO_PATH + "/status"
AMD_PATH = TWILIO_PATH + "/amd"
_MACHINE_DETECTION = {"hangup": "Enable", "message": "DetectMessageEnd", "talk": None}
_RETRY_S = 5.0
_SILENCE_S = 60.0
"""A call without a conversation, so long after its ringing must have ended, has ended as well, or been put through."""
_ASKED_AT_ONCE = 10


class Exchange(Protocol):
    """What is needed of the telephone to place calls."""

    @property
    def settings(self) -> Settings: ...
    @property
    def engine(self) -> Engine: ...
    @property
    def calls(self) -> Calls: ...
    @property
    def rest(self) -> TwilioRest: ...
    @property
    def quotas(self) -> Quotas: ...


async def make_outbound_call(
    number: str, *, telephone: Exchange, who: str, idempotency_key: str | None = None
) -> tuple[Call, bool]:
    """Call `number` and return the call, and whether this request placed it.

    With an idempotency key, the same `who`, key and number give the same call for 24 hours, also while the first
    request is still on its way; only a request that certainly dialled nobody may be made again. Raises CallError with
    what our REST API answers: 400 (no such number), 403 (not allowed), 409 (the key belongs to another number), 429
    (quota), 503 (cannot place calls now); and TwilioError.
    """
    settings, keys = telephone.settings, telephone.quotas.keys
    callee = parse_number(number, home(settings).region)
    check_allowed(callee, settings)
    if idempotency_key is None:
        return await _place(callee, telephone, who), True
    earlier = keys.find(who, idempotency_key, callee)
    if earlier is not None:
        await earlier.done.wait()
        if earlier.call is None:
            raise earlier.error or _broken_off()
        return earlier.call, False
    request = keys.add(who, idempotency_key, callee)
    try:
        request.call = await _place(callee, telephone, who)
    except CallError as error:
        request.error = error
        if not _may_have_dialled(error):
            keys.forget(who, idempotency_key)
        raise
    finally:
        request.done.set()
    return request.call, True


def why_not(telephone: Exchange) -> str:
    """Why no calls can be placed with these settings, and what to set; empty when they can be."""
    settings = telephone.settings
    needed = {
        "TWILIO_ACCOUNT_SID": settings.twilio_account_sid,
        "TWILIO_AUTH_TOKEN": settings.twilio_auth_token,
        "TWILIO_PHONE_NUMBER": settings.twilio_phone_number,
        "PUBLIC_BASE_URL": settings.public_base_url or settings.twilio_api_url,  # an imitation of Twilio is near by
        "OUTBOUND_ALLOWED": settings.outbound_allowed,
    }
    missing = [name for name, value in needed.items() if not value]
    if missing:
        return f"Calls cannot be placed yet: set {', '.join(missing)}"
    if not settings.outbound_per_day or not settings.outbound_per_caller:
        return "Calls are switched off: OUTBOUND_PER_DAY or OUTBOUND_PER_CALLER is 0"
    return ""


async def _place(callee: str, telephone: Exchange, who: str) -> Call:
    """Dial once."""
    settings, quotas = telephone.settings, telephone.quotas
    _check_able(telephone)
    own = settings.twilio_phone_number or ""
    detection = _MACHINE_DETECTION[settings.voicemail]
    live = telephone.calls.live("outbound")
    if len(live) >= settings.outbound_at_once:
        await _look_after(live, telephone)
    reservation = quotas.reserve(who, live=len(telephone.calls.live("outbound")))
    try:
        sid, status = await telephone.rest.create_call(
            to=callee,
            from_=own,
            url=settings.public_voice_webhook_url,
            status_callback=settings.public_url(STATUS_PATH),
            timeout_s=settings.ring_timeout_s,
            machine_detection=detection,
            amd_callback=settings.public_url(AMD_PATH) if detection else None,
        )
        # Twilio's first report about the call may have been quicker than its answer: then it is known already.
        call = telephone.calls.add(Call(sid, "outbound", own, callee))
        if status in set(CallStatus):
            call.moved_to(CallStatus(status))
    except CallError as error:
        if not _may_have_dialled(error):
            quotas.release(reservation)
        raise
    finally:
        quotas.placed(reservation)
    return call


def _check_able(telephone: Exchange) -> None:
    """Raises CallError (503) when the assistant could not talk to whoever answers."""
    if reason := why_not(telephone):
        raise CallError(reason, code="calls_not_configured", http_status=503)
    if reason := telephone.engine.no_room_because:
        raise CallError(reason, code="no_room", http_status=503, retry_after_s=_RETRY_S)


async def _look_after(calls: list[Call], telephone: Exchange) -> None:
    """Ask Twilio about calls that nothing has been heard of: a report that got lost must not keep a line for ever."""
    late_s = time.monotonic() - telephone.settings.ring_timeout_s - _SILENCE_S
    silent = [call for call in calls if call.conversation is None and call.began_s < late_s][:_ASKED_AT_ONCE]
    states = await asyncio.gather(*(telephone.rest.fetch(call.sid) for call in silent), return_exceptions=True)
    for call, state in zip(silent, states, strict=True):
        if isinstance(state, CallState) and state.status in set(CallStatus):
            call.moved_to(CallStatus(state.status))
        elif isinstance(state, TwilioError) and state.http_status == 404:
            call.moved_to(CallStatus.FAILED, "Twilio does not know this call any more.")


def _may_have_dialled(error: CallError) -> bool:
    return isinstance(error, TwilioError) and error.outcome_unknown


def _broken_off() -> TwilioError:
    return TwilioError(
        "The first request with this idempotency key was broken off, and it is not known whether the call was placed: "
        "look at the call log of the Twilio console",
        code="twilio_no_answer",
        http_status=504,
        outcome_unknown=True,
    )
