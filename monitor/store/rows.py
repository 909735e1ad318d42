"""States and announcements as rows, and back; moments become the machine's time on their way out."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import msgspec

from monitor.clock import Clock
from monitor.core.effects import ConnectionFirstSeen, Transition
from monitor.core.model import CalendarType, Connection, ConnectionState, ErrorReason, FailureRow, Status

Announcement = ConnectionFirstSeen | Transition
"""What is told of a connection, and kept: its first sight and its transitions."""

Row = dict[str, Any]


class Fields(Protocol):
    """A row as an engine gives it."""

    def keys(self) -> Iterable[str]:
        """Its columns."""

    def __getitem__(self, column: str, /) -> Any: ...


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

WORDS: Final = {
    "status": Status,
    "reason": ErrorReason,
    "calendar_type": CalendarType,
    "failure_row": FailureRow,
    "from_status": Status,
    "from_reason": ErrorReason,
    "to_status": Status,
    "to_reason": ErrorReason,
}
_MOMENTS: Final = frozenset(
    {
        "watched_since",
        "status_since",
        "last_poll_at",
        "last_success_at",
        "from_since",
        "observed_at",
        "not_before",
    }
)
_SPANS: Final = frozenset({"unhealthy_for", "duration"})
FLAGS: Final = frozenset(
    {"import_enabled", "export_enabled", "last_poll_succeeded", "healthy", "observed_late"}
)


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(micros: int) -> datetime:
    """The moment of so many microseconds since 1970."""
    return _EPOCH + micros * _MICROSECOND


STATE_COLUMNS: Final = ("site", "id", "name", "kept_at", "healthy", *ConnectionState.__struct_fields__)


def state_rows(
    states: Iterable[tuple[Connection, ConnectionState]], clock: Clock
) -> Iterator[tuple[object, ...]]:
    """The rows of connections that were in the configuration until now, by `STATE_COLUMNS`."""
    now = clock.now()
    kept_at = micros(clock.wall(now))
    epoch = _EPOCH - (clock.wall(now) - now)

    def at(moment: datetime | None) -> int | None:
        return None if moment is None else (moment - epoch) // _MICROSECOND

    for connection, state in states:
        yield (
            connection.site,
            connection.id,
            connection.name,
            kept_at,
            state.is_healthy(connection.policy),
            at(state.watched_since),
            state.status,
            state.reason,
            at(state.status_since),
            state.calendar_type,
            state.import_enabled,
            state.export_enabled,
            at(state.last_poll_at),
            at(state.last_success_at),
            state.last_poll_succeeded,
            state.not_found_in_a_row,
            state.failures_in_a_row,
            state.failure_row,
            state.transitions,
            state.unhealthy_for // _MICROSECOND,
        )


def state_of(row: Fields, clock: Clock) -> ConnectionState:
    """The state of a row; what lies in our future, after the clock was set back, has happened by now."""
    fields = {name: row[name] for name in ConnectionState.__struct_fields__}
    return ConnectionState(**_inward(fields, clock))


def announcement_row(told: Announcement, clock: Clock) -> Row:
    """An announcement's row; the first sight of a connection has no `from_status`."""
    facts = msgspec.structs.asdict(told)
    if isinstance(told, ConnectionFirstSeen):
        facts |= {"to_status": facts.pop("status"), "to_reason": facts.pop("reason")}
    absent = dict.fromkeys(Transition.__struct_fields__)
    return absent | {"observed_late": 0} | _outward(facts, clock)


def announcement_of(row: Fields, clock: Clock) -> Announcement:
    """The announcement of a row."""
    facts = _inward({name: row[name] for name in Transition.__struct_fields__}, clock)
    if facts["from_status"] is not None:
        return Transition(**facts)
    facts |= {"status": facts["to_status"], "reason": facts["to_reason"]}
    return ConnectionFirstSeen(**{name: facts[name] for name in ConnectionFirstSeen.__struct_fields__})


def _outward(facts: dict[str, Any], clock: Clock) -> Row:
    return {name: _plain(value, clock) for name, value in facts.items()}


def _plain(value: object, clock: Clock) -> object:
    if isinstance(value, datetime):
        return micros(clock.wall(value))
    if isinstance(value, timedelta):
        return value // _MICROSECOND
    return int(value) if isinstance(value, bool) else value


def _inward(facts: dict[str, Any], clock: Clock) -> dict[str, Any]:
    return {name: None if value is None else _rich(name, value, clock) for name, value in facts.items()}


def _rich(name: str, value: Any, clock: Clock) -> object:
    if name in _MOMENTS:
        return min(clock.steady(moment(value)), clock.now())
    if name in _SPANS:
        return value * _MICROSECOND
    if name in FLAGS:
        return bool(value)
    return WORDS[name](value) if name in WORDS else value
