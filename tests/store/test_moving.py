"""All of a store in another one, by whatever engines: the same to whoever reads it, or nothing at all."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from monitor.clock import Clock
from monitor.errors import CannotStartError, MonitorError, StoreError
from monitor.store import Opened
from monitor.store.moving import move
from tests.postgresql import PostgreSQL
from tests.store.engines import Engine, Shared, SQLite
from tests.store.samples import START, Machine, change, connection


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, path: Path) -> Engine:
    if request.param == "sqlite":
        return SQLite(path.with_name("target.db"))
    return Shared(request.getfixturevalue("postgresql"))


async def filled(engine: Engine, clock: Clock) -> Opened:
    """A store in which some was told and some was not; closed, and what it held."""
    store = (await engine.open(clock)).store
    crowd = [connection(number) for number in range(30)]
    for turn in (3, 1, 2):
        await store.commit([change(turn, each, observed_at=START) for each in crowd], [])
    await store.commit([], [f"downtown-{each.id}-3" for each in crowd])
    await store.commit([change(1, connection(1, "uptown"), from_status=None, healthy=True)], [])
    held = Opened(store, await store.states(), await store.untold())
    await store.close()
    return held


def nothing(_: str) -> None:
    """No password to hide."""


@pytest.mark.usefixtures("postgresql")
async def test_what_one_store_held_is_in_the_other_in_its_order(
    engine: Engine, target: Engine, machine: Machine
) -> None:
    held = await filled(engine, machine.boot())
    counts = await move(engine.settings, target.settings, machine.boot(), nothing)
    assert counts == {"connection": 31, "transition": 91}
    opened = await target.open(machine.boot())
    assert (opened.known, opened.untold) == (held.known, held.untold)
    await opened.store.commit([change(9)], [])
    await opened.store.close()
    query = "SELECT transition_id FROM transition ORDER BY n"
    assert await target.rows(query) == [*await engine.rows(query), ("downtown-id-1-9",)]
    columns = "site, id, name, kept_at, healthy, status, transitions"
    same = f"SELECT {columns} FROM connection WHERE id <> 'id-1' ORDER BY site, id"  # noqa: S608
    assert await target.rows(same) == await engine.rows(same)


async def test_a_target_that_is_not_empty_is_refused_and_stays_as_it_is(
    engine: Engine, target: Engine, machine: Machine
) -> None:
    await filled(engine, machine.boot())
    opened = await target.open(machine.boot())
    await opened.store.commit([change(1)], [])
    await opened.store.close()
    with pytest.raises(CannotStartError, match=r"holds a store already; name a (file|database)"):
        await move(engine.settings, target.settings, machine.boot(), nothing)
    assert await target.rows("SELECT transition_id FROM transition") == [("downtown-id-1-1",)]


async def test_a_store_that_a_daemon_uses_is_neither_read_nor_filled(
    engine: Engine, target: Engine, clock: Clock
) -> None:
    for used in (engine, target):
        async with in_use(used, clock):
            with pytest.raises(CannotStartError, match="is in use by"):
                await move(engine.settings, target.settings, clock, nothing)


JOINED = """
    INSERT INTO node (name, incarnation, lock_key, expires_at, joined_at, version, urls)
    VALUES ('a', gen_random_uuid(), 1, now() + interval '1 minute', now(), '1', '{}')
