"""Reading a PostgreSQL beside the nodes that write it, by whoever has no loop: a command, a thread."""

import asyncio
import re
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from monitor.errors import BackupError, StoreError, StoreUnreadableError
from monitor.store.postgresql.engine import Engine, telling_failures
from monitor.store.postgresql.leases import LIVE
from monitor.store.postgresql.migrating import version_of
from monitor.store.postgresql.schema import SCHEMA, VERSION
from monitor.store.reading import Lease, Node, Reader
from monitor.store.rows import Fields

if TYPE_CHECKING:
    from monitor.store.postgresql.engine import Connection

T = TypeVar("T")

# Who has lost its lock is gone, though its lease may end a little later; when it fell is in no row.
_NODES: Final = f"""
    WITH {LIVE}
    SELECT node.name, node.version, node.urls, node.joined_at,
        CASE WHEN live.name IS NULL THEN node.expires_at END AS lease_until,
        (SELECT count(*) FROM lease WHERE lease.owner = live.incarnation) AS sites
    FROM node LEFT JOIN live USING (incarnation)
    ORDER BY node.name
"""  # noqa: S608  names of our own
_LEASES: Final = f"""
    WITH {LIVE}
    SELECT lease.site, lease.part, lease.epoch, live.name AS owner, coalesce(live.urls, '{{}}') AS urls,
        CASE
            WHEN live.name IS NOT NULL OR lease.owner IS NULL THEN lease.since
            ELSE node.expires_at
        END AS since,
        live.name IS NULL AND node.name IS NOT NULL AS is_orphan
    FROM lease
    LEFT JOIN live ON live.incarnation = lease.owner
    LEFT JOIN node ON node.incarnation = lease.owner
    WHERE CAST(:site AS text) IS NULL OR lease.site = :site
    ORDER BY lease.site, lease.part
"""  # noqa: S608

_ROWS: Final = 1000  # fetched at a time
_PARAMETER: Final = re.compile(r"(?<!:):(\w+)")


class SharedReader(Reader):
    """A connection of its own, on a loop of its own; `ends` is its last moment, as time.monotonic counts."""

    def __init__(self, runner: asyncio.Runner, place: str, ends: float | None) -> None:
        self._runner = runner
        self._place = place
        self._ends = ends
        self._connection: Connection

    def open(self, engine: Engine) -> None:
        """Connect, and see that there is something to read."""
        self._connection = self.run(engine.connect())
        self.run(self._connection.execute("SET default_transaction_read_only = on"))
        self._check_version(self.run(version_of(self._connection)))
        self.run(self._connection.transaction().start())  # cursors live in one; each sees what it finds

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What it gives. Raises StoreError."""
        with telling_failures():
            return self._runner.run(self._within_its_time(work))

    def close(self) -> None:
        """Let go of the connection, whatever is under way."""
        if hasattr(self, "_connection"):
            self._connection.terminate()

    def back_up(self, destination: Path) -> None:
        """It has better ways of its own."""
        told = f"{destination} is not made: the state is in PostgreSQL, which copies it better itself"
        raise BackupError(f"{told}; run pg_dump --schema={SCHEMA} --format=custom on {self._place}")

    def nodes(self) -> list[Node]:
        """Those that live, and those that went without a word."""
        return [Node(**row) for row in self._ask(_NODES, {})]

    def leases(self, site: str | None = None) -> list[Lease]:
        """As they stand now."""
        return [Lease(**row) for row in self._ask(_LEASES, {"site": site})]

    def _ask(self, query: str, parameters: Mapping[str, object]) -> Iterator[Fields]:
        names = list(dict.fromkeys(_PARAMETER.findall(query)))
        text = _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", query)
        cursor = self.run(_cursor(self._connection, text, [parameters[name] for name in names]))
        while rows := self.run(cursor.fetch(_ROWS)):
            yield from rows

    async def _within_its_time(self, work: Coroutine[Any, Any, T]) -> T:
        left = None if self._ends is None else max(self._ends - time.monotonic(), 0)
        async with asyncio.timeout(left):
            return await work

    def _check_version(self, version: int | None) -> None:
        """A newer one may be read: it has more columns, and none other."""
        if version is None:
            told = f"there is nothing of ours in {self._place}; the daemon makes it"
            raise StoreUnreadableError(f"{told}: has it run with this store.url?")
        if version < VERSION:
            told = f"{self._place} has schema {version}, this version reads {VERSION}"
            raise StoreUnreadableError(f"{told}; the daemon brings its store up to date when it starts")


@contextmanager
def reading_shared(engine: Engine, seconds: float | None = None) -> Iterator[Reader]:
    """Connect for reading; for some seconds, where that is said.

    Raises StoreUnreadableError: not reached, not let in, nothing there, an older version, or out of time.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        reader = SharedReader(runner, engine.shown, ends)
        try:
            reader.open(engine)
            yield reader
        except StoreError as error:
            told = f"{engine.shown} cannot be read ({error}); see that it runs and lets us in"
            raise StoreUnreadableError(told) from error
        finally:
            reader.close()


async def _cursor(connection: "Connection", query: str, parameters: list[object]) -> Any:
    return await connection.cursor(query, *parameters)
