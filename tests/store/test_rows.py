"""Rows: what goes into the file comes out of it, every field, on the machine's clock as it stands."""

import typing
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from types import NoneType
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.clock import Clock
from monitor.core.effects import ConnectionFirstSeen, Transition
from monitor.core.model import Connection, ConnectionState
from monitor.store import Announcement, Booking
from monitor.store.postgresql.schema import TRANSITION_COLUMNS as TOLD
from monitor.store.postgresql.schema import array_of
from monitor.store.rows import (
    STATE_COLUMNS,
    announcement_of,
    announcement_row,
    micros,
    moment,
    state_of,
    state_rows,
)
from tests.postgresql import PostgreSQL
from tests.store.engines import Book, Engine, Shared, SQLite
from tests.store.samples import ANNA, MINUTE, START, Machine, state, transition

LATE: Final = datetime(2100, 1, 1, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
NUMBERS: Final = count()

BY_TYPE: Final[dict[Any, st.SearchStrategy[Any]]] = {
    datetime: st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001
    timedelta: st.timedeltas(timedelta(), timedelta(days=100_000)),
    int: st.integers(0, 2**63 - 1),
    str: st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    NoneType: st.none(),
    bool: st.booleans(),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of an annotation."""
    kinds = typing.get_args(kind) or (kind,)
    return st.one_of([BY_TYPE[each] if each in BY_TYPE else st.sampled_from(list(each)) for each in kinds])


def records(kind: Any) -> st.SearchStrategy[Any]:
    """Any record of a kind, each of its fields at random: a new field is in it by itself."""
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{name: values(hints[name]) for name in kind.__struct_fields__})


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def late_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    """A store so late that all moments have passed."""
    file = SQLite(tmp_path_factory.mktemp("store") / "state.db")
    engine = file if request.param == "sqlite" else Shared(request.getfixturevalue("postgresql"))
    book = Book(engine, Machine(LATE).boot())
    yield book
    book.close()


@given(known=records(ConnectionState))
def test_a_state_comes_back_as_it_went(late_store: Book, known: ConnectionState) -> None:
    late_store.commit([Booking(ANNA, known)], [])
    assert late_store.states() == {(ANNA.site, ANNA.id): known}


@given(told=records(Transition) | records(ConnectionFirstSeen))
def test_an_announcement_comes_back_as_it_went(late_store: Book, told: Announcement) -> None:
    late_store.commit([], [each.transition_id for each in late_store.untold()])
    told = msgspec.structs.replace(told, site=ANNA.site, transition_id=f"t{next(NUMBERS)}")
    late_store.commit([Booking(ANNA, state(), (told,))], [])
    assert late_store.untold() == [told]


SHARED: Final = {"connection": {"writer", "turn"}, "transition": {"node", "epoch"}}


@pytest.mark.parametrize(
    ("table", "kind", "ours"),
    [
        ("connection", ConnectionState, {"site", "id", "name", "kept_at", "healthy"}),
        ("transition", Transition, {"n", "announced"}),
    ],
)
async def test_every_field_has_a_column_and_every_column_a_field(
    engine: Engine, clock: Clock, table: str, kind: type[ConnectionState | Transition], ours: set[str]
) -> None:
    """A field without a migration fails here."""
    await (await engine.open(clock)).store.close()
    more = SHARED[table] if isinstance(engine, Shared) else set()
    assert await engine.columns(table) == ours | more | set(kind.__struct_fields__)


@pytest.mark.parametrize(("table", "columns"), [("connection", STATE_COLUMNS), ("transition", TOLD)])
async def test_each_column_of_postgresql_is_sent_as_what_it_is(
    postgresql: PostgreSQL, clock: Clock, table: str, columns: tuple[str, ...]
) -> None:
    shared = Shared(postgresql)
    await (await shared.open(clock)).store.close()
    kinds = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{}'"
    found: dict[str, str] = dict(await shared.rows(kinds.format(table)))
    assert {name: array_of(name) for name in columns} == {name: f"{found[name]}[]" for name in columns}


def test_a_first_sight_needs_no_column_of_its_own() -> None:
    renamed = {"status": "to_status", "reason": "to_reason"}
    fields = {renamed.get(name, name) for name in ConnectionFirstSeen.__struct_fields__}
    assert fields <= set(Transition.__struct_fields__)


FULL: Final = state(
    reason=None,
    status_since=START,
    last_poll_at=START + MINUTE,
    last_success_at=START + MINUTE,
    unhealthy_for=MINUTE,
)


def state_row(connection: Connection, known: ConnectionState, clock: Clock) -> dict[str, Any]:
    """A row as SQLite gives it back."""
    (row,) = state_rows([(connection, known)], clock)
    return dict(zip(STATE_COLUMNS, row, strict=True))


@pytest.mark.parametrize("step", [-HOUR, HOUR, timedelta(days=1)], ids=str)
def test_a_moment_is_kept_as_the_machine_calls_it_now(step: timedelta) -> None:
    machine = Machine(START + MINUTE)
    clock = machine.boot()
    machine.wall += step.total_seconds()
    clock.notice_step()
    row = state_row(ANNA, FULL, clock)
    assert moment(row["status_since"]) == START + step
    assert moment(row["last_success_at"]) == START + MINUTE + step
    assert row["unhealthy_for"] == 60_000_000
    assert state_of(row, clock) == FULL
    assert state_of(row, machine.boot()).status_since == START + step


def test_after_the_clock_was_set_back_nothing_known_lies_in_the_future() -> None:
    machine = Machine(START + MINUTE)
    row = state_row(ANNA, FULL, machine.boot())
    machine.wall -= HOUR.total_seconds()
    now = START + MINUTE - HOUR
    assert state_of(row, machine.boot()) == msgspec.structs.replace(
        FULL, watched_since=now, status_since=now, last_poll_at=now, last_success_at=now
    )


def test_after_the_clock_was_set_back_nothing_told_lies_in_the_future() -> None:
    machine = Machine(START + MINUTE)
    told = transition(1, observed_at=START + MINUTE, observed_late=True, not_before=START)
    row = announcement_row(told, machine.boot())
    machine.wall -= HOUR.total_seconds()
    now = START + MINUTE - HOUR
    assert announcement_of(row, machine.boot()) == msgspec.structs.replace(
        told, from_since=now, observed_at=now, not_before=now
    )


@pytest.mark.parametrize("column", ["status", "reason", "calendar_type", "failure_row"])
def test_a_word_nobody_knows_is_an_error_and_no_guess(column: str) -> None:
    clock = Machine().boot()
    row = {**state_row(ANNA, state(), clock), column: "SYNXED"}
    with pytest.raises(ValueError, match="SYNXED"):
        state_of(row, clock)


@given(at=BY_TYPE[datetime])
def test_microseconds_are_exact(at: datetime) -> None:
    assert moment(micros(at)) == at
