"""Transcription sessions of the Realtime API, spoken by the official SDK and, where it is too polite, by aiohttp."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import openai
import pytest
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai_service import FailedTranscription, OpenAiService

SECOND = (np.arange(24_000) % 999).astype("<i2").tobytes()
pytestmark = pytest.mark.timeout(20)
HEARD = "conversation.item.input_audio_transcription."


def audio(milliseconds: float) -> str:
    return base64.b64encode(SECOND[: int(milliseconds * 48)]).decode()


def settings(model: str = "gpt-4o-transcribe", **given: Any) -> dict[str, Any]:
    """A session update; `given` are members of audio.input."""
    form = {"type": "audio/pcm", "rate": 24_000}
    given = {"format": form, "transcription": {"model": model}, "turn_detection": None} | given
    return {"type": "transcription", "audio": {"input": given}}


@asynccontextmanager
async def session(client: openai.AsyncOpenAI) -> AsyncIterator[AsyncRealtimeConnection]:
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        assert (await connection.recv()).type == "session.created"
        yield connection


async def ask(connection: AsyncRealtimeConnection, event: dict[str, Any]) -> Any:
    """Send an event that need not be one of the SDK's, and receive one."""
    await connection.send(event)  # type: ignore[arg-type]
    return await connection.recv()


async def update(connection: AsyncRealtimeConnection, model: str = "gpt-4o-transcribe", **given: Any) -> Any:
    return await ask(connection, {"type": "session.update", "session": settings(model, **given)})


async def say(connection: AsyncRealtimeConnection, *milliseconds: float, commit: bool = True) -> None:
    for length in milliseconds:
        await connection.input_audio_buffer.append(audio=audio(length))
    if commit:
        await connection.input_audio_buffer.commit()


async def until(connection: AsyncRealtimeConnection, kind: str) -> list[Any]:
    events = [await connection.recv()]
    while events[-1].type != kind:
        events.append(await connection.recv())
    return events


async def test_a_committed_turn_is_transcribed(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.realtime.reply("Wie spät ist es?")
    async with session(client) as connection:
        assert (await update(connection)).type == "session.updated"
        await say(connection, 100, 150)
        events = await until(connection, HEARD + "completed")
    assert [event.type for event in events] == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        *[HEARD + "delta"] * 4,
        HEARD + "completed",
    ]
    assert [event.delta for event in events[3:-1]] == ["Wie", " spät", " ist", " es?"]
    assert events[-1].transcript == "Wie spät ist es?"
    assert {event.item_id for event in (events[0], *events[3:])} == {events[1].item.id}
    assert events[-1].usage.type == "tokens"
    assert not service.refused


