"""What our own code adds to services, and how long somebody waits when they die: part of `make bench`.

The service is the strict one of the tests (tests/support/openai_service), in a process of its own, with known delays.
Conversations with recorded speech are held through the same engine as the server's, with the embedded models to take
over. Then the service is killed, or stopped so that it holds its connections and says nothing, at many moments of a
turn: what counts is when the caller hears an answer (or an apology), and whether the next turn works.
"""

import argparse
import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from app.cli.dialogue import Dialogue
from app.conversation.options import Options
from app.core.config import load_settings
from app.engine import Engine

from bench.exchange import ANSWER_LIMIT_MS, Exchange, exchange, percentiles
from bench.recordings import Utterance, utterances

RESULTS = Path(__file__).parent / "results" / "services.json"
SERVICE_CODE = Path(__file__).parents[1] / "tests" / "support"
STT_MS, FIRST_TOKEN_MS, FIRST_AUDIO_MS = 200, 300, 200
ANSWER = "Here is one thing that I know about it. And here is another one, which is a little longer."
TURNS = 12
ROUNDS = 7
MOMENTS_MS = (-800, -200, 0, 100, 300, 450, 600, 700, 900)
"""When the service dies, after the end of the user's last word."""


async def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=TURNS, help=f"turns of each kind (default {TURNS})")
    arguments = parser.parse_args()
    if arguments.serve:
        await serve()
        return
    delays = {"stt": STT_MS, "first_token": FIRST_TOKEN_MS, "first_audio": FIRST_AUDIO_MS}
    results: dict[str, Any] = {"delays_ms": delays}
    for name, speculation in (("speculative", True), ("not speculative", False)):
        results[name] = found = await added(arguments.turns, speculation=speculation)
        print(
            f"{name}: voice to voice {_shown(found['voice_to_voice_ms'])} ms, bare requests "
            f"{found['bare_requests_ms']} ms, added {_shown(found['added_ms'])} ms, "
            f"beyond the longest way {_shown(found['beyond_ms'])} ms  (p50 / p95)",
            flush=True,
        )
    for name, how in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
        results[name] = found = await deaths(how)
        print(
            f"{name}: heard after {_shown(found['heard_ms'])} ms at most {found['worst_ms']:.0f}; "
            f"{found['next_turn_worked']} of {found['turns']} next turns worked",
            flush=True,
        )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {RESULTS}")


