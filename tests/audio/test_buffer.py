"""The utterance buffer: nothing of what was said is lost, nothing is kept for ever.

Audio is a ramp that counts its samples, so that every sample tells where it belongs.
"""

import tracemalloc

import numpy as np
import pytest
from app.audio.buffer import LOOKBACK_MS, AudioBuffer
from app.core.errors import AudioFormatError

RATE_HZ = 16_000
MS = RATE_HZ // 1000


def ramp(from_ms: float, to_ms: float) -> np.ndarray:
    """The samples that belong between these times."""
    return np.arange(int(from_ms * MS), int(to_ms * MS)).astype(np.int16)


def receive(buffer: AudioBuffer, length_ms: float, chunk_ms: float = 20) -> None:
    """The ramp goes on for so long."""
    start = buffer.received_ms
    for at_ms in np.arange(start, start + length_ms, chunk_ms):
        buffer.append(ramp(at_ms, min(at_ms + chunk_ms, start + length_ms)))


# --- the beginning of an utterance


def test_an_utterance_begins_with_the_pre_roll_before_its_onset() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=300)
    receive(buffer, 2000)
    buffer.begin_utterance(onset_ms=1900)
    receive(buffer, 500)
    assert np.array_equal(buffer.consume(), ramp(1600, 2500))


def test_a_first_syllable_is_whole_even_if_its_onset_is_noticed_late() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=300)
    receive(buffer, 5000, chunk_ms=7)
    buffer.begin_utterance(onset_ms=5000 - LOOKBACK_MS)
    assert np.array_equal(buffer.peek(), ramp(4400, 5000))


def test_who_speaks_at_once_is_kept_from_the_first_sample() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=300)
    receive(buffer, 100)
    buffer.begin_utterance(onset_ms=40)
    assert np.array_equal(buffer.peek(), ramp(0, 100))


def test_an_onset_in_the_future_is_now() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=100)
    receive(buffer, 1000)
    buffer.begin_utterance(onset_ms=5000)
    receive(buffer, 100)
    assert np.array_equal(buffer.peek(), ramp(900, 1100))


def test_beginning_twice_keeps_the_first_beginning() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=0)
    receive(buffer, 1000)
    buffer.begin_utterance(900)
    receive(buffer, 500)
    buffer.begin_utterance(1400)
    assert np.array_equal(buffer.peek(), ramp(900, 1500))


def test_without_an_utterance_there_is_nothing_to_take() -> None:
    buffer = AudioBuffer(RATE_HZ)
    receive(buffer, 1000)
    assert len(buffer.peek()) == len(buffer.consume()) == 0
    assert not buffer.full


# --- taking and dropping


def test_looking_takes_nothing_and_what_was_seen_is_ones_own() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=0)
    receive(buffer, 100)
    buffer.begin_utterance(0)
    buffer.peek()[:] = 0
    assert np.array_equal(buffer.peek(), ramp(0, 100))
    assert np.array_equal(buffer.consume(), ramp(0, 100))
    assert len(buffer.peek()) == 0


def test_a_client_that_reuses_its_memory_does_not_change_what_was_heard() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=0)
    chunk = ramp(0, 20)
    buffer.append(chunk)
    chunk[:] = 0
    buffer.begin_utterance(0)
    assert np.array_equal(buffer.peek(), ramp(0, 20))


def test_what_follows_the_part_that_was_taken_belongs_to_the_next_utterance() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=300)
    buffer.begin_utterance(0)
    receive(buffer, 2000)
    assert np.array_equal(buffer.consume(until_ms=1200), ramp(0, 1200))
    buffer.begin_utterance(1200)
    receive(buffer, 100)
    assert np.array_equal(buffer.consume(), ramp(1200, 2100)), "the pre-roll does not say again what was taken"


def test_taking_until_before_the_beginning_takes_nothing() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=0)
    receive(buffer, 1000)
    buffer.begin_utterance(900)
    assert len(buffer.consume(until_ms=500)) == 0
    buffer.begin_utterance(900)
    assert np.array_equal(buffer.peek(), ramp(900, 1000))


def test_a_noise_that_was_no_utterance_is_only_past_and_can_be_the_next_pre_roll() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=300)
    buffer.begin_utterance(0)
    receive(buffer, 3000)
    buffer.drop_utterance()
    assert len(buffer.peek()) == 0
    buffer.begin_utterance(3000)
    assert np.array_equal(buffer.peek(), ramp(2700, 3000))


# --- the limit


