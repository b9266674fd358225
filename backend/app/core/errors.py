"""Every error Ahoy raises on purpose: one small tree, each with a stable code and a message for a person.

A message says what was wrong, with which value, and what to do about it. It never holds a secret or speech.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any


class AhoyError(Exception):
    """The root: catch this to catch everything Ahoy raises on purpose."""

    code = "internal_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class SettingsError(AhoyError):
    """A setting has a value that cannot be used. The message has one line for each problem."""

    code = "settings_invalid"


class AudioFormatError(AhoyError, ValueError):
    """Audio does not have the shape, the type or the rate that was asked for."""

    code = "audio_format"


class ModelError(AhoyError):
    """A model file is missing, cannot be fetched, or is not the file it should be."""

    code = "model_unavailable"


class ProviderError(AhoyError):
    """A provider of speech recognition, language or speech synthesis could not do its work."""

    code = "provider_failed"


class OverloadedError(ProviderError):
    """A bounded queue in front of a model is full: the work was refused, nothing was lost silently."""

    code = "overloaded"


class ServiceError(ProviderError):
    """A service that is asked over the network could not do its work. `code` is one of SERVICE_CODES.

    `refused` says that it certainly did nothing (and charges nothing), so that asking again is safe; `retry_after_s` is
    what it asks us to wait; `parameter` names what it did not understand, when it says so.
    """

    code = "service_failed"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        refused: bool = False,
        retry_after_s: float | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.refused = refused
        self.retry_after_s = retry_after_s
        self.parameter = parameter


SERVICE_CODES = frozenset(
    {
        "service_unreachable",
        "service_late",
        "service_failed",
        "service_answer",
        "service_refused",
        "key_refused",
        "model_not_found",
        "rate_limited",
        "quota_exceeded",
        "content_filtered",
        "context_too_long",
        "language_not_spoken",
    }
)
"""No connection; nothing in time; an error of its own; an answer that makes no sense; a request it does not take; a key
it does not take; and what it says itself."""


class BrokenOffError(ProviderError):
    """A stream broke off after something of it had been given. `go_on` begins anew with somebody else: a reply behind
    the text that was said so far (may be empty), speech with the text of the whole chunk."""

    code = "broken_off"

    def __init__(
        self, message: str, go_on: Callable[[str], AsyncGenerator[Any, None]] | None = None, *, code: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.go_on = go_on or _nobody


async def _nobody(_: str) -> AsyncGenerator[Any, None]:
    """Nobody is left to go on."""
    return
    yield


class ProtocolError(AhoyError):
    """A client sent something the wire protocol does not allow. `code` names the rule that was broken."""

    code = "bad_message"


class CallError(AhoyError):
    """A telephone call cannot be placed or changed as asked. `http_status` is what our REST API answers with;
    `retry_after_s` is set when the same request may succeed later."""

    code = "call_refused"

    def __init__(
        self, message: str, *, code: str | None = None, http_status: int = 400, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.http_status = http_status
        self.retry_after_s = retry_after_s


class TwilioError(CallError):
    """Twilio refused a request, or could not be asked. `twilio_code` is Twilio's own number of the error, if it gave
    one (twilio.com/docs/api/errors); `outcome_unknown` says that the request may have had its effect all the same."""

    code = "twilio_failed"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        http_status: int = 502,
        retry_after_s: float | None = None,
        twilio_code: int | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message, code=code, http_status=http_status, retry_after_s=retry_after_s)
        self.twilio_code = twilio_code
        self.outcome_unknown = outcome_unknown


class AccessError(AhoyError):
    """Somebody asked who may not. `http_status` is 401 when a key would help, 403 otherwise."""

    code = "forbidden"

    def __init__(self, message: str, *, code: str | None = None, http_status: int = 403) -> None:
        super().__init__(message, code=code)
        self.http_status = http_status
