"""Both engines behind one face, and what another process reads of them."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

import asyncpg

from monitor.clock import Clock
from monitor.config import StoreSettings
from monitor.config.database import split
from monitor.config.settings import GivenSecret
from monitor.core.model import ConnectionState
from monitor.core.shards import Unit
from monitor.store import Announcement, Booking, Key, Opened, reading
from monitor.store.postgresql.engine import Engine as Way
from monitor.store.postgresql.held import Held
from monitor.store.postgresql.schema import SCHEMA
from monitor.store.postgresql.store import SharedStore, open_postgresql
from monitor.store.reading import Reader
from monitor.store.sqlite.threaded import open_sqlite
from tests.postgresql import PostgreSQL
from tests.store.stories import Told, keep

SITES: Final = ("downtown", "uptown")
RETENTION: Final = timedelta(days=90)
Row = tuple[Any, ...]


class Engine(Protocol):
    """Keeps one store, which a process after the other opens."""

    @property
    def settings(self) -> StoreSettings: ...

    async def open(self, clock: Clock) -> Opened: ...

    async def rows(self, query: str) -> list[Row]: ...

    async def columns(self, table: str) -> set[str]: ...


class Book:
    """A store that is written and read from where no loop runs."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._store = self._runner.run(engine.open(clock)).store

    def keep(self, story: Iterable[Told]) -> list[str]:
        return keep(self, story)

    def states(self) -> dict[Key, ConnectionState]:
        return self._runner.run(self._store.states())

    def untold(self) -> list[Announcement]:
        return self._runner.run(self._store.untold())

    def commit(self, bookings: Sequence[Booking], told: Collection[str]) -> object:
        return self._runner.run(self._store.commit(bookings, told))

    def reading(self, seconds: float | None = None) -> AbstractContextManager[Reader]:
        return reading(self.engine.settings, seconds)

    def execute(self, text: str) -> None:
        self._runner.run(self.engine.rows(text))

    def close(self) -> None:
        self._runner.run(self._store.close())
        self._runner.close()


class SQLite:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def settings(self) -> StoreSettings:
        return StoreSettings(f"sqlite:///{self.path}", RETENTION)

    async def open(self, clock: Clock) -> Opened:
        return await open_sqlite(self.path, clock)

    async def rows(self, query: str) -> list[Row]:
        with closing(sqlite3.connect(self.path)) as db, db:
            return db.execute(query).fetchall()

    async def columns(self, table: str) -> set[str]:
        return {name for _, name, *_ in await self.rows(f"PRAGMA table_info({table})")}


class Shared:
    """A database; each process that opens it takes over all sites."""

    def __init__(self, server: PostgreSQL) -> None:
        self.server = server
        self.database = server.clean_database()
        self.url = server.url(self.database)

    @property
    def settings(self) -> StoreSettings:
        url, word = split(self.url)
        return StoreSettings(url, RETENTION, None if word is None else GivenSecret(word))

    def way(self, node: str = "a") -> Way:
        return Way(self.url, node)

    async def open(self, clock: Clock) -> Opened:
        store, held = await self.node(clock)
        await self.claim(held, *(Unit(site, 0) for site in SITES))
        return Opened(store, await store.states(), await store.untold())

    async def node(self, clock: Clock, name: str = "a") -> tuple[SharedStore, Held]:
        """A node that owns nothing yet."""
        held = Held(incarnation=uuid4())
        opened = await open_postgresql(self.way(name), name, held, clock)
        assert isinstance(opened.store, SharedStore)
        return opened.store, held

    async def claim(self, held: Held, *units: Unit) -> None:
        """Take units over, from whoever has them."""
        for unit in units:
            held.epochs[unit] = await self.take(unit, held.incarnation)

    async def take(self, unit: Unit, owner: UUID | None) -> int:
        """Give a unit to a node that need not know of it; its new epoch."""
        taken = """
            INSERT INTO lease (site, part, owner, epoch) VALUES ($1, $2, $3, 1)
            ON CONFLICT (site, part) DO UPDATE SET owner = $3, epoch = lease.epoch + 1 RETURNING epoch
        """
        epoch: int = await self.ask(lambda connection: connection.fetchval(taken, *unit, owner))
        return epoch

    async def rows(self, query: str) -> list[Row]:
        return [tuple(row) for row in await self.ask(lambda connection: connection.fetch(query))]

    async def columns(self, table: str) -> set[str]:
        found = f"SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0"  # noqa: S608
        return {name for (name,) in await self.rows(found)}

    async def lock(self, table: str, where: str = "true", how: str = "FOR UPDATE") -> "Locked":
        """Rows that somebody has in his hands for now."""
        connection = await asyncpg.connect(self.url, server_settings={"search_path": SCHEMA})
        await connection.execute(f"BEGIN; SELECT 1 FROM {table} WHERE {where} {how}")  # noqa: S608
        return Locked(self, connection)

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Meanwhile nobody is let in, and who was in is out."""
        self._sql(f"ALTER DATABASE {self.database} ALLOW_CONNECTIONS false")
        self._sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.database}'")  # noqa: S608
        try:
            yield
        finally:
            self._sql(f"ALTER DATABASE {self.database} ALLOW_CONNECTIONS true")

    def _sql(self, text: str) -> None:
        self.server.sql("postgres", text)

    async def ask(self, question: Callable[["asyncpg.Connection[asyncpg.Record]"], Any]) -> Any:
        connection = await asyncpg.connect(self.url, server_settings={"search_path": SCHEMA})
        try:
            return await question(connection)
        finally:
            await connection.close()


class Locked:
    """Rows that nobody else can change before the end."""

    def __init__(self, shared: Shared, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._shared = shared
        self._connection = connection

    async def somebody_waits(self) -> None:
        """Wait until a statement waits for them."""
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while await self._shared.rows(waiting) == [(0,)]:
            pass

    async def end(self) -> None:
        """Let go of them, unchanged."""
        await self._connection.execute("ROLLBACK")
        await self._connection.close()
