"""The record: what it keeps, and where it stops."""

from datetime import timedelta

import pytest

from monitor.simulator import Connection, Scenario, Site
from monitor.simulator.record import REQUESTS_KEPT, RUNS_KEPT, Record
from monitor.simulator.world import Shown, Target

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


def test_equal_answers_in_a_row_are_one_run(record: Record) -> None:
    for moment, shown in enumerate([SYNCED, SYNCED, REVOKED, Shown("ERROR"), SYNCED]):
        record.answered(ANNA, 200, shown, seconds(moment))

    told = [(run.status, run.reason, run.count) for run in record.runs("anna")]
    assert told == [
        ("SYNCED", None, 2),
        ("ERROR", "TOKEN_REVOKED", 1),
        ("ERROR", None, 1),
        ("SYNCED", None, 1),
    ]
    assert (record.runs("anna")[0].first_at, record.runs("anna")[0].last_at) == (seconds(0), seconds(1))


def test_the_same_id_in_two_sites_has_two_accounts(record: Record) -> None:
    record.answered(ANNA, 200, SYNCED, seconds(0))

    assert (len(record.runs("anna", "north")), len(record.runs("anna", "south"))) == (1, 0)


def test_what_tells_no_status_makes_no_run(record: Record) -> None:
    record.answered(ANNA, 503, None, seconds(0))
    record.answered(Target("connection", "north", "stranger"), 404, Shown("NOT_FOUND"), seconds(0))

    assert record.runs("anna") == ()
    assert record.site("north").answers == {503: 1, 404: 1}


def test_requests_under_way_are_counted_down_even_when_one_dies(record: Record) -> None:
    with record.under_way(ANNA, seconds(0), trusted=True):
        with pytest.raises(ValueError, match="died"), record.under_way(ANNA, seconds(0), trusted=False):
            raise ValueError("died")
        assert record.connection("anna").under_way.now == 1

    assert (record.site("north").under_way.now, record.site("north").under_way.most) == (0, 2)
    assert record.site("north").wrong_credentials == 1


def test_a_rolling_minute_leaves_out_its_first_instant(record: Record) -> None:
    for moment in (0, 10, 59.9, 60, 69.9, 130):
        with record.under_way(ANNA, seconds(moment), trusted=True):
            pass

    assert record.busiest_minute("north") == 4
    assert record.moments("north", "token") == ()
    assert len(record.moments("north", "connection")) == 6


def test_memory_is_bounded_and_what_was_dropped_is_counted(record: Record) -> None:
    for moment in range(RUNS_KEPT + 5):
        record.answered(ANNA, 200, Shown(f"WORD-{moment}"), seconds(moment))
    for _ in range(REQUESTS_KEPT + 1):
        with record.under_way(ANNA, seconds(0), trusted=True):
            pass

    assert (len(record.runs("anna")), record.connection("anna").runs_dropped) == (RUNS_KEPT, 5)
    assert record.runs("anna")[0].status == "WORD-5"
    assert len(record.moments("north")) == REQUESTS_KEPT
    assert record.site("north").requests["connection"] == REQUESTS_KEPT + 1


def test_who_is_not_there_has_no_account(record: Record) -> None:
    with pytest.raises(KeyError):
        record.runs("stranger")
    with pytest.raises(KeyError):
        record.runs("anna", "east")
