"""Whoever answers first is taken; whoever is late or fails does not hold up the others."""

import asyncio
import logging
from collections.abc import AsyncGenerator

import pytest
from app.core.errors import OverloadedError, ProviderError, ServiceError
from app.remote import chain as chain_module
from app.remote.chain import Chain, Member, first_item, stop_stream
from app.remote.health import DOUBTED_PATIENCE_S, FAILURES, Doubt, Health

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

DOWN = ServiceError("Down.", code="service_failed")
GONE = ServiceError("Gone.", code="service_unreachable", refused=True)
BUSY = ServiceError("Busy.", code="service_failed", refused=True)


class Provider:
    """Answers with its name after `delay_s`, or fails with the next of `errors`."""

    def __init__(self, name: str, *errors: Exception, delay_s: float = 0.1) -> None:
        self.name = name
        self.delay_s = delay_s
        self.errors = list(errors)
        self.asked_s: list[float] = []
        self.stopped = 0

    async def ask(self) -> str:
        self.asked_s.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.errors:
            raise self.errors.pop(0)
        return self.name


def chain_of(*providers: Provider, patience_s: float = 1.0, hedge_s: float = 0.0) -> Chain[Provider]:
    loop = asyncio.get_running_loop()
    members = [Member(one.name, one, Health(one.name, Doubt(loop.time)), patience_s) for one in providers]
    return Chain(members, hedge_s=hedge_s)


async def ask(chain: Chain[Provider]) -> str:
    member, answer = await chain.first(lambda provider: provider.ask())
    assert member.name == answer
    return answer


async def test_the_preferred_one_answers_and_nobody_else_is_asked(looptime: float) -> None:
    one, two = Provider("one", delay_s=0.9), Provider("two")
    assert await ask(chain_of(one, two)) == "one"
    assert looptime == 0.9
    assert not two.asked_s


async def test_whoever_is_late_is_overtaken_and_stopped(looptime: float) -> None:
    one, two = Provider("one", delay_s=9), Provider("two", delay_s=0.5)
    chain = chain_of(one, two)
    assert await ask(chain) == "two"
    assert looptime == 1.5
    assert one.stopped == 1
    assert chain.members[0].health.works, "late is not broken"
    assert chain.members[0].health.patience_s(1.0) == DOUBTED_PATIENCE_S


async def test_whoever_is_late_is_still_taken_when_it_comes_first_after_all(looptime: float) -> None:
    one, two = Provider("one", delay_s=1.2), Provider("two", delay_s=5)
    assert await ask(chain_of(one, two)) == "one"
    assert looptime == 1.2
    assert two.stopped == 1


async def test_of_two_that_answer_at_the_same_moment_the_preferred_one_is_taken() -> None:
    one, two = Provider("one", delay_s=1.5), Provider("two", delay_s=0.5)
    disposed = []

    async def dispose(answer: str) -> None:
        disposed.append(answer)

    _, answer = await chain_of(one, two).first(lambda provider: provider.ask(), dispose=dispose)
    assert answer == "one"
    assert disposed == ["two"]


async def test_whoever_fails_is_replaced_at_once(looptime: float) -> None:
    one, two = Provider("one", DOWN), Provider("two")
    assert await ask(chain_of(one, two)) == "two"
    assert looptime == 0.2


async def test_the_third_is_asked_at_once_when_the_second_fails_while_the_first_is_late(looptime: float) -> None:
    chain = chain_of(Provider("one", delay_s=60), Provider("two", DOWN), Provider("three"))
    assert await ask(chain) == "three"
    assert looptime == pytest.approx(1.2)


@pytest.mark.parametrize("delay_s", [0.05, 3])
async def test_when_everybody_fails_it_is_told_what_was_wrong_with_the_preferred_one(delay_s: float) -> None:
    slow = Provider("one", ServiceError("The first.", code="service_failed"), delay_s=delay_s)
    quick = Provider("two", ServiceError("The second.", code="service_failed"))
    with pytest.raises(ServiceError, match="The first"):
        await ask(chain_of(slow, quick))


async def test_what_breaks_the_rules_of_one_is_not_shown_to_the_next() -> None:
    two = Provider("two")
    with pytest.raises(ServiceError) as caught:
        await ask(chain_of(Provider("one", ServiceError("No.", code="content_filtered")), two))
    assert caught.value.code == "content_filtered"
    assert not two.asked_s


