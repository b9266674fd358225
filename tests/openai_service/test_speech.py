"""Speech, asked for by the official SDK."""

import io
import json
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from openai_service import CHARACTER_S, OpenAiService, tone

TEXT = "Good morning."
SAMPLES = round(len(TEXT) * CHARACTER_S * 24_000)


async def say(client: openai.AsyncOpenAI, **fields: Any) -> bytes:
    asked: dict[str, Any] = {"model": "gpt-4o-mini-tts", "voice": "coral", "input": TEXT} | fields
    async with client.audio.speech.with_streaming_response.create(**asked) as response:
        return await response.read()


async def test_pcm_is_a_tone_as_long_as_the_text(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    pcm = np.frombuffer(await say(client, response_format="pcm"), "<i2")
    assert len(pcm) == SAMPLES
    assert np.array_equal(pcm, tone(len(TEXT)))
    assert service.speech.requests[0].chunks == -(-SAMPLES * 2 // service.speech.piece_bytes)


async def test_faster_speech_is_shorter(client: openai.AsyncOpenAI) -> None:
    assert len(await say(client, response_format="pcm", speed=2.0)) == SAMPLES


@pytest.mark.parametrize(("kind", "slack"), [("mp3", 3000), ("flac", 0), ("opus", 1000)])
async def test_other_formats_can_be_decoded(client: openai.AsyncOpenAI, kind: str, slack: int) -> None:
    samples, rate_hz = soundfile.read(io.BytesIO(await say(client, response_format=kind)))
    assert rate_hz == 24_000
    assert abs(len(samples) - SAMPLES) <= slack
    assert np.abs(samples).max() > 0.2


async def test_mp3_is_what_you_get_if_you_do_not_say(client: openai.AsyncOpenAI) -> None:
    assert (await say(client))[:2] in {b"\xff\xf3", b"\xff\xfb", b"ID"}


async def test_the_header_of_wav_does_not_know_the_length(client: openai.AsyncOpenAI) -> None:
    wav = await say(client, response_format="wav")
    assert wav[:4] + wav[8:12] == b"RIFFWAVE"
    assert wav[4:8] == wav[40:44] == b"\xff\xff\xff\xff"
    assert np.array_equal(np.frombuffer(wav[44:], "<i2"), tone(len(TEXT)))


async def test_pieces_may_tear_samples_apart(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.speech.odd_pieces = True
    pcm = np.frombuffer(await say(client, response_format="pcm"), "<i2")
    assert np.array_equal(pcm, tone(len(TEXT)))
    assert service.speech.requests[0].chunks == -(-SAMPLES * 2 // (service.speech.piece_bytes - 1))


async def test_speech_may_come_as_events_with_its_cost(client: openai.AsyncOpenAI) -> None:
    lines = (await say(client, response_format="pcm", stream_format="sse")).decode().split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
    assert [one["type"] for one in events] == ["speech.audio.delta"] * (len(events) - 1) + ["speech.audio.done"]
    assert events[-1]["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": "x" * 4097}, "input", "string_above_max_length"),
        ({"input": ""}, "input", "string_below_min_length"),
        ({"voice": "heart"}, "voice", "invalid_value"),
        ({"voice": {"name": "x"}}, "voice.name", "unknown_parameter"),
        ({"model": "tts-1", "voice": "cedar"}, "voice", "invalid_value"),
        ({"model": "tts-1", "instructions": "Softly."}, "instructions", "unsupported_parameter"),
        ({"speed": 5}, "speed", "integer_above_max_value"),
        ({"speed": 0.2}, "speed", "decimal_below_min_value"),
        ({"response_format": "au"}, "response_format", "invalid_value"),
        ({"extra_body": {"lang": "en"}}, "lang", "unknown_parameter"),
    ],
)
async def test_what_breaks_the_rules_is_refused(
    client: openai.AsyncOpenAI, fields: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await say(client, **fields)
    assert (refused.value.param, refused.value.code) == (param, code)


async def test_instructions_and_own_voices_are_taken(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    assert await say(client, instructions="Softly.", voice={"id": "voice_1"}, speed=1.5)
    assert not service.refused


async def test_a_compatible_server_has_other_voices() -> None:
    async with (
        OpenAiService(compatible=True, key=None) as service,
        openai.AsyncOpenAI(base_url=service.base_url, api_key="none", max_retries=0) as client,
    ):
        assert await say(client, model="kokoro", voice="af_heart", response_format="pcm")
        with pytest.raises(openai.BadRequestError):
            await say(client, model="kokoro", voice="af_heart", instructions="Softly.")
