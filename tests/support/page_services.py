"""Who does the work, as the server tells the page."""

from typing import Any


def provider(capability: str, name: str, model: str = "", **changes: Any) -> dict[str, Any]:
    """One who stands by and has no problem."""
    known = {"capability": capability, "provider": name, "model": model}
    return {**known, "works": True, "problem": "", "asked": False, **changes}


def finding(of: dict[str, Any], words: str, first_ms: float | None = 310.4) -> dict[str, Any]:
    """What the test has shown; without `first_ms` that it fails."""
    known = {name: of[name] for name in ("capability", "provider", "model")}
    return {**known, "works": first_ms is not None, "first_ms": first_ms, "words": words}


NO_CREDIT = "The account at groq has no credit left: add some there, or raise its limit."
EARS = provider("stt", "openai", "gpt-transcribe", asked=True)
EARS_TOO = provider("stt", "embedded")
BROKE = provider("llm", "groq", "llama-3.3-70b-versatile", works=False, problem=NO_CREDIT)
CHAT = provider("llm", "ollama", "llama3.2:3b", asked=True, problem="ollama gave nothing for 20 s.")
VOICE = provider("tts", "openai", "gpt-4o-mini-tts", asked=True)
VOICE_TOO = provider("tts", "embedded")
ALL = [EARS, EARS_TOO, BROKE, CHAT, VOICE, VOICE_TOO]
FOUND = [
    finding(EARS, "Understood “Hello, this is a test of the voice.”", 1240),
    finding(EARS_TOO, "Understood “Hello, this is a test of the voice.”", 95.2),
    finding(BROKE, NO_CREDIT, None),
    finding(CHAT, "Answered with 7 words."),
    finding(VOICE, "Spoke 2.1 s, 3.4 times as fast as it plays.", 210),
    finding(VOICE_TOO, "Spoke 2.3 s, 12.0 times as fast as it plays.", 48),
]
