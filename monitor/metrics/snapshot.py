"""What a page shows, frozen: taken in one go, so that a page is consistent however long it is rendered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import overload

import msgspec

from monitor.core.model import Connection, ConnectionState, FailureReason


class SiteSnapshot(msgspec.Struct, frozen=True, gc=False):
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


class Pairs(Sequence[tuple[Connection, ConnectionState]]):
    """Connections, each with what is known of it: pairs that are made when they are asked for."""

    def __init__(self, connections: Sequence[Connection], states: Sequence[ConnectionState]) -> None:
        self._connections = connections
        self._states = states

    def __len__(self) -> int:
        return len(self._connections)

    @overload
    def __getitem__(self, at: int) -> tuple[Connection, ConnectionState]: ...

    @overload
    def __getitem__(self, at: slice) -> list[tuple[Connection, ConnectionState]]: ...

    def __getitem__(
        self, at: int | slice
    ) -> tuple[Connection, ConnectionState] | list[tuple[Connection, ConnectionState]]:
        if isinstance(at, slice):
            return list(zip(self._connections[at], self._states[at], strict=True))
        return self._connections[at], self._states[at]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is watched, at `now` of the steady clock; `correction` makes wall time of its moments."""

    now: datetime
    correction: timedelta
    connections: Sequence[tuple[Connection, ConnectionState]]
    sites: Sequence[SiteSnapshot]
