"""`ahoy phone`: a telephone on this machine, to try the server's phone without Twilio."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import numpy as np
import typer
from numpy.typing import NDArray

from app.audio.wav import read_audio, write_wav
from app.core.config import Settings, load_settings
from app.core.errors import SettingsError
from app.emulator import (
    ACCOUNT_SID,
    NUMBER,
    PUBLIC_URL,
    Behaviour,
    Busy,
    Event,
    Exchange,
    Human,
    Line,
    NoAnswer,
    PhoneError,
    Voicemail,
)

RATE_HZ = 8000
API_PORT = 8090
CALLER = "+15005550001"
WORDS_PER_S = 2.5
"""How fast the voice of <Say> speaks; it is printed, not heard."""
GREETING_S = 5.0
"""How long the caller waits for the first word before speaking."""
REPLY_S = 30.0
"""How long the caller waits for the answer to begin, and then to end."""
QUIET_MS = 1200
"""Silence that means that the other side has finished."""
RING_S = 1.0
BEEP_HZ, BEEP_MS = 1000, 400

Samples = NDArray[np.int16]
BehaviourName = Literal["human", "busy", "no-answer", "voicemail"]


def phone(
    recording: Annotated[
        Path | None, typer.Argument(help="Sound file (WAV, FLAC, MP3, Ogg) to say after the greeting.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write what was heard on the phone to this WAV file.")] = None,
    press: Annotated[str, typer.Option(help="Keys to press after that, such as 12#.")] = "",
    server: Annotated[str, typer.Option(help="Where Ahoy runs.")] = "http://127.0.0.1:8000",
    caller: Annotated[str, typer.Option("--from", help="Number to call from.")] = CALLER,
    serve: Annotated[
        bool, typer.Option("--serve", help="Wait for calls that Ahoy places (POST /api/call), until Ctrl-C.")
    ] = False,
    behaviour: Annotated[
        BehaviourName, typer.Option(help="With --serve: what happens at the numbers that are called.")
    ] = "human",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the REST API; that of TWILIO_API_URL, else 8090.")
    ] = None,
) -> None:
    """Call a running Ahoy from a telephone on this machine that behaves as Twilio does: listen to the greeting, say
    RECORDING and press keys, listen to the answer, hang up. No account and no network are needed."""
    settings = load_settings()
    speech = None if recording is None else read_audio(recording, RATE_HZ)
    if out is not None:
        _check_place(out)
    if wrong := set(press) - set("0123456789*#ABCD"):
        raise SettingsError(f"--press: {''.join(sorted(wrong))!r} are no keys of a telephone; example: --press 12#")
    exchange = _exchange(settings, server, port)
    visit = _Visit(speech, press, out)
    if serve:
        missing = _missing(settings, exchange, port or _api_port(settings))
        if missing:
            typer.echo("For calls that Ahoy places, set this for it and for this command, and start both again:")
            typer.echo("\n".join(f"  {line}" for line in missing))
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_wait_for_calls(exchange, visit, behaviour))
    else:
        asyncio.run(_call(exchange, visit, caller))


def _check_place(out: Path) -> None:
    """Find out before the call whether `out` can be written, without harm to a file that is there."""
    if out.is_file() and os.access(out, os.W_OK):
        return
    write_wav(out, np.zeros(0, np.int16), RATE_HZ)
    out.unlink()


class _Visit:
    """What the person on the phone does."""

    def __init__(self, speech: Samples | None, press: str, out: Path | None) -> None:
        self.speech = speech
        self._press = press
        self._out = out

    async def talk(self, line: Line) -> None:
        """Listen, speak, press keys, listen. The rest is left out when the other side hangs up before."""
        with contextlib.suppress(PhoneError):
            await self._talk(line)
        self.write(line)

    def write(self, line: Line) -> None:
        """Keep what was heard."""
        if self._out is not None:
            write_wav(self._out, line.heard, RATE_HZ)
            typer.echo(f"What was heard is in {self._out} ({line.heard_ms / 1000:.1f} s).")

    async def _talk(self, line: Line) -> None:
        await line.reaches("in-progress", timeout_s=60)
        await self._listen(line, GREETING_S)
        if self.speech is not None:
            await line.say(self.speech)
        if self._press:
            line.press(self._press)
        if self.speech is not None or self._press:
            await self._listen(line, REPLY_S)

    async def _listen(self, line: Line, begins_s: float) -> None:
        """Until something was heard and then nothing for a while, or nothing at all."""
        from_ms = line.now_ms
        await line.until(
            lambda: line.hears_speech() or line.now_ms - from_ms > begins_s * 1000, timeout_s=begins_s + 10
        )
        if line.hears_speech():
            await line.until(lambda: line.quiet_for(QUIET_MS), timeout_s=REPLY_S)


def _exchange(settings: Settings, server: str, port: int | None) -> Exchange:
    parts = urlsplit(server)
    if parts.scheme != "http" or parts.hostname is None:
        raise SettingsError(f"--server: '{server}' is not a http address; example: --server http://127.0.0.1:8000")
    server = server.rstrip("/")
    token = settings.twilio_auth_token
    return Exchange(
        server,
        public_url=settings.public_base_url or server,
        account_sid=settings.twilio_account_sid or ACCOUNT_SID,
        auth_token=token.get_secret_value() if token is not None else None,
        number=settings.twilio_phone_number or NUMBER,
        voice_path=settings.voice_webhook_path,
        port=port or _api_port(settings),
        words_per_s=WORDS_PER_S,
        on_line=_show,
    )


def _api_port(settings: Settings) -> int:
    return (urlsplit(settings.twilio_api_url).port if settings.twilio_api_url else None) or API_PORT


def _missing(settings: Settings, exchange: Exchange, port: int) -> list[str]:
    """What the server has to be told so that its calls come here, as lines for its .env file."""
    api_url = f"http://127.0.0.1:{port}"
    needed = {
        "TWILIO_API_URL": (settings.twilio_api_url == api_url, api_url),
        "TWILIO_ACCOUNT_SID": (settings.twilio_account_sid, exchange.account_sid),
        "TWILIO_AUTH_TOKEN": (settings.twilio_auth_token, "any-long-text"),
        "TWILIO_PHONE_NUMBER": (settings.twilio_phone_number, exchange.numbers[0]),
        "PUBLIC_BASE_URL": (settings.public_base_url, PUBLIC_URL),
        "OUTBOUND_ALLOWED": (settings.outbound_allowed, "+1500555"),
    }
    return [f"{name}={example}" for name, (there, example) in needed.items() if not there]


async def _call(exchange: Exchange, visit: _Visit, caller: str) -> None:
    async with exchange as twilio:
        line = await twilio.dial(caller)
        await visit.talk(line)
        line.hang_up()
        await line.ended(timeout_s=30)
        _complain(line, exchange)


async def _wait_for_calls(exchange: Exchange, visit: _Visit, behaviour: BehaviourName) -> None:
    exchange.otherwise = _behaviour(behaviour, visit)
    async with exchange:
        typer.echo(f"Waiting for calls at {exchange.api_url} ...")
        await asyncio.Event().wait()


def _behaviour(name: BehaviourName, visit: _Visit) -> Behaviour:
    match name:
        case "busy":
            return Busy(after_s=RING_S)
        case "no-answer":
            return NoAnswer()
        case "voicemail":
            beep = 8000 * np.sin(2 * np.pi * BEEP_HZ * np.arange(BEEP_MS * 8) / RATE_HZ)
            greeting = [] if visit.speech is None else [visit.speech]
            return Voicemail(RING_S, greeting=np.concatenate([*greeting, beep.astype(np.int16)]), ended=visit.write)
        case _:
            return Human(RING_S, talk=visit.talk)


def _complain(line: Line, exchange: Exchange) -> None:
    """Say what Twilio would have written into its error log. Raises PhoneError if there is anything."""
    if not line.errors:
        return
    faults = "\n".join(f"  {fault.code}: {fault.message}" for fault in line.errors)
    advice = ""
    if exchange.webhooks.requests and exchange.webhooks.requests[0].status == 0:
        advice = f"\nIs Ahoy running at {exchange.webhooks.server}? Start it with `ahoy serve`."
    elif exchange.webhooks.requests and exchange.webhooks.requests[0].status == 403:
        advice = (
            "\nThe server refused the request: TWILIO_AUTH_TOKEN and PUBLIC_BASE_URL must be the same for it and for "
            "this command."
        )
    raise PhoneError(f"Twilio would have logged errors of the server:\n{faults}{advice}")


def _show(line: Line) -> None:
    """Print what happens on a line as it happens."""
    who = {"inbound": "", "outbound-api": "called", "outbound-dial": "put through"}[line.direction]

    def show(event: Event) -> None:
        when = " ringing " if event.at_ms < 0 else f"{event.at_ms / 1000:7.2f} s"
        typer.echo("  ".join(word for word in (when, who, event.kind, event.detail) if word))

    line.on_event = show
