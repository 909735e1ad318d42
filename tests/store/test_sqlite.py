"""The store: all or nothing, in order, once; it forgets in pieces, and brings older files forward."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from monitor.clock import Clock
from monitor.errors import CannotStartError
from monitor.store import Booking
from monitor.store.sqlite.file import File, open_file
from monitor.store.sqlite.schema import APPLICATION_ID, MIGRATIONS, VERSION
from tests.store.samples import change, connection, state

DAY: Final = timedelta(days=1)
BROKEN_STATE: Final = Booking(connection(9), state(failures_in_a_row=None))
BROKEN_TRANSITION: Final = change(9, connection(9), to_status=None)


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
