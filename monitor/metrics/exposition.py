"""The fast renderer: the families of connections and sites, from a snapshot to a page in pieces.

The page goes family by family, as both formats demand, and each family in slices, small enough to leave the
event loop room in between. A slice whose facts are those of the last page is not made again: it is kept as it
was sent, compressed.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any, Final, Generic, NamedTuple, TypeVar

from monitor.core.model import Connection
from monitor.metrics.columns import (
    CONNECTION_COLUMNS,
    SITE_COLUMNS,
    Column,
    ConnectionRows,
    Rows,
    Scrape,
    SiteRows,
    connection_labels,
    site_labels,
)
from monitor.metrics.families import BY_NAME, Type
from monitor.metrics.pieces import Piece
from monitor.metrics.snapshot import Snapshot

SLICE: Final = 500
"""Connections of one family that a slice covers at most: a millisecond or two of work."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Subject = TypeVar("Subject", Connection, str)


class Dialect(Enum):
    """The two formats that Prometheus asks for; they differ in counters' metadata and in the last line."""

    TEXT = "text 0.0.4"
    OPENMETRICS = "OpenMetrics 1.0.0"


def slices(snapshot: Snapshot, dialect: Dialect) -> Iterator[bytes]:
    """All families of connections and sites as text, in slices of `SLICE` connections of one at most."""
    return (b"".join(piece.text()) for piece in Renderer().pieces(snapshot, dialect))


class Renderer:
    """Renders one page after the other, and keeps of each what the next may need again."""

    def __init__(self) -> None:
        self._connections = _Shelf(connection_labels)
        self._sites = _Shelf(site_labels)
        self._correction = timedelta()

    def pieces(self, snapshot: Snapshot, dialect: Dialect) -> Iterator[Piece]:
        """All families of connections and sites, in slices; none of them is empty."""
        if snapshot.correction != self._correction:  # the same moments have other texts now
            self._correction = snapshot.correction
            self._connections.clear()
        scrape = Scrape(snapshot.now, snapshot.now + snapshot.correction, _EPOCH - snapshot.correction)

        def some_connections(start: int) -> ConnectionRows:
            connections, states = zip(*snapshot.connections[start : start + SLICE], strict=True)
            labels = self._connections.labels(start, connections)
            return ConnectionRows.of(labels, scrape, connections, states)

        def some_sites(start: int) -> SiteRows:
            some = snapshot.sites[start : start + SLICE]
            return SiteRows(self._sites.labels(start, [site.name for site in some]), scrape, some)

        count = len(snapshot.connections)
        yield from _render(CONNECTION_COLUMNS, self._connections, count, some_connections, dialect)
        yield from _render(SITE_COLUMNS, self._sites, len(snapshot.sites), some_sites, dialect)


class _Kept(NamedTuple):
    labels: Sequence[str]
    facts: Sequence[Any]
    piece: Piece | None  # none where there are no lines
    lines: Sequence[str] = ()  # row by row, of a column that drifts


class _Shelf(Generic[Subject]):
    """What was rendered last, slice by slice."""

    def __init__(self, label: Callable[[Subject], str]) -> None:
        self._label: Callable[[Subject], str] = label
        self._labels: dict[int, tuple[Sequence[Subject], Sequence[str]]] = {}
        self._kept: dict[tuple[int, str], _Kept] = {}

    def clear(self) -> None:
        """Keep nothing."""
        self._labels.clear()
        self._kept.clear()

    def trim(self, count: int) -> None:
        """Keep nothing of what lies past so many rows."""
        self._labels = {start: labels for start, labels in self._labels.items() if start < count}
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] < count}

    def labels(self, start: int, subjects: Sequence[Subject]) -> Sequence[str]:
        """The labels of the slice that starts there: the same object as long as they are the same."""
        before = self._labels.get(start)
        if before is None or before[0] != subjects:
            before = self._labels[start] = subjects, [self._label(subject) for subject in subjects]
        return before[1]

    def piece(self, start: int, column: Column[Rows, Any], rows: Rows) -> Piece | None:
        """A column's lines for the slice that starts there; None where there is none."""
        facts = column.facts(rows)
        kept = self._kept.get((start, column.name))
        if kept is not None and kept.labels is not rows.labels:
            kept = None
        if kept is None or kept.facts != facts:
            lines = _lines(column, rows, facts, kept)
            kept = self._kept[start, column.name] = _keep(column, rows, facts, lines)
        return kept.piece


def _lines(
    column: Column[Rows, Any], rows: Rows, facts: Sequence[Any], before: _Kept | None
) -> Sequence[str]:
    """The lines of each row; of a column that drifts those of before, where the fact is the same."""
    if before is None or not column.drifts:
        return list(column.lines(rows, facts))
    lines = list(before.lines)
    new = [place for place, was in enumerate(before.facts) if facts[place] is not was]
    made = column.lines(rows.only(new), [facts[place] for place in new])
    for place, line in zip(new, made, strict=True):
        lines[place] = line
    return lines


def _keep(column: Column[Rows, Any], rows: Rows, facts: Sequence[Any], lines: Sequence[str]) -> _Kept:
    text = "".join(lines).encode(errors="replace")  # half a surrogate must not cost the whole page
    piece = Piece.of(text) if text else None
    return _Kept(rows.labels, facts, piece, lines if column.drifts else ())


def _render(
    columns: Sequence[Column[Rows, Any]],
    shelf: _Shelf[Subject],
    count: int,
    some: Callable[[int], Rows],
    dialect: Dialect,
) -> Iterator[Piece]:
    rows = cache(some)
    shelf.trim(count)
    for column in columns:
        yield _head(column.name, dialect)
        for start in range(0, count, SLICE):
            if piece := shelf.piece(start, column, rows(start)):
                yield piece


@cache
def _head(name: str, dialect: Dialect) -> Piece:
    family = BY_NAME[name]
    if dialect is Dialect.OPENMETRICS and family.type is Type.COUNTER:
        name = name.removesuffix("_total")
    return Piece.of(f"# HELP {name} {family.help}\n# TYPE {name} {family.type}\n".encode())
