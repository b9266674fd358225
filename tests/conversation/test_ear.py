"""The ear: what is spoken is heard at its own time, however the audio comes, and silence passes when none comes."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from app.audio.buffer import AudioBuffer
from app.conversation.ear import INBOX_LIMIT_MS, Ear
from app.conversation.events import BufferFull, Event, SpeechPaused, SpeechStarted, SpeechSustained
from app.conversation.hearing import SpeechGate
from app.core.errors import OverloadedError, ProviderError
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import RATE_HZ, SILENCE, VOICE, LoudnessDetector, run_in_virtual_time

pytestmark = pytest.mark.looptime
MS = RATE_HZ // 1000
CLIENT_SILENCE_MS = 500


def audio(level: int, length_ms: float) -> np.ndarray:
    return np.full(round(length_ms * MS), level, np.int16)


class Listener:
    """An ear whose clock is moved by hand, and what it has heard."""

    def __init__(self, *, limit_ms: float = 30_000) -> None:
        self.now_s = 100.0
        self.events: list[Event] = []
        self.times_ms: list[float] = []
        self.voice = LoudnessDetector()
        self.buffer = AudioBuffer(RATE_HZ, limit_ms=limit_ms)
        self.ear = Ear(
            self.voice,
            self.buffer,
            SpeechGate(sustained_ms=160, pause_ms=128),
            client_silence_ms=CLIENT_SILENCE_MS,
            timeout_s=5,
            now_s=lambda: self.now_s,
            on_event=self.events.append,
            on_time=lambda: self.times_ms.append(self.ear.clock_ms),
        )
        self._listening = asyncio.create_task(self.ear.listen())

    async def pass_time(self, length_ms: float, *, step_ms: float = 20) -> None:
        """Nothing is sent; the metronome ticks."""
        for _ in range(round(length_ms / step_ms)):
            self.now_s += step_ms / 1000
            self.ear.tick()
            await self.settle()

    async def send(self, level: int, length_ms: float, *, chunk_ms: float = 20) -> None:
        """Send in real time, chunk by chunk, each when it has been spoken."""
        for _ in range(round(length_ms / chunk_ms)):
            await self.pass_time(chunk_ms, step_ms=min(20, chunk_ms))
            self.ear.hear(audio(level, chunk_ms))
            await self.settle()

    async def settle(self) -> None:
        """Everything that came in is looked at."""
        for _ in range(20_000):
            if self.ear.idle or self._listening.done():
                return
            await asyncio.sleep(0)
        raise AssertionError("the ear never comes to rest")

    async def close(self) -> None:
        self.ear.close()
        await self._listening

    @property
    def kinds(self) -> list[type]:
        return [type(event) for event in self.events]


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()
    yield listener
    await listener.close()


async def test_a_voice_is_heard_when_it_was_spoken(listener: Listener) -> None:
    await listener.send(SILENCE, 1000)
    await listener.send(VOICE, 640)
    await listener.send(SILENCE, 640)
    started, sustained, paused = listener.events
    assert isinstance(started, SpeechStarted)
    assert abs(started.onset_ms - 1000) <= 32
    assert isinstance(sustained, SpeechSustained)
    assert isinstance(paused, SpeechPaused)
    assert abs(paused.last_voice_ms - 1640) <= 32
    assert paused.at_ms - paused.last_voice_ms <= 128 + 32


@pytest.mark.parametrize("chunk_ms", [1, 10, 20, 40, 100, 250])
async def test_the_length_of_the_chunks_changes_nothing(chunk_ms: float) -> None:
    moments = []
    for length_ms in (20, chunk_ms):
        listener = Listener()
        for level in (SILENCE, VOICE, SILENCE):
            await listener.send(level, 1000, chunk_ms=length_ms)
        await listener.close()
        moments.append([(type(event), event.at_ms) for event in listener.events])
    assert moments[0] == moments[1]


async def test_a_recording_sent_at_once_is_heard_at_its_own_times(listener: Listener) -> None:
    listener.ear.hear(np.concatenate([audio(SILENCE, 2000), audio(VOICE, 1000), audio(SILENCE, 7000)]))
    await listener.settle()
    started, _, paused = listener.events
    assert abs(started.onset_ms - 2000) <= 32
    assert abs(paused.last_voice_ms - 3000) <= 32
    assert listener.times_ms == sorted(listener.times_ms)
    assert max(np.diff(listener.times_ms)) <= 32, "alarms within it go off at their times"


async def test_when_the_client_stops_sending_silence_passes_in_real_time(listener: Listener) -> None:
    await listener.send(VOICE, 1000)
    await listener.pass_time(CLIENT_SILENCE_MS - 20)
    assert listener.ear.clock_ms == 1000, "it may only be late"
    await listener.pass_time(5000)
    assert listener.kinds == [SpeechStarted, SpeechSustained, SpeechPaused]
    assert listener.ear.clock_ms == pytest.approx(1000 + 5000 + CLIENT_SILENCE_MS - 20, abs=1)
    assert max(np.diff(listener.times_ms)) <= 32, "and alarms go off at their times"


async def test_what_was_said_before_a_gap_and_after_it_is_not_one_sound(listener: Listener) -> None:
    await listener.send(VOICE, 16, chunk_ms=16)
    assert len(listener.voice._kept) == 16 * MS, "half a window waits for its other half"
    await listener.pass_time(1000)
    assert len(listener.voice._kept) == 0
    await listener.send(VOICE, 640)
    (started, _) = listener.events
    assert isinstance(started, SpeechStarted)
    assert abs(started.onset_ms - (listener.ear.clock_ms - 640)) <= 1


async def test_a_client_that_never_sends_is_silent_and_time_passes(listener: Listener) -> None:
    await listener.pass_time(60_000)
    assert listener.events == []
    assert listener.ear.clock_ms == pytest.approx(60_000, abs=1)


async def test_audio_that_was_only_late_is_not_lost_and_no_silence_comes_between(listener: Listener) -> None:
    await listener.send(VOICE, 1000)
    listener.buffer.begin_utterance(0)
    await listener.pass_time(400)
    for _ in range(20):
        listener.ear.hear(audio(VOICE, 20))
    await listener.send(VOICE, 1000)
    assert listener.ear.clock_ms == 2400
    assert listener.kinds == [SpeechStarted, SpeechSustained]


@pytest.mark.parametrize("stall_ms", [300, 600, 3000])
async def test_when_we_were_slow_what_the_client_sent_meanwhile_counts_and_not_silence(
    listener: Listener, stall_ms: int
) -> None:
    """A server that could not look for a while sees its own clock first, and the client's audio a moment later."""
    await listener.send(VOICE, 1000)
    listener.now_s += stall_ms / 1000
    listener.ear.tick()
    for _ in range(stall_ms // 20):
        listener.ear.hear(audio(VOICE, 20))
    await listener.settle()
    await listener.send(VOICE, 1000)
    assert listener.kinds == [SpeechStarted, SpeechSustained]
    assert listener.ear.clock_ms == 2000 + stall_ms


@pytest.mark.parametrize("chunk_ms", [500, 1000])
async def test_a_client_that_sends_long_chunks_is_waited_for(listener: Listener, chunk_ms: float) -> None:
    await listener.send(VOICE, 4 * chunk_ms, chunk_ms=chunk_ms)
    assert listener.kinds == [SpeechStarted, SpeechSustained], "no pause of our own making"
    await listener.pass_time(3000)
    assert listener.kinds[-1] is SpeechPaused, "and when it stops, it is silent"


@settings(max_examples=40)
@given(
    chunks=st.lists(
        st.tuples(st.floats(0, 1500), st.integers(0, 400), st.sampled_from([SILENCE, VOICE])), min_size=1, max_size=25
    )
)
def test_the_audio_clock_never_stands_still_whatever_the_client_sends(chunks) -> None:
    async def conversation() -> None:
        listener = Listener()
        begun_s, late_ms = listener.now_s, 0.0
        for wait_ms, samples, level in chunks:
            await listener.pass_time(wait_ms)
            listener.ear.hear(np.full(samples, level, np.int16))
            await listener.settle()
            passed_ms = (listener.now_s - begun_s) * 1000
            late_ms = passed_ms - listener.ear.clock_ms
            assert late_ms <= 0.75 * passed_ms + CLIENT_SILENCE_MS
        await listener.pass_time(3000)
        passed_ms = (listener.now_s - begun_s) * 1000
        assert passed_ms - listener.ear.clock_ms <= late_ms + 20, "without a client it is exact"
        await listener.close()

    run_in_virtual_time(conversation())


async def test_empty_messages_are_no_audio(listener: Listener) -> None:
    await listener.send(VOICE, 1000)
    for _ in range(100):
        listener.ear.hear(audio(SILENCE, 0))
        await listener.pass_time(20)
    assert listener.kinds[-1] is SpeechPaused
    assert listener.ear.clock_ms == pytest.approx(3000, abs=1)


# --- mute


async def test_muted_a_voice_is_silence_and_the_clock_goes_on(listener: Listener) -> None:
    await listener.send(VOICE, 500)
    listener.ear.mute(True)
    await listener.send(VOICE, 200)
    assert listener.kinds == [SpeechStarted, SpeechSustained, SpeechPaused], "at once, and not when it is missed"
    await listener.send(VOICE, 1800)
    assert len(listener.events) == 3
    assert listener.ear.clock_ms == pytest.approx(2500, abs=25)
    listener.ear.mute(False)
    await listener.send(VOICE, 500)
    assert listener.kinds[3:] == [SpeechStarted, SpeechSustained]


async def test_turning_the_microphone_off_and_on_in_no_time_is_not_heard(listener: Listener) -> None:
    await listener.send(VOICE, 500)
    listener.ear.mute(True)
    listener.ear.mute(False)
    await listener.send(VOICE, 500)
    assert listener.kinds == [SpeechStarted, SpeechSustained]
    assert listener.ear.clock_ms == 1000


# --- bounds


async def test_what_comes_faster_than_it_is_looked_at_loses_its_oldest_and_is_counted() -> None:
    listener = Listener()
    answer: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
    listener.voice.feed = lambda _: answer  # type: ignore[method-assign]
    await asyncio.sleep(0)
    listener.ear.hear(audio(0, 32))  # is being looked at from now on
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for second in range(45):
        listener.ear.hear(audio(second, 1000))
        await asyncio.sleep(0)
    assert listener.ear._inbox_samples <= INBOX_LIMIT_MS * MS
    assert listener.ear.dropped_ms == 45_000 - INBOX_LIMIT_MS
    assert listener.ear._inbox[-1][0] == 44, "the newest stays"
    listener.ear.close()
    answer.set_result([])
    await listener._listening


async def test_one_chunk_beyond_the_limit_is_looked_at_all_the_same(listener: Listener) -> None:
    listener.ear.hear(audio(VOICE, INBOX_LIMIT_MS + 5000))
    await listener.settle()
    assert listener.ear.dropped_ms == 0
    assert listener.ear.clock_ms == INBOX_LIMIT_MS + 5000


async def test_a_full_buffer_is_told_until_it_is_taken() -> None:
    listener = Listener(limit_ms=2000)
    listener.buffer.begin_utterance(0)
    await listener.send(VOICE, 2100)
    assert BufferFull in listener.kinds
    listener.buffer.consume()
    listener.events.clear()
    await listener.send(VOICE, 500)
    assert BufferFull not in listener.kinds
    await listener.close()


async def test_when_time_has_jumped_by_an_hour_others_get_their_turn_meanwhile(listener: Listener) -> None:
    turns = 0

    async def neighbour() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    living = asyncio.create_task(neighbour())
    listener.now_s += 3600
    listener.ear.tick()
    await listener.pass_time(20)
    living.cancel()
    assert listener.ear.clock_ms == pytest.approx(3_600_020, abs=1)
    assert turns > 3000, "about once for every second of it"


# --- trouble


async def test_when_the_detector_has_too_much_to_do_windows_go_unheard_and_the_clock_goes_on(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    await listener.send(SILENCE, 500)
    listener.voice.failure = OverloadedError("Too much to hear.")
    await listener.send(VOICE, 500)
    assert listener.events == []
    assert [record.getMessage() for record in caplog.records] == ["Too much to hear."], "once, not for every window"
    listener.voice.failure = None
    await listener.send(VOICE, 512)
    started = listener.events[0]
    assert isinstance(started, SpeechStarted)
    assert abs(started.onset_ms - 1000) <= 64, "and times are right again"
    assert listener.ear.clock_ms == pytest.approx(1512, abs=20)
    listener.voice.failure = OverloadedError("Too much again.")
    await listener.send(VOICE, 100)
    assert len(caplog.records) == 2, "and again when it happens again"


async def test_a_failing_detector_is_the_end_of_listening() -> None:
    listener = Listener()
    listener.voice.failure = ProviderError("on strike")
    listener.ear.hear(audio(VOICE, 20))
    with pytest.raises(ProviderError, match="on strike"):
        await listener._listening


async def test_a_detector_that_does_not_answer_is_noticed() -> None:
    listener = Listener()
    listener.voice.feed = lambda _: asyncio.get_running_loop().create_future()  # type: ignore[method-assign]
    listener.ear.hear(audio(VOICE, 20))
    await asyncio.sleep(0)
    listener.now_s += 4.9
    listener.ear.tick()
    listener.now_s += 0.1
    with pytest.raises(ProviderError, match="gave nothing for 5 s"):
        listener.ear.tick()
    listener._listening.cancel()


@pytest.mark.parametrize("silent", [False, True])
async def test_closing_in_the_middle_of_long_input_leaves_the_rest(silent: bool) -> None:
    listener = Listener()

    def close_at_a_second() -> None:
        if listener.ear.clock_ms >= 1000:
            listener.ear.close()

    listener.ear._on_time = close_at_a_second
    if silent:
        listener.now_s += 20
        listener.ear._ticked_s = listener.now_s
        listener.ear.tick()
    else:
        listener.ear.hear(audio(VOICE, 20_000))
    await listener._listening
    assert listener.ear.clock_ms == pytest.approx(1000, abs=32)


async def test_after_closing_nothing_is_heard_any_more() -> None:
    listener = Listener()
    listener.ear.hear(audio(VOICE, 5000))
    await listener.close()
    listener.ear.hear(audio(VOICE, 5000))
    assert listener.events == []
    assert listener.ear.clock_ms == 0


# --- how much voice it was


async def test_the_voice_is_measured_however_the_audio_comes(listener: Listener) -> None:
    listener.ear.hear(np.concatenate([audio(SILENCE, 992), audio(VOICE, 640), audio(SILENCE, 320), audio(VOICE, 320)]))
    await listener.settle()
    started = listener.events[0]
    assert isinstance(started, SpeechStarted)
    assert listener.ear.voiced_ms_since(started.onset_ms) == 960
    assert listener.ear.voiced_ms_since(listener.ear.clock_ms) == 0


async def test_windows_that_go_unheard_in_the_middle_of_speech_are_measured_as_speech(listener: Listener) -> None:
    await listener.send(VOICE, 320)
    listener.voice.failure = OverloadedError("Too much to hear.")
    await listener.send(VOICE, 64, chunk_ms=32)
    listener.voice.failure = None
    await listener.send(VOICE, 320)
    assert listener.ear.voiced_ms_since(0) == pytest.approx(704, abs=32)


# --- when it was


async def test_the_last_voice_is_dated_to_when_it_reached_us(listener: Listener) -> None:
    await listener.send(VOICE, 992)  # 31 windows
    ended_s = listener.now_s
    await listener.send(SILENCE, 300)
    assert listener.ear.last_voice_s() == pytest.approx(ended_s, abs=0.033)
    assert listener.ear.when_s(listener.ear.clock_ms) == listener.now_s
