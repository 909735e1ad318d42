"""The transition machine: one connection's state and one observation in, the next state and its effects out.

Two questions are kept apart, each with a table of its own:

* What do we know of the connection? `KNOWLEDGE`: nothing yet (unseen), or a status (seen).
* How does asking go? `ASKING`: well (none), or a row of failures, told or untold.

The trigger of the first is what the poll told, compared with what we knew:

| trigger | the poll told |
|---|---|
| same | the status and error reason that we knew |
| changed | another status or error reason, or the first |
| unconfirmed | not found, but not often enough in a row to believe it |
| failed | nothing: we could not ask |

Conflicts and who wins: a failed poll never changes what we know, and leaves a row of not-founds as it
is (it told nothing about it). An unconfirmed not-found is neither success nor failure: it ends no row of
failures and does not make the state fresh. While the site is down or told to wait, its own line tells the
story, and rows of failures go untold; one that outlives the outage is told at its next failure.

What this file may not know: clocks, requests, retries, the breaker, other connections.
"""

from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from monitor.core.effects import (
    ConnectionFirstSeen,
    Effect,
    PollsFailing,
    PollsRecovered,
    SyncSettingsChanged,
    Transition,
    UnrecognizedValue,
)
from monitor.core.model import (
    CalendarType,
    Connection,
    ConnectionState,
    Direction,
    FailureReason,
    FailureRow,
    NotFound,
    Observation,
    Observed,
    PollFailed,
    Status,
    Word,
)


class Knowledge(Word):
    """What we know of a connection."""

    UNSEEN = "unseen"
    SEEN = "seen"


class Trigger(Word):
    """What a poll told, compared with what we knew."""

    SAME = "same"
    CHANGED = "changed"
    UNCONFIRMED = "unconfirmed"
    FAILED = "failed"


class Outcome(Word):
    """How the poll itself went; `muted` is a failure that its site's own line tells: down, or a 429."""

    SUCCEEDED = "succeeded"
    UNCONFIRMED = "unconfirmed"
    FAILED = "failed"
    MUTED = "muted"


KNOWLEDGE: Final[dict[tuple[Knowledge, Trigger], tuple[Knowledge, type[Effect] | None]]] = {
    # from               trigger               to                  announced
    (Knowledge.UNSEEN, Trigger.CHANGED):     (Knowledge.SEEN,   ConnectionFirstSeen),
    (Knowledge.UNSEEN, Trigger.UNCONFIRMED): (Knowledge.UNSEEN, None),
    (Knowledge.UNSEEN, Trigger.FAILED):      (Knowledge.UNSEEN, None),
    (Knowledge.SEEN,   Trigger.SAME):        (Knowledge.SEEN,   None),
    (Knowledge.SEEN,   Trigger.CHANGED):     (Knowledge.SEEN,   Transition),
    (Knowledge.SEEN,   Trigger.UNCONFIRMED): (Knowledge.SEEN,   None),
    (Knowledge.SEEN,   Trigger.FAILED):      (Knowledge.SEEN,   None),
}  # fmt: skip

ASKING: Final[dict[tuple[FailureRow, Outcome], tuple[FailureRow, type[Effect] | None]]] = {
    # from                  outcome               to                    announced
    (FailureRow.NONE,   Outcome.SUCCEEDED):   (FailureRow.NONE,   None),
    (FailureRow.NONE,   Outcome.UNCONFIRMED): (FailureRow.NONE,   None),
    (FailureRow.NONE,   Outcome.FAILED):      (FailureRow.TOLD,   PollsFailing),
    (FailureRow.NONE,   Outcome.MUTED):       (FailureRow.UNTOLD, None),
    (FailureRow.UNTOLD, Outcome.SUCCEEDED):   (FailureRow.NONE,   None),
    (FailureRow.UNTOLD, Outcome.UNCONFIRMED): (FailureRow.UNTOLD, None),
    (FailureRow.UNTOLD, Outcome.FAILED):      (FailureRow.TOLD,   PollsFailing),
    (FailureRow.UNTOLD, Outcome.MUTED):       (FailureRow.UNTOLD, None),
    (FailureRow.TOLD,   Outcome.SUCCEEDED):   (FailureRow.NONE,   PollsRecovered),
    (FailureRow.TOLD,   Outcome.UNCONFIRMED): (FailureRow.TOLD,   None),
    (FailureRow.TOLD,   Outcome.FAILED):      (FailureRow.TOLD,   None),
    (FailureRow.TOLD,   Outcome.MUTED):       (FailureRow.TOLD,   None),
}  # fmt: skip

_LATE_INTERVALS: Final = 2


class Step(NamedTuple):
    """What one observation led to."""

    state: ConnectionState
    effects: tuple[Effect, ...] = ()


def advance(
    connection: Connection,
    state: ConnectionState,
    observation: Observation,
    now: datetime,
    *,
    site_up: bool = True,
) -> Step:
    """Book one observation, made at `now`, into a connection's state."""
    if isinstance(observation, PollFailed):
        return _failed(connection, state, observation, now, site_up=site_up)
    if isinstance(observation, NotFound):
        state = msgspec.structs.replace(state, not_found_in_a_row=state.not_found_in_a_row + 1)
        if state.not_found_in_a_row < connection.policy.not_found_confirmations:
            return Step(msgspec.structs.replace(state, last_poll_at=now))
        observation = Observed(Status.NOT_FOUND, calendar_type=state.calendar_type or CalendarType.UNDEFINED)
    elif state.not_found_in_a_row:
        state = msgspec.structs.replace(state, not_found_in_a_row=0)
    return _succeeded(connection, state, observation, now)


