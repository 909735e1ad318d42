"""A PostgreSQL that nodes share: who owns a unit writes it, nobody else does; and how a node comes in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from monitor.clock import Clock
from monitor.config.database import place_of
from monitor.core.shards import Unit, part_of
from monitor.errors import CannotStartError, StoreError, StoreUnreadableError
from monitor.store import Booking, reading
from monitor.store.postgresql.engine import Engine
from monitor.store.postgresql.held import Held
from monitor.store.postgresql.schema import MIGRATIONS, SCHEMA, VERSION
from monitor.store.postgresql.store import SharedStore, open_postgresql
from monitor.store.reading import Wanted
from tests.postgresql import PASSWORD, PostgreSQL
from tests.store.engines import Book, Shared
from tests.store.samples import ANNA, Machine, change, connection, state, transition

DOWNTOWN, UPTOWN = Unit("downtown", 0), Unit("uptown", 0)
KIM = connection(7, "uptown")
Node = tuple[SharedStore, Held]


@pytest.fixture
def shared(postgresql: PostgreSQL) -> Shared:
    return Shared(postgresql)


@pytest.fixture
async def nodes(shared: Shared, clock: Clock) -> AsyncIterator[tuple[Node, Node]]:
    """Two, of which the first owns both sites."""
    first, second = await shared.node(clock, "a"), await shared.node(clock, "b")
    await shared.claim(first[1], DOWNTOWN, UPTOWN)
    yield first, second
    await first[0].close()
    await second[0].close()


# Fencing


async def test_what_a_node_does_not_own_is_refused_and_all_else_is_kept(nodes: tuple[Node, Node]) -> None:
    (store, held), _ = nodes
    del held.epochs[UPTOWN]
    assert await store.commit([change(1), change(2, KIM)], []) == {("uptown", "id-7")}
    assert await store.states_of([DOWNTOWN, UPTOWN]) == {("downtown", "id-1"): state(transitions=1)}
    assert await store.untold_of([DOWNTOWN, UPTOWN]) == [transition(1)]


async def test_who_was_overtaken_writes_nothing_whatever_it_believes(
    nodes: tuple[Node, Node], shared: Shared
) -> None:
    (first, _), (second, held) = nodes
    await first.commit([change(1)], [])
    await shared.claim(held, DOWNTOWN)
    assert await first.commit([change(2), change(1, KIM)], []) == {("downtown", "id-1")}
    assert await second.states() == {("downtown", "id-1"): state(transitions=1)}
    assert not await second.commit([change(3)], [])
    assert await second.untold() == [transition(1), transition(3)]


async def test_an_owner_that_lost_a_unit_and_has_it_again_does_not_write_under_its_old_epoch(
    nodes: tuple[Node, Node], shared: Shared
) -> None:
    (store, held), _ = nodes
    old = held.epochs[DOWNTOWN]
    await shared.take(DOWNTOWN, uuid4())
    await shared.claim(held, DOWNTOWN)
    assert not await store.commit([change(1)], [])
    held.epochs[DOWNTOWN] = old
    assert await store.commit([change(2)], []) == {("downtown", "id-1")}


async def test_a_node_without_an_incarnation_writes_nothing_for_now_and_may_mark_what_it_told(
    nodes: tuple[Node, Node],
) -> None:
    (store, held), _ = nodes
    await store.commit([change(1)], [])
    held.incarnation = None
    with pytest.raises(StoreError, match="no lease at present"):
        await store.commit([change(2)], [])
    assert not await store.commit([], [transition(1).transition_id])
    assert await store.untold() == []


async def test_who_takes_a_unit_over_waits_for_a_commit_under_way_and_sees_it(
    nodes: tuple[Node, Node], shared: Shared
) -> None:
    (first, _), (second, held) = nodes
    await first.commit([change(1)], [])
    other = await asyncpg.connect(shared.url, server_settings={"search_path": SCHEMA})
    in_the_way = other.transaction()
    await in_the_way.start()
    await other.execute("SELECT 1 FROM connection FOR UPDATE")
    writing = asyncio.get_running_loop().create_task(first.commit([change(2)], []))
    await blocked(shared, 1)
    taking = asyncio.get_running_loop().create_task(shared.claim(held, DOWNTOWN))
    await blocked(shared, 2)
    await in_the_way.rollback()
    await other.close()
    assert not await writing
    await taking
    assert await second.untold_of([DOWNTOWN]) == [transition(1), transition(2)]


async def test_a_commit_that_waited_for_the_one_who_took_its_unit_over_writes_nothing(
    nodes: tuple[Node, Node], shared: Shared
) -> None:
    (first, _), (second, held) = nodes
    other = await asyncpg.connect(shared.url, server_settings={"search_path": SCHEMA})
    taking = other.transaction()
    await taking.start()
    await other.execute("UPDATE lease SET owner = $1, epoch = epoch + 1", held.incarnation)
    writing = asyncio.get_running_loop().create_task(first.commit([change(1), change(1, KIM)], []))
    await blocked(shared, 1)
    await taking.commit()
    await other.close()
    assert await writing == {("downtown", "id-1"), ("uptown", "id-7")}
    assert await second.states_of([DOWNTOWN, UPTOWN]) == {}


async def blocked(shared: Shared, count: int) -> None:
    """Until so many sessions wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '{}'"
    while (await shared.rows(waiting.format(shared.database)))[0][0] < count:
        pass


