"""Every script of a few observations, held against an oracle that reads the whole script each time.

The oracle knows no tables and carries no state: all it says is counted from the list of what was seen.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import pytest

from monitor.core.effects import (
    ConnectionFirstSeen,
    Effect,
    PollsFailing,
    PollsRecovered,
    SyncSettingsChanged,
    Transition,
)
from monitor.core.machine import advance, transition_id
from monitor.core.model import (
    CalendarType,
    Connection,
    ConnectionState,
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

LENGTH = 5
START = datetime(2026, 7, 1, 12, tzinfo=UTC)
INTERVAL = timedelta(minutes=1)
WINDOW = timedelta(seconds=150)  # between two and three intervals: some gaps are longer
GOOGLE = CalendarType.GOOGLE

FAILURE = PollFailed(FailureReason.SERVER_ERROR, "SYSTEM", 503, "req-9")
ALPHABET: dict[str, Observation] = {
    "S": Observed(Status.SYNCED, None, GOOGLE, import_enabled=True, export_enabled=True),
    "C": Observed(Status.CONNECTED, None, GOOGLE, import_enabled=True, export_enabled=False),
    "R": Observed(Status.ERROR, ErrorReason.TOKEN_REVOKED, GOOGLE, import_enabled=True, export_enabled=True),
    "D": Observed(
        Status.ERROR, ErrorReason.EXTERNAL_CALENDAR_DELETED, GOOGLE, import_enabled=True, export_enabled=True
    ),
    "?": NotFound(),
    "x": FAILURE,  # while the site is up
    "_": FAILURE,  # while the site is down
}
UNHEALTHY = "RD0"  # 0: not found, believed


def at(minute: int) -> datetime:
    return START + minute * INTERVAL


def facts(script: str, confirmations: int) -> list[tuple[int, str]]:
    """The polls that told something: when, and what, a believed not-found being 0."""
    told = []
    for minute, letter in enumerate(script):
        answers = [before for before in script[: minute + 1] if before not in "x_"]
        row = len(answers) - len("".join(answers).rstrip("?"))
        if letter == "?" and row >= confirmations:
            told.append((minute, "0"))
        elif letter in "SCRD":
            told.append((minute, letter))
    return told


def status_of(fact: str) -> tuple[Status, ErrorReason | None]:
    if fact == "0":
        return Status.NOT_FOUND, None
    seen = ALPHABET[fact]
    assert isinstance(seen, Observed)
    return seen.status, seen.reason


def export_of(fact: str) -> bool | None:
    return {"0": None, "C": False}.get(fact, True)


def expected_state(script: str, confirmations: int) -> ConnectionState:
    """What must be known after the whole script."""
    told = facts(script, confirmations)
    verdicts = [
        letter in "x_" for minute, letter in enumerate(script) if letter in "x_" or minute in dict(told)
    ]
    last_fact = told[-1][0] if told else -1
    failures = [letter for letter in script[last_fact + 1 :] if letter in "x_"]
    answers = "".join(letter for letter in script if letter not in "x_")
    state = ConnectionState(
        watched_since=START,
        last_poll_at=at(len(script) - 1),
        last_poll_succeeded=not verdicts[-1] if verdicts else None,
        not_found_in_a_row=len(answers) - len(answers.rstrip("?")),
        failures_in_a_row=len(failures),
        failure_row=row_of(failures),
    )
    return with_knowledge(state, told) if told else state


def row_of(failures: list[str]) -> FailureRow:
    if not failures:
        return FailureRow.NONE
    return FailureRow.TOLD if "x" in failures else FailureRow.UNTOLD


def with_knowledge(state: ConnectionState, told: list[tuple[int, str]]) -> ConnectionState:
    minute, fact = told[-1]
    status, reason = status_of(fact)
    different = [(when, what) for when, what in told if what != fact]
    since = min(when for when, _ in told if not different or when > different[-1][0])
    gaps = [min((b - a) * INTERVAL, WINDOW) for (a, what), (b, _) in pairwise(told) if what in UNHEALTHY]
    return ConnectionState(
        watched_since=state.watched_since,
        status=status,
        reason=reason,
        status_since=at(since),
        calendar_type=GOOGLE if any(what != "0" for _, what in told) else CalendarType.UNDEFINED,
        import_enabled=None if fact == "0" else True,
        export_enabled=export_of(fact),
        last_poll_at=state.last_poll_at,
        last_success_at=at(minute),
        last_poll_succeeded=state.last_poll_succeeded,
        not_found_in_a_row=state.not_found_in_a_row,
        failures_in_a_row=state.failures_in_a_row,
        failure_row=state.failure_row,
        transitions=sum(a != b for (_, a), (_, b) in pairwise(told)),
        unhealthy_for=sum(gaps, timedelta()),
    )


def expected_effects(script: str, confirmations: int) -> Iterator[tuple[object, ...]]:
    """What the last letter of the script must announce, in order."""
    told = facts(script, confirmations)
    before = facts(script[:-1], confirmations)
    row = script[before[-1][0] + 1 if before else 0 : -1].replace("?", "")
    if script[-1] == "x" and "x" not in row:
        yield PollsFailing, len(row) + 1
    if told == before:
        return
    if "x" in row:
        yield PollsRecovered, len(row)
    fact = told[-1][1]
    if not before:
        yield ConnectionFirstSeen, *status_of(fact), fact not in UNHEALTHY
        return
    earlier = before[-1][1]
    if fact != earlier:
        since = expected_state(script[:-1], confirmations).status_since
        last = at(before[-1][0])
        late = last if at(len(script) - 1) - last > 2 * INTERVAL else None
        yield Transition, *status_of(earlier), *status_of(fact), since, late, fact not in UNHEALTHY
    if export_of(fact) != export_of(earlier) and "0" not in (fact, earlier):
        yield SyncSettingsChanged, "export", export_of(earlier), export_of(fact)


def told_by(effect: Effect) -> tuple[object, ...]:
    """An effect in the oracle's words."""
    match effect:
        case PollsFailing() | PollsRecovered():
            return type(effect), effect.failures
        case ConnectionFirstSeen():
            return ConnectionFirstSeen, effect.status, effect.reason, effect.healthy
        case Transition():
            change = (effect.from_status, effect.from_reason, effect.to_status, effect.to_reason)
            return Transition, *change, effect.from_since, effect.not_before, effect.healthy
        case SyncSettingsChanged():
            return SyncSettingsChanged, effect.direction, effect.was, effect.now
        case _:
            return (effect,)


