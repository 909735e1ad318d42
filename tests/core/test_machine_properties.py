"""What holds over long scripts, whatever is observed, however long it takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.effects import (
    ConnectionFirstSeen,
    Effect,
    PollsFailing,
    PollsRecovered,
    SyncSettingsChanged,
    Transition,
)
from monitor.core.machine import advance
from monitor.core.model import (
    CalendarType,
    Connection,
    ConnectionState,
    Direction,
    ErrorReason,
    FailureReason,
    NotFound,
    Observation,
    Observed,
    Policy,
    PollFailed,
    Status,
)

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
NOTHING = timedelta()
WIX_STATUS = sorted(set(Status) - {Status.ERROR, Status.NOT_FOUND})


@dataclass(frozen=True)
class Poll:
    """One poll of a played script, with the states around it."""

    observation: Observation
    site_up: bool
    before: ConnectionState
    at: datetime
    after: ConnectionState
    effects: tuple[Effect, ...]
    confirmations: int

    @property
    def succeeded(self) -> bool:
        if isinstance(self.observation, NotFound):
            return self.after.not_found_in_a_row >= self.confirmations
        return isinstance(self.observation, Observed)


@dataclass(frozen=True)
class Play:
    connection: Connection
    polls: list[Poll]

    @property
    def effects(self) -> list[Effect]:
        return [effect for poll in self.polls for effect in poll.effects]

    @property
    def transitions(self) -> list[Transition]:
        return [effect for effect in self.effects if isinstance(effect, Transition)]


@st.composite
def observed(draw: st.DrawFn) -> Observed:
    """What classification can make of a 200."""
    status = draw(st.sampled_from([*WIX_STATUS, *[Status.ERROR] * 3]))
    onoff = st.sampled_from([True, False, None])
    return Observed(
        status=status,
        reason=draw(st.sampled_from(ErrorReason)) if status is Status.ERROR else None,
        calendar_type=draw(st.sampled_from(CalendarType)),
        import_enabled=draw(onoff),
        export_enabled=draw(onoff),
        unrecognized=(("status", "NEW"),) if status is Status.UNRECOGNIZED else (),
    )


failures = st.builds(PollFailed, st.sampled_from(FailureReason), http_status=st.sampled_from([None, 503]))
observations = observed() | st.builds(NotFound) | failures
forward = st.integers(0, 600).map(lambda seconds: timedelta(seconds=seconds)) | st.just(timedelta(minutes=1))
policies = st.builds(
    Policy,
    interval=st.just(timedelta(minutes=1)),
    stale_window=st.sampled_from([timedelta(minutes=3), timedelta(minutes=5)]),
    unsettled_interval=st.just(timedelta(seconds=15)),
    not_found_confirmations=st.integers(1, 4),
    expected=st.none() | st.frozensets(st.sampled_from(Status)),
)


@st.composite
def plays(draw: st.DrawFn, gaps: st.SearchStrategy[timedelta] = forward) -> Play:
    connection = Connection("downtown", "id-1", "anna", draw(policies))
    script = draw(st.lists(st.tuples(observations, gaps, st.booleans()), max_size=30))
    return Play(connection, list(played(connection, script)))


def played(connection: Connection, script: list[tuple[Observation, timedelta, bool]]) -> Iterator[Poll]:
    state, now = ConnectionState(watched_since=START), START
    for observation, gap, site_up in script:
        now += gap
        step = advance(connection, state, observation, now, site_up=site_up)
        confirmations = connection.policy.not_found_confirmations
        yield Poll(observation, site_up, state, now, step.state, step.effects, confirmations)
        state = step.state


@given(plays())
def test_a_failed_poll_never_changes_what_we_know(play: Play) -> None:
    for poll in play.polls:
        if isinstance(poll.observation, PollFailed):
            assert poll.after == msgspec.structs.replace(
                poll.before,
                last_poll_at=poll.at,
                last_poll_succeeded=False,
                failures_in_a_row=poll.before.failures_in_a_row + 1,
                failure_row=poll.after.failure_row,
            )
            assert all(isinstance(effect, PollsFailing) for effect in poll.effects)


@given(plays())
def test_the_counter_counts_exactly_the_transitions_told(play: Play) -> None:
    assert sum(poll.after.transitions - poll.before.transitions for poll in play.polls) == len(
        play.transitions
    )
    for poll in play.polls:
        changed = (poll.before.status, poll.before.reason) != (poll.after.status, poll.after.reason)
        told = sum(isinstance(effect, Transition | ConnectionFirstSeen) for effect in poll.effects)
        assert told == changed
        assert poll.after.transitions - poll.before.transitions == (
            changed and poll.before.status is not None
        )


@given(plays())
def test_transitions_form_a_chain_from_the_first_status_to_the_last(play: Play) -> None:
    first = [effect for effect in play.effects if isinstance(effect, ConnectionFirstSeen)]
    assert len(first) == any(poll.after.status for poll in play.polls)
    ends = [(effect.status, effect.reason) for effect in first]
    for told in play.transitions:
        assert (told.from_status, told.from_reason) == ends[-1]
        assert (told.to_status, told.to_reason) != ends[-1]
        ends.append((told.to_status, told.to_reason))
    if ends:
        assert ends[-1] == (play.polls[-1].after.status, play.polls[-1].after.reason)
    for earlier, later in pairwise(play.transitions):
        assert later.from_since == earlier.observed_at
        assert later.duration == later.observed_at - earlier.observed_at


@given(plays())
def test_an_error_reason_exists_only_in_error(play: Play) -> None:
    for poll in play.polls:
        assert (poll.after.reason is not None) == (poll.after.status is Status.ERROR)


@given(plays(st.just(NOTHING) | forward))
def test_nothing_told_shares_an_id_and_another_connection_shares_none(play: Play) -> None:
    other = msgspec.structs.replace(play.connection, id="id-2")
    moments = [START, *(poll.at for poll in play.polls)]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    script = [(poll.observation, gap, poll.site_up) for poll, gap in zip(play.polls, gaps, strict=True)]
    again = Play(other, list(played(other, script)))
    names, others = (
        [told.transition_id for told in each.effects if isinstance(told, ConnectionFirstSeen | Transition)]
        for each in (play, again)
    )
    assert len(names) == len(others)
    assert len({*names, *others}) == 2 * len(names)


@given(plays())
def test_the_same_step_taken_twice_is_the_same(play: Play) -> None:
    for poll in play.polls:
        again = advance(play.connection, poll.before, poll.observation, poll.at, site_up=poll.site_up)
        assert (again.state, again.effects) == (poll.after, poll.effects)


@given(plays())
def test_a_transition_is_late_exactly_when_we_were_blind_for_more_than_two_intervals(play: Play) -> None:
    for poll in play.polls:
        for told in poll.effects:
            if isinstance(told, Transition):
                last = poll.before.last_success_at
                assert last is not None
                blind = poll.at - last > 2 * play.connection.policy.interval
                assert (told.observed_late, told.not_before) == (blind, last if blind else None)


@given(plays())
def test_unhealthy_time_never_shrinks_and_never_exceeds_the_time_gone_by(play: Play) -> None:
    for poll in play.polls:
        assert poll.before.unhealthy_for <= poll.after.unhealthy_for <= poll.at - START
        if poll.before.last_success_at is not None and poll.before.is_healthy(play.connection.policy):
            assert poll.after.unhealthy_for == poll.before.unhealthy_for


@given(plays(), st.lists(st.floats(0, 1), max_size=4).map(sorted))
def test_between_polls_unhealthy_time_rises_to_what_the_next_success_books(
    play: Play, parts: list[float]
) -> None:
    policy = play.connection.policy
    shown = NOTHING
    last = START
    for poll in play.polls:
        for moment in [last + part * (poll.at - last) for part in parts] + [poll.at]:
            assert poll.before.unhealthy_by(policy, moment) >= shown
            shown = poll.before.unhealthy_by(policy, moment)
        if poll.succeeded:
            assert poll.after.unhealthy_for == shown
        assert poll.after.unhealthy_by(policy, poll.at) == shown
        last = poll.at


@given(plays(forward | st.integers(-7200, 0).map(lambda seconds: timedelta(seconds=seconds))))
def test_no_span_is_negative_even_if_the_clock_goes_back_between_two_runs(play: Play) -> None:
    assert all(told.duration >= NOTHING for told in play.transitions)
    for poll in play.polls:
        assert poll.after.unhealthy_for >= poll.before.unhealthy_for
        assert poll.after.unhealthy_by(play.connection.policy, poll.at) >= poll.after.unhealthy_for


@given(plays())
def test_not_found_needs_its_confirmations_in_a_row(play: Play) -> None:
    row = 0
    for poll in play.polls:
        if isinstance(poll.observation, Observed):
            row = 0
        row += isinstance(poll.observation, NotFound)
        if poll.after.status is Status.NOT_FOUND and poll.before.status is not Status.NOT_FOUND:
            assert row >= play.connection.policy.not_found_confirmations
        if isinstance(poll.observation, NotFound) and row >= play.connection.policy.not_found_confirmations:
            assert poll.after.status is Status.NOT_FOUND


@given(plays())
def test_failing_and_recovered_alternate_and_count_the_same_row(play: Play) -> None:
    told = [effect for effect in play.effects if isinstance(effect, PollsFailing | PollsRecovered)]
    assert [isinstance(effect, PollsFailing) for effect in told] == [n % 2 == 0 for n in range(len(told))]
    assert all(effect.failures > 0 for effect in told)
    assert all(b.failures >= a.failures for a, b in pairwise(told) if isinstance(b, PollsRecovered))


@given(plays())
def test_nothing_is_told_of_failures_while_the_site_is_down(play: Play) -> None:
    for poll in play.polls:
        if isinstance(poll.observation, PollFailed) and not poll.site_up:
            assert poll.effects == ()


@given(plays())
def test_after_a_success_no_row_of_failures_is_left(play: Play) -> None:
    for poll in play.polls:
        if poll.succeeded:
            assert (poll.after.failures_in_a_row, poll.after.failure_row) == (0, "none")
            assert (poll.after.last_success_at, poll.after.last_poll_succeeded) == (poll.at, True)
        else:
            assert poll.after.last_success_at == poll.before.last_success_at


@given(plays())
def test_every_switched_direction_is_told_unless_a_side_of_it_was_not_found(play: Play) -> None:
    for poll in play.polls:
        halves = [
            (Direction.IMPORT, poll.before.import_enabled, poll.after.import_enabled),
            (Direction.EXPORT, poll.before.export_enabled, poll.after.export_enabled),
        ]
        known = not {poll.before.status, poll.after.status} & {None, Status.NOT_FOUND}
        told = [effect for effect in poll.effects if isinstance(effect, SyncSettingsChanged)]
        expected = [half for half in halves if known and half[1] is not half[2]]
        assert [(effect.direction, effect.was, effect.now) for effect in told] == expected


@given(plays())
def test_every_effect_is_as_loud_as_the_contract_says(play: Play) -> None:
    for poll in play.polls:
        for effect in poll.effects:
            assert effect.level == loudness(effect, poll.after.is_healthy(play.connection.policy))


def loudness(effect: Effect, healthy: bool) -> str:  # noqa: FBT001  the verdict itself
    """The level column of the contract's log table."""
    if isinstance(effect, ConnectionFirstSeen | Transition):
        to = effect.status if isinstance(effect, ConnectionFirstSeen) else effect.to_status
        assert effect.healthy == healthy
        loud = "info" if healthy else "warning"
        return "error" if to in (Status.ERROR, Status.NOT_FOUND) else loud
    if isinstance(effect, SyncSettingsChanged):
        return "warning" if effect.was is True else "info"
    return "info" if isinstance(effect, PollsRecovered) else "warning"
