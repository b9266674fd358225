"""G.711 against the tables of the Recommendation (ITU-T G.711, 1988), for every code and every sample.

The reference is built from the tables' own words: how many intervals of which size, what lies between two decision
values gets the code of the interval, and is decoded as the middle between them.
"""

from collections.abc import Callable

import numpy as np
import pytest
from app.audio import g711
from app.core.errors import AudioFormatError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)
EVERY_CODE = bytes(range(256))
Encode = Callable[[np.ndarray], bytes]
Decode = Callable[[bytes], np.ndarray]
CODECS = [
    pytest.param(g711.encode_mulaw, g711.decode_mulaw, id="mu-law"),
    pytest.param(g711.encode_alaw, g711.decode_alaw, id="A-law"),
]


class Table:
    """One law: decision values in steps of int16, and the code on the line of interval `n` of each sign."""

    def __init__(self, intervals: list[tuple[int, int]], unit: int) -> None:
        sizes = [size for count, size in intervals for _ in range(count)]
        self.decisions = np.concatenate(([0], np.cumsum(sizes))) * unit
        self.middles = (self.decisions[:-1] + self.decisions[1:]) // 2

    def interval_of(self, sample: int) -> int:
        """A sample on a decision value belongs to the interval above it, as in the ITU's software (G.191)."""
        if sample >= 0:
            above = int(np.searchsorted(self.decisions, sample, side="right"))
        else:
            above = int(np.searchsorted(self.decisions, -sample, side="left"))
        return min(max(above - 1, 0), 127)


class MuLaw(Table):
    """Tables 2a and 2b, in 14 bits: 8159 down to 0."""

    def __init__(self) -> None:
        super().__init__([(1, 1), (15, 2), *((16, size) for size in (4, 8, 16, 32, 64, 128, 256))], unit=4)
        self.middles[0] = 0  # y0 is 0, not the middle

    def code(self, interval: int, *, negative: bool) -> int:
        return 127 - interval if negative else 255 - interval


class ALaw(Table):
    """Tables 1a and 1b, in 13 bits: 4096 down to 0; the even bits are inverted on the line."""

    def __init__(self) -> None:
        super().__init__([(32, 2), *((16, size) for size in (4, 8, 16, 32, 64, 128))], unit=8)

    def code(self, interval: int, *, negative: bool) -> int:
        return (interval if negative else 128 + interval) ^ 0b01010101


LAWS = [
    pytest.param(MuLaw(), g711.encode_mulaw, g711.decode_mulaw, id="mu-law"),
    pytest.param(ALaw(), g711.encode_alaw, g711.decode_alaw, id="A-law"),
]


@pytest.mark.parametrize(("law", "encode", "decode"), LAWS)
def test_every_sample_gets_the_code_of_the_interval_it_lies_in(
    law: MuLaw | ALaw, encode: Encode, decode: Decode
) -> None:
    expected = [law.code(law.interval_of(sample), negative=sample < 0) for sample in EVERY_SAMPLE.tolist()]
    assert encode(EVERY_SAMPLE) == bytes(expected)


@pytest.mark.parametrize(("law", "encode", "decode"), LAWS)
def test_every_code_is_decoded_as_the_middle_of_its_interval(law: MuLaw | ALaw, encode: Encode, decode: Decode) -> None:
    decoded = dict(zip(EVERY_CODE, decode(EVERY_CODE).tolist(), strict=True))
    for interval, middle in enumerate(law.middles.tolist()):
        assert decoded.pop(law.code(interval, negative=False)) == middle
        assert decoded.pop(law.code(interval, negative=True)) == -middle
    assert not decoded


def test_the_tables_used_here_have_the_landmarks_printed_in_the_recommendation() -> None:
    mu, a = MuLaw(), ALaw()
    assert (mu.decisions // 4)[[0, 1, 2, 16, 32, 112, 127, 128]].tolist() == [0, 1, 3, 31, 95, 4063, 7903, 8159]
    assert (mu.middles // 4)[[0, 1, 16, 127]].tolist() == [0, 2, 33, 8031]
    assert (a.decisions // 8)[[0, 1, 32, 48, 112, 127, 128]].tolist() == [0, 2, 64, 128, 2048, 3968, 4096]
    assert (a.middles // 8)[[0, 1, 127]].tolist() == [1, 3, 4032]
    assert len(mu.middles) == len(a.middles) == 128
    assert (mu.code(0, negative=False), mu.code(127, negative=False)) == (0b11111111, 0b10000000)
    assert (a.code(0, negative=False), a.code(127, negative=False)) == (0b11010101, 0b10101010)


@pytest.mark.parametrize(("encode", "decode"), CODECS)
def test_coding_again_changes_nothing(encode: Encode, decode: Decode) -> None:
    once = decode(encode(EVERY_SAMPLE))
    assert np.array_equal(decode(encode(once)), once)


@pytest.mark.parametrize(("encode", "decode"), CODECS)
def test_a_louder_sample_never_comes_back_softer(encode: Encode, decode: Decode) -> None:
    assert (np.diff(decode(encode(EVERY_SAMPLE)).astype(int)) >= 0).all()


@pytest.mark.parametrize(("encode", "decode"), CODECS)
@pytest.mark.parametrize("level_dbfs", [-3, -10, -20, -30])
def test_a_tone_stays_33_db_above_its_coding_noise(encode: Encode, decode: Decode, level_dbfs: int) -> None:
    """What ITU-T G.712 asks of a channel between 0 and -30 dBm0."""
    tone = np.rint(32000 * 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * 1020 / 8000 * np.arange(8000)))
    noise = decode(encode(tone.astype(np.int16))) - tone
    assert 10 * np.log10(np.mean(tone**2) / np.mean(noise**2)) >= 33


def test_a_silence_of_minus_one_stays_a_silence() -> None:
    assert not g711.decode_mulaw(g711.encode_mulaw(np.full(160, -1, np.int16))).any()


@pytest.mark.parametrize(("encode", "decode"), CODECS)
@given(samples=arrays(np.int16, st.integers(0, 300)), cut=st.integers(0, 300), step=st.integers(1, 3))
def test_pieces_and_slices_are_coded_as_the_whole(
    encode: Encode, decode: Decode, samples: np.ndarray, cut: int, step: int
) -> None:
    code = encode(samples)
    assert len(code) == len(samples) == len(decode(code))
    assert encode(samples[:cut]) + encode(samples[cut:]) == code
    assert encode(samples[::step]) == code[::step]
    assert np.array_equal(np.concatenate((decode(code[:cut]), decode(code[cut:]))), decode(code))


@pytest.mark.parametrize("encode", [g711.encode_mulaw, g711.encode_alaw])
@pytest.mark.parametrize("samples", [np.zeros(4, np.float32), np.zeros((4, 2), np.int16), np.zeros(4, np.uint16)])
def test_what_is_not_mono_int16_is_refused(encode: Encode, samples: np.ndarray) -> None:
    with pytest.raises(AudioFormatError, match="is not mono int16"):
        encode(samples)
