"""What a model may ask us to do: the plumbing for functions, as OpenAI's API describes them.

Nothing runs here. Whoever passes tools runs what the model calls and answers with a message of the role "tool"; a
speculative reply is never given any, for what it does could not be taken back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tool:
    """A function a model may call. `parameters` is a JSON Schema of its arguments (an object)."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish that a function be called. `arguments` is a JSON object as text; `id` is named by the answer."""

    id: str
    name: str
    arguments: str