async def test_a_defect_of_one_is_logged_and_the_next_one_answers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert await ask(chain_of(Provider("one", ZeroDivisionError()), Provider("two"))) == "two"
    assert "defect" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_one_that_cancels_itself_is_one_that_failed() -> None:
    class Quitter(Provider):
        async def ask(self) -> str:
            raise asyncio.CancelledError

    assert await ask(chain_of(Quitter("one"), Provider("two"))) == "two"


async def test_one_that_is_full_is_passed_over_and_no_worse_for_it() -> None:
    chain = chain_of(Provider("one", *[OverloadedError("Full.")] * 9), Provider("two"))
    for _ in range(2 * FAILURES):
        assert await ask(chain) == "two"
    assert chain.members[0].health.works


async def test_one_that_is_left_alone_is_not_asked_until_its_pause_is_over() -> None:
    one, two = Provider("one", GONE), Provider("two")
    chain = chain_of(one, two)
    for _ in range(3):
        assert await ask(chain) == "two"
    assert len(one.asked_s) == 1
    assert chain.preferred.name == "two"
    await asyncio.sleep(6)
    assert await ask(chain) == "one"


async def test_when_all_are_left_alone_they_are_asked_all_the_same() -> None:
    chain = chain_of(Provider("one", GONE), Provider("two", GONE, GONE))
    with pytest.raises(ServiceError, match="Gone"):
        await ask(chain)
    assert await ask(chain) == "one"


async def test_one_trial_after_the_pause_is_enough_for_all_who_ask() -> None:
    one, two = Provider("one", GONE, delay_s=0.2), Provider("two")
    chain = chain_of(one, two)
    assert await ask(chain) == "two"
    await asyncio.sleep(6)
    assert await asyncio.gather(*(ask(chain) for _ in range(5))) == ["one", "two", "two", "two", "two"]


# --- asking again


async def test_a_request_that_did_nothing_is_made_again_after_a_moment(
    looptime: float,
) -> None:
    one, two = Provider("one", BUSY), Provider("two")
    assert await ask(chain_of(one, two)) == "one"
    assert 0.25 <= looptime <= 0.4
    assert not two.asked_s


async def test_a_request_that_may_have_done_something_is_not_made_again() -> None:
    one = Provider("one", DOWN)
    with pytest.raises(ServiceError, match="Down"):
        await ask(chain_of(one))
    assert len(one.asked_s) == 1


async def test_a_service_that_asks_for_a_short_wait_is_waited_for_and_a_long_one_is_not(looptime: float) -> None:
    short = ServiceError("Soon.", code="rate_limited", refused=True, retry_after_s=0.3)
    long = ServiceError("Later.", code="rate_limited", refused=True, retry_after_s=20)
    assert await ask(chain_of(Provider("one", short), Provider("two"))) == "one"
    assert looptime == pytest.approx(0.5)
    assert await ask(chain_of(Provider("one", long), Provider("two"))) == "two"


async def test_one_that_cannot_be_reached_is_tried_again_only_if_there_is_nobody_else() -> None:
    alone, first = Provider("alone", GONE), Provider("first", GONE)
    assert await ask(chain_of(alone)) == "alone"
    assert await ask(chain_of(first, Provider("next"))) == "next"
    assert len(first.asked_s) == 1


async def test_a_service_in_trouble_is_not_flooded_with_second_tries() -> None:
    one = Provider("one", *[BUSY] * 1000)
    chain = chain_of(one, Provider("two"))
    for _ in range(100):
        one_health = chain.members[0].health
        one_health.succeeded()  # as if others still got answers
        assert await ask(chain) == "two"
    second_tries = len(one.asked_s) - 100
    assert second_tries <= chain_module.RETRY_RESERVE + 200 * chain_module.RETRY_SHARE


# --- the second identical request


async def test_a_second_identical_request_is_made_when_the_first_takes_long(looptime: float) -> None:
    class SlowOnce(Provider):
        async def ask(self) -> str:
            self.delay_s = 0.1 if self.asked_s else 9
            return await super().ask()

    one, two = SlowOnce("one"), Provider("two")
    chain = chain_of(one, two, hedge_s=0.5)
    assert await ask(chain) == "one"
    assert looptime == pytest.approx(0.6)
    assert one.asked_s == [0.0, 0.5]
    assert one.stopped == 1
    assert not two.asked_s
    assert chain.members[0].health.works


