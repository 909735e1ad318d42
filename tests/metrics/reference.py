"""The families of a snapshot once more, of prometheus_client's own parts: what our renderer must equal."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from monitor.core.model import Connection, ConnectionState, FailureReason, Status
from monitor.metrics.families import FAMILIES, Type
from monitor.metrics.snapshot import SiteSnapshot, Snapshot

Sample = tuple[str, dict[str, str], float]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_C: Final = "wix_calendar_connection_"
_S: Final = "wix_calendar_site_"


def registry(snapshot: Snapshot) -> CollectorRegistry:
    """A registry to give to prometheus_client's own generators."""
    result = CollectorRegistry()
    result.register(_Families(snapshot))
    return result


class _Families:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        samples = list(_samples(self._snapshot))
        for family in FAMILIES:
            if family.name.startswith((_C, _S)) or family.name == "wix_calendar_monitor_connections":
                kind = CounterMetricFamily if family.type is Type.COUNTER else GaugeMetricFamily
                metric: Metric = kind(family.name, family.help)
                for name, labels, value in samples:
                    if name == family.name:
                        metric.add_sample(name, {k: encodable(v) for k, v in labels.items()}, value)
                yield metric


def encodable(value: str) -> str:
    """What is left of a label value in UTF-8: half a surrogate has no form there."""
    return value.encode(errors="replace").decode()


def _samples(snapshot: Snapshot) -> Iterator[Sample]:
    for connection, state in snapshot.connections:
        base = {"site": connection.site, "connection": connection.name}
        for name, own, value in _connection(connection, state, snapshot):
            yield _C + name, base | own, value
    for site in snapshot.sites:
        for name, own, value in _site(site):
            yield _S + name, {"site": site.name} | own, value
        yield "wix_calendar_monitor_connections", {"site": site.name}, site.connections


def _connection(connection: Connection, state: ConnectionState, snapshot: Snapshot) -> Iterator[Sample]:
    policy, now, wall = connection.policy, snapshot.now, snapshot.now + snapshot.correction
    ids = {"connection_id": connection.id, "team": connection.team}
    kind = "" if state.calendar_type is None else state.calendar_type.value
    yield "info", {**ids, "calendar_type": kind, **dict(connection.labels)}, 1
    yield "stale", {}, state.is_stale(policy, now)
    yield "transitions_total", {}, state.transitions
    yield "unhealthy_seconds_total", {}, state.unhealthy_by(policy, now).total_seconds()
    yield "poll_interval_seconds", {}, policy.interval.total_seconds()
    if connection.maintenance_until is not None and wall < connection.maintenance_until:
        yield "maintenance", {}, 1
    if state.status is not None and not state.is_stale(policy, now):
        yield "healthy", {}, state.is_healthy(policy)
    yield from _last_answer(state)
    for name, moment in (
        ("status_since", state.status_since),
        ("last_poll", state.last_poll_at),
        ("last_success", state.last_success_at),
    ):
        if moment is not None:
            seconds = (moment + snapshot.correction - _EPOCH).total_seconds()
            yield f"{name}_timestamp_seconds", {}, seconds


def _last_answer(state: ConnectionState) -> Iterator[Sample]:
    if state.status is not None:
        for status in Status:
            yield "status", {"status": status.value}, status is state.status
    if state.reason is not None:
        yield "error_reason", {"reason": state.reason.value}, 1
    if state.import_enabled is not None:
        yield "sync_enabled", {"direction": "import"}, state.import_enabled
    if state.export_enabled is not None:
        yield "sync_enabled", {"direction": "export"}, state.export_enabled
    if state.last_poll_succeeded is not None:
        yield "poll_success", {}, state.last_poll_succeeded


def _site(site: SiteSnapshot) -> Iterator[Sample]:
    if site.up is not None:
        yield "up", {}, site.up
    if site.down_reason is not None:
        yield "down_reason", {"reason": site.down_reason.value}, 1
    yield "requests_total", {}, site.requests
    for reason in FailureReason:
        yield "request_failures_total", {"reason": reason.value}, site.failures.get(reason, 0)
    yield "rate_limit_requests_per_minute", {}, site.requests_per_minute
    yield "throttled_seconds_total", {}, site.throttled_seconds
    yield "polls_waiting", {}, site.polls_waiting
    yield "breaker_open", {}, site.breaker_open
    if site.maintenance:
        yield "maintenance", {}, 1
