"""The clock: steady inside, corrected at the edges, with a wall and a monotonic clock of ours."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.clock import Clock

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
NOTHING = timedelta()


@dataclass
class Machine:
    """A machine whose clocks do as they are told."""

    wall: float = START.timestamp()
    monotonic: float = 1000.0

    def clock(self) -> Clock:
        return Clock(lambda: self.wall, lambda: self.monotonic)

    def pass_(self, seconds: float, *, drift: float = 0.0) -> None:
        """Let time pass; the wall clock gains `drift` on it."""
        self.monotonic += seconds
        self.wall += seconds + drift

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.wall += seconds


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_it_starts_at_wall_time_in_aware_utc(machine: Machine) -> None:
    now = machine.clock().now()
    assert now == START
    assert now.tzinfo is UTC


def test_it_runs_with_the_monotonic_clock(machine: Machine) -> None:
    clock = machine.clock()
    machine.pass_(90.5)
    assert clock.now() == START + timedelta(seconds=90.5)
    assert clock.monotonic() == 1090.5


@pytest.mark.parametrize("step", [timedelta(days=1), timedelta(hours=-1), timedelta(seconds=1)])
def test_a_step_is_noticed_once_and_applied_only_at_the_edge(machine: Machine, step: timedelta) -> None:
    clock = machine.clock()
    before = clock.now()
    machine.pass_(10)
    machine.step(step.total_seconds())
    assert clock.notice_step() == step
    assert clock.notice_step() is None
    assert clock.now() - before == timedelta(seconds=10)
    assert clock.wall(clock.now()) == START + timedelta(seconds=10) + step
    assert clock.wall(before) == before + step  # as the clock stands now, also for older moments


def test_until_a_step_is_noticed_the_edge_is_not_corrected(machine: Machine) -> None:
    clock = machine.clock()
    machine.step(3600)
    assert clock.wall(clock.now()) == START


def test_steps_add_up_and_a_step_back_undoes_one(machine: Machine) -> None:
    clock = machine.clock()
    machine.step(3600)
    assert clock.notice_step() == timedelta(hours=1)
    machine.step(60)
    assert clock.notice_step() == timedelta(minutes=1)
    assert clock.wall(clock.now()) == START + timedelta(hours=1, minutes=1)
    machine.step(-3660)
    assert clock.notice_step() == -timedelta(hours=1, minutes=1)
    assert clock.wall(clock.now()) == START


@pytest.mark.parametrize("step", [0.999, -0.999, 0.0])
def test_less_than_a_second_is_no_step(machine: Machine, step: float) -> None:
    clock = machine.clock()
    machine.step(step)
    assert clock.notice_step() is None
    assert clock.wall(START) == START


def test_slow_drift_adds_up_until_it_is_told_as_a_step_of_a_second(machine: Machine) -> None:
    clock = machine.clock()
    noticed = []
    for _ in range(16):
        machine.pass_(10, drift=0.125)
        noticed.append(clock.notice_step())
    assert noticed == [*[None] * 7, timedelta(seconds=1), *[None] * 7, timedelta(seconds=1)]
    assert clock.wall(clock.now()) == datetime.fromtimestamp(machine.wall, UTC)


def test_what_an_earlier_run_stored_is_placed_on_the_steady_clock(machine: Machine) -> None:
    clock = machine.clock()
    machine.step(3600)
    clock.notice_step()
    machine.pass_(30)
    stored = clock.wall(clock.now())
    assert clock.steady(stored) == clock.now()


move = st.tuples(st.floats(0, 10_000), st.floats(-100_000, 100_000), st.booleans())


@given(st.lists(move, max_size=30))
def test_it_never_goes_back_and_keeps_within_a_second_of_the_wall(
    moves: list[tuple[float, float, bool]],
) -> None:
    machine = Machine()
    clock = machine.clock()
    last = clock.now()
    for seconds, step, looked in moves:
        machine.pass_(seconds)
        machine.step(step)
        now = clock.now()
        assert now >= last
        last = now
        assert clock.steady(clock.wall(now)) == now
        if looked:
            clock.notice_step()
            off = datetime.fromtimestamp(machine.wall, UTC) - clock.wall(now)
            assert abs(off) < timedelta(seconds=1)


def test_the_machines_own_clocks_are_the_default() -> None:
    clock = Clock()
    first = clock.now()
    assert first.tzinfo is UTC
    assert NOTHING <= clock.now() - first < timedelta(minutes=1)
    assert clock.notice_step() is None
