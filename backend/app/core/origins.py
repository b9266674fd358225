"""Which pages may open a conversation or place a call: our own and those that the settings name.

A browser sends the page's origin with every WebSocket it opens and every request that changes something, and would send
them to this server for any page on the web: the check is what keeps strangers' pages out (cross-site request forgery,
WebSocket hijacking). Other clients send none.
"""

import ipaddress
from urllib.parse import urlsplit

from app.core.config import Settings

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def origin_allowed(origin: str | None, host: str | None, settings: Settings) -> bool:
    """Whether a request with these Origin and Host headers may be accepted."""
    if origin is None:
        return True
    if "*" in settings.allowed_origins or origin.rstrip("/") in settings.allowed_origins:
        return True
    return origin == _public_origin(settings) or _is_own(origin, host, settings)


def _public_origin(settings: Settings) -> str | None:
    """The origin of our page at its public address. A proxy in front may have put another name into Host."""
    if settings.public_base_url is None:
        return None
    parts = urlsplit(settings.public_base_url)
    return f"{parts.scheme}://{parts.netloc}"


def _is_own(origin: str, host: str | None, settings: Settings) -> bool:
    """The page came from this server. A name that an attacker points at this machine (DNS rebinding) makes origin and
    host agree too, so the name itself must be one that is known to be ours: loopback, an address, the public name."""
    try:
        parts = urlsplit(origin)
        name = parts.hostname
        if parts.scheme not in {"http", "https"} or not name or parts.netloc != host:
            return False
    except ValueError:
        return False
    return name in _LOOPBACK_NAMES or name == urlsplit(settings.base_url).hostname or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
