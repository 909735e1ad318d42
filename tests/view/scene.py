"""A fleet that a test makes up, as the daemon hands it over."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from monitor.core.model import (
    CalendarType,
    Connection,
    ConnectionState,
    FailureReason,
    Policy,
    Status,
)
from monitor.core.site import Outage, SiteState
from monitor.view.facts import Facts, NodeFacts, PeerFacts, SiteFacts, StoreFacts, Watching
from monitor.view.failures import Failures
from monitor.view.index import Index, build

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
POLICY: Final = Policy(interval=MINUTE, stale_window=3 * MINUTE, unsettled_interval=MINUTE / 4)
WELL: Final = ConnectionState(
    watched_since=NOW - timedelta(days=3),
    status=Status.SYNCED,
    status_since=NOW - timedelta(days=2),
    calendar_type=CalendarType.GOOGLE,
    import_enabled=True,
    export_enabled=True,
    last_poll_at=NOW - MINUTE / 2,
    last_success_at=NOW - MINUTE / 2,
    last_poll_succeeded=True,
)
KEPT: Final = StoreFacts(failing_since=None, waiting=0, room=50_000)
FAILING: Final = StoreFacts(failing_since=NOW - 47 * MINUTE, waiting=1234, room=50_000)
NODE: Final = NodeFacts(
    name="a",
    nodes=[
        PeerFacts("a", ["http://127.0.0.1:19877"]),
        PeerFacts("b", ["http://127.0.0.1:19877", "https://192.0.2.7:19877"]),
        PeerFacts("c", ["http://0.0.0.0:19877"]),
    ],
    lost_since=None,
    place="postgresql://db.example.org/monitor",
    stops=True,
)
BLIND: Final = replace(NODE, lost_since=NOW - 47 * MINUTE)
UNSEEN: Final = ConnectionState(watched_since=NOW - MINUTE / 2)


@dataclass(slots=True)
class Watched:
    """As the sweep's own."""

    connection: Connection
    state: ConnectionState
    next_at: float | None = 130.0
    extra_at: float | None = None


def state(**facts: Any) -> ConnectionState:
    """A well one but for these."""
    return msgspec.structs.replace(WELL, **facts)


def watched(name: str, known: ConnectionState = WELL, site: str = "downtown", **facts: Any) -> Watched:
    """One connection; `next_at` and `extra_at` are seconds on a monotonic clock that says 100 now."""
    when = {key: facts.pop(key) for key in ("next_at", "extra_at") if key in facts}
    usual: dict[str, Any] = {"site": site, "id": f"id-{name}", "name": name, "policy": POLICY}
    return Watched(Connection(**(usual | facts)), known, **when)


def outage(reason: FailureReason = FailureReason.TIMEOUT) -> SiteState:
    """A site that has been down for five minutes."""
    down = Outage(NOW - 5 * MINUTE, reason, None, "req-1", MINUTE, NOW + MINUTE)
    return SiteState(answered=True, failures_in_a_row=5, outage=down)


def site_of(those: Iterable[Watching], name: str = "downtown", **facts: Any) -> SiteFacts:
    """A site that watches these."""
    usual: dict[str, Any] = {
        "name": name,
        "state": SiteState(answered=True),
        "watched": list(those),
        "interval": MINUTE,
        "interval_in_force": MINUTE,
        "requests_per_minute": 160,
        "used": 12,
        "requests": 1234,
        "failures": {FailureReason.TIMEOUT: 2},
        "polls_waiting": 0,
        "throttled_seconds": 0.0,
        "lag_seconds": 0.002,
        "credential": "oauth",
        "maintenance_until": None,
    }
    return SiteFacts(**(usual | facts))


def facts_of(
    *sites: SiteFacts,
    correction: timedelta = timedelta(),
    store: StoreFacts = KEPT,
    node: NodeFacts | None = None,
) -> Facts:
    """A fleet of these sites."""
    return Facts(
        now=NOW,
        monotonic=100.0,
        correction=correction,
        sites={site.name: site for site in sites},
        failures=Failures(),
        store=store,
        node=node,
    )


def indexed(facts: Facts) -> Index:
    """Looked at in one go."""
    index = Index(facts)
    for _ in build(index):
        pass
    return index
