"""Snapshots to render: one with a sample in every family, and the pieces to build others."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from monitor.core.model import (
    CalendarType,
    Connection,
    ConnectionState,
    ErrorReason,
    FailureReason,
    Policy,
    Status,
)
from monitor.metrics.snapshot import SiteSnapshot, Snapshot

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
POLICY: Final = Policy(
    interval=timedelta(seconds=60),
    stale_window=timedelta(seconds=180),
    unsettled_interval=timedelta(seconds=15),
)
HOSTILE: Final = 'back\\slash "quote"\nnew line, {brace} # EOF é 🎉'


def connection(**facts: Any) -> Connection:
    usual: dict[str, Any] = {"site": "downtown", "id": "4WnvD8Qz", "name": "anna", "policy": POLICY}
    return Connection(**(usual | facts))


def state(**facts: Any) -> ConnectionState:
    usual: dict[str, Any] = {"watched_since": NOW - timedelta(minutes=1)}
    return ConnectionState(**(usual | facts))


def polled(**facts: Any) -> ConnectionState:
    """A state after a successful poll 20 s ago, SYNCED unless said."""
    seen = NOW - timedelta(seconds=20)
    usual: dict[str, Any] = {
        "watched_since": NOW - timedelta(hours=2),
        "status": Status.SYNCED,
        "status_since": NOW - timedelta(hours=1, microseconds=250),
        "calendar_type": CalendarType.GOOGLE,
        "import_enabled": True,
        "export_enabled": False,
        "last_poll_at": seen,
        "last_success_at": seen,
        "last_poll_succeeded": True,
    }
    return ConnectionState(**(usual | facts))


def site(**facts: Any) -> SiteSnapshot:
    usual: dict[str, Any] = {
        "name": "downtown",
        "up": True,
        "down_reason": None,
        "requests": 1234,
        "failures": {FailureReason.TIMEOUT: 2},
        "requests_per_minute": 160,
        "throttled_seconds": 1.25,
        "polls_waiting": 3,
        "breaker_open": False,
        "maintenance": False,
        "connections": 4,
    }
    return SiteSnapshot(**(usual | facts))


def snapshot(
    *connections: tuple[Connection, ConnectionState],
    sites: tuple[SiteSnapshot, ...] = (),
    correction: timedelta = timedelta(),
) -> Snapshot:
    return Snapshot(NOW, correction, connections, sites)


def full() -> Snapshot:
    """Every family has a sample; the odd connection is hostile in every label."""
    broken = polled(
        status=Status.ERROR,
        reason=ErrorReason.TOKEN_REVOKED,
        calendar_type=CalendarType.UNDEFINED,
        export_enabled=None,
        transitions=3,
        unhealthy_for=timedelta(seconds=90),
    )
    blind = polled(
        last_poll_at=NOW - timedelta(seconds=5),
        last_poll_succeeded=False,
        last_success_at=NOW - timedelta(minutes=30),
    )
    odd = connection(
        site="ümlaut",
        id=HOSTILE,
        name=HOSTILE,
        team=HOSTILE,
        labels=(("staff", HOSTILE), ("floor", "")),
        maintenance_until=NOW + timedelta(hours=1),
    )
    return snapshot(
        (connection(team="front-desk", labels=(("staff", "anna"),)), polled()),
        (connection(name="ben", id="b/?% 1"), broken),
        (connection(name="cleo", id="c"), state()),
        (odd, blind),
        sites=(
            site(),
            site(
                name="ümlaut",
                up=False,
                down_reason=FailureReason.UNAUTHORIZED,
                breaker_open=True,
                maintenance=True,
                connections=1,
            ),
            site(name="new", up=None, requests=0, failures={}, throttled_seconds=0.0, connections=0),
        ),
        correction=timedelta(seconds=2, milliseconds=500),
    )
