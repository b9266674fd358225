"""What a conversation has used, as the server tells the page."""

from typing import Any

from page_stage import Line

NOTHING = {
    "requests": 1,
    "given_up": 0,
    "estimated": False,
    "input_tokens": 0,
    "cached_tokens": 0,
    "output_tokens": 0,
    "audio_s": 0,
    "characters": 0,
    "usd": 0,
    "wasted_usd": 0,
    "priced": True,
}
CHAT = NOTHING | {
    "capability": "llm",
    "service": "openai",
    "model": "gpt-5.4-mini",
    "requests": 3,
    "given_up": 1,
    "input_tokens": 12_400,
    "cached_tokens": 1024,
    "output_tokens": 80,
    "usd": 0.0031,
    "wasted_usd": 0.0004,
}
EARS = NOTHING | {"capability": "stt", "service": "openai", "model": "whisper-1", "audio_s": 90.0, "usd": 0.009}
VOICE = NOTHING | {"capability": "tts", "service": "openai", "model": "tts-1", "characters": 321, "usd": 0.0048}
LOCAL = NOTHING | {"capability": "tts", "service": "embedded", "model": "hibari"}


def cost(line: Line, *services: dict[str, Any], turn: int = 1, **changes: Any) -> None:
    """The server tells what has been used so far."""
    sums = {
        "turn_usd": 0.001,
        "conversation_usd": sum(used["usd"] for used in services),
        "wasted_usd": sum(used["wasted_usd"] for used in services),
        "priced": all(used["priced"] for used in services),
    }
    line.tell("usage", turn=turn, services=services, **{**sums, **changes})
