"""One conversation with everything real: the recording, the models, the voice, over a real socket."""

import asyncio
from collections.abc import Iterator

import jiwer
import numpy as np
import pytest
from app.audio.wav import read_audio
from app.core.config import Settings
from app.inference.store import ModelStore
from app_server import AppServer
from wire_client import RATE_HZ, WireClient

SAID = "It was the best of times, it was the worst of times."
PLACE = slice(round(0.8 * RATE_HZ), round(4.9 * RATE_HZ))
"""Where the recording has these words."""


def words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() or c == "'" else " " for c in text.lower()).split())


@pytest.fixture(scope="module")
def server() -> Iterator[AppServer]:
    with AppServer(Settings(greeting="Ahoy! How can I help you?", reply_max_tokens=16)) as running:
        yield running


async def test_recorded_speech_is_understood_and_answered_aloud(server: AppServer) -> None:
    speech = read_audio(ModelStore().path("test-speech") / "two_cities.wav", RATE_HZ)[PLACE]
    async with WireClient(server.ws_url, start={"greeting": True}) as client:
        greeting = await client.expect("reply.done", turn=0)
        assert greeting["heard"] == "Ahoy! How can I help you?"
        answer = await client.speak(speech)
        assert jiwer.wer(words(SAID), words(client.judge.final[1])) <= 0.2
        assert answer["turn"] == 1
        assert answer["heard"] == answer["text"] != ""
        for reply in (greeting, answer):
            spoken = await server.engine.providers.stt.transcribe(client.samples(reply["reply"]), language="en")
            # By letters: which words come is up to the model, and "tale" and "tail" sound alike.
            meant, understood = (words(text).replace("'", "") for text in (reply["text"], spoken.text))
            assert jiwer.cer(meant, understood) <= 0.2, "the audio says what the text says"
        assert client.errors == []


async def test_two_people_are_answered_at_once(server: AppServer) -> None:
    async def ask(question: str) -> None:
        async with WireClient(server.ws_url, start={}) as client:
            answer = await client.type(question)
            assert client.judge.final == {1: question}
            assert answer["heard"] == answer["text"] != ""
            assert np.abs(client.samples(answer["reply"])).max() > 3000

    await asyncio.gather(ask("What is the capital of France?"), ask("How many days has a week?"))
    server.nothing_is_left()
