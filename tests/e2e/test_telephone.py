"""The whole product on the telephone: the real server with its models, Twilio imitated beside it, a recorded caller.

Times are positions on the line's own clock, and not on the wall.
"""

import re
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import jiwer
import numpy as np
import pytest
import pytest_asyncio
from app.audio.resample import resample
from app.audio.wav import read_audio
from app.emulator import ACCOUNT_SID, AUTH_TOKEN, NUMBER, PUBLIC_URL, Exchange, Line
from app.inference.store import ModelStore
from app.stt.embedded_whisper import WhisperRecognizer
from numpy.typing import NDArray
from real_server import RealServer

RATE_HZ = 8000
PATIENCE_S = 30.0
"""For what models do on a machine that is busy with other things."""
THEM = "+12025550123"

# What is read in two_cities.wav, and where, in seconds.
THE_TIMES = ("It was the best of times, it was the worst of times.", 1.0, 4.7)
BEFORE_US = ("We had everything before us, we had nothing before us.", 21.0, 24.2)
A_COUGH = ("", 2.2, 2.4)
"""A piece of a word, which is over before it could be an interruption."""

GREETING = (
    "Welcome aboard. The bay is calm this morning, and the sun is warm on the water. The crew has washed the deck, "
    "and the cook has made fresh bread for everyone."
)
"""Long enough to be spoken over."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


API_PORT = free_port()


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    settings = {
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        "TWILIO_PHONE_NUMBER": NUMBER,
        "TWILIO_API_URL": f"http://127.0.0.1:{API_PORT}",
        "PUBLIC_BASE_URL": PUBLIC_URL,
        "OUTBOUND_ALLOWED": "+1",
        "GREETING": GREETING,
        "BARGE_IN_MS": "400",  # so that a cough is none, wherever the detector's windows begin
        "SYSTEM_PROMPT": "You are a friendly person.",
        "REPLY_STYLE": "Answer in one short, plain sentence with easy words.",
        "REPLY_MAX_TOKENS": "40",
    }
    with RealServer(settings) as running:
        yield running


@pytest_asyncio.fixture
async def twilio(server: RealServer) -> AsyncIterator[Exchange]:
    """Afterwards the server has done nothing that Twilio would not have taken."""
    async with Exchange(server.url.rstrip("/"), port=API_PORT) as exchange:
        yield exchange
    assert exchange.errors == []


@pytest_asyncio.fixture
async def api(server: RealServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE_S) as client:
        yield client


async def understand(wave: NDArray[np.int16]) -> str:
    """What the project's own recogniser hears in what was heard on the line."""
    recognizer = WhisperRecognizer(ModelStore().path("whisper-tiny.en"), None)
    try:
        return (await recognizer.transcribe(resample(wave, RATE_HZ, 16_000), language="en")).text
    finally:
        await recognizer.close()


def speech(part: tuple[str, float, float]) -> NDArray[np.int16]:
    """The part of the recording in which these words are read."""
    _, begin_s, end_s = part
    read = read_audio(ModelStore().path("test-speech") / "two_cities.wav", RATE_HZ)
    return read[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)]


async def captions(api: httpx.AsyncClient, line: Line) -> list[dict[str, Any]]:
    """What was said on either side, as the page shows it."""
    call: dict[str, Any] = (await api.get(f"/api/call/{line.sid}")).json()
    return list(call["captions"])


def letters(text: str) -> str:
    """What is compared where any words may come: "tale" and "tail" sound alike."""
    return " ".join(re.sub(r"[^\w ]", "", text.lower()).split())


def word_errors(meant: str, understood: str) -> int:
    """How many words were changed, left out or put in. Case, punctuation and apostrophes cannot be heard."""
    found = jiwer.process_words(letters(meant), letters(understood))
    return int(found.substitutions + found.deletions + found.insertions)


