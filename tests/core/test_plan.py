"""The plan: even phases that stay where they are, and intervals that fit their budget."""

import math
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.plan import (
    crowding,
    fitting_interval,
    in_phase_order,
    interval_in_force,
    requests_per_minute,
    seconds_to_first,
    slots_needed,
)

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
EPOCH = 1_782_907_200.0  # a whole minute, and a whole hour

ids = st.lists(st.text(min_size=1, max_size=20), unique=True, min_size=1, max_size=60)
epochs = st.floats(1e9, 4e9)
intervals = st.integers(1000, 86_400_000).map(lambda ms: timedelta(milliseconds=ms))
counts = st.integers(1, 100_000)
budgets = st.integers(1, 10_000)


def phases(order: list[str], interval: float = 60.0) -> dict[str, float]:
    return {id_: rank * interval / len(order) for rank, id_ in enumerate(order)}


@given(ids)
def test_the_polling_order_is_of_the_ids_alone(listed: list[str]) -> None:
    order = in_phase_order(listed)
    assert sorted(order) == sorted(listed)
    assert in_phase_order(reversed(listed)) == order
    assert in_phase_order(sorted(listed)) == order


def test_the_polling_order_is_the_same_in_every_version_and_not_the_alphabets() -> None:
    assert in_phase_order(["a", "b", "c", "d", "e", "f"]) == ["e", "f", "c", "a", "b", "d"]


@given(ids, st.text(min_size=1, max_size=20))
def test_one_more_connection_moves_each_other_by_at_most_its_share(listed: list[str], new: str) -> None:
    before = phases(in_phase_order(listed))
    after = phases(in_phase_order({*listed, new}))
    assert all(abs(after[id_] - phase) <= 60.0 / len(after) + 1e-9 for id_, phase in before.items())


@pytest.mark.parametrize(
    ("past", "rank", "seconds"),
    [(0, 0, 0), (0, 1, 15), (0, 3, 45), (10, 0, 50), (10, 1, 5), (15, 1, 0), (16, 1, 59), (59, 3, 46)],
)
def test_the_kth_of_n_is_due_at_its_share_of_the_interval(past: int, rank: int, seconds: int) -> None:
    assert seconds_to_first(EPOCH + past, MINUTE, rank, 4) == seconds


@given(epochs, intervals, st.integers(1, 5000), st.data())
def test_the_first_poll_is_due_within_the_interval_and_on_the_epochs_grid(
    epoch: float, interval: timedelta, count: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, count - 1))
    period = interval.total_seconds()
    wait = seconds_to_first(epoch, interval, rank, count)
    assert 0 <= wait < period
    off = (Fraction(epoch) + Fraction(wait) - Fraction(period) * rank / count) / Fraction(period)
    assert abs(off - round(off)) * Fraction(period) < Fraction(1, 100_000)


@given(st.integers(10**9, 4 * 10**9), st.integers(0, 10**7), st.integers(1, 3600), st.integers(1, 1000))
def test_a_restart_does_not_move_the_phase(start: int, later: int, seconds: int, count: int) -> None:
    interval = timedelta(seconds=seconds)
    for rank in {0, count // 2, count - 1}:
        first = start + seconds_to_first(start, interval, rank, count)
        again = start + later + seconds_to_first(start + later, interval, rank, count)
        turns = (again - first) / seconds
        assert abs(turns - round(turns)) * seconds < 1e-5


@pytest.mark.parametrize("count", [1, 2, 3, 7, 59, 60, 61, 160])
def test_the_waits_of_a_site_are_even(count: int) -> None:
    waits = sorted(seconds_to_first(EPOCH + 17.3, MINUTE, rank, count) for rank in range(count))
    gaps = [later - earlier for earlier, later in zip(waits, [*waits[1:], waits[0] + 60], strict=True)]
    assert gaps == pytest.approx([60 / count] * count)


@pytest.mark.parametrize(
    ("count", "seconds", "rate"), [(60, 60, 60), (1, 15, 4), (320, 120, 160), (29, 58, 30), (0, 60, 0)]
)
def test_a_plan_asks_for_so_many_requests_a_minute(count: int, seconds: int, rate: int) -> None:
    assert requests_per_minute(count, timedelta(seconds=seconds)) == rate


def fits(count: int, budget: int, interval: timedelta) -> bool:
    """By the plain words of the rule: 95 % of the budget, 8 slots at 300 ms an answer."""
    in_flight = Fraction(count * 3, 10) / Fraction(interval / SECOND)
    return requests_per_minute(count, interval) <= 0.95 * budget and in_flight <= 8


@given(counts, budgets)
def test_the_fitting_interval_fits_and_a_second_less_does_not(count: int, budget: int) -> None:
    interval = fitting_interval(count, budget)
    assert interval >= SECOND
    assert interval % SECOND == timedelta()
    assert fits(count, budget, interval)
    if interval > SECOND:
        assert not fits(count, budget, interval - SECOND)


def test_an_interval_that_fits_is_not_stretched_again_for_any_small_site() -> None:
    for count in range(1, 400):
        for budget in (1, 15, 30, 60, 160, 200):
            fitting = fitting_interval(count, budget)
            assert interval_in_force(count, budget, fitting) == fitting, (count, budget)


@given(counts, budgets, intervals)
def test_the_interval_in_force_is_the_configured_one_or_stretched_to_fit(
    count: int, budget: int, interval: timedelta
) -> None:
    in_force = interval_in_force(count, budget, interval)
    assert in_force >= interval
    assert requests_per_minute(count, in_force) <= budget
    assert (in_force == interval) == fits(count, budget, interval)


def test_a_plan_of_95_percent_of_its_budget_stays_and_one_above_is_stretched() -> None:
    assert interval_in_force(19, 20, 60 * SECOND) == 60 * SECOND
    assert interval_in_force(20, 20, 60 * SECOND) == 64 * SECOND


def test_a_site_is_stretched_to_what_its_slots_carry_where_the_budget_would_allow_more() -> None:
    assert interval_in_force(30, 10_000, SECOND) == 2 * SECOND
    assert interval_in_force(26, 10_000, SECOND) == SECOND


@pytest.mark.parametrize(
    ("fixed", "growing", "slots", "factor"),
    [(0, 0, 1, 1), (10, 10, 6, 1), (10, 20, 6, 2), (0, 30, 3, 3), (20, 1, 6, math.inf), (30, 1, 6, math.inf)],
)
def test_sites_that_grow_slow_down_until_all_fit_beside_the_others(
    fixed: float, growing: float, slots: int, factor: float
) -> None:
    assert crowding(fixed, growing, slots) == pytest.approx(factor)


@given(st.floats(0, 1e6), st.floats(0.001, 1e6), st.integers(1, 10_000))
def test_what_has_slowed_down_fits(fixed: float, growing: float, slots: int) -> None:
    factor = crowding(fixed, growing, slots)
    assert factor >= 1
    if factor < math.inf:
        assert (fixed + growing / factor) * 0.3 <= slots * (1 + 1e-9)


@pytest.mark.parametrize(
    ("rate", "slots"),
    [
        (0, 0),
        (0.001, 1),
        (1, 1),
        (3.4, 2),
        (10, 3),
        (10.1, 4),
        (1 / 0.3, 1),
        (1000, 300),
        (sum([1 / 15] * 50), 1),
    ],
)
def test_slots_are_what_is_in_flight_at_once_at_300_ms_an_answer(rate: float, slots: int) -> None:
    assert slots_needed(rate) == slots
