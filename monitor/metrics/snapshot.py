"""What a page shows, frozen: taken in one go, so that a page is consistent however long it is rendered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from monitor.core.model import Connection, ConnectionState, FailureReason


@dataclass(frozen=True, slots=True)
class SiteSnapshot:
    """One site at the moment of a snapshot; `up` is None before its first answer."""

    name: str
    up: bool | None
    down_reason: FailureReason | None
    requests: int
    failures: Mapping[FailureReason, int]
    requests_per_minute: int
    throttled_seconds: float
    polls_waiting: int
    breaker_open: bool
    maintenance: bool
    connections: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is watched, at `now` of the steady clock; `correction` makes wall time of its moments."""

    now: datetime
    correction: timedelta
    connections: Sequence[tuple[Connection, ConnectionState]]
    sites: Sequence[SiteSnapshot]
