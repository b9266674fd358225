"""The written protocol itself: well-formed AsyncAPI 3, complete, and the same as what the code reads and writes."""

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from app.conversation import messages as msg
from app.usage.ledger import Amounts, Ledger, Work
from app.websocket import handler, wire
from jsonschema import Draft7Validator
from wire_schema import Document, document, references

DOCUMENT = document()

# What AsyncAPI 3.0.0 allows in each object (the fields that this document may grow into, not all of them).
FIELDS = {
    "root": {"asyncapi", "id", "info", "defaultContentType", "servers", "channels", "operations", "components"},
    "info": {"title", "version", "description", "termsOfService", "contact", "license", "tags", "externalDocs"},
    "server": {"host", "protocol", "protocolVersion", "pathname", "description", "title", "summary", "variables"},
    "channel": {"address", "messages", "title", "summary", "description", "servers", "parameters", "bindings"},
    "operation": {"action", "channel", "title", "summary", "description", "messages", "reply", "bindings", "security"},
    "message": {"headers", "payload", "contentType", "name", "title", "summary", "description", "examples", "bindings"},
    "components": {"schemas", "messages", "servers", "channels", "operations", "parameters"},
}
FROM_HANDLER = {"ready", "started", "error", "bye"}
"""What the adapter says itself; everything else comes out of a conversation."""


def check_fields(what: str, part: dict[str, Any], *required: str) -> None:
    unknown = {key for key in part if not key.startswith("x-")} - FIELDS[what]
    assert not unknown, f"{what} has {unknown}"
    assert set(required) <= set(part), f"{what} lacks {set(required) - set(part)}"


def test_every_object_has_the_fields_that_asyncapi_3_wants_and_no_others() -> None:
    raw = DOCUMENT.raw
    assert raw["asyncapi"] == "3.0.0"
    check_fields("root", raw, "asyncapi", "info")
    check_fields("info", raw["info"], "title", "version")
    for server in raw["servers"].values():
        check_fields("server", server, "host", "protocol")
    for channel in raw["channels"].values():
        check_fields("channel", channel, "address", "messages")
    for operation in raw["operations"].values():
        check_fields("operation", operation, "action", "channel", "messages")
        assert operation["action"] in {"send", "receive"}
    check_fields("components", raw["components"])
    for message in raw["components"]["messages"].values():
        check_fields("message", message, "summary", "payload")


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT.raw):
        assert isinstance(DOCUMENT.at(reference), dict), reference


def test_operations_name_messages_of_their_channel_and_every_message_has_one_direction() -> None:
    raw = DOCUMENT.raw
    named: list[str] = []
    for operation in raw["operations"].values():
        channel = operation["channel"]["$ref"]
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/"), (
                "an operation may only use its channel's messages"
            )
            named.append(message["$ref"].rsplit("/", 1)[1])
    assert sorted(named) == sorted(raw["channels"]["conversation"]["messages"])
    assert sorted(named) == sorted(raw["components"]["messages"]), "nothing is described that is not used"


def test_no_schema_is_left_over() -> None:
    used = {reference for reference in references(DOCUMENT.raw) if reference.startswith("#/components/schemas/")}
    assert used == {f"#/components/schemas/{name}" for name in DOCUMENT.raw["components"]["schemas"]}


def test_every_payload_is_a_json_schema_that_leaves_nothing_open() -> None:
    for kind, schema in (DOCUMENT.from_server | DOCUMENT.from_client).items():
        Draft7Validator.check_schema(schema)  # AsyncAPI's schema object is JSON Schema draft 7 and a little more
        for part in objects(schema):
            assert part["additionalProperties"] is False, kind
            assert set(part["required"]) <= set(part["properties"]), kind


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)


def test_a_wrong_message_does_not_pass_the_judge() -> None:
    with pytest.raises(AssertionError, match="no message 'hello'"):
        DOCUMENT.check({"type": "hello"}, DOCUMENT.from_server)
    with pytest.raises(AssertionError, match="was unexpected"):
        DOCUMENT.check({"type": "bye", "reason": "idle", "more": 1}, DOCUMENT.from_server)
    with pytest.raises(AssertionError, match="is not one of"):
        DOCUMENT.check({"type": "bye", "reason": "bored"}, DOCUMENT.from_server)


# --- the same as the code


