"""The file: SQLite in WAL mode, written by one process.

The promise: a change of state and its announcement are committed together, synced to the disk, before
anyone is told. What was told is marked in a later commit, so a crash in between tells it again under the
same `transition_id`; nothing committed is lost, nothing is told under two ids. Freshness (when a connection
was last polled) is written in bulk every so often: a crash loses the newest of it, never a change.

Everything here blocks and belongs on a thread of its own; one File is used by one thread at a time.
Source: "Write-Ahead Logging" and "PRAGMA synchronous" of the SQLite documentation; FULL syncs the log at
each commit.
"""

import contextlib
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

from monitor.clock import Clock
from monitor.core.effects import Transition
from monitor.core.model import ConnectionState
from monitor.errors import CannotStartError
from monitor.store.face import Booking, Key
from monitor.store.retention import PURGE_ROWS, Retention
from monitor.store.rows import (
    STATE_COLUMNS,
    Announcement,
    announcement_of,
    announcement_row,
    state_of,
    state_rows,
)
from monitor.store.sqlite.lock import Lock
from monitor.store.sqlite.ownership import open_or_make, whose
from monitor.store.sqlite.schema import APPLICATION_ID, MIGRATIONS, VERSION

_MAGIC: Final = b"SQLite format 3\x00"
_SMALLEST_PAGE: Final = 512
_BUSY_SECONDS: Final = 5.0  # a backup or a reader's checkpoint may hold the file for a moment


def _insert_into(table: str, columns: Sequence[str]) -> str:
    values = ", ".join(f":{column}" for column in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"  # noqa: S608  names of our own


def _upsert() -> str:
    columns = ", ".join(STATE_COLUMNS)
    values = ", ".join("?" * len(STATE_COLUMNS))
    changes = ", ".join(f"{column} = excluded.{column}" for column in STATE_COLUMNS[2:])
    insert = f"INSERT INTO connection ({columns}) VALUES ({values})"  # noqa: S608  names of our own
    return f"{insert} ON CONFLICT (site, id) DO UPDATE SET {changes}"


_UPSERT: Final = _upsert()
_INSERT: Final = _insert_into("transition", Transition.__struct_fields__) + " ON CONFLICT DO NOTHING"
_MARK: Final = "UPDATE transition SET announced = 1 WHERE transition_id = ?"
# A status that lasts, or that ended lately, is history of today however long ago it began: what goes is what
# had ended by then, and what is left of connections that are forgotten.
_PURGE: Final = """
    DELETE FROM transition WHERE n IN (
        SELECT n FROM transition AS old
        WHERE observed_at < :oldest AND announced AND (
            EXISTS (
                SELECT 1 FROM transition AS next
                WHERE next.site = old.site AND next.connection_id = old.connection_id
                  AND next.n > old.n AND next.observed_at < :oldest)
            OR NOT EXISTS (
                SELECT 1 FROM connection
                WHERE connection.site = old.site AND connection.id = old.connection_id))
        ORDER BY observed_at LIMIT :most)
"""


class File:
    """An open file. Any method may raise sqlite3.Error: nothing of that call was kept then."""

    def __init__(self, db: sqlite3.Connection, lock: Lock, clock: Clock) -> None:
        self._db = db
        self._lock = lock
        self._clock = clock
        self._path = Path(db.execute("PRAGMA database_list").fetchone()["file"])
        self._inode = self._path.stat().st_ino
        newest: int | None = db.execute("SELECT max(kept_at) FROM connection").fetchone()[0]
        self._retention = Retention(clock, newest)

    def states(self) -> dict[Key, ConnectionState]:
        """What is known of each connection, watched or not."""
        rows = self._db.execute("SELECT * FROM connection")
        return {(row["site"], row["id"]): state_of(row, self._clock) for row in rows}

    def untold(self) -> list[Announcement]:
        """What was committed and, for all we know, not told; in the order of its commits."""
        rows = self._db.execute("SELECT * FROM transition WHERE announced = 0 ORDER BY n")
        return [announcement_of(row, self._clock) for row in rows]

    def commit(self, bookings: Sequence[Booking], told: Collection[str]) -> int:
        """Keep states, announcements and the marks of what was told, all or nothing; how many bookings."""
        states = state_rows(((each.connection, each.state) for each in bookings), self._clock)
        announced = (what for each in bookings for what in each.announcements)
        with self._transaction():
            self._db.executemany(_UPSERT, states)
            self._db.executemany(_INSERT, (announcement_row(what, self._clock) for what in announced))
            self._db.executemany(_MARK, ((transition_id,) for transition_id in told))
        return len(bookings)

    def purge(self, retention: timedelta, watched: Collection[Key]) -> int:
        """Forget connections no longer watched and statuses that ended before; rows gone, a few at most."""
        oldest = self._retention.oldest(retention)
        with self._transaction():
            rows = self._db.execute("SELECT site, id FROM connection WHERE kept_at < ?", (oldest,))
            left = [key for key in map(tuple, rows) if key not in watched][:PURGE_ROWS]
            self._db.executemany("DELETE FROM connection WHERE site = ? AND id = ?", left)
            gone = self._db.execute(_PURGE, {"oldest": oldest, "most": PURGE_ROWS}).rowcount
        return gone + len(left)

    @contextmanager
    def filling(self) -> Iterator[sqlite3.Connection]:
        """All that another store holds is put in, or nothing. Raises CannotStartError: it is not empty."""
        with self._transaction():
            for table in ("connection", "transition"):
                if self._db.execute(f"SELECT EXISTS (SELECT * FROM {table})").fetchone()[0]:  # noqa: S608
                    told = f"{self._path} holds a store already; name a file that is not there"
                    raise CannotStartError(told)
            yield self._db

    def close(self) -> None:
        """Close the file and let go of it."""
        self._db.close()
        self._lock.release()

    def _see_that_it_is_there(self) -> None:
        """A file that was removed takes writes as ever, and loses them all at the end."""
        try:
            there = self._path.stat().st_ino == self._inode
        except OSError:
            there = False
        if not there:
            raise sqlite3.OperationalError(f"{self._path} was removed or replaced; restart the monitor")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._see_that_it_is_there()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back by itself
                self._db.execute("ROLLBACK")
            raise


class Opened(NamedTuple):
    """An open file and what is in it, and where one that could not be read was set aside."""

    file: File
    known: dict[Key, ConnectionState]
    untold: list[Announcement]
    set_aside: Path | None


def open_file(path: Path, clock: Clock) -> Opened:
    """Open a store's file, make it or bring it up to date; a broken file is set aside, never deleted.

    Raises CannotStartError: no such folder, not writable, in use, or written by a newer version.
    """
    path = Path(os.path.realpath(path))  # SQLite's log and our lock lie beside the file that a link leads to
    try:
        lock = Lock.take(path)
    except OSError as error:
        raise CannotStartError(_why_not_locked(path, error)) from error
    try:
        return _open(path, lock, clock)
    except (OSError, sqlite3.Error) as error:  # it may be whole: a full disk, a file that may not be written
        lock.release()
        parts = (path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm"))
        mend = whose(path, parts) or "see to its disk and its permissions"
        raise CannotStartError(f"{path} cannot be opened ({error}); {mend}") from error
    except BaseException:
        lock.release()
        raise


def _why_not_locked(path: Path, error: OSError) -> str:
    mend = "make its folder, writable for this user, or name another place in store.url"
    place = path if error.filename is None else Path(error.filename)
    if not place.exists():
        place = path
    elif isinstance(error, PermissionError):
        mend = whose(path, [place]) or mend
    return f"{place} cannot be written ({error.strerror}); {mend}"


def _open(path: Path, lock: Lock, clock: Clock) -> Opened:
    if path.exists() and not path.is_file():
        raise CannotStartError(f"{path} is no file; name one in store.url")
    try:
        return Opened(*_connect(path, lock, clock), None)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        set_aside = _set_aside(path, clock)
    try:
        return Opened(*_connect(path, lock, clock), set_aside)
    except (OSError, sqlite3.Error) as error:
        told = f"{path} was damaged and is kept as {set_aside}; a new one cannot be made ({error})"
        raise CannotStartError(f"{told}; see to its disk and its permissions") from error


def _connect(
    path: Path, lock: Lock, clock: Clock
) -> tuple[File, dict[Key, ConnectionState], list[Announcement]]:
    made_here = not path.exists() and not _has_a_log(path)
    if not made_here and not _begins_well(path):  # SQLite would clear away the log of such a file
        raise sqlite3.DatabaseError("no file of SQLite, or what was lost of one")
    if made_here:
        os.close(open_or_make(path, 0o644))  # as SQLite would
    db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False)
    try:
        db.row_factory = sqlite3.Row
        _see_that_it_is_ours(db, path)
        with _blaming_the_file():
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            _check(db)
        _migrate(db)
        file = File(db, lock, clock)
        with _blaming_the_file():  # pages in good order may hold nonsense: SQLite cannot tell
            return file, file.states(), file.untold()
    except BaseException:
        db.close()
        if made_here and path.exists() and not _begins_well(path):  # a full disk: the next start would wonder
            path.unlink()
        raise


def _has_a_log(path: Path) -> bool:
    """Whether changes wait beside the file, or beside where it was."""
    logs = (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))
    return any(log.exists() and log.stat().st_size for log in logs)