async def a_question_and_its_answer(line: Line, api: httpx.AsyncClient) -> None:
    """Say something that is understood, and hear an answer that says what is written."""
    said = await line.say(speech(THE_TIMES))
    await line.until(line.hears_speech, timeout_s=PATIENCE_S)
    await line.hears_the_end(quiet_ms=1200, timeout_s=PATIENCE_S)
    line.hang_up()
    assert await line.ended() == "completed"
    greeting, question, answer = await captions(api, line)
    assert (greeting["text"], greeting["who"]) == (GREETING, "assistant")
    assert question["who"] == "caller"
    assert word_errors(THE_TIMES[0], question["text"]) <= 2  # of twelve, over a telephone line
    assert answer["who"] == "assistant"
    assert jiwer.cer(letters(answer["text"]), letters(await understand(line.heard_from(said.end_ms)))) <= 0.25
    (stream,) = line.streams
    assert stream.underruns() == []


async def test_a_caller_is_greeted_understood_and_answered_aloud(
    server: RealServer, twilio: Exchange, api: httpx.AsyncClient
) -> None:
    line = await twilio.dial()
    await line.streaming()
    await line.hears_the_end(quiet_ms=1200)
    assert word_errors(GREETING, await understand(line.heard)) <= 3  # of thirty
    await a_question_and_its_answer(line, api)
    log = server.log_text()
    for secret in (line.from_, line.from_[1:], "best of times", AUTH_TOKEN, line.streams[0].parameters["token"]):
        assert secret not in log


async def test_somebody_who_is_called_is_greeted_understood_and_answered_aloud(
    twilio: Exchange, api: httpx.AsyncClient
) -> None:
    placed = await api.post("/api/call", json={"number": THEM})
    assert placed.status_code == 201
    line = await twilio.next_answered()
    assert (line.sid, line.to) == (placed.json()["sid"], THEM)
    await line.hears_the_end(quiet_ms=1200)
    await a_question_and_its_answer(line, api)
    call = (await api.get(f"/api/call/{line.sid}")).json()
    assert (call["status"], call["answered_by"]) == ("completed", "human")


async def test_speaking_over_the_assistant_stops_it(twilio: Exchange, api: httpx.AsyncClient) -> None:
    line = await twilio.dial()
    stream = await line.streaming()
    await line.hears()
    await line.silence(ms=2500)
    await line.say(speech(BEFORE_US))
    (cleared,) = stream.clears
    assert np.abs(line.heard_from(cleared.at_ms + 60, cleared.at_ms + 1000)).max() < 10, "silent at once"
    await line.until(line.hears_speech, timeout_s=PATIENCE_S)
    line.hang_up()
    await line.ended()
    greeting, question, *_ = await captions(api, line)
    assert GREETING.startswith(greeting["text"])
    assert word_errors(greeting["text"], await understand(line.heard_from(0, cleared.at_ms + 60))) <= 2
    # "had" and "add" are the same over a telephone; but not even the first words are lost
    assert jiwer.cer(letters(BEFORE_US[0]), letters(question["text"])) <= 0.08


async def test_a_cough_does_not_stop_the_assistant_for_long(twilio: Exchange, api: httpx.AsyncClient) -> None:
    line = await twilio.dial()
    stream = await line.streaming()
    await line.hears()
    await line.silence(ms=2500)
    coughed = await line.say(speech(A_COUGH))
    await line.hears_the_end(quiet_ms=1200)
    after = [arrival.at_ms for arrival in stream.arrivals if arrival.at_ms > coughed.start_ms]
    assert np.diff(after).max() > 100, "it was held"
    assert stream.clears == []
    (greeting,) = await captions(api, line)
    assert greeting["text"] == GREETING
    assert word_errors(GREETING, await understand(line.heard)) <= 4  # of thirty; a word may be heard twice
    line.hang_up()


async def test_whoever_hangs_up_in_the_middle_has_ended_the_call(twilio: Exchange, api: httpx.AsyncClient) -> None:
    line = await twilio.dial()
    await line.streaming()
    await line.hears()
    await line.silence(ms=1500)
    line.hang_up()
    assert await line.ended() == "completed"
    call = (await api.get(f"/api/call/{line.sid}")).json()
    assert call["status"] == "completed"
    (greeting,) = call["captions"]
    assert GREETING.startswith(greeting["text"])
    assert 0 < len(greeting["text"]) < len(GREETING)
