"""What a speech service sends, as it arrives: bytes of PCM, WAV or a compressed file to int16 mono at one rate.

PCM of OpenAI's API is 24 kHz, 16 bits, little-endian, without a header (developers.openai.com, guide "Text to
speech"); a service with another rate says so in its content type (`audio/pcm;rate=22050`) or sends WAV.
"""

import asyncio
import io
import re
import struct
from typing import Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from app.audio.converter import StreamConverter
from app.audio.pcm import from_bytes, from_float
from app.audio.resample import RATES_HZ, resample
from app.core.errors import AudioFormatError

PCM_HZ = 24_000
MAX_FILE_BYTES = 32 << 20
"""A file that is decoded at once is no longer than this: an hour of MP3, five minutes of WAV."""
MAX_FILE_S = 300
"""Nor is what it holds: some kilobytes of FLAC may be hours of silence."""
MAX_HEADER_BYTES = 1 << 16
_PCM = {"audio/pcm", "audio/x-pcm", "audio/raw", "application/octet-stream", "binary/octet-stream"}
_WAV = {"audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"}
_FILES = {
    "audio/mpeg",
    "audio/mp3",
    "audio/x-mp3",
    "audio/mpeg3",
    "audio/flac",
    "audio/x-flac",
    "audio/ogg",
    "audio/opus",
}
_PLAIN, _EXTENSIBLE = 1, 0xFFFE
_RATE = re.compile(r";\s*rate\s*=\s*\"?(\d{4,6})")
NOTHING: NDArray[np.int16] = np.zeros(0, np.int16)


class Decoder(Protocol):
    """Takes a body piece by piece. Both raise AudioFormatError for what is no sound."""

    async def push(self, received: bytes) -> NDArray[np.int16]:
        """The samples [n] that these bytes complete."""
        ...

    async def end(self) -> NDArray[np.int16]:
        """The samples that were held back: the body is complete."""
        ...


def decoder_for(content_type: str, rate_hz: int) -> Decoder | None:
    """What reads a body of this Content-Type to samples at `rate_hz`; None if that is no sound. A body that does not
    say what it is (application/octet-stream, or no type at all) is looked at."""
    kind = content_type.partition(";")[0].strip().lower() or "application/octet-stream"
    if kind in _PCM:
        stated = _RATE.search(content_type.lower())
        pcm = PcmDecoder(int(stated[1]) if stated else PCM_HZ, rate_hz)
        return Unlabelled(pcm, rate_hz) if kind.endswith("octet-stream") else pcm
    if kind in _WAV:
        return WavDecoder(rate_hz)
    return FileDecoder(rate_hz) if kind in _FILES else None


class PcmDecoder:
    """16 bits, little-endian. Pieces may end in the middle of a sample; half a sample at the very end is dropped: all
    that can be heard has been given by then."""

    def __init__(self, from_hz: int, to_hz: int, *, channels: int = 1) -> None:
        self._converter = StreamConverter(from_hz, to_hz)
        self._channels = channels
        self._rest = b""

    async def push(self, received: bytes) -> NDArray[np.int16]:
        """See Decoder."""
        data = self._rest + received
        whole = len(data) - len(data) % (2 * self._channels)
        self._rest = data[whole:]
        samples = from_bytes(data[:whole])
        if self._channels > 1:
            samples = samples.reshape(-1, self._channels).mean(axis=1).astype(np.int16)
        return await self._converter.push(samples)

    async def end(self) -> NDArray[np.int16]:
        """See Decoder."""
        return self._converter.flush()


