"""What a state says of itself: healthy, stale, unsettled, and for how long unhealthy."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from monitor.core.model import (
    Answer,
    CalendarType,
    ConnectionState,
    ErrorReason,
    FailureReason,
    Policy,
    Status,
)

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)
POLICY = Policy(interval=MINUTE, stale_window=3 * MINUTE, unsettled_interval=timedelta(seconds=15))
FRESH = ConnectionState(watched_since=START)


def seen(
    status: Status, *, export: bool | None = None, transitions: int = 0, not_found_in_a_row: int = 0
) -> ConnectionState:
    """A state whose status was first seen, and last confirmed, at the start."""
    return ConnectionState(
        watched_since=START - 60 * MINUTE,
        status=status,
        status_since=START,
        export_enabled=export,
        last_poll_at=START,
        last_success_at=START,
        transitions=transitions,
        not_found_in_a_row=not_found_in_a_row,
    )


@pytest.mark.parametrize(
    ("status", "healthy"),
    [
        (Status.UNDEFINED, False),
        (Status.CONNECTED, True),
        (Status.SYNC_IN_PROGRESS, True),
        (Status.SYNCED, True),
        (Status.DISCONNECTED, False),
        (Status.ERROR, False),
        (Status.NOT_FOUND, False),
        (Status.UNRECOGNIZED, False),
    ],
)
def test_by_default_what_works_or_is_under_way_is_healthy(status: Status, healthy: bool) -> None:  # noqa: FBT001  the expectation
    assert seen(status).is_healthy(POLICY) is healthy


@pytest.mark.parametrize(("export", "healthy"), [(True, False), (False, True), (None, True)])
def test_connected_is_healthy_unless_export_is_on(export: bool | None, healthy: bool) -> None:  # noqa: FBT001  the expectation
    assert seen(Status.CONNECTED, export=export).is_healthy(POLICY) is healthy
    assert seen(Status.SYNCED, export=export).is_healthy(POLICY) is True


@pytest.mark.parametrize("status", list(Status))
def test_an_expected_set_replaces_the_default_whole(status: Status) -> None:
    picky = msgspec.structs.replace(POLICY, expected=frozenset({Status.CONNECTED, Status.ERROR}))
    expected = status in (Status.CONNECTED, Status.ERROR)
    assert seen(status, export=True).is_healthy(picky) is expected


DAY = timedelta(days=1)
SELDOM = msgspec.structs.replace(POLICY, dead_every=30)


@pytest.mark.parametrize("status", list(Status))
def test_only_what_has_been_gone_for_a_day_is_asked_less_often(status: Status) -> None:
    state = seen(status)
    gone = status in (Status.NOT_FOUND, Status.DISCONNECTED)
    assert state.interval(SELDOM, START + DAY - TICK) == MINUTE
    assert state.interval(SELDOM, START + DAY) == (30 * MINUTE if gone else MINUTE)
    assert state.interval(POLICY, START + DAY) == MINUTE
    assert FRESH.interval(SELDOM, START + DAY) == MINUTE


@pytest.mark.parametrize("status", [Status.NOT_FOUND, Status.DISCONNECTED])
def test_what_is_expected_to_be_gone_is_asked_as_ever(status: Status) -> None:
    expected = msgspec.structs.replace(SELDOM, expected=frozenset({status}))
    assert seen(status).interval(expected, START + DAY) == MINUTE


def test_the_dead_have_their_turn_each_kth_interval_and_are_stale_by_that() -> None:
    now = START + 2 * DAY
    state = msgspec.structs.replace(seen(Status.DISCONNECTED), last_poll_at=now, last_success_at=now)
    turns = [n for n in range(1, 61) if state.is_its_turn(SELDOM, now + n * MINUTE)]
    assert turns == list(range(30, 61))
    assert not state.is_stale(SELDOM, now + 90 * MINUTE)
    assert state.is_stale(SELDOM, now + 90 * MINUTE + TICK)
    assert state.unhealthy_by(SELDOM, now + 80 * MINUTE) == 80 * MINUTE
    assert state.is_its_turn(POLICY, now + TICK)


def test_before_the_first_answer_nothing_is_healthy() -> None:
    assert not FRESH.is_healthy(POLICY)
    assert not FRESH.is_healthy(msgspec.structs.replace(POLICY, expected=frozenset(Status)))


def test_knowledge_is_stale_once_it_is_older_than_its_window() -> None:
    state = seen(Status.SYNCED)
    assert not state.is_stale(POLICY, START + 3 * MINUTE)
    assert state.is_stale(POLICY, START + 3 * MINUTE + TICK)


def test_before_the_first_success_age_counts_from_when_we_began_to_watch() -> None:
    state = msgspec.structs.replace(FRESH, last_poll_at=START + 3 * MINUTE)
    assert not state.is_stale(POLICY, START + 3 * MINUTE)
    assert state.is_stale(POLICY, START + 3 * MINUTE + TICK)


def test_a_connection_is_unsettled_for_an_interval_after_a_change() -> None:
    state = seen(Status.ERROR, transitions=1)
    assert state.is_unsettled(POLICY, START)
    assert state.is_unsettled(POLICY, START + MINUTE - TICK)
    assert not state.is_unsettled(POLICY, START + MINUTE)


def test_the_first_status_is_no_change_that_would_unsettle() -> None:
    assert not seen(Status.ERROR).is_unsettled(POLICY, START)
    assert not FRESH.is_unsettled(POLICY, START)


def test_a_sync_in_progress_is_unsettled_however_long_it_takes() -> None:
    assert seen(Status.SYNC_IN_PROGRESS).is_unsettled(POLICY, START + 1000 * MINUTE)


@pytest.mark.parametrize(("row", "unsettled"), [(0, False), (1, True), (2, True), (3, False), (4, False)])
def test_a_not_found_is_unsettled_until_it_is_confirmed(row: int, unsettled: bool) -> None:  # noqa: FBT001  the expectation
    policy = msgspec.structs.replace(POLICY, not_found_confirmations=3)
    state = seen(Status.SYNCED, not_found_in_a_row=row)
    assert state.is_unsettled(policy, START + 5 * MINUTE) is unsettled


def test_unhealthy_time_runs_from_the_last_success_up_to_the_stale_window() -> None:
    state = msgspec.structs.replace(seen(Status.ERROR), unhealthy_for=10 * MINUTE)
    assert state.unhealthy_by(POLICY, START) == 10 * MINUTE
    assert state.unhealthy_by(POLICY, START + 2 * MINUTE) == 12 * MINUTE
    assert state.unhealthy_by(POLICY, START + 3 * MINUTE) == 13 * MINUTE
    assert state.unhealthy_by(POLICY, START + 60 * MINUTE) == 13 * MINUTE


def test_unhealthy_time_stands_still_while_healthy_unseen_or_before_its_last_success() -> None:
    healthy = msgspec.structs.replace(seen(Status.SYNCED), unhealthy_for=MINUTE)
    assert healthy.unhealthy_by(POLICY, START + MINUTE) == MINUTE
    assert FRESH.unhealthy_by(POLICY, START + MINUTE) == timedelta()
    assert seen(Status.ERROR).unhealthy_by(POLICY, START - MINUTE) == timedelta()


def test_an_answers_repr_keeps_its_body_to_itself() -> None:
    text = repr(Answer(200, b"canary", "req-1"))
    assert "canary" not in text
    assert "req-1" in text


def test_the_words_are_wixs_and_two_of_ours() -> None:
    assert [status.value for status in Status] == [
        "UNDEFINED",
        "CONNECTED",
        "SYNC_IN_PROGRESS",
        "SYNCED",
        "DISCONNECTED",
        "ERROR",
        "NOT_FOUND",
        "UNRECOGNIZED",
    ]
    assert {reason.value for reason in ErrorReason} == {
        "UNDEFINED",
        "TOKEN_REVOKED",
        "EXTERNAL_CALENDAR_CREATION_FAILED",
        "EXTERNAL_CALENDAR_DELETED",
        "UNRECOGNIZED",
    }
    assert {kind.value for kind in CalendarType}.isdisjoint({"OUTLOOK", "OFFICE_365"})
    assert {reason.value for reason in FailureReason} == {
        "unauthorized",
        "forbidden",
        "premium_required",
        "rate_limited",
        "server_error",
        "timeout",
        "connect",
        "tls",
        "bad_response",
        "rejected",
    }
