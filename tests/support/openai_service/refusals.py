"""What the service says when it does not do what it was asked: OpenAI's error body and the usual reasons.

The shape and the codes are those of OpenAI's guide to error codes and of its API reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Status:
    """An answer with an error: its HTTP status, the members of its body, and headers such as Retry-After."""

    status: int
    code: str | None
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The JSON object that OpenAI puts into the body."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class RefusedError(Exception):
    """A request that breaks a rule; `status` is what the service answers."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"{status.status} {status.code} ({status.param}): {status.message}")
        self.status = status


def refuse(code: str, message: str, param: str | None = None, status: int = 400) -> RefusedError:
    """A refusal of a request that is wrong, to be raised."""
    return RefusedError(Status(status, code, message, param=param))


def unknown(param: str) -> RefusedError:
    """A field that is not in the documentation."""
    return refuse("unknown_parameter", f"Unknown parameter: '{param}'.", param)


def missing(param: str) -> RefusedError:
    """A field that must be there."""
    return refuse("missing_required_parameter", f"Missing required parameter: '{param}'.", param)


def unsupported(param: str, instead: str = "") -> RefusedError:
    """A field that exists, but not for this model."""
    hint = f" Use '{instead}' instead." if instead else ""
    message = f"Unsupported parameter: '{param}' is not supported with this model.{hint}"
    return refuse("unsupported_parameter", message, param)


def unsupported_value(param: str, value: object, why: str) -> RefusedError:
    """A value that exists, but not for this model or together with the others."""
    return refuse("unsupported_value", f"Unsupported value: '{param}' does not support {value!r}: {why}", param)


def invalid_value(param: str, value: object, allowed: str) -> RefusedError:
    """A value that no model knows."""
    return refuse("invalid_value", f"Invalid value: {value!r}. Supported values are: {allowed}.", param)


def unauthorized(shown: str = "sk-wr***ong") -> Status:
    """401: the key is wrong. OpenAI repeats the ends of the key in the message."""
    return Status(401, "invalid_api_key", f"Incorrect API key provided: {shown}. You can find your API key online.")


def no_key() -> Status:
    """401: there is no key."""
    return Status(401, "invalid_api_key", "You didn't provide an API key. Use the header 'Authorization: Bearer KEY'.")


def forbidden() -> Status:
    """403: the service is not offered where the request comes from."""
    message = "Country, region, or territory not supported"
    return Status(403, "unsupported_country_region_territory", message, "request_forbidden")


def model_not_found(model: str) -> Status:
    """404: no such model, or not for this key."""
    return Status(404, "model_not_found", f"The model `{model}` does not exist or you do not have access to it.")


def rate_limited(retry_after_s: float | None = 1) -> Status:
    """429: too many requests for the moment; Retry-After says for how long (None: it does not say)."""
    headers = {} if retry_after_s is None else {"Retry-After": f"{retry_after_s:g}"}
    return Status(429, "rate_limit_exceeded", "Rate limit reached for requests.", "requests", headers=headers)


def no_quota() -> Status:
    """429: the money is used up; waiting does not help."""
    message = "You exceeded your current quota, please check your plan and billing details."
    return Status(429, "insufficient_quota", message, "insufficient_quota")


def context_too_long(limit: int = 128_000) -> Status:
    """400: the conversation is longer than the model can read."""
    message = f"This model's maximum context length is {limit} tokens. Please reduce the length of the messages."
    return Status(400, "context_length_exceeded", message, param="messages")


def content_refused() -> Status:
    """400: the words of the request break OpenAI's rules."""
    return Status(400, "content_policy_violation", "Your request was rejected as a result of our safety system.")


def content_filtered() -> Status:
    """400: Azure's filter has stopped the prompt."""
    return Status(400, "content_filter", "The response was filtered due to the prompt.", param="prompt")


def server_error() -> Status:
    """500: it is the service's fault."""
    return Status(500, None, "The server had an error while processing your request.", "server_error")


def bad_gateway() -> Status:
    """502: the gateway in front of the service reaches nobody."""
    return Status(502, None, "Bad gateway.", "server_error")


def overloaded() -> Status:
    """503: too much to do."""
    message = "The engine is currently overloaded, please try again later."
    return Status(503, "server_is_overloaded", message, "service_unavailable_error")