class WavDecoder:
    """A WAV file whose length need not be known when its header is written (sizes of 0 or 0xFFFFFFFF: until the end).
    16 bits are given on as they come; other formats are rare and decoded at the end."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._header = b""
        self._body: Decoder | None = None
        self._left: float = 0

    async def push(self, received: bytes) -> NDArray[np.int16]:
        """See Decoder."""
        if self._body is None:
            self._header += received
            received = self._begin()
        if self._body is None:
            return NOTHING
        received = received[: int(min(self._left, len(received)))]
        self._left -= len(received)
        return await self._body.push(received)

    async def end(self) -> NDArray[np.int16]:
        """See Decoder."""
        if self._body is None:
            if not self._header:
                return NOTHING
            raise AudioFormatError("The WAV file ends within its header.")
        return await self._body.end()

    def _begin(self) -> bytes:
        """Read the header, if it is complete; returns the sound behind it (RIFF: chunks of an id, a size, contents)."""
        header = self._header
        if header[:4] != b"RIFF"[: len(header[:4])]:
            raise AudioFormatError("It is no WAV file.")
        at, form = 12, b""
        while len(header) >= at + 8:
            name, size = struct.unpack_from("<4sI", header, at)
            if name == b"data":
                return self._body_of(form, at + 8, size)
            if len(header) < at + 8 + size:
                break
            if name == b"fmt ":
                form = header[at + 8 : at + 8 + size]
            at += 8 + size + size % 2
        if len(header) > MAX_HEADER_BYTES:
            raise AudioFormatError("The WAV file has no sound in its first 64 KiB.")
        return b""

    def _body_of(self, form: bytes, begin: int, size: int) -> bytes:
        if len(form) < 16:
            raise AudioFormatError("The WAV file does not say what format it has.")
        kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", form)
        if kind == _EXTENSIBLE and len(form) >= 26:
            kind = struct.unpack_from("<H", form, 24)[0]
        if kind != _PLAIN or bits != 16 or not 1 <= channels <= 8 or rate_hz not in RATES_HZ:
            self._body, self._left = FileDecoder(self._rate_hz), float("inf")
            return self._header
        self._body = PcmDecoder(rate_hz, self._rate_hz, channels=channels)
        self._left = size if 0 < size < 0x7FFFFFFF else float("inf")
        return self._header[begin:]


class FileDecoder:
    """MP3, FLAC, Ogg and unusual WAV: kept until it is complete, then decoded in a thread, at any rate."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._file = bytearray()

    async def push(self, received: bytes) -> NDArray[np.int16]:
        """See Decoder."""
        self._file += received
        if len(self._file) > MAX_FILE_BYTES:
            raise AudioFormatError(f"The file is longer than {MAX_FILE_BYTES >> 20} MiB.")
        return NOTHING

    async def end(self) -> NDArray[np.int16]:
        """See Decoder."""
        return await asyncio.to_thread(_decoded, bytes(self._file), self._rate_hz) if self._file else NOTHING


class Unlabelled:
    """A body that does not say what it is: a file if it begins like one, else PCM."""

    def __init__(self, pcm: PcmDecoder, rate_hz: int) -> None:
        self._pcm = pcm
        self._rate_hz = rate_hz
        self._begun = b""
        self._found: Decoder | None = None

    async def push(self, received: bytes) -> NDArray[np.int16]:
        """See Decoder."""
        if self._found is None:
            self._begun += received
            if len(self._begun) < 4:
                return NOTHING
            received = self._begun
            self._found = self._kind(received[:4])
        return await self._found.push(received)

    async def end(self) -> NDArray[np.int16]:
        """See Decoder."""
        begun = NOTHING if self._found else await self._pcm.push(self._begun)
        return np.concatenate((begun, await (self._found or self._pcm).end()))

    def _kind(self, begin: bytes) -> Decoder:
        if begin == b"RIFF":
            return WavDecoder(self._rate_hz)
        if begin in {b"OggS", b"fLaC"} or begin[:3] == b"ID3":  # a bare MP3 frame looks like quiet PCM
            return FileDecoder(self._rate_hz)
        return self._pcm


def _decoded(file: bytes, rate_hz: int) -> NDArray[np.int16]:
    try:
        with soundfile.SoundFile(io.BytesIO(file)) as sound:
            from_hz = sound.samplerate
            most = MAX_FILE_S * from_hz
            samples = sound.read(min(sound.frames, most + 1), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        raise AudioFormatError("The file cannot be decoded.") from None
    if len(samples) > most:
        raise AudioFormatError(f"The file holds more than {MAX_FILE_S} s of sound.")
    return resample(from_float(samples.mean(axis=1)), from_hz, rate_hz) if len(samples) else NOTHING
