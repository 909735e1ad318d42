"""A file as a source of rows, or filled with them; its lock keeps a daemon out."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

from monitor.clock import Clock
from monitor.errors import CannotStartError, StoreError
from monitor.store.source import see_that_it_is_ours
from monitor.store.sqlite.file import open_file
from monitor.store.sqlite.lock import Lock
from monitor.store.sqlite.reading import open_read_only
from monitor.store.sqlite.schema import VERSION


class FileSource:
    """A file that nobody writes meanwhile."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def read(self, query: str, most: int) -> AsyncIterator[list[tuple[object, ...]]]:
        """The rows of a query."""
        found = self._db.execute(query)
        while rows := found.fetchmany(most):
            yield [tuple(row) for row in rows]


class FileTarget:
    """A file within one transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def write(self, table: str, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
        """Add them."""
        values = ", ".join("?" * len(columns))
        insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"  # noqa: S608  names of our own
        self._db.executemany(insert, rows)


@asynccontextmanager
async def from_file(path: Path) -> AsyncIterator[FileSource]:
    """Hold a file still. Raises CannotStartError: in use, no store of this version, or it cannot be read."""
    path = _found(path)
    _open(path).close()  # beside what is not ours no lock is left
    lock = _lock(path)
    try:
        with closing(_open(path)) as db:
            yield FileSource(db)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
    finally:
        lock.release()


@asynccontextmanager
async def into_file(path: Path, clock: Clock) -> AsyncIterator[FileTarget]:
    """Make or open an empty file, and keep what is written to it where all goes well.

    Raises CannotStartError: in use, not empty, or it cannot be had.
    """
    file = open_file(path, clock).file
    try:
        with file.filling() as db:
            yield FileTarget(db)
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
    finally:
        file.close()


def _found(path: Path) -> Path:
    path = path.resolve()  # the lock lies beside the file that a link leads to
    if not path.exists():
        raise CannotStartError(f"there is no {path}; name the store that is to be copied")
    return path


def _open(path: Path) -> sqlite3.Connection:
    try:
        return open_read_only(path, lambda path, version: see_that_it_is_ours(path, version, VERSION))
    except (sqlite3.Error, OSError) as error:
        mend = "is it the store that is to be copied? Run this as a user who may read it"
        raise CannotStartError(f"{path} cannot be read ({error}); {mend}") from error


def _lock(path: Path) -> Lock:
    try:
        return Lock.take(path, "stop that one first")
    except OSError as error:
        told = f"{path} cannot be held still ({error.strerror}); run this as a user who may write beside it"
        raise CannotStartError(told) from error
