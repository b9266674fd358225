"""PCM16: bytes, samples and floats say the same sound, and what is no sound is refused."""

import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
from app.audio import pcm
from app.core.errors import AudioFormatError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)
sounds = arrays(np.int16, st.integers(0, 400))
wholes = st.binary(max_size=400).filter(lambda data: len(data) % 2 == 0)


@given(wholes)
def test_bytes_are_read_as_little_endian_samples(data: bytes) -> None:
    assert pcm.from_bytes(data).tolist() == list(struct.unpack(f"<{len(data) // 2}h", data))


@given(sounds)
def test_samples_survive_the_way_over_the_wire(samples: np.ndarray) -> None:
    data = pcm.to_bytes(samples)
    assert len(data) == 2 * len(samples)
    assert np.array_equal(pcm.from_bytes(data), samples)


@given(st.binary(min_size=1, max_size=400).filter(lambda data: len(data) % 2))
def test_half_a_sample_is_refused_with_the_number_of_bytes(data: bytes) -> None:
    with pytest.raises(AudioFormatError, match=f"^{len(data)} bytes are not a whole number of 16-bit samples"):
        pcm.from_bytes(data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("h")])
def test_every_kind_of_bytes_is_taken(kind: Callable[[bytes], bytes]) -> None:
    assert pcm.from_bytes(kind(b"\x01\x00\xff\xff")).tolist() == [1, -1]


def test_every_sample_comes_back_from_float_as_it_was() -> None:
    floats = pcm.to_float(EVERY_SAMPLE)
    assert floats.dtype == np.float32
    assert floats.min() == -1.0
    assert floats.max() < 1.0
    assert np.array_equal(pcm.from_float(floats), EVERY_SAMPLE)


@given(st.lists(st.floats(-1e30, 1e30), max_size=50))
def test_floats_are_rounded_to_the_nearest_sample_and_never_wrap_around(values: list[float]) -> None:
    samples = pcm.from_float(np.array(values))
    for value, sample in zip(values, samples.tolist(), strict=True):
        inside = min(max(value * 32768, -32768), 32767)
        assert abs(sample - inside) <= 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_model_is_not_heard_as_noise(value: float) -> None:
    with pytest.raises(AudioFormatError, match="NaN or infinite"):
        pcm.from_float(np.array([0.0, value, 0.0], np.float32))


@given(arrays(np.int16, st.integers(1, 200)))
def test_the_level_is_the_root_mean_square_in_decibels(samples: np.ndarray) -> None:
    power = math.fsum((value / 32768) ** 2 for value in samples.tolist()) / len(samples)
    expected = 10 * math.log10(power) if power else pcm.FLOOR_DBFS
    assert pcm.level_dbfs(samples) == pytest.approx(expected, abs=1e-4)


def test_the_level_has_its_two_landmarks_and_a_floor() -> None:
    turn = 2 * np.pi * np.arange(8000) / 80
    assert pcm.level_dbfs(np.full(100, -32768, np.int16)) == pytest.approx(0.0, abs=1e-6)
    assert pcm.level_dbfs(np.rint(32767 * np.sin(turn)).astype(np.int16)) == pytest.approx(-3.01, abs=0.01)
    assert pcm.level_dbfs(np.zeros(100, np.int16)) == pcm.level_dbfs(np.zeros(0, np.int16)) == pcm.FLOOR_DBFS


@pytest.mark.parametrize("samples", [np.zeros(4, np.float32), np.zeros((4, 2), np.int16), np.zeros(4, np.int32)])
@pytest.mark.parametrize("convert", [pcm.to_bytes, pcm.to_float])
def test_other_shapes_and_types_are_refused_by_name(
    convert: Callable[[np.ndarray], object], samples: np.ndarray
) -> None:
    with pytest.raises(AudioFormatError, match=rf"type {samples.dtype} and shape \({len(samples)}, ?2?\) is not mono"):
        convert(samples)
