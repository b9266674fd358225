"""TwiML, strictly: the verbs a voice server of this kind needs, each with its documented attributes and nesting.

All that is not in the tables is refused (12200), whether Twilio knows it or not: better a loud local phone than a call
that behaves otherwise on the real line. Source: the pages of each verb below twilio.com/docs/voice/twiml.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

from app.emulator.faults import PARSE, SCHEMA, TOO_LARGE, TwilioFault

MAX_BYTES = 65_536
MAX_PARAMETER = 500
"""Characters of a <Parameter>'s name and value together."""


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Play:
    url: str


@dataclass(frozen=True, slots=True)
class Pause:
    length_s: int


@dataclass(frozen=True, slots=True)
class Hangup:
    pass


@dataclass(frozen=True, slots=True)
class Reject:
    reason: str


@dataclass(frozen=True, slots=True)
class Redirect:
    url: str
    method: str


@dataclass(frozen=True, slots=True)
class Stream:
    url: str
    name: str = ""
    status_callback: str = ""
    status_callback_method: str = "POST"
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connect:
    stream: Stream
    action: str | None
    method: str


@dataclass(frozen=True, slots=True)
class Number:
    number: str
    url: str = ""
    method: str = "POST"
    status_callback: str = ""
    status_callback_method: str = "POST"
    status_callback_events: tuple[str, ...] = ("completed",)


@dataclass(frozen=True, slots=True)
class Dial:
    number: Number
    action: str | None
    method: str
    timeout_s: int
    caller_id: str | None
    answer_on_bridge: bool


Verb = Say | Play | Pause | Hangup | Reject | Redirect | Connect | Dial


def parse(document: bytes) -> list[Verb]:
    """The verbs of a document. Raises TwilioFault: 12100 for what is no XML, 12200 for what is no TwiML."""
    if len(document) > MAX_BYTES:
        raise TwilioFault(TOO_LARGE, f"The TwiML document has {len(document)} bytes; 64 kB is the most")
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        raise TwilioFault(PARSE, "Document parse failure: a TwiML document has no DOCTYPE")
    try:
        root = ElementTree.fromstring(document)  # noqa: S314 (no entities, see above, and from the server under test)
    except ElementTree.ParseError as error:
        raise TwilioFault(PARSE, f"Document parse failure: {error}") from None
    if root.tag != "Response":
        raise TwilioFault(PARSE, f"Document parse failure: the root is <{root.tag}>, not <Response>")
    _no_text(root)
    _attributes(root, {})
    return [_verb(element) for element in root]


_Check = Callable[[str], Any]


def _verb(element: ElementTree.Element) -> Verb:
    if element.tag not in _VERBS:
        raise _wrong(f"<{element.tag}> is not a verb (known here: {', '.join(sorted(_VERBS))})")
    return _VERBS[element.tag](element)


def _say(element: ElementTree.Element) -> Say:
    _attributes(element, {"voice": str, "language": str, "loop": _whole(0, 1000)})
    return Say(_text(element))


def _play(element: ElementTree.Element) -> Play:
    _attributes(element, {"loop": _whole(0, 1000)})
    return Play(_target(_text(element)))


def _pause(element: ElementTree.Element) -> Pause:
    values = _attributes(element, {"length": _whole(1, 86_400)})
    _empty(element)
    return Pause(values.get("length", 1))


def _hangup(element: ElementTree.Element) -> Hangup:
    _attributes(element, {})
    _empty(element)
    return Hangup()


def _reject(element: ElementTree.Element) -> Reject:
    values = _attributes(element, {"reason": _one_of("rejected", "busy")})
    _empty(element)
    return Reject(values.get("reason", "rejected"))


def _redirect(element: ElementTree.Element) -> Redirect:
    values = _attributes(element, {"method": _method})
    return Redirect(_target(_text(element)), values.get("method", "POST"))


def _connect(element: ElementTree.Element) -> Connect:
    values = _attributes(element, {"action": _url, "method": _method})
    return Connect(_stream(_only_child(element, "Stream")), values.get("action"), values.get("method", "POST"))


def _stream(element: ElementTree.Element) -> Stream:
    known: Mapping[str, _Check] = {
        "url": str,
        "name": str,
        "track": _one_of("inbound_track"),  # the only one of a stream in <Connect>
        "statusCallback": _url,
        "statusCallbackMethod": _method,
    }
    values = _attributes(element, known)
    if "url" not in values:
        raise _wrong("<Stream> has no url")
    _no_text(element)
    parameters: dict[str, str] = {}
    for child in element:
        if child.tag != "Parameter":
            raise _wrong(f"<{child.tag}> does not belong into <Stream>")
        _empty(child)
        given = _attributes(child, {"name": str, "value": str})
        if given.keys() != {"name", "value"}:
            raise _wrong("a <Parameter> needs a name and a value")
        if len(given["name"]) + len(given["value"]) >= MAX_PARAMETER:
            raise _wrong(f"the <Parameter> '{given['name']}' has {MAX_PARAMETER} characters or more")
        parameters[given["name"]] = given["value"]
    return Stream(
        values["url"],
        values.get("name", ""),
        values.get("statusCallback", ""),
        values.get("statusCallbackMethod", "POST"),
        parameters,
    )


