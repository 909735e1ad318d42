"""What a trial of several daemons leaves behind, and the terms by which it is judged.

All moments are seconds since 1970 on the one machine's clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from monitor.core.shards import Unit, part_of

Shown = tuple[str | None, str | None]
"""A status and its reason."""

Kind = Literal["kill", "stop", "cut", "leave", "backends", "outage"]


class Calendar(NamedTuple):
    """A connection of a site."""

    site: str
    id: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that came to the simulator; `told` is what an answer sent whole told at `ended`."""

    calendar: Calendar
    node: str
    arrived: float
    ended: float
    told: Shown | None


@dataclass(frozen=True, slots=True)
class Line:
    """A log line that tells a transition or a first sight."""

    node: str
    at: float
    transition_id: str
    calendar: Calendar
    shown: Shown
    observed_at: float


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table of transitions; `before` is None for a first sight."""

    n: int
    transition_id: str
    calendar: Calendar
    before: Shown | None
    after: Shown
    observed_at: float
    node: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A change of a unit's owner, in the order in which they were made; `node` is None where it was given up.

    `at` is when the change was made, `committed` when others could see it.
    """

    site: str
    node: str | None
    epoch: int
    at: float
    committed: float
    part: int = 0

    @property
    def unit(self) -> Unit:
        """What is claimed."""
        return Unit(self.site, self.part)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What was done to a node, or to all where none is named."""

    kind: Kind
    node: str | None
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Terms:
    """What is promised, in seconds.

    An answer counts where its node was left alone for `settle` after it. A lease ends `ttl` after its last
    renewal. A site is asked again within `interval` and `take_over`. A request that had left its node may
    arrive `in_flight` after the site went to another.
    """

    interval: float
    ttl: float
    take_over: float
    settle: float = 1.0
    in_flight: float = 0.5
    believed: int = 2
    """How many not-founds in a row are believed."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All of it, of a trial between two moments, over sites of so many parts each."""

    asks: Sequence[Ask]
    lines: Sequence[Line]
    rows: Sequence[Row]
    claims: Sequence[Claim]
    troubles: Sequence[Trouble]
    began: float
    ended: float
    parts: int = 1

    def unit_of(self, calendar: Calendar) -> Unit:
        """What has to be owned to ask for it."""
        return Unit(calendar.site, part_of(calendar.id, self.parts))
