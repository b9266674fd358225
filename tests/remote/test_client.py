"""Connections to a service: kept, closed at once when they are not wanted, and never used for what was not asked."""

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp.http_writer import StreamWriter
from app.core.errors import ServiceError
from app.remote import client as client_module
from app.remote.client import ServiceClient, pieces
from openai_service import KEY, OpenAiService, refusals
from openai_service.faults import Cut, Stall, login_page

MODEL = "gpt-4.1-mini"
HELLO: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello!"}]}
STREAMED = HELLO | {"stream": True}
CHAT = "/chat/completions"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def service() -> AsyncIterator[OpenAiService]:
    async with OpenAiService() as service:
        yield service


@pytest.fixture
async def client(service: OpenAiService) -> AsyncIterator[ServiceClient]:
    client = ServiceClient("openai", service.base_url, KEY)
    yield client
    await client.close()


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[str]:
    """A server that does as it likes with each connection; gives its address."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/v1"


async def ask(client: ServiceClient) -> str:
    answer = await client.post_for_json(CHAT, model=MODEL, json=HELLO)
    return str(answer["choices"][0]["message"]["content"])


async def refused(client: ServiceClient) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await ask(client)
    return caught.value


async def test_one_request_after_the_other_uses_the_same_connection(
    service: OpenAiService, client: ServiceClient
) -> None:
    for _ in range(3):
        assert (await ask(client)).startswith("Hello!")
    assert service.connections == 1
    assert service.chat.requests[0].headers["content-type"] == "application/json"


async def test_after_a_refusal_the_connection_is_used_again(service: OpenAiService, client: ServiceClient) -> None:
    service.chat.fault(refusals.overloaded(), refusals.context_too_long())
    await refused(client)
    await refused(client)
    await ask(client)
    assert service.connections == 1


# --- giving up


@pytest.mark.parametrize("fault", [Stall(), Stall(after=0), Stall(after=3)], ids=["head", "first piece", "later piece"])
async def test_cancelling_closes_the_connection_whatever_is_waited_for(
    service: OpenAiService, client: ServiceClient, fault: Stall
) -> None:
    async def read() -> None:
        async with client.post(CHAT, model=MODEL, json=STREAMED) as response:
            async for _ in pieces(response, "openai"):
                pass

    service.chat.fault(fault)
    reading = asyncio.create_task(read())
    await service.chat.next_stalled()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    async with asyncio.timeout(5):
        await service.chat.next_gone()
    assert service.open_connections == 0


async def test_leaving_before_the_end_closes_the_connection(service: OpenAiService, client: ServiceClient) -> None:
    service.chat.fault(Stall(after=2))
    async with client.post(CHAT, model=MODEL, json=STREAMED) as response:
        await anext(pieces(response, "openai"))
    async with asyncio.timeout(5):
        await service.chat.next_gone()


async def test_closing_ends_requests_that_are_under_way_and_refuses_new_ones(
    service: OpenAiService, client: ServiceClient
) -> None:
    service.chat.fault(Stall())
    asking = asyncio.create_task(ask(client))
    await service.chat.next_stalled()
    await client.close()
    with pytest.raises(ServiceError) as caught:
        await asking
    assert not caught.value.refused
    error = await refused(client)
    assert (error.code, error.refused) == ("service_unreachable", True)
    assert "closed" in error.message


# --- being ready


async def test_connections_opened_ahead_are_used_by_what_follows(service: OpenAiService, client: ServiceClient) -> None:
    client.open_ahead()
    client.open_ahead()
    assert client._ahead
    await client._ahead
    await asyncio.gather(ask(client), ask(client))
    assert service.connections == 2
    client.open_ahead()
    assert len(service.model_list.requests) == 2, "there are connections already"


async def test_what_fails_ahead_of_need_is_no_error(service: OpenAiService, client: ServiceClient) -> None:
    await service.kill()
    client.open_ahead()
    assert client._ahead
    await client._ahead
    await service.revive()
    assert await ask(client)


async def test_the_models_of_a_service_are_listed(service: OpenAiService, client: ServiceClient) -> None:
    assert await client.models() == service.models
    service.key = "sk-another"
    with pytest.raises(ServiceError) as caught:
        await client.models()
    assert caught.value.code == "key_refused"


# --- what is not sent twice


async def test_a_request_that_was_cut_is_not_sent_again(service: OpenAiService, client: ServiceClient) -> None:
    await ask(client)
    service.chat.fault(Cut(reset=False))  # on a connection that is used for the second time
    error = await refused(client)
    assert (error.code, error.refused) == ("service_unreachable", False)
    assert len(service.chat.requests) == 2


async def test_a_connection_that_closes_before_anything_is_written_to_it_is_replaced(
    service: OpenAiService, client: ServiceClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = StreamWriter.write_headers
    closing = ["once"]

    async def closed(writer: StreamWriter, *about: Any) -> None:
        await begin(writer, *about)
        if closing and writer.transport:
            closing.pop()
            asyncio.get_running_loop().call_soon(writer.transport.close)  # its end at the service has just been read

    await ask(client)
    monkeypatch.setattr(StreamWriter, "write_headers", closed)
    assert await ask(client)
    assert not closing
    assert len(service.chat.requests) == 2
    assert service.connections == 2


# --- what never ends, and what leads elsewhere


def answering(head: bytes, body: bytes, *, again_s: float | None = None) -> Handler:
    """Sends the head and the body, the body again and again if `again_s` says how often."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 " + head + b"\r\n\r\n")
            while True:
                writer.write(body)
                await writer.drain()
                if again_s is None:
                    break
                await asyncio.sleep(again_s)
        writer.close()

    return handler


