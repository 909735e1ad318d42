"""The whole fleet at one moment: counted, and each connection ranked, the worst first.

It is built piece by piece, so that polls go on in between, and shared by all who look. A piece is sorted by
itself and the pieces are merged as far as a page goes: nothing ever sorts 100,000 at once.

| rank | what |
|---|---|
| 0 | unhealthy: ERROR and NOT_FOUND |
| 1 | unhealthy: any other status |
| 2 | not seen yet, and asking fails |
| 3 | stale: was well when we last knew |
| 4 | not seen yet |
| 5 | unhealthy or stale, and in maintenance |
| 6 | healthy |

Within a rank what changed last comes first; the site's name and the connection's decide the rest.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from monitor.core.model import ConnectionState, Status
from monitor.view.facts import Facts, SiteFacts, Watching
from monitor.view.look import still_to_come

PIECE: Final = 250
"""Connections of a piece: about half a millisecond."""

UNSEEN: Final = "UNSEEN"
"""In the place of a status where there is none yet."""

_PLACE: Final = attrgetter("place")
_ALARMING: Final = (Status.ERROR, Status.NOT_FOUND)
_UNHEALTHY: Final = (0, 1)
_IN_MAINTENANCE: Final = 5
_HEALTHY: Final = 6


Place = tuple[int, float, str, str]
"""Where a connection stands among all others: rank, minus the time it came there, site, name."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A connection as it was when it was looked at. The garbage collector need not know of very many."""

    place: Place
    stale: bool
    healthy: bool | None
    watching: Watching
    state: ConnectionState

    @property
    def rank(self) -> int:
        """How bad it is."""
        return self.place[0]

    @property
    def site(self) -> str:
        """The name of its site."""
        return self.place[2]

    @property
    def name(self) -> str:
        """Its own name."""
        return self.place[3]

    @property
    def unwell(self) -> bool:
        """Whether it was last known to be otherwise than expected."""
        return self.state.status is not None and not self.state.is_healthy(self.watching.connection.policy)

    @property
    def resting(self) -> bool:
        """Whether it is not well, or not known to be, and in maintenance."""
        return self.place[0] == _IN_MAINTENANCE

    @property
    def status(self) -> str:
        """Its status, or UNSEEN."""
        return self.state.status or UNSEEN

    def stands_as(self, before: "Entry") -> bool:
        """Whether it is shown as it was."""
        unmoved = self.place == before.place
        return unmoved and self.stale is before.stale and self.healthy is before.healthy


@dataclass(slots=True)
class Tally:
    """Counts; `unhealthy` and `stale` do not count what rests, which `maintenance` does."""

    connections: int = 0
    healthy: int = 0
    unhealthy: int = 0
    stale: int = 0
    unseen: int = 0
    maintenance: int = 0
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, entry: Entry) -> None:
        """Count one."""
        self.connections += 1
        self.statuses[entry.state.status or UNSEEN] += 1
        rank = entry.place[0]
        if rank == _HEALTHY:
            self.healthy += 1
        elif rank == _IN_MAINTENANCE:
            self.maintenance += 1
        else:
            self.unhealthy += rank in _UNHEALTHY
            self.stale += entry.stale
        self.unseen += entry.state.status is None

    def take(self, other: "Tally") -> None:
        """Add all that another has counted."""
        self.connections += other.connections
        self.healthy += other.healthy
        self.unhealthy += other.unhealthy
        self.stale += other.stale
        self.unseen += other.unseen
        self.maintenance += other.maintenance
        self.statuses.update(other.statuses)


@dataclass(slots=True)
class Index:
    """What a look at the whole fleet found. `pieces` are in the order of the configuration."""

    facts: Facts
    pieces: list[list[Entry]] = field(default_factory=list)
    runs: list[list[Entry]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    sites: dict[str, Tally] = field(default_factory=dict)

    @property
    def down(self) -> list[SiteFacts]:
        """The sites that Wix does not answer us for."""
        return [site for site in self.facts.sites.values() if site.state.outage is not None]


class Slice(NamedTuple):
    """A page of a list: what stands on it, how many stand before it, and of how many."""

    entries: list[Entry]
    before: int
    total: int

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.before + len(self.entries) >= self.total


def build(index: Index) -> Iterator[None]:
    """Fill an index, pausing after each piece."""
    facts = index.facts
    for site in facts.sites.values():
        tally = index.sites[site.name] = Tally()
        for start in range(0, len(site.watched), PIECE):
            piece = [_entry(each, facts) for each in site.watched[start : start + PIECE]]
            for entry in piece:
                tally.add(entry)
            index.pieces.append(piece)
            index.runs.append(sorted(piece, key=_PLACE))
            yield
        index.tally.take(tally)


def page(
    runs: Sequence[Sequence[Entry]], limit: int, *, after: Place | None = None, before: Place | None = None
) -> Slice:
    """The entries that follow a place, or those that precede one; the first ones without."""
    total = sum(map(len, runs))
    if before is not None:
        ends = [bisect_left(run, before, key=_PLACE) for run in runs]
        back = heapq.merge(
            *(_backward(run, end) for run, end in zip(runs, ends, strict=True)), key=_PLACE, reverse=True
        )
        found = list(islice(back, limit))[::-1]
        return Slice(found, sum(ends) - len(found), total)
    starts = [0 if after is None else bisect_right(run, after, key=_PLACE) for run in runs]
    rest = (islice(run, start, None) for run, start in zip(runs, starts, strict=True))
    forth = heapq.merge(*rest, key=_PLACE)
    return Slice(list(islice(forth, limit)), sum(starts), total)


def _backward(run: Sequence[Entry], end: int) -> Iterator[Entry]:
    return (run[at] for at in range(end - 1, -1, -1))


def _entry(watching: Watching, facts: Facts) -> Entry:
    connection, state, now = watching.connection, watching.state, facts.now
    policy = connection.policy
    stale = state.is_stale(policy, now)
    well = state.status is not None and state.is_healthy(policy)
    rank = _HEALTHY
    if not well or stale:
        rank = _rank(state, well=well, stale=stale)
        if still_to_come(connection.maintenance_until, facts.wall(now)):
            rank = _IN_MAINTENANCE
    healthy = None if stale or state.status is None else well
    since = _moved_at(state, stale=stale and well)
    return Entry((rank, -since, connection.site, connection.name), stale, healthy, watching, state)


def _rank(state: ConnectionState, *, well: bool, stale: bool) -> int:
    if state.status is None:
        return 2 if state.failures_in_a_row else 4
    if not well:
        return 0 if state.status in _ALARMING else 1
    return 3 if stale else _HEALTHY


def _moved_at(state: ConnectionState, *, stale: bool) -> float:
    """When it came to stand as it does, in whole seconds."""
    moment = state.last_success_at if stale else state.status_since
    return float(int((moment or state.watched_since).timestamp()))
