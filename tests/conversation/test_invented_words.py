"""What recognisers make of noise is not answered: there was too little voice for so many words."""

import pytest
from app.conversation import messages as msg
from stage import Stage

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize(
    "invented",
    [
        "Thank you for watching!",
        "Untertitel der Amara.org-Community",
        "This is a whole sentence that nobody can say so fast.",
    ],
)
async def test_what_nobody_had_the_time_to_say_is_dropped(invented: str) -> None:
    async with Stage() as stage:
        stage.stt.words = [invented, "tell me more"]
        await stage.say(200)
        assert stage.said == [""], "it was a noise"
        assert stage.answers == []
        await stage.say(1000)
        assert stage.said == ["", "tell me more"]


async def test_a_person_may_say_thank_you_and_is_answered() -> None:
    async with Stage() as stage:
        stage.stt.words = ["Thank you."]
        await stage.say(700, then_silent_ms=4000)
        assert stage.said == ["Thank you."]
        assert [type(told) for told in stage.messages(msg.ReplyDone)] == [msg.ReplyDone]


async def test_all_voice_of_a_turn_counts_pauses_or_not() -> None:
    words = "I would like to know what the weather will be like tomorrow in the north of the country"
    async with Stage() as stage:
        stage.turn.probabilities = [0.05, 0.05, 0.98]
        stage.stt.words = ["I would like", "I would like to know what the weather", words]
        for voice_ms in (1200, 1500):
            await stage.say(voice_ms, then_silent_ms=400)
        await stage.say(2000)
        assert stage.said == [words]
