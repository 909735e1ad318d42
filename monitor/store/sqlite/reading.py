"""Reading a file beside the daemon that writes it, and a copy of all of it."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from monitor.errors import BackupError, StoreUnreadableError
from monitor.store.reading import Reader
from monitor.store.rows import Fields
from monitor.store.sqlite.schema import APPLICATION_ID, VERSION

_BUSY_SECONDS: Final = 5.0
_STEPS: Final = 10_000  # of SQLite's machine between two looks at the time

Check = Callable[[Path, int | None], None]
"""Refuses a file by its version; None where it is not ours."""


class FileReader(Reader):
    """An open file, for reading."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def back_up(self, destination: Path) -> None:
        """In one step, whoever writes it meanwhile."""
        partial = destination.with_name(f"{destination.name}.partial-{os.getpid()}")
        try:
            if os.path.lexists(destination):
                raise BackupError(f"{destination} is there already; name a file that is not")
            partial.unlink(missing_ok=True)
            self._copy(partial)
            partial.rename(destination)
            _sync(destination.absolute().parent)
        except (sqlite3.Error, OSError) as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            mend = "see to its folder: room, and leave to write"
            raise BackupError(f"{destination} cannot be written ({error}); {mend}") from error

    def _copy(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as copy:
            self._db.backup(copy)  # in one step: one made of several begins anew after each commit

    def _ask(self, query: str, parameters: Mapping[str, object]) -> Iterator[Fields]:
        return self._db.execute(query, dict(parameters))


@contextmanager
def reading_file(path: Path, seconds: float | None = None) -> Iterator[Reader]:
    """Open a store for reading, whether a daemon writes it or not; for some seconds, where that is said.

    Raises StoreUnreadableError: no file, no permission, no store, one of another version, or out of time.
    """
    try:
        with closing(open_read_only(path)) as db:
            if seconds is not None:
                ends = time.monotonic() + seconds
                db.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
            yield FileReader(db)
    except (sqlite3.Error, OSError) as error:
        mend = "is it the daemon's store? Read it as a user who may, such as the daemon's own"
        raise StoreUnreadableError(f"{path} cannot be read ({error}); {mend}") from error


def _check_version(path: Path, version: int | None) -> None:
    if version is None:
        told = f"there is nothing of ours in {path}; the daemon makes it"
        raise StoreUnreadableError(f"{told}: has it run with this store.url?")
    told = f"{path} has schema {version}, this version reads {VERSION}"
    if version > VERSION:
        raise StoreUnreadableError(f"{told}; use the version that writes it")
    if version < VERSION:
        mend = "the daemon brings its store up to date when it starts: is this its store.url?"
        raise StoreUnreadableError(f"{told}; {mend}")


def open_read_only(path: Path, check: Check = _check_version) -> sqlite3.Connection:
    """A connection that writes nothing. Raises StoreUnreadableError, sqlite3.Error, or as the check does."""
    path = Path(os.path.realpath(path))  # SQLite's log lies beside the file that a link leads to
    if not path.exists():
        told = f"there is no {path}; the daemon makes it: has it run with this store.url?"
        raise StoreUnreadableError(told)
    try:
        return _connect(path, "mode=ro", check)
    except sqlite3.OperationalError:
        # A reader who may not write beside the file cannot join its log; without a log the file is whole.
        if not path.is_file() or _has_log(path):
            raise
        return _connect(path, "mode=ro&immutable=1", check)


def _has_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _connect(path: Path, how: str, check: Check) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=_BUSY_SECONDS)
    try:
        db.row_factory = sqlite3.Row
        check(path, _version(db))
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection) -> int | None:
    application: int = db.execute("PRAGMA application_id").fetchone()[0]
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version if application == APPLICATION_ID else None


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
