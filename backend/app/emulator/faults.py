"""What Twilio would write into its error log: codes and messages as in its list of errors (twilio.com/docs/api/errors).

A fault of the server under test is recorded here, it is not raised to whoever holds the phone: Twilio does not raise
either, it logs, and the caller hears the consequence.
"""

from dataclasses import dataclass

from app.core.errors import AhoyError

HTTP_RETRIEVAL = 11200
"""A webhook could not be reached or did not answer with 2xx."""
TOO_LARGE = 11750
"""A TwiML document of more than 64 kB."""
PARSE = 12100
"""No XML, or its root is not <Response>."""
SCHEMA = 12200
"""XML, but not TwiML: an unknown verb, attribute, value or nesting. Twilio only warns of some of these and skips what
it does not know; here each of them ends the call."""
CONTENT_TYPE = 12300
INVALID_CALLER_ID = 13214
INVALID_DIAL_NUMBER = 13224
CALLBACK = 15003
"""A status callback was not answered with 2xx."""
STREAM_UNREACHABLE = 31901
STREAM_NOT_TLS = 31910
"""The URL of a <Stream> is not wss://."""
STREAM_HANDSHAKE = 31920
"""The upgrade was not answered with 101; a URL with a query string counts as that too."""
STREAM_CLOSED = 31921
"""The server closed the WebSocket with another code than 1000, 1001 or none."""
STREAM_PROTOCOL = 31924
STREAM_DISCARDED = 31931
"""More than ten minutes of audio were waiting."""
STREAM_MALFORMED = 31950
"""A binary message."""
STREAM_INVALID = 31951
"""Text, but not one of media, mark and clear in their exact form. Twilio warns once; here it closes the stream."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something the server did that Twilio would not take."""

    code: int
    message: str


class TwilioFault(Exception):  # noqa: N818 (a fault of the other side, as Twilio calls its codes)
    """Ends what was going on and is recorded as a Fault."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.fault = Fault(code, message)


class PhoneError(AhoyError):
    """The local phone was used in a way that cannot work, or what it was told to wait for did not come."""

    code = "phone"
