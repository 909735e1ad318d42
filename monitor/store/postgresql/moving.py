"""A database as a source of rows, or filled with them; nodes that would join meanwhile wait."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from monitor.errors import CannotStartError, StoreError
from monitor.store.postgresql.engine import Engine, telling_failures
from monitor.store.postgresql.migrating import bring_up_to_date, first_session, version_of
from monitor.store.postgresql.schema import SCHEMA, VERSION
from monitor.store.source import see_that_it_is_ours

if TYPE_CHECKING:
    from monitor.store.postgresql.engine import Connection

_PATIENT: Final = """
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;
    SET LOCAL lock_timeout = '10s'
"""
_STILL: Final = "LOCK TABLE node, lease, connection, transition IN SHARE ROW EXCLUSIVE MODE"
_NODES: Final = "SELECT string_agg(name, ', ' ORDER BY name) FROM node WHERE expires_at > now()"
_ANYTHING: Final = "SELECT EXISTS (SELECT FROM connection) OR EXISTS (SELECT FROM transition)"


class DatabaseSource:
    """A database that nobody writes meanwhile."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    async def read(self, query: str, most: int) -> AsyncIterator[list[tuple[object, ...]]]:
        """The rows of a query."""
        cursor = await self._connection.cursor(query)
        while rows := await cursor.fetch(most):
            yield [tuple(row) for row in rows]


class DatabaseTarget:
    """A database within one transaction."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._ours = uuid4()

    async def write(self, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
        """Add them; states as written by nobody who will come again."""
        if table == "connection":
            columns, rows = (*columns, "writer", "turn"), [(*row, self._ours, 0) for row in rows]
        try:
            await self._connection.copy_records_to_table(
                table, records=rows, columns=columns, schema_name=SCHEMA, timeout=None
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise StoreError(f"a {table} holds what PostgreSQL does not take ({error})") from error


@asynccontextmanager
async def from_database(engine: Engine) -> AsyncIterator[DatabaseSource]:
    """Hold a database still, and change nothing in it.

    Raises CannotStartError: in use, no store of this version, or it cannot be had.
    """
    way_in = "see that it runs and lets us in, to --from, and to its password in PGPASSWORD or ~/.pgpass"
    async with first_session(engine, "read", way_in, "see to --from") as session:
        see_that_it_is_ours(engine.shown, await version_of(session), VERSION)
    async with _still(engine, readonly=True) as connection:
        yield DatabaseSource(connection)


@asynccontextmanager
async def into_database(engine: Engine) -> AsyncIterator[DatabaseTarget]:
    """Make the tables, and keep what is written where all goes well.

    Raises CannotStartError: in use, not empty, or it cannot be had.
    """
    await bring_up_to_date(engine)
    async with _still(engine) as connection:
        if await connection.fetchval(_ANYTHING):
            raise CannotStartError(f"{engine.shown} holds a store already; name a database without one")
        yield DatabaseTarget(connection)


@asynccontextmanager
async def _still(engine: Engine, *, readonly: bool = False) -> AsyncIterator["Connection"]:
    with telling_failures():
        connection = await engine.connect(command_timeout=None)
        try:
            async with connection.transaction(readonly=readonly):
                await connection.execute(f"{_PATIENT}; {_STILL}")
                if (nodes := await connection.fetchval(_NODES)) is not None:
                    raise CannotStartError(f"{engine.shown} is in use by {nodes}; stop all nodes first")
                yield connection
        finally:
            connection.terminate()
