"""The models that the service offers, by the official SDK's lists and OpenAI's documentation."""

import re
from typing import get_args

from openai.types.audio_model import AudioModel
from openai.types.shared.chat_model import ChatModel

CHAT_MODELS: tuple[str, ...] = get_args(ChatModel)
SPEECH_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15")
FILE_MODELS: tuple[str, ...] = get_args(AudioModel)
"""Models that transcribe uploaded recordings."""
LIVE_MODELS = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""Models that transcribe while the audio comes in; they know no turn detection."""
SESSION_MODELS = (*FILE_MODELS, *LIVE_MODELS)
"""Models of transcription sessions."""
DURATION_MODELS = ("whisper-1", "gpt-transcribe", *LIVE_MODELS)
"""Transcription models that are paid by the second; the others are paid by the token."""
MODELS = (*CHAT_MODELS, *SPEECH_MODELS, *SESSION_MODELS)

LANGUAGES = frozenset(
    re.findall(
        r"[a-z]+",
        "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv "
        "dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie "
        "ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv "
        "mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm "
        "rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts "
        "tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu ",
    )
)
"""ISO 639-1."""


def reasons(model: str) -> bool:
    """Whether a chat model thinks before it answers; other rules hold for these. OpenAI's "chat" models do not."""
    if "-chat" in model:
        return False
    return model.startswith(("gpt-5", "gpt-6")) or (model[:1] == "o" and model[1:2].isdigit())
