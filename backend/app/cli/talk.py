"""`ahoy talk`: a conversation without a browser, with recordings or by typing."""

import asyncio
import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Annotated, TextIO

import numpy as np
import typer

from app.audio.wav import read_audio, write_wav
from app.cli.dialogue import RATE_HZ, Dialogue, Turn
from app.conversation import messages as msg
from app.conversation.metronome import HandMetronome, Metronome
from app.conversation.options import Options
from app.core.config import load_settings
from app.core.errors import SettingsError
from app.engine import Engine


def talk(
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Sound files (WAV, FLAC, MP3, Ogg) to say, one after the other.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write what the assistant said to this WAV file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="As fast as the machine can, instead of in real time.")] = False,
    greeting: Annotated[
        bool, typer.Option(help="Let the assistant greet first (it always does when you type).")
    ] = False,
    language: Annotated[str | None, typer.Option(help="Language spoken: an ISO 639-1 code, or auto.")] = None,
    voice: Annotated[str | None, typer.Option(help="Voice of the assistant.")] = None,
) -> None:
    """Hold a conversation: say RECORDINGS to the assistant, or type when there are none. Works without a browser,
    over ssh, and in scripts."""
    settings = load_settings()
    speech = [read_audio(path, RATE_HZ) for path in recordings or []]
    if out:
        _check_place(out)
    typing = not speech
    engine = Engine(settings, metronome=HandMetronome() if fast or typing else Metronome())
    options = Options.from_settings(settings, voice=voice, language=language, greeting=greeting or typing)
    dialogue = asyncio.run(_hold(engine, options, speech, as_json=as_json))
    if out:
        write_wav(out, np.concatenate([*dialogue.audio, np.zeros(0, np.int16)]), RATE_HZ)
    if as_json:
        turns = [turn.as_json() for _, turn in sorted(dialogue.turns.items())]
        typer.echo(json.dumps({"turns": turns, "audio": str(out) if out else None}, indent=2))
    elif out:
        typer.echo(f"The assistant's side is in {out}.")


def _check_place(out: Path) -> None:
    """Find out before the talk whether `out` can be written, without harm to a file that is there. Raises
    AudioFormatError if it cannot."""
    if out.exists() and not out.is_dir() and os.access(out, os.W_OK):
        return
    write_wav(out, np.zeros(0, np.int16), RATE_HZ)
    out.unlink()


async def _hold(
    engine: Engine, options: Options, speech: list[np.typing.NDArray[np.int16]], *, as_json: bool
) -> Dialogue:
    if options.language is not None and options.language not in engine.languages:
        offered = ", ".join(engine.languages)
        more = "" if len(engine.languages) > 1 else " For others run `ahoy models pull whisper-base` first."
        raise SettingsError(f"The language '{options.language}' is not offered; choose one of {offered}.{more}")
    await engine.start()
    try:
        voices = [voice.id for voice in engine.providers.tts.voices]
        if options.voice is not None and options.voice not in voices:
            raise SettingsError(f"There is no voice '{options.voice}'; choose one of {', '.join(voices)}.")
        dialogue = Dialogue(engine, options, on_message=_silent if as_json else _Printer().show)
        await dialogue.start()
        for samples in speech:
            await dialogue.speak(samples)
        if not speech:
            await _type(dialogue)
        await dialogue.stop()
        return dialogue
    finally:
        await engine.close()


async def _type(dialogue: Dialogue) -> None:
    if sys.stdin.isatty():
        typer.echo("Type and press Enter; Ctrl-D ends the conversation.", err=True)
    keyboard = _keyboard()
    while line := await _next_line(keyboard):
        if line.strip():
            await dialogue.type(line.strip())


def _keyboard() -> TextIO:
    """Standard input as a file of our own that is never closed: closing waits for a thread that reads."""
    return open(sys.stdin.fileno(), encoding=sys.stdin.encoding, closefd=False)


async def _next_line(keyboard: TextIO) -> str:
    """The next line; empty at the end. It is read in a thread that the program does not wait for when it ends: Ctrl-C
    would otherwise have to wait for Enter."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()

    def give(line: str) -> None:
        if not future.done():
            future.set_result(line)

    def read() -> None:
        line = keyboard.readline()
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(give, line)

    if keyboard.isatty():
        sys.stderr.write("You:  ")
        sys.stderr.flush()
    threading.Thread(target=read, name="keyboard", daemon=True).start()
    return await future


def _silent(_: msg.Message) -> None:
    """Nothing is printed before the end."""


class _Printer:
    """Prints a conversation as it goes."""

    def __init__(self) -> None:
        self._latency: dict[int, msg.LatencyShown] = {}

    def show(self, message: msg.Message) -> None:
        """One line for each thing that was said."""
        match message:
            case msg.TranscriptShown(_, text, final=True) if text and not sys.stdin.isatty():
                typer.echo(f"You:  {text}")
            case msg.LatencyShown(reply=reply):
                self._latency[reply] = message
            case msg.ReplyDone(turn, reply, text, heard, interrupted):
                typer.echo(f"Ahoy: {heard} [interrupted]" if interrupted else f"Ahoy: {text.strip()}")
                if turn > 0 and reply in self._latency:
                    typer.echo(f"      {latency_line(self._latency[reply])}")
            case msg.Trouble(_, text):
                typer.echo(f"      {text}", err=True)
            case _:
                pass


def latency_line(latency: msg.LatencyShown) -> str:
    """The wait for a reply and its stages on one line."""
    stages = (
        f"endpointing {latency.endpointing_ms:.0f}, recognition {latency.stt_ms:.0f}, model {latency.llm_ms:.0f}, "
        f"speech {latency.tts_ms:.0f}, engine {latency.engine_ms:.0f}"
    )
    begun = ", begun in the pause" if latency.speculative else ""
    return f"({latency.voice_to_voice_ms:.0f} ms: {stages}{begun})"


__all__ = ["Turn", "latency_line", "talk"]