async def test_the_audio_is_kept_by_item(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    async with session(client) as connection:
        await update(connection, transcription={"model": "gpt-4o-transcribe", "language": "de", "prompt": "Ahoi"})
        await say(connection, 100, 100)
        heard = await service.realtime.next_heard()
        await until(connection, HEARD + "completed")
    assert heard.transcription == {"model": "gpt-4o-transcribe", "language": "de", "prompt": "Ahoi"}
    assert np.array_equal(heard.samples, np.tile(np.frombuffer(SECOND[:4800], "<i2"), 2))
    assert service.realtime.received == [heard]


async def test_items_know_what_came_before_them(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    async with session(client) as connection:
        await update(connection)
        places = []
        for _ in range(2):
            await say(connection, 200)
            places.append((await until(connection, HEARD + "completed"))[0])
    assert places[0].previous_item_id is None
    assert places[1].previous_item_id == places[0].item_id


@pytest.mark.parametrize("model", ["gpt-live-transcribe", "gpt-realtime-whisper"])
async def test_some_models_write_while_one_speaks(
    service: OpenAiService, client: openai.AsyncOpenAI, model: str
) -> None:
    service.realtime.reply("One two three")
    async with session(client) as connection:
        await update(connection, model)
        await say(connection, 200, 200, 200, commit=False)
        early: list[Any] = [await connection.recv() for _ in range(2)]
        await connection.input_audio_buffer.commit()
        late = await until(connection, HEARD + "completed")
    assert [event.delta for event in early] == ["One", " two"]
    assert late[0].type == "input_audio_buffer.committed"
    assert {event.item_id for event in (*early, late[0], late[-1])} == {late[0].item_id}
    assert [event.delta for event in late if event.type == HEARD + "delta"] == [" three"]
    assert (late[-1].usage.type, late[-1].usage.seconds) == ("duration", 0.6)


async def test_what_is_cleared_is_not_heard(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.realtime.reply("Only once")
    async with session(client) as connection:
        await update(connection, "gpt-live-transcribe")
        await say(connection, 200, commit=False)
        early: Any = await connection.recv()
        assert early.delta == "Only"
        await connection.input_audio_buffer.clear()
        assert (await connection.recv()).type == "input_audio_buffer.cleared"
        await say(connection, 100)
        assert (await until(connection, HEARD + "completed"))[-1].transcript == "Only once"
    assert len(service.realtime.received[0].samples) == 2400


async def test_a_quick_item_may_overtake_a_slow_one(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.realtime.reply("slow", delay_s=0.1)
    service.realtime.reply("quick")
    async with session(client) as connection:
        await update(connection)
        await say(connection, 100)
        await say(connection, 100)
        finals = [(await until(connection, HEARD + "completed"))[-1].transcript for _ in range(2)]
    assert finals == ["quick", "slow"]


async def test_log_probabilities_come_if_asked(client: openai.AsyncOpenAI) -> None:
    async with session(client) as connection:
        asked = settings() | {"include": ["item.input_audio_transcription.logprobs"]}
        await ask(connection, {"type": "session.update", "session": asked})
        await say(connection, 100)
        final = (await until(connection, HEARD + "completed"))[-1]
    assert "".join(one.token for one in final.logprobs) == final.transcript


async def test_telephone_audio_is_taken_as_it_is(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    async with session(client) as connection:
        await update(connection, format={"type": "audio/pcmu"})
        await connection.input_audio_buffer.append(audio=base64.b64encode(b"\xff" * 801).decode())
        await connection.input_audio_buffer.commit()
        await until(connection, HEARD + "completed")
    assert (service.realtime.received[0].format, service.realtime.received[0].audio) == ("audio/pcmu", b"\xff" * 801)


async def test_an_update_leaves_alone_what_it_does_not_name(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    async with session(client) as connection:
        await update(connection, noise_reduction={"type": "near_field"})
        change = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
        told = await ask(connection, {"type": "session.update", "session": change})
    given = told.session.audio.input
    assert given.transcription.model == "whisper-1"
    assert given.noise_reduction.type == "near_field"
    assert given.turn_detection is None
    assert [event["type"] for event in service.realtime.sessions[0].events] == ["session.update"] * 2


WHERE = "session.audio.input."


@pytest.mark.parametrize(
    ("model", "given", "param", "code"),
    [
        ("gpt-nope", {}, WHERE + "transcription.model", "invalid_model"),
        ("gpt-4o", {}, WHERE + "transcription.model", "invalid_model"),
        ("gpt-live-transcribe", {"turn_detection": {"type": "server_vad"}}, WHERE + "turn_detection", "unsupported_"),
        ("x", {"format": {"type": "audio/pcm", "rate": 16_000}}, WHERE + "format.rate", "invalid_value"),
        ("x", {"format": {"type": "audio/pcm"}}, WHERE + "format.rate", "missing_required_parameter"),
        ("x", {"format": {"type": "audio/pcmu", "rate": 8000}}, WHERE + "format.rate", "unknown_parameter"),
        ("x", {"format": "pcm16"}, WHERE + "format", "invalid_type"),
        ("x", {"turn_detection": {"type": "none"}}, WHERE + "turn_detection.type", "invalid_value"),
        ("x", {"transcription": {}}, WHERE + "transcription.model", "missing_required_parameter"),
        ("x", {"surprise": 1}, WHERE + "surprise", "unknown_parameter"),
        (
            "x",
            {"transcription": {"model": "gpt-realtime-whisper", "prompt": "Ahoi"}},
            WHERE + "transcription.prompt",
            "unsupported_parameter",
        ),
        (
            "x",
            {"transcription": {"model": "gpt-4o-transcribe", "keywords": ["Ahoi"]}},
            WHERE + "transcription.keywords",
            "unsupported_parameter",
        ),
        (
            "x",
            {"transcription": {"model": "whisper-1", "language": "english"}},
            WHERE + "transcription.language",
            "invalid_value",
        ),
    ],
)
async def test_wrong_settings_are_refused_and_the_session_goes_on(
    service: OpenAiService, client: openai.AsyncOpenAI, model: str, given: dict[str, Any], param: str, code: str
) -> None:
    async with session(client) as connection:
        told = await update(connection, model, **given)
        assert (told.type, told.error.param) == ("error", param)
        assert told.error.code.startswith(code)
        assert (await update(connection)).type == "session.updated"
    assert len(service.refused) == 1


async def test_hints_are_for_the_newest_models(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    hints = {"model": "gpt-live-transcribe", "keywords": ["Ahoi"], "languages": ["de", "en"]}
    async with session(client) as connection:
        assert (await update(connection, transcription=hints)).type == "session.updated"
    assert service.realtime.sessions[0].configuration["audio"]["input"]["transcription"] == hints


@pytest.mark.parametrize(
    ("event", "param", "code"),
    [
        ({"type": "response.create"}, "type", "invalid_value"),
        ({"type": "input_audio_buffer.commit", "final": True}, "final", "unknown_parameter"),
        ({"type": "input_audio_buffer.append"}, "audio", "missing_required_parameter"),
        ({"type": "input_audio_buffer.append", "audio": "not base64!"}, "audio", "invalid_value"),
        ({"type": "input_audio_buffer.append", "audio": "YWJj"}, "audio", "invalid_value"),
        ({"type": "input_audio_buffer.append", "audio": ""}, "audio", "invalid_value"),
        ({"type": "input_audio_buffer.commit"}, None, "input_audio_buffer_commit_empty"),
        ({"type": "session.update", "session": {"type": "realtime"}}, "session.type", "invalid_value"),
        ({"type": "session.update", "session": {"audio": {}}}, "session.type", "missing_required_parameter"),
        ({"event_id": "a"}, "type", "missing_required_parameter"),
    ],
)
async def test_wrong_events_are_answered_with_their_id(
    client: openai.AsyncOpenAI, event: dict[str, Any], param: str | None, code: str
) -> None:
    async with session(client) as connection:
        await update(connection)
        told = await ask(connection, event | {"event_id": "evt_7"})
    assert (told.type, told.error.param, told.error.code) == ("error", param, code)
    assert told.error.event_id == "evt_7"
    assert told.error.type == "invalid_request_error"


async def test_less_than_100_ms_cannot_be_committed(client: openai.AsyncOpenAI) -> None:
    async with session(client) as connection:
        await update(connection)
        await say(connection, 99)
        told: Any = await connection.recv()
        assert told.error.code == "input_audio_buffer_commit_empty"
        await say(connection, 1)
        assert (await connection.recv()).type == "input_audio_buffer.committed"


async def test_a_transcription_may_fail_and_the_next_does_not(
    service: OpenAiService, client: openai.AsyncOpenAI
) -> None:
    service.realtime.fault(FailedTranscription())
    async with session(client) as connection:
        await update(connection)
        await say(connection, 100)
        failed = (await until(connection, HEARD + "failed"))[-1]
        await say(connection, 100)
        await until(connection, HEARD + "completed")
    assert failed.error.code == "audio_unintelligible"


@pytest.mark.parametrize(
    ("query", "headers", "code"),
    [
        ("?intent=transcription&model=gpt-4o-transcribe", {}, "invalid_model"),
        ("", {}, "missing_model"),
        ("?intent=transcription&language=en", {}, "unknown_parameter"),
        ("?intent=transcription", {"OpenAI-Beta": "realtime=v1"}, "beta_api_shape_disabled"),
    ],
)
async def test_a_wrong_address_ends_the_session(
    service: OpenAiService, query: str, headers: dict[str, str], code: str
) -> None:
    headers = headers | {"Authorization": f"Bearer {service.key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.ws_connect(f"{service.base_url}/realtime{query}") as socket,
    ):
        error = (await socket.receive_json())["error"]
        ending = await socket.receive()
    assert error["code"] == code
    assert (ending.data, ending.extra) == (4000, f"invalid_request_error.{code}")


async def test_nobody_connects_without_the_key(service: OpenAiService) -> None:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await http.ws_connect(f"{service.base_url}/realtime?intent=transcription")
