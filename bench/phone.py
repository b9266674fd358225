"""How soon a caller is answered: part of `make bench`.

Real calls through the local phone (`app/emulator`), which paces frames, plays what it is sent and returns marks as
Twilio does, into a real server in a process of its own with the embedded models; recorded speech at 8 kHz. Prints, and
writes to bench/results/phone.json: caller falls silent to the first frame of the reply that can be heard, speech over a
reply to `clear`, how evenly frames come, and the word error rate at 8 kHz beside that at 16 kHz.
"""

import argparse
import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
from app.audio.resample import resample
from app.emulator import ACCOUNT_SID, AUTH_TOKEN, NUMBER, PUBLIC_URL, Exchange, Line
from app.inference.store import ModelStore
from app.stt.embedded_whisper import WhisperRecognizer

from bench.exchange import percentiles
from bench.recordings import RATE_HZ, REFERENCES, Utterance, plain, utterances
from bench.server import serve, until_ready

RESULTS = Path(__file__).parent / "results" / "phone.json"
LINE_HZ = 8000
ANSWER_LIMIT_MS = 8000.0
TALK_MS = 900.0
LATE_MS = 5.0
LEAD_FRAMES = 10


async def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=10_000, help="use only this many utterances")
    arguments = parser.parse_args()
    speech = utterances()[: arguments.limit]
    server, port = serve(
        {
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
            "TWILIO_PHONE_NUMBER": NUMBER,
            "PUBLIC_BASE_URL": PUBLIC_URL,
        }
    )
    try:
        await until_ready(port)
        async with Exchange(f"http://127.0.0.1:{port}") as twilio:
            results = await _calls(twilio, speech)
    finally:
        server.terminate()
        server.wait(30)
    results["word_error_rate"] = await _word_error_rates(speech)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    print(f"written to {RESULTS}")


async def _calls(twilio: Exchange, speech: list[Utterance]) -> dict[str, Any]:
    line = await twilio.dial("+15005550001")
    stream = await line.streaming()
    greeting_ms = await line.hears()
    waits: list[float] = []
    clears: list[float] = []
    spoken_over = 0
    for utterance in speech:
        await _quiet(line)
        words = resample(utterance.audio, RATE_HZ, LINE_HZ)
        line.room_noise = resample(utterance.room, RATE_HZ, LINE_HZ)
        said = await line.say(words)
        ended_ms = said.start_ms + utterance.ends_ms
        onset_ms = await _onset(line, ended_ms)
        if onset_ms is None:
            continue
        waits.append(onset_ms - ended_ms)
        await line.silence(TALK_MS)
        if _silent_for(line) > 100:  # the reply has ended already
            continue
        before = len(stream.clears)
        again = await line.say(words)
        began_ms = again.start_ms + utterance.begins_ms
        cleared = [one.at_ms - began_ms for one in stream.clears[before : before + 1]]
        if cleared or _goes_on(line, began_ms):
            spoken_over += 1
            clears += cleared
    line.hang_up()
    await line.ended()
    return {
        "turns": len(waits),
        "greeting_after_start_ms": round(greeting_ms, 1) if greeting_ms is not None else None,
        "silence_to_reply_ms": percentiles(waits),
        "speech_to_clear_ms": percentiles(clears),
        "interrupted": f"{len(clears)} of {spoken_over}",
        "underruns": len(stream.underruns()),
        "frames_within_5_ms_percent": _paced(np.array([arrival.at_ms for arrival in stream.arrivals])),
        "faults": [str(fault) for fault in line.errors],
    }


async def _onset(line: Line, after_ms: float) -> float | None:
    """When the first sound that can be heard after this moment reaches the caller."""
    try:
        async with asyncio.timeout(ANSWER_LIMIT_MS / 1000):
            while True:
                found = [onset_ms for onset_ms in line.speech_onsets() if onset_ms >= after_ms]
                if found:
                    return found[0]
                await line.silence(20)
    except TimeoutError:
        return None


async def _quiet(line: Line) -> None:
    """Let the caller listen until nothing has been heard for a moment."""
    async with asyncio.timeout(30):
        while _silent_for(line) < 700:
            await line.silence(100)


def _silent_for(line: Line) -> float:
    heard = line.heard
    loud = np.flatnonzero(np.abs(heard.astype(np.int32)) > 184)
    return (len(heard) - (int(loud[-1]) if len(loud) else 0)) * 1000 / LINE_HZ


def _goes_on(line: Line, began_ms: float) -> bool:
    """Something is still heard when somebody has been speaking over it for 300 ms: it has not ended by itself."""
    heard = line.heard[int((began_ms + 300) * LINE_HZ / 1000) : int((began_ms + 600) * LINE_HZ / 1000)]
    return bool(np.any(np.abs(heard.astype(np.int32)) > 184))


def _paced(arrivals_ms: "np.ndarray[Any, Any]") -> float:
    """The share of frames that came within 5 ms of their time: 20 ms apart, in each run of them behind its lead."""
    good = total = 0
    starts = [0, *(np.flatnonzero(np.diff(arrivals_ms) > 100) + 1), len(arrivals_ms)]
    for start, stop in pairwise(starts):
        run = arrivals_ms[start:stop][LEAD_FRAMES + 1 :]
        if len(run) < 5:
            continue
        off = run - np.arange(len(run)) * 20
        good += int(np.sum(np.abs(off - np.median(off)) <= LATE_MS))
        total += len(run)
    return round(100 * good / max(1, total), 2)


async def _word_error_rates(speech: list[Utterance]) -> dict[str, float]:
    """Of the recogniser alone: the utterances as they are, and as they come over the telephone."""
    recogniser = await asyncio.to_thread(WhisperRecognizer, ModelStore().path("whisper-tiny.en"), None)
    heard: dict[str, dict[str, list[str]]] = {"16_khz": {}, "8_khz": {}}
    for utterance in speech:
        narrow = resample(resample(utterance.audio, RATE_HZ, LINE_HZ), LINE_HZ, RATE_HZ)
        for name, audio in (("16_khz", utterance.audio), ("8_khz", narrow)):
            text = (await recogniser.transcribe(audio, language="en")).text
            heard[name].setdefault(utterance.source, []).append(text)
    await recogniser.close()
    return {
        name: round(
            float(
                jiwer.wer(
                    [plain(REFERENCES[source]) for source in texts], [plain(" ".join(said)) for said in texts.values()]
                )
            ),
            3,
        )
        for name, texts in heard.items()
    }


if __name__ == "__main__":
    asyncio.run(main())
