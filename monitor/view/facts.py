"""What the running daemon hands over to be looked at: its own live state, taken without a copy.

Of 100,000 connections nothing is made here; who looks at them does it piece by piece.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from monitor.core.model import Connection, ConnectionState, FailureReason
from monitor.core.site import SiteState
from monitor.view.failures import Failures


class Watching(Protocol):
    """One connection under watch; `next_at` and `extra_at` are when it is due, in monotonic seconds."""

    @property
    def connection(self) -> Connection:
        """Which one."""

    @property
    def state(self) -> ConnectionState:
        """What is known of it."""

    @property
    def next_at(self) -> float | None:
        """When its next regular poll is due."""

    @property
    def extra_at(self) -> float | None:
        """When an extra one is, if it is."""


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """One site as it runs: `lag_seconds` is how late its last poll was started, `used` of the budget.

    `watched` is another list once it watches others, or the same under other names.
    """

    name: str
    state: SiteState
    watched: Sequence[Watching]
    interval: timedelta
    interval_in_force: timedelta
    requests_per_minute: int
    used: int
    requests: int
    failures: Mapping[FailureReason, int]
    polls_waiting: int
    throttled_seconds: float
    lag_seconds: float | None
    credential: str
    maintenance_until: datetime | None


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """The store: since when (steady) it takes nothing, and how many changes wait, in `room` for so many."""

    failing_since: datetime | None = None
    waiting: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """A node, and where it says that it serves."""

    name: str
    urls: Sequence[str]


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """This process among `nodes`, those that lived when it last saw them: itself too.

    `lost_since` (steady) is when it lost its lease in PostgreSQL at `place`, where it has none; `stops`: it
    asks nobody then.
    """

    name: str
    nodes: Sequence[PeerFacts]
    lost_since: datetime | None
    place: str
    stops: bool

    @property
    def others(self) -> list[PeerFacts]:
        """All but this one."""
        return [each for each in self.nodes if each.name != self.name]


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is watched, at `now` of the steady clock and `monotonic`; `correction` makes it wall time.

    `node` is this process where several share the store.
    """

    now: datetime
    monotonic: float
    correction: timedelta
    sites: Mapping[str, SiteFacts]
    failures: Failures
    store: StoreFacts = StoreFacts()
    node: NodeFacts | None = None

    @property
    def blind_since(self) -> datetime | None:
        """Since when (steady) this node may not poll, where it may not."""
        return self.node.lost_since if self.node is not None and self.node.stops else None

    def wall(self, moment: datetime) -> datetime:
        """What the machine's clock calls a steady moment."""
        return moment + self.correction
