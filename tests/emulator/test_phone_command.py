"""`ahoy phone`, with a reference server in place of Ahoy."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import typer
from app.audio.g711 import encode_mulaw
from app.audio.wav import read_audio, write_wav
from app.cli.phone import phone
from app.core.errors import AhoyError
from app.emulator import ACCOUNT_SID, AUTH_TOKEN, NUMBER, PUBLIC_URL
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.rest import Client
from typer.testing import CliRunner
from voice_server import Socket, VoiceServer

TONE = np.full(2400, 6000, np.int16)
ACCOUNT = {
    "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
    "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
    "TWILIO_PHONE_NUMBER": NUMBER,
    "PUBLIC_BASE_URL": PUBLIC_URL,
}
AHOY = str(Path(sys.executable).with_name("ahoy"))
application = typer.Typer(pretty_exceptions_enable=False)
application.command()(phone)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run(*arguments: object, **variables: str) -> str:
    """What the command prints. Raises what it raises."""
    result = await asyncio.to_thread(
        CliRunner().invoke, application, [str(argument) for argument in arguments], env=variables, catch_exceptions=True
    )
    if isinstance(result.exception, AhoyError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["app.cli.phone"], "QUIET_MS", 200)  # the name in app.cli is the command's


async def answer_what_is_said(talk: Socket) -> None:
    await talk.media(encode_mulaw(TONE))
    await talk.mark("greeting")
    loud = encode_mulaw(TONE[:160])
    while True:
        message = await talk.next("media", "dtmf")
        if message["event"] == "dtmf" and message["dtmf"]["digit"] == "#":
            break
    assert loud in talk.audio
    await talk.media(encode_mulaw(TONE))
    await talk.to_the_end()


async def test_it_listens_speaks_presses_keys_and_keeps_what_it_heard(server: VoiceServer, tmp_path: Path) -> None:
    server.talk = answer_what_is_said
    question, heard = tmp_path / "question.wav", tmp_path / "heard.wav"
    write_wav(question, np.full(4800, 6000, np.int16), 16_000)
    printed = await run(
        question, "--out", heard, "--press", "12#", "--server", server.url, "--port", free_port(), **ACCOUNT
    )
    for line in ("webhook  POST /voice", "verb  Connect", "stream  open", "mark  greeting", "key  #", "completed"):
        assert line in printed
    loud = np.flatnonzero(read_audio(heard, 8000))
    assert len(loud) >= 2 * 2400 - 160, "the greeting and the answer"


async def test_without_a_recording_it_hears_the_greeting_and_hangs_up(server: VoiceServer) -> None:
    async def greet(talk: Socket) -> None:
        await talk.media(encode_mulaw(TONE))
        await talk.to_the_end()

    server.talk = greet
    server.answers["/voice"] = server.answers["/voice"].replace(
        "wss://voice.example.com", f"ws://127.0.0.1:{server.port}"
    )
    printed = await run("--server", server.url, "--port", free_port())
    assert "hang-up" in printed
    assert "X-Twilio-Signature" not in server.requests[0][2]


async def test_what_the_server_does_wrong_is_said(server: VoiceServer) -> None:
    server.refuse["/voice"] = 403
    with pytest.raises(AhoyError, match=r"11200.*(?s:.)*TWILIO_AUTH_TOKEN"):
        await run("--server", server.url, "--port", free_port(), **ACCOUNT)
    with pytest.raises(AhoyError, match="ahoy serve"):
        await run("--server", f"http://127.0.0.1:{free_port()}", "--port", free_port())


async def test_bad_input_is_said_before_anything_happens(server: VoiceServer, tmp_path: Path) -> None:
    for arguments, fault in (
        (["--press", "1x"], "--press"),
        (["--server", "voice.example.com"], "--server"),
        ([tmp_path / "missing.wav"], "no such file"),
        (["--out", tmp_path / "missing" / "heard.wav"], "directory"),
        (["--port", server.port], f"port {server.port}"),
    ):
        with pytest.raises(AhoyError, match=fault):
            await run("--server", server.url, *arguments)
    assert server.requests == []


@contextlib.asynccontextmanager
async def serving(*arguments: object, **variables: str) -> AsyncIterator[asyncio.StreamReader]:
    """The command as a process, until Ctrl-C; what it prints."""
    process = await asyncio.create_subprocess_exec(
        AHOY, "phone", "--serve", *map(str, arguments), stdout=PIPE, env=os.environ | variables
    )
    assert process.stdout is not None
    try:
        yield process.stdout
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(printed: asyncio.StreamReader, words: str) -> None:
    while words not in (line := (await printed.readline()).decode()):
        assert line, f"it ended without {words!r}"


@pytest.mark.parametrize("behaviour", ["human", "voicemail"])
async def test_it_answers_calls_that_the_server_places(server: VoiceServer, tmp_path: Path, behaviour: str) -> None:
    async def speak(talk: Socket) -> None:
        for _ in range(40):
            await talk.next("media")
        await talk.media(encode_mulaw(TONE))
        await talk.mark("said")
        await talk.next("mark")

    server.talk = speak
    port, heard = free_port(), tmp_path / "heard.wav"
    api = f"http://127.0.0.1:{port}"
    variables = ACCOUNT | {"TWILIO_API_URL": api, "OUTBOUND_ALLOWED": "+1500555"}
    arguments = ("--server", server.url, "--behaviour", behaviour, "--out", heard)
    async with serving(*arguments, **variables) as printed, AsyncTwilioHttpClient() as http:
        await until(printed, f"Waiting for calls at {api}")
        client = Client(ACCOUNT_SID, AUTH_TOKEN, http_client=http)
        client.api.base_url = api
        await client.calls.create_async(to="+15005550009", from_=NUMBER, url=PUBLIC_URL + "/voice")
        await until(printed, "mark  said")
        await until(printed, "What was heard")
    assert len(np.flatnonzero(read_audio(heard, 8000))) >= 2400
    if behaviour == "voicemail":
        assert len(np.unique(np.frombuffer(server.sockets[0].audio, np.uint8))) > 2, "the beep"


async def test_serving_says_what_the_server_must_be_told() -> None:
    async with serving("--port", free_port()) as printed:
        for name in ("TWILIO_API_URL=http://127.0.0.1:", "TWILIO_AUTH_TOKEN=", "PUBLIC_BASE_URL=", "OUTBOUND_ALLOWED="):
            await until(printed, name)
        await until(printed, "Waiting for calls at")


async def test_an_earlier_recording_stays_when_nothing_can_be_heard(server: VoiceServer, tmp_path: Path) -> None:
    heard = tmp_path / "heard.wav"
    write_wav(heard, TONE, 8000)
    with pytest.raises(AhoyError, match="--press"):
        await run("--out", heard, "--press", "x", "--server", server.url)
    assert len(read_audio(heard, 8000)) == len(TONE)
