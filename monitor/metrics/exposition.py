"""The fast renderer: the families of connections and sites, from a snapshot to bytes.

Each family is a pure function from one connection (or site) to its samples. The page goes family by
family, as both formats demand, in slices small enough to leave the event loop room in between.

Sources: "Exposition formats" in the Prometheus documentation (text 0.0.4); OpenMetrics 1.0.0. For names
like ours the two differ in the metadata of counters and in the last line only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Final, TypeVar

import msgspec

from monitor.core.model import Connection, ConnectionState, Direction, ErrorReason, FailureReason, Status
from monitor.metrics.families import BY_NAME, Family, Type
from monitor.metrics.snapshot import SiteSnapshot, Snapshot

SLICE: Final = 1000
"""Connections of one family that a slice covers at most: a millisecond or two of work."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Dialect(Enum):
    """The two formats that Prometheus asks for."""

    TEXT = "text 0.0.4"
    OPENMETRICS = "OpenMetrics 1.0.0"


class Scrape(msgspec.Struct, frozen=True, gc=False):
    """The moment of a scrape on the steady clock and on the machine's; `epoch` is a steady 1970."""

    now: datetime
    wall: datetime
    epoch: datetime


class Watched(msgspec.Struct, frozen=True, gc=False):
    """One connection as a scrape sees it."""

    connection: Connection
    state: ConnectionState
    scrape: Scrape


T = TypeVar("T")
Item = TypeVar("Item")
Samples = Iterable[tuple[str, str]]
"""Per sample the text of the labels of its own, each behind a comma, and of its value."""
Table = Mapping[str, Callable[[T], Samples]]

_ABSENT: Final[Samples] = ()
_ONE: Final[Samples] = (("", "1"),)
_DIGIT: Final = {False: "0", True: "1"}
_FLAG: Final[dict[bool | None, Samples]] = {None: _ABSENT, False: (("", "0"),), True: _ONE}


def slices(snapshot: Snapshot, dialect: Dialect) -> Iterator[bytes]:
    """All families of connections and sites, in slices of `SLICE` connections of one family at most."""
    scrape = Scrape(snapshot.now, snapshot.now + snapshot.correction, _EPOCH - snapshot.correction)

    def watched(pair: tuple[Connection, ConnectionState]) -> tuple[str, Watched]:
        connection, state = pair
        labels = f'site="{_escape(connection.site)}",connection="{_escape(connection.name)}"'
        return labels, Watched(connection, state, scrape)

    def site(site: SiteSnapshot) -> tuple[str, SiteSnapshot]:
        return f'site="{_escape(site.name)}"', site

    yield from _render(CONNECTION_TABLE, snapshot.connections, watched, dialect)
    yield from _render(SITE_TABLE, snapshot.sites, site, dialect)


def _render(
    table: Table[T], items: Sequence[Item], labelled: Callable[[Item], tuple[str, T]], dialect: Dialect
) -> Iterator[bytes]:
    @cache
    def rows(start: int) -> list[tuple[str, T]]:
        return [labelled(item) for item in items[start : start + SLICE]]

    for name, samples in table.items():
        yield _head(BY_NAME[name], dialect)
        for start in range(0, len(items), SLICE):
            if lines := _lines(name, rows(start), samples):
                yield lines


def _head(family: Family, dialect: Dialect) -> bytes:
    bare = dialect is Dialect.OPENMETRICS and family.type is Type.COUNTER
    name = family.name.removesuffix("_total") if bare else family.name
    return f"# HELP {name} {family.help}\n# TYPE {name} {family.type}\n".encode()


def _lines(name: str, rows: Iterable[tuple[str, T]], samples: Callable[[T], Samples]) -> bytes:
    lines = [f"{name}{{{labels}{own}}} {value}\n" for labels, item in rows for own, value in samples(item)]
    return "".join(lines).encode(errors="replace")  # half a surrogate must not cost the whole page


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _alone(value: float) -> Samples:
    return (("", repr(value)),)


def _own(label: str, value: str) -> str:
    return f',{label}="{_escape(value)}"'


def _at(seen: Watched, moment: datetime | None) -> Samples:
    return _ABSENT if moment is None else (("", repr((moment - seen.scrape.epoch).total_seconds())),)


# ── connections ──────────────────────────────────────────────────────────────────────────────────────