# Once, whatever happens


async def test_a_late_copy_of_an_older_commit_brings_back_no_state(
    nodes: tuple[Node, Node], shared: Shared
) -> None:
    """The engine may come to a statement long after we gave its connection up for lost."""
    (store, _), _ = nodes
    await store.commit([Booking(ANNA, state(transitions=5))], [])
    await shared.ask(lambda c: c.execute("UPDATE connection SET turn = 1000"))
    assert not await store.commit([Booking(ANNA, state(transitions=4))], [])
    assert await store.states_of([DOWNTOWN]) == {("downtown", "id-1"): state(transitions=5)}


async def test_the_next_owner_writes_over_whatever_turn_the_last_one_had(
    nodes: tuple[Node, Node], shared: Shared
) -> None:
    (first, _), (second, held) = nodes
    for number in range(1, 4):
        await first.commit([change(number)], [])
    await shared.claim(held, DOWNTOWN)
    await second.commit([Booking(ANNA, state(transitions=9))], [])
    assert await second.states() == {("downtown", "id-1"): state(transitions=9)}


async def test_a_commit_made_again_changes_nothing(nodes: tuple[Node, Node], shared: Shared) -> None:
    (store, _), _ = nodes
    for _ in range(2):
        assert not await store.commit([change(1), change(2)], [])
    assert await shared.rows("SELECT transition_id FROM transition ORDER BY n") == [
        ("downtown-id-1-1",),
        ("downtown-id-1-2",),
    ]


async def test_a_transition_says_which_node_wrote_it_under_which_epoch(
    nodes: tuple[Node, Node], shared: Shared
) -> None:
    (first, _), (second, held) = nodes
    await first.commit([change(1)], [])
    await shared.claim(held, DOWNTOWN)
    await second.commit([change(2)], [])
    assert await shared.rows("SELECT node, epoch FROM transition ORDER BY n") == [("a", 1), ("b", 2)]


# Units


async def test_a_site_in_parts_is_known_and_written_part_by_part(
    nodes: tuple[Node, Node], shared: Shared
) -> None:
    (first, ours), (second, theirs) = nodes
    ours.parts = theirs.parts = {"downtown": 4}
    crowd = [connection(number) for number in range(200)]
    parts = [Unit("downtown", number) for number in range(4)]
    await shared.claim(ours, *parts)
    assert not await first.commit([change(1, each) for each in crowd], [])
    await shared.claim(theirs, parts[2])
    its = {("downtown", each.id) for each in crowd if part_of(each.id, 4) == 2}
    assert len(its) > 20
    assert set(await second.states()) == its
    assert {(each.site, each.connection_id) for each in await second.untold()} == its
    assert await first.commit([change(2, each) for each in crowd], []) == its


