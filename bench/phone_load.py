"""A cheap generator of telephone calls: as strict about Media Streams as Twilio, and little work for each frame.

Each call has a socket of its own, its own phase within the 20 ms, and plays what it is sent at 8 kHz, so that marks
come back when they would and a buffer that runs empty is noticed. What the caller says is recorded speech.
"""

import asyncio
import base64
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from app.audio.g711 import encode_mulaw
from app.audio.resample import resample

from bench.recordings import RATE_HZ, Utterance

FRAME_S = 0.020
SLOTS = 20
"""Calls are spread over so many moments of a frame's time."""
REST_FRAMES = 25
"""Silence between a reply's end and the next words (0.5 s)."""
LOST_S = 6.0
"""A turn that got no answer for so long is lost."""
LATE_S = 0.005
LEAD_FRAMES = 10
_MEDIA = re.compile(
    rb'\{"event":"media","streamSid":"(MZ[0-9a-f]{32})","media":\{"payload":"([A-Za-z0-9+/]{213}[A-Za-z0-9+/=]{3})"\}\}'
)
_MARK = re.compile(rb'\{"event":"mark","streamSid":"(MZ[0-9a-f]{32})","mark":\{"name":"([0-9:]+)"\}\}')
_CLEAR = re.compile(rb'\{"event":"clear","streamSid":"(MZ[0-9a-f]{32})"\}')


@dataclass(slots=True)
class Heard:
    """What the calls of one run came to."""

    waits_ms: list[float] = field(default_factory=list)
    """From the last sound of the caller to the first frame of the reply."""
    lost_turns: int = 0
    turns: int = 0
    frames: int = 0
    late_frames: int = 0
    """Frames more than 5 ms off their time (behind the lead)."""
    underruns: int = 0
    clears: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Words:
    """An utterance as the frames of a telephone."""

    payloads: list[bytes]
    spoken_frames: int
    """Frames until the last sound of speech."""


def words_of(speech: Sequence[Utterance]) -> list[Words]:
    """The recordings at 8 kHz."""
    found = []
    for utterance in speech:
        audio = resample(utterance.audio, RATE_HZ, 8000)
        audio = np.pad(audio, (0, -len(audio) % 160))
        payloads = [base64.b64encode(encode_mulaw(audio[at : at + 160])) for at in range(0, len(audio), 160)]
        found.append(Words(payloads, min(len(payloads), int(utterance.ends_ms / 20) + 1)))
    return found


SILENCE = base64.b64encode(b"\xff" * 160)