def test_an_utterance_at_the_limit_is_full_and_what_is_said_after_it_is_kept() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=300, limit_ms=2000)
    buffer.begin_utterance(0)
    receive(buffer, 1980)
    assert not buffer.full
    receive(buffer, 1020)
    assert buffer.full
    assert np.array_equal(buffer.peek(), ramp(0, 2000))
    assert np.array_equal(buffer.consume(), ramp(0, 2000))
    assert not buffer.full
    receive(buffer, LOOKBACK_MS)  # audio goes on while the next utterance is being opened
    buffer.begin_utterance(2000)
    assert np.array_equal(buffer.consume(), ramp(2000, 3300))
    assert buffer.dropped_ms == 0


def test_long_speech_is_whole_when_each_full_utterance_is_taken() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=300, limit_ms=1000)
    buffer.begin_utterance(0)
    parts = []
    for _ in range(50):
        receive(buffer, 70, chunk_ms=70)
        if buffer.full:
            parts.append(buffer.consume())
            buffer.begin_utterance(buffer.received_ms)
    assert [len(part) for part in parts] == [1000 * MS] * 3
    assert np.array_equal(np.concatenate((*parts, buffer.consume())), ramp(0, 3500))


def test_when_nobody_takes_the_utterance_its_oldest_audio_goes_and_is_counted() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=0, limit_ms=1000)
    buffer.begin_utterance(0)
    receive(buffer, 2000)
    assert buffer.dropped_ms == 0
    receive(buffer, 500)
    assert buffer.dropped_ms == 500
    assert np.array_equal(buffer.consume(), ramp(500, 1500))


def test_the_past_is_forgotten() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=300)
    buffer.begin_utterance(0)
    receive(buffer, 1000)
    buffer.consume(until_ms=500)
    receive(buffer, 10_000)
    buffer.begin_utterance(onset_ms=500)
    assert np.array_equal(buffer.peek(), ramp(11_000 - LOOKBACK_MS - 300, 11_000))


@pytest.mark.parametrize("chunk", [1, 320, 16_000, 3_000_000])
@pytest.mark.parametrize("speaking", [False, True])
def test_memory_is_bounded_whatever_the_chunks_and_however_long_nobody_takes_anything(
    chunk: int, speaking: bool
) -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=300, limit_ms=2000)
    samples = np.zeros(chunk, np.int16)
    if speaking:
        buffer.begin_utterance(0)
    tracemalloc.start()
    try:
        for _ in range(max(3, min(60_000, 3_000_000 // chunk))):
            buffer.append(samples)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    limit_bytes = 2000 * MS * 2
    assert held_bytes < (2.5 * limit_bytes + 10_000 if speaking else 60_000)


def test_the_memory_of_a_long_utterance_is_given_back() -> None:
    buffer = AudioBuffer(RATE_HZ, preroll_ms=300)
    tracemalloc.start()
    try:
        buffer.begin_utterance(0)
        receive(buffer, 25_000)
        while_speaking, _ = tracemalloc.get_traced_memory()
        buffer.consume()
        receive(buffer, 1000)
        afterwards, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert while_speaking > 25_000 * MS * 2
    assert afterwards < 60_000


# --- silence


def test_the_audio_clock_is_the_audio_received() -> None:
    buffer = AudioBuffer(8000)
    assert buffer.received_ms == 0
    buffer.append(np.zeros(2000, np.int16))
    assert buffer.received_ms == 250


def test_silence_is_the_time_since_the_detector_heard_a_voice() -> None:
    buffer = AudioBuffer(RATE_HZ)
    receive(buffer, 500)
    assert (buffer.silence_ms, buffer.last_voice_ms) == (500, 0)
    buffer.note_voice(480)
    assert (buffer.silence_ms, buffer.last_voice_ms) == (20, 480)
    receive(buffer, 300)
    buffer.note_voice(100)  # an older report changes nothing
    assert (buffer.silence_ms, buffer.last_voice_ms) == (320, 480)
    buffer.note_voice(900)  # a window that reaches beyond the last sample
    assert buffer.silence_ms == 0


def test_a_client_that_stops_sending_is_silent_too() -> None:
    buffer = AudioBuffer(RATE_HZ)
    assert buffer.since_arrival_s(1000.0) == 0
    buffer.note_arrival(1000.0)
    assert buffer.since_arrival_s(1000.75) == 0.75
    assert buffer.since_arrival_s(999.0) == 0


# --- what is no audio


def test_an_empty_chunk_changes_nothing() -> None:
    buffer = AudioBuffer(RATE_HZ)
    buffer.begin_utterance(0)
    buffer.append(np.zeros(0, np.int16))
    assert buffer.received_ms == len(buffer.peek()) == 0


@pytest.mark.parametrize("samples", [np.zeros(4, np.float32), np.zeros((4, 2), np.int16)])
def test_what_is_not_mono_int16_is_refused(samples: np.ndarray) -> None:
    with pytest.raises(AudioFormatError, match="is not mono int16"):
        AudioBuffer(RATE_HZ).append(samples)
