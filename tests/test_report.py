"""Effects become log lines and counts: every kind has its place, its keys and its level."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import structlog

from monitor.clock import Clock
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
)
from monitor.core.model import CalendarType, Direction, ErrorReason, FailureReason, Status
from monitor.metrics.exposition import Dialect
from monitor.metrics.telemetry import Telemetry
from monitor.report import Reporter

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
EARLIER = START - timedelta(hours=1)
ANNA: dict[str, Any] = {"site": "downtown", "connection": "anna", "connection_id": "id-1"}

FIRST_SEEN = ConnectionFirstSeen(
    **ANNA,
    calendar_type=CalendarType.GOOGLE,
    status=Status.SYNCED,
    reason=None,
    healthy=True,
    observed_at=START,
    transition_id="ffeeddccbbaa9988",
)
REVOKED = Transition(
    **ANNA,
    calendar_type=CalendarType.GOOGLE,
    from_status=Status.SYNCED,
    from_reason=None,
    to_status=Status.ERROR,
    to_reason=ErrorReason.TOKEN_REVOKED,
    healthy=False,
    from_since=EARLIER,
    duration=timedelta(seconds=3600, microseconds=1499),
    observed_at=START,
    transition_id="00112233aabbccdd",
)
SWITCHED_OFF = SyncSettingsChanged(**ANNA, direction=Direction.EXPORT, was=True, now=False)
FAILING = PollsFailing(
    **ANNA,
    reason=FailureReason.SERVER_ERROR,
    detail="SOME_CODE",
    http_status=503,
    request_id="req-1",
    failures=1,
)
RECOVERED = PollsRecovered(**ANNA, failures=4)
DOWN = SiteDown(
    site="downtown",
    reason=FailureReason.CONNECT,
    detail="",
    http_status=None,
    request_id="",
    since=START,
    next_trial_at=START + timedelta(seconds=60),
    connections=60,
)
UP = SiteUp(
    site="downtown",
    reason=FailureReason.CONNECT,
    http_status=503,
    request_id="req-2",
    since=EARLIER,
    duration=timedelta(hours=1),
    connections=60,
)
LIMITED = RateLimited(site="downtown", wait=timedelta(seconds=45), request_id="")
LIFTED = RateLimitLifted(site="downtown", since=EARLIER, duration=timedelta(hours=1))
REPLACED = SecretReplaced(site="downtown")
ODD = UnrecognizedValue(**ANNA, field="status", value="PAUSED")

EACH = [FIRST_SEEN, REVOKED, SWITCHED_OFF, FAILING, RECOVERED, DOWN, UP, LIMITED, LIFTED, REPLACED, ODD]


class Machine:
    """A reporter and all that it told."""

    def __init__(self) -> None:
        self.wall = START.timestamp()
        self.clock = Clock(lambda: self.wall, lambda: 0.0)
        self.telemetry = Telemetry()
        self.lines: list[Mapping[str, Any]] = []
        log = structlog.wrap_logger(
            None,
            processors=[structlog.stdlib.add_log_level, self._keep],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )
        self.reporter = Reporter(log, self.telemetry, self.clock)

    def _keep(self, _: object, __: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        self.lines.append(dict(event))
        raise structlog.DropEvent

    def unrecognized(self, field: str) -> float:
        start = f'wix_calendar_monitor_unrecognized_values_total{{field="{field}"}} '
        page = self.telemetry.render(Dialect.TEXT).decode().splitlines()
        (value,) = [line.removeprefix(start) for line in page if line.startswith(start)]
        return float(value)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def kinds(of: type[Effect]) -> set[type[Effect]]:
    below = set(of.__subclasses__())
    return below.union(*(kinds(each) for each in below))


def test_every_kind_of_effect_is_told_here_and_in_the_dispatch(machine: Machine) -> None:
    assert {type(effect) for effect in EACH} == kinds(Effect)
    machine.reporter.emit(EACH)
    assert [line["event"] for line in machine.lines] == [effect.event for effect in EACH]


def test_an_unknown_effect_is_an_error(machine: Machine) -> None:
    class Novelty(msgspec.Struct):
        """No Effect, so that no other test meets it."""

        event = "novelty"
        level = "info"

    with pytest.raises(KeyError):
        machine.reporter.emit([Novelty()])  # type: ignore[list-item]
    assert machine.lines == []


@pytest.mark.parametrize(
    ("effect", "line"),
    [
        (
            FIRST_SEEN,
            {
                "event": "connection_first_seen",
                "level": "info",
                **ANNA,
                "calendar_type": "GOOGLE",
                "status": "SYNCED",
                "reason": None,
                "observed_at": START,
                "transition_id": "ffeeddccbbaa9988",
            },
        ),
        (
            REVOKED,
            {
                "event": "connection_transition",
                "level": "error",
                **ANNA,
                "calendar_type": "GOOGLE",
                "from_status": "SYNCED",
                "from_reason": None,
                "to_status": "ERROR",
                "to_reason": "TOKEN_REVOKED",
                "from_since": EARLIER,
                "duration_seconds": 3600.001,
                "observed_at": START,
                "transition_id": "00112233aabbccdd",
            },
        ),
        (
            SWITCHED_OFF,
            {
                "event": "connection_sync_settings_changed",
                "level": "warning",
                **ANNA,
                "direction": "export",
                "from": True,
                "to": False,
            },
        ),
        (
            FAILING,
            {
                "event": "connection_polls_failing",
                "level": "warning",
                **ANNA,
                "reason": "server_error",
                "detail": "SOME_CODE",
                "http_status": 503,
                "request_id": "req-1",
                "failures": 1,
            },
        ),
        (RECOVERED, {"event": "connection_polls_recovered", "level": "info", **ANNA, "failures": 4}),
        (
            DOWN,
            {
                "event": "site_down",
                "level": "error",
                "site": "downtown",
                "reason": "connect",
                "http_status": None,
                "request_id": "",
                "since": START,
                "next_trial_at": START + timedelta(seconds=60),
                "connections": 60,
            },
        ),
        (
            UP,
            {
                "event": "site_up",
                "level": "info",
                "site": "downtown",
                "reason": "connect",
                "http_status": 503,
                "request_id": "req-2",
                "since": EARLIER,
                "duration_seconds": 3600.0,
                "connections": 60,
            },
        ),
        (
            LIMITED,
            {
                "event": "rate_limited",
                "level": "warning",
                "site": "downtown",
                "wait_seconds": 45.0,
                "request_id": "",
            },
        ),
        (
            LIFTED,
            {
                "event": "rate_limit_lifted",
                "level": "info",
                "site": "downtown",
                "since": EARLIER,
                "duration_seconds": 3600.0,
            },
        ),
        (REPLACED, {"event": "secret_replaced", "level": "info", "site": "downtown"}),
        (
            ODD,
            {
                "event": "unrecognized_value",
                "level": "warning",
                **ANNA,
                "field": "status",
                "value": "PAUSED",
            },
        ),
    ],
    ids=lambda value: value.event if isinstance(value, Effect) else "",
)
def test_a_line_has_exactly_these_facts(machine: Machine, effect: Effect, line: dict[str, Any]) -> None:
    machine.reporter.emit([effect])
    assert machine.lines == [line]


def test_a_late_observation_says_since_when_it_may_be_so(machine: Machine) -> None:
    late = msgspec.structs.replace(REVOKED, observed_late=True, not_before=EARLIER)
    machine.reporter.emit([REVOKED, late])
    on_time, told = machine.lines
    assert {key: told[key] for key in told.keys() - on_time.keys()} == {
        "observed_late": True,
        "not_before": EARLIER,
    }


@pytest.mark.parametrize(
    ("status", "healthy", "level"),
    [
        (Status.SYNCED, True, "info"),
        (Status.SYNCED, False, "warning"),
        (Status.DISCONNECTED, False, "warning"),
        (Status.ERROR, False, "error"),
        (Status.ERROR, True, "error"),
        (Status.NOT_FOUND, False, "error"),
    ],
)
def test_a_change_is_as_loud_as_where_it_leads(
    machine: Machine, status: Status, level: str, *, healthy: bool
) -> None:
    machine.reporter.emit(
        [
            msgspec.structs.replace(REVOKED, to_status=status, healthy=healthy),
            msgspec.structs.replace(FIRST_SEEN, status=status, healthy=healthy),
        ]
    )
    assert [line["level"] for line in machine.lines] == [level, level]


@pytest.mark.parametrize(
    ("was", "now", "level"),
    [(True, False, "warning"), (True, None, "warning"), (False, True, "info"), (None, False, "info")],
)
def test_a_direction_that_went_off_is_a_warning(
    machine: Machine, level: str, *, was: bool | None, now: bool | None
) -> None:
    machine.reporter.emit([msgspec.structs.replace(SWITCHED_OFF, was=was, now=now)])
    (line,) = machine.lines
    assert (line["level"], line["from"], line["to"]) == (level, was, now)


def test_effects_are_told_in_their_order(machine: Machine) -> None:
    machine.reporter.emit([UP, DOWN, UP])
    assert [line["event"] for line in machine.lines] == ["site_up", "site_down", "site_up"]


def test_an_unrecognized_value_is_told_once_and_counted_each_time(machine: Machine) -> None:
    other_word = msgspec.structs.replace(ODD, value="HALTED")
    other_field = msgspec.structs.replace(ODD, field="calendarType")
    other_connection = msgspec.structs.replace(ODD, connection="ben", connection_id="id-2")
    machine.reporter.emit([ODD, ODD, other_word, other_field, other_connection, ODD])
    assert [(line["field"], line["value"]) for line in machine.lines] == [
        ("status", "PAUSED"),
        ("status", "HALTED"),
        ("calendarType", "PAUSED"),
    ]
    assert machine.unrecognized("status") == 5
    assert machine.unrecognized("calendarType") == 1


def test_a_server_that_invents_words_does_not_fill_our_memory_and_is_still_counted(machine: Machine) -> None:
    machine.reporter.emit(msgspec.structs.replace(ODD, value=f"WORD_{n}") for n in range(3000))
    assert len(machine.lines) == 1000
    assert machine.unrecognized("status") == 3000


def test_moments_are_put_on_the_machines_clock(machine: Machine) -> None:
    machine.wall += 3600
    assert machine.clock.notice_step() == timedelta(hours=1)
    machine.reporter.emit([REVOKED, DOWN, FIRST_SEEN])
    transition, down, first_seen = machine.lines
    assert transition["from_since"] == EARLIER + timedelta(hours=1)
    assert transition["observed_at"] == START + timedelta(hours=1)
    assert transition["duration_seconds"] == 3600.001  # a span is a span
    assert down["since"] == START + timedelta(hours=1)
    assert first_seen["observed_at"] == START + timedelta(hours=1)
