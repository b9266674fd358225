"""Fixed phrases are synthesised once, and what is kept is there when the synthesiser is not."""

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from app.conversation.phrases import CAPACITY, Phrases
from app.core.errors import ProviderError
from stage import ToldVoice

pytestmark = pytest.mark.looptime
FAILURE = ProviderError("The provider is on strike.")


@pytest.fixture
def voice() -> ToldVoice:
    return ToldVoice(first_audio_ms=80, audio_ms=500)


async def test_a_phrase_is_synthesised_once_for_each_voice(voice: ToldVoice) -> None:
    phrases = Phrases(voice)
    first = await phrases.audio("Ahoy!", None)
    ((text, audio),) = first
    assert text == "Ahoy!"
    assert len(audio) == 500 * 16
    assert await phrases.audio("Ahoy!", None) is first
    await phrases.audio("Ahoy!", "heart")
    assert voice.given == ["Ahoy!", "Ahoy!"]


async def test_a_phrase_comes_in_pieces_as_any_reply_does(voice: ToldVoice) -> None:
    phrase = await Phrases(voice).audio("Ahoy there! 👋 *How* can I help?", None)
    assert [text for text, _ in phrase] == ["Ahoy there! ", "👋 *How* can I help?"]
    assert voice.given == ["Ahoy there!", "How can I help?"]
    assert all(len(audio) == 500 * 16 for _, audio in phrase)


async def test_a_phrase_that_is_there_needs_no_synthesiser(voice: ToldVoice) -> None:
    phrases = Phrases(voice)
    await phrases.keep("Sorry.", None)
    voice.failure = FAILURE
    assert len(await phrases.audio("Sorry.", None)) > 0


async def test_in_another_voice_is_better_than_not_at_all(voice: ToldVoice) -> None:
    phrases = Phrases(voice)
    sorry = await phrases.audio("Sorry.", None)
    voice.failure = FAILURE
    assert await phrases.audio("Sorry.", "heart") is sorry
    with pytest.raises(ProviderError, match="on strike"):
        await phrases.audio("Ahoy!", "heart")
    voice.failure = None
    await phrases.audio("Sorry.", "heart")
    assert len(voice.given) == 4, "it is tried again when it is asked for again"


async def test_a_synthesiser_that_does_not_answer_is_not_waited_for(voice: ToldVoice) -> None:
    async def hangs(*_: object, **__: object) -> AsyncGenerator[np.ndarray, None]:
        await asyncio.get_running_loop().create_future()
        yield np.zeros(0, np.int16)

    phrases = Phrases(voice)
    voice.speak = hangs  # type: ignore[method-assign]
    with pytest.raises(ProviderError, match="gave nothing for 3 s"):
        await phrases.audio("Ahoy!", None, timeout_s=3)
    assert asyncio.get_running_loop().time() == 3


async def test_silence_is_no_phrase_and_is_not_remembered(voice: ToldVoice) -> None:
    phrases = Phrases(voice)
    voice.silent = True
    with pytest.raises(ProviderError, match="no sound"):
        await phrases.audio("Ahoy!", None)
    voice.silent = False
    assert len(await phrases.audio("Ahoy!", None)) > 0


async def test_what_is_kept_stays_and_the_rest_makes_room_oldest_first(voice: ToldVoice) -> None:
    phrases = Phrases(voice)
    await phrases.keep("Sorry.", None)
    for number in range(CAPACITY):
        await phrases.audio(f"phrase {number}", None)
    await phrases.audio("phrase 0", None)
    await phrases.audio("one more", None)
    count = len(voice.given)
    for still_there in ("Sorry.", "phrase 0", "phrase 2", "one more"):
        await phrases.audio(still_there, None)
    assert len(voice.given) == count
    await phrases.audio("phrase 1", None)
    assert len(voice.given) == count + 1, "the one that was not asked for the longest is gone"


async def test_giving_up_stops_the_synthesiser(voice: ToldVoice) -> None:
    phrases = Phrases(voice)
    asking = asyncio.create_task(phrases.audio("Ahoy!", None))
    await asyncio.sleep(0.01)
    assert voice.running == 1
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    assert voice.running == 0