async def test_claimers_and_writers_in_any_order_break_no_chain(shared: Shared, clock: Clock) -> None:
    """Each writer goes on from what it reads at its claim; a hole in the fence is a gap or a step back."""
    writers = [Writer(shared, *await shared.node(clock, f"node-{number}")) for number in range(3)]
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.write(40))
    for writer in writers:
        await writer.store.close()
    kept = await shared.rows("SELECT connection_id, transition_id FROM transition ORDER BY connection_id, n")
    assert len(kept) > 100
    for each in CROWD:
        numbers = [int(told.rpartition("-")[2]) for its_id, told in kept if its_id == each.id]
        assert numbers == list(range(1, len(numbers) + 1))
        last = await shared.rows(f"SELECT transitions FROM connection WHERE id = '{each.id}'")  # noqa: S608
        assert last == [(len(numbers),)]
    assert sum(writer.refused for writer in writers) > 0


CROWD = tuple(connection(number) for number in range(5))


class Writer:
    """Claims a site, goes on with what it finds, and is overtaken without being told."""

    def __init__(self, shared: Shared, store: SharedStore, held: Held) -> None:
        self.store = store
        self.refused = 0
        self._shared = shared
        self._held = held

    async def write(self, claims: int) -> None:
        for _ in range(claims):
            await self._shared.claim(self._held, DOWNTOWN)
            known = {key[1]: each.transitions for key, each in (await self.store.states()).items()}
            for _ in range(5):
                numbers = {each: known.get(each.id, 0) + 1 for each in CROWD}
                refused = await self.store.commit([change(n, each) for each, n in numbers.items()], [])
                if refused:
                    self.refused += 1
                    break
                known = {each.id: number for each, number in numbers.items()}


# A server that goes


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_after_the_server_went_a_commit_fails_and_then_goes_on(
    nodes: tuple[Node, Node], shared: Shared, how: str
) -> None:
    (store, _), _ = nodes
    await store.commit([change(1)], [])
    if how == "restart":
        shared.server.restart()
    else:
        shared.server.kill()
        with pytest.raises(StoreError):
            await store.commit([change(2)], [])
        shared.server.start()
    async with asyncio.timeout(20):
        while True:
            with suppress(StoreError):
                await store.commit([change(2)], [])
                break
    assert await store.untold() == [transition(1), transition(2)]


async def test_a_statement_that_waits_for_too_long_is_given_up_and_said(
    nodes: tuple[Node, Node], shared: Shared
) -> None:
    (store, _), _ = nodes
    await shared.ask(lambda c: c.execute(f"ALTER DATABASE {shared.database} SET lock_timeout = '50ms'"))
    await shared.ask(lambda c: c.execute(TERMINATE, shared.database))
    other = await asyncpg.connect(shared.url, server_settings={"search_path": SCHEMA})
    async with other.transaction():
        await other.execute("SELECT 1 FROM lease FOR UPDATE")
        with pytest.raises(StoreError, match=r"lock timeout|closed|terminating"):
            await store.commit([change(1)], [])
    await other.close()
    async with asyncio.timeout(20):
        while True:
            with suppress(StoreError):
                await store.commit([change(1)], [])
                break
    assert await store.untold() == [transition(1)]


TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
)


async def test_one_node_purges_at_a_time(nodes: tuple[Node, Node], shared: Shared, machine: Machine) -> None:
    (store, _), _ = nodes
    await store.commit([Booking(ANNA, state())], [])
    machine.run(timedelta(days=2))
    other = await asyncpg.connect(shared.url)
    async with other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock($1)", 0x57434D32)
        assert await store.purge(timedelta(days=1), set()) == 0
    await other.close()
    assert await store.purge(timedelta(days=1), set()) == 1


