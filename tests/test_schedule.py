"""The schedule in real time, with short periods: each test waits for calls, never for a while."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from monitor.clock import Clock
from monitor.schedule import Schedule

SHORT = timedelta(milliseconds=20)
LONG = timedelta(hours=1)
PATIENCE = 10.0  # seconds for what takes milliseconds, on a machine that does other things too
YEARS = 50 * 365 * 86_400.0


class Wall:
    """A wall clock that can be set."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead  # noqa: TID251  the real clock, moved


class Calls:
    """Work that counts itself; the first `broken` calls fail."""

    def __init__(self, broken: int = 0) -> None:
        self.times: list[float] = []
        self._broken = broken
        self._called = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self) -> None:
        loop = asyncio.get_running_loop()
        self.times.append(loop.time())
        self._tasks.add(loop.create_task(self._tell()))
        if len(self.times) <= self._broken:
            raise ValueError(f"call {len(self.times)} broke")

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE), self._called:
            await self._called.wait_for(lambda: len(self.times) >= count)

    async def _tell(self) -> None:
        async with self._called:
            self._called.notify_all()


class Heard:
    """What the schedule complained of."""

    def __init__(self) -> None:
        self.skipped: list[str] = []
        self.errors: list[tuple[str, str]] = []


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
async def schedule(heard: Heard, wall: Wall) -> AsyncIterator[Callable[[], Schedule]]:
    made: list[Schedule] = []

    def make() -> Schedule:
        made.append(
            Schedule(Clock(wall), heard.skipped.append, lambda job, e: heard.errors.append((job, str(e))))
        )
        return made[-1]

    yield make
    for each in made:
        each.stop()
    await asyncio.sleep(0)


Make = Callable[[], Schedule]


async def test_it_calls_now_and_each_period(schedule: Make, heard: Heard) -> None:
    calls, ours = Calls(), schedule()
    ours.every("sweep", SHORT, calls)
    began = asyncio.get_running_loop().time()
    ours.start()
    await calls.reach(20)
    took = calls.times[-1] - began
    assert took > 18 * SHORT.total_seconds()  # no burst: each waited for its period
    gaps = [after - before for before, after in pairwise(calls.times)]
    assert min(gaps) < 1.5 * SHORT.total_seconds()  # and not for two
    assert heard.skipped == []
    assert heard.errors == []


async def test_the_first_call_does_not_wait_for_the_period(schedule: Make) -> None:
    calls, ours = Calls(), schedule()
    ours.every("sweep", LONG, calls)
    ours.start()
    await calls.reach(1)
    assert len(calls.times) == 1


async def test_nothing_is_called_before_the_start(schedule: Make) -> None:
    calls, other, ours, started = Calls(), Calls(), schedule(), schedule()
    ours.every("sweep", SHORT, calls)
    started.every("sweep", SHORT, other)
    started.start()
    await other.reach(3)
    assert calls.times == []


async def test_it_calls_on_the_event_loop(schedule: Make) -> None:
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    ours = schedule()
    ours.every("sweep", LONG, lambda: told.set_result(asyncio.get_running_loop().is_running()))
    ours.start()
    async with asyncio.timeout(PATIENCE):
        assert await told


async def test_many_jobs_run_side_by_side(schedule: Make) -> None:
    jobs, ours = [Calls() for _ in range(50)], schedule()
    for number, calls in enumerate(jobs):
        ours.every(f"sweep {number}", timedelta(milliseconds=100), calls)
    ours.start()
    for calls in jobs:
        await calls.reach(3)


