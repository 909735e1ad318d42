"""A store, whichever engine keeps it: all or nothing, in order, once; and it forgets in pieces."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import msgspec
import pytest

from monitor.clock import Clock
from monitor.core.model import Status
from monitor.errors import StoreError
from monitor.store import Booking, Store
from tests.store.engines import Engine
from tests.store.samples import ANNA, MINUTE, START, Machine, change, connection, state, transition

DAY: Final = timedelta(days=1)
BROKEN_STATE: Final = Booking(connection(9), state(failures_in_a_row=None))
BROKEN_TRANSITION: Final = change(9, connection(9), to_status=None)


@pytest.fixture
async def store(engine: Engine, clock: Clock) -> AsyncIterator[Store]:
    opened = await engine.open(clock)
    assert opened.set_aside is None
    yield opened.store
    await opened.store.close()


async def test_a_new_store_knows_nothing(store: Store) -> None:
    assert await store.states() == {}
    assert await store.untold() == []


async def test_a_state_and_its_change_are_kept_together(store: Store) -> None:
    assert not await store.commit([change(1)], [])
    assert await store.states() == {("downtown", "id-1"): state(transitions=1)}
    assert await store.untold() == [transition(1)]


async def test_what_was_committed_is_there_for_the_next_process(machine: Machine, engine: Engine) -> None:
    first = (await engine.open(machine.boot())).store
    await first.commit([change(1)], [])
    await first.close()
    opened = await engine.open(machine.boot())
    assert opened.set_aside is None
    assert await opened.store.states() == {("downtown", "id-1"): state(transitions=1)}
    assert await opened.store.untold() == [transition(1)]
    await opened.store.close()


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("broken", [BROKEN_STATE, BROKEN_TRANSITION], ids=["state", "transition"])
async def test_a_commit_is_kept_whole_or_not_at_all(store: Store, broken: Booking, place: int) -> None:
    await store.commit([change(1)], [])
    before = await store.states()
    bookings = [change(number, connection(number)) for number in (2, 3, 4)]
    bookings.insert(place, broken)
    with pytest.raises(StoreError):
        await store.commit(bookings, [transition(1).transition_id])
    assert await store.states() == before
    assert await store.untold() == [transition(1)]


async def test_after_a_commit_that_failed_the_next_one_is_kept(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.commit([change(1), BROKEN_STATE], [])
    await store.commit([change(1), change(2)], [])
    assert await store.untold() == [transition(1), transition(2)]


async def test_a_value_too_large_to_be_kept_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises((OverflowError, StoreError)):
        await store.commit([change(1), Booking(connection(2), state(transitions=2**63))], [])
    assert await store.states() == {}
    assert not await store.commit([change(1)], [])


async def test_the_untold_are_told_in_the_order_of_their_commits(store: Store) -> None:
    """Neither ids nor moments decide it: the clock may have been set back."""
    numbers = [7, 3, 9, 1]
    for number in numbers[:2]:
        await store.commit([change(number, observed_at=START - number * MINUTE)], [])
    await store.commit([change(number, observed_at=START - number * MINUTE) for number in numbers[2:]], [])
    assert [told.transition_id[-1] for told in await store.untold()] == ["7", "3", "9", "1"]


async def test_what_was_marked_is_not_told_again(store: Store) -> None:
    await store.commit([change(1), change(2), change(3)], [])
    await store.commit([], [transition(1).transition_id, transition(3).transition_id])
    assert await store.untold() == [transition(2)]


async def test_a_mark_of_something_unknown_does_no_harm(store: Store) -> None:
    await store.commit([change(1)], ["of a purged one"])
    assert await store.untold() == [transition(1)]


async def test_a_transition_that_comes_twice_is_kept_once_as_it_first_was(store: Store) -> None:
    await store.commit([change(1)], [])
    await store.commit([], [transition(1).transition_id])
    await store.commit([change(1, to_status=Status.ERROR), change(2)], [])
    assert await store.untold() == [transition(2)]


async def test_the_newest_state_is_the_one_that_is_kept(store: Store) -> None:
    await store.commit([Booking(ANNA, state(transitions=1)), Booking(ANNA, state(transitions=2))], [])
    await store.commit([Booking(ANNA, state(transitions=3))], [])
    assert await store.states() == {("downtown", "id-1"): state(transitions=3)}


async def test_a_new_name_keeps_the_state(store: Store, engine: Engine) -> None:
    await store.commit([Booking(ANNA, state(transitions=1))], [])
    await store.commit([Booking(msgspec.structs.replace(ANNA, name="anna-google"), state(transitions=2))], [])
    assert await store.states() == {("downtown", "id-1"): state(transitions=2)}
    assert await engine.rows("SELECT name FROM connection") == [("anna-google",)]


async def test_two_sites_with_the_same_id_are_two_connections(store: Store) -> None:
    await store.commit([change(1), change(2, connection(1, "uptown"))], [])
    assert await store.states() == {
        ("downtown", "id-1"): state(transitions=1),
        ("uptown", "id-1"): state(transitions=2),
    }
    assert [told.site for told in await store.untold()] == ["downtown", "uptown"]


@pytest.mark.parametrize("name", ["café ☕", "a'; DROP TABLE connection; --", "x" * 300, "\u0301\U0001f600"])
async def test_an_id_is_kept_as_it_is_whatever_it_says(store: Store, name: str) -> None:
    await store.commit([change(1, msgspec.structs.replace(ANNA, id=name, name=name))], [])
    assert list(await store.states()) == [("downtown", name)]
    assert [told.connection_id for told in await store.untold() if hasattr(told, "connection_id")] == [name]


async def test_a_purge_forgets_what_is_older_than_the_retention(
    store: Store, machine: Machine, engine: Engine
) -> None:
    for number in (1, 2, 3):
        at = START - (40 - 10 * number) * DAY
        await store.commit([change(number, observed_at=at)], [])
        await store.commit([], [transition(number).transition_id])
    watched = {("downtown", "id-1")}
    assert await store.purge(20 * DAY, watched) == 0, "the first status ended just then"
    machine.run(DAY)
    assert await store.purge(20 * DAY, watched) == 1
    kept = await engine.rows("SELECT transition_id FROM transition ORDER BY n")
    assert kept == [(transition(2).transition_id,), (transition(3).transition_id,)]


async def test_a_status_that_lasts_is_never_purged_while_its_connection_is_known(
    store: Store, machine: Machine, engine: Engine
) -> None:
    await store.commit([change(1)], [])
    await store.commit([], [transition(1).transition_id])
    machine.run(1000 * DAY)
    assert await store.purge(DAY, {("downtown", "id-1")}) == 0
    assert await store.purge(DAY, set()) == 2, "its connection and its last status"
    assert await engine.rows("SELECT n FROM transition") == []


async def test_what_was_never_told_outlives_the_retention(store: Store) -> None:
    await store.commit([change(1, observed_at=START - 100 * DAY)], [])
    assert await store.purge(DAY, {("downtown", "id-1")}) == 0
    assert await store.untold() == [transition(1, observed_at=START - 100 * DAY)]


async def test_a_connection_is_forgotten_only_when_nobody_watches_it_any_more(
    store: Store, machine: Machine
) -> None:
    await store.commit([Booking(connection(number), state()) for number in (1, 2)], [])
    machine.run(DAY)
    await store.commit([Booking(connection(3), state())], [])
    machine.run(DAY)
    assert await store.purge(1.5 * DAY, {("downtown", "id-1")}) == 1
    assert set(await store.states()) == {("downtown", "id-1"), ("downtown", "id-3")}


async def test_a_purge_takes_a_bounded_piece_at_a_time_and_comes_to_an_end(
    store: Store, machine: Machine
) -> None:
    old = [change(number, connection(number), observed_at=START - DAY) for number in range(5000)]
    await store.commit(old, [])
    await store.commit([], [told.transition_id for told in await store.untold()])
    machine.run(2 * DAY)
    pieces = [await store.purge(DAY, set()) for _ in range(4)]
    assert sum(pieces) == 10_000
    assert max(pieces) <= 4000
    assert pieces[-1] == 0
    assert await store.states() == {}


async def test_a_purge_after_the_clock_was_set_back_forgets_nothing(
    store: Store, clock: Clock, machine: Machine
) -> None:
    await store.commit([change(1), change(2, connection(2))], [])
    await store.commit([], [told.transition_id for told in await store.untold()])
    machine.wall -= timedelta(hours=1).total_seconds()
    clock.notice_step()
    assert await store.purge(MINUTE, set()) == 0


async def test_many_marks_and_bookings_are_one_commit(store: Store) -> None:
    """However long the backlog of a disk that was full for a while."""
    numbers = range(3000)
    await store.commit([change(number, connection(number)) for number in numbers], [])
    marks = [told.transition_id for told in await store.untold()]
    assert not await store.commit([change(5000)], marks)
    assert await store.untold() == [transition(5000)]


async def test_a_clock_that_leapt_ahead_since_the_last_run_empties_no_history(
    clock: Clock, machine: Machine, engine: Engine
) -> None:
    first = (await engine.open(clock)).store
    await first.commit([change(number) for number in (1, 2)], [])
    await first.commit([], [told.transition_id for told in await first.untold()])
    await first.close()
    machine.wall += timedelta(days=200).total_seconds()
    clock.notice_step()
    store = (await engine.open(clock)).store
    assert await store.purge(90 * DAY, set()) == 0
    assert len(await store.states()) == 1
    await store.close()