@pytest.mark.usefixtures("nodes")
async def test_no_acknowledged_commit_waits_for_a_later_sync(shared: Shared) -> None:
    """A database may have been told otherwise for others' sake."""
    await shared.ask(lambda c: c.execute(f"ALTER DATABASE {shared.database} SET synchronous_commit = off"))
    connection = await shared.way().connect()
    assert await connection.fetchval("SHOW synchronous_commit") == "on"
    assert await connection.fetchval("SHOW application_name") == "wix-calendar-monitor a"
    await connection.close()


# Reading beside the nodes


def test_where_no_node_ever_was_there_is_nothing_to_read(shared: Shared) -> None:
    with (
        pytest.raises(StoreUnreadableError, match=r"the daemon makes it: has it run with this store\.url"),
        reading(shared.settings),
    ):
        pass


def test_newer_tables_are_read_and_older_ones_are_not(shared: Shared, clock: Clock) -> None:
    book = Book(shared, clock)
    book.commit([change(1)], [])
    book.execute("INSERT INTO migration SELECT max(version) + 1 FROM migration")
    with book.reading() as reader:
        assert len(list(reader.seen(Wanted()))) == 1
    book.execute("UPDATE migration SET version = -version")
    told = f"this version reads {VERSION}; the daemon"
    with pytest.raises(StoreUnreadableError, match=told), book.reading():
        pass
    book.close()


def test_a_reader_writes_nothing(shared: Shared, clock: Clock) -> None:
    book = Book(shared, clock)
    with pytest.raises(StoreUnreadableError, match="read-only transaction"), book.reading() as reader:
        list(reader._ask("DELETE FROM connection RETURNING *", {}))
    book.close()


# Coming in


async def test_nodes_that_start_at_once_make_the_tables_once(shared: Shared, clock: Clock) -> None:
    async with asyncio.TaskGroup() as group:
        starts = [group.create_task(shared.node(clock, f"node-{number}")) for number in range(6)]
    for start in starts:
        await start.result()[0].close()
    assert await shared.rows("SELECT version FROM migration ORDER BY version") == [
        (number,) for number in range(1, VERSION + 1)
    ]


@pytest.mark.parametrize("version", range(1, VERSION + 1))
async def test_a_database_of_any_older_version_is_brought_forward(
    shared: Shared, clock: Clock, version: int
) -> None:
    older = "; ".join(MIGRATIONS[:version])
    made = "CREATE TABLE migration (version int PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now())"
    shared.server.sql(
        shared.database,
        f"CREATE SCHEMA {SCHEMA}; SET search_path = {SCHEMA}; {made}; {older};"
        f"INSERT INTO migration SELECT generate_series(1, {version})",
    )
    opened = await shared.open(clock)
    assert not await opened.store.commit([change(1)], [])
    await opened.store.close()


async def test_a_newer_schema_refuses_a_start_and_lets_who_runs_go_on(
    nodes: tuple[Node, Node], shared: Shared, clock: Clock
) -> None:
    """As when the nodes are replaced one by one."""
    (store, held), _ = nodes
    await store.commit([change(1)], [])
    await store.states()
    newer = "ALTER TABLE connection ADD to_come text; ALTER TABLE transition ADD to_come int DEFAULT 7"
    shared.server.sql(
        shared.database,
        f"SET search_path = {SCHEMA}; {newer}; INSERT INTO migration VALUES ({VERSION + 1})",  # noqa: S608
    )
    assert not await store.commit([change(2)], [])
    assert await store.untold() == [transition(1), transition(2)]
    assert len(await store.states_of(held.epochs)) == 1
    with pytest.raises(CannotStartError) as refused:
        await shared.node(clock)
    assert str(refused.value) == (
        f"{place_of(shared.url)} was written by a newer version "
        f"(schema {VERSION + 1}, this one knows {VERSION}); "
        "run that version, or name another database in store.url"
    )


