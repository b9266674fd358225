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
_NAMED = re.compile(
    r"(?:parameters?|fields?|arguments?|values?|inputs?):? ['\"`]([a-z][a-z0-9_.]{0,60})['\"`]"  # OpenAI and its like
    r"|\(['\"]body['\"], ['\"]([a-z][a-z0-9_]{0,60})['\"]",  # Pydantic's words for a fault, as text
    re.IGNORECASE,
)
_TOO_LONG = re.compile(r"context (length|window|size)|prompt is too long|reduce the length of the m", re.IGNORECASE)
_FILTERED = ("content_filter", "content_policy_violation", "moderation", "responsible_ai")
_UNKNOWN = re.compile(r"(unknown|unsupported|invalid)_parameter|unsupported_value|badrequesterror")


def refusal(service: str, status: int, headers: Mapping[str, str], body: bytes, *, model: str) -> ServiceError:
    """The error that an HTTP answer with this status and body is. `model` is what was asked for."""
    details = _details(body)
    code = " ".join(str(details.get(name) or "") for name in ("code", "type")).lower()
    wait_s = _retry_after_s(headers)
    match status:
        case 401:
            return ServiceError(
                f"{service} does not take the key: check {_key_setting(service)}.", code="key_refused", refused=True
            )
        case 403:
            return ServiceError(
                f"{service} does not let this key use {model!r} (HTTP 403): check its permissions, or the region.",
                code="key_refused",
                refused=True,
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
                refused=True,
            )
        case 301 | 302 | 303 | 307 | 308:
            return ServiceError(
                f"{service} has another address (HTTP {status}), and requests with a key are not sent on: correct it.",
                code="service_answer",
                refused=True,
            )
        case 400 | 413 | 422:
            return _bad_request(service, status, code, details, model=model)
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
    if "rate_limit" in code:
        return ServiceError(f"{service} takes no more requests just now.", code="rate_limited")
    return ServiceError(f"{service} broke off with an error of its own.", code="service_failed")


def filtered(service: str, *, refused: bool = False) -> ServiceError:
    """The service's rules do not allow an answer."""
    return ServiceError(
        f"{service} does not answer this: its rules do not allow it.", code="content_filtered", refused=refused
    )


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
    if isinstance(error, (ssl.CertificateError, aiohttp.ClientConnectorCertificateError)):
        why, refused = "its certificate is not valid here (TLS); SSL_CERT_FILE names one of your own", True
    elif isinstance(error, (ssl.SSLError, aiohttp.ClientSSLError)):
        why, refused = "no encrypted connection (TLS) could be made: http:// may be right in place of https://", True
    elif isinstance(error, (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError)):
        why, refused = "the proxy of HTTPS_PROXY or HTTP_PROXY does not lead to it", True
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


def _bad_request(service: str, status: int, code: str, details: dict[str, Any], *, model: str) -> ServiceError:
    if "context_length" in code or "context_size" in code or _TOO_LONG.search(str(details.get("message"))):
        return ServiceError(
            f"The conversation is too long for the model at {service}: lower HISTORY_LIMIT_TOKENS.",
            code="context_too_long",
            refused=True,
        )
    if any(word in code for word in _FILTERED):
        return filtered(service, refused=True)
    if "model_not_found" in code:
        return ServiceError(
            f"{service} does not know the model {model!r} (HTTP {status}).", code="model_not_found", refused=True
        )
    parameter = _parameter(code, details)
    named = f" because of its {parameter!r}" if parameter else ""
    return ServiceError(
        f"{service} does not take the request{named} (HTTP {status}).",
        code="service_refused",
        refused=True,
        parameter=parameter,
    )


def _parameter(code: str, details: dict[str, Any]) -> str | None:
    """The field that is not taken, if the answer names one. Only the name of a field may come out of it."""
    message = details.get("message")
    listed = details.get("detail") or (message.get("detail") if isinstance(message, dict) else None)
    parameter = details.get("param")
    if not parameter and isinstance(listed, list) and listed and isinstance(listed[0], dict):
        where = listed[0].get("loc")  # of servers made with FastAPI
        parameter = where[1] if isinstance(where, list) and len(where) > 1 else None
    if not parameter and _UNKNOWN.search(code):
        found = _NAMED.search(str(message))
        parameter = found and (found[1] or found[2])
    return parameter if isinstance(parameter, str) and _PARAMETER.fullmatch(parameter) else None


def _details(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(answer, list) and answer:
        answer = answer[0]
    error = answer.get("error", answer) if isinstance(answer, dict) else {}
    return error if isinstance(error, dict) else {}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds or as a date (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    milliseconds = headers.get("retry-after-ms", "").strip()  # OpenAI's, for less than a second
    try:
        wait_s = float(milliseconds) / 1000 if milliseconds else float(value)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(value).timestamp() - time()
        except (ValueError, TypeError):
            return None
    return min(max(0.0, wait_s), MAX_WAIT_S)


def _key_setting(service: str) -> str:
    return "OPENAI_API_KEY" if service == "openai" else f"the one of {service!r} in SERVICE_KEYS"
