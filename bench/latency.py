"""How soon the assistant answers, what a conversation costs, and how well it understands: `make bench`.

Holds real-time conversations on the embedded models with recorded speech, through the same engine as the server, and
prints and writes (bench/results/latency.json) what METRICS in docs/benchmarks.md defines. Takes about five minutes.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import psutil
from app.cli.dialogue import Dialogue
from app.conversation import messages as msg
from app.conversation.options import Options
from app.conversation.turn_state import State
from app.core.config import load_settings
from app.engine import Engine

from bench.exchange import ANSWER_LIMIT_MS, Run, account, exchange, percentiles
from bench.recordings import RATE_HZ, REFERENCES, Utterance, passages, plain, utterances

RESULTS = Path(__file__).parent / "results" / "latency.json"
BARGE_IN_AFTER_MS = 900.0
IDLE_CONVERSATIONS = 40


async def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path, help="a folder of sound files, one utterance each, instead")
    parser.add_argument("--limit", type=int, default=10_000, help="use only this many utterances")
    parser.add_argument("--rounds", type=int, default=3, help="say every utterance this many times (default 3)")
    arguments = parser.parse_args()
    speech = utterances(arguments.speech)[: arguments.limit]
    results: dict[str, Any] = {"machine": _machine(), "utterances": len(speech), "rounds": arguments.rounds}
    engine = Engine(load_settings(env_files=()))
    await engine.start()
    try:
        print(f"{len(speech)} turns, {arguments.rounds} times, with speculation and without ...", flush=True)
        runs = await _converse(engine, speech * arguments.rounds)
        results |= {name: account(run) for name, run in runs.items()}
        results["word_error_rate"] = _word_error_rate(runs["speculative"], arguments.rounds)
        results["cpu_s_per_conversation_minute"] = {
            name: round(run.cpu_s / run.wall_s * 60, 2) for name, run in runs.items()
        }
        if not arguments.speech:
            print("pauses inside a passage ...", flush=True)
            results["passages"] = await _pauses(engine)
        print("interruptions ...", flush=True)
        waits, spoken_over = await _barge_in(engine, speech)
        results["barge_in_silence_ms"] = percentiles(waits)
        results["barge_in_yields"] = f"{len(waits)} of {spoken_over}"
        print("memory ...", flush=True)
        results["memory"] = await _memory(engine)
    finally:
        await engine.close()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    _print(results)


async def _converse(engine: Engine, speech: list[Utterance]) -> dict[str, Run]:
    """Two conversations by turns, one with speculation and one without, so that both meet the same machine."""
    options = Options.from_settings(engine.settings, greeting=False)
    runs, dialogues = {}, {}
    for name, speculation in (("speculative", True), ("sequential", False)):
        runs[name] = Run()
        dialogues[name] = Dialogue(engine, replace(options, rules=replace(options.rules, speculation=speculation)))
        await dialogues[name].start()
    for utterance in speech:
        for name, dialogue in dialogues.items():
            run = runs[name]
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            run.exchanges.append(await exchange(dialogue, utterance))
            run.cpu_s += time.process_time() - cpu_s
            run.wall_s += time.perf_counter() - wall_s
            said = run.transcripts.setdefault(utterance.source, [])
            said.extend(turn.said for turn in dialogue.turns.values() if turn.said)
            dialogue.turns.clear()
    for dialogue in dialogues.values():
        await dialogue.stop()
    return runs


async def _pauses(engine: Engine) -> dict[str, int]:
    """How many pauses of someone who reads on are taken for the end of a turn and answered."""
    found = {"pauses": 0, "answered": 0}
    for passage in passages():
        dialogue = Dialogue(engine, Options.from_settings(engine.settings, greeting=False))
        await dialogue.start()
        dialogue.room = passage.room
        began_s = await dialogue.send(passage.audio)
        await dialogue.stop()
        started = [moment.at_s for moment in dialogue.moments if isinstance(moment.message, msg.AudioStarted)]
        found["pauses"] += len(passage.pauses_ms)
        found["answered"] += sum(
            any(begin_ms <= (at_s - began_s) * 1000 < end_ms for at_s in started)
            for begin_ms, end_ms in passage.pauses_ms
        )
    return found


async def _barge_in(engine: Engine, speech: list[Utterance]) -> tuple[list[float], int]:
    """From the first sound of speech over a reply until the reply is told to be silent, milliseconds; and how many
    replies were spoken over."""
    dialogue = Dialogue(engine, Options.from_settings(engine.settings, greeting=False))
    await dialogue.start()
    waits: list[float] = []
    spoken_over = 0
    for utterance in speech:
        dialogue.conversation.type("Tell me a long story about a ship and its captain.")
        await dialogue.silence(lambda: dialogue.conversation.state is State.SPEAKING, limit_ms=ANSWER_LIMIT_MS)
        await dialogue.silence(lambda: False, limit_ms=BARGE_IN_AFTER_MS)
        moments = len(dialogue.moments)
        began_s = await dialogue.send(utterance.audio) + utterance.begins_ms / 1000
        new = dialogue.moments[moments:]
        cleared = [moment.at_s for moment in new if isinstance(moment.message, msg.AudioCleared)]
        waits.extend((at_s - began_s) * 1000 for at_s in cleared[:1])
        ended_by_itself = any(isinstance(moment.message, msg.ReplyDone) and moment.at_s < began_s for moment in new)
        spoken_over += not ended_by_itself
        dialogue.conversation.interrupt()
        await dialogue.silence(lambda: dialogue.conversation.state is State.LISTENING, limit_ms=ANSWER_LIMIT_MS)
    await dialogue.stop()
    return waits, spoken_over


async def _memory(engine: Engine) -> dict[str, float]:
    """Resident memory with the models loaded, and what each further conversation adds (with 5 s of speech in it)."""
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    dialogues = []
    noise = np.random.default_rng(1).integers(-200, 200, 5 * RATE_HZ, np.int16)
    for _ in range(IDLE_CONVERSATIONS):
        dialogue = Dialogue(engine, Options.from_settings(engine.settings, greeting=False))
        await dialogue.start()
        dialogue.conversation.hear(noise)
        dialogues.append(dialogue)
    while any(not dialogue.conversation.ear.idle for dialogue in dialogues):
        await asyncio.sleep(0.1)
    after = process.memory_info().rss
    for dialogue in dialogues:
        await dialogue.stop()
    return {
        "with_models_mb": round(before / 1e6),
        "per_conversation_kb": round((after - before) / len(dialogues) / 1000, 1),
    }


def _word_error_rate(run: Run, rounds: int) -> float | None:
    known = [name for name in run.transcripts if name in REFERENCES]
    if not known:
        return None
    said = [plain(" ".join(run.transcripts[name])) for name in known]
    return round(float(jiwer.wer([plain(" ".join([REFERENCES[name]] * rounds)) for name in known], said)), 3)


def _machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()}


def _print(results: dict[str, Any]) -> None:
    print(f"\n{'':24}{'speculative':>20}{'sequential':>20}      (p50 / p95, ms)")
    rows = [("voice to voice", "voice_to_voice_ms", None)]
    rows += [(f"  {stage.removesuffix('_ms')}", "stages", stage) for stage in results["speculative"]["stages"]]
    for label, key, stage in rows:
        cells = []
        for name in ("speculative", "sequential"):
            value = results[name][key][stage] if stage else results[name][key]
            cells.append(f"{value.get('p50', '-')} / {value.get('p95', '-')}")
        print(f"{label:24}{cells[0]:>20}{cells[1]:>20}")
    for key in ("turns", "cut_offs", "late_answers", "unanswered"):
        print(f"{key.replace('_', ' '):24}{results['speculative'][key]:>20}{results['sequential'][key]:>20}")
    if "passages" in results:
        print(f"pauses taken for an end {results['passages']['answered']} of {results['passages']['pauses']}")
    silence = results["barge_in_silence_ms"]
    print(f"\nbarge-in to silence     {silence.get('p50', '-')} / {silence.get('p95', '-')} ms")
    print(f"replies that stopped    {results['barge_in_yields']}")
    print(f"word error rate         {results['word_error_rate']}")
    cpu = results["cpu_s_per_conversation_minute"]
    print(f"CPU                     {cpu['speculative']} s per conversation minute ({cpu['sequential']} sequential)")
    memory = results["memory"]
    print(f"memory                  {memory['with_models_mb']} MB with models", end="")
    print(f" + {memory['per_conversation_kb']} kB per conversation\nwritten to {RESULTS}")


if __name__ == "__main__":
    asyncio.run(main())
