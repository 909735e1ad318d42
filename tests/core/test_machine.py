"""The transition machine: its two tables row by row, and each effect in full."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product

import msgspec
import pytest

from monitor.core import machine as subject
from monitor.core.effects import (
    ConnectionFirstSeen,
    Effect,
    PollsFailing,
    PollsRecovered,
    SyncSettingsChanged,
    Transition,
    UnrecognizedValue,
)
from monitor.core.machine import (
    ASKING,
    KNOWLEDGE,
    Knowledge,
    Outcome,
    Step,
    Trigger,
    advance,
    knowledge,
    transition_id,
)
from monitor.core.model import (
    CalendarType,
    Connection,
    ConnectionState,
    Direction,
    ErrorReason,
    FailureReason,
    FailureRow,
    NotFound,
    Observation,
    Observed,
    Policy,
    PollFailed,
    Status,
)

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
INTERVAL = timedelta(minutes=1)
POLICY = Policy(
    interval=INTERVAL, stale_window=timedelta(minutes=3), unsettled_interval=timedelta(seconds=15)
)
CONNECTION = Connection(site="downtown", id="id-1", name="anna", policy=POLICY)
FRESH = ConnectionState(watched_since=START)

SYNCED = Observed(Status.SYNCED, calendar_type=CalendarType.GOOGLE, import_enabled=True, export_enabled=True)
REVOKED = Observed(
    Status.ERROR,
    ErrorReason.TOKEN_REVOKED,
    calendar_type=CalendarType.GOOGLE,
    import_enabled=True,
    export_enabled=True,
)
FAILED = PollFailed(FailureReason.SERVER_ERROR, "SYSTEM", 503, "req-9")
NOT_FOUND = NotFound("req-8")


def after(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def play(
    *observations: Observation | tuple[Observation, bool],
    state: ConnectionState = FRESH,
    connection: Connection = CONNECTION,
) -> list[Step]:
    """Feed one observation a minute; a pair says with it whether the site is up."""
    steps = []
    for minute, item in enumerate(observations):
        observation, site_up = item if isinstance(item, tuple) else (item, True)
        steps.append(advance(connection, state, observation, after(minute), site_up=site_up))
        state = steps[-1].state
    return steps


def kinds(effects: Sequence[Effect]) -> list[type[Effect]]:
    return [type(effect) for effect in effects]


# The tables.

UNREACHABLE = {
    (Knowledge.UNSEEN, Trigger.SAME): "nothing can be the same as nothing: the first status is a change",
}
BEFORE_KNOWLEDGE: dict[Knowledge, list[Observation]] = {Knowledge.UNSEEN: [], Knowledge.SEEN: [SYNCED]}
TRIGGERS: dict[Trigger, Observation] = {
    Trigger.SAME: SYNCED,
    Trigger.CHANGED: REVOKED,
    Trigger.UNCONFIRMED: NOT_FOUND,
    Trigger.FAILED: FAILED,
}
BEFORE_ASKING: dict[FailureRow, list[tuple[Observation, bool]]] = {
    FailureRow.NONE: [(SYNCED, True)],
    FailureRow.UNTOLD: [(SYNCED, True), (FAILED, False)],
    FailureRow.TOLD: [(SYNCED, True), (FAILED, True)],
}
OUTCOMES: dict[Outcome, tuple[Observation, bool]] = {
    Outcome.SUCCEEDED: (SYNCED, True),
    Outcome.UNCONFIRMED: (NOT_FOUND, True),
    Outcome.FAILED: (FAILED, True),
    Outcome.MUTED: (FAILED, False),
}


def test_the_tables_are_total_but_for_what_cannot_happen() -> None:
    assert set(KNOWLEDGE) | set(UNREACHABLE) == set(product(Knowledge, Trigger))
    assert not set(KNOWLEDGE) & set(UNREACHABLE)
    assert set(ASKING) == set(product(FailureRow, Outcome))


@pytest.mark.parametrize(("row", "result"), KNOWLEDGE.items())
def test_each_row_of_what_we_know_is_what_happens(
    row: tuple[Knowledge, Trigger], result: tuple[Knowledge, type[Effect] | None]
) -> None:
    before, trigger = row
    states = [FRESH, *(step.state for step in play(*BEFORE_KNOWLEDGE[before]))]
    assert knowledge(states[-1]) is before
    step = advance(CONNECTION, states[-1], TRIGGERS[trigger], after(5))
    told = [kind for kind in kinds(step.effects) if kind in (ConnectionFirstSeen, Transition)]
    assert (knowledge(step.state), told) == (result[0], [result[1]] if result[1] else [])


@pytest.mark.parametrize(("row", "result"), ASKING.items())
def test_each_row_of_how_asking_goes_is_what_happens(
    row: tuple[FailureRow, Outcome], result: tuple[FailureRow, type[Effect] | None]
) -> None:
    before, outcome = row
    state = play(*BEFORE_ASKING[before])[-1].state
    assert state.failure_row is before
    observation, site_up = OUTCOMES[outcome]
    step = advance(CONNECTION, state, observation, after(5), site_up=site_up)
    told = [kind for kind in kinds(step.effects) if kind in (PollsFailing, PollsRecovered)]
    assert (step.state.failure_row, told) == (result[0], [result[1]] if result[1] else [])


def test_a_429_is_told_by_its_site_and_not_by_each_of_its_connections() -> None:
    limited = PollFailed(FailureReason.RATE_LIMITED, "", 429, "req-9", timedelta(minutes=1))
    *_, told_to_wait, again, back = play(SYNCED, limited, limited, SYNCED)
    assert (told_to_wait.effects, again.effects, back.effects) == ((), (), ())
    assert told_to_wait.state.last_poll_succeeded is False
    assert again.state.failures_in_a_row == 2
    *_, failing = play(SYNCED, limited, FAILED)
    assert kinds(failing.effects) == [PollsFailing]


def test_a_transition_of_the_long_dead_is_late_by_their_own_interval() -> None:
    seldom = msgspec.structs.replace(
        CONNECTION, policy=msgspec.structs.replace(CONNECTION.policy, dead_every=60)
    )
    gone = msgspec.structs.replace(
        play(Observed(Status.DISCONNECTED))[-1].state,
        last_success_at=after(24 * 60),
        last_poll_at=after(24 * 60),
    )
    back = advance(seldom, gone, SYNCED, after(25 * 60)).effects[0]
    assert isinstance(back, Transition)
    assert not back.observed_late
    late = advance(CONNECTION, gone, SYNCED, after(25 * 60)).effects[0]
    assert isinstance(late, Transition)
    assert late.observed_late


def test_the_theory_in_the_docstring_names_every_trigger() -> None:
    rows = [line.split("|")[1].strip() for line in (subject.__doc__ or "").splitlines() if line[:1] == "|"]
    assert rows[2:] == list(Trigger)


# What a successful poll leads to.


def test_the_first_status_is_first_seen_and_no_transition() -> None:
    (step,) = play(REVOKED)
    assert step.state.transitions == 0
    assert step.state.status_since == START
    assert step.effects == (
        ConnectionFirstSeen(
            site="downtown",
            connection="anna",
            connection_id="id-1",
            calendar_type=CalendarType.GOOGLE,
            status=Status.ERROR,
            reason=ErrorReason.TOKEN_REVOKED,
            healthy=False,
            observed_at=START,
            transition_id=transition_id(CONNECTION, 0, START),
        ),
    )


def test_a_transition_tells_from_to_how_long_and_when() -> None:
    *_, last = play(SYNCED, SYNCED, REVOKED)
    assert last.effects == (
        Transition(
            site="downtown",
            connection="anna",
            connection_id="id-1",
            calendar_type=CalendarType.GOOGLE,
            from_status=Status.SYNCED,
            from_reason=None,
            to_status=Status.ERROR,
            to_reason=ErrorReason.TOKEN_REVOKED,
            healthy=False,
            from_since=START,
            duration=timedelta(minutes=2),
            observed_at=after(2),
            transition_id=transition_id(CONNECTION, 1, after(2)),
        ),
    )
    assert last.state.status_since == after(2)
    assert last.state.transitions == 1


def test_another_error_reason_is_a_transition_too() -> None:
    deleted = msgspec.structs.replace(REVOKED, reason=ErrorReason.EXTERNAL_CALENDAR_DELETED)
    *_, last = play(REVOKED, deleted)
    (told,) = last.effects
    assert isinstance(told, Transition)
    assert (told.from_reason, told.to_reason) == (
        ErrorReason.TOKEN_REVOKED,
        ErrorReason.EXTERNAL_CALENDAR_DELETED,
    )


def test_the_same_status_says_nothing_and_keeps_its_since() -> None:
    *_, last = play(SYNCED, SYNCED, SYNCED)
    assert last.effects == ()
    assert last.state.status_since == START
    assert last.state.last_success_at == after(2)


@pytest.mark.parametrize(
    ("gap", "late"),
    [(timedelta(minutes=2), False), (timedelta(minutes=2, microseconds=1), True), (timedelta(days=1), True)],
)
def test_a_change_after_more_than_two_blind_intervals_was_observed_late(gap: timedelta, late: bool) -> None:  # noqa: FBT001  the expectation
    state = play(SYNCED)[-1].state
    (told,) = advance(CONNECTION, state, REVOKED, START + gap).effects
    assert isinstance(told, Transition)
    assert told.observed_late is late
    assert told.not_before == (START if late else None)


def test_it_is_the_last_success_not_the_last_poll_that_makes_it_late() -> None:
    *_, last = play(SYNCED, SYNCED, FAILED, FAILED, REVOKED)
    told = last.effects[-1]
    assert isinstance(told, Transition)
    assert (told.observed_late, told.not_before) == (True, after(1))


def test_a_duration_is_never_negative_after_the_clock_was_set_back_between_two_runs() -> None:
    state = play(SYNCED)[-1].state
    (told,) = advance(CONNECTION, state, REVOKED, START - timedelta(hours=1)).effects
    assert isinstance(told, Transition)
    assert told.duration == timedelta()
    assert not told.observed_late


def test_a_transition_is_healthy_as_its_policy_says() -> None:
    lenient = msgspec.structs.replace(
        CONNECTION, policy=msgspec.structs.replace(POLICY, expected=frozenset({Status.DISCONNECTED}))
    )
    first, second = play(SYNCED, Observed(Status.DISCONNECTED), connection=lenient)
    assert isinstance(first.effects[0], ConnectionFirstSeen)
    assert isinstance(second.effects[0], Transition)
    assert (first.effects[0].healthy, second.effects[0].healthy) == (False, True)


# Not found.


@pytest.mark.parametrize("needed", [1, 2, 3])
def test_not_found_is_believed_at_the_nth_in_a_row(needed: int) -> None:
    strict = msgspec.structs.replace(
        CONNECTION, policy=msgspec.structs.replace(POLICY, not_found_confirmations=needed)
    )
    *unconfirmed, last = play(SYNCED, *[NOT_FOUND] * needed, connection=strict)
    assert all(step.state.status is Status.SYNCED for step in unconfirmed)
    assert last.state.status is Status.NOT_FOUND
    assert kinds(last.effects) == [Transition]


def test_an_unconfirmed_not_found_is_neither_success_nor_failure() -> None:
    first, second = play(SYNCED, NOT_FOUND)
    assert second.effects == ()
    assert second.state == msgspec.structs.replace(first.state, last_poll_at=after(1), not_found_in_a_row=1)


def test_an_answer_between_two_not_founds_ends_their_row_and_a_failure_does_not() -> None:
    assert play(SYNCED, NOT_FOUND, SYNCED, NOT_FOUND)[-1].state.status is Status.SYNCED
    assert play(SYNCED, NOT_FOUND, FAILED, NOT_FOUND)[-1].state.status is Status.NOT_FOUND


def test_a_connection_never_found_is_first_seen_as_not_found() -> None:
    *_, last = play(NOT_FOUND, NOT_FOUND)
    (told,) = last.effects
    assert isinstance(told, ConnectionFirstSeen)
    assert (told.status, told.calendar_type) == (Status.NOT_FOUND, CalendarType.UNDEFINED)


def test_not_found_keeps_the_calendar_type_and_drops_the_sync_settings_silently() -> None:
    *_, lost, back = play(SYNCED, NOT_FOUND, NOT_FOUND, SYNCED)
    assert lost.state.calendar_type is CalendarType.GOOGLE
    assert (lost.state.import_enabled, lost.state.export_enabled) == (None, None)
    assert kinds(lost.effects) == kinds(back.effects) == [Transition]


# Sync settings and unknown words.


def test_a_switched_direction_is_told_with_both_values() -> None:
    off = msgspec.structs.replace(SYNCED, export_enabled=False)
    *_, last = play(SYNCED, off)
    assert last.effects == (
        SyncSettingsChanged(
            site="downtown",
            connection="anna",
            connection_id="id-1",
            direction=Direction.EXPORT,
            was=True,
            now=False,
        ),
    )
    assert last.state.transitions == 0
    assert last.state.status_since == START


def test_both_directions_are_told_import_first_and_after_the_transition() -> None:
    *_, last = play(SYNCED, Observed(Status.DISCONNECTED, import_enabled=False))
    assert kinds(last.effects) == [Transition, SyncSettingsChanged, SyncSettingsChanged]
    told = [effect for effect in last.effects if isinstance(effect, SyncSettingsChanged)]
    assert [(effect.direction, effect.was, effect.now) for effect in told] == [
        (Direction.IMPORT, True, False),
        (Direction.EXPORT, True, None),
    ]


def test_the_first_settings_are_no_change() -> None:
    assert kinds(play(SYNCED)[0].effects) == [ConnectionFirstSeen]


def test_unknown_words_are_told() -> None:
    odd = Observed(Status.UNRECOGNIZED, unrecognized=(("status", "PAUSED"), ("calendarType", "X")))
    (step,) = play(odd)
    assert step.effects[1:] == tuple(
        UnrecognizedValue(site="downtown", connection="anna", connection_id="id-1", field=field, value=value)
        for field, value in odd.unrecognized
    )


# Failures.


def test_a_failed_poll_keeps_the_last_status() -> None:
    first, second = play(SYNCED, FAILED)
    assert second.state == msgspec.structs.replace(
        first.state,
        last_poll_at=after(1),
        last_poll_succeeded=False,
        failures_in_a_row=1,
        failure_row=FailureRow.TOLD,
    )
    assert second.effects == (
        PollsFailing(
            site="downtown",
            connection="anna",
            connection_id="id-1",
            reason=FailureReason.SERVER_ERROR,
            detail="SYSTEM",
            http_status=503,
            request_id="req-9",
            failures=1,
        ),
    )


def test_recovery_tells_how_many_polls_failed_before_anything_else() -> None:
    *_, last = play(SYNCED, FAILED, FAILED, NOT_FOUND, FAILED, REVOKED)
    assert kinds(last.effects) == [PollsRecovered, Transition]
    assert last.effects[0] == PollsRecovered(
        site="downtown", connection="anna", connection_id="id-1", failures=3
    )
    assert last.state.failures_in_a_row == 0


def test_a_confirmed_not_found_ends_a_row_of_failures() -> None:
    *_, unconfirmed, confirmed = play(SYNCED, FAILED, NOT_FOUND, NOT_FOUND)
    assert unconfirmed.state.failures_in_a_row == 1
    assert kinds(confirmed.effects) == [PollsRecovered, Transition]


def test_a_row_that_outlives_its_sites_outage_is_told_at_its_next_failure() -> None:
    *_, last = play(SYNCED, (FAILED, False), (FAILED, False), FAILED)
    (told,) = last.effects
    assert isinstance(told, PollsFailing)
    assert told.failures == 3


def test_a_row_within_an_outage_is_neither_told_nor_taken_back() -> None:
    steps = play(SYNCED, (FAILED, False), SYNCED)
    assert [step.effects for step in steps[1:]] == [(), ()]


# Names of transitions.


def test_a_transitions_name_is_16_hex_digits_and_always_the_same() -> None:
    name = transition_id(CONNECTION, 1, START)
    assert name == transition_id(CONNECTION, 1, START)
    assert len(name) == 16
    assert int(name, 16) >= 0


def test_a_transitions_name_does_not_change_between_versions() -> None:
    assert transition_id(CONNECTION, 1, START) == "23d306317579e7ce"


def test_a_transitions_name_survives_a_rename_and_differs_in_every_fact() -> None:
    facts = [
        (CONNECTION, 1, START),
        (msgspec.structs.replace(CONNECTION, site="uptown"), 1, START),
        (msgspec.structs.replace(CONNECTION, id="id-2"), 1, START),
        (CONNECTION, 2, START),
        (CONNECTION, 1, after(1)),
    ]
    assert len({transition_id(*fact) for fact in facts}) == len(facts)
    renamed = msgspec.structs.replace(CONNECTION, name="anna-google")
    assert transition_id(renamed, 1, START) == transition_id(CONNECTION, 1, START)
