"""The effects: their names and levels are the contract's log table."""

from datetime import UTC, datetime, timedelta

import pytest

from monitor.core.effects import (
    ConnectionFirstSeen,
    Effect,
    PollsFailing,
    PollsRecovered,
    RateLimited,
    RateLimitLifted,
    SecretReplaced,
    SiteDown,
    SiteUp,
    SyncSettingsChanged,
    Transition,
    UnrecognizedValue,
    level_of,
)
from monitor.core.model import CalendarType, Direction, FailureReason, Status

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


def first_seen(status: Status, *, healthy: bool) -> Effect:
    return ConnectionFirstSeen(
        site="s",
        connection="c",
        connection_id="i",
        calendar_type=CalendarType.GOOGLE,
        status=status,
        reason=None,
        healthy=healthy,
        observed_at=NOW,
        transition_id="0",
    )


def transition(status: Status, *, healthy: bool) -> Effect:
    return Transition(
        site="s",
        connection="c",
        connection_id="i",
        calendar_type=CalendarType.GOOGLE,
        from_status=Status.ERROR,
        from_reason=None,
        to_status=status,
        to_reason=None,
        healthy=healthy,
        from_since=NOW,
        duration=timedelta(),
        observed_at=NOW,
        transition_id="0",
    )


def switched(*, was: bool | None, now: bool | None) -> Effect:
    return SyncSettingsChanged(
        site="s", connection="c", connection_id="i", direction=Direction.EXPORT, was=was, now=now
    )


FAILING = PollsFailing(
    site="s",
    connection="c",
    connection_id="i",
    reason=FailureReason.CONNECT,
    detail="",
    http_status=None,
    request_id="",
    failures=1,
)
RECOVERED = PollsRecovered(site="s", connection="c", connection_id="i", failures=1)
UNKNOWN = UnrecognizedValue(site="s", connection="c", connection_id="i", field="status", value="X")
DOWN = SiteDown(
    site="s",
    reason=FailureReason.CONNECT,
    detail="",
    http_status=None,
    request_id="",
    since=NOW,
    next_trial_at=NOW,
    connections=1,
)
UP = SiteUp(
    site="s",
    reason=FailureReason.CONNECT,
    http_status=None,
    request_id="",
    since=NOW,
    duration=timedelta(),
    connections=1,
)
LIFTED = RateLimitLifted(site="s", since=NOW, duration=timedelta())
REPLACED = SecretReplaced(site="s")
LIMITED = RateLimited(site="s", wait=timedelta(minutes=1), request_id="")
ALL = [
    first_seen(Status.SYNCED, healthy=True),
    transition(Status.SYNCED, healthy=True),
    switched(was=True, now=False),
    FAILING,
    RECOVERED,
    UNKNOWN,
    DOWN,
    UP,
    LIMITED,
    LIFTED,
    REPLACED,
]


@pytest.mark.parametrize(
    ("effect", "event", "level"),
    [
        (switched(was=True, now=False), "connection_sync_settings_changed", "warning"),
        (switched(was=True, now=None), "connection_sync_settings_changed", "warning"),
        (switched(was=False, now=True), "connection_sync_settings_changed", "info"),
        (switched(was=None, now=True), "connection_sync_settings_changed", "info"),
        (switched(was=False, now=None), "connection_sync_settings_changed", "info"),
        (switched(was=None, now=False), "connection_sync_settings_changed", "info"),
        (FAILING, "connection_polls_failing", "warning"),
        (RECOVERED, "connection_polls_recovered", "info"),
        (UNKNOWN, "unrecognized_value", "warning"),
        (DOWN, "site_down", "error"),
        (UP, "site_up", "info"),
        (LIMITED, "rate_limited", "warning"),
        (LIFTED, "rate_limit_lifted", "info"),
        (REPLACED, "secret_replaced", "info"),
    ],
)
def test_an_effect_has_its_name_and_level(effect: Effect, event: str, level: str) -> None:
    assert (effect.event, effect.level) == (event, level)


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("healthy", [True, False])
def test_a_change_is_as_loud_as_what_it_changes_to(status: Status, healthy: bool) -> None:  # noqa: FBT001  a parameter
    loud = "info" if healthy else "warning"
    expected = "error" if status.value in ("ERROR", "NOT_FOUND") else loud
    assert level_of(status, healthy=healthy) == expected
    seen, changed = first_seen(status, healthy=healthy), transition(status, healthy=healthy)
    assert (seen.event, seen.level) == ("connection_first_seen", expected)
    assert (changed.event, changed.level) == ("connection_transition", expected)


def test_every_kind_of_effect_is_tested_here_and_has_a_name_of_its_own() -> None:
    kinds = set(Effect.__subclasses__())
    assert {type(effect) for effect in ALL} == kinds
    assert len({kind.event for kind in kinds}) == len(kinds)
