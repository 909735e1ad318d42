"""The nodes' database: a PostgreSQL that a node apart reaches too, asked without blocking."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Final

from tests.postgresql import PostgreSQL, postgresql_server

_SETTINGS: Final = """
track_commit_timestamp = on  # who judges must know when others could see a change
fsync = off  # the machine does not fall, only processes do
"""
_RULES: Final = "host all all 10.0.0.0/8 scram-sha-256\n"
_HERE: Final = "127.0.0.1"


class Database:
    """An empty database of a server of its own."""

    def __init__(self, server: PostgreSQL) -> None:
        self._server = server
        self._name = server.new_database()

    @property
    def port(self) -> int:
        """Where the server listens."""
        return self._server.port

    def url(self, address: str = _HERE) -> str:
        """The database over one of the server's addresses."""
        return self._server.url(self._name).replace(_HERE, address)

    async def start(self) -> None:
        """Run the server until it answers."""
        await asyncio.to_thread(self._server.start)

    async def stop(self) -> None:
        """End the server in good order."""
        await asyncio.to_thread(self._server.stop)

    async def kill(self) -> None:
        """End the server as a power cut does."""
        await asyncio.to_thread(self._server.kill)

    def mute(self) -> AbstractContextManager[None]:
        """Meanwhile the server says nothing, and ends no connection."""
        return self._server.mute()

    async def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a SELECT."""
        rows = f"SELECT coalesce(json_agg(answer), '[]') FROM ({sql}) AS answer"  # noqa: S608  a test's own
        found: list[dict[str, Any]] = json.loads(await self.execute(rows))
        return found

    async def execute(self, sql: str) -> str:
        """Run commands, all of them in one transaction unless they say otherwise."""
        return await asyncio.to_thread(self._server.sql, self._name, sql)


@asynccontextmanager
async def database(addresses: Sequence[str] = ()) -> AsyncIterator[Database]:
    """A server that listens at these addresses too, and its database."""
    with postgresql_server() as server:
        server.stop()
        data = server.folder / "data"
        with (data / "postgresql.conf").open("a") as settings, (data / "pg_hba.conf").open("a") as rules:
            settings.write(f"{_SETTINGS}listen_addresses = '{','.join((_HERE, *addresses))}'\n")
            rules.write(_RULES)
        server.start()
        yield Database(server)