async def baseline(address: str) -> float:
    """What the three requests take together without any of our code (ms): bare ones, on connections that are open."""
    sums = []
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"ws{address[4:]}/realtime?intent=transcription") as live,
    ):
        sound = {"format": {"type": "audio/pcm", "rate": 24_000}, "transcription": {"model": "gpt-live-transcribe"}}
        session = {"type": "transcription", "audio": {"input": {**sound, "turn_detection": None}}}
        await live.send_json({"type": "session.update", "session": session})
        second = base64.b64encode(bytes(48_000)).decode()
        for _ in range(ROUNDS):
            await live.send_json({"type": "input_audio_buffer.append", "audio": second})
            await asyncio.sleep(0.3)
            at_s = [time.perf_counter()]
            await live.send_json({"type": "input_audio_buffer.commit"})
            while not (await live.receive_json())["type"].endswith("transcription.completed"):
                pass
            at_s.append(time.perf_counter())
            question = {"model": "any", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
            async with http.post(f"{address}/chat/completions", json=question) as answer:
                async for line in answer.content:
                    if b'"content":"H' in line.replace(b" ", b""):
                        at_s.append(time.perf_counter())
                        break
                await answer.read()
            said = {"model": "any", "voice": "coral", "input": "Hello there, my friend.", "response_format": "pcm"}
            begun_s = time.perf_counter()
            async with http.post(f"{address}/audio/speech", json=said) as speech:
                await speech.content.readany()
                first_s = time.perf_counter() - begun_s
                await speech.read()
            sums.append((at_s[2] - at_s[0] + first_s) * 1000)
    return float(np.median(sums))


async def added(turns: int, *, speculation: bool) -> dict[str, Any]:
    """Latency over a service with known delays, one conversation."""
    with service() as (_, address):
        bare_ms = await baseline(address)
        engine = Engine(_settings(address, speculation=speculation))
        await engine.start()
        try:
            exchanges = await _talk(engine, [utterances()[turn % 21] for turn in range(turns)])
        finally:
            await engine.close()
    whole = [one for one in exchanges if one.latency and one.voice_to_voice_ms is not None]
    adds, beyond = [], []
    for one in whole:
        latency = one.latency
        if latency is None:
            continue
        stages = (latency.stt_ms, latency.llm_ms, latency.tts_ms)
        adds.append(sum(stages) - bare_ms + latency.engine_ms)
        begins = 0.0 if latency.speculative else latency.endpointing_ms
        chain = FIRST_TOKEN_MS + FIRST_AUDIO_MS + max(begins, PAUSE_MS + STT_MS)
        beyond.append(latency.voice_to_voice_ms - max(latency.endpointing_ms, chain))
    return {
        "turns": len(whole),
        "voice_to_voice_ms": percentiles([one.voice_to_voice_ms for one in whole if one.voice_to_voice_ms is not None]),
        "bare_requests_ms": round(bare_ms, 1),
        "added_ms": percentiles(adds),
        "beyond_ms": percentiles(beyond),
    }


PAUSE_MS = 64.0
"""From the last word until a pause is noticed: a window of the detector and a pause of PAUSE_MS=32."""


async def deaths(how: signal.Signals) -> dict[str, Any]:
    """The service gets this signal at some moment of a turn; the embedded models take over."""
    heard: list[float] = []
    worked = 0
    speech = utterances()
    for number, moment_ms in enumerate(MOMENTS_MS):
        with service() as (process, address):
            engine = Engine(_settings(address))
            await engine.start()
            try:
                dialogue = Dialogue(engine, Options.from_settings(engine.settings, greeting=False))
                await dialogue.start()
                await exchange(dialogue, speech[number % len(speech)])  # everything is warm
                utterance = speech[(number + 1) % len(speech)]
                loop = asyncio.get_running_loop()
                loop.call_later(max(0.0, utterance.ends_ms + moment_ms) / 1000, os.kill, process.pid, how)
                waited_ms = (await exchange(dialogue, utterance)).voice_to_voice_ms
                heard.append(ANSWER_LIMIT_MS if waited_ms is None else waited_ms)
                worked += (await exchange(dialogue, speech[(number + 2) % len(speech)])).voice_to_voice_ms is not None
                await dialogue.stop()
            finally:
                await engine.close()
        print(f"  {how.name} {moment_ms:+} ms: heard after {heard[-1]:.0f} ms", flush=True)
    return {"turns": len(heard), "heard_ms": percentiles(heard), "worst_ms": max(heard), "next_turn_worked": worked}


async def _talk(engine: Engine, speech: list[Utterance]) -> list[Exchange]:
    dialogue = Dialogue(engine, Options.from_settings(engine.settings, greeting=False))
    await dialogue.start()
    exchanges = [await exchange(dialogue, utterance) for utterance in speech]
    await dialogue.stop()
    return exchanges


def _settings(address: str, **changes: Any) -> Any:
    return load_settings(
        env_files=(),
        openai_api_key="sk-fictional",
        openai_base_url=address,
        stt_streaming="true",
        data_dir=tempfile.mkdtemp(prefix="ahoy-bench-"),
        **changes,
    )


def _shown(values: dict[str, float]) -> str:
    return " / ".join(f"{value:.0f}" for value in values.values())


# --- the service, in a process of its own


@contextmanager
def service() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A service with the known delays, and its address."""
    command = [sys.executable, "-m", "bench.services", "--serve"]
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}{os.pathsep}{SERVICE_CODE}"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)  # noqa: S603 (ourselves)
    try:
        yield process, process.stdout.readline().strip() if process.stdout else ""
    finally:
        process.kill()
        process.wait()


async def serve() -> None:
    """Run the service until it is ended."""
    from openai_service import OpenAiService  # noqa: PLC0415 (of the tests)
    from openai_service.chat import Reply  # noqa: PLC0415

    async with OpenAiService(key=None, compatible=True) as running:
        running.chat.usual = Reply(ANSWER)
        running.chat.first_s = FIRST_TOKEN_MS / 1000
        running.speech.first_s = FIRST_AUDIO_MS / 1000
        running.realtime.delay_s = STT_MS / 1000
        print(running.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
