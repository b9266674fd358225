"""Conversations that services hold: understood, answered and spoken elsewhere, and what happens when they cannot."""

import asyncio
from collections.abc import AsyncIterator

import call_stage
import httpx
import numpy as np
import pytest
import pytest_asyncio
from app.audio.resample import resample
from app.llm.scripted import SENTENCE
from app.stt.scripted import WORDS
from numpy.typing import NDArray
from openai_service import Cut, OpenAiService, Silence, Stall, content_filtered, rate_limited, server_error
from service_stage import served, talking
from wire_client import WireClient


@pytest_asyncio.fixture
async def service() -> AsyncIterator[OpenAiService]:
    async with OpenAiService() as running:
        yield running


def words() -> NDArray[np.int16]:
    """Somebody says two words: int16 [n] at 16 kHz, a second."""
    return resample(call_stage.words(), 8000, 16_000)


def instructions(service: OpenAiService) -> str:
    system: str = service.chat.requests[-1].body["messages"][0]["content"]
    return system


# --- everything works


async def test_what_is_said_is_understood_answered_and_spoken_by_the_service(service: OpenAiService) -> None:
    service.realtime.reply("what is the time")
    service.chat.reply("It is noon.")
    async with talking(service) as (_, client):
        done = await client.speak(words())
        assert (done["text"], done["heard"]) == ("It is noon.", "It is noon.")
        assert [message["text"] for message in client.of("transcript.final")] == ["what is the time"]
        assert service.chat.requests[-1].body["messages"][-1] == {"role": "user", "content": "what is the time"}
        assert len(client.samples(done["reply"])) > 0.5 * 16_000
    assert service.refused == []
    assert service.transcriptions.requests == [], "nothing was uploaded that had been listened to"


async def test_the_page_is_told_what_it_has_cost(service: OpenAiService) -> None:
    async with talking(service) as (server, client):
        await client.type("Hello")
        await client.until(lambda: bool(client.of("usage")), "the account")
        told = client.of("usage")[-1]
        assert told["conversation_usd"] > 0
        assert told["priced"]
        assert {used["capability"] for used in told["services"]} >= {"llm", "tts"}
        answer = (await asyncio.to_thread(httpx.get, f"{server.url}/api/usage", trust_env=False)).json()
        assert answer["today"]["usd"] >= told["conversation_usd"]


async def test_an_answer_that_is_interrupted_is_not_made_any_further(service: OpenAiService) -> None:
    service.chat.reply("word " * 400, pace_s=0.02)
    async with talking(service) as (_, client):
        await client.send({"type": "text", "text": "Tell me everything"})
        await client.expect("audio.start")
        await client.send({"type": "interrupt"})
        left = await asyncio.wait_for(service.chat.next_gone(), 10)
        assert left.chunks < 390
        await client.expect("reply.done", interrupted=True)
        used = (
            [one for one in client.of("usage")[-1]["services"] if one["capability"] == "llm"]
            if client.of("usage")
            else []
        )
        assert all(one["given_up"] == 1 for one in used)


async def test_whoever_is_understood_by_a_service_may_speak_many_languages(service: OpenAiService) -> None:
    async with talking(service, stt_provider="openai") as (_, client):
        assert {"auto", "de", "ja"} <= {*(await client.expect("ready"))["languages"]}


async def test_the_language_is_told_to_all_three(service: OpenAiService) -> None:
    service.realtime.reply("wie spät ist es")
    service.chat.reply("Es ist zwölf Uhr.")
    async with talking(service, language="de") as (_, client):
        done = await client.speak(words())
        assert done["heard"] == "Es ist zwölf Uhr."
        assert instructions(service).endswith("Answer in German.")
        assert service.speech.requests[-1].body["instructions"] == "Speak German."
        (session,) = service.realtime.sessions
        assert session.configuration["audio"]["input"]["transcription"]["languages"] == ["de"]


# --- somebody else takes over


async def test_a_service_that_died_before_the_conversation_is_stood_in_for(service: OpenAiService) -> None:
    async with talking(service) as (_, client):
        await service.kill()
        done = await client.speak(words())
        assert [message["text"] for message in client.of("transcript.final")] == [WORDS]
        assert done["heard"].startswith(SENTENCE[:20])
        assert client.errors == []
        again = await client.type("And again?")
        assert again["heard"].startswith(SENTENCE[:20])


