"""What a calendar shows is changed only after it was surely answered."""

from datetime import timedelta

import pytest

from monitor.simulator.record import ConnectionRecord, Run
from tests.judge.evidence import Calendar
from tests.rig.weather import Sky

ZERO = timedelta()


@pytest.fixture
def record() -> ConnectionRecord:
    return ConnectionRecord()


@pytest.fixture
def sky(record: ConnectionRecord) -> Sky:
    return Sky(Calendar("north", "anna"), record)


def answer(record: ConnectionRecord, status: str, count: int = 1) -> None:
    """That status, so many times more."""
    if record.runs and record.runs[-1].status == status:
        record.runs[-1].count += count
    else:
        record.runs.append(Run(status, None, ZERO, ZERO, count))


def test_a_status_was_answered_when_it_and_no_other_was(sky: Sky, record: ConnectionRecord) -> None:
    assert not sky.was_answered()
    answer(record, "SYNCED")
    assert sky.was_answered()
    sky.show(("ERROR", None), more=0)
    answer(record, "SYNCED")
    assert not sky.was_answered()
    answer(record, "ERROR")
    assert sky.was_answered()


def test_a_not_found_must_be_answered_twice(sky: Sky, record: ConnectionRecord) -> None:
    sky.show(("NOT_FOUND", None), more=0)
    answer(record, "NOT_FOUND")
    assert not sky.was_answered()
    answer(record, "NOT_FOUND")
    assert sky.was_answered()


def test_what_was_answered_before_it_was_held_does_not_count(sky: Sky, record: ConnectionRecord) -> None:
    answer(record, "SYNCED", 5)
    sky.hold(more=1)
    answer(record, "SYNCED")
    assert not sky.was_answered()
    answer(record, "SYNCED")
    assert sky.was_answered()
    sky.show(("ERROR", None), more=0)
    sky.hold()
    answer(record, "ERROR")
    assert sky.was_answered()
