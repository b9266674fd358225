"""Voices of speech services: those that OpenAI has, and those that other servers list."""

import re
from collections.abc import Sequence

from app.tts.base import Voice

EVERY_LANGUAGE = "mul"
"""ISO 639-2 code for several languages: the voice speaks what it is given."""
_OPENAI = (
    "coral",
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "echo",
    "fable",
    "marin",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
)
"""The default one first."""
_NEWER = {"ballad", "cedar", "marin", "verse"}
"""Those that tts-1 and tts-1-hd do not have (developers.openai.com, guide "Text to speech")."""
_KOKORO = re.compile(r"([abefhijpz])[fm]_[a-z0-9]+")
_KOKORO_LANGUAGES = {
    "a": "en",
    "b": "en",
    "e": "es",
    "f": "fr",
    "h": "hi",
    "i": "it",
    "j": "ja",
    "p": "pt",
    "z": "zh",
}
"""What the first letter of a Kokoro voice says (hexgrad/Kokoro-82M, VOICES.md)."""
_CODE = re.compile(r"([a-z]{2})([-_][A-Za-z]{2,4})?")


def openai_voices(model: str) -> list[Voice]:
    """The voices built into a model of OpenAI's."""
    older = model.startswith("tts-1")
    return [Voice(name, name.title(), EVERY_LANGUAGE) for name in _OPENAI if not (older and name in _NEWER)]


def named_voice(voice_id: str) -> Voice:
    """A voice of which only the id is known: Kokoro's tell their language by it."""
    kokoro = _KOKORO.fullmatch(voice_id)
    return Voice(voice_id, voice_id, _KOKORO_LANGUAGES[kokoro[1]] if kokoro else EVERY_LANGUAGE)


def listed_voices(answer: object) -> list[Voice]:
    """What a server answers to GET /audio/voices: Kokoro-FastAPI lists ids, or objects with `id` and `name`, Speaches
    objects with a `language` as well. What makes no sense is left out."""
    listed = answer.get("voices") if isinstance(answer, dict) else answer
    found: dict[str, Voice] = {}
    for entry in listed if isinstance(listed, Sequence) and not isinstance(listed, str) else ():
        fields = entry if isinstance(entry, dict) else {"id": entry}
        voice_id = fields.get("id") or fields.get("name")
        if not isinstance(voice_id, str) or not voice_id.strip():
            continue
        known = named_voice(voice_id)
        name, language = fields.get("name"), _CODE.fullmatch(str(fields.get("language") or ""))
        found.setdefault(
            voice_id,
            Voice(voice_id, name if isinstance(name, str) else known.name, language[1] if language else known.language),
        )
    return list(found.values())