class Caller(asyncio.Protocol):
    """One call. `tick` sends its frame; `measuring` says whether what happens counts."""

    def __init__(self, number: int, call_sid: str, token: str, words: list[Words], reply_frames: int) -> None:
        self.heard = Heard()
        self.measuring = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone = False
        self._sid = f"MZ{number:032x}"
        self._call_sid = call_sid
        self._token = token
        self._words = words
        self._turn = number
        self._reply_frames = reply_frames
        self._loop = asyncio.get_running_loop()
        self._sequence = 1
        self._chunk = 0
        self._at: int | None = None
        self._rest = REST_FRAMES + number % 50
        self._silent_s: float | None = None
        """When the last sound was sent; None while nobody waits for an answer."""
        self._arrivals: list[float] = []
        self._buffer_ends_s = 0.0
        self._marks: list[tuple[float, bytes]] = []
        self._incoming = b""
        self._upgraded = False
        self._transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            "GET /twilio/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the server closed the stream"))

    def data_received(self, data: bytes) -> None:
        self._incoming += data
        if not self._upgraded:
            head, found, rest = self._incoming.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head.split(b"\r\n")[0]:
                self.ready.set_exception(ConnectionError(head.decode()))
                return
            self._upgraded, self._incoming = True, rest
            self._begin()
        while message := self._message():
            self._take(message)

    def tick(self) -> None:
        """Send the next frame, and the marks whose time has come."""
        if self.gone:
            return
        now_s = self._loop.time()
        while self._marks and self._marks[0][0] <= now_s:
            self._send(
                b'{"event":"mark","streamSid":"%s","mark":{"name":"%s"}' % (self._sid.encode(), self._marks.pop(0)[1])
            )
        payload = SILENCE
        words = self._words[self._turn % len(self._words)]
        if self._at is not None:
            payload = words.payloads[self._at]
            self._at += 1
            if self._at == words.spoken_frames:
                self._silent_s = now_s
                self._arrivals = []
            if self._at == len(words.payloads):
                self._at = None
                self._turn += 1
        elif self._silent_s is not None and now_s - self._silent_s > LOST_S:
            self._count_turn(None)
        elif self._silent_s is None and now_s >= self._buffer_ends_s:
            self._rest -= 1
            if self._rest <= 0:
                self._rest, self._at = REST_FRAMES, 0
        self._chunk += 1
        self._send(
            b'{"event":"media","streamSid":"%s","media":{"track":"inbound","chunk":"%d","timestamp":"%d","payload":"%s"}'
            % (self._sid.encode(), self._chunk, self._chunk * 20, payload)
        )

    def hang_up(self) -> None:
        if self.gone:
            return
        self._send(b'{"event":"stop","streamSid":"%s"' % self._sid.encode())
        self._transport.close()

    def _begin(self) -> None:
        self._write(b'{"event":"connected","protocol":"Call","version":"1.0.0"}')
        self._send(
            (
                f'{{"event":"start","streamSid":"{self._sid}","start":{{"streamSid":"{self._sid}","accountSid":"AC{0:032x}",'
                f'"callSid":"{self._call_sid}","tracks":["inbound"],"customParameters":{{"token":"{self._token}"}},'
                '"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}'
            ).encode()
        )
        self.ready.set_result(None)

    def _take(self, message: bytes) -> None:
        now_s = self._loop.time()
        if match := _MEDIA.fullmatch(message):
            self._play(now_s)
        elif match := _MARK.fullmatch(message):
            self._marks.append((max(now_s, self._buffer_ends_s), match[2]))
        elif match := _CLEAR.fullmatch(message):
            self._buffer_ends_s = now_s
            self._marks = [(now_s, name) for _, name in self._marks]
            self.heard.clears += self.measuring
        else:
            self.heard.faults.append(f"not of the protocol: {message[:60]!r}")
            return
        if match[1].decode() != self._sid:
            self.heard.faults.append("for another stream")

    def _play(self, now_s: float) -> None:
        self._arrivals.append(now_s)
        if self._silent_s is not None:
            self._count_turn((now_s - self._silent_s) * 1000)
        if self._buffer_ends_s < now_s and 1 < len(self._arrivals) <= self._reply_frames:
            self.heard.underruns += self.measuring
        self._buffer_ends_s = max(now_s, self._buffer_ends_s) + FRAME_S
        if len(self._arrivals) == self._reply_frames and self.measuring:
            paced = [at_s - number * FRAME_S for number, at_s in enumerate(self._arrivals)][LEAD_FRAMES + 1 :]
            usual = float(np.median(paced))
            self.heard.late_frames += sum(abs(at_s - usual) > LATE_S for at_s in paced)
            self.heard.frames += len(paced)

    def _count_turn(self, wait_ms: float | None) -> None:
        self._silent_s = None
        if not self.measuring:
            return
        self.heard.turns += 1
        if wait_ms is None:
            self.heard.lost_turns += 1
        else:
            self.heard.waits_ms.append(wait_ms)

    def _send(self, start: bytes) -> None:
        self._sequence += 1
        self._write(b'%s,"sequenceNumber":"%d"}' % (start, self._sequence))

    def _write(self, text: bytes) -> None:
        # A client masks what it sends; with a key of zeros that changes nothing, and costs the server the same.
        size = len(text)
        head = struct.pack("!BB", 0x81, 0x80 | size) if size < 126 else struct.pack("!BBH", 0x81, 0xFE, size)
        self._transport.write(head + b"\0\0\0\0" + text)

    def _message(self) -> bytes:
        """The next text message of the server; empty while there is none. Pings are answered."""
        data = self._incoming
        if len(data) < 2:
            return b""
        size, start = data[1], 2
        if size == 126:
            if len(data) < 4:
                return b""
            size, start = struct.unpack_from("!H", data, 2)[0], 4
        if size == 127 or len(data) < start + size:
            return b""
        self._incoming = data[start + size :]
        body = data[start : start + size]
        if data[0] == 0x81:
            return body
        if data[0] == 0x89:
            self._transport.write(struct.pack("!BB", 0x8A, 0x80 | size) + b"\0\0\0\0" + body)
        elif data[0] != 0x88:
            self.heard.faults.append(f"a frame of kind {data[0]:#x}")
        return self._message()


class Rounds:
    """Ticks every call once in 20 ms, in its own slot."""

    def __init__(self) -> None:
        self.calls: list[Caller] = []
        self.worst_s = 0.0
        """How late the generator itself was at most."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due_s, slot = loop.time(), 0
        while True:
            due_s += FRAME_S / SLOTS
            wait_s = due_s - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            else:
                self.worst_s = max(self.worst_s, -wait_s)
            for call in self.calls[slot::SLOTS]:
                call.tick()
            slot = (slot + 1) % SLOTS


def together(heard: Sequence[Heard]) -> Heard:
    """All calls as one."""
    return Heard(
        waits_ms=[wait for one in heard for wait in one.waits_ms],
        lost_turns=sum(one.lost_turns for one in heard),
        turns=sum(one.turns for one in heard),
        frames=sum(one.frames for one in heard),
        late_frames=sum(one.late_frames for one in heard),
        underruns=sum(one.underruns for one in heard),
        clears=sum(one.clears for one in heard),
        faults=[fault for one in heard for fault in one.faults],
    )
