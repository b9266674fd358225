"""What Twilio asks this server: what to do with a call, what comes next, and what became of it.

Every request is checked (`signature.py`) before anything is looked at. Answers are TwiML, or nothing (204) where Twilio
only tells. Source of the fields: twilio.com/docs/voice/twiml#twilios-request-to-your-application.
"""

import logging
import re
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from starlette.datastructures import ImmutableMultiDict
from starlette.requests import ClientDisconnect

from app.conversation.parting import GOODBYE
from app.core.config import TWILIO_PATH, Settings
from app.core.errors import CallError
from app.twilio import twiml
from app.twilio.calls import Call, CallStatus
from app.twilio.signature import HEADER
from app.twilio.telephone import Telephone

MAX_FORM_BYTES = 65_536
_SID = re.compile(r"CA[0-9a-fA-F]{32}")
_RECONNECTS = 2
"""Streams that may break off before a caller is let go."""
_FAILED = "The conversation failed; the server's log says why."
log = logging.getLogger(__name__)

Fields = ImmutableMultiDict[str, str]


def the_telephone(request: Request) -> Telephone:
    """The telephone of the application."""
    telephone: Telephone = request.app.state.telephone
    return telephone


Phone = Annotated[Telephone, Depends(the_telephone)]


async def twilios_fields(request: Request, telephone: Phone) -> Fields:
    """The fields of a request that is Twilio's. 403 for others, 413 for a form beyond MAX_FORM_BYTES."""
    form: Fields | None = None
    if request.method == "POST":
        form = ImmutableMultiDict(parse_qsl((await _body(request)).decode("utf-8", "replace"), keep_blank_values=True))
    if not telephone.signature.admits(request, form):
        log.warning("Refused a request to %s: %s", request.url.path, telephone.signature.why_not)
        raise HTTPException(403, "This is for Twilio only.")
    fields = form if form is not None else ImmutableMultiDict(request.query_params.multi_items())
    account = telephone.settings.twilio_account_sid
    if account and fields.get("AccountSid") != account:
        log.warning("Refused a request to %s for another Twilio account", request.url.path)
        raise HTTPException(403, "This is for another Twilio account.")
    return fields


FromTwilio = Annotated[Fields, Depends(twilios_fields)]


def voice_routes(settings: Settings) -> APIRouter:
    """The routes that Twilio asks; the first question of a call goes to VOICE_WEBHOOK_PATH."""
    router = APIRouter(include_in_schema=False)
    router.add_api_route(settings.voice_webhook_path, answer_call, methods=["GET", "POST"])
    for path, endpoint in (
        ("/after", after_stream),
        ("/transferred", after_transfer),
        ("/whisper/{sid}", whisper),
        ("/status", call_status),
        ("/amd", answering_machine),
        ("/stream-status", stream_status),
    ):
        router.add_api_route(TWILIO_PATH + path, endpoint, methods=["POST"])
    return router


async def answer_call(request: Request, fields: FromTwilio, telephone: Phone) -> Response:
    """A call came in, or one that was placed was answered: connect it to a conversation."""
    sid = fields.get("CallSid", "")
    if not _SID.fullmatch(sid):
        raise HTTPException(400, "CallSid is missing, or is not CA and 32 hexadecimal digits.")
    call = telephone.calls.get(sid)
    signature = request.headers.get(HEADER, "")
    answered = telephone.calls.is_over(sid) or (call and signature and signature in call.spent)
    if answered or (call is None and not await telephone.goes_on(sid)):
        log.warning("Refused a request that was answered before: it is a replay")
        raise HTTPException(403, "This call was answered already.")
    if call is None:
        direction = "outbound" if fields.get("Direction", "").startswith("outbound") else "inbound"
        call = telephone.calls.add(
            Call(sid, direction, fields.get("From", ""), fields.get("To", ""), CallStatus.RINGING)  # type: ignore[arg-type]
        )
    if telephone.refuses:
        log.warning("A call was turned away: %s", telephone.engine.no_room_because)
        return _end(telephone, call, telephone.turned_away, telephone.engine.no_room_because)
    call.webhook_signature = signature
    return _answer(telephone.connect(call))


async def after_stream(fields: FromTwilio, telephone: Phone) -> Response:
    """The call's media stream has ended, or could not start."""
    call = _known(telephone, fields)
    settings = telephone.settings
    telephone.let_go(call)
    if _is_over(call, fields):
        return _answer(twiml.hang_up())
    match call.outcome:
        case "transfer":
            return _answer(telephone.put_through(call))
        case "goodbye" | "hangup":
            return _hang_up(call)
        case "budget":
            return _hang_up(call, reason="What may be spent is spent.")
        case "idle":
            return _end(telephone, call, reason="Nothing was said for a long time.")
        case "full":
            return _end(telephone, call, telephone.turned_away, telephone.engine.no_room_because)
        case "lost" | "" if call.lost < _RECONNECTS and not telephone.refuses:
            call.lost += 1
            if call.history:
                call.resumes_with = settings.apology
            return _answer(telephone.connect(call))
        case _:
            return _end(telephone, call, settings.phone_failed, telephone.engine.no_room_because or _FAILED)


