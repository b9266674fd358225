"""Conversations over the browser's WebSocket, as the written protocol has them. The judge sees every message."""

import asyncio

import numpy as np
from app.audio.wav import read_audio
from app.inference.store import ModelStore
from app_server import AppServer, scripted, wait_until
from wire_client import RATE_HZ, WireClient, an_undisturbed_neighbour, answered_in_full

EVER_TRIED = slice(0, round(1.5 * RATE_HZ))
"""The first utterance of the recording, with its pause."""
TELL = {"type": "text", "text": "Tell me."}


def recording(part: slice = EVER_TRIED) -> np.ndarray:
    return read_audio(ModelStore().path("test-speech") / "beckett.wav", RATE_HZ)[part]


async def test_ready_says_who_and_what_is_there(server: AppServer) -> None:
    async with WireClient(server.ws_url) as client, WireClient(server.ws_url) as other:
        ready = await client.expect("ready")
        assert ready["voices"] == [{"id": "tone", "name": "Tone", "language": "en"}]
        assert ready["defaults"] == {"voice": "tone", "language": "en"}
        assert "en" in ready["languages"]
        assert len(ready["session"]) >= 20
        assert ready["session"] != (await other.expect("ready"))["session"]


async def test_started_repeats_the_choice(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={"voice": "tone", "language": "en"}) as client:
        assert await client.expect("started") == {"type": "started", "voice": "tone", "language": "en"}
    async with WireClient(server.ws_url, start={"voice": None, "language": None}) as client:
        assert await client.expect("started") == {"type": "started", "voice": "tone", "language": "en"}


