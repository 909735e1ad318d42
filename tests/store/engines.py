"""Both engines behind one face, and what another process reads of them."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

import asyncpg

from monitor.clock import Clock
from monitor.core.shards import Unit
from monitor.store import Opened
from monitor.store.postgresql.engine import Engine as Way
from monitor.store.postgresql.held import Held
from monitor.store.postgresql.schema import SCHEMA
from monitor.store.postgresql.store import SharedStore, open_postgresql
from monitor.store.sqlite.threaded import open_sqlite
from tests.postgresql import PostgreSQL

SITES: Final = ("downtown", "uptown")
Row = tuple[Any, ...]


class Engine(Protocol):
    """Keeps one store, which a process after the other opens."""

    async def open(self, clock: Clock) -> Opened: ...

    async def rows(self, query: str) -> list[Row]: ...

    async def columns(self, table: str) -> set[str]: ...


class SQLite:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def open(self, clock: Clock) -> Opened:
        return await open_sqlite(self.path, clock)

    async def rows(self, query: str) -> list[Row]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(query).fetchall()

    async def columns(self, table: str) -> set[str]:
        return {name for _, name, *_ in await self.rows(f"PRAGMA table_info({table})")}


class Shared:
    """A database; each process that opens it takes over all sites."""

    def __init__(self, server: PostgreSQL) -> None:
        self.server = server
        self.database = server.new_database()
        self.url = server.url(self.database)

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

    async def ask(self, question: Callable[["asyncpg.Connection[asyncpg.Record]"], Any]) -> Any:
        connection = await asyncpg.connect(self.url, server_settings={"search_path": SCHEMA})
        try:
            return await question(connection)
        finally:
            await connection.close()