async def test_the_second_identical_request_does_not_prolong_the_patience(looptime: float) -> None:
    one, two = Provider("one", delay_s=60), Provider("two")
    assert await ask(chain_of(one, two, hedge_s=0.5)) == "two"
    assert looptime == pytest.approx(1.1)
    assert one.stopped == 2


async def test_no_second_request_is_made_of_one_that_has_failed() -> None:
    one, two = Provider("one", DOWN), Provider("two", delay_s=2)
    assert await ask(chain_of(one, two, hedge_s=0.5)) == "two"
    assert len(one.asked_s) == 1
    assert len(two.asked_s) == 1


async def test_if_one_of_the_two_fails_the_other_one_answers() -> None:
    one = Provider("one", DOWN, delay_s=0.8)
    assert await ask(chain_of(one, hedge_s=0.5)) == "one"
    assert len(one.asked_s) == 2


# --- giving up


async def test_giving_up_stops_all_that_were_asked_and_is_held_against_nobody() -> None:
    one, two = Provider("one", delay_s=9), Provider("two", delay_s=9)
    chain = chain_of(one, two)
    asking = asyncio.create_task(ask(chain))
    await asyncio.sleep(1.5)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (one.stopped, two.stopped) == (1, 1)
    assert all(member.health.works and member.health.admits() for member in chain.members)


async def test_a_trial_that_is_given_up_does_not_keep_the_circuit_open() -> None:
    one, two = Provider("one", GONE), Provider("two")
    chain = chain_of(one, two)
    await ask(chain)
    await asyncio.sleep(6)
    one.delay_s = two.delay_s = 9
    asking = asyncio.create_task(ask(chain))
    await asyncio.sleep(0.5)
    assert not chain.members[0].health.admits()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert chain.members[0].health.admits()


async def test_nobody_is_left_when_all_are_excluded() -> None:
    chain = chain_of(Provider("one"))
    with pytest.raises(ProviderError, match="Nobody"):
        await chain.first(lambda provider: provider.ask(), without=chain.members)


# --- streams


class Streamer:
    """A stream of `items` that notes that it was closed."""

    def __init__(self, name: str, *items: str, first_s: float = 0.0) -> None:
        self.name = name
        self.items = items
        self.first_s = first_s
        self.closed = False

    async def stream(self) -> AsyncGenerator[str, None]:
        try:
            await asyncio.sleep(self.first_s)
            for item in self.items:
                yield item
        finally:
            self.closed = True


async def test_a_stream_is_taken_with_its_first_item_and_goes_on() -> None:
    one = Streamer("one", "a", "b")
    item, stream = await first_item(one.stream())
    assert item == "a"
    assert [rest async for rest in stream] == ["b"]
    assert one.closed


async def test_a_stream_without_items_has_no_first_one() -> None:
    nothing, _ = await first_item(Streamer("none").stream())
    assert nothing is None


async def test_streams_that_are_not_taken_are_closed() -> None:
    one, two = Streamer("one", "a", "b", first_s=1.5), Streamer("two", "c", "d", first_s=0.5)
    health = [Health(name, Doubt(asyncio.get_running_loop().time)) for name in ("one", "two")]
    chain = Chain([Member(s.name, s, h, 1.0) for s, h in zip((one, two), health, strict=True)])
    member, (item, stream) = await chain.first(lambda streamer: first_item(streamer.stream()), dispose=stop_stream)
    assert (member.provider, item) == (one, "a")
    assert two.closed, "its first item came at the same moment"
    assert not one.closed
    await stream.aclose()
    assert one.closed


async def test_one_that_cannot_be_stopped_does_not_spoil_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn(Provider):
        async def ask(self) -> str:
            try:
                return await super().ask()
            except asyncio.CancelledError:
                return self.name

    async def dispose(_: str) -> None:
        raise RuntimeError("it will not stop")

    chain = chain_of(Stubborn("one", delay_s=9), Provider("two"))
    member, _ = await chain.first(lambda provider: provider.ask(), dispose=dispose)
    assert member.name == "two"
    assert "could not be stopped" in caplog.text
