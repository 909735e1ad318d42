"""Our tables, made or brought up to date by the first node that comes; the others wait for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import randbits
from typing import TYPE_CHECKING, Final

import asyncpg

from monitor.errors import CannotStartError, StoreError
from monitor.store.postgresql.engine import POOLED, SESSIONS, Engine, telling_failures
from monitor.store.postgresql.schema import MIGRATIONS, SCHEMA, VERSION

if TYPE_CHECKING:
    from monitor.store.postgresql.engine import Connection

_OLDEST: Final = 13
_LOCK: Final = 0x57434D31  # of the whole database: `WCM1`, as SQLite's files of ours are marked
_WAIT_SECONDS: Final = 60.0  # for another node's migration

_TABLE: Final = """
    CREATE TABLE migration (version int PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now())
"""


async def bring_up_to_date(engine: Engine) -> None:
    """Make or change the tables as this version knows them; several nodes may try at once.

    Raises CannotStartError: it cannot be reached or changed, is too old, or a newer version was here.
    """
    way_in = "see that it runs and lets us in, and to store.url"
    async with first_session(engine, "used", way_in, "see to its log") as connection:
        await _bring_up_to_date(connection, engine.shown)


@asynccontextmanager
async def first_session(engine: Engine, done: str, way_in: str, trouble: str) -> AsyncIterator["Connection"]:
    """A session of a database that lends us sessions.

    Raises CannotStartError: it cannot be `done`, and what to see to where it lets nobody in, or fails later.
    """
    try:
        connection = await engine.connect()
    except StoreError as error:
        raise CannotStartError(f"{engine.shown} cannot be {done} ({error}); {way_in}") from error
    try:
        await _see_that_sessions_last(connection, engine)
        with telling_failures():
            yield connection
    except StoreError as error:
        raise CannotStartError(f"{engine.shown} cannot be {done} ({error}); {trouble}") from error
    finally:
        connection.terminate()


async def version_of(connection: "Connection") -> int | None:
    """How many migrations were made; None where there is nothing of ours."""
    try:
        found: int | None = await connection.fetchval("SELECT max(version) FROM migration")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return None
    return found


async def _see_that_sessions_last(session: "Connection", engine: Engine) -> None:
    """A proxy that lends a connection for a transaction only would lend ours, lock and all, to others.

    Raises CannotStartError.
    """
    try:
        other = await engine.connect()
    except StoreError as error:
        mend = f"a node has up to {SESSIONS} connections: see to a proxy's pool, and to the role's limit"
        raise CannotStartError(f"{engine.shown} lets us in once and not twice ({error}); {mend}") from error
    try:
        with telling_failures():
            if not await _are_apart(session, other):
                raise CannotStartError(POOLED)
    finally:
        other.terminate()


async def _are_apart(session: "Connection", other: "Connection") -> bool:
    name = f"of_session_{randbits(62)}"
    await session.execute(f"PREPARE {name} AS SELECT 1")
    if await _knows(other, name):
        return False
    async with other.transaction():
        await other.execute("SELECT 1")  # holds what was lent to it
        return await _knows(session, name)


async def _knows(session: "Connection", name: str) -> bool:
    try:
        await session.execute(f"EXECUTE {name}; DEALLOCATE {name}")
    except asyncpg.InvalidSQLStatementNameError:
        return False
    return True


async def _bring_up_to_date(connection: "Connection", where: str) -> None:
    await _see_that_it_will_do(connection, where)
    try:
        if await _version(connection, where) < VERSION:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL statement_timeout = '{_WAIT_SECONDS:.0f}s'")
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK, timeout=_WAIT_SECONDS)
                await _migrate(connection, where)
    except asyncpg.InsufficientPrivilegeError as error:
        raise CannotStartError(await _what_to_grant(connection, where)) from error


async def _see_that_it_will_do(connection: "Connection", where: str) -> None:
    version, encoding = connection.get_server_version(), await connection.fetchval("SHOW server_encoding")
    if version.major < _OLDEST:
        raise CannotStartError(f"{where} is PostgreSQL {version.major}; {_OLDEST} or later is needed")
    if encoding != "UTF8":
        raise CannotStartError(f"{where} has the encoding {encoding}; make a database with ENCODING 'UTF8'")


async def _version(connection: "Connection", where: str) -> int:
    """How many migrations were made. Raises CannotStartError where they are more than we know."""
    found = await version_of(connection) or 0
    if found > VERSION:
        told = f"{where} was written by a newer version (schema {found}, this one knows {VERSION})"
        raise CannotStartError(f"{told}; run that version, or name another database in store.url")
    return found


async def _migrate(connection: "Connection", where: str) -> None:
    if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA):
        await connection.execute(f"CREATE SCHEMA {SCHEMA}")
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{SCHEMA}.migration"):
        await connection.execute(_TABLE)
    done = await _version(connection, where)  # under the lock: another node may have been faster
    for number, script in enumerate(MIGRATIONS[done:], start=done + 1):
        await connection.execute(script)
        await connection.execute("INSERT INTO migration (version) VALUES ($1)", number)


async def _what_to_grant(connection: "Connection", where: str) -> str:
    user, database, there = await connection.fetchrow(
        "SELECT quote_ident(current_user), quote_ident(current_database()), to_regnamespace($1) IS NOT NULL",
        SCHEMA,
    ) or ("", "", False)
    mend = f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {user}, or GRANT CREATE ON DATABASE {database} TO {user}"
    if there:
        tables = f"GRANT ALL ON ALL TABLES IN SCHEMA {SCHEMA} TO {user}"
        mend = f"GRANT USAGE, CREATE ON SCHEMA {SCHEMA} TO {user} and {tables}"
    return f"{where} does not let {user} make or use the tables; as its owner run {mend}"
