"""A file as a source of rows, or filled with them; its lock keeps a daemon out."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

from monitor.clock import Clock
from monitor.errors import CannotStartError, StoreError, StoreUnreadableError
from monitor.store.sqlite.file import open_file
from monitor.store.sqlite.lock import Lock
from monitor.store.sqlite.reading import open_read_only


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
    """Hold a file still. Raises CannotStartError: in use, or it cannot be read."""
    lock = _lock(path)
    try:
        with closing(open_read_only(path)) as db:
            yield FileSource(db)
    except StoreUnreadableError as error:
        raise CannotStartError(str(error)) from error
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


def _lock(path: Path) -> Lock:
    path = path.resolve()  # it lies beside the file that a link leads to
    if not path.exists():
        raise CannotStartError(f"there is no {path}; name the store that is to be copied")
    try:
        return Lock.take(path)
    except OSError as error:
        told = f"{path} cannot be held still ({error.strerror}); run this as a user who may write beside it"
        raise CannotStartError(told) from error
