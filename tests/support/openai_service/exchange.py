"""One request and its answer, and what both have in common on every path of the service."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from aiohttp import web

from openai_service.refusals import RefusedError, Status, no_key, refuse, unauthorized

Outcome = Literal["open", "answered", "refused", "faulty", "cut", "gone", "killed"]


@dataclass(slots=True)
class Exchange:
    """A request and its answer. `body` is the parsed body (JSON, or the fields of a form), `headers` have lower-case
    names and no key. `chunks` and `bytes` count what was sent of the body. `outcome` says how it ended: answered,
    refused (it broke a rule), faulty (a scripted answer in place of the right one), cut (by a fault), gone (the client
    left before the end), killed."""

    path: str
    headers: dict[str, str]
    query: dict[str, str]
    body: Any = None
    chunks: int = 0
    bytes: int = 0
    outcome: Outcome = "open"
    refusal: Status | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """What is sent in one go, and how long the service takes until it has it."""

    data: bytes
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer. One that is not `streamed` has a Content-Length."""

    content_type: str
    pieces: list[Piece]
    streamed: bool = True
    headers: dict[str, str] = field(default_factory=dict)


class House(Protocol):
    """What an endpoint needs from the service around it."""

    key: str | None
    compatible: bool
    models: list[str]

    async def thawed(self) -> None:
        """Returns as soon as the service is not frozen."""

    def mistake(self, error: Exception) -> None:
        """Something went wrong that no test has asked for."""


def begin(request: web.Request) -> Exchange:
    """The account of a request that has just arrived."""
    headers = {name.lower(): value for name, value in request.headers.items() if name.lower() != "authorization"}
    return Exchange(request.path, headers, dict(request.query))


def check_key(request: web.Request, key: str | None) -> None:
    """Raises RefusedError when the request does not carry the service's key (None: it needs none)."""
    if key is None:
        return
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not given:
        raise RefusedError(no_key())
    if given != key:
        raise RefusedError(unauthorized(f"{given[:5]}***{given[-4:]}"))


def error_response(status: Status) -> web.Response:
    """An error as OpenAI sends it."""
    return web.json_response(status.body(), status=status.status, headers=dict(status.headers))


def event(data: str) -> bytes:
    """One server-sent event."""
    return f"data: {data}\n\n".encode()


async def read_json(request: web.Request) -> dict[str, Any]:
    """The JSON object in the body. Raises RefusedError when there is none, or when it names a field twice."""
    unreadable = refuse("invalid_json", "We could not parse the JSON body of your request.")
    if request.content_type != "application/json":
        raise refuse("invalid_content_type", f"Expected application/json, not {request.content_type!r}.")
    try:
        body = json.loads((await request.read()).decode(), object_pairs_hook=_once_each)
    except ValueError:
        raise unreadable from None
    if not isinstance(body, dict):
        raise unreadable
    return body


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is named twice")
    return found
