"""Who may use the API: calls cost money and reach people, so it is nobody but who shows that they may.

With API_KEY set, that is whoever sends it. Without, it is somebody at this computer: the connection comes from it, no
proxy or tunnel stands in between, and the browser was told a name of this computer and not one that an attacker made
lead here (DNS rebinding). In both cases a browser must be on a page that may ask (`core/origins.py`).
"""

import hmac
import ipaddress
import re
from collections.abc import Mapping, Sequence

from app.core.config import Settings
from app.core.errors import AccessError
from app.core.origins import origin_allowed

KEY_HOLDER = "the holder of API_KEY"

_FORWARDED = re.compile(
    r"x-forwarded.*|forwarded.*|via|x-real-ip|(x-|true-|x-cluster-|fastly-|cf-connecting-)?client-ip|cf-.*|"
    r"x-original-.*|x-envoy-.*|x-proxyuser-ip|x-remote-.*|x-azure-.*|x-appengine-.*|tailscale-.*|ngrok-.*|x-arr-.*",
)
"""Headers that proxies, content networks and tunnels add: the client is somewhere else."""
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?", re.IGNORECASE | re.ASCII)


def who_calls(client: str | None, headers: Mapping[str, str], settings: Settings) -> str:
    """Who asks, as a name to count by: the holder of the key, or the client's address.

    `client` is the address of the other end, None when it has none. `headers` are the request's; `items()` gives one
    that was sent twice twice, as Starlette's do. Raises AccessError (401, 403) for everyone else.
    """
    sent = _by_name(headers)
    origins: Sequence[str | None] = sent.get("origin") or [None]
    if len(origins) > 1 or not origin_allowed(origins[0], _only(sent.get("host")), settings):
        raise AccessError("This page may not ask this: its origin is not in ALLOWED_ORIGINS", code="origin_not_allowed")
    if settings.api_key is not None:
        _check_key(sent.get("authorization", []), settings.api_key.get_secret_value())
        return KEY_HOLDER
    if client is None or not is_local(client, headers):
        raise AccessError(
            "Without API_KEY, this is for this computer only, at http://127.0.0.1 or http://localhost: set "
            "API_KEY and send it as Authorization: Bearer ...",
            code="local_only",
        )
    return client


def is_local(client: str | None, headers: Mapping[str, str]) -> bool:
    """A program on this machine asks, by a name of this machine, with nothing in between; as for `who_calls`."""
    sent = _by_name(headers)
    return (
        client is not None
        and _is_loopback(client)
        and _is_own_name(_only(sent.get("host")))
        and not any(map(_FORWARDED.fullmatch, sent))
    )


def _by_name(headers: Mapping[str, str]) -> dict[str, list[str]]:
    sent: dict[str, list[str]] = {}
    for name, value in headers.items():
        sent.setdefault(name.lower(), []).append(value)
    return sent


def _only(values: list[str] | None) -> str | None:
    return values[0] if values and len(values) == 1 else None


def _check_key(sent: list[str], key: str) -> None:
    if not sent:
        raise _unauthorized("The key is missing: send API_KEY as Authorization: Bearer ...")
    scheme, _, given = sent[0].partition(" ")
    # Compared as bytes: compare_digest refuses text that is not ASCII, and takes the same time wherever they differ.
    same = hmac.compare_digest(given.strip(" ").encode("utf-8", "surrogatepass"), key.encode())
    if len(sent) != 1 or scheme.lower() != "bearer" or not same:
        raise _unauthorized("The key is wrong: send API_KEY as Authorization: Bearer ...")


def _unauthorized(message: str) -> AccessError:
    return AccessError(message, code="unauthorized", http_status=401)


def _is_own_name(host: str | None) -> bool:
    match = _HOST.fullmatch(host or "")
    if match is None:
        return False
    name = match["name"].strip("[]").lower()
    return name == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)  # how a socket for both protocols shows IPv4
    return bool((mapped or parsed).is_loopback)
