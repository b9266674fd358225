"""Changing the rate changes nothing that can be heard: the same waveform, sampled elsewhere.

The references know nothing of our filter: sums of sines evaluated at the new instants, tones taken out by least squares
so that what remains is what was added, and scipy's own polyphase resampler.
"""

import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from app.audio.resample import ATTENUATION_DB, HALF_WIDTH, PASSBAND, RATES_HZ, StreamResampler, resample
from app.core.errors import AudioFormatError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import fft, signal

PAIRS = list(permutations(RATES_HZ, 2))
pairs = st.sampled_from(PAIRS)
shares = st.floats(0.0, 1.0)
AMPLITUDE = 30_000.0


def through_stream(samples: np.ndarray, from_hz: int, to_hz: int, cuts: tuple[int, ...] = ()) -> np.ndarray:
    """`samples` through a stream, in pieces that end at `cuts`."""
    stream = StreamResampler(from_hz, to_hz)
    return np.concatenate([*(stream.push(piece) for piece in np.split(samples, sorted(cuts))), stream.flush()])


Way = Callable[[np.ndarray, int, int], np.ndarray]
WAYS = [pytest.param(through_stream, id="stream"), pytest.param(resample, id="utterance")]


def tone(hz: float, rate_hz: int, length: int, amplitude: float = AMPLITUDE, phase: float = 0.3) -> np.ndarray:
    return np.rint(amplitude * np.sin(2 * np.pi * hz / rate_hz * np.arange(length) + phase)).astype(np.int16)


