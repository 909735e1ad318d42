"""`status` and `history` over real stores: order, words, filters, windows, JSON."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from monitor.config import (
    ApiKeyCredential,
    ApiSettings,
    SecretSource,
    Settings,
    SiteSettings,
    StoreSettings,
)
from monitor.core.model import Connection, ConnectionState, ErrorReason, Status
from monitor.history import Output, ended, history_report, parse_moment, status_report, summary_report
from monitor.store import Booking
from monitor.store.reading import Wanted
from monitor.store.sqlite.file import File, open_file
from monitor.store.sqlite.reading import reading_file
from monitor.tables import cells
from tests.store.samples import ANNA, MINUTE, START, Machine, connection
from tests.store.stories import Told, keep

HOUR: Final = timedelta(hours=1)
ALL: Final = Wanted()
DAY: Final = timedelta(days=1)
BO: Final = connection(2)
CY: Final = connection(3)
DI: Final = connection(4, "uptown")
NOW: Final = START + DAY
REVOKED: Final = ErrorReason.TOKEN_REVOKED


def settings(path: Path, *connections: Connection) -> Settings:
    credential = ApiKeyCredential(api_key=SecretSource(env="KEY"), site_id="s")
    sites = tuple(
        SiteSettings(
            name=name,
            credential=credential,
            requests_per_minute=160,
            interval=MINUTE,
            interval_in_force=MINUTE,
            breaker_failures=5,
            maintenance_until=None,
            connections=tuple(each for each in connections if each.site == name),
        )
        for name in dict.fromkeys(each.site for each in connections)
    )
    api = ApiSettings("https://www.wixapis.com", timedelta(seconds=10), 256)
    return Settings(api=api, sites=sites, store=StoreSettings(f"sqlite:///{path}", 90 * DAY))


class Past:
    """A store with a story, and the reports on it."""

    def __init__(self, path: Path, store: File) -> None:
        self.path = path
        self.store = store
        self.watched: tuple[Connection, ...] = (ANNA, BO, CY, DI)

    def keep(self, *story: Told) -> None:
        keep(self.store, story)

    def status(self, wanted: Wanted = ALL, *, now: datetime = NOW, width: int | None = None) -> str:
        with reading_file(self.path) as reader:
            asked = settings(self.path, *self.watched)
            return status_report(asked, reader, wanted, Output.TABLE, now, width)

    def status_json(self, now: datetime = NOW) -> dict[str, dict[str, Any]]:
        with reading_file(self.path) as reader:
            asked = settings(self.path, *self.watched)
            told = status_report(asked, reader, Wanted(), Output.JSON, now, None)
        return {each["connection"]: each for each in json.loads(told)}

    def history(
        self, wanted: Wanted = ALL, limit: int | None = None, width: int | None = None, **more: Any
    ) -> str:
        with reading_file(self.path) as reader:
            chapters = ended(reader.seen(wanted), settings(self.path, *self.watched))
            return history_report(chapters, limit, more.get("output", Output.TABLE), NOW, width)

    def summary(self, begin: datetime, output: Output, end: datetime = NOW) -> str:
        with reading_file(self.path) as reader:
            chapters = ended(reader.held(Wanted(since=begin, until=end)), settings(self.path, *self.watched))
            return summary_report(chapters, begin, end, output, None)


@pytest.fixture
def past(tmp_path: Path) -> Any:
    machine = Machine(NOW)
    store = open_file(tmp_path / "state.db", machine.boot()).file
    yield Past(tmp_path / "state.db", store)
    store.close()


def a_night(past: Past) -> None:
    """Anna broke an hour ago, Bo is disconnected, Di well and fresh; nobody ever saw Cy."""
    past.keep(
        Told(ANNA, START, Status.SYNCED),
        Told(BO, START, Status.DISCONNECTED),
        Told(DI, START, Status.SYNCED),
        Told(ANNA, NOW - HOUR, Status.ERROR, REVOKED),
        *(Told(each, NOW - MINUTE, word, why) for each, word, why in LAST),
    )


LAST: Final = (
    (ANNA, Status.ERROR, REVOKED),
    (BO, Status.DISCONNECTED, None),
    (DI, Status.SYNCED, None),
)


def test_the_worst_comes_first(past: Past) -> None:
    a_night(past)
    assert past.status().splitlines() == [
        "status                    for  last answer  connection",
        "ERROR TOKEN_REVOKED       1h   1m ago       downtown/anna",
        "DISCONNECTED              1d   1m ago       downtown/name-2",
        "(no successful poll yet)                    downtown/name-3",
        "SYNCED                    1d   1m ago       uptown/name-4",
    ]


def test_what_is_no_longer_configured_is_not_shown(past: Past) -> None:
    a_night(past)
    past.watched = (DI,)
    assert "anna" not in past.status()
    assert "uptown/name-4" in past.status()


def test_stale_is_said_and_comes_before_what_is_fresh(past: Past) -> None:
    a_night(past)
    past.keep(Told(DI, NOW + HOUR, Status.SYNCED))
    past.watched = (BO, DI)
    past.keep(Told(BO, NOW, Status.SYNCED))
    lines = past.status(now=NOW + HOUR).splitlines()[1:]
    assert [line.split("  ")[0] for line in lines] == ["SYNCED (stale)", "SYNCED"]


@pytest.mark.parametrize(
    ("age", "stale"), [(timedelta(seconds=210), False), (timedelta(seconds=210, microseconds=1), True)]
)
def test_stale_allows_for_what_the_store_does_not_know_yet(
    past: Past, age: timedelta, *, stale: bool
) -> None:
    past.keep(Told(ANNA, START, Status.SYNCED))
    told = past.status_json(START + age)["anna"]
    assert (told["stale"], told["healthy"]) == (stale, None if stale else True)


def test_a_status_as_json_has_rfc_3339_times_and_no_health_where_nothing_is_known(past: Past) -> None:
    a_night(past)
    told = past.status_json()
    assert told["anna"] == {
        "site": "downtown",
        "connection": "anna",
        "connection_id": "id-1",
        "calendar_type": "UNDEFINED",
        "status": "ERROR",
        "reason": "TOKEN_REVOKED",
        "healthy": False,
        "stale": False,
        "since": "2026-07-01T23:00:00.000Z",
        "last_success": "2026-07-01T23:59:00.000Z",
        "transitions": 1,
    }
    assert (told["name-3"]["status"], told["name-3"]["healthy"], told["name-3"]["stale"]) == (
        None,
        None,
        True,
    )


def test_a_connection_that_was_only_failed_to_be_asked_is_shown_as_never_seen(past: Past) -> None:
    past.store.commit([Booking(ANNA, ConnectionState(watched_since=NOW, last_poll_at=NOW))], ())
    past.watched = (ANNA,)
    assert "(no successful poll yet)" in past.status()
    told = past.status_json()["anna"]
    assert (told["healthy"], told["stale"], told["since"]) == (None, False, None)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(site="uptown"), ["uptown/name-4"]),
        (Wanted(status="ERROR"), ["downtown/anna"]),
        (Wanted(site="downtown", status="DISCONNECTED"), ["downtown/name-2"]),
    ],
)
def test_a_status_can_be_asked_by_site_and_by_word(past: Past, wanted: Wanted, names: list[str]) -> None:
    a_night(past)
    assert [line.split()[-1] for line in past.status(wanted).splitlines()[1:]] == names


def test_nothing_found_is_said_and_is_an_empty_array_in_json(past: Past) -> None:
    assert past.status(Wanted(site="none")) == "No configured connection matches."
    assert past.history() == "Nothing changed."
    assert past.summary(START, Output.TABLE) == "Nothing is known of that time."
    assert past.history(output=Output.JSON) == past.summary(START, Output.JSON) == "[]"


def test_changes_are_told_newest_first_with_what_they_lasted(past: Past) -> None:
    past.keep(
        Told(ANNA, START, Status.SYNCED),
        Told(ANNA, START + MINUTE, Status.ERROR, REVOKED),
        Told(ANNA, START + 3 * MINUTE, Status.SYNCED),
    )
    assert past.history().splitlines() == [
        "seen at (UTC)        connection     status               lasted         was",
        "2026-07-01 00:03:00  downtown/anna  SYNCED               23h57m so far  ERROR TOKEN_REVOKED",
        "2026-07-01 00:01:00  downtown/anna  ERROR TOKEN_REVOKED  2m             SYNCED",
        "2026-07-01 00:00:00  downtown/anna  SYNCED               1m             (first seen)",
    ]


def test_a_late_change_is_marked_and_the_mark_is_told(past: Past) -> None:
    past.keep(Told(ANNA, START, Status.SYNCED), Told(ANNA, START + HOUR, Status.DISCONNECTED))
    _, late, first, mark = past.history().splitlines()
    assert late.startswith("2026-07-01 01:00:00~  downtown/anna  DISCONNECTED")
    assert first.startswith("2026-07-01 00:00:00   downtown/anna  SYNCED")
    assert mark.startswith("~ seen late: not_before in --format=json")


def test_only_so_many_changes_are_told(past: Past) -> None:
    a_night(past)
    assert len(json.loads(past.history(limit=2, output=Output.JSON))) == 2


def test_a_status_that_began_before_is_no_change_of_the_window(past: Past) -> None:
    a_night(past)
    assert len(json.loads(past.history(Wanted(since=NOW - 2 * HOUR), output=Output.JSON))) == 1


def test_a_change_as_json(past: Past) -> None:
    past.keep(Told(ANNA, START, Status.SYNCED), Told(ANNA, START + HOUR, Status.ERROR, REVOKED))
    newest, first = json.loads(past.history(output=Output.JSON))
    assert len(newest.pop("transition_id")) == 16
    assert newest == {
        "site": "downtown",
        "connection": "anna",
        "connection_id": "id-1",
        "from_status": "SYNCED",
        "from_reason": None,
        "to_status": "ERROR",
        "to_reason": "TOKEN_REVOKED",
        "healthy": False,
        "observed_at": "2026-07-01T01:00:00.000Z",
        "not_before": "2026-07-01T00:00:00.000Z",
        "until": None,
        "lasted_seconds": 82800.0,
    }
    assert (first["from_status"], first["until"]) == (None, "2026-07-01T01:00:00.000Z")


def test_a_connection_that_left_the_configuration_lasts_no_longer_than_it_was_watched(past: Past) -> None:
    past.keep(Told(ANNA, NOW - HOUR, Status.ERROR, REVOKED))  # kept at NOW
    past.watched = (BO,)
    later = NOW + 5 * HOUR
    assert past.history().splitlines()[1].endswith("  1h      (first seen)")
    [total] = json.loads(past.summary(NOW - 2 * HOUR, Output.JSON, later))
    assert total["unhealthy_seconds"] == 3600.0
    assert past.summary(NOW + HOUR, Output.JSON, later) == "[]"


def test_a_clock_that_was_set_back_makes_nothing_negative(past: Past) -> None:
    past.keep(Told(ANNA, NOW + HOUR, Status.SYNCED), Told(ANNA, START, Status.DISCONNECTED))
    past.keep(Told(BO, NOW + HOUR, Status.DISCONNECTED))
    lasted = [each["lasted_seconds"] for each in json.loads(past.history(output=Output.JSON))]
    assert lasted == [0.0, 0.0, 86400.0]
    assert "-" not in past.status().replace("name-", "")


def test_a_summary_counts_incidents_and_time_the_worst_first(past: Past) -> None:
    a_night(past)
    assert past.summary(NOW - 2 * HOUR, Output.TABLE).splitlines() == [
        "connection       incidents  unhealthy  time in each status",
        "downtown/name-2          0         2h  DISCONNECTED 2h",
        "downtown/anna            1         1h  ERROR 1h, SYNCED 1h",
        "uptown/name-4            0         0s  SYNCED 2h",
    ]


def test_a_summary_as_json(past: Past) -> None:
    a_night(past)
    assert json.loads(past.summary(NOW - 2 * HOUR, Output.JSON))[1] == {
        "site": "downtown",
        "connection": "anna",
        "connection_id": "id-1",
        "incidents": 1,
        "unhealthy_seconds": 3600.0,
        "seconds": {"ERROR": 3600.0, "SYNCED": 3600.0},
    }


@pytest.mark.parametrize("name", ["x" * 200, "安娜" * 100, "חנה-" * 50])
def test_tables_fit_a_terminal_of_80_columns_and_keep_their_times(past: Past, name: str) -> None:
    long = msgspec.structs.replace(ANNA, name=name)
    past.watched = (long, BO)
    past.keep(
        Told(long, START, Status.ERROR, ErrorReason.EXTERNAL_CALENDAR_CREATION_FAILED),
        Told(long, START + HOUR, Status.ERROR, ErrorReason.EXTERNAL_CALENDAR_DELETED),
    )
    told = [past.status(width=80), past.history(width=80)]
    assert max(cells(line) for line in "\n".join(told).splitlines()) <= 80
    assert told[1].splitlines()[1].startswith("2026-07-01 01:00:00~  downtow")
    assert "  23h so far  ERROR EXT" in told[1].splitlines()[1]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("7d", NOW - 7 * DAY),
        ("1h30m", NOW - 1.5 * HOUR),
        ("0s", NOW),
        ("2026-11-23T07:00:00Z", datetime(2026, 11, 23, 7, tzinfo=UTC)),
        ("2026-11-23T07:00:00.5+02:00", datetime(2026, 11, 23, 5, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_moment_is_an_age_or_a_time(text: str, moment: datetime) -> None:
    assert parse_moment(text, NOW) == moment
    assert parse_moment(text, NOW.astimezone(timezone(HOUR))) == moment


@pytest.mark.parametrize(
    "text",
    ["", "soon", "-7d", "7", "9000y", "2026-11-23T07:00:00", "2026-11-23", "2026-13-01T00:00:00Z",
     "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026-11-23T07:00:60Z"],
)  # fmt: skip
def test_anything_else_is_no_moment_and_the_message_shows_one(text: str) -> None:
    with pytest.raises(ValueError, match="is no moment; write an age such as 7d, or a time such as 2026"):
        parse_moment(text, NOW)
