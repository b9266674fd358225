"""What the service does when a test wants it to fail."""

import asyncio
import json
from typing import Any

import aiohttp
import openai
import pytest
from openai_service import (
    Cut,
    Empty,
    HalfCharacter,
    OddLength,
    OpenAiService,
    Page,
    Stall,
    Status,
    bad_gateway,
    broken_json,
    comment,
    content_filtered,
    content_refused,
    context_too_long,
    error_event,
    forbidden,
    login_page,
    model_not_found,
    no_quota,
    overloaded,
    rate_limited,
    server_error,
    unauthorized,
)
from openai_service.faults import Fault

pytestmark = pytest.mark.timeout(20)
ASKED: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello?"}], "stream": True}


async def stream(client: openai.AsyncOpenAI) -> list[str]:
    """The words of a streamed reply, the empty ones at its ends included."""
    chunks = await client.chat.completions.create(**ASKED)
    return [chunk.choices[0].delta.content or "" async for chunk in chunks]


class Raw:
    """Asks for a streamed reply and sees each byte of the answer."""

    def __init__(self, service: OpenAiService) -> None:
        self.body = b""
        self.pieces: list[bytes] = []
        self._service = service

    async def ask(self, body: dict[str, Any] | None = None, path: str = "/chat/completions") -> int:
        """The status. Raises aiohttp.ClientError when the connection ends before the answer does."""
        headers = {"Authorization": f"Bearer {self._service.key}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(self._service.base_url + path, json=body or ASKED) as answer,
        ):
            async for piece in answer.content.iter_any():
                self.pieces.append(piece)
                self.body += piece
            return answer.status


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (unauthorized(), openai.AuthenticationError),
        (forbidden(), openai.PermissionDeniedError),
        (model_not_found("gpt-4o-mini"), openai.NotFoundError),
        (rate_limited(7), openai.RateLimitError),
        (no_quota(), openai.RateLimitError),
        (context_too_long(), openai.BadRequestError),
        (content_refused(), openai.BadRequestError),
        (content_filtered(), openai.BadRequestError),
        (server_error(), openai.InternalServerError),
        (bad_gateway(), openai.InternalServerError),
        (overloaded(), openai.InternalServerError),
    ],
)
async def test_errors_are_those_that_the_sdk_knows(
    service: OpenAiService, client: openai.AsyncOpenAI, fault: Status, error: type[openai.APIStatusError]
) -> None:
    service.chat.fault(fault)
    with pytest.raises(error) as told:
        await stream(client)
    assert (told.value.status_code, told.value.code, told.value.type) == (fault.status, fault.code, fault.type)
    assert told.value.response.headers.get("retry-after") == fault.headers.get("Retry-After")
    assert service.chat.requests[0].outcome == "faulty"
    assert not service.refused


