"""What a store says beside the daemons that write it: the present, the past, and their sums.

The queries are one text for both engines, which only differ in how they are asked.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from monitor.core.model import HEALTHY_BY_DEFAULT
from monitor.logs import rfc3339, rfc3339_or_none
from monitor.store.rows import Fields, micros, moment


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
            "not_before": rfc3339_or_none(self.not_before),
            "until": rfc3339_or_none(self.until),
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


@dataclass(frozen=True, slots=True)
class Node:
    """A process that shares the store; moments are of PostgreSQL's clock, `lease_until` None: it lives.

    `sites` are the sites, or parts of sites, that it owns.
    """

    name: str
    version: str
    urls: Sequence[str]
    joined_at: datetime
    lease_until: datetime | None
    sites: int


@dataclass(frozen=True, slots=True)
class Lease:
    """Who owns a site, or a part of one, under which epoch, and since when.

    `owner` None: no node that lives; since when may not be known then. `is_orphan`: its owner went without a
    word, and `since` is the end of that one's lease.
    """

    site: str
    part: int
    owner: str | None
    urls: Sequence[str]
    epoch: int
    since: datetime | None
    is_orphan: bool


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


class Reader(ABC):
    """An open store, for reading."""

    def present(self) -> list[Present]:
        """Every connection it knows, watched or not."""
        return [_present(row) for row in self._ask("SELECT * FROM connection", {})]

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

    def nodes(self) -> list[Node]:
        """The nodes that share the store, by name; none where one process has it."""
        return []

    def leases(self, site: str | None = None) -> list[Lease]:
        """Who owns what, of one site or of all; nothing where one process has it."""
        del site
        return []

    def _rows(
        self,
        wanted: Wanted,
        *,
        since: str = _BEGAN_IN_IT,
        before: Instant | None = None,
        limit: int | None = None,
    ) -> Iterator[Fields]:
        """Only what is wanted is asked for, so that an index serves."""
        conditions = [
            ("it.site = :site", wanted.site),
            ("it.connection_id = :connection_id", wanted.connection_id),
            (_BORE_THE_NAME, wanted.connection),
            ("it.to_status = :status", wanted.status),
            (since, wanted.since),
            ("it.observed_at < :until", wanted.until),
            ("(it.observed_at, it.n) < (:at, :n)", before),
        ]
        where = " AND ".join(text for text, given in conditions if given is not None) or "TRUE"
        at, n = before or (None, None)
        most = "" if limit is None else "LIMIT :limit"
        return self._ask(
            f"{_CHAPTERS} WHERE {where} ORDER BY it.observed_at DESC, it.n DESC {most}",
            {**_parameters(wanted), "at": at, "n": n, "limit": limit},
        )

    @abstractmethod
    def back_up(self, destination: Path) -> None:
        """Copy the store as it is now, whoever writes it meanwhile; there is a whole copy in the end or none.

        Raises BackupError: the destination exists or cannot be written, or the engine has its own way.
        """

    @abstractmethod
    def _ask(self, query: str, parameters: Mapping[str, object]) -> Iterator[Fields]:
        """The rows of a query, whose parameters are named `:like_this`, as they are wanted."""


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


def _present(row: Fields) -> Present:
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


def _chapter(row: Fields) -> Chapter:
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


def _was_healthy(row: Fields) -> bool:
    """As it was judged then; by its word where that was forgotten. Before the first sight all was well."""
    if row["was_healthy"] is not None:
        return bool(row["was_healthy"])
    return row["from_status"] is None or row["from_status"] in HEALTHY_BY_DEFAULT


def _maybe(micros: int | None) -> datetime | None:
    return None if micros is None else moment(micros)
