"""The languages that people may speak, as models and people call them (ISO 639-1)."""

from collections.abc import Iterable

LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}


def only_speaks(languages: Iterable[str]) -> str:
    """What the voices of this machine cannot do, for a person."""
    return (
        f"the embedded voice speaks {' and '.join(LANGUAGES.get(code, code) for code in languages)} only: it reads "
        "other languages with its own accent. Name a service that speaks them in TTS_PROVIDER"
    )
