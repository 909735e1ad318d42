"""Connections as a file lists them: light, comparable, and each with its place while it is asked for."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from monitor.config.document import Loc
from monitor.config.fields import DOTS
from monitor.config.model import Entry, Group
from monitor.config.source import Source
from monitor.core.model import Status
from monitor.errors import Problem

_LONGEST_OWN_NAME: Final = 64
_KEPT: Final = 12


class Written(msgspec.Struct, frozen=True, gc=False):
    """One connection as written, but for its name, which it has in any case."""

    id: str
    name: str
    labels: tuple[tuple[str, str], ...] = ()
    expected: frozenset[Status] | None = None
    team: str | None = None
    maintenance_until: datetime | None = None


class Run(NamedTuple):
    """Connections that stand one after another: in the list at `loc`, from its `first` on."""

    loc: Loc
    first: int
    entries: tuple[Written, ...]


class Item(NamedTuple):
    """One connection and where it stands."""

    source: Source
    loc: Loc
    entry: Written

    def problem(self, key: str, message: str) -> Problem:
        """An error at a key of this connection."""
        return self.source.problem((*self.loc, key), message)

    def place(self) -> str:
        """`file:line` of the connection."""
        return f"{self.source.path}:{self.source.line(self.loc)}"


@dataclass(frozen=True, slots=True)
class Listed:
    """The connections of one list; two are equal where their connections are, wherever they stand."""

    source: Source = field(compare=False)
    loc: Loc = field(compare=False)
    runs: tuple[Run, ...]

    def __len__(self) -> int:
        """How many connections."""
        return sum(len(run.entries) for run in self.runs)

    def entries(self) -> Iterator[Written]:
        """The connections in their order."""
        return (entry for run in self.runs for entry in run.entries)

    def items(self) -> Iterator[Item]:
        """The same, each with its place."""
        for run in self.runs:
            for number, entry in enumerate(run.entries, run.first):
                yield Item(self.source, (*self.loc, *run.loc, number), entry)


def runs_of(written: Iterable[Entry | Group | None]) -> tuple[Run, ...]:
    """What a list of entries and groups holds; a hole is passed over."""
    return tuple(_runs(written))


def _runs(written: Iterable[Entry | Group | None]) -> Iterator[Run]:
    row: list[Written] = []
    number = -1
    for number, each in enumerate(written):
        if isinstance(each, Entry):
            row.append(_written(each))
            continue
        if row:
            yield Run((), number - len(row), tuple(row))
            row = []
        if each is not None:
            yield Run((number, "targets"), 0, tuple(_written(entry) for entry in each.entries()))
    if row:
        yield Run((), number + 1 - len(row), tuple(row))


def _written(entry: Entry) -> Written:
    return Written(
        entry.id,
        entry.name or default_name(entry.id),
        tuple(sorted(entry.labels.items())),
        frozenset(entry.expected) if entry.expected is not None else None,
        entry.team,
        entry.maintenance_until,
    )


def default_name(connection_id: str) -> str:
    """The name of a connection that was given none: its id where that will do, else with a digest."""
    if len(connection_id) <= _LONGEST_OWN_NAME and connection_id not in DOTS:
        return connection_id
    digest = blake2b(connection_id.encode(), digest_size=4).hexdigest()
    return f"{connection_id[:_KEPT]}-{digest}"
