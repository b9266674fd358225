"""The audio of the telephone line: mu-law in base64, and 8 kHz in pieces that join without a seam."""

import base64

import numpy as np
from app.audio.g711 import decode_mulaw
from app.audio.twilio_audio import FRAME, FRAME_MS, RATE_HZ, pcm16_to_twilio_payload, resample_16k_to_8k
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

sounds = arrays(np.int16, st.integers(0, 700))
cuts = st.lists(st.integers(0, 700), max_size=8)


def pieces(samples: np.ndarray, at: list[int]) -> list[np.ndarray]:
    return np.split(samples, sorted(place for place in at if place <= len(samples)))


def test_a_frame_is_20_ms_and_160_bytes() -> None:
    assert (RATE_HZ, FRAME_MS, FRAME) == (8000, 20, 160)


@given(sounds)
def test_a_payload_is_one_byte_of_mu_law_for_each_sample(samples: np.ndarray) -> None:
    payload = pcm16_to_twilio_payload(samples)
    assert payload == payload.strip(), "JSON takes no line breaks"
    decoded = decode_mulaw(base64.b64decode(payload, validate=True))
    assert len(decoded) == len(samples)
    error = np.abs(decoded.astype(int) - samples)
    assert (error <= np.maximum(8, np.abs(samples.astype(int)) // 16)).all(), "G.711 rounds to 4 bits of mantissa"


@given(sounds)
def test_a_payload_comes_back_as_it_went(samples: np.ndarray) -> None:
    once = decode_mulaw(base64.b64decode(pcm16_to_twilio_payload(samples)))
    assert np.array_equal(decode_mulaw(base64.b64decode(pcm16_to_twilio_payload(once))), once)


@given(sounds, cuts)
def test_pieces_of_any_length_join_without_a_click(samples: np.ndarray, at: list[int]) -> None:
    whole = base64.b64decode(pcm16_to_twilio_payload(samples))
    assert b"".join(base64.b64decode(pcm16_to_twilio_payload(piece)) for piece in pieces(samples, at)) == whole


def test_silence_is_the_code_of_silence() -> None:
    assert base64.b64decode(pcm16_to_twilio_payload(np.zeros(3, np.int16))) == b"\xff\xff\xff"


@given(arrays(np.int16, st.integers(0, 3000)), st.lists(st.integers(0, 3000), max_size=8))
def test_pieces_at_8_khz_are_the_very_samples_of_the_whole(samples: np.ndarray, at: list[int]) -> None:
    whole = np.concatenate(list(resample_16k_to_8k([samples])))
    assert len(whole) == -(-len(samples) // 2)
    assert np.array_equal(np.concatenate(list(resample_16k_to_8k(pieces(samples, at)))), whole)


def test_audio_comes_while_more_is_awaited() -> None:
    asked = 0

    def speech() -> object:
        nonlocal asked
        for _ in range(10):
            asked += 1
            yield np.ones(1600, np.int16)

    first = next(resample_16k_to_8k(speech()))  # type: ignore[arg-type]
    assert asked == 1
    assert len(first) > 700


def test_a_tone_at_8_khz_is_the_same_tone() -> None:
    def tone(rate_hz: int) -> np.ndarray:
        return np.round(8000 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)).astype(np.int16)

    halved = np.concatenate(list(resample_16k_to_8k(np.split(tone(16_000), 50))))
    inner = slice(200, -200)
    assert np.abs(halved[inner].astype(int) - tone(8000)[inner]).max() <= 8


def test_what_8_khz_cannot_hold_is_left_out() -> None:
    whistle = np.round(8000 * np.sin(2 * np.pi * 6000 * np.arange(16_000) / 16_000)).astype(np.int16)
    halved = np.concatenate(list(resample_16k_to_8k([whistle])))
    assert np.abs(halved[200:-200]).max() <= 2, "it would come back as a tone of 2 kHz"


def test_nothing_becomes_nothing() -> None:
    assert sum(map(len, resample_16k_to_8k([]))) == 0
    assert pcm16_to_twilio_payload(np.zeros(0, np.int16)) == ""