@pytest.mark.parametrize("moment", ["listening", "words", "answer", "half an answer", "voice", "half a sentence"])
async def test_a_service_that_dies_in_a_turn_is_stood_in_for_and_the_next_turn_works(
    service: OpenAiService, moment: str
) -> None:
    """Whatever it was doing: the user hears an answer, and hears one in the next turn as well."""
    if moment == "words":
        service.realtime.fault(Silence())
    elif moment == "answer":
        service.chat.fault(Stall())
    elif moment == "half an answer":
        service.chat.reply("This is one whole sentence. And this is another one that never ends.")
        service.chat.fault(Stall(after=8))
    async with talking(service, tts_patience_ms=3000, llm_patience_ms=3000) as (_, client):
        if moment == "voice":
            service.speech.fault(Stall())
        elif moment == "half a sentence":
            service.speech.fault(Stall(after=2))
        speaking = asyncio.create_task(client.speak(words()))
        match moment:
            case "listening":
                await client.expect("speech.started")
            case "words":
                await client.expect("speech.stopped")
            case "answer" | "half an answer":
                await asyncio.wait_for(service.chat.next_stalled(), 15)
            case _:
                await asyncio.wait_for(service.speech.next_stalled(), 15)
        await service.kill()
        done = await speaking
        assert done["heard"]
        assert not done["interrupted"]
        if moment == "half an answer":
            assert done["heard"].startswith("This is one whole sentence. ")
            assert SENTENCE[:20] in done["heard"]
            assert "another" not in done["heard"], "what broke off is not said"
        assert client.errors == [], "the user need not know"
        await service.revive()
        again = await client.type("And the next one?")
        assert again["heard"]


async def test_a_service_that_says_nothing_is_not_waited_for(service: OpenAiService) -> None:
    async with talking(service, stt_patience_ms=200, llm_patience_ms=200, tts_patience_ms=200) as (_, client):
        await service.freeze()
        done = await client.speak(words())
        assert done["heard"].startswith(SENTENCE[:20])
        service.thaw()


@pytest.mark.parametrize("fault", [Cut(), Cut(after=3), Stall(after=3)], ids=["at once", "in the middle", "stalls"])
async def test_what_may_have_been_paid_for_is_not_asked_for_again(service: OpenAiService, fault: object) -> None:
    service.chat.reply("This is a sentence. This is another one.")
    service.chat.fault(fault)  # type: ignore[arg-type]
    async with talking(service, llm_patience_ms=300) as (_, client):
        done = await client.type("Hello")
        assert SENTENCE[:20] in done["heard"]
        assert len(service.chat.requests) == 1


async def test_a_service_that_says_to_come_again_soon_is_asked_again(service: OpenAiService) -> None:
    service.chat.fault(server_error())
    async with talking(service) as (_, client):
        assert (await client.type("Hello"))["heard"] == service.chat.usual.text
        assert len(service.chat.requests) == 2


async def test_a_service_that_wants_a_long_rest_is_left_alone(service: OpenAiService) -> None:
    service.chat.fault(rate_limited(30))
    async with talking(service) as (_, client):
        for _ in range(2):
            assert (await client.type("Hello"))["heard"].startswith(SENTENCE[:20])
        assert len(service.chat.requests) == 1


# --- nobody takes over


async def test_what_a_service_does_not_want_to_answer_is_declined(service: OpenAiService) -> None:
    service.chat.fault(content_filtered())
    async with talking(service, refusal="I would rather not.") as (_, client):
        await client.send({"type": "text", "text": "Something bad"})
        await client.expect("reply.done", heard="I would rather not.")
        assert len(service.chat.requests) == 1


async def test_without_anybody_else_there_is_an_apology_and_the_next_turn_works(service: OpenAiService) -> None:
    async with talking(service, llm_provider="openai") as (_, client):
        service.chat.fault(Cut())
        await client.send({"type": "text", "text": "Hello"})
        await client.expect("reply.done", heard="Sorry about that.")
        service.chat.reply("It is noon.")
        assert (await client.type("And now?"))["heard"] == "It is noon."


# --- what may be spent


async def test_a_conversation_whose_budget_is_used_up_ends_with_a_word(service: OpenAiService) -> None:
    changes = {"budget_per_conversation_usd": 0.000_001, "budget_phrase": "That was all."}
    async with served(service, **changes) as server:  # type: ignore[arg-type]
        async with WireClient(server.ws_url, start={}, origin=server.url) as client:
            await client.type("One thing")
            assert (await client.type("Another thing"))["heard"] == "That was all."
            assert (await client.expect("bye"))["reason"] == "budget"
            assert await client.closed() == 1000
        assert len(service.chat.requests) == 1


async def test_on_a_day_whose_budget_is_used_up_nobody_is_taken_in(service: OpenAiService) -> None:
    async with served(service, budget_per_day_usd=0.000_001) as server, WireClient(server.ws_url) as client:
        await client.expect("ready")
        await client.send({"type": "start", "greeting": False})
        error = await client.expect("error")
        assert error["code"] == "budget_spent"
        assert "BUDGET_PER_DAY_USD" in error["message"]
        await client.closed()