"""


@asynccontextmanager
async def in_use(engine: Engine, clock: Clock) -> AsyncIterator[None]:
    """As by a daemon that runs."""
    opened = await engine.open(clock)
    if isinstance(engine, Shared):
        await engine.rows(JOINED)
    yield
    if isinstance(engine, Shared):
        await engine.rows("DELETE FROM node")
    await opened.store.close()


async def test_where_it_breaks_off_the_target_is_as_empty_as_before(
    path: Path, target: Engine, machine: Machine
) -> None:
    """Its connections are written by then, and its transitions cannot be read."""
    source = SQLite(path)
    await filled(source, machine.boot())
    await source.rows("ALTER TABLE transition RENAME COLUMN to_status TO gone")
    with pytest.raises(MonitorError):
        await move(source.settings, target.settings, machine.boot(), nothing)
    await (await target.open(machine.boot())).store.close()
    assert await target.rows("SELECT * FROM connection") == []
    assert await target.rows("SELECT * FROM transition") == []
    await source.rows("ALTER TABLE transition RENAME COLUMN gone TO to_status")
    counts = await move(source.settings, target.settings, machine.boot(), nothing)
    assert counts == {"connection": 31, "transition": 91}


async def test_what_postgresql_does_not_take_is_said_and_nothing_is_kept(
    path: Path, postgresql: PostgreSQL, machine: Machine
) -> None:
    source, shared = SQLite(path), Shared(postgresql)
    await filled(source, machine.boot())
    await source.rows("UPDATE transition SET observed_at = 'never' WHERE n = 91")
    with pytest.raises(StoreError, match="a transition holds what PostgreSQL does not take"):
        await move(source.settings, shared.settings, machine.boot(), nothing)
    assert await shared.rows("SELECT * FROM connection") == []


async def test_a_source_that_is_not_there_is_said(path: Path, target: Engine, clock: Clock) -> None:
    with pytest.raises(CannotStartError, match=f"there is no {path}; name the store that is to be copied"):
        await move(SQLite(path).settings, target.settings, clock, nothing)


async def test_a_database_without_our_tables_is_no_source_and_stays_as_it_is(
    path: Path, postgresql: PostgreSQL, clock: Clock
) -> None:
    source = Shared(postgresql)
    with pytest.raises(CannotStartError) as refused:
        await move(source.settings, SQLite(path).settings, clock, nothing)
    assert str(refused.value) == (
        f"there is nothing of ours in {source.settings.place} that its user may read; "
        "name the store that is to be copied in --from"
    )
    ours = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'wix%'"
    assert await source.rows(ours) == []
    assert files_beside(path) == {}


@pytest.mark.parametrize("made", ["", "CREATE TABLE dashboards (x); PRAGMA user_version = 1"])
async def test_a_file_that_is_not_ours_is_no_source_and_stays_as_it_is(
    path: Path, clock: Clock, made: str
) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(made)
    before = files_beside(path)
    with pytest.raises(CannotStartError, match=r"there is nothing of ours in .*/state\.db that its user may"):
        await move(SQLite(path).settings, SQLite(path.with_name("target.db")).settings, clock, nothing)
    assert files_beside(path) == before


def files_beside(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.parent.iterdir()}


def scribble(path: Path) -> None:
    path.write_bytes(b"#" * 4096)


async def test_a_file_that_is_no_database_is_no_source(path: Path, clock: Clock) -> None:
    scribble(path)
    with pytest.raises(CannotStartError, match=r"cannot be read \(file is not a database\); is it the store"):
        await move(SQLite(path).settings, SQLite(path.with_name("target.db")).settings, clock, nothing)


@pytest.mark.parametrize(
    ("later", "mend"),
    [(-1, "start a daemon of this version on it once"), (1, "use the version that writes it")],
)
async def test_a_source_of_another_version_is_refused_and_stays_as_it_is(
    engine: Engine, path: Path, machine: Machine, later: int, mend: str
) -> None:
    await filled(engine, machine.boot())
    its = await version_of(engine, later)
    target = SQLite(path.with_name("target.db"))
    with pytest.raises(CannotStartError, match=f"has schema {its}, this version copies .*; {mend}"):
        await move(engine.settings, target.settings, machine.boot(), nothing)
    assert await version_of(engine) == its


async def version_of(engine: Engine, later: int = 0) -> int:
    """Its version, which is another one from now on."""
    if isinstance(engine, Shared):
        [(its,)] = await engine.rows(f"UPDATE migration SET version = version + {later} RETURNING version")  # noqa: S608
        return int(its)
    [(was,)] = await engine.rows("PRAGMA user_version")
    await engine.rows(f"PRAGMA user_version = {was + later}")
    return int(was) + later


async def test_a_store_is_not_copied_into_itself(engine: Engine, machine: Machine) -> None:
    await filled(engine, machine.boot())
    with pytest.raises(CannotStartError, match="is the configured store itself"):
        await move(engine.settings, engine.settings, machine.boot(), nothing)


async def test_a_database_that_has_another_name_is_not_waited_for_for_ever(
    postgresql: PostgreSQL, machine: Machine
) -> None:
    shared = Shared(postgresql)
    await filled(shared, machine.boot())
    again = Shared(postgresql)
    again.url = shared.url.replace("127.0.0.1", "localhost")
    with pytest.raises(MonitorError, match="lock timeout"):
        await move(shared.settings, again.settings, machine.boot(), nothing)
