"""Reading a store beside the daemon that writes it: the present, the past, their sums, and a copy of all."""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from monitor.core.model import HEALTHY_BY_DEFAULT
from monitor.errors import BackupError, StoreUnreadableError
from monitor.logs import rfc3339
from monitor.store.rows import micros, moment
from monitor.store.sqlite.schema import VERSION

_BUSY_SECONDS: Final = 5.0
_STEPS: Final = 10_000  # of SQLite's machine between two looks at the time


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which connections and which time; None asks for all of it.

    `connection` is a name that one of `site` bears or bore; `since` lies in the window, `until` does not.
    """

    site: str | None = None
    connection: str | None = None
    connection_id: str | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Present:
    """What the store knows of a connection now."""

    site: str
    connection: str
    connection_id: str
    calendar_type: str | None
    status: str | None
    reason: str | None
    healthy: bool
    since: datetime | None
    last_success_at: datetime | None
    watched_since: datetime
    transitions: int


@dataclass(frozen=True, slots=True)
class Chapter:
    """A status from when it was seen to when the next was; `until` None: it lasts.

    `kept_at` is when a running monitor last had the connection in its configuration.
    """

    site: str
    connection: str
    connection_id: str
    from_status: str | None
    from_reason: str | None
    status: str
    reason: str | None
    healthy: bool
    was_healthy: bool
    since: datetime
    until: datetime | None
    not_before: datetime | None
    kept_at: datetime | None
    transition_id: str

    def within(self, begin: datetime, end: datetime) -> timedelta:
        """How much of it lies in a window."""
        return max(min(self.until or end, end) - max(self.since, begin), timedelta())

    def document(self) -> dict[str, Any]:
        """It as JSON tells it; `until` is null while it lasts."""
        return {
            "transition_id": self.transition_id,
            "site": self.site,
            "connection": self.connection,
            "connection_id": self.connection_id,
            "from_status": self.from_status,
            "from_reason": self.from_reason,
            "to_status": self.status,
            "to_reason": self.reason,
            "healthy": self.healthy,
            "observed_at": rfc3339(self.since),
            "not_before": None if self.not_before is None else rfc3339(self.not_before),
            "until": None if self.until is None else rfc3339(self.until),
        }


@dataclass(slots=True)
class Sum:
    """A connection's time in each status over a window, and how often it fell ill in it."""

    site: str
    connection: str
    connection_id: str
    spent: dict[str, timedelta] = field(default_factory=dict)
    unhealthy: timedelta = timedelta()
    incidents: int = 0


_CHAPTERS: Final = """
    SELECT it.*, connection.kept_at,
        (SELECT observed_at FROM transition AS next
            WHERE next.site = it.site AND next.connection_id = it.connection_id AND next.n > it.n
            ORDER BY n LIMIT 1) AS until,
        (SELECT healthy FROM transition AS last
            WHERE last.site = it.site AND last.connection_id = it.connection_id AND last.n < it.n
            ORDER BY n DESC LIMIT 1) AS was_healthy
    FROM transition AS it
    LEFT JOIN connection ON connection.site = it.site AND connection.id = it.connection_id
"""
_BORE_THE_NAME: Final = """it.connection_id IN (
    SELECT connection_id FROM transition WHERE site = :site AND connection = :connection
    UNION SELECT id FROM connection WHERE site = :site AND name = :connection)"""
_BEGAN_IN_IT: Final = "it.observed_at >= :since"
_HELD_IN_IT: Final = """(it.observed_at >= :since OR it.n IN (
    SELECT (SELECT n FROM transition AS before
        WHERE before.site = each.site AND before.connection_id = each.connection_id
          AND before.observed_at < :since
        ORDER BY n DESC LIMIT 1)
    FROM (SELECT DISTINCT site, connection_id FROM transition) AS each))"""

Instant = tuple[int, int]
"""Where a change stands among all others: its time in microseconds, and its number."""