async def test_faults_come_once_each_and_in_order(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.fault(rate_limited(), server_error())
    for error in (openai.RateLimitError, openai.InternalServerError):
        with pytest.raises(error):
            await stream(client)
    assert "".join(await stream(client)) == service.chat.usual.text


async def test_a_request_that_breaks_a_rule_does_not_use_up_a_fault(
    service: OpenAiService, client: openai.AsyncOpenAI
) -> None:
    service.chat.fault(rate_limited())
    assert await Raw(service).ask(ASKED | {"surprise": 1}) == 400
    with pytest.raises(openai.RateLimitError):
        await stream(client)


@pytest.mark.parametrize("reset", [True, False])
async def test_the_connection_may_end_before_the_head(service: OpenAiService, reset: bool) -> None:
    service.chat.fault(Cut(reset=reset))
    raw = Raw(service)
    with pytest.raises(aiohttp.ClientOSError if reset else aiohttp.ServerDisconnectedError):
        await raw.ask()
    assert service.chat.requests[0].outcome == "cut"


@pytest.mark.parametrize("reset", [True, False])
async def test_the_connection_may_end_between_two_chunks(service: OpenAiService, reset: bool) -> None:
    service.chat.fault(Cut(after=3, reset=reset))
    raw = Raw(service)
    with pytest.raises(aiohttp.ClientError):
        await raw.ask()
    assert raw.body.count(b"\n\n") == service.chat.requests[0].chunks == 3
    assert raw.body.endswith(b"\n\n")


async def test_the_connection_may_end_after_so_many_bytes(service: OpenAiService) -> None:
    service.chat.fault(Cut(after_bytes=500))
    raw = Raw(service)
    with pytest.raises(aiohttp.ClientError):
        await raw.ask()
    assert len(raw.body) == service.chat.requests[0].bytes == 500


async def test_half_a_character_may_be_the_last_that_comes(service: OpenAiService) -> None:
    service.chat.reply("Grüße")
    service.chat.fault(HalfCharacter())
    raw = Raw(service)
    with pytest.raises(aiohttp.ClientError):
        await raw.ask()
    assert raw.body.endswith("Grü".encode()[:-1])


async def test_the_other_half_of_a_character_may_come_later(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.reply("Grüße")
    service.chat.fault(HalfCharacter(then="rest"), HalfCharacter(then="rest"))
    raw = Raw(service)
    await raw.ask()
    torn = [piece for piece in raw.pieces if piece.endswith("ü".encode()[:1])]
    assert len(torn) == 1
    assert "Grüße" in raw.body.decode()
    service.chat.reply("Grüße")
    assert "".join(await stream(client)) == "Grüße"


@pytest.mark.parametrize("after", [None, 0, 2])
async def test_a_stalled_answer_goes_on_when_it_is_released(
    service: OpenAiService, client: openai.AsyncOpenAI, after: int | None
) -> None:
    service.chat.fault(Stall(after))
    asking = asyncio.create_task(stream(client))
    exchange = await service.chat.next_stalled()
    assert exchange.chunks == (after or 0)
    assert not asking.done()
    service.chat.release()
    assert "".join(await asking) == service.chat.usual.text


@pytest.mark.parametrize("after", [None, 3])
async def test_the_service_knows_when_a_client_gives_up(service: OpenAiService, after: int | None) -> None:
    service.chat.fault(Stall(after))
    asking = asyncio.create_task(Raw(service).ask())
    await service.chat.next_stalled()
    asking.cancel()
    exchange = await service.chat.next_gone()
    assert (exchange.outcome, exchange.chunks) == ("gone", after or 0)


async def test_a_client_that_leaves_a_slow_reply_is_noticed(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.reply("One two three", pace_s=30)
    chunks = await client.chat.completions.create(**ASKED)
    async for _ in chunks:
        break
    await chunks.close()
    assert (await service.chat.next_gone()).chunks == 1


async def test_a_login_page_may_come_instead(service: OpenAiService) -> None:
    service.chat.fault(login_page())
    raw = Raw(service)
    assert await raw.ask() == 200
    assert raw.body.startswith(b"<!doctype html>")


async def test_an_answer_may_be_empty(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.fault(Empty(), Page(b"", "application/json", 503))
    raw = Raw(service)
    assert (await raw.ask(), raw.body) == (200, b"")
    with pytest.raises(openai.InternalServerError):
        await stream(client)


async def test_a_chunk_may_be_no_json(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.fault(broken_json(after=2))
    with pytest.raises(json.JSONDecodeError):
        await stream(client)


async def test_a_stream_may_break_off_with_an_error(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.fault(error_event(2, rate_limited()))
    with pytest.raises(openai.APIError) as told:
        await stream(client)
    assert told.value.code == "rate_limit_exceeded"


async def test_comments_say_nothing(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.fault(comment(), comment(3))
    for _ in range(2):
        assert "".join(await stream(client)) == service.chat.usual.text


async def test_speech_may_end_within_a_sample(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.speech.fault(OddLength())
    answer = await client.audio.speech.create(model="tts-1", voice="alloy", input="Hello", response_format="pcm")
    assert len(answer.content) == 5 * 60 * 48 - 1


async def test_an_answer_in_one_piece_may_be_cut_too(service: OpenAiService) -> None:
    service.chat.fault(Cut(after_bytes=20))
    raw = Raw(service)
    with pytest.raises(aiohttp.ClientError):
        await raw.ask(ASKED | {"stream": False})
    assert len(raw.body) == 20


@pytest.mark.parametrize("fault", [Cut(after=99), Stall(99), HalfCharacter()])
async def test_a_fault_that_cannot_come_is_a_mistake_of_the_test(fault: Fault) -> None:
    service = await OpenAiService().__aenter__()
    service.chat.fault(fault)
    with pytest.raises(aiohttp.ClientError):
        await Raw(service).ask()
    with pytest.raises(AssertionError, match="the service failed") as told:
        await service.__aexit__(None, None, None)
    assert "the answer ended after 11 pieces" in str(told.value.__cause__)


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/chat", 404), ("GET", "/chat/completions", 405)])
async def test_other_addresses_are_refused(service: OpenAiService, method: str, path: str, status: int) -> None:
    async with aiohttp.ClientSession() as http, http.request(method, service.base_url + path) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["type"] == "invalid_request_error"