def inner(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Without the first and the last 25 ms, where the tone sets in and stops."""
    edge = rate_hz // 40
    return samples[edge:-edge].astype(float)


def gain_and_rest_db(samples: np.ndarray, hz: float, rate_hz: int) -> tuple[float, float]:
    """How strong the tone is in `samples`, and the strongest tone besides it, both against AMPLITUDE."""
    turn = 2 * np.pi * hz / rate_hz * np.arange(len(samples))
    basis = np.stack((np.cos(turn), np.sin(turn)), axis=1)
    found, *_ = np.linalg.lstsq(basis, samples, rcond=None)
    return decibels(np.hypot(*found)), strongest_db(samples - basis @ found)


def strongest_db(samples: np.ndarray) -> float:
    """The strongest tone of any frequency, against AMPLITUDE."""
    window = signal.windows.blackmanharris(len(samples))
    spectrum = np.abs(fft.rfft(samples * window, 4 * fft.next_fast_len(len(samples))))
    return decibels(spectrum.max() * 2 / window.sum())


def decibels(amplitude: float) -> float:
    return 20 * np.log10(max(amplitude, 1e-9) / AMPLITUDE)


# --- length


@given(pairs, st.integers(0, 3000))
@example((24_000, 16_000), 1)
def test_a_stream_gives_as_many_samples_as_the_new_rate_needs(rates: tuple[int, int], length: int) -> None:
    from_hz, to_hz = rates
    expected = -(-length * to_hz // from_hz)
    assert len(through_stream(np.zeros(length, np.int16), from_hz, to_hz)) == expected


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.integers(0, 200))
def test_an_utterance_of_any_rate_keeps_its_duration(from_hz: int, to_hz: int, length: int) -> None:
    to_hz = min(to_hz, 100 * from_hz)
    out = resample(np.full(length, 1000, np.int16), from_hz, to_hz)
    assert out.dtype == np.int16
    assert abs(len(out) - Fraction(length * to_hz, from_hz)) <= Fraction(1, 2)


@given(pairs, st.integers(0, 4000))
def test_a_stream_holds_back_no_more_than_its_filter_and_one_period(rates: tuple[int, int], length: int) -> None:
    from_hz, to_hz = rates
    given_s = len(StreamResampler(from_hz, to_hz).push(np.zeros(length, np.int16))) / to_hz
    period_s = 1 / np.gcd(from_hz, to_hz)
    held_s = length / from_hz - given_s
    assert held_s <= HALF_WIDTH / min(from_hz, to_hz) + period_s + 1 / from_hz


# --- the same waveform


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=40)
@given(pairs, st.integers(0, 2**32 - 1))
def test_the_new_samples_lie_on_the_same_waveform(way: Way, rates: tuple[int, int], seed: int) -> None:
    """Twenty sines anywhere in the pass band, evaluated at the new instants, are the truth."""
    from_hz, to_hz = rates
    random = np.random.default_rng(seed)
    tones_hz = random.uniform(20, PASSBAND * min(rates), 20)
    phases = random.uniform(0, 2 * np.pi, 20)

    def waveform(rate_hz: int) -> np.ndarray:
        seconds = np.arange(round(0.2 * rate_hz)) / rate_hz
        return np.sin(2 * np.pi * tones_hz * seconds[:, None] + phases).sum(axis=1) * 1500

    out = way(np.rint(waveform(from_hz)).astype(np.int16), from_hz, to_hz)
    wanted = waveform(to_hz)[: len(out)]
    assert np.abs(inner(out[: len(wanted)], to_hz) - inner(wanted, to_hz)).max() < 6


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("from_hz", "to_hz"), [(8000, 16_000), (16_000, 8000), (24_000, 16_000), (44_100, 16_000)])
def test_noise_of_speech_bandwidth_comes_out_as_from_scipy(way: Way, from_hz: int, to_hz: int) -> None:
    low_hz = min(from_hz, to_hz)
    noise = np.random.default_rng(7).normal(0, 6000, from_hz)
    band = signal.firwin(1201, 0.38 * low_hz, fs=from_hz)
    speech = np.rint(signal.lfilter(band, 1, noise)).astype(np.int16)
    up, down = Fraction(to_hz, from_hz).as_integer_ratio()
    reach = 120 * max(up, down)
    filter_ = signal.firwin(2 * reach + 1, 1 / max(up, down), window=("kaiser", 9.0))
    wanted = signal.resample_poly(speech.astype(float), up, down, window=filter_)
    out = way(speech, from_hz, to_hz)
    assert np.abs(inner(out, to_hz) - inner(wanted[: len(out)], to_hz)).max() < 3


@pytest.mark.parametrize("way", WAYS)
@given(rates=pairs, level=st.integers(-32768, 32767))
@settings(max_examples=30)
def test_a_constant_stays_exactly_what_it_is(way: Way, rates: tuple[int, int], level: int) -> None:
    from_hz, to_hz = rates
    assert set(inner(way(np.full(from_hz // 10, level, np.int16), from_hz, to_hz), to_hz).tolist()) == {level}


# --- gain, aliases and images, from the deepest tone to the highest


@settings(max_examples=150)
@given(pairs, shares)
@example((48_000, 16_000), 1.0)
@example((8000, 16_000), 1.0)
@example((44_100, 48_000), 1.0)
def test_a_stream_keeps_the_pass_band_and_adds_nothing(rates: tuple[int, int], share: float) -> None:
    from_hz, to_hz = rates
    hz = 50 + share * (PASSBAND * min(rates) - 50)
    out = inner(through_stream(tone(hz, from_hz, from_hz // 4), from_hz, to_hz), to_hz)
    gain_db, rest_db = gain_and_rest_db(out, hz, to_hz)
    assert abs(gain_db) < 0.01
    assert rest_db < -ATTENUATION_DB


@settings(max_examples=150)
@given(pairs.filter(lambda rates: rates[1] < rates[0]), shares)
@example((16_000, 8000), 0.0)
@example((48_000, 44_100), 0.0)
def test_a_stream_lets_no_alias_through(rates: tuple[int, int], share: float) -> None:
    from_hz, to_hz = rates
    hz = to_hz / 2 + share * (from_hz - to_hz) / 2
    out = inner(through_stream(tone(hz, from_hz, from_hz // 4), from_hz, to_hz), to_hz)
    assert strongest_db(out) < -ATTENUATION_DB


@pytest.mark.parametrize(("from_hz", "to_hz"), [pair for pair in PAIRS if pair[1] < pair[0]])
def test_a_stream_lets_no_alias_through_where_its_filter_is_weakest(from_hz: int, to_hz: int) -> None:
    """The first side lobes are the highest: they lie just beyond half the new rate."""
    for hz in to_hz / 2 * np.linspace(1, 1.03, 13):
        out = inner(through_stream(tone(hz, from_hz, from_hz // 4), from_hz, to_hz), to_hz)
        assert strongest_db(out) < -ATTENUATION_DB


@settings(max_examples=150)
@given(pairs.filter(lambda rates: rates[1] > rates[0]), shares)
@example((8000, 16_000), 1.0)
@example((44_100, 48_000), 1.0)
def test_a_stream_makes_no_image(rates: tuple[int, int], share: float) -> None:
    """Also of what lies between the pass band and half the rate, whose image is nearest."""
    from_hz, to_hz = rates
    hz = 50 + share * (0.495 * from_hz - 50)
    out = inner(through_stream(tone(hz, from_hz, from_hz // 4), from_hz, to_hz), to_hz)
    assert gain_and_rest_db(out, hz, to_hz)[1] < -ATTENUATION_DB


@settings(max_examples=100)
@given(pairs, shares)
def test_an_utterance_keeps_its_pass_band_and_gets_neither_alias_nor_image(
    rates: tuple[int, int], share: float
) -> None:
    from_hz, to_hz = rates
    hz = 50 + share * (0.495 * from_hz - 50)
    out = inner(resample(tone(hz, from_hz, from_hz // 4), from_hz, to_hz), to_hz)
    if hz >= to_hz / 2:
        assert strongest_db(out) < -90
        return
    gain_db, rest_db = gain_and_rest_db(out, hz, to_hz)
    assert rest_db < -90
    if hz <= 0.45 * min(rates):
        assert abs(gain_db) < 0.05


# --- pieces


@settings(max_examples=150)
@given(pairs, st.integers(0, 2**32 - 1), st.integers(0, 1500), st.data())
def test_any_split_gives_the_very_same_samples(
    rates: tuple[int, int], seed: int, length: int, data: st.DataObject
) -> None:
    from_hz, to_hz = rates
    noise = np.random.default_rng(seed).integers(-32768, 32768, length).astype(np.int16)
    cuts = tuple(data.draw(st.lists(st.integers(0, length), max_size=8)))
    assert np.array_equal(through_stream(noise, from_hz, to_hz, cuts), through_stream(noise, from_hz, to_hz))


@pytest.mark.parametrize(("from_hz", "to_hz"), PAIRS)
def test_sample_by_sample_in_frames_and_at_once_are_the_same_for_every_pair_of_rates(from_hz: int, to_hz: int) -> None:
    noise = np.random.default_rng(3).integers(-32768, 32768, 1200).astype(np.int16)
    whole = through_stream(noise, from_hz, to_hz)
    for size in (1, 160, 512):
        assert np.array_equal(through_stream(noise, from_hz, to_hz, tuple(range(size, 1200, size))), whole)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(8000, 16_000), (16_000, 8000), (24_000, 16_000), (44_100, 16_000)])
def test_frames_of_20_ms_leave_no_click_at_their_borders(from_hz: int, to_hz: int) -> None:
    """The second difference of a sine is at most (2 pi f / rate)^2 of its amplitude; a click stands out of it."""
    frames = tuple(range(from_hz // 50, from_hz // 2, from_hz // 50))
    out = inner(through_stream(tone(440, from_hz, from_hz // 2), from_hz, to_hz, frames), to_hz)
    steepest = AMPLITUDE * (2 * np.pi * 440 / to_hz) ** 2
    assert np.abs(np.diff(out, 2)).max() <= steepest + 3  # what rounding adds


@given(pairs, arrays(np.int16, st.integers(0, 300)), arrays(np.int16, st.integers(0, 300)))
def test_after_a_flush_nothing_of_the_last_stream_is_left(
    rates: tuple[int, int], first: np.ndarray, second: np.ndarray
) -> None:
    stream = StreamResampler(*rates)
    stream.push(first)
    stream.flush()
    again = np.concatenate((stream.push(second), stream.flush()))
    assert np.array_equal(again, through_stream(second, *rates))


def test_the_callers_audio_is_neither_changed_nor_kept() -> None:
    frame = tone(440, 16_000, 320)
    stream = StreamResampler(16_000, 8000)
    first = stream.push(frame)
    frame[:] = 0  # a caller that fills the same memory again
    rest = stream.flush()
    assert np.array_equal(np.concatenate((first, rest)), through_stream(tone(440, 16_000, 320), 16_000, 8000))


# --- extremes


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("from_hz", "to_hz"), [(8000, 16_000), (16_000, 8000), (24_000, 16_000), (44_100, 48_000)])
def test_overshoot_is_clipped_and_does_not_wrap_around(way: Way, from_hz: int, to_hz: int) -> None:
    """A square wave of full scale overshoots when its band is limited."""
    half_period = from_hz // 50
    square = np.tile(np.repeat(np.array([32767, -32768], np.int16), half_period), 10)
    out = inner(way(square, from_hz, to_hz), to_hz)
    assert (out.max(), out.min()) == (32767, -32768)
    position = (np.arange(len(out)) + to_hz // 40) / to_hz * 50 % 1  # 0..1 within the half period
    phase = (np.arange(len(out)) + to_hz // 40) / to_hz * 50 // 1 % 2
    settled = (position > 0.1) & (position < 0.9)
    assert (out[settled & (phase == 0)] > 28_000).all()
    assert (out[settled & (phase == 1)] < -28_000).all()


def test_a_long_push_takes_little_memory_besides_its_own() -> None:
    minute = np.zeros(60 * 48_000, np.int16)
    stream = StreamResampler(48_000, 8000)
    tracemalloc.start()
    try:
        stream.push(minute)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 16_000_000  # the windows of the whole minute would be 1.5 GB


def test_nothing_becomes_nothing() -> None:
    nothing = np.zeros(0, np.int16)
    assert len(resample(nothing, 8000, 16_000)) == 0
    stream = StreamResampler(8000, 16_000)
    assert len(stream.push(nothing)) == len(stream.flush()) == 0


def test_the_same_rate_changes_nothing_and_gives_a_copy() -> None:
    samples = tone(440, 16_000, 100)
    same = resample(samples, 16_000, 16_000)
    same[:] = 0
    assert np.array_equal(samples, tone(440, 16_000, 100))
    assert np.array_equal(through_stream(samples, 16_000, 16_000), samples)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(0, 16_000), (16_000, 0), (-8000, 16_000)])
def test_rates_that_do_not_exist_are_refused(from_hz: int, to_hz: int) -> None:
    with pytest.raises(AudioFormatError, match=f"A rate of {min(from_hz, to_hz)} Hz does not exist"):
        resample(np.zeros(10, np.int16), from_hz, to_hz)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(11_025, 16_000), (16_000, 0)])
def test_a_stream_names_the_rates_it_can_convert(from_hz: int, to_hz: int) -> None:
    with pytest.raises(AudioFormatError, match=r"Streams of (11025|0) Hz cannot be converted; the rates are \(8000, "):
        StreamResampler(from_hz, to_hz)


@pytest.mark.parametrize("samples", [np.zeros(4, np.float32), np.zeros((4, 2), np.int16)])
def test_what_is_not_mono_int16_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(AudioFormatError, match="is not mono int16"):
        resample(samples, 8000, 16_000)
    with pytest.raises(AudioFormatError, match="is not mono int16"):
        StreamResampler(8000, 16_000).push(samples)
