"""The recogniser of load tests, which always understands the same."""

import numpy as np
import pytest
from app.stt.scripted import WORDS, ScriptedRecognizer

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


async def test_it_understands_the_same_words_after_the_delay_asked_for(looptime: float) -> None:
    recognizer = ScriptedRecognizer(250)
    transcript = await recognizer.transcribe(np.zeros(16_000, np.int16), language="en")
    assert (transcript.text, transcript.language) == (WORDS, "en")
    assert looptime == 0.25
