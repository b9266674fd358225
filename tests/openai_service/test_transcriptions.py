"""Uploaded recordings, sent by the official SDK."""

import io
import struct
import wave
from typing import Any

import aiohttp
import numpy as np
import openai
import pytest
from numpy.typing import NDArray
from openai.types.audio import Transcription, TranscriptionVerbose
from openai_service import OpenAiService

SPOKEN: NDArray[np.int16] = (np.arange(24_000) % 999).astype(np.int16)
"""1.5 s at 16 kHz."""


def wav(samples: NDArray[np.int16] = SPOKEN, rate_hz: int = 16_000, channels: int = 1) -> bytes:
    into = io.BytesIO()
    with wave.open(into, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.astype("<i2").tobytes())
    return into.getvalue()


async def transcribe(client: openai.AsyncOpenAI, content: bytes | None = None, **fields: Any) -> Any:
    asked: dict[str, Any] = {"model": "gpt-4o-mini-transcribe", "file": ("speech.wav", content or wav())} | fields
    return await client.audio.transcriptions.create(**asked)


async def test_the_text_is_the_one_of_the_script(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.transcriptions.reply("Wie spät ist es?")
    answer = await transcribe(client)
    assert isinstance(answer, Transcription)
    assert answer.text == "Wie spät ist es?"
    assert answer.usage
    assert answer.usage.type == "tokens"
    assert answer.usage.output_tokens == 4


async def test_the_recording_is_kept_with_what_was_asked(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    await transcribe(client, language="de", prompt="Ahoi", temperature=0.2)
    heard = service.transcriptions.received[0]
    assert (heard.model, heard.language, heard.prompt) == ("gpt-4o-mini-transcribe", "de", "Ahoi")
    assert heard.rate_hz == 16_000
    assert np.array_equal(heard.samples, SPOKEN)
    assert service.transcriptions.requests[0].body["temperature"] == 0.2


async def test_log_probabilities_come_if_asked(client: openai.AsyncOpenAI) -> None:
    answer = await transcribe(client, include=["logprobs"])
    assert "".join(one.token for one in answer.logprobs) == answer.text


async def test_models_that_are_paid_by_the_second_say_seconds(client: openai.AsyncOpenAI) -> None:
    for model in ("whisper-1", "gpt-transcribe"):
        usage = (await transcribe(client, model=model)).usage
        assert (usage.type, usage.seconds) == ("duration", 2)


async def test_whisper_tells_segments_and_words(client: openai.AsyncOpenAI) -> None:
    asked = ["word", "segment"]
    answer = await transcribe(client, model="whisper-1", response_format="verbose_json", timestamp_granularities=asked)
    assert isinstance(answer, TranscriptionVerbose)
    assert answer.duration == 1.5
    assert answer.words
    assert [word.word for word in answer.words] == ["What", "time", "is", "it?"]
    assert answer.segments
    assert answer.segments[0].no_speech_prob < 0.5


async def test_whisper_writes_subtitles(client: openai.AsyncOpenAI) -> None:
    assert "00:00:01,500" in await transcribe(client, model="whisper-1", response_format="srt")
    assert (await transcribe(client, model="whisper-1", response_format="vtt")).startswith("WEBVTT")


async def test_plain_text_ends_with_a_line_end(client: openai.AsyncOpenAI) -> None:
    assert await transcribe(client, response_format="text") == "What time is it?\n"


async def test_the_text_may_come_word_by_word(client: openai.AsyncOpenAI) -> None:
    events = [event async for event in await transcribe(client, stream=True, response_format="json")]
    assert [event.type for event in events] == ["transcript.text.delta"] * 4 + ["transcript.text.done"]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text
    assert events[-1].usage.output_tokens == 4


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"language": "english"}, "language", "invalid_value"),
        ({"language": "en-US"}, "language", "invalid_value"),
        ({"temperature": 1.5}, "temperature", "decimal_above_max_value"),
        ({"response_format": "verbose_json"}, "response_format", "unsupported_value"),
        ({"model": "gpt-transcribe", "response_format": "srt"}, "response_format", "unsupported_value"),
        ({"response_format": "text", "include": ["logprobs"]}, "include", "unsupported_parameter"),
        ({"model": "whisper-1", "include": ["logprobs"]}, "include", "unsupported_parameter"),
        ({"include": ["words"]}, "include[0]", "invalid_value"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities", "invalid_parameter"),
        ({"keywords": ["Ahoy"]}, "keywords", "unsupported_parameter"),
        ({"extra_body": {"vad_filter": "true"}}, "vad_filter", "unknown_parameter"),
        ({"file": ("speech", wav())}, "file", "invalid_value"),
        ({"file": ("speech.wav", b"no audio at all")}, "file", "invalid_value"),
        ({"file": ("speech.wav", wav(SPOKEN[:1000]))}, "file", "audio_too_short"),
        ({"file": ("speech.wav", wav(channels=2))}, "file", "invalid_value"),
        ({"file": ("speech.wav", wav()[:-100])}, "file", "invalid_value"),
        ({"file": ("speech.wav", wav()[:4] + struct.pack("<I", 0xFFFFFFFF) + wav()[8:])}, "file", "invalid_value"),
    ],
)
async def test_what_breaks_the_rules_is_refused(
    service: OpenAiService, client: openai.AsyncOpenAI, fields: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await transcribe(client, **fields)
    assert (refused.value.param, refused.value.code) == (param, code)
    assert not service.transcriptions.received


async def test_languages_and_keywords_are_for_the_newest_model(
    service: OpenAiService, client: openai.AsyncOpenAI
) -> None:
    await transcribe(client, model="gpt-transcribe", languages=["en", "de"], keywords=["Ahoy"])
    assert service.transcriptions.requests[0].body["languages"] == ["en", "de"]


async def test_a_chat_model_does_not_transcribe(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await transcribe(client, model="gpt-4o")


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ([("model", "whisper-1"), ("file", wav()), ("model", "whisper-1")], "model", "duplicate_parameter"),
        ([("model", "whisper-1"), ("file", wav()), ("file", wav())], "file", "duplicate_parameter"),
        ([("model", "whisper-1")], "file", "missing_required_parameter"),
        ([("file", wav())], "model", "missing_required_parameter"),
        ([("model", "whisper-1"), ("file", wav()), ("languages", "en")], "languages", "invalid_type"),
    ],
)
async def test_a_form_has_each_field_once(
    service: OpenAiService, parts: list[tuple[str, Any]], param: str, code: str
) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in parts:
        form.add_field(name, value, filename="speech.wav" if name == "file" else None)
    url, headers = service.base_url + "/audio/transcriptions", {"Authorization": f"Bearer {service.key}"}
    async with aiohttp.ClientSession() as session, session.post(url, data=form, headers=headers) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["param"], error["code"]) == (400, param, code)