class Play(NamedTuple):
    script: str
    state: ConnectionState
    effects: tuple[Effect, ...]


def all_scripts(connection: Connection) -> Iterator[Play]:
    """Every script up to LENGTH, each played from its longest part played before."""
    open_ends = [("", ConnectionState(watched_since=START))]
    while open_ends:
        script, state = open_ends.pop()
        for letter, observation in ALPHABET.items():
            step = advance(connection, state, observation, at(len(script)), site_up=letter != "_")
            yield Play(script + letter, step.state, step.effects)
            if len(script) + 1 < LENGTH:
                open_ends.append((script + letter, step.state))


@pytest.mark.parametrize("confirmations", [1, 2, 3])
def test_every_short_script_ends_and_announces_as_the_oracle_says(confirmations: int) -> None:
    policy = Policy(INTERVAL, WINDOW, timedelta(seconds=15), confirmations)
    connection = Connection("downtown", "id-1", "anna", policy)
    count = 0
    for script, state, effects in all_scripts(connection):
        assert state == expected_state(script, confirmations), script
        assert [told_by(effect) for effect in effects] == list(expected_effects(script, confirmations)), (
            script
        )
        for effect in effects:
            if isinstance(effect, Transition):
                now = at(len(script) - 1)
                assert effect.observed_at == now, script
                assert effect.duration == now - effect.from_since, script
                assert effect.observed_late == (effect.not_before is not None), script
                assert effect.transition_id == transition_id(connection, state.transitions, now), script
        count += 1
    assert count == sum(len(ALPHABET) ** length for length in range(1, LENGTH + 1))
