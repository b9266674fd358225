"""A turn has one deadline: its stages share it, and what comes too late is apologised for."""

import pytest
from app.conversation.patience import FIRST_AUDIO, FIRST_TOKEN, WORDS, Deadline
from stage import Stage

pytestmark = pytest.mark.looptime


def test_what_one_stage_leaves_over_is_the_next_ones() -> None:
    now = [100.0]
    deadline = Deadline(100.0, 10.0, lambda: now[0])
    assert deadline.left_s(WORDS) == pytest.approx(4.0)
    now[0] = 101.0
    assert deadline.left_s(FIRST_TOKEN) == pytest.approx(6.5)
    now[0] = 109.9
    assert deadline.left_s(FIRST_AUDIO) == 0.5, "a stage that comes late still gets its chance"


@pytest.mark.parametrize(
    ("slow", "share"), [("stt", WORDS), ("llm", FIRST_TOKEN)], ids=["recognition", "language model"]
)
async def test_whoever_does_not_answer_in_time_is_apologised_for(slow: str, share: float) -> None:
    stage = Stage(turn_deadline_s=4.0, provider_timeout_s=60)
    if slow == "stt":
        stage.stt.delay_s = 1000
    else:
        stage.llm.first_s = 1000
    async with stage:
        ended_s = await stage.say(800, then_silent_ms=9000)
        assert [answer.text for answer in stage.answers if answer.text] == [stage.options.apology]
        begun_s = next(at_s for at_s, samples in stage.heard if abs(samples).max() > 0)
        assert begun_s - ended_s <= share * 4.0 + 0.6
        stage.stt.delay_s, stage.llm.first_s = 0.1, 0.1
        await stage.say(800, then_silent_ms=6000)
        assert stage.answers[-1].text == stage.llm.replies[0], "the next turn works"
