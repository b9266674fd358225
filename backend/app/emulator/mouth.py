"""What the caller says: samples in, one frame of 20 ms at a time out."""

import asyncio
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.audio.g711 import encode_mulaw
from app.emulator.playback import SILENCE

FRAME_BYTES = 160
"""20 ms of mu-law at 8 kHz."""
FRAME_MS = 20


@dataclass(frozen=True, slots=True)
class Said:
    """When something was said, in ms of the line: a frame leaves when its 20 ms have been spoken, so the last frame
    leaves at `end_ms`, and the speaker has been silent since."""

    start_ms: float
    end_ms: float


@dataclass(slots=True)
class _Piece:
    audio: bytes
    done: asyncio.Future[Said]
    at: int = 0
    start_ms: float = 0.0


class Mouth:
    """Says one thing after the other; in between there is silence, or the noise of a room."""

    def __init__(self) -> None:
        self._pieces: deque[_Piece] = deque()
        self._noise = SILENCE * FRAME_BYTES
        self._noise_at = 0

    @property
    def busy(self) -> bool:
        """Something is being said or waits to be."""
        return bool(self._pieces)

    def say(self, samples: NDArray[np.int16]) -> asyncio.Future[Said]:
        """Say `samples` (int16 [n], 8 kHz) after what is waiting; the future ends when the last of it has left."""
        done: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        self._pieces.append(_Piece(encode_mulaw(samples), done))
        return done

    def set_noise(self, samples: NDArray[np.int16] | None) -> None:
        """What is heard while nothing is said: `samples` (int16 [n], 8 kHz) over and over, or nothing."""
        frames = 1 if samples is None else len(samples) // FRAME_BYTES
        if not frames:
            raise ValueError(f"{0 if samples is None else len(samples)} samples of noise are not one frame of 20 ms")
        noise = SILENCE * FRAME_BYTES if samples is None else encode_mulaw(samples[: frames * FRAME_BYTES])
        self._noise, self._noise_at = noise, 0

    def frame(self, at_ms: float) -> bytes:
        """The next 20 ms, which leave at `at_ms`."""
        taken = b""
        while self._pieces and len(taken) < FRAME_BYTES:
            piece = self._pieces[0]
            if not piece.at:
                piece.start_ms = at_ms - FRAME_MS + len(taken) / 8
            part = piece.audio[piece.at : piece.at + FRAME_BYTES - len(taken)]
            piece.at += len(part)
            taken += part
            if piece.at >= len(piece.audio):
                self._pieces.popleft()
                if not piece.done.done():
                    piece.done.set_result(Said(piece.start_ms, at_ms))
        if len(taken) == FRAME_BYTES:
            return taken
        noise = self._noise[self._noise_at : self._noise_at + FRAME_BYTES]
        self._noise_at = (self._noise_at + FRAME_BYTES) % len(self._noise)
        return taken + noise[len(taken) :]

    def hush(self, why: Exception | None = None) -> None:
        """Say nothing more of what is waiting. Whoever waits for it is told `why`, or that it has been cut off."""
        for piece in self._pieces:
            if not piece.done.done():
                if why is None:
                    piece.done.cancel()
                else:
                    piece.done.set_exception(why)
                    piece.done.exception()  # nobody need be waiting
        self._pieces.clear()