def _dial(element: ElementTree.Element) -> Dial:
    known: Mapping[str, _Check] = {
        "action": _url,
        "method": _method,
        "timeout": _whole(1, 600),
        "callerId": str,
        "answerOnBridge": _one_of("true", "false"),
        "timeLimit": _whole(1, 86_400),
        "hangupOnStar": _one_of("true", "false"),
    }
    values = _attributes(element, known)
    number = _number(_only_child(element, "Number")) if len(element) else Number(_text(element))
    return Dial(
        number,
        values.get("action"),
        values.get("method", "POST"),
        values.get("timeout", 30),
        values.get("callerId"),
        values.get("answerOnBridge") == "true",
    )


def _number(element: ElementTree.Element) -> Number:
    known: Mapping[str, _Check] = {
        "url": _url,
        "method": _method,
        "statusCallback": _url,
        "statusCallbackMethod": _method,
        "statusCallbackEvent": _events,
    }
    values = _attributes(element, known)
    return Number(
        _text(element),
        values.get("url", ""),
        values.get("method", "POST"),
        values.get("statusCallback", ""),
        values.get("statusCallbackMethod", "POST"),
        values.get("statusCallbackEvent", ("completed",)),
    )


_VERBS: dict[str, Callable[[ElementTree.Element], Verb]] = {
    "Say": _say,
    "Play": _play,
    "Pause": _pause,
    "Hangup": _hangup,
    "Reject": _reject,
    "Redirect": _redirect,
    "Connect": _connect,
    "Dial": _dial,
}


def _attributes(element: ElementTree.Element, known: Mapping[str, _Check]) -> dict[str, Any]:
    values = {}
    for name, text in element.attrib.items():
        if name not in known:
            raise _wrong(f"<{element.tag}> has no attribute '{name}' (known here: {', '.join(known) or 'none'})")
        try:
            values[name] = known[name](text)
        except ValueError as error:
            raise _wrong(f"<{element.tag} {name}>: '{text}' {error}") from None
    return values


def _only_child(element: ElementTree.Element, tag: str) -> ElementTree.Element:
    _no_text(element)
    if [child.tag for child in element] != [tag]:
        inside = ", ".join(f"<{child.tag}>" for child in element) or "nothing"
        raise _wrong(f"<{element.tag}> holds {inside}; exactly one <{tag}> is known here")
    return element[0]


def _text(element: ElementTree.Element) -> str:
    if len(element):
        raise _wrong(f"<{element[0].tag}> inside <{element.tag}> is not known here")
    text = (element.text or "").strip()
    if not text:
        raise _wrong(f"<{element.tag}> is empty")
    return text


def _empty(element: ElementTree.Element) -> None:
    _no_text(element)
    if len(element):
        raise _wrong(f"<{element[0].tag}> does not belong into <{element.tag}>")


def _no_text(element: ElementTree.Element) -> None:
    texts = [element.text, *(child.tail for child in element)]
    if stray := [text.strip() for text in texts if text and text.strip()]:
        raise _wrong(f"text in <{element.tag}> that belongs to nothing: {stray[0][:40]!r}")


def _whole(least: int, most: int) -> _Check:
    def check(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,6}", text) or not least <= int(text) <= most:
            raise ValueError(f"is not a whole number from {least} to {most}")
        return int(text)

    return check


def _one_of(*allowed: str) -> _Check:
    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"is not one of {', '.join(allowed)}")
        return text

    return check


_method = _one_of("GET", "POST")


def _events(text: str) -> tuple[str, ...]:
    events = tuple(text.split())
    for event in events:
        _one_of("initiated", "ringing", "answered", "completed")(event)
    return events


def _url(text: str) -> str:
    if not re.fullmatch(r"(https?://[^\s/]+|/)\S*|[^\s:]+", text):
        raise ValueError("is not a web address")
    return text


def _target(text: str) -> str:
    try:
        return _url(text)
    except ValueError as error:
        raise _wrong(f"'{text}' {error}") from None


def _wrong(why: str) -> TwilioFault:
    return TwilioFault(SCHEMA, f"Schema validation: {why}")
