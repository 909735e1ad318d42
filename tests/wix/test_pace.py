"""The pace, in virtual time: the budget against a plain reference, slots, and what a cancellation leaves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.clock import Clock
from monitor.core.model import FailureReason, NotFound, PollFailed
from monitor.core.plan import SITE_SLOTS
from monitor.core.site import Site
from monitor.errors import WithheldError
from monitor.tasks import TaskBag
from monitor.wix.pace import UNSHARED, WINDOW, Budget, Pace, Permit, Slots

pytestmark = pytest.mark.looptime

EPSILON: Final = 1e-4  # the virtual clock counts in microseconds
REFUSED = PollFailed(FailureReason.UNAUTHORIZED, refused=True)
SLOW = PollFailed(FailureReason.TIMEOUT)

MakePace = Callable[..., Pace]


def seconds() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def request(pace: Pace, *, trial: bool = False) -> AsyncIterator[None]:
    """While one request lasts."""
    held = await pace.enter(trial=trial)
    try:
        yield
    finally:
        pace.leave(held)


def make_pace(
    requests_per_minute: int,
    slots: Slots | None = None,
    name: str = "downtown",
    permit: Permit = UNSHARED,
) -> Pace:
    clock = Clock(wall_seconds=lambda: 0.0, monotonic=asyncio.get_running_loop().time)
    site = Site(name=name, interval=timedelta(minutes=1))
    return Pace(site, requests_per_minute, slots or Slots(1000), clock, lambda: 0.0, permit)


class Lease:
    """A permit that a test renews."""

    def __init__(self) -> None:
        self.holds = True
        self.lost = False
        self._again = asyncio.Event()

    async def renewed(self) -> None:
        while not self.holds:
            if self.lost:
                raise WithheldError("no lease")
            self._again.clear()
            await self._again.wait()

    def stand(self, *, holds: bool, lost: bool = False) -> None:
        self.holds, self.lost = holds, lost
        self._again.set()


def told_to_wait(wait: float) -> PollFailed:
    return PollFailed(FailureReason.RATE_LIMITED, retry_after=timedelta(seconds=wait))


def settle(pace: Pace, observation: PollFailed | NotFound, *, trial: bool = False) -> None:
    pace.settle(observation, pace._clock.now(), trial=trial)


class Client:
    """A poll that goes through a pace and tells how far it came."""

    def __init__(self, pace: Pace, *, trial: bool = False) -> None:
        self.started: float | None = None
        self.withheld = False
        self.release = asyncio.Event()
        self._pace = pace
        self._trial = trial
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            async with request(self._pace, trial=self._trial):
                self.started = seconds()
                await self.release.wait()
        except WithheldError:
            self.withheld = True

    async def cancel(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def clients(pace: Pace, count: int) -> AsyncIterator[list[Client]]:
    them = [Client(pace) for _ in range(count)]
    await turn()
    yield them
    for each in them:
        await each.cancel()


async def turn(rounds: int = 20) -> None:
    for _ in range(rounds):
        await asyncio.sleep(0)


def in_flight(them: list[Client]) -> list[int]:
    return [place for place, each in enumerate(them) if each.started is not None and not each.task.done()]


# --- the budget ---------------------------------------------------------------------------------------


def reference(arrivals: list[float], durations: list[float], limit: int) -> list[float]:
    """When each request would start, first come, first served, by the plain words of the rule."""
    starts: list[float] = []
    for arrival in arrivals:
        now = max(arrival, starts[-1] if starts else 0.0)
        ends = [start + duration for start, duration in zip(starts, durations, strict=False)]
        while (
            sum(now < end + WINDOW for end in ends) >= limit or sum(now < end for end in ends) >= SITE_SLOTS
        ):
            now = min(moment for end in ends for moment in (end, end + WINDOW) if moment > now)
        starts.append(now)
    return starts


async def let_all_go(pace: Pace, traffic: list[tuple[float, float]]) -> list[float]:
    starts = [0.0] * len(traffic)
    began = seconds()

    async def one(place: int, duration: float) -> None:
        async with request(pace):
            starts[place] = seconds() - began
            await asyncio.sleep(duration)

    async with asyncio.TaskGroup() as group:
        for place, (gap, duration) in enumerate(traffic):
            await asyncio.sleep(gap)
            group.create_task(one(place, duration))
    return starts


quarters = st.integers(0, 400).map(lambda number: number / 4)
traffic = st.lists(st.tuples(st.integers(0, 120).map(lambda n: n / 4), quarters), min_size=1, max_size=30)


@given(traffic=traffic, limit=st.integers(1, 11))
async def test_no_rolling_minute_holds_more_than_the_budget_and_none_is_held_for_nothing(
    traffic: list[tuple[float, float]], limit: int
) -> None:
    arrivals = [sum(gap for gap, _ in traffic[: place + 1]) for place in range(len(traffic))]
    durations = [duration for _, duration in traffic]
    pace = make_pace(limit)
    starts = await let_all_go(pace, traffic)
    ends = [start + duration for start, duration in zip(starts, durations, strict=True)]
    for (
        opens
    ) in ends:  # the minute from there on has in it what began before its end and ended after its start
        inside = [s < opens + WINDOW - EPSILON and e >= opens for s, e in zip(starts, ends, strict=True)]
        assert sum(inside) <= limit
    expected = reference(arrivals, durations, limit)
    assert starts == pytest.approx(expected, abs=EPSILON)
    assert pace.requests == len(traffic)
    if limit < SITE_SLOTS:  # else some of the waiting is for a slot
        held = [e - max(a, b) for e, a, b in zip(expected, arrivals, [0.0, *expected], strict=False)]
        assert pace.throttled_seconds == pytest.approx(sum(held), abs=EPSILON * len(held))


@given(now=st.floats(0, 1e9), limit=st.integers(1, 3), more=st.floats(0, 100))
async def test_no_wait_is_left_exactly_where_there_is_room(now: float, limit: int, more: float) -> None:
    budget = Budget(limit)
    for _ in range(limit):
        budget.started()
        budget.ended(now)
    later = now + more
    assert (budget.free(later) > 0) == (budget.seconds_to_free(later) <= 0)


async def test_a_budget_full_of_requests_in_flight_is_waited_for_until_one_has_left_the_window() -> None:
    pace = make_pace(2)
    async with clients(pace, 3) as them:
        assert in_flight(them) == [0, 1]
        await asyncio.sleep(200)
        assert in_flight(them) == [0, 1]
        them[0].release.set()
        await asyncio.sleep(WINDOW - 0.01)
        assert not them[2].started
        await asyncio.sleep(0.02)
        assert them[2].started == pytest.approx(200 + WINDOW, abs=EPSILON)
    assert pace.throttled_seconds == pytest.approx(200 + WINDOW, abs=EPSILON)


async def test_the_spare_room_keeps_a_reserve_for_the_regular_polls() -> None:
    pace = make_pace(5)
    assert pace.spare(4)
    assert not pace.spare(5)
    async with clients(pace, 2):
        assert pace.spare(2)
        assert not pace.spare(3)


async def test_waiters_are_let_go_in_the_order_they_came() -> None:
    pace = make_pace(1)
    async with clients(pace, 20) as them:
        for each in them:
            each.release.set()
        await asyncio.gather(*(each.task for each in them))
    assert [round(later.started or 0) - round(one.started or 0) for one, later in pairwise(them)] == [60] * 19


# --- what holds a site back -----------------------------------------------------------------------------


@pytest.mark.parametrize("why", [REFUSED, told_to_wait(30)], ids=["down", "told to wait"])
async def test_a_site_left_alone_is_not_asked(why: PollFailed) -> None:
    pace = make_pace(10)
    settle(pace, why)
    async with clients(pace, 1) as (one,):
        assert one.withheld
    assert pace.requests == 0
    assert pace.spare(9)


@pytest.mark.parametrize("why", [REFUSED, told_to_wait(30)], ids=["down", "told to wait"])
async def test_those_who_wait_for_the_budget_are_sent_away_at_once(why: PollFailed) -> None:
    pace = make_pace(1)
    async with clients(pace, 5) as them:
        settle(pace, why)
        await turn()
        assert [each.withheld for each in them] == [False, True, True, True, True]
    assert pace.requests == 1


async def test_those_who_wait_for_a_slot_are_sent_away_before_they_cost_anything() -> None:
    slots = Slots(1)
    other, pace = make_pace(10, slots, "other"), make_pace(10, slots)
    async with clients(other, 1) as (holder,), clients(pace, 3) as them:
        settle(pace, REFUSED)
        holder.release.set()
        await turn()
        assert all(each.withheld for each in them)
    assert pace.requests == 0
    assert pace.spare(9)


async def test_a_site_that_is_down_queues_nobody_behind_its_slots() -> None:
    pace = make_pace(100)
    async with clients(pace, SITE_SLOTS):
        settle(pace, REFUSED)
        async with clients(pace, 1) as (late,):
            assert late.withheld


async def test_those_who_wait_for_one_of_the_sites_slots_are_sent_away_too() -> None:
    pace = make_pace(100)
    async with clients(pace, SITE_SLOTS + 2) as them:
        settle(pace, REFUSED)
        them[0].release.set()
        await turn()
        assert [each.withheld for each in them[SITE_SLOTS:]] == [True, True]
    assert pace.requests == SITE_SLOTS


async def test_the_trial_passes_while_the_site_is_down_but_not_while_it_must_wait() -> None:
    pace = make_pace(10)
    settle(pace, REFUSED)
    trial = Client(pace, trial=True)
    await turn()
    assert trial.started is not None
    await trial.cancel()
    settle(pace, told_to_wait(30), trial=True)
    early = Client(pace, trial=True)
    await turn()
    assert early.withheld
    await asyncio.sleep(30.1)
    late = Client(pace, trial=True)
    await turn()
    assert late.started is not None
    await late.cancel()


async def test_a_trial_that_waits_for_the_budget_stays_when_the_site_goes_down() -> None:
    pace = make_pace(1)
    async with clients(pace, 1) as (one,):
        trial = Client(pace, trial=True)
        await turn()
        settle(pace, REFUSED)
        one.release.set()
        await asyncio.sleep(WINDOW + 1)
        assert trial.started == pytest.approx(WINDOW, abs=EPSILON)
        await trial.cancel()


async def test_the_polls_go_on_when_the_wait_is_over_or_the_site_is_up() -> None:
    pace = make_pace(10)
    settle(pace, told_to_wait(30))
    await asyncio.sleep(30.1)
    settle(pace, REFUSED)
    settle(pace, NotFound(), trial=True)
    async with clients(pace, 1) as (one,):
        assert one.started is not None


async def test_a_wait_that_wix_asked_for_counts_as_throttled_once() -> None:
    pace = make_pace(10)
    settle(pace, told_to_wait(30))
    assert pace.throttled_seconds == pytest.approx(0)
    settle(pace, told_to_wait(30))  # the same wait, told to another poll
    await asyncio.sleep(10)
    assert pace.throttled_seconds == pytest.approx(10)
    settle(pace, told_to_wait(30))
    await asyncio.sleep(100)
    assert pace.throttled_seconds == pytest.approx(40)
    settle(pace, told_to_wait(5))
    await asyncio.sleep(5)
    assert pace.throttled_seconds == pytest.approx(45)


# --- slots ----------------------------------------------------------------------------------------------


async def test_a_site_has_at_most_its_slots_in_flight() -> None:
    pace = make_pace(1000)
    async with clients(pace, 30) as them:
        assert in_flight(them) == list(range(SITE_SLOTS))
        them[3].release.set()
        await turn()
        assert in_flight(them) == [0, 1, 2, 4, 5, 6, 7, 8]


async def test_a_site_with_more_of_its_parts_here_has_more_slots_from_now_on() -> None:
    pace = make_pace(1000)
    async with clients(pace, 30) as them:
        pace.adapt(msgspec.structs.replace(pace.site, slots=2 * SITE_SLOTS), 1000)
        async with clients(pace, 20) as more:
            assert in_flight(them) == list(range(SITE_SLOTS))
            assert in_flight(more) == list(range(2 * SITE_SLOTS))
            them[0].release.set()
            await turn()
            assert in_flight(them) == list(range(1, SITE_SLOTS + 1))
            assert in_flight(more) == list(range(2 * SITE_SLOTS))
    async with clients(pace, 30) as them:
        assert in_flight(them) == list(range(2 * SITE_SLOTS))


async def test_doubtful_sites_share_half_of_the_slots_and_a_good_one_gets_the_rest() -> None:
    slots = Slots(6)
    paces = [make_pace(1000, slots, name) for name in ("east", "west", "good")]
    for doubtful in paces[:2]:
        settle(doubtful, SLOW)
    async with AsyncExitStack() as stack:
        east, west, good = [await stack.enter_async_context(clients(pace, 8)) for pace in paces]
        assert len(in_flight(east)) + len(in_flight(west)) == 3
        assert len(in_flight(good)) == 3
        for each in good[:3]:
            each.release.set()
        await turn()
        assert len(in_flight(east)) + len(in_flight(west)) == 3  # what is free stays free for the good
        assert len(in_flight(good)) == 3


async def test_one_good_poll_ends_the_doubt() -> None:
    pace = make_pace(1000, Slots(4))
    settle(pace, SLOW)
    settle(pace, NotFound())
    async with clients(pace, 8) as them:
        assert len(in_flight(them)) == 4


async def test_who_waited_through_a_change_of_slots_gives_back_what_it_got() -> None:
    slots = Slots(1)
    other, pace = make_pace(1000, slots, "other"), make_pace(1000, slots)
    async with clients(other, 1) as (holder,), clients(pace, 1) as (waiter,):
        slots.resize(2)
        holder.release.set()
        await turn()
        waiter.release.set()
        await turn()
        async with clients(pace, 4) as them:
            assert in_flight(them) == [0, 1]


async def test_a_budget_that_a_reload_narrows_holds_for_who_waits_for_a_slot_too() -> None:
    slots = Slots(1)
    other, pace = make_pace(1000, slots, "other"), make_pace(2, slots)
    async with request(pace):
        pass
    async with clients(other, 1) as (holder,), clients(pace, 1) as (waiter,):
        await asyncio.sleep(20)
        pace.adapt(pace.site, 1)
        holder.release.set()
        await asyncio.sleep(WINDOW - 20 - 0.01)
        assert waiter.started is None
        await asyncio.sleep(0.02)
        assert waiter.started == pytest.approx(WINDOW, abs=EPSILON)
    assert pace.throttled_seconds == pytest.approx(WINDOW - 20, abs=EPSILON)


async def test_a_site_of_the_same_quota_may_fill_the_minute_while_another_waits_for_a_slot() -> None:
    slots = Slots(3)
    other, former, pace = (make_pace(1, slots, name) for name in ("other", "former", "renamed"))
    settle(pace, SLOW)  # the doubtful wait for the one slot that the hung one has
    settle(other, SLOW)
    pace.inherit(former)
    async with clients(other, 1) as (hung,), clients(pace, 1) as (waiter,):
        await asyncio.sleep(20)
        async with request(former):  # the second try of a poll that was under way
            pass
        hung.release.set()
        await asyncio.sleep(WINDOW - 0.01)
        assert waiter.started is None
        await asyncio.sleep(0.02)
        assert waiter.started == pytest.approx(20 + WINDOW, abs=EPSILON)


async def test_who_waits_for_the_budget_holds_no_slot_of_all_meanwhile() -> None:
    slots = Slots(1)
    other, pace = make_pace(1000, slots, "other"), make_pace(2, slots)
    async with request(pace):
        pass
    async with clients(other, 1) as (holder,), clients(pace, 1):
        pace.adapt(pace.site, 1)
        holder.release.set()
        await turn()
        async with clients(other, 1) as (next_,):
            assert next_.started is not None


async def test_a_wait_told_while_a_trial_waits_for_a_slot_sends_it_away() -> None:
    slots = Slots(1)
    other, pace = make_pace(1000, slots, "other"), make_pace(10, slots)
    async with clients(other, 1) as (holder,):
        trial = Client(pace, trial=True)
        await turn()
        settle(pace, told_to_wait(30))
        holder.release.set()
        await turn()
        assert trial.withheld
    assert pace.requests == 0


async def test_even_a_single_slot_serves_a_doubtful_site() -> None:
    pace = make_pace(1000, Slots(1))
    settle(pace, SLOW)
    async with clients(pace, 2) as them:
        assert in_flight(them) == [0]


async def test_a_hanging_site_holds_up_no_other_although_its_waiters_queue() -> None:
    slots = Slots(16)
    hung, good = make_pace(1000, slots, "hung"), make_pace(1000, slots, "good")
    async with clients(hung, 50), clients(good, 8) as them:
        assert len(in_flight(them)) == 8


# --- nothing leaks --------------------------------------------------------------------------------------


async def assert_whole(pace: Pace, slots: Slots, limit: int, total: int) -> None:
    """A minute later budget, gate and all slots are there again."""
    pace.settle(NotFound(), pace._clock.now(), trial=False)
    await asyncio.sleep(WINDOW + 1)
    assert pace.spare(limit - 1)
    async with clients(pace, SITE_SLOTS) as them:
        assert len(in_flight(them)) == min(limit, total, SITE_SLOTS)
    others = [make_pace(1000, slots, f"other-{number}") for number in range(total // SITE_SLOTS + 1)]
    async with AsyncExitStack() as stack:
        groups = [await stack.enter_async_context(clients(each, SITE_SLOTS)) for each in others]
        assert sum(len(in_flight(group)) for group in groups) == total
    for other in others:
        settle(other, SLOW)
    async with AsyncExitStack() as stack:
        groups = [await stack.enter_async_context(clients(each, SITE_SLOTS)) for each in others]
        assert sum(len(in_flight(group)) for group in groups) == max(total // 2, 1)


@pytest.mark.parametrize("step", range(12))
@pytest.mark.parametrize("doubtful", [False, True])
@pytest.mark.parametrize(
    ("limit", "total", "ahead"),
    [(3, 20, 0), (3, 20, 3), (8, 20, 8), (3, 20, 4), (8, 2, 2), (8, 2, 3)],
    ids=["free way", "budget", "site's slots", "gate", "all slots", "gate behind all slots"],
)
async def test_a_cancelled_poll_leaves_nothing_behind(
    limit: int, total: int, ahead: int, step: int, *, doubtful: bool
) -> None:
    slots = Slots(total)
    pace = make_pace(limit, slots)
    if doubtful:
        settle(pace, SLOW)
    async with clients(pace, ahead) as before:
        victim, behind = Client(pace), Client(pace)
        for _ in range(step):
            await asyncio.sleep(0)
        await victim.cancel()
        for each in before:
            each.release.set()
        behind.release.set()
        await behind.task
        assert behind.started is not None
    await assert_whole(pace, slots, limit, total)


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize(
    ("limit", "total", "ahead"),
    [(8, 20, 8), (8, 1, 1), (3, 20, 4)],
    ids=["site's slots", "all slots", "gate"],
)
async def test_a_poll_cancelled_in_the_very_turn_it_is_let_go_leaves_nothing_behind(
    limit: int, total: int, ahead: int, step: int
) -> None:
    slots = Slots(total)
    pace = make_pace(limit, slots)
    async with clients(pace, ahead) as before:
        victim = Client(pace)
        await turn()
        before[0].release.set()
        for _ in range(step):
            await asyncio.sleep(0)
        await victim.cancel()
    await assert_whole(pace, slots, limit, total)


@given(
    script=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 80), st.integers(0, 300), st.booleans()), max_size=25
    ),
    limit=st.integers(1, 9),
    total=st.integers(2, 9),
)
async def test_nothing_is_lost_over_long_scripts_of_polls_and_cancellations(
    script: list[tuple[int, int, int, bool]], limit: int, total: int
) -> None:
    slots = Slots(total)
    pace = make_pace(limit, slots)
    errors: list[BaseException] = []
    bag = TaskBag(errors.append)

    async def poll(duration: float) -> None:
        async with request(pace):
            await asyncio.sleep(duration)

    for gap, duration, patience, cancelled in script:
        await asyncio.sleep(gap / 4)
        task = bag.start(poll(duration / 4))
        if cancelled:
            asyncio.get_running_loop().call_later(patience / 4, task.cancel)
    await bag.drain(1e6)
    assert errors == []
    await assert_whole(pace, slots, limit, total)


async def test_time_spent_waiting_counts_even_where_the_waiter_is_cancelled() -> None:
    pace = make_pace(1)
    async with clients(pace, 2):
        await asyncio.sleep(25)
    assert pace.throttled_seconds == pytest.approx(25, abs=EPSILON)


async def test_a_site_of_the_same_credential_goes_on_with_the_minute_and_the_wait() -> None:
    former, pace = make_pace(5), make_pace(3, name="renamed")
    for _ in range(2):
        async with request(former):
            pass
    settle(former, told_to_wait(30))
    pace.inherit(former)
    assert pace.spare(0)
    assert not pace.spare(1)
    with pytest.raises(WithheldError):
        async with request(pace):
            pass


async def test_another_way_to_wix_is_tried_at_once() -> None:
    pace = make_pace(100)
    for _ in range(5):
        settle(pace, SLOW)
    assert pace.state.outage is not None
    pace.way_replaced()
    assert pace.state.outage.trial_at == pace._clock.now()


# --- the permit ---------------------------------------------------------------------------------------


async def test_without_the_permit_a_request_waits_for_it_and_is_withheld_once_it_is_lost() -> None:
    lease = Lease()
    lease.stand(holds=False)
    async with clients(make_pace(100, permit=lease), 1) as (first,):
        assert in_flight([first]) == []
        lease.stand(holds=True)
        await turn()
        assert in_flight([first]) == [0]
    lease.stand(holds=False)
    async with clients(make_pace(100, permit=lease), 1) as (second,):
        lease.stand(holds=False, lost=True)
        await turn()
        assert second.withheld


@pytest.mark.parametrize("budget", [1, 100])
async def test_a_permit_that_ended_while_a_request_waited_for_its_turn_is_waited_for(budget: int) -> None:
    """Its turn may come long after: the budget was used up, or all slots were taken."""
    lease = Lease()
    async with clients(make_pace(budget, Slots(1), permit=lease), 2) as (first, second):
        lease.stand(holds=False)
        first.release.set()
        await asyncio.sleep(WINDOW + 1)
        assert in_flight([second]) == []
        lease.stand(holds=True)
        await turn()
        assert in_flight([second]) == [0]


async def test_a_permit_that_is_lost_while_a_request_waits_for_its_turn_withholds_it() -> None:
    lease = Lease()
    pace = make_pace(100, Slots(1), permit=lease)
    async with clients(pace, 2) as (first, second):
        lease.stand(holds=False)
        first.release.set()
        await turn()
        lease.stand(holds=False, lost=True)
        await turn()
        assert second.withheld
        lease.stand(holds=True)
        async with clients(pace, 1) as (third,):
            assert third.started is not None, "the slot was given back"


async def test_a_site_that_told_to_wait_meanwhile_is_not_asked_once_the_permit_is_renewed() -> None:
    lease = Lease()
    lease.stand(holds=False)
    pace = make_pace(100, permit=lease)
    async with clients(pace, 1) as (first,):
        settle(pace, told_to_wait(5))
        lease.stand(holds=True)
        await turn()
        assert first.withheld