async def test_a_spoken_turn_is_understood_and_answered(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        done = await client.speak(recording())
        assert done["turn"] == 1
        assert done["heard"] == done["text"] != ""
        assert not done["interrupted"]
        kinds = client.judge.seen
        order = [kinds.index(kind) for kind in ("speech.started", "speech.stopped", "transcript.final", "audio.start")]
        assert order == sorted(order)
        assert client.of("transcript.final")[0]["text"] == "Tell me more."
        samples = client.samples(done["reply"])
        assert len(samples) / RATE_HZ * 1000 == client.of("audio.end")[0]["duration_ms"]
        assert np.abs(samples).max() > 5000
        (latency,) = client.of("latency")
        assert latency["turn"] == 1
        assert latency["stages"]["endpointing_ms"] >= 200
        spoken = client.of("speech.started")[0]["at_ms"], client.of("speech.stopped")[0]["at_ms"]
        assert 0 < spoken[0] < spoken[1] < 3000


async def test_the_greeting_belongs_to_turn_0(server: AppServer) -> None:
    greeting = scripted(greeting="Ahoy there!", scripted_audio_ms=200)
    with AppServer(greeting) as greeter:
        async with WireClient(greeter.ws_url, start={"greeting": True}) as client:
            done = await client.expect("reply.done")
            assert (done["turn"], done["reply"]) == (0, 1)
            assert done["text"] == done["heard"] == "Ahoy there!"
            assert client.of("audio.start") == [{"type": "audio.start", "turn": 0, "reply": 1}]
            await answered_in_full(client)
    async with WireClient(server.ws_url, start={"greeting": False}) as client:
        await answered_in_full(client)
        assert client.of("reply.done")[0]["turn"] == 1


async def test_audio_may_come_in_pieces_of_any_length(server: AppServer) -> None:
    speech = np.concatenate((recording(), np.zeros(RATE_HZ, np.int16)))
    for size in (RATE_HZ * 30, 4096, 333, 0):
        async with WireClient(server.ws_url, start={}) as client:
            await client.send(b"")
            for start in range(0, len(speech), size or 800):
                await client.send(speech[start : start + (size or 800)].tobytes())
                if not size:
                    await client.send(b"")
            done = await client.expect("reply.done")
            assert done["turn"] == 1
            assert client.errors == []


async def test_typed_words_are_a_turn_and_stop_what_is_being_spoken(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        await client.send(TELL)
        first = await client.expect("audio.start")
        await client.send({"type": "text", "text": "Stop, something else."})
        done = await client.expect("reply.done", reply=first["reply"])
        assert done["interrupted"]
        assert client.of("clear") == [{"type": "clear", "reply": first["reply"]}]
        second = await client.expect("audio.start", turn=2)
        assert not (await client.expect("reply.done", reply=second["reply"]))["interrupted"]
        assert [message["text"] for message in client.of("transcript.final")] == ["Tell me.", "Stop, something else."]


async def test_interrupt_stops_the_reply_and_the_conversation_goes_on(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        await client.send({"type": "interrupt"})  # nothing to interrupt is no mistake
        await client.send(TELL)
        reply = (await client.expect("audio.start"))["reply"]
        await client.send({"type": "interrupt"})
        assert (await client.expect("reply.done", reply=reply))["interrupted"]
        await answered_in_full(client)
        assert client.errors == []


async def test_history_ends_at_what_the_listener_reports(server: AppServer) -> None:
    """A listener whose speaker is slow has heard less than the clock would say."""
    with AppServer(scripted(scripted_audio_ms=3000)) as slow:
        async with WireClient(slow.ws_url, start={}) as client:
            await client.send(TELL)
            reply = (await client.expect("audio.start"))["reply"]
            await client.send({"type": "playback", "reply": reply, "played_ms": 0})
            await client.until(lambda: len(client.audio[reply]) > RATE_HZ * 2, "a second of audio")
            await client.send({"type": "interrupt"})
            done = await client.expect("reply.done", reply=reply)
            assert done["interrupted"]
            assert done["heard"] == ""
            await client.send({"type": "playback", "reply": reply, "played_ms": 2000})  # too late: no mistake
            await client.send({"type": "playback", "reply": 999, "played_ms": 1})
            await client.send(TELL)
            await client.expect("audio.start", turn=2)
            assert client.errors == []


async def test_speaking_over_the_reply_ducks_it_then_stops_it_and_is_answered() -> None:
    with AppServer(scripted(scripted_audio_ms=1500, scripted_tokens=10)) as server:
        async with WireClient(server.ws_url, start={}) as client:
            await client.send(TELL)
            reply = (await client.expect("audio.start"))["reply"]
            answered = await client.speak(recording())
            assert answered["reply"] == reply
            assert answered["interrupted"]
            stops = [kind for kind in client.judge.seen if kind in {"audio.hold", "audio.resume", "clear"}]
            assert stops[-2:] == ["audio.hold", "clear"]
            assert (await client.expect("audio.start", turn=2))["reply"] > reply


async def test_muted_audio_is_not_heard(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        await client.send({"type": "mute", "muted": True})
        await client.stream(recording())
        await client.send({"type": "mute", "muted": False})
        await answered_in_full(client)
        assert client.of("speech.started") == []
        assert (await client.speak(recording()))["turn"] == 2


async def test_a_turn_ends_when_the_client_stops_sending(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        done = await client.speak(recording(slice(0, RATE_HZ)), then_silent=False)
        assert done["turn"] == 1


async def test_bye_is_answered_even_before_start(server: AppServer) -> None:
    async with WireClient(server.ws_url) as client:
        await client.expect("ready")
        await client.leave()
        assert client.judge.seen == ["ready", "bye"]


async def test_bye_in_the_middle_of_a_reply_ends_it_first(server: AppServer) -> None:
    async with WireClient(server.ws_url, start={}) as client:
        await client.send(TELL)
        await client.expect("audio.start")
        await client.leave()
        assert client.judge.seen[-3:] == ["clear", "reply.done", "bye"]


async def test_a_stopped_server_says_bye_and_1001() -> None:
    with AppServer() as stopping:
        async with WireClient(stopping.ws_url, start={}) as client:
            await client.send(TELL)
            await client.expect("audio.start")
            await asyncio.to_thread(stopping.stop)
            assert (await client.expect("bye"))["reason"] == "shutdown"
            assert await client.closed() == 1001


async def test_all_lines_busy_is_said_and_a_line_that_is_free_again_is_given() -> None:
    with AppServer(scripted(max_conversations=1)) as small:
        async with WireClient(small.ws_url, start={}) as first:
            async with WireClient(small.ws_url) as second:
                await second.expect("ready")
                await second.send({"type": "start"})
                error = await second.expect("error")
                assert (error["code"], error["fatal"]) == ("server_full", True)
                assert await second.closed() == 1013
            await answered_in_full(first)
        wait_until(lambda: not small.engine.conversations, "a free line")
        async with WireClient(small.ws_url, start={}) as third:
            await answered_in_full(third)


async def test_many_conversations_at_once_each_get_their_own_answers(server: AppServer) -> None:
    async def one(number: int) -> list[str]:
        async with WireClient(server.ws_url, start={}) as client:
            for turn in range(2):
                await client.type(f"Line {number}, turn {turn}.")
            return [message["text"] for message in client.of("transcript.final")]

    said = await asyncio.gather(*(one(number) for number in range(20)))
    assert said == [[f"Line {number}, turn {turn}." for turn in range(2)] for number in range(20)]


async def test_audio_runs_at_most_200_ms_ahead_of_real_time() -> None:
    with AppServer(scripted(scripted_audio_ms=1000, scripted_tokens=4)) as server:
        async with WireClient(server.ws_url, start={}) as client, an_undisturbed_neighbour(server.ws_url):
            done = await client.type("Tell me.")
            audio = client.audio[done["reply"]]
            took_ms = (client.audio_at_s[-1] - client.audio_at_s[0]) * 1000
            assert took_ms >= len(audio) / 32 - 200 - 40, "sent in step with time, less the lead and a tick at each end"


async def test_without_a_speculative_reply_nothing_else_changes() -> None:
    with AppServer(scripted(speculation=False)) as careful:
        async with WireClient(careful.ws_url, start={}) as client:
            await client.speak(recording())
            assert [message["speculative"] for message in client.of("latency")] == [False]
