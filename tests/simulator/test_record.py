"""The record: what it keeps, and where it stops."""

from collections.abc import Callable
from datetime import timedelta
from itertools import chain, repeat

import pytest

from monitor.simulator import Connection, Scenario, Site
from monitor.simulator.record import REQUESTS_KEPT, RUNS_KEPT, Record, Request
from monitor.simulator.world import Shown, Target

HERE = "127.0.0.1:80"
ANNA = Target("connection", "north", "anna")
SYNCED, REVOKED = Shown("SYNCED"), Shown("ERROR", "TOKEN_REVOKED")


@pytest.fixture
def record() -> Record:
    sites = tuple(
        Site(name=name, api_key="k", site_id=name, connections=(Connection(id="anna"),))
        for name in ("north", "south")
    )
    return Record(Scenario(sites=sites))


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def at(*moments: float) -> Callable[[], timedelta]:
    """A clock that tells these one after the other, then the last one for ever."""
    return map(seconds, chain(moments, repeat(moments[-1]))).__next__


def answer(
    record: Record, shown: Shown | None, moment: float, target: Target = ANNA, status: int = 200
) -> None:
    """One request that came, was answered whole and ended in one moment."""
    with record.under_way(target, HERE, at(moment), trusted=True) as request:
        record.answered(request, status, shown, seconds(moment))


def test_equal_answers_in_a_row_are_one_run(record: Record) -> None:
    for moment, shown in enumerate([SYNCED, SYNCED, REVOKED, Shown("ERROR"), SYNCED]):
        answer(record, shown, moment)

    told = [(run.status, run.reason, run.count) for run in record.runs("anna")]
    assert told == [
        ("SYNCED", None, 2),
        ("ERROR", "TOKEN_REVOKED", 1),
        ("ERROR", None, 1),
        ("SYNCED", None, 1),
    ]
    assert (record.runs("anna")[0].first_at, record.runs("anna")[0].last_at) == (seconds(0), seconds(1))


def test_the_same_id_in_two_sites_has_two_accounts(record: Record) -> None:
    answer(record, SYNCED, 0)

    assert (len(record.runs("anna", "north")), len(record.runs("anna", "south"))) == (1, 0)


def test_what_tells_no_status_makes_no_run(record: Record) -> None:
    answer(record, None, 0, status=503)
    answer(record, Shown("NOT_FOUND"), 0, Target("connection", "north", "stranger"), 404)

    assert record.runs("anna") == ()
    assert record.site("north").answers == {503: 1, 404: 1}


def test_requests_under_way_are_counted_down_even_when_one_dies(record: Record) -> None:
    with record.under_way(ANNA, HERE, at(0), trusted=True):
        with pytest.raises(ValueError, match="died"), record.under_way(ANNA, HERE, at(0), trusted=False):
            raise ValueError("died")
        assert record.connection("anna").under_way.now == 1

    assert (record.site("north").under_way.now, record.site("north").under_way.most) == (0, 2)
    assert record.site("north").wrong_credentials == 1


def test_a_request_keeps_where_it_came_when_it_ended_and_what_it_was_told(record: Record) -> None:
    there = "127.0.0.2:80"
    with record.under_way(ANNA, HERE, at(1, 3), trusted=True) as first:
        with record.under_way(ANNA, there, at(2), trusted=True) as second:
            record.answered(second, 503, None, seconds(2))
        record.answered(first, 200, SYNCED, seconds(2.5))
    with record.under_way(Target("token", "north"), HERE, at(4), trusted=True):
        pass

    assert record.requests("north") == (
        Request(ANNA, HERE, seconds(1), seconds(3), SYNCED),
        Request(ANNA, there, seconds(2), seconds(2), None),
    )


def test_a_rolling_minute_leaves_out_its_first_instant(record: Record) -> None:
    for moment in (0, 10, 59.9, 60, 69.9, 130):
        with record.under_way(ANNA, HERE, at(moment), trusted=True):
            pass

    assert record.busiest_minute("north") == 4
    assert record.moments("north", "token") == ()
    assert len(record.moments("north", "connection")) == 6


def test_memory_is_bounded_and_what_was_dropped_is_counted(record: Record) -> None:
    for moment in range(RUNS_KEPT + 5):
        answer(record, Shown(f"WORD-{moment}"), moment)
    for _ in range(REQUESTS_KEPT + 1):
        with record.under_way(ANNA, HERE, at(0), trusted=True):
            pass

    assert (len(record.runs("anna")), record.connection("anna").runs_dropped) == (RUNS_KEPT, 5)
    assert record.runs("anna")[0].status == "WORD-5"
    assert len(record.moments("north")) == REQUESTS_KEPT
    assert record.site("north").requests["connection"] == REQUESTS_KEPT + RUNS_KEPT + 6


def test_who_is_not_there_has_no_account(record: Record) -> None:
    with pytest.raises(KeyError):
        record.runs("stranger")
    with pytest.raises(KeyError):
        record.runs("anna", "east")