async def after_transfer(fields: FromTwilio, telephone: Phone) -> Response:
    """The call that was put through is over there, or nobody answered: then it comes back."""
    call = _known(telephone, fields)
    call.transfer = None
    if _is_over(call, fields) or fields.get("DialCallStatus") == "completed":
        return _hang_up(call)
    call.resumes_with = telephone.settings.transfer_failed
    if telephone.refuses:
        return _end(telephone, call, telephone.turned_away, telephone.engine.no_room_because)
    return _answer(telephone.connect(call))


async def whisper(sid: str, fields: FromTwilio, telephone: Phone) -> Response:
    """Somebody answered a call that is put through: tell them what it is about."""
    call = telephone.calls.get(sid)
    if call is None or fields.get("ParentCallSid", sid) != sid:
        raise HTTPException(404, "There is no such call.")
    return _answer(twiml.say(await telephone.summary(call)))


async def call_status(fields: FromTwilio, telephone: Phone) -> Response:
    """Twilio tells how a call stands."""
    sid = fields.get("CallSid", "")
    try:
        status = CallStatus(fields.get("CallStatus", ""))
    except ValueError:
        raise HTTPException(400, "CallStatus is none of Twilio's.") from None
    call = telephone.calls.get(sid)
    if call is None and _SID.fullmatch(sid) and not telephone.calls.is_over(sid):
        if fields.get("Direction") != "outbound-api":  # Twilio may be quicker than its own answer about a call we place
            return Response(status_code=204)
        call = telephone.calls.add(Call(sid, "outbound", fields.get("From", ""), fields.get("To", "")))
    if call is not None:
        call.moved_to(status, _reason(status, fields))
        if status.final and call.conversation:
            call.conversation.end("hangup")
    return Response(status_code=204)


async def answering_machine(fields: FromTwilio, telephone: Phone) -> Response:
    """Twilio tells whether a person or a machine answered a call that was placed."""
    call = _known(telephone, fields)
    call.answered_by = fields.get("AnsweredBy", "unknown")
    call.changed()
    if not call.answered_by.startswith(("machine", "fax")) or telephone.settings.voicemail == "talk":
        return Response(status_code=204)
    if telephone.settings.voicemail == "message" and call.answered_by.startswith("machine") and call.conversation:
        call.conversation.announce(telephone.settings.voicemail_message, then_end=GOODBYE)
        return Response(status_code=204)
    call.reason = "An answering machine answered." if call.answered_by != "fax" else "A fax machine answered."
    try:
        await telephone.hang_up(call)
    except CallError as error:
        log.warning("A call to a machine could not be ended: %s", error.message)
    return Response(status_code=204)


async def stream_status(fields: FromTwilio) -> Response:
    """Twilio tells what became of a media stream."""
    if fields.get("StreamEvent") == "stream-error":
        log.error("Twilio could not stream a call: %.200s", fields.get("StreamError", "it does not say why"))
    return Response(status_code=204)


def _known(telephone: Telephone, fields: Fields) -> Call:
    call = telephone.calls.get(fields.get("CallSid", ""))
    if call is None:
        raise HTTPException(404, "There is no such call.")
    return call


def _is_over(call: Call, fields: Fields) -> bool:
    """Whether the call has ended, which a request about what comes next says as well."""
    status = fields.get("CallStatus", "")
    if status in set(CallStatus) and CallStatus(status).final:
        call.moved_to(CallStatus(status))
    return call.status.final


def _hang_up(call: Call, words: str = "", reason: str = "") -> Response:
    """End the call, which nobody need tell us of then."""
    call.moved_to(CallStatus.COMPLETED, reason)
    return _answer(twiml.hang_up(words))


def _end(telephone: Telephone, call: Call, words: str = "", reason: str = "") -> Response:
    """The end of a call that nobody meant: hang up, or keep it open if the settings say so."""
    if telephone.settings.phone_after == "pause":
        return _answer(twiml.keep_open(words))
    return _hang_up(call, words, reason)


def _reason(status: CallStatus, fields: Fields) -> str:
    match status:
        case CallStatus.BUSY:
            return "The line is busy."
        case CallStatus.NO_ANSWER:
            return "Nobody answered."
        case CallStatus.CANCELED:
            return "The call was canceled before anybody answered."
        case CallStatus.FAILED:
            told = fields.get("ErrorMessage") or fields.get("ErrorCode") or fields.get("SipResponseCode")
            return f"The call failed: {told}" if told else "The call failed: the number may not exist."
        case _:
            return ""


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_FORM_BYTES:
                raise HTTPException(413, f"A form is at most {MAX_FORM_BYTES} bytes.")
    except ClientDisconnect:
        raise HTTPException(400, "The request broke off.") from None
    return bytes(body)


def _answer(text: str) -> Response:
    return Response(text, media_type="text/xml")
