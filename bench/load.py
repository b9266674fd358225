"""How many telephone calls one core holds: `make bench-load`.

The server runs on one core, the generator (`phone_load.py`) on another. The voice detector is the real one;
recognition, language and voice are scripted, with given delays, and a fixed silence ends a turn (ENDPOINTING=silence),
unless `--adaptive` asks for the turn model. Prints, and writes to bench/results/load.json, what N calls at once cost
and how soon they are answered.
"""

import argparse
import asyncio
import gc
import json
import os
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import uvloop

from bench.phone_load import Caller, Rounds, together, words_of
from bench.recordings import utterances
from bench.server import serve, until_ready

RESULTS = Path(__file__).parent / "results" / "load.json"
DELAYS = {
    "SCRIPTED_STT_MS": 50,
    "SCRIPTED_FIRST_TOKEN_MS": 100,
    "SCRIPTED_TOKEN_MS": 20,
    "SCRIPTED_TOKENS": 20,
    "SCRIPTED_FIRST_AUDIO_MS": 80,
    "SCRIPTED_AUDIO_MS": 1000,
}
"""Two chunks of text with a second of audio each: 2 s."""
REPLY_FRAMES = 100
KNEE_MS = 50.0
"""A reply latency (p95) that is worse than that of one call by more than this is beyond the knee."""
FEWEST_CALL_SECONDS = 170.0
"""Long enough for every utterance to be said once, however few calls there are."""
STARTS_PER_S = 25
SETTLE_S = 5.0


async def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", default="1,20,50,100,125,150", help="how many at once, one run for each")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each run is measured (default 30)")
    parser.add_argument("--adaptive", action="store_true", help="with the turn model, as Ahoy runs by default")
    arguments = parser.parse_args()
    numbers = [int(number) for number in arguments.calls.split(",")]
    cores = sorted(os.sched_getaffinity(0))
    server_core, own_core = cores[0], cores[-1]
    os.sched_setaffinity(0, {own_core})
    if server_core == own_core:
        print("One core only: the generator takes from the server what it measures.")
    results: dict[str, Any] = {"delays": DELAYS, "adaptive": arguments.adaptive, "runs": {}}
    print(f"{'calls':>6}{'reply p50/p95/p99 ms':>24}{'CPU ms/call-s':>15}{'core %':>8}{'MB/call':>9}", end="")
    print(f"{'underruns':>11}{'late %':>8}{'lost':>6}{'turns':>7}{'loop lag p95 ms':>17}")
    for number in numbers:
        found = await _measure(number, arguments.seconds, server_core, adaptive=arguments.adaptive)
        results["runs"][str(number)] = found
        wait = found["reply_latency_ms"]
        print(
            f"{number:>6}{wait['p50']:>10.0f} /{wait['p95']:>5.0f} /{wait['p99']:>5.0f}"
            f"{found['cpu_ms_per_call_second']:>15.2f}{found['core_percent']:>8.1f}{found['mb_per_call']:>9.2f}"
            f"{found['underruns']:>11}{found['late_frames_percent']:>8.2f}{found['lost_turns']:>6}{found['turns']:>7}"
            f"{found['loop_lag_ms']['p95']:>17.1f}",
            flush=True,
        )
        if found["faults"]:
            print(f"       {found['faults'][:3]}")
    results["knee"] = _knee(results["runs"])
    print(
        f"holds {results['knee']} calls: no underrun, no lost turn, p95 within {KNEE_MS:.0f} ms of the smallest run's"
    )
    RESULTS.parent.mkdir(exist_ok=True)
    name = RESULTS.with_stem("load_adaptive") if arguments.adaptive else RESULTS
    name.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {name}")


def _knee(runs: dict[str, Any]) -> int:
    first = next(iter(runs.values()))["reply_latency_ms"]["p95"]
    held = 0
    for number, found in runs.items():
        good = not found["underruns"] and not found["lost_turns"] and not found["faults"]
        if not good or found["reply_latency_ms"]["p95"] > first + KNEE_MS:
            break
        held = int(number)
    return held


async def _measure(number: int, seconds: float, core: int, *, adaptive: bool) -> dict[str, Any]:
    scripted = dict.fromkeys(("STT_PROVIDER", "LLM_PROVIDER", "TTS_PROVIDER"), "scripted")
    ends = {"ENDPOINTING": "adaptive" if adaptive else "silence"}
    server, port = serve({**scripted, **DELAYS, **ends, "GREETING": "", "MAX_CONVERSATIONS": 1000}, core=core)
    try:
        return await _run(server, port, number, seconds)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


async def _run(server: "subprocess.Popen[bytes]", port: int, number: int, seconds: float) -> dict[str, Any]:
    process = psutil.Process(server.pid)
    words = words_of(utterances())
    rounds = Rounds()
    loop = asyncio.get_running_loop()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        await until_ready(port)
        before = process.memory_info().rss
        rounds.start()
        gc.freeze()
        for index in range(number):
            sid = f"CA{index:032x}"
            fields = {"CallSid": sid, "From": "+15005550001", "To": "+15005550006", "Direction": "inbound"}
            twiml = ET.fromstring((await client.post("/voice", data=fields)).text)  # noqa: S314 (of our own server)
            token = next(node.attrib["value"] for node in twiml.iter("Parameter") if node.attrib["name"] == "token")
            _, call = await loop.create_connection(
                lambda index=index, sid=sid, token=token: Caller(index, sid, token, words, REPLY_FRAMES),
                "127.0.0.1",
                port,
            )
            await call.ready
            rounds.calls.append(call)
            await asyncio.sleep(1 / STARTS_PER_S)
        await asyncio.sleep(SETTLE_S)
        for call in rounds.calls:
            call.measuring = True
        rounds.worst_s = 0.0
        cpu_s, began_s = sum(process.cpu_times()[:2]), time.perf_counter()
        lags = await _lags(client, max(seconds, FEWEST_CALL_SECONDS / number))
        cpu_s, took_s = sum(process.cpu_times()[:2]) - cpu_s, time.perf_counter() - began_s
        after = process.memory_info().rss
        gone = sum(call.gone for call in rounds.calls)
        for call in rounds.calls:
            call.measuring = False
            call.hang_up()
        await rounds.stop()
    heard = together([call.heard for call in rounds.calls])
    return {
        "reply_latency_ms": _percentiles(heard.waits_ms),
        "cpu_ms_per_call_second": round(cpu_s / took_s / number * 1000, 2),
        "core_percent": round(cpu_s / took_s * 100, 1),
        "mb_per_call": round((after - before) / number / 1e6, 2),
        "turns": heard.turns,
        "lost_turns": heard.lost_turns,
        "underruns": heard.underruns,
        "late_frames_percent": round(100 * heard.late_frames / max(1, heard.frames), 2),
        "clears": heard.clears,
        "loop_lag_ms": _percentiles(lags),
        "generator_late_ms": round(rounds.worst_s * 1000, 1),
        "faults": [*heard.faults[:10], *([f"{gone} streams were closed"] if gone else [])],
    }


async def _lags(client: httpx.AsyncClient, seconds: float) -> list[float]:
    """How long the server's loop takes to answer a small question, asked five times a second."""
    lags = []
    end_s = time.perf_counter() + seconds
    while (asked_s := time.perf_counter()) < end_s:
        await client.get("/health")
        lags.append((time.perf_counter() - asked_s) * 1000)
        await asyncio.sleep(0.2)
    return lags


def _percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    return {f"p{share}": round(float(np.percentile(values, share)), 1) for share in (50, 95, 99)}


if __name__ == "__main__":
    uvloop.run(main())