_ONE_HOT: Final[dict[Status | None, Samples]] = {
    None: _ABSENT,
    **{
        present: tuple((_own("status", status), _DIGIT[status is present]) for status in Status)
        for present in Status
    },
}
_REASON: Final[dict[ErrorReason | None, Samples]] = {
    None: _ABSENT,
    **{reason: ((_own("reason", reason), "1"),) for reason in ErrorReason},
}
_DIRECTIONS: Final[dict[tuple[Direction, bool | None], Samples]] = {
    (direction, enabled): ((_own("direction", direction), _DIGIT[enabled]),)
    for direction in Direction
    for enabled in (False, True)
} | {(direction, None): _ABSENT for direction in Direction}


def _info(seen: Watched) -> Samples:
    connection = seen.connection
    own = (
        f',connection_id="{_escape(connection.id)}",calendar_type="{seen.state.calendar_type or ""}"'
        f',team="{_escape(connection.team)}"'
    )
    return ((own + "".join([_own(*label) for label in connection.labels]), "1"),)


def _healthy(seen: Watched) -> Samples:
    state, policy = seen.state, seen.connection.policy
    if state.status is None or state.is_stale(policy, seen.scrape.now):  # a stale SYNCED is never healthy
        return _ABSENT
    return _FLAG[state.is_healthy(policy)]


def _maintenance(seen: Watched) -> Samples:
    until = seen.connection.maintenance_until
    return _ONE if until is not None and seen.scrape.wall < until else _ABSENT


def _sync_enabled(seen: Watched) -> Samples:
    state = seen.state
    return (
        *_DIRECTIONS[Direction.IMPORT, state.import_enabled],
        *_DIRECTIONS[Direction.EXPORT, state.export_enabled],
    )


def _unhealthy_seconds(seen: Watched) -> Samples:
    return _alone(seen.state.unhealthy_by(seen.connection.policy, seen.scrape.now).total_seconds())


CONNECTION_TABLE: Final[Table[Watched]] = {
    "wix_calendar_connection_info": _info,
    "wix_calendar_connection_status": lambda seen: _ONE_HOT[seen.state.status],
    "wix_calendar_connection_error_reason": lambda seen: _REASON[seen.state.reason],
    "wix_calendar_connection_healthy": _healthy,
    "wix_calendar_connection_stale": lambda seen: _FLAG[
        seen.state.is_stale(seen.connection.policy, seen.scrape.now)
    ],
    "wix_calendar_connection_maintenance": _maintenance,
    "wix_calendar_connection_status_since_timestamp_seconds": lambda seen: _at(seen, seen.state.status_since),
    "wix_calendar_connection_transitions_total": lambda seen: _alone(seen.state.transitions),
    "wix_calendar_connection_unhealthy_seconds_total": _unhealthy_seconds,
    "wix_calendar_connection_sync_enabled": _sync_enabled,
    "wix_calendar_connection_poll_success": lambda seen: _FLAG[seen.state.last_poll_succeeded],
    "wix_calendar_connection_last_poll_timestamp_seconds": lambda seen: _at(seen, seen.state.last_poll_at),
    "wix_calendar_connection_last_success_timestamp_seconds": lambda seen: _at(
        seen, seen.state.last_success_at
    ),
    "wix_calendar_connection_poll_interval_seconds": lambda seen: _alone(
        seen.state.interval(seen.connection.policy, seen.scrape.now).total_seconds()
    ),
}

# ── sites ────────────────────────────────────────────────────────────────────────────────────────────

_FAILURE: Final = {reason: _own("reason", reason) for reason in FailureReason}


def _down_reason(site: SiteSnapshot) -> Samples:
    return _ABSENT if site.down_reason is None else ((_FAILURE[site.down_reason], "1"),)


def _failures(site: SiteSnapshot) -> Samples:
    return [(own, repr(site.failures.get(reason, 0))) for reason, own in _FAILURE.items()]


SITE_TABLE: Final[Table[SiteSnapshot]] = {
    "wix_calendar_site_up": lambda site: _FLAG[site.up],
    "wix_calendar_site_down_reason": _down_reason,
    "wix_calendar_site_requests_total": lambda site: _alone(site.requests),
    "wix_calendar_site_request_failures_total": _failures,
    "wix_calendar_site_rate_limit_requests_per_minute": lambda site: _alone(site.requests_per_minute),
    "wix_calendar_site_throttled_seconds_total": lambda site: _alone(site.throttled_seconds),
    "wix_calendar_site_polls_waiting": lambda site: _alone(site.polls_waiting),
    "wix_calendar_site_breaker_open": lambda site: _FLAG[site.breaker_open],
    "wix_calendar_site_maintenance": lambda site: _ONE if site.maintenance else _ABSENT,
    "wix_calendar_monitor_connections": lambda site: _alone(site.connections),
}
