"""What an answer that is none means: HTTP status and body to a ServiceError with words for a person.

OpenAI's error object and codes: developers.openai.com, guide "Error codes"; those who speak its API keep to the status
and often to the object. The service's own words are not repeated: they may hold the key, the account or speech.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import aiohttp
import orjson

from app.core.errors import ServiceError

MAX_WAIT_S = 3600.0
"""A service that asks for more patience is taken to mean this."""
_PARAMETER = re.compile(r"[a-z][a-z0-9_.\[\]]{0,60}")
_QUOTED = re.compile(r"['\"`]([a-z][a-z0-9_.]{0,60})['\"`]")
_FILTERED = ("content_filter", "content_policy_violation", "moderation", "responsible_ai")
_UNKNOWN = ("unknown_parameter", "unsupported_parameter", "unsupported_value", "invalid_parameter")


def refusal(service: str, status: int, headers: Mapping[str, str], body: bytes, *, model: str) -> ServiceError:
    """The error that an HTTP answer with this status and body is. `model` is what was asked for."""
    details = _details(body)
    code = " ".join(str(details.get(name) or "") for name in ("code", "type")).lower()
    wait_s = _retry_after_s(headers)
    match status:
        case 401:
            return ServiceError(f"{service} does not take the key: check {_key_setting(service)}.", code="key_refused")
        case 403:
            return ServiceError(
                f"{service} does not let this key use {model!r} (HTTP 403): check its permissions, or the region.",
                code="key_refused",
            )
        case 402 | 429 if "quota" in code or "billing" in code or status == 402:
            return ServiceError(
                f"The account at {service} has no credit left: add some there, or raise its limit.",
                code="quota_exceeded",
                refused=True,
                retry_after_s=wait_s,
            )
        case 429:
            return ServiceError(
                f"{service} takes no more requests just now (HTTP 429).",
                code="rate_limited",
                refused=True,
                retry_after_s=wait_s,
            )
        case 404:
            return ServiceError(
                f"{service} does not know the model {model!r}, or its address is not that of an API (HTTP 404).",
                code="model_not_found",
            )
        case 400 | 413 | 422:
            return _bad_request(service, status, code, details)
        case 500 | 503 | 529:
            return ServiceError(
                f"{service} has an error of its own (HTTP {status}).",
                code="service_failed",
                refused=True,
                retry_after_s=wait_s,
            )
        case _:
            return ServiceError(f"{service} answered with HTTP {status}.", code="service_failed", retry_after_s=wait_s)


def stream_error(service: str, error: Any) -> ServiceError:
    """The error that is sent in place of the next piece of a stream that had begun well."""
    code = str(error.get("code") or error.get("type") or "").lower() if isinstance(error, dict) else ""
    if any(word in code for word in _FILTERED):
        return filtered(service)
    if "quota" in code:
        return ServiceError(f"The account at {service} has no credit left.", code="quota_exceeded")
    return ServiceError(f"{service} broke off with an error of its own.", code="service_failed")


def filtered(service: str) -> ServiceError:
    """The service's rules do not allow an answer."""
    return ServiceError(f"{service} does not answer this: its rules do not allow it.", code="content_filtered")


def nonsense(service: str, what: str) -> ServiceError:
    """An answer that is not what the API's documentation says."""
    return ServiceError(f"{service} answered with {what}: is its address that of an API?", code="service_answer")


def broken_off(service: str) -> ServiceError:
    """A stream ended before what it carries did."""
    return ServiceError(f"{service} broke off in the middle of its answer.", code="service_failed")


def late(service: str, timeout_s: float) -> ServiceError:
    """No answer in time."""
    return ServiceError(f"{service} gave nothing for {timeout_s:g} s.", code="service_late")


def unreachable(service: str, error: BaseException) -> ServiceError:
    """The connection could not be made, or broke."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, (ssl.SSLError, ssl.CertificateError, aiohttp.ClientSSLError)):
        why, refused = "its certificate is not valid here (TLS); SSL_CERT_FILE names one of your own", True
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        why, refused = "its name is unknown to the DNS", True
    elif isinstance(error, aiohttp.ClientConnectorError):
        why, refused = "nobody answers at its address", True
    elif isinstance(error, aiohttp.ConnectionTimeoutError):
        why, refused = "no connection was made in time", True
    elif isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        why, refused = "it gave nothing in time", False
    else:
        why, refused = "the connection broke off", False
    return ServiceError(f"{service} cannot be reached: {why}.", code="service_unreachable", refused=refused)


def _bad_request(service: str, status: int, code: str, details: dict[str, Any]) -> ServiceError:
    if "context_length" in code or "context_size" in code:
        return ServiceError(
            f"The conversation is too long for the model at {service}: lower HISTORY_LIMIT_TOKENS.",
            code="context_too_long",
            refused=True,
        )
    if any(word in code for word in _FILTERED):
        return filtered(service)
    parameter = details.get("param")
    if parameter is None and any(word in code for word in _UNKNOWN):
        parameter = next(iter(_QUOTED.findall(str(details.get("message")))), None)
    if not isinstance(parameter, str) or not _PARAMETER.fullmatch(parameter):
        parameter = None
    named = f" because of its {parameter!r}" if parameter else ""
    return ServiceError(
        f"{service} does not take the request{named} (HTTP {status}).",
        code="service_refused",
        refused=True,
        parameter=parameter,
    )


def _details(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = answer.get("error", answer) if isinstance(answer, dict) else {}
    return error if isinstance(error, dict) else {}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds or as a date (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    try:
        wait_s = float(value)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(value).timestamp() - time()
        except (ValueError, TypeError):
            return None
    return min(max(0.0, wait_s), MAX_WAIT_S)


def _key_setting(service: str) -> str:
    return "OPENAI_API_KEY" if service == "openai" else f"the one of {service!r} in SERVICE_KEYS"
