"""Every error Ahoy raises on purpose: one small tree, each with a stable code and a message for a person.

A message says what was wrong, with which value, and what to do about it. It never holds a secret or speech.
"""


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