def _begins_well(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC and path.stat().st_size >= _SMALLEST_PAGE


def _check(db: sqlite3.Connection) -> None:
    found: str = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)


@contextmanager
def _blaming_the_file() -> Iterator[None]:
    """Where statements known to be good fail, and neither disk nor lock is why, the file is broken."""
    try:
        yield
    except (LookupError, ValueError, TypeError, OverflowError) as error:  # in a row, or in SQLite's complaint
        raise sqlite3.DatabaseError("it holds what cannot be read") from error
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR:
            raise
        raise sqlite3.DatabaseError(str(error)) from error


def _see_that_it_is_ours(db: sqlite3.Connection, path: Path) -> None:
    """Refuse a newer store, and other programs' files, before anything is changed in them."""
    with _blaming_the_file():
        application: int = db.execute("PRAGMA application_id").fetchone()[0]
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        tables: int = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise CannotStartError(f"{path} is another program's database; name another file in store.url")
    if version > VERSION:
        told = f"{path} was written by a newer version (schema {version}, this one knows {VERSION})"
        raise CannotStartError(f"{told}; run that version, or name another file in store.url")


def _migrate(db: sqlite3.Connection) -> None:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def _set_aside(path: Path, clock: Clock) -> Path:
    aside = path.with_name(f"{path.name}.broken-{clock.wall(clock.now()):%Y%m%dT%H%M%S.%fZ}")
    for suffix in ("-wal", "-shm", "-journal", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside
