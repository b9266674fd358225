"""What OpenAI's reference says about the fields of a transcription beyond their types."""

from typing import Any

from openai.types.audio.transcription_create_params import (
    TranscriptionCreateParamsNonStreaming,
    TranscriptionCreateParamsStreaming,
)

from openai_service.chat_rules import check_range
from openai_service.names import FILE_MODELS, LANGUAGES
from openai_service.refusals import (
    RefusedError,
    missing,
    model_not_found,
    refuse,
    unknown,
    unsupported,
    unsupported_value,
)
from openai_service.schema import check, fields
from openai_service.uploads import check_language

OLD_FIELDS = frozenset({"model", "language", "prompt", "response_format", "temperature"})
"""What servers that are merely compatible know, besides the file."""
_FORMATS = {
    "whisper-1": ("json", "text", "srt", "verbose_json", "vtt"),
    "gpt-4o-transcribe-diarize": ("json", "text", "diarized_json"),
}
_USUAL_FORMATS = ("json", "text")
_WITH_LOGPROBS = ("gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-mini-transcribe-2025-12-15")


def check_transcription(form: dict[str, Any], models: list[str], compatible: bool) -> None:
    """Raises RefusedError for the first field of the form (without its file) that is wrong."""
    if compatible:
        for name in form.keys() - OLD_FIELDS:
            raise unknown(name)
    streaming = form.get("stream") is True
    known = fields(TranscriptionCreateParamsStreaming if streaming else TranscriptionCreateParamsNonStreaming)
    for name in form:
        if name not in known or name == "file":
            raise unknown(name)
    if "model" not in form:
        raise missing("model")
    for name, value in form.items():
        check(value, known[name][0], name)
    check_range("temperature", form.get("temperature"), 0, 1)
    if "language" in form:
        check_language(form["language"], LANGUAGES, "language")
    for index, language in enumerate(form.get("languages", ())):
        check_language(language, LANGUAGES, f"languages[{index}]")
    if not compatible:
        _check_model(form, models)


def _check_model(form: dict[str, Any], models: list[str]) -> None:
    model = form["model"]
    if model not in FILE_MODELS or model not in models:
        raise RefusedError(model_not_found(model))
    kind = form.get("response_format", "json")
    formats = _FORMATS.get(model, _USUAL_FORMATS)
    if kind not in formats:
        raise unsupported_value("response_format", kind, f"{model} knows {', '.join(formats)}")
    if kind == "diarized_json":
        raise unsupported_value("response_format", kind, "this test server tells no speakers apart")
    if "include" in form and (model not in _WITH_LOGPROBS or kind != "json"):
        raise unsupported("include")
    if "timestamp_granularities" in form and kind != "verbose_json":
        message = "'timestamp_granularities' needs 'response_format' to be 'verbose_json'."
        raise refuse("invalid_parameter", message, "timestamp_granularities")
    for name in ("keywords", "languages"):
        if name in form and model != "gpt-transcribe":
            raise unsupported(name)
    if "prompt" in form and model == "gpt-4o-transcribe-diarize":
        raise unsupported("prompt")
    for name in ("known_speaker_names", "known_speaker_references"):
        if name in form and model != "gpt-4o-transcribe-diarize":
            raise unsupported(name)