class Reader:
    """An open store, for reading."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def present(self) -> list[Present]:
        """Every connection it knows, watched or not."""
        return [_present(row) for row in self._db.execute("SELECT * FROM connection")]

    def seen(self, wanted: Wanted) -> Iterator[Chapter]:
        """What was seen to begin in the time wanted, newest first."""
        return map(_chapter, self._rows(wanted))

    def held(self, wanted: Wanted) -> Iterator[Chapter]:
        """What held at some time of that wanted, newest first: what began in it, and what it began with."""
        return map(_chapter, self._rows(wanted, since=_HELD_IN_IT))

    def changes(
        self, wanted: Wanted, limit: int, before: Instant | None = None
    ) -> list[tuple[Instant, Chapter]]:
        """A page of what was seen to begin in the time wanted, newest first, each with its place.

        `before` is the place of the last one of the page before.
        """
        rows = self._rows(wanted, before=before, limit=limit)
        return [((row["observed_at"], row["n"]), _chapter(row)) for row in rows]

    def _rows(
        self,
        wanted: Wanted,
        *,
        since: str = _BEGAN_IN_IT,
        before: Instant | None = None,
        limit: int = -1,
    ) -> sqlite3.Cursor:
        """Only what is wanted is asked for, so that an index serves; a limit of -1 is none."""
        conditions = [
            ("it.site = :site", wanted.site),
            ("it.connection_id = :connection_id", wanted.connection_id),
            (_BORE_THE_NAME, wanted.connection),
            ("it.to_status = :status", wanted.status),
            (since, wanted.since),
            ("it.observed_at < :until", wanted.until),
            ("(it.observed_at, it.n) < (:at, :n)", before),
        ]
        where = " AND ".join(text for text, given in conditions if given is not None) or "1"
        at, n = before or (None, None)
        return self._db.execute(
            f"{_CHAPTERS} WHERE {where} ORDER BY it.observed_at DESC, it.n DESC LIMIT :limit",
            {**_parameters(wanted), "at": at, "n": n, "limit": limit},
        )

    def back_up(self, destination: Path) -> None:
        """Copy the store as it is now, whoever writes it meanwhile; there is a whole copy in the end or none.

        Raises BackupError: the destination exists or cannot be written.
        """
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


@contextmanager
def reading(path: Path, seconds: float | None = None) -> Iterator[Reader]:
    """Open a store for reading, whether a daemon writes it or not; for some seconds, where that is said.

    Raises StoreUnreadableError: no file, no permission, no store, one of another version, or out of time.
    """
    try:
        with closing(_open(path)) as db:
            if seconds is not None:
                ends = time.monotonic() + seconds
                db.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
            yield Reader(db)
    except (sqlite3.Error, OSError) as error:
        mend = "is it the daemon's store? Read it as a user who may, such as the daemon's own"
        raise StoreUnreadableError(f"{path} cannot be read ({error}); {mend}") from error


def _open(path: Path) -> sqlite3.Connection:
    path = Path(os.path.realpath(path))  # SQLite's log lies beside the file that a link leads to
    if not path.exists():
        told = f"there is no {path}; the daemon makes it: has it run with this store.url?"
        raise StoreUnreadableError(told)
    try:
        return _connect(path, "mode=ro")
    except sqlite3.OperationalError:
        # A reader who may not write beside the file cannot join its log; without a log the file is whole.
        if not path.is_file() or _has_log(path):
            raise
        return _connect(path, "mode=ro&immutable=1")


def _has_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _connect(path: Path, how: str) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=_BUSY_SECONDS)
    try:
        db.row_factory = sqlite3.Row
        _check_version(path, db.execute("PRAGMA user_version").fetchone()[0])
    except BaseException:
        db.close()
        raise
    return db


def _check_version(path: Path, version: int) -> None:
    told = f"{path} has schema {version}, this version reads {VERSION}"
    if version > VERSION:
        raise StoreUnreadableError(f"{told}; use the version that writes it")
    if version < VERSION:
        mend = "the daemon brings its store up to date when it starts: is this its store.url?"
        raise StoreUnreadableError(f"{told}; {mend}")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sums(chapters: Iterable[Chapter], begin: datetime, end: datetime) -> list[Sum]:
    """Per connection the time in each status within the window; the worst first."""
    found: dict[tuple[str, str], Sum] = {}
    for chapter in chapters:
        key = (chapter.site, chapter.connection_id)
        time = chapter.within(begin, end)
        if chapter.since < begin and not time:
            continue
        total = found.setdefault(key, Sum(chapter.site, chapter.connection, chapter.connection_id))
        total.spent[chapter.status] = total.spent.get(chapter.status, timedelta()) + time
        if not chapter.healthy:
            total.unhealthy += time
            total.incidents += chapter.was_healthy and chapter.since >= begin
    return sorted(found.values(), key=lambda each: (-each.unhealthy, each.site, each.connection))


def _parameters(wanted: Wanted) -> dict[str, object]:
    return {
        "site": wanted.site,
        "connection": wanted.connection,
        "connection_id": wanted.connection_id,
        "status": wanted.status,
        "since": None if wanted.since is None else micros(wanted.since),
        "until": None if wanted.until is None else micros(wanted.until),
    }


def _present(row: sqlite3.Row) -> Present:
    return Present(
        site=row["site"],
        connection=row["name"],
        connection_id=row["id"],
        calendar_type=row["calendar_type"],
        status=row["status"],
        reason=row["reason"],
        healthy=bool(row["healthy"]),
        since=_maybe(row["status_since"]),
        last_success_at=_maybe(row["last_success_at"]),
        watched_since=moment(row["watched_since"]),
        transitions=row["transitions"],
    )


def _chapter(row: sqlite3.Row) -> Chapter:
    return Chapter(
        site=row["site"],
        connection=row["connection"],
        connection_id=row["connection_id"],
        from_status=row["from_status"],
        from_reason=row["from_reason"],
        status=row["to_status"],
        reason=row["to_reason"],
        healthy=bool(row["healthy"]),
        was_healthy=_was_healthy(row),
        since=moment(row["observed_at"]),
        until=_maybe(row["until"]),
        not_before=_maybe(row["not_before"]),
        kept_at=_maybe(row["kept_at"]),
        transition_id=row["transition_id"],
    )


def _was_healthy(row: sqlite3.Row) -> bool:
    """As it was judged then; by its word where that was forgotten. Before the first sight all was well."""
    if row["was_healthy"] is not None:
        return bool(row["was_healthy"])
    return row["from_status"] is None or row["from_status"] in HEALTHY_BY_DEFAULT


def _maybe(micros: int | None) -> datetime | None:
    return None if micros is None else moment(micros)
