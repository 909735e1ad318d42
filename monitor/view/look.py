"""Looking at one connection or one site: from what runs to what is shown. Moments shown are wall time."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from monitor.core.model import CalendarType, ErrorReason, FailureReason, Status
from monitor.core.site import REFUSALS
from monitor.view.facts import Facts, SiteFacts, Watching
from monitor.view.failures import FailedPoll
from monitor.view.moves import Move, move_for, site_move


class ConnectionView(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one connection; `healthy` is None while nothing is known for now.

    `was_well`: whether the last known status is an expected one.
    """

    site: str
    name: str
    id: str
    team: str
    labels: Mapping[str, str]
    calendar_type: CalendarType | None
    status: Status | None
    reason: ErrorReason | None
    healthy: bool | None
    was_well: bool
    stale: bool
    since: datetime | None
    last_success: datetime | None
    last_poll: datetime | None
    last_poll_succeeded: bool | None
    failures: tuple[FailedPoll, ...]
    failures_in_a_row: int
    next_poll: datetime | None
    interval: timedelta
    import_enabled: bool | None
    export_enabled: bool | None
    maintenance_until: datetime | None
    transitions: int
    move: Move | None

    @property
    def kind(self) -> str:
        """How it is shown: well, bad, unknown, or rest, which is unwell in maintenance."""
        if self.healthy:
            return "well"
        if self.maintenance_until is not None:
            return "rest"
        return "unknown" if self.status is None or self.was_well else "bad"

    @property
    def failure(self) -> FailedPoll | None:
        """What the last poll died of, where it did and that is remembered."""
        failed = self.last_poll_succeeded is False and self.failures
        return self.failures[0] if failed else None


class SiteView(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one site; `up` is None before its first answer.

    `credential_state`: accepted, refused, or unknown, where no answer has told.
    """

    name: str
    up: bool | None
    down_reason: FailureReason | None
    down_since: datetime | None
    http_status: int | None
    request_id: str
    next_trial: datetime | None
    failures_in_a_row: int
    wait_until: datetime | None
    requests_per_minute: int
    used: int
    requests: int
    failures: Mapping[FailureReason, int]
    polls_waiting: int
    throttled_seconds: float
    lag_seconds: float | None
    interval: timedelta
    interval_in_force: timedelta
    credential: str
    credential_state: str
    maintenance_until: datetime | None
    connections: int
    move: Move | None


def look_at(watching: Watching, site: SiteFacts, facts: Facts) -> ConnectionView:
    """One connection."""
    connection, state, now = watching.connection, watching.state, facts.now
    policy = connection.policy
    stale = state.is_stale(policy, now)
    blind = stale or state.status is None
    well = state.is_healthy(policy)

    def wall(moment: datetime | None) -> datetime | None:
        return None if moment is None else facts.wall(moment)

    return ConnectionView(
        site=connection.site,
        name=connection.name,
        id=connection.id,
        team=connection.team,
        labels=dict(connection.labels),
        calendar_type=state.calendar_type,
        status=state.status,
        reason=state.reason,
        healthy=None if blind else well,
        was_well=well,
        stale=stale,
        since=wall(state.status_since),
        last_success=wall(state.last_success_at),
        last_poll=wall(state.last_poll_at),
        last_poll_succeeded=state.last_poll_succeeded,
        failures=tuple(
            msgspec.structs.replace(each, at=facts.wall(each.at))
            for each in facts.failures.of(connection.site, connection.id)
        ),
        failures_in_a_row=state.failures_in_a_row,
        next_poll=wall(_next_poll(watching, site, facts)),
        interval=state.interval(policy, now),
        import_enabled=state.import_enabled,
        export_enabled=state.export_enabled,
        maintenance_until=still_to_come(connection.maintenance_until, facts.wall(now)),
        transitions=state.transitions,
        move=move_for(connection, state, site.state, now, stale=stale),
    )


def look_at_site(site: SiteFacts, facts: Facts) -> SiteView:
    """One site."""
    state, now = site.state, facts.now
    down = state.outage
    return SiteView(
        name=site.name,
        up=state.up,
        down_reason=down.reason if down is not None else None,
        down_since=facts.wall(down.since) if down is not None else None,
        http_status=down.http_status if down is not None else None,
        request_id=down.request_id if down is not None else "",
        next_trial=facts.wall(down.trial_at) if down is not None else None,
        failures_in_a_row=state.failures_in_a_row,
        wait_until=facts.wall(state.wait_until)
        if state.wait_until is not None and state.must_wait(now)
        else None,
        requests_per_minute=site.requests_per_minute,
        used=site.used,
        requests=site.requests,
        failures=site.failures,
        polls_waiting=site.polls_waiting,
        throttled_seconds=site.throttled_seconds,
        lag_seconds=site.lag_seconds,
        interval=site.interval,
        interval_in_force=site.interval_in_force,
        credential=site.credential,
        credential_state=_credential_state(site),
        maintenance_until=still_to_come(site.maintenance_until, facts.wall(now)),
        connections=len(site.watched),
        move=site_move(state),
    )


def still_to_come(until: datetime | None, wall: datetime) -> datetime | None:
    """The end of a maintenance, None where there is none or it is over."""
    return until if until is not None and wall < until else None


def _credential_state(site: SiteFacts) -> str:
    if site.state.outage is not None:
        return "refused" if site.state.outage.reason in REFUSALS else "unknown"
    return "accepted" if site.state.answered else "unknown"


def _next_poll(watching: Watching, site: SiteFacts, facts: Facts) -> datetime | None:
    """When it is asked for next, steady; None while its site is down: only trials are sent then."""
    if site.state.outage is not None or watching.next_at is None:
        return None
    state, policy, now = watching.state, watching.connection.policy, facts.now
    due = now + timedelta(seconds=watching.next_at - facts.monotonic)
    earliest = site.state.wait_until or now
    every = state.every(policy, now)
    if every > 1 and state.last_poll_at is not None:
        earliest = max(earliest, state.last_poll_at + policy.interval * (every - 0.5))
    due += policy.interval * max(math.ceil((earliest - due) / policy.interval), 0)
    if watching.extra_at is not None:
        due = min(due, now + timedelta(seconds=watching.extra_at - facts.monotonic))
    return max(due, now)
