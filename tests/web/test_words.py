"""Moments and spans as the page says them."""

from datetime import timedelta

import pytest

from monitor.view.moves import MOVES
from monitor.web.words import kind_of, moment_of, span_of, who_of
from tests.view.scene import NOW


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (timedelta(seconds=-3), "0 s"),
        (timedelta(seconds=47.9), "47 s"),
        (timedelta(minutes=47, seconds=12), "47 min"),
        (timedelta(hours=2, minutes=5), "2 h 5 min"),
        (timedelta(days=3, hours=4, minutes=5), "3 d 4 h"),
        (timedelta(days=3, minutes=5), "3 d 5 min"),
    ],
)
def test_a_span_is_said_by_its_two_largest_units(span: timedelta, said: str) -> None:
    assert span_of(span) == said


@pytest.mark.parametrize(
    ("ago", "said"),
    [(timedelta(hours=2), "10:00"), (timedelta(days=1), "Sat 12:00"), (timedelta(days=9), "2026-02-20")],
)
def test_a_moment_is_said_as_shortly_as_is_clear(ago: timedelta, said: str) -> None:
    assert moment_of(NOW - ago, NOW) == said


def test_who_acts_is_said_by_the_teams_name_where_it_has_one() -> None:
    stuck, revoked = MOVES["WixCalendarSyncStuck"], MOVES["WixCalendarTokenRevoked"]
    assert (who_of(stuck, "front-desk"), who_of(stuck)) == ("team front-desk", "the site's team")
    assert who_of(revoked, "front-desk") == "the calendar's owner"
    assert {who_of(each) for each in MOVES.values()} != set()


@pytest.mark.parametrize(
    ("status", "kind"), [("UNSEEN", "unknown"), ("SYNCED", "well"), ("NOT_FOUND", "bad")]
)
def test_a_status_has_a_kind(status: str, kind: str) -> None:
    assert kind_of(status) == kind
