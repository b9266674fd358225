"""`ahoy models check` as a process: a line for everybody who may do the work, and an exit code for scripts."""

import asyncio
import os
import sys
from pathlib import Path

from openai_service import OpenAiService, unauthorized

AHOY = str(Path(sys.executable).with_name("ahoy"))
SCRIPTED = {
    "STT_PROVIDER": "scripted",
    "LLM_PROVIDER": "scripted",
    "TTS_PROVIDER": "scripted",
    "SCRIPTED_STT_MS": "20",
    "SCRIPTED_FIRST_TOKEN_MS": "20",
    "SCRIPTED_TOKENS": "6",
    "SCRIPTED_TOKEN_MS": "1",
    "SCRIPTED_FIRST_AUDIO_MS": "20",
    "SCRIPTED_AUDIO_MS": "200",
}
NARROW = {"COLUMNS": "60"}
"""As a window beside another one is."""


async def check(folder: Path, settings: dict[str, str]) -> tuple[int, list[str], str]:
    """The exit code, the heading and for everybody a row and what happened, and what is on standard error."""
    process = await asyncio.create_subprocess_exec(
        AHOY,
        "models",
        "check",
        cwd=folder,
        env={**os.environ, **NARROW, **SCRIPTED, "DATA_DIR": str(folder), **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    heading, *lines = out.decode().splitlines() or [""]
    assert len(lines) % 2 == 0, "what happened is one line, however long it is"
    rows = [f"{row}  {happened.strip()}" for row, happened in zip(lines[::2], lines[1::2], strict=True)]
    return process.returncode, [heading, *rows] if heading else [], err.decode()


def with_service(service: OpenAiService) -> dict[str, str]:
    """Everything is asked of this service."""
    return {
        "SERVICES": f"mine={service.base_url}",
        "SERVICE_KEYS": f"mine={service.key}",
        "STT_PROVIDER": "mine:whisper-large-v3",
        "LLM_PROVIDER": "mine:llama3.2:3b,scripted",
        "TTS_PROVIDER": "mine:kokoro@af_bella",
        "PRICES": "whisper-large-v3:minute=0,llama3.2:3b:input=0,llama3.2:3b:output=0,kokoro:characters=0",
    }


async def test_when_everybody_works_it_says_so_and_ends_well(tmp_path: Path) -> None:
    status, (heading, *lines), err = await check(tmp_path, {})
    assert (status, err) == (0, "")
    assert heading.split() == ["for", "provider", "model", "first"]
    recognition, model, voice = lines
    assert recognition.startswith("works  recognition     scripted ")
    assert "Understood “Tell me more.”" in recognition
    assert model.startswith("works  language model  scripted ")
    assert "Answered with 6 words." in model
    assert voice.startswith("works  voice           scripted ")
    assert "Spoke 0.2 s, " in voice
    assert all(" ms  " in line for line in lines)


async def test_services_are_tried_with_the_models_and_keys_of_the_settings(tmp_path: Path) -> None:
    async with OpenAiService(compatible=True) as service:
        service.transcriptions.reply("Hello, this is a test of the voice.")
        status, (_, *lines), err = await check(tmp_path, with_service(service))
        assert (status, err, len(lines)) == (0, "", 4)
        assert "works  recognition     mine      whisper-large-v3" in lines[0]
        assert "Understood “Hello, this is a test of the voice.”" in lines[0]
        assert "works  language model  mine      llama3.2:3b" in lines[1]
        assert "works  voice           mine      kokoro" in lines[3]
        assert {exchange.body["voice"] for exchange in service.speech.requests} == {"af_bella"}
        assert not service.refused


async def test_when_somebody_fails_it_says_what_to_do_tries_the_others_and_fails(tmp_path: Path) -> None:
    async with OpenAiService(compatible=True) as service:
        service.chat.fault(unauthorized())
        status, (_, _, first, second, voice), err = await check(tmp_path, with_service(service))
    assert status == 1
    assert err == "", "it is said once"
    assert first.startswith("fails  language model  mine ")
    assert first.endswith("mine does not take the key: check the one of 'mine' in SERVICE_KEYS.")
    assert " ms  " not in first, "nothing came, so nothing came soon or late"
    assert second.startswith("works  language model  scripted ")
    assert voice.startswith("works  voice           mine ")
    assert service.key
    assert service.key not in "".join((first, second, voice, err))


async def test_a_service_that_is_not_there_is_said_not_to_be(tmp_path: Path) -> None:
    async with OpenAiService() as service:
        await service.kill()
        status, (_, recognition, model, _, voice), _ = await check(tmp_path, with_service(service))
    assert status == 1
    assert recognition.endswith("It was not tried: no voice works that could speak to it.")
    for line in (model, voice):
        assert line.startswith("fails  ")
        assert line.endswith("mine cannot be reached: nobody answers at its address.")


async def test_settings_that_cannot_be_are_said_in_one_line(tmp_path: Path) -> None:
    status, lines, err = await check(tmp_path, {"LLM_PROVIDER": "nobody:a-model"})
    assert (status, lines) == (1, [])
    assert err.startswith("LLM_PROVIDER: 'nobody' is neither embedded nor openai, nor a service of SERVICES")
    assert len(err.splitlines()) == 1
