"""The tone that stands for a voice in load tests."""

import numpy as np
import pytest
from app.tts.scripted import ScriptedVoice

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


async def test_every_chunk_is_a_tone_of_the_length_asked_for_after_the_delay_asked_for(looptime: float) -> None:
    voice = ScriptedVoice(first_audio_ms=150, audio_ms=900)
    pieces = [piece async for piece in voice.speak("Anything at all.")]
    assert looptime == 0.15
    audio = np.concatenate(pieces)
    assert len(audio) == voice.rate_hz * 900 // 1000
    assert len(pieces) > 1, "it streams"
    assert audio[0] == audio[-1] == 0, "no click"
    spectrum = np.abs(np.fft.rfft(audio))
    assert abs(np.argmax(spectrum) * voice.rate_hz / len(audio) - 440) < 2


async def test_without_words_it_is_silent_at_once(looptime: float) -> None:
    voice = ScriptedVoice(first_audio_ms=150, audio_ms=900)
    assert [piece async for piece in voice.speak("...")] == []
    assert looptime == 0