@pytest.mark.parametrize("ask", [ask, ServiceClient.models], ids=["an answer", "a list"])
async def test_an_answer_without_an_end_is_not_kept(ask: Callable[[ServiceClient], Awaitable[object]]) -> None:
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    handler = answering(b"200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked", chunk, again_s=0)
    async with listening(handler) as address, asyncio.timeout(10):
        client = ServiceClient("local", address)
        with pytest.raises(ServiceError) as caught:
            await ask(client)
        await client.close()
    assert caught.value.code == "service_answer"
    assert "without an end" in caught.value.message


async def test_a_small_answer_that_unpacks_to_a_huge_one_is_not_kept() -> None:
    bomb = gzip.compress(b'{"text": "' + b" " * (64 << 20) + b'"}')
    head = b"200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d" % len(bomb)
    async with listening(answering(head, bomb)) as address:
        client = ServiceClient("local", address)
        with pytest.raises(ServiceError) as caught:
            await ask(client)
        await client.close()
    assert "without an end" in caught.value.message


async def test_services_are_asked_not_to_compress(service: OpenAiService, client: ServiceClient) -> None:
    await ask(client)
    assert service.chat.requests[0].headers["accept-encoding"] == "identity"


async def test_a_refusal_whose_explanation_never_ends_is_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ERROR_BODY_S", 0.05)
    head = b"429 Too Many Requests\r\nTransfer-Encoding: chunked"
    async with listening(answering(head, b"1\r\n \r\n", again_s=0.01)) as address, asyncio.timeout(10):
        client = ServiceClient("local", address)
        error = await refused(client)
        await client.close()
    assert (error.code, error.refused) == ("rate_limited", True)


async def test_a_websocket_is_not_led_to_another_address() -> None:
    asked: list[bytes] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with listening(elsewhere) as other:
        head = b"307 Temporary Redirect\r\nContent-Length: 0\r\nLocation: " + other.encode() + b"/realtime"
        async with listening(answering(head, b"")) as address:
            client = ServiceClient("local", address, KEY)
            with pytest.raises(ServiceError) as caught:
                async with client.websocket("/realtime"):
                    pass
            await client.close()
    assert asked == []
    assert caught.value.code == "service_answer"
    assert "another address" in caught.value.message


async def test_conversations_that_wait_do_not_keep_out_others(service: OpenAiService, client: ServiceClient) -> None:
    """Each conversation keeps a connection of its own to be listened to."""
    many = 420
    service.chat.fault(*[Stall()] * many)
    waiting = [asyncio.create_task(ask(client)) for _ in range(many)]
    async with asyncio.timeout(15):
        for _ in waiting:
            await service.chat.next_stalled()
        assert await ask(client)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_has_closed_opens_nothing_ahead(service: OpenAiService, client: ServiceClient) -> None:
    await client.close()
    client.open_ahead()
    assert client._ahead is None
    assert service.connections == 0


