"""The service as a process: it dies, comes back, stops, and speaks TLS."""

import asyncio
import ssl
from typing import Any

import aiohttp
import openai
import pytest
import uvloop
from openai.types.chat import ChatCompletion
from openai_service import Cut, OpenAiService

pytestmark = pytest.mark.timeout(20)
ASKED: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello?"}]}


async def ask(client: openai.AsyncOpenAI) -> str | None:
    answer: ChatCompletion = await client.chat.completions.create(**ASKED)
    return answer.choices[0].message.content


async def test_a_dead_service_refuses_connections_until_it_comes_back(
    service: OpenAiService, client: openai.AsyncOpenAI
) -> None:
    before = service.base_url
    assert await ask(client)
    await service.kill()
    with pytest.raises(openai.APIConnectionError):
        await ask(client)
    await service.revive()
    assert await ask(client) == service.chat.usual.text
    assert service.base_url == before
    assert service.connections == 2


async def test_a_reply_breaks_off_when_the_service_dies(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.reply("One two three", pace_s=30)
    chunks = await client.chat.completions.create(**ASKED, stream=True)
    async for _ in chunks:
        await service.kill()
        break
    with pytest.raises(openai.APIConnectionError):
        [chunk async for chunk in chunks]
    assert (await service.chat.next_ended()).outcome == "killed"


async def test_realtime_sessions_die_with_the_service(service: OpenAiService) -> None:
    headers = {"Authorization": f"Bearer {service.key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.ws_connect(f"{service.base_url}/realtime?intent=transcription") as socket,
    ):
        await socket.receive()
        await service.kill()
        assert (await socket.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
    assert (await service.realtime.next_ended()).outcome == "killed"


async def test_a_frozen_service_says_nothing_and_then_goes_on(
    service: OpenAiService, client: openai.AsyncOpenAI
) -> None:
    assert await ask(client)
    await service.freeze()
    asking = [asyncio.create_task(ask(client)) for _ in range(2)]
    done, _ = await asyncio.wait(asking, timeout=0.2)
    assert not done
    service.thaw()
    assert await asyncio.gather(*asking) == [service.chat.usual.text] * 2


async def test_a_frozen_stream_stands_still(service: OpenAiService, client: openai.AsyncOpenAI) -> None:
    service.chat.reply("One two three")
    service.chat.pace_s = 0.01
    chunks = await client.chat.completions.create(**ASKED, stream=True)
    first = await anext(chunks)
    await service.freeze()
    rest = asyncio.create_task(_all(chunks))
    assert not (await asyncio.wait([rest], timeout=0.2))[0]
    service.thaw()
    assert [first.choices[0].delta.role, "".join(await rest)] == ["assistant", "One two three"]


async def _all(chunks: Any) -> list[str]:
    return [chunk.choices[0].delta.content or "" async for chunk in chunks]


async def test_a_frozen_session_answers_no_ping(service: OpenAiService) -> None:
    headers = {"Authorization": f"Bearer {service.key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.ws_connect(f"{service.base_url}/realtime?intent=transcription", autoping=False) as socket,
    ):
        await socket.receive()
        await socket.ping()
        assert (await socket.receive()).type is aiohttp.WSMsgType.PONG
        await service.freeze()
        await socket.ping()
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.2)
        service.thaw()


async def test_open_connections_are_counted(service: OpenAiService) -> None:
    for accepted in (1, 2):
        async with openai.AsyncOpenAI(base_url=service.base_url, api_key=service.key, max_retries=0) as client:
            await ask(client)
            assert (service.open_connections, service.connections) == (1, accepted)


async def test_https_is_for_those_who_trust_the_certificate() -> None:
    async with OpenAiService(tls=True) as service:
        trusting = ssl.create_default_context(cafile=service.ca_file)
        headers = {"Authorization": f"Bearer {service.key}"}
        async with aiohttp.ClientSession(headers=headers) as http:
            async with http.get(service.base_url + "/models", ssl=trusting) as answer:
                assert answer.status == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await http.get(service.base_url + "/models")
        assert service.base_url.startswith("https://127.0.0.1:")


def test_it_dies_and_cuts_connections_on_uvloop_as_well() -> None:
    async def live() -> list[str]:
        async with (
            OpenAiService() as service,
            openai.AsyncOpenAI(base_url=service.base_url, api_key=service.key, max_retries=0) as client,
        ):
            service.chat.fault(Cut())
            with pytest.raises(openai.APIConnectionError):
                await ask(client)
            assert await ask(client)
            await service.kill()
            with pytest.raises(openai.APIConnectionError):
                await ask(client)
            await service.revive()
            assert await ask(client)
            ended = [await service.chat.next_ended() for _ in range(3)]
            return [exchange.outcome for exchange in ended]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(live()) == ["cut", "answered", "answered"]
