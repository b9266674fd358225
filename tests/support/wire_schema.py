"""The written protocol, `docs/asyncapi.yaml`, as a judge: what a server sends must be in it, and in an allowed order.

`Document` reads it; `Judge` follows one connection and raises `BrokenProtocolError` with the rule that was broken.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, FormatChecker

PATH = Path(__file__).resolve().parents[2] / "docs" / "asyncapi.yaml"
BYTES_PER_MS = 32
"""16 kHz, 16 bits."""


class BrokenProtocolError(AssertionError):
    """The server did something that the document does not allow."""


class Document:
    """The AsyncAPI document, with every `$ref` followed."""

    def __init__(self, path: Path = PATH) -> None:
        self.raw: dict[str, Any] = yaml.safe_load(path.read_text())
        self.from_server = self._schemas("send")
        self.from_client = self._schemas("receive")
        self.close_codes: dict[int, str] = self.raw["channels"]["conversation"]["x-close-codes"]

    def at(self, reference: str) -> Any:
        """What a reference within the document (`#/a/b`) points at. Raises KeyError when there is nothing."""
        assert reference.startswith("#/"), f"{reference} leaves the document"
        return functools.reduce(lambda part, key: part[key], reference[2:].split("/"), self.raw)

    def resolved(self, part: Any) -> Any:
        """`part` without references."""
        if isinstance(part, Mapping):
            if "$ref" in part:
                return self.resolved(self.at(part["$ref"]))
            return {key: self.resolved(value) for key, value in part.items()}
        return [self.resolved(value) for value in part] if isinstance(part, list) else part

    @functools.cached_property
    def error_codes(self) -> set[str]:
        """The codes of `error`."""
        return set(self.from_server["error"]["properties"]["code"]["enum"])

    def check(self, message: Mapping[str, Any], direction: Mapping[str, Any]) -> None:
        """Raises BrokenProtocolError unless `message` is one of `direction` (from_server or from_client)."""
        kind = message.get("type")
        if kind not in direction:
            raise BrokenProtocolError(f"the document has no message {kind!r}")
        faults = [error.message for error in self._validator(direction[kind]).iter_errors(message)]
        if faults:
            raise BrokenProtocolError(f"{kind}: {'; '.join(faults)}")

    def _schemas(self, action: str) -> dict[str, Any]:
        """The payload schema of each JSON message of one direction, by its type."""
        found: dict[str, Any] = {}
        for operation in self.raw["operations"].values():
            if operation["action"] != action:
                continue
            for reference in operation["messages"]:
                message = self.resolved(reference)
                if "contentType" not in message:
                    found[message["payload"]["properties"]["type"]["const"]] = message["payload"]
        return found

    def _validator(self, schema: Mapping[str, Any]) -> Draft202012Validator:
        return Draft202012Validator(schema, format_checker=FormatChecker())


@functools.cache
def document() -> Document:
    """The document, read once."""
    return Document()


@dataclass
class Heard:
    """One reply as a client has it."""

    turn: int
    text: str = ""
    audio_bytes: int = 0
    audible: bool = False
    """Its audio.start has come."""
    ended: bool = False
    cleared: bool = False
    held: bool = False
    done: Mapping[str, Any] | None = None


@dataclass
class Judge:
    """Follows what a server sends on one connection. Every message goes through `text` or `audio`, then `closed`."""

    seen: list[str] = field(default_factory=list)
    """The types of the messages so far, in order."""
    replies: dict[int, Heard] = field(default_factory=dict)
    final: dict[int, str] = field(default_factory=dict)
    """The final transcripts that stand, by turn."""
    fatal: bool = False
    bye: str | None = None
    _playing: int = 0
    _turn: int = 0
    _spent_usd: float = 0.0

    def text(self, message: Mapping[str, Any]) -> None:
        """A JSON message has come. Raises BrokenProtocolError."""
        document().check(message, document().from_server)
        kind = message["type"]
        self._rule(self.bye is None, f"{kind} after bye")
        self._rule(not self.fatal or kind in {"clear", "reply.done", "bye"}, f"{kind} after a fatal error")
        self._rule("ready" in self.seen or kind in {"ready", "error", "bye"}, f"{kind} before ready")
        self._rule("started" in self.seen or kind in {"ready", "started", "error", "bye"}, f"{kind} before started")
        self.seen.append(kind)
        getattr(self, f"_{kind.replace('.', '_')}", lambda _: None)(message)

    def audio(self, data: bytes) -> None:
        """A binary message has come. Raises BrokenProtocolError."""
        self._rule(len(data) > 0 and len(data) % 2 == 0, f"{len(data)} bytes are no audio")
        self._rule(self.bye is None and not self.fatal, "audio after the end")
        reply = self.replies.get(self._playing)
        self._rule(reply is not None, "audio outside of a reply")
        assert reply
        self._rule(not reply.ended and not reply.cleared and reply.done is None, "audio of a reply that is over")
        reply.audio_bytes += len(data)

    def closed(self, code: int) -> None:
        """The server has closed, with this code. Raises BrokenProtocolError."""
        self._rule(code in document().close_codes, f"close code {code} is not documented")
        expected = {None: code, "shutdown": 1001, "failed": 1011}.get(self.bye, 1000)
        self._rule(code == expected, f"close code {code} after bye {self.bye}")
        self._rule(code not in {1000, 1001} or self.bye is not None, f"close code {code} without bye")

    # --- one rule for each kind of message

    def _ready(self, _: Mapping[str, Any]) -> None:
        self._rule(self.seen == ["ready"], "ready is not the first message")

    def _started(self, _: Mapping[str, Any]) -> None:
        self._rule(self.seen.count("started") == 1, "started twice")

    def _speech_started(self, message: Mapping[str, Any]) -> None:
        self._rule(message["turn"] in {self._turn, self._turn + 1}, f"turn {message['turn']} after turn {self._turn}")
        self._turn = message["turn"]

    def _speech_stopped(self, message: Mapping[str, Any]) -> None:
        self._rule(message["turn"] == self._turn, "speech stopped in a turn that is not going on")

    def _transcript_partial(self, message: Mapping[str, Any]) -> None:
        self._rule(message["turn"] == self._turn, "a partial transcript of a turn that is not going on")
        self._rule(message["turn"] not in self.final, "a partial transcript of a turn that is over")

    def _transcript_final(self, message: Mapping[str, Any]) -> None:
        turn = message["turn"]
        self._rule(turn in {self._turn, self._turn + 1}, f"turn {turn} after turn {self._turn}")
        self._rule(turn not in self.final, f"two final transcripts of turn {turn}")
        self._turn = turn
        self.final[turn] = message["text"]

    def _turn_reopened(self, message: Mapping[str, Any]) -> None:
        self._rule(message["turn"] in self.final, "a turn that was not over is opened again")
        self._rule(message["turn"] == self._turn, "an earlier turn is opened again")
        del self.final[message["turn"]]

    def _reply_text(self, message: Mapping[str, Any]) -> None:
        self._reply(message).text += message["text"]

    def _reply_rewritten(self, message: Mapping[str, Any]) -> None:
        reply = self._reply(message)
        self._rule(reply.text.startswith(message["text"]), "reply.rewritten is no beginning of what was sent")
        reply.text = message["text"]

    def _audio_start(self, message: Mapping[str, Any]) -> None:
        reply = self._reply(message)
        before = self.replies.get(self._playing)
        self._rule(before is None or before.done is not None, "two replies audible at once")
        self._rule(not reply.audible, "audio.start twice")
        reply.audible = True
        self._playing = message["reply"]

    def _audio_end(self, message: Mapping[str, Any]) -> None:
        reply = self._playing_reply(message)
        self._rule(not reply.ended, "audio.end twice")
        sent_ms = reply.audio_bytes / BYTES_PER_MS
        self._rule(abs(message["duration_ms"] - sent_ms) <= 0.1, f"{sent_ms} ms were sent of {message['duration_ms']}")
        reply.ended = True

    def _audio_hold(self, message: Mapping[str, Any]) -> None:
        reply = self._playing_reply(message)
        self._rule(not reply.held, "audio.hold twice")
        reply.held = True

    def _audio_resume(self, message: Mapping[str, Any]) -> None:
        reply = self._playing_reply(message)
        self._rule(reply.held, "audio.resume without audio.hold")
        reply.held = False

    def _clear(self, message: Mapping[str, Any]) -> None:
        reply = self._playing_reply(message)
        self._rule(not reply.cleared, "clear twice")
        reply.cleared = True

    def _latency(self, message: Mapping[str, Any]) -> None:
        self._playing_reply(message)
        count = sum(1 for kind in self.seen if kind == "latency")
        self._rule(count <= sum(reply.audible for reply in self.replies.values()), "latency twice for one reply")

    def _usage(self, message: Mapping[str, Any]) -> None:
        self._rule(message["turn_usd"] <= message["conversation_usd"] + 1e-6, "a turn that cost more than all turns")
        self._rule(message["conversation_usd"] >= self._spent_usd, "a conversation that costs less than it did")
        self._spent_usd = message["conversation_usd"]

    def _reply_done(self, message: Mapping[str, Any]) -> None:
        reply = self._reply(message)
        self._rule(message["text"] == reply.text, "reply.done has another text than was sent")
        self._rule(message["text"].startswith(message["heard"]), "heard is no prefix of text")
        self._rule(reply.cleared == (reply.audible and message["interrupted"]), "clear and interrupted disagree")
        self._rule(message["interrupted"] or not reply.audible or reply.ended, "done before audio.end")
        reply.done = message

    def _error(self, message: Mapping[str, Any]) -> None:
        self.fatal = message["fatal"]

    def _bye(self, message: Mapping[str, Any]) -> None:
        self._rule(all(reply.done for reply in self.replies.values()), "bye before the reply was done")
        self.bye = message["reason"]

    def _reply(self, message: Mapping[str, Any]) -> Heard:
        """The reply that a message is about; a new one must have a higher number than all before."""
        number, turn = message["reply"], message["turn"]
        if number not in self.replies:
            self._rule(number > max(self.replies, default=0), f"reply {number} comes too late")
            self._rule(turn == 0 or turn in self.final, f"a reply to turn {turn}, which is not over")
            self.replies[number] = Heard(turn)
        reply = self.replies[number]
        self._rule(reply.turn == turn, f"reply {number} changes its turn from {reply.turn} to {turn}")
        self._rule(reply.done is None, f"{message['type']} of reply {number} after reply.done")
        return reply

    def _playing_reply(self, message: Mapping[str, Any]) -> Heard:
        self._rule(message["reply"] == self._playing, f"{message['type']} of a reply that is not playing")
        reply = self.replies[self._playing]
        self._rule(reply.done is None, f"{message['type']} of a reply that is done")
        return reply

    def _rule(self, holds: bool, broken: str) -> None:
        if not holds:
            raise BrokenProtocolError(f"{broken} (so far: {', '.join(self.seen[-8:])})")


def references(part: Any) -> Iterator[str]:
    """Every `$ref` within `part`."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)