async def test_what_must_be_granted_is_said(shared: Shared, clock: Clock) -> None:
    server, database = shared.server, shared.database
    server.sql(database, f"CREATE ROLE guest_of_{database} LOGIN PASSWORD 'guest'")
    shared.url = server.url(database, f"guest_of_{database}", "guest")
    server.sql(database, f"REVOKE CREATE ON DATABASE {database} FROM PUBLIC")
    with pytest.raises(CannotStartError) as refused:
        await shared.node(clock)
    assert str(refused.value) == (
        f"{place_of(shared.url)} does not let guest_of_{database} make or use the tables; as its owner run "
        f"CREATE SCHEMA {SCHEMA} AUTHORIZATION guest_of_{database}, "
        f"or GRANT CREATE ON DATABASE {database} TO guest_of_{database}"
    )
    server.sql(database, f"CREATE SCHEMA {SCHEMA}")
    with pytest.raises(CannotStartError, match=f"run GRANT USAGE, CREATE ON SCHEMA {SCHEMA} TO guest_of_"):
        await shared.node(clock)
    server.sql(database, f"DROP SCHEMA {SCHEMA}; CREATE SCHEMA {SCHEMA} AUTHORIZATION guest_of_{database}")
    store, _ = await shared.node(clock)
    await store.close()


@pytest.mark.parametrize(
    ("user", "password", "database", "told"),
    [
        ("postgres", "a-wrong-one", "postgres", 'password authentication failed for user "postgres"'),
        ("nobody-here", PASSWORD, "postgres", 'password authentication failed for user "nobody-here"'),
        ("postgres", PASSWORD, "nowhere", 'database "nowhere" does not exist'),
    ],
)
async def test_what_keeps_a_node_out_is_said_without_the_password(
    postgresql: PostgreSQL, clock: Clock, user: str, password: str, database: str, told: str
) -> None:
    engine = Engine(postgresql.url(database, user, password), "a")
    with pytest.raises(CannotStartError) as refused:
        await open_postgresql(engine, "a", Held(), clock)
    assert str(refused.value) == (
        f"postgresql://127.0.0.1:{postgresql.port}/{database} cannot be used ({told}); "
        "see that it runs and lets us in, and to store.url"
    )


async def test_where_nobody_listens_is_said(clock: Clock) -> None:
    with pytest.raises(
        CannotStartError, match=r"postgresql://127\.0\.0\.1:1/x cannot be used \(.*; see that"
    ):
        await open_postgresql(Engine("postgresql://u:secret@127.0.0.1:1/x", "a"), "a", Held(), clock)


async def test_a_database_that_cannot_hold_all_names_is_refused(postgresql: PostgreSQL, clock: Clock) -> None:
    postgresql.sql("postgres", "DROP DATABASE IF EXISTS latin")
    postgresql.sql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(
        CannotStartError, match="has the encoding LATIN1; make a database with ENCODING 'UTF8'"
    ):
        await open_postgresql(Engine(postgresql.url("latin"), "a"), "a", Held(), clock)


async def test_a_password_is_asked_for_at_each_new_connection(shared: Shared, clock: Clock) -> None:
    words = ["a-wrong-one"]
    engine = Engine(shared.server.url(shared.database, password=None), "a", lambda: words[-1])
    with pytest.raises(CannotStartError, match="password authentication failed"):
        await open_postgresql(engine, "a", Held(), clock)
    words.append(PASSWORD)
    opened = await open_postgresql(engine, "a", Held(), clock)
    assert await opened.store.states() == {}
    await opened.store.close()


async def test_a_password_that_cannot_be_read_is_a_failure_like_any_other(
    shared: Shared, clock: Clock
) -> None:
    def unreadable() -> str:
        raise ValueError("/run/secrets/word is empty; put the secret in it")

    engine = Engine(shared.server.url(shared.database, password=None), "a", unreadable)
    with pytest.raises(CannotStartError, match="/run/secrets/word is empty"):
        await open_postgresql(engine, "a", Held(), clock)