# --- refusals and nonsense


async def test_a_refusal_that_arrives_in_pieces_is_understood() -> None:
    body = b'{"error": {"message": "Unknown parameter.", "param": "temperature", "code": "unknown_parameter"}}'

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 20):
            writer.write(body[start : start + 20])
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.close()

    async with listening(handler) as address:
        client = ServiceClient("local", address)
        error = await refused(client)
        await client.close()
    assert (error.code, error.parameter) == ("service_refused", "temperature")


async def test_a_key_is_not_carried_to_another_address(service: OpenAiService) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 307 Moved\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % target.encode())
        writer.close()

    target = service.base_url + CHAT
    async with listening(handler) as address:
        client = ServiceClient("local", address, KEY)
        error = await refused(client)
        with pytest.raises(ServiceError):
            await client.models()
        await client.close()
    assert error.code == "service_answer"
    assert not service.chat.requests


async def test_a_page_in_place_of_an_answer_is_named(service: OpenAiService, client: ServiceClient) -> None:
    service.chat.fault(login_page())
    error = await refused(client)
    assert error.code == "service_answer"
    assert "text/html" in error.message


async def test_the_key_is_in_no_log_and_no_error(
    service: OpenAiService, client: ServiceClient, caplog: pytest.LogCaptureFixture
) -> None:
    service.chat.fault(refusals.unauthorized(KEY), Cut(), login_page())
    with caplog.at_level(logging.DEBUG):
        shown = [f"{error!r} {error.__cause__!r}" for error in [await refused(client) for _ in range(3)]]
        await service.kill()
        shown.append(repr(await refused(client)))
        client.open_ahead()
    assert KEY not in " ".join((*shown, caplog.text, repr(client)))


# --- where nobody is


async def test_an_address_where_nobody_listens_is_told(service: OpenAiService, client: ServiceClient) -> None:
    await service.kill()
    error = await refused(client)
    assert (error.code, error.refused) == ("service_unreachable", True)
    assert "nobody answers" in error.message


async def test_https_to_a_server_of_http_is_told(service: OpenAiService) -> None:
    client = ServiceClient("local", service.base_url.replace("http:", "https:"))
    error = await refused(client)
    await client.close()
    assert error.refused
    assert "https" in error.message


async def test_a_connection_that_is_not_made_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> list[object]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(client_module, "CONNECT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    client = ServiceClient("local", "http://service.example/v1")
    error = await refused(client)
    await client.close()
    assert (error.code, error.refused) == ("service_unreachable", True)
    assert "in time" in error.message


# --- proxies


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


async def test_a_service_on_this_machine_is_asked_without_the_proxy(
    service: OpenAiService, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for host in ("127.0.0.1", "localhost"):
        client = ServiceClient("local", service.base_url.replace("127.0.0.1", host), KEY)
        assert await ask(client)
        await client.close()


@pytest.mark.parametrize(
    ("exempt", "address"),
    [
        ("", "http://service.example/v1"),
        ("other.example", "http://service.example:8080/v1"),
    ],
)
async def test_a_service_elsewhere_is_asked_through_the_proxy(
    environment: pytest.MonkeyPatch, exempt: str, address: str
) -> None:
    asked: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}")
        writer.close()

    async with listening(handler) as proxy:
        environment.setenv("HTTP_PROXY", proxy.removeprefix("http://").removesuffix("/v1"))
        environment.setenv("NO_PROXY", exempt)
        client = ServiceClient("elsewhere", address)
        assert await client.post_for_json(CHAT, model=MODEL, json=HELLO) == {}
        await client.close()
    assert asked == [f"POST {address}{CHAT} HTTP/1.1\r\n".encode()]


async def test_a_proxy_that_is_gone_is_named_as_the_reason(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client = ServiceClient("elsewhere", "http://service.example/v1")
    error = await refused(client)
    await client.close()
    assert error.refused
    assert "proxy" in error.message


async def test_a_service_may_be_exempt_from_the_proxy(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    environment.setenv("NO_PROXY", ".example")
    assert client_module._proxy_for("https://service.example/v1") is None
    assert client_module._proxy_for("https://service.test/v1") == "http://127.0.0.1:9"
