"""What each family says: a column of facts, one for each connection or site, and the lines they make.

Facts come first and lines after, as most facts are those of the last scrape: equal facts are equal lines.
A row's labels are one text, made once: it joins the parts of its lines, `up{` and `} 1`, as a comma joins
words.

Sources: "Exposition formats" in the Prometheus documentation (text 0.0.4); OpenMetrics 1.0.0. For names and
numbers like ours the two say the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, NamedTuple, TypeVar

from monitor.core.model import (
    CalendarType,
    Connection,
    ConnectionState,
    Direction,
    ErrorReason,
    FailureReason,
    Status,
)
from monitor.metrics.snapshot import SiteSnapshot

Samples = Iterable[tuple[str, object]]
"""Per sample the text of the labels of its own, each behind a comma, and its value."""


class Scrape(NamedTuple):
    """The moment of a scrape on the steady clock and on the machine's; `epoch` is a steady 1970."""

    now: datetime
    wall: datetime
    epoch: datetime


@dataclass(frozen=True, slots=True)
class ConnectionRows:
    """Some connections as a scrape sees them; `stale` and `healthy`: which of them are."""

    labels: Sequence[str]
    scrape: Scrape
    connections: Sequence[Connection]
    states: Sequence[ConnectionState]
    stale: Sequence[bool]
    healthy: Sequence[bool]

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        scrape: Scrape,
        connections: Sequence[Connection],
        states: Sequence[ConnectionState],
    ) -> "ConnectionRows":
        """Look at these at the moment of the scrape."""
        both = list(zip([connection.policy for connection in connections], states, strict=True))
        stale = [state.is_stale(policy, scrape.now) for policy, state in both]
        healthy = [state.is_healthy(policy) for policy, state in both]
        return cls(labels, scrape, connections, states, stale, healthy)

    def only(self, those: Sequence[int]) -> "ConnectionRows":
        """Some of them, by their places."""
        return ConnectionRows(
            [self.labels[place] for place in those],
            self.scrape,
            [self.connections[place] for place in those],
            [self.states[place] for place in those],
            [self.stale[place] for place in those],
            [self.healthy[place] for place in those],
        )


@dataclass(frozen=True, slots=True)
class SiteRows:
    """Some sites as a scrape sees them."""

    labels: Sequence[str]
    scrape: Scrape
    sites: Sequence[SiteSnapshot]

    def only(self, those: Sequence[int]) -> "SiteRows":
        """Some of them, by their places."""
        labels = [self.labels[place] for place in those]
        return SiteRows(labels, self.scrape, [self.sites[place] for place in those])


Rows = TypeVar("Rows", ConnectionRows, SiteRows)
Fact = TypeVar("Fact")


class Column(NamedTuple, Generic[Rows, Fact]):
    """One family: its name, its facts of some rows, and for each row the lines that it makes with its fact.

    `drifts`: in every slice some rows differ from one scrape to the next, and most do not.
    """

    name: str
    facts: Callable[[Rows], Sequence[Fact]]
    lines: Callable[[Rows, Sequence[Fact]], Iterable[str]]
    drifts: bool = False


