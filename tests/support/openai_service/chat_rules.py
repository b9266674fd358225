"""What OpenAI's reference says about a chat request beyond the types of its fields."""

import re
from typing import Any

from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)

from openai_service.names import SESSION_MODELS, SPEECH_MODELS, reasons
from openai_service.refusals import (
    RefusedError,
    invalid_value,
    model_not_found,
    refuse,
    unknown,
    unsupported,
    unsupported_value,
)
from openai_service.schema import check

OLD_FIELDS = frozenset(
    re.findall(
        r"\w+",
        "messages model stream stream_options temperature top_p max_tokens stop seed presence_penalty tool_choice "
        "frequency_penalty tools response_format n user logprobs top_logprobs logit_bias",
    )
)
"""What servers that are merely compatible know."""
_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "n": (1, 128),
    "top_logprobs": (0, 20),
    "max_tokens": (1, None),
    "max_completion_tokens": (1, None),
}
_LONGEST = {"safety_identifier": 128}
_ONLY_WITHOUT_REASONING = {"temperature": 1, "top_p": 1, "logprobs": False, "top_logprobs": None}
"""Fields that models which reason take only with effort "none", and the values that change nothing."""
_NEVER_WITH_REASONING = {"presence_penalty": 0, "frequency_penalty": 0, "logit_bias": None}
_EFFORTS = {
    "o": ("low", "medium", "high"),
    "gpt-5": ("minimal", "low", "medium", "high"),
    "gpt-5.1": ("none", "low", "medium", "high"),
}
_LATER_EFFORTS = ("none", "low", "medium", "high", "xhigh", "max")
_FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def check_chat(body: dict[str, Any], models: list[str], compatible: bool) -> None:
    """Raises RefusedError for the first thing in the request that is wrong."""
    if compatible:
        for name in body.keys() - OLD_FIELDS:
            raise unknown(name)
    streaming = body.get("stream") is True
    check(body, CompletionCreateParamsStreaming if streaming else CompletionCreateParamsNonStreaming)
    if not compatible and (body["model"] not in models or body["model"] in {*SPEECH_MODELS, *SESSION_MODELS}):
        raise RefusedError(model_not_found(body["model"]))
    _check_values(body, streaming)
    _check_tools(body)
    check_messages(body["messages"])
    if not compatible:
        _check_model(body)


def _check_values(body: dict[str, Any], streaming: bool) -> None:
    for name, (least, most) in _RANGES.items():
        check_range(name, body.get(name), least, most)
    for name, longest in _LONGEST.items():
        if len(body.get(name) or "") > longest:
            raise refuse("string_above_max_length", f"'{name}' is longer than {longest} characters.", name)
    if "stream_options" in body and not streaming:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise refuse("invalid_parameter", message, "stream_options")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise refuse("invalid_parameter_combination", message, "max_tokens")
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise refuse("invalid_parameter", "'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    if isinstance(body.get("stop"), list) and not 1 <= len(body["stop"]) <= 4:
        raise refuse("array_above_max_length", "'stop' takes 1 to 4 sequences.", "stop")
    if len(body.get("metadata") or ()) > 16:
        raise refuse("object_above_max_properties", "'metadata' takes 16 pairs at most.", "metadata")
    if (body.get("n") or 1) > 1 or "audio" in (body.get("modalities") or ()):
        raise refuse("unsupported_value", "This test server makes one answer, of text.", "n")


def check_range(name: str, value: float | None, least: float, most: float | None) -> None:
    """Raises RefusedError when a number is given and lies outside."""
    kind = "integer" if isinstance(value, int) else "decimal"
    if value is not None and value < least:
        message = f"Invalid '{name}': {kind} below minimum value. Expected a value >= {least}, but got {value} instead."
        raise refuse(f"{kind}_below_min_value", message, name)
    if value is not None and most is not None and value > most:
        message = f"Invalid '{name}': {kind} above maximum value. Expected a value <= {most}, but got {value} instead."
        raise refuse(f"{kind}_above_max_value", message, name)


def _check_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    for name in ("tool_choice", "parallel_tool_calls"):
        if name in body and not tools and body[name] != "none":
            raise refuse("invalid_parameter", f"'{name}' is only allowed when 'tools' are specified.", name)
    if tools is not None and not 1 <= len(tools) <= 128:
        raise refuse("array_below_min_length", "'tools' takes 1 to 128 tools.", "tools")
    for index, tool in enumerate(tools or ()):
        name = tool.get("function", tool.get("custom", {}))["name"]
        if not _FUNCTION_NAME.fullmatch(name):
            raise invalid_value(f"tools[{index}].function.name", name, "letters, digits, _ and -, 64 at most")


def check_messages(messages: list[dict[str, Any]]) -> None:
    """Raises RefusedError when the messages cannot follow each other so: the answers to tool calls come right behind
    them, one for each."""
    if not messages:
        raise refuse("empty_array", "Invalid 'messages': empty array. Expected at least one message.", "messages")
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                text = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                raise refuse("invalid_value", f"Invalid parameter: {text}", f"{where}.role")
            open_calls.discard(message["tool_call_id"])
            continue
        _all_answered(open_calls, where)
        if message["role"] == "assistant":
            calls = message.get("tool_calls") or ()
            if message.get("content") is None and not calls and not message.get("refusal"):
                raise refuse("invalid_value", "An assistant message needs 'content' or 'tool_calls'.", where)
            open_calls = {call["id"] for call in calls}
    _all_answered(open_calls, "messages")


def _all_answered(open_calls: set[str], where: str) -> None:
    if open_calls:
        text = "An assistant message with 'tool_calls' must be followed by tool messages responding to each of them."
        raise refuse("invalid_value", text, where)


def _check_model(body: dict[str, Any]) -> None:
    model, effort = body["model"], body.get("reasoning_effort")
    if not reasons(model):
        for name in ("reasoning_effort", "verbosity"):
            if body.get(name) is not None:
                raise unsupported(name)
        return
    if body.get("max_tokens") is not None:
        raise unsupported("max_tokens", instead="max_completion_tokens")
    efforts = _efforts(model)
    if effort is not None and effort not in efforts:
        raise unsupported_value("reasoning_effort", effort, f"this model knows {', '.join(efforts)}")
    for name, harmless in _NEVER_WITH_REASONING.items():
        if body.get(name) is not None and body[name] != harmless:
            raise unsupported(name)
    if effort != "none":
        for name, harmless in _ONLY_WITHOUT_REASONING.items():
            if body.get(name) is not None and body[name] != harmless:
                raise unsupported_value(name, body[name], "only the default is supported while the model reasons")
    if model.startswith(("o3", "o4-mini")) and body.get("stop") is not None:
        raise unsupported("stop")


def _efforts(model: str) -> tuple[str, ...]:
    if model.startswith("o"):
        return _EFFORTS["o"]
    version = "-".join(model.split("-")[:2])
    return _EFFORTS.get(version, _LATER_EFFORTS)