def knowledge(state: ConnectionState) -> Knowledge:
    """Where a state stands in `KNOWLEDGE`."""
    return Knowledge.UNSEEN if state.status is None else Knowledge.SEEN


def transition_id(connection: Connection, ordinal: int, observed_at: datetime) -> str:
    """Name the connection's n-th transition: 16 hex digits, the same however often it is told."""
    facts = f"{connection.site}\0{connection.id}\0{ordinal}\0{observed_at.isoformat()}"
    return blake2b(facts.encode(), digest_size=8).hexdigest()


def _failed(
    connection: Connection, state: ConnectionState, failure: PollFailed, now: datetime, *, site_up: bool
) -> Step:
    muted = not site_up or failure.reason is FailureReason.RATE_LIMITED
    row, announced = ASKING[state.failure_row, Outcome.MUTED if muted else Outcome.FAILED]
    after = msgspec.structs.replace(
        state,
        last_poll_at=now,
        last_poll_succeeded=False,
        failures_in_a_row=state.failures_in_a_row + 1,
        failure_row=row,
    )
    if announced is None:
        return Step(after)
    effect = PollsFailing(
        site=connection.site,
        connection=connection.name,
        connection_id=connection.id,
        reason=failure.reason,
        detail=failure.detail,
        http_status=failure.http_status,
        request_id=failure.request_id,
        failures=after.failures_in_a_row,
    )
    return Step(after, (effect,))


def _succeeded(connection: Connection, state: ConnectionState, seen: Observed, now: datetime) -> Step:
    changed = (seen.status, seen.reason) != (state.status, state.reason)
    _, announced = KNOWLEDGE[knowledge(state), Trigger.CHANGED if changed else Trigger.SAME]
    row, recovered = ASKING[state.failure_row, Outcome.SUCCEEDED]
    after = msgspec.structs.replace(
        state,
        status=seen.status,
        reason=seen.reason,
        status_since=now if changed else state.status_since,
        calendar_type=seen.calendar_type,
        import_enabled=seen.import_enabled,
        export_enabled=seen.export_enabled,
        last_poll_at=now,
        last_success_at=now,
        last_poll_succeeded=True,
        failures_in_a_row=0,
        failure_row=row,
        transitions=state.transitions + (announced is Transition),
        unhealthy_for=state.unhealthy_by(connection.policy, now),
    )
    effects: list[Effect] = []
    if recovered is not None:
        effects.append(_recovered(connection, state))
    if announced is ConnectionFirstSeen:
        effects.append(_first_seen(connection, after, seen, now))
    elif announced is Transition:
        effects.append(_transition(connection, state, after, seen, now))
    if Status.NOT_FOUND not in (state.status, seen.status) and announced is not ConnectionFirstSeen:
        effects += _settings_changes(connection, state, seen)
    effects += _unrecognized(connection, seen)
    return Step(after, tuple(effects))


def _first_seen(
    connection: Connection, after: ConnectionState, seen: Observed, now: datetime
) -> ConnectionFirstSeen:
    return ConnectionFirstSeen(
        site=connection.site,
        connection=connection.name,
        connection_id=connection.id,
        calendar_type=seen.calendar_type,
        status=seen.status,
        reason=seen.reason,
        healthy=after.is_healthy(connection.policy),
        observed_at=now,
        transition_id=transition_id(connection, after.transitions, now),
    )


def _transition(
    connection: Connection, before: ConnectionState, after: ConnectionState, seen: Observed, now: datetime
) -> Transition:
    assert before.status is not None  # noqa: S101  the table lets only a seen connection change
    since = before.status_since or now
    last = before.last_success_at or now
    late = now - last > _LATE_INTERVALS * before.interval(connection.policy, now)
    return Transition(
        site=connection.site,
        connection=connection.name,
        connection_id=connection.id,
        calendar_type=seen.calendar_type,
        from_status=before.status,
        from_reason=before.reason,
        to_status=seen.status,
        to_reason=seen.reason,
        healthy=after.is_healthy(connection.policy),
        from_since=since,
        duration=max(now - since, timedelta()),
        observed_at=now,
        transition_id=transition_id(connection, after.transitions, now),
        observed_late=late,
        not_before=last if late else None,
    )


def _recovered(connection: Connection, before: ConnectionState) -> PollsRecovered:
    return PollsRecovered(
        site=connection.site,
        connection=connection.name,
        connection_id=connection.id,
        failures=before.failures_in_a_row,
    )


def _settings_changes(
    connection: Connection, before: ConnectionState, seen: Observed
) -> list[SyncSettingsChanged]:
    halves = (
        (Direction.IMPORT, before.import_enabled, seen.import_enabled),
        (Direction.EXPORT, before.export_enabled, seen.export_enabled),
    )
    return [
        SyncSettingsChanged(
            site=connection.site,
            connection=connection.name,
            connection_id=connection.id,
            direction=direction,
            was=was,
            now=now,
        )
        for direction, was, now in halves
        if was is not now
    ]


def _unrecognized(connection: Connection, seen: Observed) -> list[UnrecognizedValue]:
    return [
        UnrecognizedValue(
            site=connection.site,
            connection=connection.name,
            connection_id=connection.id,
            field=field,
            value=value,
        )
        for field, value in seen.unrecognized
    ]
