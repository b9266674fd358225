"""What goes wrong in realtime sessions when a test wants it to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from openai_service import Close, Cut, Drop, ErrorEvent, OpenAiService, Silence, Stall, overloaded
from websockets.asyncio.client import connect

pytestmark = pytest.mark.timeout(20)
COMMIT = {"type": "input_audio_buffer.commit", "event_id": "evt_1"}
APPEND = {"type": "input_audio_buffer.append", "audio": "AAAA" * 1600}
"""100 ms of silence."""


@asynccontextmanager
async def connected(service: OpenAiService) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    headers = {"Authorization": f"Bearer {service.key}"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.ws_connect(f"{service.base_url}/realtime?intent=transcription") as socket,
    ):
        assert (await socket.receive_json())["type"] == "session.created"
        yield socket


async def commit(socket: aiohttp.ClientWebSocketResponse) -> aiohttp.WSMessage:
    await socket.send_json(APPEND)
    await socket.send_json(COMMIT)
    return await socket.receive()


async def test_a_commit_may_be_answered_with_an_error(service: OpenAiService) -> None:
    service.realtime.fault(ErrorEvent("server_is_overloaded", "Busy."))
    async with connected(service) as socket:
        told: dict[str, Any] = (await commit(socket)).json()
        assert (told["error"]["code"], told["error"]["event_id"]) == ("server_is_overloaded", "evt_1")
        assert (await commit(socket)).json()["type"] == "input_audio_buffer.committed"


async def test_an_error_may_end_the_session(service: OpenAiService) -> None:
    service.realtime.fault(ErrorEvent(close=4008))
    async with connected(service) as socket:
        assert (await commit(socket)).json()["error"]["code"] == "session_expired"
        ending = await socket.receive()
    assert (ending.type, ending.data) == (aiohttp.WSMsgType.CLOSE, 4008)


async def test_the_session_may_be_closed(service: OpenAiService) -> None:
    service.realtime.fault(Close(1001, "Going away", on="input_audio_buffer.append"))
    async with connected(service) as socket:
        ending = await commit(socket)
    assert (ending.data, ending.extra) == (1001, "Going away")


async def test_a_test_may_close_a_session_when_it_likes(service: OpenAiService) -> None:
    async with connected(service) as socket:
        await service.realtime.next_request()
        closing = asyncio.create_task(service.realtime.sessions[0].close(1011, "Enough"))
        assert (await socket.receive()).data == 1011
        await closing


@pytest.mark.parametrize("reset", [True, False])
async def test_the_connection_may_drop(service: OpenAiService, reset: bool) -> None:
    service.realtime.fault(Drop(reset=reset))
    async with connected(service) as socket:
        assert (await commit(socket)).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
    assert service.realtime.requests[0].outcome == "cut"


async def test_a_commit_may_never_be_answered(service: OpenAiService) -> None:
    service.realtime.fault(Silence())
    async with connected(service) as socket:
        await socket.send_json(APPEND)
        await socket.send_json(COMMIT)
        await socket.send_json({"type": "input_audio_buffer.clear"})
        assert (await socket.receive_json())["type"] == "input_audio_buffer.cleared"
    assert [event["type"] for event in service.realtime.sessions[0].events][1] == COMMIT["type"]
    assert not service.realtime.received


async def test_the_handshake_may_be_refused(service: OpenAiService) -> None:
    service.realtime.fault(overloaded(), Cut(), Cut())  # aiohttp tries once more by itself
    with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
        async with connected(service):
            pass
    with pytest.raises(aiohttp.ClientOSError):
        async with connected(service):
            pass


async def test_the_handshake_may_stall(service: OpenAiService) -> None:
    service.realtime.fault(Stall())

    async def connect() -> None:
        async with connected(service):
            pass

    connecting = asyncio.create_task(connect())
    await service.realtime.next_stalled()
    connecting.cancel()
    assert (await service.realtime.next_gone()).chunks == 0


async def test_a_client_that_leaves_without_goodbye_is_noticed(service: OpenAiService) -> None:
    address = service.base_url.replace("http", "ws", 1) + "/realtime?intent=transcription"
    async with connect(address, additional_headers={"Authorization": f"Bearer {service.key}"}) as connection:
        await connection.recv()
        connection.transport.abort()
        assert (await service.realtime.next_gone()).chunks == 1


async def test_a_client_that_says_goodbye_has_been_served(service: OpenAiService) -> None:
    async with connected(service) as socket:
        await socket.close()
    assert (await service.realtime.next_ended()).outcome == "answered"