def test_the_server_reads_exactly_the_messages_that_are_documented() -> None:
    assert {model_type(model) for model in get_args(wire.Incoming)} == set(DOCUMENT.from_client)


@pytest.mark.parametrize("model", get_args(wire.Incoming), ids=lambda model: model.__name__)
def test_a_client_message_has_the_documented_fields_and_limits(model: Any) -> None:
    schema = DOCUMENT.from_client[model_type(model)]
    read = model.model_json_schema()["properties"]
    fields = {name: field_schema(part) for name, part in read.items() if name != "type"}
    documented = {name: bare(part) for name, part in schema["properties"].items() if name != "type"}
    assert fields == documented
    assert {name for name, field in model.model_fields.items() if field.is_required()} == set(schema["required"])


def model_type(model: Any) -> str:
    (kind,) = get_args(model.model_fields["type"].annotation)
    return str(kind)


def field_schema(part: dict[str, Any]) -> dict[str, Any]:
    """A field's schema as pydantic writes it, in the shorter words of the document."""
    schema = {key: value for key, value in part.items() if key not in {"title", "anyOf"}}
    choices = part.get("anyOf", [])
    for choice in choices:
        schema |= {key: value for key, value in choice.items() if key != "type"}
    if choices:
        schema["type"] = [choice["type"] for choice in choices]
    return {key: value for key, value in schema.items() if not (key == "default" and value is None)}


def bare(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "description"}


SAMPLES: list[msg.Message] = [
    msg.SpeechShown(1, True, 1234.56),
    msg.SpeechShown(1, False, 2345.67),
    msg.TranscriptShown(1, "so far", False),
    msg.TranscriptShown(1, "all of it", True),
    msg.TurnReopened(1),
    msg.ReplyText(0, 1, "Ahoy!"),
    msg.ReplyRewritten(1, 2, "Well,"),
    msg.ReplyDone(1, 2, "Well, yes.", "Well,", True),
    msg.AudioStarted(1, 2),
    msg.AudioEnded(2, 1500.04),
    msg.AudioHeld(2, True),
    msg.AudioHeld(2, False),
    msg.AudioCleared(2),
    msg.LatencyShown(1, 2, 512.34, True, 240, 120, 80, 60, 3),
    msg.UsageShown(
        1,
        0.00012,
        0.0042,
        0.001,
        priced=False,
        services=Ledger({Work("llm", "openai", "gpt-5.4-mini"): Amounts(3, 1, 1, 1, 500, 20, 60, usd=0.0042)}),
    ),
    msg.Trouble("provider_failed", "The language model failed; try again.", False),
]


NOT_FOR_BROWSERS = {msg.AudioReached}


def test_everything_a_conversation_can_tell_is_documented() -> None:
    told = [json.loads(text) for sample in SAMPLES if (text := wire.encode(sample))]
    for message in told:
        DOCUMENT.check(message, DOCUMENT.from_server)
    assert {message["type"] for message in told} | FROM_HANDLER == set(DOCUMENT.from_server)
    assert {type(sample) for sample in SAMPLES} | NOT_FOR_BROWSERS == set(get_args(msg.Message)), "one has no sample"
    assert len(told) == len(SAMPLES)


def test_the_error_codes_are_those_of_the_code_and_others_come_out_as_one_of_them() -> None:
    assert set(wire.ERROR_CODES) == DOCUMENT.error_codes
    inner = json.loads(wire.encode(msg.Trouble("context_too_long", "That was too long for the model.", False)) or "")
    DOCUMENT.check(inner, DOCUMENT.from_server)
    assert inner["code"] == "provider_failed"


def test_the_close_codes_are_those_of_the_code_and_of_the_server_below_it() -> None:
    ours = {handler.NORMAL, handler.GOING_AWAY, handler.POLICY, handler.FAILED, handler.TRY_LATER}
    of_the_server = {1007, 1009, 1012}
    assert ours | of_the_server == set(DOCUMENT.close_codes)


def test_the_size_limits_are_those_of_the_code() -> None:
    messages = DOCUMENT.raw["components"]["messages"]
    assert messages["audioUp"]["payload"]["maxLength"] == wire.MAX_AUDIO_BYTES
    formats = Document().resolved(DOCUMENT.raw["components"]["schemas"]["audioFormat"])["properties"]
    assert {name: part["const"] for name, part in formats.items()} == wire.AUDIO_FORMAT
