"""What a client may get wrong: each mistake is named, none is taken, and nobody else notices."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from app.websocket import handler, wire
from app_server import AppServer, scripted
from wire_client import FRAME, WireClient, an_undisturbed_neighbour, answered_in_full

SILENCE = bytes(FRAME * 2)


def nested(depth: int) -> str:
    return '{"type":"text","text":' + "[" * depth + "]" * depth + "}"


WRONG: dict[str, tuple[str, str]] = {
    "nothing": ("", "bad_json"),
    "no JSON": ("hello", "bad_json"),
    "half an object": ('{"type":"text"', "bad_json"),
    "two objects": ('{"type":"bye"}{"type":"bye"}', "bad_json"),
    "a number": ("42", "bad_json"),
    "null": ("null", "bad_json"),
    "a list": ('[{"type":"text","text":"hi"}]', "bad_json"),
    "NaN": ('{"type":"playback","reply":1,"played_ms":NaN}', "bad_json"),
    "Infinity": ('{"type":"playback","reply":1,"played_ms":Infinity}', "bad_json"),
    "half a surrogate": ('{"type":"text","text":"\\ud800"}', "bad_json"),
    "very deep nesting": (nested(30_000), "bad_json"),
    "no type": ("{}", "unknown_type"),
    "an unknown type": ('{"type":"shout"}', "unknown_type"),
    "a type of the server": ('{"type":"ready"}', "unknown_type"),
    "a type in capitals": ('{"type":"BYE"}', "unknown_type"),
    "a type that is an object": ('{"type":{"type":"bye"}}', "unknown_type"),
    "a very long type": (json.dumps({"type": "x" * 60_000}), "unknown_type"),
    "an extra field": ('{"type":"mute","muted":true,"loud":true}', "bad_message"),
    "a missing field": ('{"type":"mute"}', "bad_message"),
    "a word for a boolean": ('{"type":"mute","muted":"yes"}', "bad_message"),
    "a number for a boolean": ('{"type":"mute","muted":1}', "bad_message"),
    "text that is a number": ('{"type":"text","text":5}', "bad_message"),
    "text that is empty": ('{"type":"text","text":""}', "bad_message"),
    "text that is nested": (nested(500), "bad_message"),
    "text that is too long": (json.dumps({"type": "text", "text": "a" * 4001}), "bad_message"),
    "a negative position": ('{"type":"playback","reply":1,"played_ms":-1}', "bad_message"),
    "a position beyond a day": ('{"type":"playback","reply":1,"played_ms":1e300}', "bad_message"),
    "a reply that is a fraction": ('{"type":"playback","reply":1.5,"played_ms":1}', "bad_message"),
    "a reply that is a word": ('{"type":"playback","reply":"1","played_ms":1}', "bad_message"),
    "a reply beyond 64 bits": (f'{{"type":"playback","reply":{10**30},"played_ms":1}}', "bad_message"),
    "JSON beyond the limit": (json.dumps({"type": "text", "text": "a" * wire.MAX_TEXT_BYTES}), "message_too_large"),
}
WRONG_AUDIO: dict[str, tuple[bytes, str]] = {
    "one byte": (b"\x01", "odd_audio"),
    "half a sample too much": (SILENCE + b"\x01", "odd_audio"),
    "30 s and a sample": (bytes(wire.MAX_AUDIO_BYTES + 2), "message_too_large"),
}


@pytest.mark.parametrize("started", [True, False], ids=["started", "not started"])
async def test_every_wrong_message_gets_the_code_of_its_mistake(server: AppServer, started: bool) -> None:
    cases = [*WRONG.items(), *(WRONG_AUDIO.items() if started else ())]
    async with an_undisturbed_neighbour(server.ws_url):
        for first in range(0, len(cases), handler.MAX_MISTAKES):
            async with WireClient(server.ws_url, start={} if started else None) as client:
                await client.expect("ready")
                for number, (what, (message, code)) in enumerate(cases[first : first + handler.MAX_MISTAKES], 1):
                    await client.send(message)
                    await client.until(lambda number=number: len(client.errors) >= number, f"an error for {what}")
                    error = client.of("error")[-1]
                    assert (error["code"], error["fatal"]) == (code, False), what
                    assert 10 < len(error["message"]) < 500, what
                if started:
                    await answered_in_full(client)


async def test_an_error_does_not_repeat_what_was_said(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        await client.send({"type": "text", "text": "my secret", "extra": "my secret"})
        await client.send('{"type":"text","text":"my secret"')
        await client.send({"type": "text", "text": ["my secret"]})
        await client.until(lambda: len(client.errors) == 3, "three errors")
        assert not [error for error in client.of("error") if "secret" in error["message"]]


async def test_one_mistake_too_many_ends_the_connection(server: AppServer) -> None:
    async with an_undisturbed_neighbour(server.ws_url), WireClient(server.ws_url, start={}) as client:
        for _ in range(handler.MAX_MISTAKES + 1):
            await client.send(b"\x01")
        assert await client.closed() == 1008
        assert client.errors == ["odd_audio"] * (handler.MAX_MISTAKES + 1) + ["too_many_errors"]
        assert client.of("error")[-1]["fatal"]
        assert client.of("bye") == []


async def test_one_mistake_too_many_in_the_middle_of_a_reply_ends_the_reply_first(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        await client.send({"type": "text", "text": "Tell me."})
        await client.expect("audio.start")
        for _ in range(handler.MAX_MISTAKES + 1):
            await client.send("?")
        assert await client.closed() == 1008
        assert client.judge.seen[-3:] == ["clear", "reply.done", "error"]


async def test_one_mistake_too_many_before_start_ends_the_connection_too(server: AppServer) -> None:
    async with WireClient(server.ws_url) as client:
        for _ in range(handler.MAX_MISTAKES + 1):
            await client.send("?")
        assert await client.closed() == 1008
        assert client.errors[-1] == "too_many_errors"


@pytest.mark.parametrize(
    "message",
    [{"type": "text", "text": "Hello?"}, {"type": "interrupt"}, {"type": "mute", "muted": True}],
    ids=lambda message: message["type"],
)
async def test_nothing_is_taken_before_start(server: AppServer, message: dict[str, Any]) -> None:
    async with WireClient(server.ws_url) as client:
        await client.send(message)
        assert (await client.expect("error"))["code"] == "not_started"
        await client.send({"type": "start", "greeting": False})
        await client.expect("started")
        await answered_in_full(client)
        assert len(client.of("transcript.final")) == 1


async def test_audio_before_start_is_told_once_and_not_taken(server: AppServer) -> None:
    async with an_undisturbed_neighbour(server.ws_url), WireClient(server.ws_url) as client:
        for _ in range(500):
            await client.send(SILENCE)
        await client.send({"type": "start", "greeting": False})
        await client.expect("started")
        await answered_in_full(client)
        assert client.errors == ["not_started"]


async def test_start_twice_is_a_mistake_and_the_conversation_goes_on(server: AppServer) -> None:
    async with an_undisturbed_neighbour(server.ws_url), WireClient(server.ws_url, start={}) as client:
        await client.send({"type": "start", "voice": "tone"})
        assert (await client.expect("error"))["code"] == "already_started"
        await answered_in_full(client)
        assert len(server.engine.conversations) == 2


@pytest.mark.parametrize(
    ("choice", "offered"),
    [({"voice": "nobody"}, "tone"), ({"language": "xx"}, "en"), ({"voice": ""}, "tone"), ({"language": "EN"}, "en")],
    ids=str,
)
async def test_an_unknown_voice_or_language_is_named_with_what_is_there(
    server: AppServer, choice: dict[str, str], offered: str
) -> None:
    async with WireClient(server.ws_url) as client:
        await client.send({"type": "start", **choice})
        error = await client.expect("error")
        assert (error["code"], error["fatal"]) == ("bad_message", False)
        assert offered in error["message"]
        await client.send({"type": "start", "greeting": False})
        await client.expect("started")
        await answered_in_full(client)


async def test_words_that_are_only_spaces_are_no_turn(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        await client.send({"type": "text", "text": " \n\t "})
        await answered_in_full(client)
        assert client.errors == []
        assert client.of("reply.done")[0]["turn"] == 1


@pytest.mark.parametrize("in_fragments", [False, True], ids=["whole", "in fragments"])
async def test_a_message_beyond_the_servers_own_limit_closes_1009_before_it_is_kept(
    server: AppServer, in_fragments: bool
) -> None:
    async with an_undisturbed_neighbour(server.ws_url), WireClient(server.ws_url, start={}) as client:
        pieces = [bytes(300_000)] * 4
        await client.connection.send(pieces if in_fragments else b"".join(pieces))
        assert await client.closed() == 1009


async def test_a_message_in_fragments_is_one_message(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        await client.connection.send(['{"type":"te', 'xt","text":"In ', 'pieces."}'])
        await client.expect("transcript.final", text="In pieces.")
        await client.connection.send([b"\x00", b"\x00\x00", b"\x00"])
        await client.expect("reply.done")
        assert client.errors == []


async def test_text_that_is_not_utf_8_closes_1007(server: AppServer) -> None:
    async with an_undisturbed_neighbour(server.ws_url), WireClient(server.ws_url, start={}) as client:
        await client.connection.send(b"\xff\xfe", text=True)
        assert await client.closed() == 1007


async def test_every_kind_of_text_is_taken_as_it_is(server: AppServer) -> None:
    said = ["<script>alert(1)</script>", "日本語 🏴‍☠️", "a\u0000b\u202e", "x" * 4000, "'; DROP TABLE turns; --"]
    async with WireClient(server.ws_url, start={}) as client:
        for number, text in enumerate(said, 1):
            await client.send({"type": "text", "text": text})
            await client.expect("audio.start", turn=number)
        assert [message["text"] for message in client.of("transcript.final")] == said


async def test_a_client_that_never_starts_is_sent_away(server: AppServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with an_undisturbed_neighbour(server.ws_url):
        monkeypatch.setattr(handler, "START_TIMEOUT_S", 0.3)
        async with WireClient(server.ws_url) as client:
            await client.send("?")  # whatever else it sends
            assert (await client.expect("bye"))["reason"] == "idle"
            assert await client.closed() == 1000


async def test_silence_for_ever_ends_as_idle_whether_it_is_sent_or_not() -> None:
    with AppServer(scripted(idle_timeout_s=1.0)) as impatient:
        async with WireClient(impatient.ws_url, start={}) as mute, WireClient(impatient.ws_url, start={}) as silent:
            streaming = asyncio.create_task(silent.stream(np.zeros(FRAME * 500, np.int16)))
            for client in (mute, silent):
                assert (await client.expect("bye"))["reason"] == "idle"
                assert await client.closed() == 1000
            streaming.cancel()
            await asyncio.gather(streaming, return_exceptions=True)
        impatient.nothing_is_left()


async def test_noise_alone_ends_as_idle_too() -> None:
    noise = np.random.default_rng(1).normal(0, 300, FRAME * 300).astype(np.int16)
    with AppServer(scripted(idle_timeout_s=1.0)) as impatient:
        async with WireClient(impatient.ws_url, start={}) as client:
            streaming = asyncio.create_task(client.stream(noise))
            assert (await client.expect("bye"))["reason"] == "idle"
            assert await client.closed() == 1000
            streaming.cancel()
            await asyncio.gather(streaming, return_exceptions=True)
            assert client.of("reply.done") == []
