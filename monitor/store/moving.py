"""All of a store copied into another, of the same engine or the other, while nobody uses either."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Final, Protocol

from monitor.clock import Clock
from monitor.config import StoreSettings
from monitor.core.effects import Transition
from monitor.errors import CannotStartError, StoreError
from monitor.store.opening import Hide, engine_of
from monitor.store.rows import FLAGS, STATE_COLUMNS
from monitor.store.sqlite.moving import from_file, into_file

ROWS: Final = 5000
"""Read and written at a time."""

_TABLES: Final = {
    "connection": (*STATE_COLUMNS,),
    "transition": (*Transition.__struct_fields__, "announced"),
}

Rows = Sequence[tuple[object, ...]]


class Source(Protocol):
    """A store that is held still and read."""

    def read(self, query: str, most: int) -> AsyncIterator[Rows]:
        """The rows of a query, so many at a time."""


class Target(Protocol):
    """An empty store that is filled, all or nothing."""

    async def write(self, table: str, columns: Sequence[str], rows: Rows) -> None:
        """Add rows, in their order."""


async def move(source: StoreSettings, target: StoreSettings, clock: Clock, hide: Hide) -> dict[str, int]:
    """Copy everything, moments as they stand; how many rows of each table.

    Raises CannotStartError: one of them is in use or cannot be had, the source is no store of this version,
    or the target is not empty. StoreError where it broke off: the target is as empty as before.
    """
    if source.place == target.place:
        raise CannotStartError(f"{source.place} is the configured store itself; name another one")
    counts = dict.fromkeys(_TABLES, 0)
    async with AsyncExitStack() as both:
        with _naming_the_source():
            old = await both.enter_async_context(_source(source, hide))
        new = await both.enter_async_context(_target(target, clock, hide))
        for table, columns in _TABLES.items():
            async for rows in old.read(_all_of(table, columns), ROWS):
                await new.write(table, columns, [_with_flags(columns, row) for row in rows])
                counts[table] += len(rows)
    return counts


def _all_of(table: str, columns: Sequence[str]) -> str:
    """All rows; transitions in the order of their commits."""
    order = "ORDER BY n" if table == "transition" else ""
    return f"SELECT {', '.join(columns)} FROM {table} {order}"  # noqa: S608  names of our own


def _with_flags(columns: Sequence[str], row: tuple[object, ...]) -> tuple[object, ...]:
    """SQLite has numbers where PostgreSQL has truth."""
    flags = {*FLAGS, "announced"}
    values = zip(columns, row, strict=True)
    return tuple(bool(value) if name in flags and value is not None else value for name, value in values)


@contextmanager
def _naming_the_source() -> Iterator[None]:
    """What is wrong with a store is told of store.url wherever it is found; this one stands elsewhere."""
    try:
        yield
    except (CannotStartError, StoreError) as error:
        raise type(error)(str(error).replace("store.url", "--from")) from error


def _source(settings: StoreSettings, hide: Hide) -> AbstractAsyncContextManager[Source]:
    if not settings.is_shared:
        return from_file(settings.path)
    engine = engine_of(settings, "migrate-store", hide)
    from monitor.store.postgresql.moving import from_database  # noqa: PLC0415  an extra

    return from_database(engine)


def _target(settings: StoreSettings, clock: Clock, hide: Hide) -> AbstractAsyncContextManager[Target]:
    if not settings.is_shared:
        return into_file(settings.path, clock)
    engine = engine_of(settings, "migrate-store", hide)
    from monitor.store.postgresql.moving import into_database  # noqa: PLC0415  an extra

    return into_database(engine)
