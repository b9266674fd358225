"""What Twilio's errors mean for whoever asked us for a call, and how our REST API answers.

Twilio's own sentences name numbers and the account: those of the errors that are known are replaced by ours, and from
the others numbers and SIDs are taken out. The codes are those of twilio.com/docs/api/errors.
"""

# mypy: disable-error-code="import-untyped"
import re

from twilio.base.exceptions import TwilioRestException, TwilioServiceException

from app.core.errors import TwilioError

RETRY_AFTER_S = 10.0
_SHOWN = 200
"""So many characters of Twilio's own words are shown."""

_ACCOUNT = "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"
_NOT_A_NUMBER = "Twilio says that this is not a number that can be called"
_NO_PERMISSION = (
    "The Twilio account may not call there: allow the country under Voice, Settings, Geo permissions in its console"
)
_TRIAL = "A trial account of Twilio calls verified numbers only: verify this one in the Twilio console, or upgrade"
_FROM = "TWILIO_PHONE_NUMBER is not a number that this Twilio account may call from"
_ADDRESS = "Twilio does not accept the address of this server: check PUBLIC_BASE_URL"
_SUSPENDED = "The Twilio account is not active: look into its console"
_BUSY = "Twilio takes no more requests of this account just now: try again in a moment"

_MEANING: dict[int, tuple[int, str]] = {
    10001: (502, _SUSPENDED),
    10002: (502, "A trial account of Twilio cannot do that"),
    10004: (503, "The Twilio account has no line free: try again when another call has ended"),
    20003: (502, f"Twilio does not accept the account: {_ACCOUNT}"),
    20005: (502, _SUSPENDED),
    20008: (502, "Twilio's test credentials cannot do that: use those of the account itself"),
    20404: (404, "Twilio does not know this call"),
    20429: (503, _BUSY),
    21201: (400, "Twilio was given no number to call"),
    21202: (403, "Twilio says that this is a premium number"),
    21203: (403, _NO_PERMISSION),
    21205: (502, _ADDRESS),
    21210: (502, _FROM),
    21211: (400, _NOT_A_NUMBER),
    21212: (502, _FROM),
    21213: (502, _FROM),
    21214: (400, "Twilio cannot reach this number"),
    21215: (403, _NO_PERMISSION),
    21216: (403, "Twilio does not let this account call this number"),
    21217: (400, _NOT_A_NUMBER),
    21219: (403, _TRIAL),
    21220: (409, "The call is over, or does not go on yet, and cannot be changed"),
    21609: (502, _ADDRESS),
}


def explained(error: TwilioRestException | TwilioServiceException, *, dials: bool) -> TwilioError:
    """The same error in words for a person, with the HTTP status that we answer with."""
    twilio_code = error.code if isinstance(error.code, int) and error.code >= 10_000 else None
    http_status, message = _MEANING.get(twilio_code or 0) or _by_status(error)
    lost = dials and error.status >= 500
    if lost:
        message += ". It is not known whether the call was placed: look at the call log of the Twilio console"
    return TwilioError(
        message + (f" (Twilio's error {twilio_code})" if twilio_code else ""),
        code=f"twilio_{twilio_code}" if twilio_code else "twilio_failed",
        http_status=http_status,
        retry_after_s=RETRY_AFTER_S if http_status == 503 else None,
        twilio_code=twilio_code,
        outcome_unknown=lost,
    )


def _by_status(error: TwilioRestException | TwilioServiceException) -> tuple[int, str]:
    match error.status:
        case 401:
            return 502, f"Twilio does not accept the account: {_ACCOUNT}"
        case 404:
            return 404, "Twilio does not know this call, or this account"
        case 429:
            return 503, _BUSY
        case status if status < 400:
            return 502, f"Twilio's address answers with HTTP {status}, which leads elsewhere: check TWILIO_API_URL"
        case status if status >= 500:
            return 502, f"Twilio has trouble of its own (HTTP {status})"
    return 502, f"Twilio refused that: {_without_numbers(_said(error))}"


def _said(error: TwilioRestException | TwilioServiceException) -> str:
    said = str(error.msg if isinstance(error, TwilioRestException) else error.detail or error.title)
    return re.sub(r"^Unable to \w+ record(: |$)", "", said).rstrip(". ") or f"HTTP {error.status}"


def _without_numbers(text: str) -> str:
    text = re.sub(r"\b[A-Z]{2}[0-9a-f]{32}\b", "(SID)", text)
    text = re.sub(r"\+?\(?\d(?:[\s().-]*\d){5,}", "(number)", text)
    return "".join(c for c in text if c.isprintable())[:_SHOWN]