def escape(value: str) -> str:
    """A label's value as it stands between quotes."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def connection_labels(connection: Connection) -> str:
    """What every sample of a connection begins with."""
    return f'site="{escape(connection.site)}",connection="{escape(connection.name)}"'


def site_labels(name: str) -> str:
    """What every sample of a site begins with."""
    return f'site="{escape(name)}"'


# ── kinds of columns ─────────────────────────────────────────────────────────────────────────────────


def _worded(
    name: str, facts: Callable[[Rows], Sequence[Fact]], samples: Mapping[Fact, Samples]
) -> Column[Rows, Fact]:
    """A family whose facts are a few words, each with the samples that it makes."""
    parts = {fact: _parts(name, made) for fact, made in samples.items()}

    def lines(rows: Rows, facts: Sequence[Fact]) -> Iterable[str]:
        return [labels.join(parts[fact]) for labels, fact in zip(rows.labels, facts, strict=True)]

    return Column(name, facts, lines)


def _parts(name: str, samples: Samples) -> Sequence[str]:
    """What the labels of a row come in between: nothing, where there is no sample."""
    ends = [f"{own}}} {value}\n" for own, value in samples]
    return [f"{name}{{", *[f"{end}{name}{{" for end in ends[:-1]], ends[-1]] if ends else [""]


def _numbered(name: str, facts: Callable[[Rows], Sequence[float]]) -> Column[Rows, float]:
    """A family whose facts are its values."""

    def lines(rows: Rows, facts: Sequence[float]) -> Iterable[str]:
        return [f"{name}{{{labels}}} {fact}\n" for labels, fact in zip(rows.labels, facts, strict=True)]

    return Column(name, facts, lines)


def _timed(
    name: str, facts: Callable[[ConnectionRows], Sequence[timedelta]]
) -> Column[ConnectionRows, timedelta]:
    """A family whose facts are spans of time."""

    def lines(rows: ConnectionRows, facts: Sequence[timedelta]) -> Iterable[str]:
        return [
            f"{name}{{{labels}}} {fact.total_seconds()}\n"
            for labels, fact in zip(rows.labels, facts, strict=True)
        ]

    return Column(name, facts, lines)


def _dated(
    name: str, facts: Callable[[ConnectionRows], Sequence[datetime | None]], *, drifts: bool = False
) -> Column[ConnectionRows, datetime | None]:
    """A family whose facts are moments of the steady clock, or None: no sample."""

    def lines(rows: ConnectionRows, facts: Sequence[datetime | None]) -> Iterable[str]:
        epoch = rows.scrape.epoch
        return [
            "" if at is None else f"{name}{{{labels}}} {(at - epoch).total_seconds()}\n"
            for labels, at in zip(rows.labels, facts, strict=True)
        ]

    return Column(name, facts, lines, drifts)


def _own(label: str, value: str) -> str:
    return f',{label}="{escape(value)}"'


_ABSENT: Final[Samples] = ()
_ONE: Final[Samples] = (("", 1),)
_FLAG: Final[Mapping[Any, Samples]] = {None: _ABSENT, False: (("", 0),), True: _ONE}
_WHILE: Final[Mapping[Any, Samples]] = {False: _ABSENT, True: _ONE}


# ── connections ──────────────────────────────────────────────────────────────────────────────────────

_ONE_HOT: Final[Mapping[Any, Samples]] = {
    None: _ABSENT,
    **{
        present: [(_own("status", status), int(status is present)) for status in Status] for present in Status
    },
}
_REASON: Final[Mapping[Any, Samples]] = {
    None: _ABSENT,
    **{reason: ((_own("reason", reason), 1),) for reason in ErrorReason},
}
_HALVES: Final = (None, False, True)
_DIRECTIONS: Final[Mapping[Any, Samples]] = {
    halves: [
        (_own("direction", direction), int(enabled))
        for direction, enabled in zip((Direction.IMPORT, Direction.EXPORT), halves, strict=True)
        if enabled is not None
    ]
    for halves in [(imported, exported) for imported in _HALVES for exported in _HALVES]
}


def _info(rows: ConnectionRows, types: Sequence[CalendarType | None]) -> Iterable[str]:
    for labels, connection, calendar_type in zip(rows.labels, rows.connections, types, strict=True):
        own = (
            f',connection_id="{escape(connection.id)}",calendar_type="{calendar_type or ""}"'
            f',team="{escape(connection.team)}"'
        )
        configured = "".join([_own(*label) for label in connection.labels])
        yield f"wix_calendar_connection_info{{{labels}{own}{configured}}} 1\n"


def _healthy(rows: ConnectionRows) -> Sequence[bool | None]:
    """None before the first successful poll, and while stale: a stale SYNCED is never healthy."""
    return [
        None if stale or state.status is None else healthy
        for state, stale, healthy in zip(rows.states, rows.stale, rows.healthy, strict=True)
    ]


def _in_maintenance(rows: ConnectionRows) -> Sequence[bool | None]:
    wall = rows.scrape.wall
    ends = [connection.maintenance_until for connection in rows.connections]
    return [end is not None and wall < end for end in ends]


def _unhealthy(rows: ConnectionRows) -> Sequence[timedelta]:
    now = rows.scrape.now
    return [
        state.unhealthy_for if healthy else state.unhealthy_by(connection.policy, now)
        for connection, state, healthy in zip(rows.connections, rows.states, rows.healthy, strict=True)
    ]


def _intervals(rows: ConnectionRows) -> Sequence[timedelta]:
    now = rows.scrape.now
    return [
        state.interval(connection.policy, now)
        for connection, state in zip(rows.connections, rows.states, strict=True)
    ]


_C: Final = "wix_calendar_connection_"

CONNECTION_COLUMNS: Final[tuple[Column[ConnectionRows, Any], ...]] = (
    Column(f"{_C}info", lambda rows: [state.calendar_type for state in rows.states], _info),
    _worded(f"{_C}status", lambda rows: [state.status for state in rows.states], _ONE_HOT),
    _worded(f"{_C}error_reason", lambda rows: [state.reason for state in rows.states], _REASON),
    _worded(f"{_C}healthy", _healthy, _FLAG),
    _worded(f"{_C}stale", lambda rows: rows.stale, _FLAG),
    _worded(f"{_C}maintenance", _in_maintenance, _WHILE),
    _dated(f"{_C}status_since_timestamp_seconds", lambda rows: [state.status_since for state in rows.states]),
    _numbered(f"{_C}transitions_total", lambda rows: [state.transitions for state in rows.states]),
    _timed(f"{_C}unhealthy_seconds_total", _unhealthy),
    _worded(
        f"{_C}sync_enabled",
        lambda rows: [(state.import_enabled, state.export_enabled) for state in rows.states],
        _DIRECTIONS,
    ),
    _worded(f"{_C}poll_success", lambda rows: [state.last_poll_succeeded for state in rows.states], _FLAG),
    _dated(
        f"{_C}last_poll_timestamp_seconds",
        lambda rows: [state.last_poll_at for state in rows.states],
        drifts=True,
    ),
    _dated(
        f"{_C}last_success_timestamp_seconds",
        lambda rows: [state.last_success_at for state in rows.states],
        drifts=True,
    ),
    _timed(f"{_C}poll_interval_seconds", _intervals),
)

# ── sites ────────────────────────────────────────────────────────────────────────────────────────────

_DOWN: Final[Mapping[Any, Samples]] = {
    None: _ABSENT,
    **{reason: ((_own("reason", reason), 1),) for reason in FailureReason},
}
_FAILURES: Final = [_own("reason", reason) for reason in FailureReason]
_S: Final = "wix_calendar_site_"


def _failures(rows: SiteRows, counts: Sequence[Sequence[int]]) -> Iterable[str]:
    name = f"{_S}request_failures_total"
    for labels, of_site in zip(rows.labels, counts, strict=True):
        lines = [f"{name}{{{labels}{own}}} {n}\n" for own, n in zip(_FAILURES, of_site, strict=True)]
        yield "".join(lines)


SITE_COLUMNS: Final[tuple[Column[SiteRows, Any], ...]] = (
    _worded(f"{_S}up", lambda rows: [site.up for site in rows.sites], _FLAG),
    _worded(f"{_S}down_reason", lambda rows: [site.down_reason for site in rows.sites], _DOWN),
    _numbered(f"{_S}requests_total", lambda rows: [site.requests for site in rows.sites]),
    Column(
        f"{_S}request_failures_total",
        lambda rows: [
            tuple([site.failures.get(reason, 0) for reason in FailureReason]) for site in rows.sites
        ],
        _failures,
    ),
    _numbered(
        f"{_S}rate_limit_requests_per_minute",
        lambda rows: [site.requests_per_minute for site in rows.sites],
    ),
    _numbered(f"{_S}throttled_seconds_total", lambda rows: [site.throttled_seconds for site in rows.sites]),
    _numbered(f"{_S}polls_waiting", lambda rows: [site.polls_waiting for site in rows.sites]),
    _worded(f"{_S}breaker_open", lambda rows: [site.breaker_open for site in rows.sites], _FLAG),
    _worded(f"{_S}maintenance", lambda rows: [site.maintenance for site in rows.sites], _WHILE),
    _numbered("wix_calendar_monitor_connections", lambda rows: [site.connections for site in rows.sites]),
)
