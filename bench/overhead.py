"""What the engine itself adds when many talk at once: part of `make bench`.

Conversations with recorded speech, the real voice detector and the real turn model, and scripted providers whose delays
are known: what remains of the wait when those and the endpointing delay are taken off is the engine's own share.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

from app.cli.dialogue import Dialogue
from app.conversation.options import Options
from app.core.config import load_settings
from app.engine import Engine

from bench.exchange import Run, account, exchange
from bench.recordings import Utterance, utterances

RESULTS = Path(__file__).parent / "results" / "overhead.json"
TOKEN_MS = 10
PROFILES = {
    "cloud": {"scripted_stt_ms": 250, "scripted_first_token_ms": 500, "scripted_first_audio_ms": 140},
    "local": {"scripted_stt_ms": 220, "scripted_first_token_ms": 100, "scripted_first_audio_ms": 100},
}
"""Delays as they are measured of hosted services and of models on a GPU of one's own."""
STAGGER_S = 0.37
"""Conversations begin one after the other, so that they do not speak in step."""


async def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conversations", type=int, default=10, help="how many at once (default 10)")
    parser.add_argument("--turns", type=int, default=8, help="turns of each (default 8)")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"conversations": arguments.conversations, "turns_each": arguments.turns}
    print(f"{arguments.conversations} conversations at once{'voice to voice':>34}{'engine':>20}      (p50 / p95, ms)")
    for name, delays in PROFILES.items():
        results[name] = found = await _measure(delays, arguments.conversations, arguments.turns)
        cells = [found["voice_to_voice_ms"], found["stages"]["engine_ms"]]
        print(f"{name:28}{'':16}", *(f"{cell['p50']:>9} / {cell['p95']:<8}" for cell in cells))
        print(f"  {found['cpu_s_per_conversation_minute']} s of CPU per conversation minute")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {RESULTS}")


async def _measure(delays: dict[str, int], conversations: int, turns: int) -> dict[str, Any]:
    scripted: dict[str, Any] = dict.fromkeys(("stt_provider", "llm_provider", "tts_provider"), "scripted")
    engine = Engine(load_settings(env_files=(), scripted_token_ms=TOKEN_MS, **scripted, **delays))
    await engine.start()
    speech = utterances()
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_talk(engine, [speech[(first + turn) % len(speech)] for turn in range(turns)], first))
                for first in range(conversations)
            ]
    finally:
        await engine.close()
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    together = Run(exchanges=[one for task in tasks for one in task.result().exchanges])
    found = account(together)
    found["cpu_s_per_conversation_minute"] = round(cpu_s / (wall_s * conversations) * 60, 2)
    return found


async def _talk(engine: Engine, speech: list[Utterance], number: int) -> Run:
    await asyncio.sleep(number * STAGGER_S)
    dialogue = Dialogue(engine, Options.from_settings(engine.settings, greeting=False))
    await dialogue.start()
    run = Run()
    for utterance in speech:
        run.exchanges.append(await exchange(dialogue, utterance))
    await dialogue.stop()
    return run


if __name__ == "__main__":
    asyncio.run(main())
