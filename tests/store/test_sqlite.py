"""The store: all or nothing, in order, once; it forgets in pieces, and brings older files forward."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

import msgspec
import pytest

from monitor.clock import Clock
from monitor.core.model import Status
from monitor.errors import CannotStartError
from monitor.store import Booking
from monitor.store.sqlite.file import File, open_file
from monitor.store.sqlite.schema import APPLICATION_ID, MIGRATIONS, VERSION
from tests.store.samples import ANNA, MINUTE, START, Machine, change, connection, state, transition

DAY: Final = timedelta(days=1)
BROKEN_STATE: Final = Booking(connection(9), state(failures_in_a_row=None))
BROKEN_TRANSITION: Final = change(9, connection(9), to_status=None)


def test_a_new_store_knows_nothing(store: File) -> None:
    assert store.states() == {}
    assert store.untold() == []


def test_a_state_and_its_change_are_kept_together(store: File) -> None:
    assert store.commit([change(1)], []) == 1
    assert store.states() == {("downtown", "id-1"): state(transitions=1)}
    assert store.untold() == [transition(1)]


def test_what_was_committed_is_there_for_the_next_process(path: Path, machine: Machine) -> None:
    first = open_file(path, machine.boot()).file
    first.commit([change(1)], [])
    first.close()
    opened = open_file(path, machine.boot())
    assert opened.set_aside is None
    assert opened.file.states() == {("downtown", "id-1"): state(transitions=1)}
    assert opened.file.untold() == [transition(1)]
    opened.file.close()


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("broken", [BROKEN_STATE, BROKEN_TRANSITION], ids=["state", "transition"])
def test_a_commit_is_kept_whole_or_not_at_all(store: File, broken: Booking, place: int) -> None:
    store.commit([change(1)], [])
    before = store.states()
    bookings = [change(number, connection(number)) for number in (2, 3, 4)]
    bookings.insert(place, broken)
    with pytest.raises(sqlite3.IntegrityError):
        store.commit(bookings, [transition(1).transition_id])
    assert store.states() == before
    assert store.untold() == [transition(1)]


def test_after_a_commit_that_failed_the_next_one_is_kept(store: File) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        store.commit([change(1), BROKEN_STATE], [])
    store.commit([change(1), change(2)], [])
    assert store.untold() == [transition(1), transition(2)]


def test_a_value_too_large_for_the_file_leaves_nothing_behind(store: File) -> None:
    with pytest.raises(OverflowError):
        store.commit([change(1), Booking(connection(2), state(transitions=2**63))], [])
    assert store.states() == {}
    assert store.commit([change(1)], []) == 1


def test_the_untold_are_told_in_the_order_of_their_commits(store: File) -> None:
    """Neither ids nor moments decide it: the clock may have been set back."""
    numbers = [7, 3, 9, 1]
    for number in numbers[:2]:
        store.commit([change(number, observed_at=START - number * MINUTE)], [])
    store.commit([change(number, observed_at=START - number * MINUTE) for number in numbers[2:]], [])
    assert [told.transition_id[-1] for told in store.untold()] == ["7", "3", "9", "1"]


def test_what_was_marked_is_not_told_again(store: File) -> None:
    store.commit([change(1), change(2), change(3)], [])
    store.commit([], [transition(1).transition_id, transition(3).transition_id])
    assert store.untold() == [transition(2)]


def test_a_mark_of_something_unknown_does_no_harm(store: File) -> None:
    store.commit([change(1)], ["of a purged one"])
    assert store.untold() == [transition(1)]


def test_a_transition_that_comes_twice_is_kept_once_as_it_first_was(store: File) -> None:
    store.commit([change(1)], [])
    store.commit([], [transition(1).transition_id])
    store.commit([change(1, to_status=Status.ERROR), change(2)], [])
    assert store.untold() == [transition(2)]


def test_the_newest_state_is_the_one_that_is_kept(store: File) -> None:
    store.commit([Booking(ANNA, state(transitions=1)), Booking(ANNA, state(transitions=2))], [])
    store.commit([Booking(ANNA, state(transitions=3))], [])
    assert store.states() == {("downtown", "id-1"): state(transitions=3)}


def test_a_new_name_keeps_the_state(store: File, path: Path) -> None:
    store.commit([Booking(ANNA, state(transitions=1))], [])
    store.commit([Booking(msgspec.structs.replace(ANNA, name="anna-google"), state(transitions=2))], [])
    assert store.states() == {("downtown", "id-1"): state(transitions=2)}
    assert rows(path, "SELECT name FROM connection") == [("anna-google",)]


def test_two_sites_with_the_same_id_are_two_connections(store: File) -> None:
    store.commit([change(1), change(2, connection(1, "uptown"))], [])
    assert store.states() == {
        ("downtown", "id-1"): state(transitions=1),
        ("uptown", "id-1"): state(transitions=2),
    }
    assert [told.site for told in store.untold()] == ["downtown", "uptown"]


@pytest.mark.parametrize("name", ["café ☕", "a'; DROP TABLE connection; --", "x" * 300, "\u0301\U0001f600"])
def test_an_id_is_kept_as_it_is_whatever_it_says(store: File, name: str) -> None:
    store.commit([change(1, msgspec.structs.replace(ANNA, id=name, name=name))], [])
    assert list(store.states()) == [("downtown", name)]
    assert [told.connection_id for told in store.untold() if hasattr(told, "connection_id")] == [name]


def test_a_purge_forgets_what_is_older_than_the_retention(store: File, path: Path, machine: Machine) -> None:
    for number in (1, 2, 3):
        at = START - (40 - 10 * number) * DAY
        store.commit([change(number, observed_at=at)], [])
        store.commit([], [transition(number).transition_id])
    watched = {("downtown", "id-1")}
    assert store.purge(20 * DAY, watched) == 0, "the first status ended just then"
    machine.run(DAY)
    assert store.purge(20 * DAY, watched) == 1
    kept = rows(path, "SELECT transition_id FROM transition ORDER BY n")
    assert kept == [(transition(2).transition_id,), (transition(3).transition_id,)]


def test_a_status_that_lasts_is_never_purged_while_its_connection_is_known(
    store: File, path: Path, machine: Machine
) -> None:
    store.commit([change(1)], [])
    store.commit([], [transition(1).transition_id])
    machine.run(1000 * DAY)
    assert store.purge(DAY, {("downtown", "id-1")}) == 0
    assert store.purge(DAY, set()) == 2, "its connection and its last status"
    assert rows(path, "SELECT n FROM transition") == []


def test_what_was_never_told_outlives_the_retention(store: File) -> None:
    store.commit([change(1, observed_at=START - 100 * DAY)], [])
    assert store.purge(DAY, {("downtown", "id-1")}) == 0
    assert store.untold() == [transition(1, observed_at=START - 100 * DAY)]


def test_a_connection_is_forgotten_only_when_nobody_watches_it_any_more(
    store: File, machine: Machine
) -> None:
    store.commit([Booking(connection(number), state()) for number in (1, 2)], [])
    machine.run(DAY)
    store.commit([Booking(connection(3), state())], [])
    machine.run(DAY)
    assert store.purge(1.5 * DAY, {("downtown", "id-1")}) == 1
    assert set(store.states()) == {("downtown", "id-1"), ("downtown", "id-3")}


def test_a_purge_takes_a_bounded_piece_at_a_time_and_comes_to_an_end(store: File, machine: Machine) -> None:
    old = [change(number, connection(number), observed_at=START - DAY) for number in range(5000)]
    store.commit(old, [])
    store.commit([], [told.transition_id for told in store.untold()])
    machine.run(2 * DAY)
    pieces = [store.purge(DAY, set()) for _ in range(4)]
    assert sum(pieces) == 10_000
    assert max(pieces) <= 4000
    assert pieces[-1] == 0
    assert store.states() == {}


def test_a_purge_after_the_clock_was_set_back_forgets_nothing(
    store: File, clock: Clock, machine: Machine
) -> None:
    store.commit([change(1), change(2, connection(2))], [])
    store.commit([], [told.transition_id for told in store.untold()])
    machine.wall -= timedelta(hours=1).total_seconds()
    clock.notice_step()
    assert store.purge(MINUTE, set()) == 0


def test_many_marks_and_bookings_are_one_commit(store: File) -> None:
    """However long the backlog of a disk that was full for a while."""
    numbers = range(3000)
    store.commit([change(number, connection(number)) for number in numbers], [])
    marks = [told.transition_id for told in store.untold()]
    assert store.commit([change(5000)], marks) == 1
    assert store.untold() == [transition(5000)]


@pytest.mark.parametrize("version", range(VERSION))
def test_a_file_of_any_older_version_is_brought_forward(path: Path, clock: Clock, version: int) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")  # this alone makes a file, without a table in it
        for number, script in enumerate(MIGRATIONS[:version], start=1):
            db.executescript(f"{script}; PRAGMA user_version = {number}")
    opened = open_file(path, clock)
    assert opened.set_aside is None
    opened.file.commit([change(1)], [])
    opened.file.close()
    fresh = open_file(path.with_name("fresh.db"), clock)
    fresh.file.close()
    tables = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
    assert rows(path, tables) == rows(path.with_name("fresh.db"), tables)
    assert rows(path, "PRAGMA user_version") == [(VERSION,)]


@pytest.mark.parametrize("version", [0, 1, 7])
def test_another_programs_database_is_refused_and_left_as_it_is(
    path: Path, clock: Clock, version: int
) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"CREATE TABLE dashboards (x); PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(CannotStartError, match=r"is another program.s database; name another"):
        open_file(path, clock)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir() if "broken" in each.name or "-wal" in each.name] == []


def test_a_log_without_its_file_is_set_aside_and_not_cleared_away(path: Path, clock: Clock) -> None:
    log = path.with_name(f"{path.name}-wal")
    log.write_bytes(b"what was committed before somebody removed the file")
    opened = open_file(path, clock)
    assert opened.set_aside is not None
    kept = opened.set_aside.with_name(f"{opened.set_aside.name}-wal")
    assert kept.read_bytes() == b"what was committed before somebody removed the file"
    opened.file.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_removed_is_noticed_at_the_next_commit(
    store: File, path: Path, *, replaced: bool
) -> None:
    path.unlink()
    if replaced:
        path.write_bytes(b"")
    with pytest.raises(sqlite3.OperationalError, match="was removed or replaced; restart the monitor"):
        store.commit([change(1)], [])


def test_a_clock_that_leapt_ahead_since_the_last_run_empties_no_history(
    path: Path, clock: Clock, machine: Machine
) -> None:
    first = open_file(path, clock).file
    first.commit([change(number) for number in (1, 2)], [])
    first.commit([], [told.transition_id for told in first.untold()])
    first.close()
    machine.wall += timedelta(days=200).total_seconds()
    clock.notice_step()
    store = open_file(path, clock).file
    assert store.purge(90 * DAY, set()) == 0
    assert len(store.states()) == 1
    store.close()


def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(path: Path, clock: Clock) -> None:
    with closing(sqlite3.connect(path)) as db:
        ours = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION + 1}"
        db.executescript(f"CREATE TABLE what_is_to_come (x); {ours}")
    with pytest.raises(CannotStartError) as refused:
        open_file(path, clock)
    assert str(refused.value) == (
        f"{path} was written by a newer version (schema {VERSION + 1}, this one knows {VERSION}); "
        "run that version, or name another file in store.url"
    )
    assert rows(path, "SELECT name FROM sqlite_schema") == [("what_is_to_come",)]
    assert [each.name for each in path.parent.iterdir() if "broken" in each.name] == []


def test_every_commit_is_synced_to_the_disk_and_readers_are_never_in_the_way(store: File, path: Path) -> None:
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]
    assert [tuple(row) for row in store._db.execute("PRAGMA synchronous")] == [(2,)]
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM transition").fetchone() == (0,)
        store.commit([change(1)], [])
        assert reader.execute("SELECT count(*) FROM transition").fetchone() == (0,)
    assert rows(path, "SELECT count(*) FROM transition") == [(1,)]


def test_a_link_leads_to_one_store_with_one_lock(path: Path, clock: Clock, store: File) -> None:
    store.commit([change(1)], [])
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(CannotStartError, match="is in use by process"):
        open_file(link, clock)


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """What another process reads in the file."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()