async def test_a_call_that_fails_is_reported_and_the_next_one_comes(
    schedule: Make, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound, ours = Calls(broken=2), Calls(), schedule()
    ours.every("broken", SHORT, broken)
    ours.every("sound", SHORT, sound)
    ours.start()
    await broken.reach(4)
    await sound.reach(4)
    assert heard.errors == [("broken", "call 1 broke"), ("broken", "call 2 broke")]
    assert caplog.records == [], "the scheduler's own words about it would be said twice"


async def test_after_a_step_back_of_the_clock_nothing_is_called_until_it_is_armed_anew(
    schedule: Make, wall: Wall
) -> None:
    """To APScheduler a job armed before the step is due only when the wall clock has caught up."""
    wall.ahead = 3600.0
    still, lively, clock = Calls(), Calls(), Clock(wall)
    ours = Schedule(clock, lambda _: None, lambda _, __: None)
    ours.every("still", SHORT, still)
    wall.ahead = 0.0
    witness = schedule()
    witness.every("lively", SHORT, lively)
    ours.start()
    witness.start()
    await lively.reach(5)
    assert still.times == []
    step = clock.notice_step()
    assert step is not None
    assert step.total_seconds() == pytest.approx(-3600, abs=1)
    ours.rearm()
    await still.reach(3)
    ours.stop()


async def test_a_step_forward_by_decades_is_leapt_over(schedule: Make, wall: Wall, heard: Heard) -> None:
    """A machine without a battery clock begins in 1970, and its clock is set when the network is up."""
    wall.ahead = -YEARS
    calls, ours = Calls(), schedule()
    ours.every("sweep", SHORT, calls)
    began = time.monotonic()
    ours.start()
    await calls.reach(5)
    assert time.monotonic() - began < PATIENCE
    assert len(calls.times) < 20, "what was run over is not made up for"
    assert heard.skipped == []


async def test_a_loop_that_was_held_up_calls_once_and_goes_on(schedule: Make, heard: Heard) -> None:
    calls, ours = Calls(), schedule()
    ours.every("sweep", SHORT, calls)
    ours.start()
    await calls.reach(1)
    until = time.monotonic() + 10 * SHORT.total_seconds()
    while time.monotonic() < until:  # a stall
        pass
    await calls.reach(3)
    resumed = calls.times[1:3]
    assert resumed[1] - resumed[0] < 10 * SHORT.total_seconds()
    assert len([at for at in calls.times if at < until + 0.001]) <= 2
    assert heard.skipped == []


async def test_after_stop_nothing_is_called(schedule: Make) -> None:
    calls, witness, ours, other = Calls(), Calls(), schedule(), schedule()
    ours.every("sweep", SHORT, calls)
    other.every("witness", SHORT, witness)
    ours.start()
    other.start()
    await calls.reach(3)
    ours.stop()
    called = len(calls.times)
    await witness.reach(len(witness.times) + 5)
    assert len(calls.times) == called


@pytest.mark.parametrize("turns", range(6))
async def test_a_call_that_is_already_under_way_to_the_loop_is_not_made_after_stop(
    schedule: Make, turns: int
) -> None:
    calls, ours = Calls(), schedule()
    ours.every("sweep", SHORT, calls)
    ours.start()
    for _ in range(turns):  # the library needs some from timer to call, and one more to stop
        await asyncio.sleep(0)
    called = len(calls.times)
    ours.stop()
    for _ in range(6):
        await asyncio.sleep(0)
    assert len(calls.times) == called


async def test_after_stop_no_timer_is_left(schedule: Make) -> None:
    loop: Any = asyncio.get_running_loop()
    calls, ours = Calls(), schedule()
    ours.every("sweep", LONG, calls)
    ours.start()
    await calls.reach(1)
    ours.stop()
    await asyncio.sleep(0)
    assert [
        timer for timer in loop._scheduled if not timer.cancelled() and timer.when() > loop.time() + 60
    ] == []


async def test_stop_is_harmless_twice_and_before_the_start(schedule: Make) -> None:
    ours = schedule()
    ours.stop()
    ours.start()
    ours.stop()
    await asyncio.sleep(0)
    ours.stop()


async def test_it_says_nothing_in_the_log_of_each_run(
    schedule: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    calls, ours = Calls(), schedule()
    ours.every("sweep", SHORT, calls)
    ours.start()
    await calls.reach(3)
    assert [r for r in caplog.records if r.name.startswith("apscheduler")] == []


# --- in groups ------------------------------------------------------------------------------------------


async def test_what_has_the_same_period_runs_in_few_jobs(schedule: Make) -> None:
    jobs, ours = [Calls() for _ in range(100)], schedule()
    for number, calls in enumerate(jobs):
        ours.every(f"sweep {number}", SHORT, calls)
    ours.start()
    for calls in jobs:
        await calls.reach(3)
    assert len(ours._scheduler.get_jobs()) == 4


async def test_one_that_joins_a_running_group_is_called_now(schedule: Make) -> None:
    early, late, ours = Calls(), Calls(), schedule()
    ours.every("early", LONG, early)
    ours.start()
    await early.reach(1)
    ours.every("late", LONG, late)
    await late.reach(1)
    assert len(early.times) == 1


async def test_the_first_of_a_group_may_go_and_come_again(schedule: Make) -> None:
    first, second, ours = Calls(), Calls(), schedule()
    ours.every("first", SHORT, first)
    ours.every("second", SHORT, second)
    ours.start()
    await first.reach(1)
    ours.cancel("first")
    so_far = len(first.times)
    await second.reach(len(second.times) + 3)
    assert len(first.times) == so_far
    ours.every("first", 2 * SHORT, first)
    await first.reach(so_far + 2)


async def test_a_call_that_is_cancelled_by_one_before_it_is_not_made(schedule: Make) -> None:
    calls, ours = Calls(), schedule()
    ours.every("cancels", LONG, lambda: ours.cancel("cancelled"))
    ours.every("cancelled", LONG, calls)
    after = Calls()
    ours.every("after", LONG, after)
    ours.start()
    await after.reach(1)
    assert calls.times == []
