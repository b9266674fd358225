"""Speech that is longer than the buffer, audio that comes in bursts or drops: no word is lost, none is heard twice."""

import asyncio

import numpy as np
import pytest
from app.conversation import messages as msg
from stage import RATE_HZ, SILENCE, VOICE, Stage, stall

pytestmark = pytest.mark.looptime


def voiced_ms(stage: Stage) -> float:
    """How much of the voice went into transcripts."""
    return sum(int((np.abs(audio) > 1000).sum()) for audio in stage.stt.given) * 1000 / RATE_HZ


def audio(*parts: tuple[int, float]) -> np.ndarray:
    """Level and length (milliseconds) of each part."""
    return np.concatenate([np.full(int(length_ms * RATE_HZ / 1000), level, np.int16) for level, length_ms in parts])


async def test_speech_without_a_pause_is_one_turn_however_long_it_is():
    async with Stage(buffer_limit_s=5) as stage:
        stage.stt.words = ["first part", "second part", "end"]
        await stage.say(12_000, then_silent_ms=8000)
    assert stage.said == ["first part second part end"]
    assert len(stage.answers) == 1
    assert voiced_ms(stage) == 12_000, "every voiced sample was transcribed, and once"


async def test_what_is_said_while_the_first_part_is_transcribed_is_not_lost():
    async with Stage(buffer_limit_s=5) as stage:
        stage.stt.words, stage.stt.delay_s = ["first part", "the end"], 2.0
        await stage.say(6000, then_silent_ms=12_000)
    assert stage.said == ["first part the end"]
    assert voiced_ms(stage) == 6000
    assert len(stage.answers) == 1


async def test_speech_that_goes_on_in_spite_of_a_failed_part_is_answered():
    async with Stage(buffer_limit_s=5) as stage:
        stage.stt.words = ["the end"]
        stage.stt.failure = ValueError("a defect")
        speaking = asyncio.create_task(stage.say(8000, then_silent_ms=8000))
        await asyncio.sleep(6)
        stage.stt.failure = None
        await speaking
    assert stage.said == ["the end"]
    assert len(stage.answers) == 1


async def test_words_right_after_a_long_noise_are_heard():
    async with Stage(buffer_limit_s=5) as stage:
        stage.stt.words = ["", "hello"]
        await stage.say(7000, then_silent_ms=8000)
    assert stage.said[-1] == "hello"
    assert len(stage.answers) == 1


async def test_a_noise_that_never_ends_does_not_keep_typed_words_from_an_answer():
    async with Stage(buffer_limit_s=5) as stage:
        stage.stt.words = [""]
        await stage.send(VOICE, 3000)
        stage.conversation.type("can you hear me")
        await stage.send(VOICE, 5000)
    assert stage.said == ["can you hear me"]
    assert [answer.interrupted for answer in stage.answers] == [False]


async def test_words_spoken_between_typing_and_its_transcript_belong_to_the_turn():
    async with Stage() as stage:
        stage.stt.words, stage.stt.delay_s = ["before", "after"], 3.0
        await stage.send(VOICE, 1000)
        stage.conversation.type("number 42")
        await stage.send(SILENCE, 500)
        await stage.say(800, then_silent_ms=12_000)
    assert stage.said == ["before number 42 after"]
    assert len(stage.answers) == 1


async def test_a_recording_sent_at_once_is_understood_as_if_it_had_been_spoken():
    async with Stage() as stage:
        stage.conversation.hear(audio((SILENCE, 1000), (VOICE, 2000), (SILENCE, 7000)))
        await stage.send(SILENCE, 6000)
    assert stage.said == ["tell me more"]
    assert len(stage.answers) == 1
    assert voiced_ms(stage) == 2000


async def test_a_recording_with_two_sentences_sent_at_once_loses_neither():
    async with Stage() as stage:
        stage.stt.words = ["both of them"]
        stage.conversation.hear(audio((VOICE, 1500), (SILENCE, 3000), (VOICE, 1500), (SILENCE, 4000)))
        await stage.send(SILENCE, 8000)
    assert stage.said[-1] == "both of them"
    heard = [float((np.abs(given) > 1000).sum()) / 16 for given in stage.stt.given]
    assert max(heard) == 3000 or sum(heard) == 3000


async def test_audio_in_pieces_of_a_second_is_heard_without_holes():
    async with Stage() as stage:
        for _ in range(4):
            await asyncio.sleep(1)
            stage.conversation.hear(audio((VOICE, 1000)))
        for _ in range(6):
            await asyncio.sleep(1)
            stage.conversation.hear(audio((SILENCE, 1000)))
    assert stage.said == ["tell me more"]
    assert voiced_ms(stage) == 4000
    longest = max(len(given) for given in stage.stt.given) / 16
    assert longest <= 4000 + 300 + 200, "no silence of our own between the pieces"


async def test_a_client_that_sends_next_to_nothing_is_taken_to_be_silent():
    async with Stage() as stage:
        await stage.send(VOICE, 1000)
        for _ in range(60):
            stage.conversation.hear(np.full(1, VOICE, np.int16))
            await asyncio.sleep(0.4)
        assert stage.said == ["tell me more"]
        assert len(stage.answers) == 1
        while not stage.conversation.reason and stage.now_s() < 600:
            stage.conversation.hear(np.full(1, VOICE, np.int16))
            await asyncio.sleep(0.4)
    assert stage.conversation.reason == "idle"


async def test_after_a_gap_the_voice_is_heard_whole_again():
    async with Stage() as stage:
        await stage.say(1000, then_silent_ms=4000)
        await asyncio.sleep(5)
        stage.stt.given.clear()
        await stage.say(1000, then_silent_ms=4000)
    assert voiced_ms(stage) == 1000


async def test_a_burst_beyond_the_inbox_loses_its_oldest_audio_and_counts_it():
    async with Stage() as stage:
        for _ in range(40):
            stage.conversation.hear(audio((SILENCE, 1000)))
        assert stage.conversation.ear.dropped_ms == 10_000
        stage.conversation.hear(audio((VOICE, 1000), (SILENCE, 1000)))
        await stage.send(SILENCE, 6000)
    assert stage.said == ["tell me more"]
    assert len(stage.messages(msg.ReplyDone)) == 1


async def test_a_server_that_was_slow_for_a_moment_does_not_cut_the_speaker_off():
    async with Stage() as stage:
        await stage.send(VOICE, 1000)
        stall(0.8)
        await asyncio.sleep(0.01)
        for _ in range(40):  # what the client sent meanwhile
            stage.conversation.hear(audio((VOICE, 20)))
        await stage.say(1000, then_silent_ms=5000)
    assert stage.said == ["tell me more"]
    assert voiced_ms(stage) == 2800
