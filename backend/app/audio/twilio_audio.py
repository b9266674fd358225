"""The audio of Twilio Media Streams: mu-law at 8 kHz, 160 samples (20 ms) to a frame, base64 inside JSON.

Source: twilio.com/docs/voice/media-streams/websocket-messages (mediaFormat: audio/x-mulaw, 8000 Hz, one channel; a
payload has no file header).
"""

from binascii import b2a_base64
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from app.audio.g711 import encode_mulaw
from app.audio.resample import StreamResampler

RATE_HZ = 8000
FRAME_MS = 20
FRAME = RATE_HZ * FRAME_MS // 1000
"""Samples, and bytes, of one frame."""


def pcm16_to_twilio_payload(samples: NDArray[np.int16]) -> str:
    """The payload of a media message for these samples (int16 mono 8 kHz [n]): base64 of n mu-law bytes.

    Each sample is coded by itself, so that pieces of any length join without a click.
    """
    return b2a_base64(encode_mulaw(samples), newline=False).decode("ascii")


def resample_16k_to_8k(pieces: Iterable[NDArray[np.int16]]) -> Iterator[NDArray[np.int16]]:
    """The same audio at 8 kHz, piece by piece: n samples become ceil(n / 2) in all, the very ones that the whole at
    once would become, so that no border can be heard."""
    stream = StreamResampler(2 * RATE_HZ, RATE_HZ)
    for piece in pieces:
        yield stream.push(piece)
    yield stream.flush()
