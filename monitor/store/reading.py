"""Reading a store beside the daemon that writes it: the present, the past, and what they sum up to."""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

from monitor.errors import StoreUnreadableError
from monitor.store.rows import micros, moment
from monitor.store.schema import VERSION

_BUSY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which connections and which time; None asks for all of it."""

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
    """A status from when it was seen to when the next was; `until` None: it lasts."""

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
    transition_id: str

    def within(self, begin: datetime, end: datetime) -> timedelta:
        """How much of it lies in a window."""
        return max(min(self.until or end, end) - max(self.since, begin), timedelta())


@dataclass(slots=True)
class Sum:
    """A connection's time in each status over a window, and how often it fell ill in it."""

    site: str
    connection: str
    spent: dict[str, timedelta] = field(default_factory=dict)
    unhealthy: timedelta = timedelta()
    incidents: int = 0


_CHAPTERS: Final = """
    SELECT * FROM (
        SELECT *, LEAD(observed_at) OVER lives AS until, LAG(healthy) OVER lives AS was_healthy
        FROM transition
        WHERE (:site IS NULL OR site = :site)
          AND (:connection IS NULL OR connection = :connection)
          AND (:connection_id IS NULL OR connection_id = :connection_id)
        WINDOW lives AS (PARTITION BY site, connection_id ORDER BY n)
    )
    WHERE (:status IS NULL OR to_status = :status)
      AND (:since IS NULL OR until IS NULL OR until > :since)
      AND (:until IS NULL OR observed_at < :until)
    ORDER BY observed_at DESC, n DESC
"""


class Reader:
    """An open store, for reading."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def present(self) -> list[Present]:
        """Every connection it knows, watched or not."""
        return [_present(row) for row in self._db.execute("SELECT * FROM connection")]

    def chapters(self, wanted: Wanted) -> Iterator[Chapter]:
        """What happened, newest first: every status that was held at some time of those wanted."""
        return (_chapter(row) for row in self._db.execute(_CHAPTERS, _parameters(wanted)))


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """Open a store for reading, whether a daemon writes it or not.

    Raises StoreUnreadableError: no file, no permission, no store, or one of a newer version.
    """
    try:
        with _opened(path) as db:
            yield Reader(db)
    except sqlite3.Error as error:
        mend = "is the daemon's store.url this file, and may this user read it?"
        raise StoreUnreadableError(f"{path} cannot be read ({error}); {mend}") from error


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_SECONDS)
    try:
        db.row_factory = sqlite3.Row
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            told = f"{path} has schema {version}, this version reads {VERSION}"
            raise StoreUnreadableError(f"{told}; use the version that writes it")
        yield db
    finally:
        db.close()


def sums(chapters: Iterable[Chapter], begin: datetime, end: datetime) -> list[Sum]:
    """Per connection the time in each status within the window; the worst first."""
    found: dict[tuple[str, str], Sum] = {}
    for chapter in chapters:
        key = (chapter.site, chapter.connection_id)
        total = found.setdefault(key, Sum(chapter.site, chapter.connection))
        time = chapter.within(begin, end)
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
        was_healthy=row["was_healthy"] is None or bool(row["was_healthy"]),
        since=moment(row["observed_at"]),
        until=_maybe(row["until"]),
        not_before=_maybe(row["not_before"]),
        transition_id=row["transition_id"],
    )


def _maybe(micros: int | None) -> datetime | None:
    return None if micros is None else moment(micros)
