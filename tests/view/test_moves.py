"""Whose move it is: the table is that of the runbooks, and each state finds its row."""

import re
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from monitor.core.model import ErrorReason, FailureReason, Status
from monitor.core.site import SiteState
from monitor.view.moves import MOVES, move_for, site_move
from tests.deploy.test_runbooks import INDEX, RUNBOOKS
from tests.view.scene import NOW, POLICY, UNSEEN, outage, state, watched

OLD = NOW - timedelta(hours=2)


def test_the_table_is_that_of_the_runbooks() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(\S+\) \| \w+ \| ([\w ]+) \| (.+) \|$", INDEX.read_text(), re.MULTILINE)
    told = {alert: (who, line) for alert, who, line in rows}
    assert {alert: (move.who, move.told) for alert, move in MOVES.items()} == {
        alert: told[alert] for alert in MOVES
    }
    assert [alert for alert in MOVES if not (RUNBOOKS / f"{MOVES[alert].runbook}.md").is_file()] == []


@pytest.mark.parametrize(
    ("facts", "alert"),
    [
        ({}, None),
        ({"status": Status.CONNECTED, "export_enabled": False}, None),
        ({"status": Status.CONNECTED}, "WixCalendarExportNotStarted"),
        ({"status": Status.ERROR, "reason": ErrorReason.TOKEN_REVOKED}, "WixCalendarTokenRevoked"),
        ({"status": Status.ERROR, "reason": ErrorReason.EXTERNAL_CALENDAR_DELETED}, "WixCalendarDeleted"),
        (
            {"status": Status.ERROR, "reason": ErrorReason.EXTERNAL_CALENDAR_CREATION_FAILED},
            "WixCalendarCreationFailed",
        ),
        ({"status": Status.ERROR, "reason": ErrorReason.UNRECOGNIZED}, "WixCalendarError"),
        ({"status": Status.DISCONNECTED}, "WixCalendarDisconnected"),
        ({"status": Status.NOT_FOUND}, "WixCalendarNotFound"),
        ({"status": Status.UNRECOGNIZED}, "WixCalendarUnexpected"),
        ({"status": Status.SYNC_IN_PROGRESS, "status_since": NOW - timedelta(minutes=59)}, None),
        ({"status": Status.SYNC_IN_PROGRESS, "status_since": OLD}, "WixCalendarSyncStuck"),
    ],
)
def test_each_status_finds_its_move(facts: dict[str, Any], alert: str | None) -> None:
    move = move_for(watched("anna").connection, state(**facts), SiteState(), NOW, stale=False)
    assert (move and move.alert) == alert


def test_what_is_expected_is_nobodys_move() -> None:
    policy = msgspec.structs.replace(POLICY, expected=frozenset({Status.DISCONNECTED}))
    connection = watched("anna", policy=policy).connection
    gone, well = state(status=Status.DISCONNECTED), state()
    assert move_for(connection, gone, SiteState(), NOW, stale=False) is None
    move = move_for(connection, well, SiteState(), NOW, stale=False)
    assert move is MOVES["WixCalendarUnexpected"]


@pytest.mark.parametrize(
    ("site", "alert"),
    [
        (SiteState(answered=True), "WixCalendarConnectionBlind"),
        (SiteState(limited_since=OLD), "WixCalendarRateLimited"),
        (outage(), "WixCalendarSiteUnreachable"),
        (outage(FailureReason.FORBIDDEN), "WixCalendarCredentialRefused"),
        (outage(FailureReason.UNAUTHORIZED), "WixCalendarCredentialRefused"),
        (outage(FailureReason.PREMIUM_REQUIRED), "WixCalendarPlanLost"),
    ],
)
def test_what_is_stale_or_cannot_be_seen_is_the_move_of_its_site(site: SiteState, alert: str) -> None:
    connection = watched("anna").connection
    never = msgspec.structs.replace(UNSEEN, failures_in_a_row=1)
    for known, stale in ((state(), True), (never, False)):
        move = move_for(connection, known, site, NOW, stale=stale)
        assert move is MOVES[alert]
    assert move_for(connection, UNSEEN, SiteState(), NOW, stale=False) is None


def test_what_wix_said_of_a_calendar_stands_while_we_cannot_ask() -> None:
    broken = state(status=Status.ERROR, reason=ErrorReason.TOKEN_REVOKED, last_success_at=OLD)
    move = move_for(watched("anna").connection, broken, outage(), NOW, stale=True)
    assert move is MOVES["WixCalendarTokenRevoked"]


def test_a_site_that_answers_is_nobodys_move() -> None:
    assert site_move(SiteState(answered=True, failures_in_a_row=4)) is None
