"""What services send in place of plain PCM is the same speech: whatever its format, rate and pieces."""

import asyncio
import io

import numpy as np
import pytest
import soundfile
from app.core.errors import AudioFormatError
from app.remote.client import ServiceClient
from app.tts import decode
from app.tts.decode import Decoder, WavDecoder, decoder_for
from app.tts.tts import SpeechService, text_to_speech
from hypothesis import given
from hypothesis import strategies as st
from openai_service import KEY, OpenAiService, Page

RATE_HZ = 24_000
TONE_HZ, TONE_S = 440.0, 1.5


def tone(rate_hz: int) -> np.ndarray:
    return (np.sin(2 * np.pi * TONE_HZ * np.arange(int(TONE_S * rate_hz)) / rate_hz) * 9000).astype(np.int16)


def file_of(rate_hz: int, kind: str, subtype: str | None = None, channels: int = 1) -> bytes:
    into = io.BytesIO()
    samples = np.repeat(tone(rate_hz)[:, None] / 32_768, channels, axis=1)
    soundfile.write(into, samples, rate_hz, format=kind, subtype=subtype)
    return into.getvalue()


def pcm(rate_hz: int) -> bytes:
    return tone(rate_hz).astype("<i2").tobytes()


def pitch_hz(audio: np.ndarray) -> float:
    """The strongest frequency, to a hertz."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), RATE_HZ))
    return float(np.argmax(spectrum))


async def decoded(decoder: Decoder | None, pieces: list[bytes]) -> np.ndarray:
    assert decoder
    return np.concatenate([*[await decoder.push(piece) for piece in pieces], await decoder.end()])


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("audio/pcm", pcm(24_000)),
        ("audio/pcm; rate=16000", pcm(16_000)),
        ("audio/pcm;channels=1;rate=22050", pcm(22_050)),
        ("application/octet-stream", pcm(24_000)),
        ("", pcm(24_000)),
        ("audio/wav", file_of(24_000, "WAV")),
        ("audio/x-wav", file_of(22_050, "WAV")),
        ("audio/wav", file_of(16_000, "WAV", channels=2)),
        ("audio/wav", file_of(48_000, "WAVEX", channels=2)),
        ("audio/wav", file_of(11_025, "WAV")),
        ("audio/wav", file_of(24_000, "WAV", "FLOAT")),
        ("audio/wav", file_of(24_000, "WAV", "PCM_24")),
        ("audio/wav", file_of(8000, "WAV", "ULAW")),
        ("application/octet-stream", file_of(24_000, "WAV")),
        ("audio/mpeg", file_of(24_000, "MP3")),
        ("audio/mpeg", file_of(44_100, "MP3", channels=2)),
        ("audio/mp3", file_of(22_050, "MP3")),
        ("audio/ogg", file_of(24_000, "OGG", "OPUS")),
        ("audio/flac", file_of(24_000, "FLAC")),
        ("application/octet-stream", file_of(44_100, "FLAC")),
    ],
)
async def test_what_a_service_sends_is_decoded_to_the_right_length_and_pitch(content_type: str, body: bytes) -> None:
    async with OpenAiService() as service:
        client = ServiceClient("openai", service.base_url, KEY)
        voice = SpeechService(client, "gpt-4o-mini-tts", None, official=True)
        service.speech.fault(Page(body, content_type))
        audio = await text_to_speech("Hello.", voice)
        await client.close()
    assert len(audio) == pytest.approx(TONE_S * RATE_HZ, abs=RATE_HZ * 0.06), "MP3 pads its ends"
    assert pitch_hz(audio) == TONE_HZ
    assert 8000 < np.abs(audio[5000:-5000]).max() < 10_000


cuts = st.lists(st.integers(1, 4000), min_size=1, max_size=30)


@given(cuts=cuts, kind=st.sampled_from([("audio/pcm", pcm(24_000)), ("audio/pcm;rate=16000", pcm(16_000))]))
def test_pcm_is_the_same_however_it_is_torn_apart(cuts: list[int], kind: tuple[str, bytes]) -> None:
    content_type, body = kind
    whole = asyncio.run(decoded(decoder_for(content_type, RATE_HZ), [body]))
    torn = asyncio.run(decoded(decoder_for(content_type, RATE_HZ), torn_apart(body, cuts)))
    assert np.array_equal(torn, whole)


@given(cuts=cuts, channels=st.sampled_from([1, 2]), streamed=st.booleans())
def test_wav_is_the_same_however_it_is_torn_apart_and_whether_its_length_is_known(
    cuts: list[int], channels: int, streamed: bool
) -> None:
    body = file_of(24_000, "WAV", channels=channels)
    if streamed:
        at = body.index(b"data") + 4
        body = body[:4] + b"\xff" * 4 + body[8:at] + b"\xff" * 4 + body[at + 4 :]
    audio = asyncio.run(decoded(WavDecoder(RATE_HZ), torn_apart(body, cuts)))
    assert np.array_equal(audio, tone(24_000))


async def test_what_stands_behind_the_sound_of_a_wav_is_not_heard() -> None:
    body = file_of(24_000, "WAV") + b"LIST\x10\x00\x00\x00INFOISFT made by"
    assert np.array_equal(await decoded(WavDecoder(RATE_HZ), [body]), tone(24_000))


async def test_what_stands_before_the_sound_of_a_wav_is_skipped() -> None:
    plain = file_of(24_000, "WAV")
    at = plain.index(b"data")
    body = plain[:at] + b"LIST\x05\x00\x00\x00INFO!\x00" + plain[at:]
    assert np.array_equal(await decoded(WavDecoder(RATE_HZ), [body[:50], body[50:]]), tone(24_000))


@pytest.mark.parametrize("body", [b"RIFF", b"RIFF\0\0\0\0WAVEfmt ", b"RIFF\0\0\0\0WAVEdata\0\0\0\0abcd"])
async def test_a_wav_without_its_header_is_an_error(body: bytes) -> None:
    with pytest.raises(AudioFormatError):
        await decoded(WavDecoder(RATE_HZ), [body])


async def test_a_wav_header_does_not_go_on_for_ever() -> None:
    with pytest.raises(AudioFormatError, match="64 KiB"):
        await decoded(WavDecoder(RATE_HZ), [b"RIFF\0\0\0\0WAVE", *[b"JUNK\xff\xff\xff\x0f" + bytes(40_000)] * 3])


async def test_a_file_does_not_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_FILE_BYTES", 1 << 20)
    with pytest.raises(AudioFormatError, match="1 MiB"):
        await decoded(decoder_for("audio/mpeg", RATE_HZ), [bytes(300_000)] * 4)


async def test_a_small_file_that_holds_hours_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_FILE_S", 1)
    with pytest.raises(AudioFormatError, match="1 s"):
        await decoded(decoder_for("audio/flac", RATE_HZ), [file_of(RATE_HZ, "FLAC")])


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "audio/aac", "image/png", "audio"])
async def test_what_is_no_sound_that_can_be_read_is_not_tried(content_type: str) -> None:
    assert decoder_for(content_type, RATE_HZ) is None


async def test_a_body_that_does_not_say_what_it_is_and_is_too_short_to_tell_is_pcm() -> None:
    assert np.array_equal(await decoded(decoder_for("", RATE_HZ), [b"\x01", b"\x02\x03"]), [0x0201])


def torn_apart(body: bytes, cuts: list[int]) -> list[bytes]:
    """`body` in pieces of these lengths, and the rest."""
    pieces: list[bytes] = []
    at = 0
    for length in cuts:
        pieces.append(body[at : at + length])
        at += length
    return [*pieces, body[at:]]
