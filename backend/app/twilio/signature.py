"""Does a request come from Twilio? It signs each with the account's auth token: X-Twilio-Signature.

The signature is over the address as Twilio saw it, which behind a proxy or a tunnel is not the one that arrives here
(twilio.com/docs/usage/security#validating-requests). For the request that opens a media stream the address is the
wss:// one.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import HTTPConnection
from twilio.request_validator import RequestValidator

from app.core.access import is_local
from app.core.config import TWILIO_STREAM_PATH, Settings

HEADER = "X-Twilio-Signature"


class TwilioSignature:
    """Checks requests with the auth token of the settings. Without one, only programs on this machine are served."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        token = settings.twilio_auth_token
        self._validator = RequestValidator(token.get_secret_value()) if token else None

    @property
    def why_not(self) -> str:
        """What is wrong with a request that is not admitted, for the log."""
        if self._validator is None:
            return "TWILIO_AUTH_TOKEN is not set, so that only programs on this computer are served"
        return "it does not carry Twilio's signature for this address"

    def admits(self, connection: HTTPConnection, form: ImmutableMultiDict[str, str] | None = None) -> bool:
        """Whether the request, with the fields of its form if it is a POST, is Twilio's."""
        if self._validator is None:
            return is_local(connection.client.host if connection.client else None, connection.headers)
        signature = connection.headers.get(HEADER, "")
        parameters: Any = form if form is not None else {}
        return any(self._validator.validate(url, parameters, signature) for url in self._addresses(connection))

    def _addresses(self, connection: HTTPConnection) -> Iterator[str]:
        """The addresses that Twilio may have asked: the configured one, else what the proxy in front says."""
        settings, path, query = self._settings, connection.url.path, connection.url.query
        tail = f"?{query}" if query else ""
        web = connection.scope["type"] == "http"
        if not web and path == TWILIO_STREAM_PATH and (settings.twilio_ws_url or settings.public_base_url):
            address = urlsplit(settings.public_twilio_ws_url)
            names = [address.netloc]
            if address.port is None:  # the validator tries an address with its port as well, but for wss:// a wrong one
                names.append(f"{address.netloc}:{443 if address.scheme == 'wss' else 80}")
            for name in names:
                for end in ("", "/"):
                    yield f"{address.scheme}://{name}{address.path}{end}{tail}"
            return
        if settings.public_base_url:
            yield settings.public_base_url + path + tail
            return
        headers = connection.headers
        host = headers.get("x-forwarded-host") or headers.get("host", "")
        for scheme in ("https", "http") if web else ("wss", "ws"):
            yield f"{scheme}://{host.split(',')[0].strip()}{path}{tail}"
