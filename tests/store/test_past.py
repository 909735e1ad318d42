"""The past, whichever engine keeps it: read beside who writes it, narrowed, summed up, page by page."""

from datetime import datetime, timedelta
from typing import Final

import msgspec
import pytest

from monitor.core.model import ConnectionState
from monitor.errors import StoreUnreadableError
from monitor.store import Booking
from monitor.store.reading import Chapter, Wanted, sums
from tests.store.engines import Book
from tests.store.samples import ANNA, MINUTE, START
from tests.store.stories import HOUR, STORY, statuses

ALL: Final = Wanted()


def seen(book: Book, wanted: Wanted = ALL) -> list[Chapter]:
    with book.reading() as reader:
        return list(reader.seen(wanted))


def held(book: Book, wanted: Wanted) -> list[Chapter]:
    with book.reading() as reader:
        return list(reader.held(wanted))


def test_what_was_committed_is_read_while_the_writer_has_the_file(book: Book) -> None:
    book.keep(STORY)
    assert statuses(seen(book)) == [
        ("anna", "SYNCED"),
        ("anna", "ERROR"),
        ("anna", "ERROR"),
        ("name-2", "DISCONNECTED"),
        ("anna", "SYNCED"),
    ]


def test_a_reader_in_the_middle_keeps_its_view_and_does_not_stop_the_writer(book: Book) -> None:
    book.keep(STORY[:3])
    with book.reading() as reader:
        chapters = reader.seen(Wanted())
        next(chapters)
        book.keep(STORY[3:])
        assert len(list(chapters)) == 2
        assert len(list(reader.seen(Wanted()))) == 5


def test_each_status_lasts_until_the_next_of_the_same_connection(book: Book) -> None:
    book.keep(STORY)
    lasted = {each.transition_id: each.until and each.until - each.since for each in seen(book)}
    assert list(lasted.values()) == [None, 3 * HOUR, HOUR, None, HOUR]


def test_the_present_is_the_last_state_of_every_connection(book: Book) -> None:
    book.keep(STORY)
    with book.reading() as reader:
        present = {each.connection: each for each in reader.present()}
    assert present["anna"].status == "SYNCED"
    assert present["anna"].since == START + 5 * HOUR
    assert present["anna"].transitions == 3
    assert (present["name-2"].status, present["name-2"].healthy) == ("DISCONNECTED", False)


@pytest.mark.parametrize(
    ("wanted", "hours"),
    [
        (Wanted(site="downtown"), [5, 2, 1, 0]),
        (Wanted(connection_id="id-1"), [5, 2, 1, 0]),
        (Wanted(site="downtown", connection="anna"), [5, 2, 1, 0]),
        (Wanted(site="uptown", connection="anna"), []),
        (Wanted(site="downtown", status="ERROR"), [2, 1]),
        (Wanted(site="downtown", since=START + HOUR), [5, 2, 1]),
        (Wanted(site="downtown", until=START + HOUR), [0]),
        (Wanted(site="none"), []),
    ],
)
def test_what_is_wanted_is_read(book: Book, wanted: Wanted, hours: list[int]) -> None:
    book.keep(STORY)
    assert [(each.since - START) / HOUR for each in seen(book, wanted)] == hours


def test_any_name_that_a_connection_bore_finds_all_of_its_past(book: Book) -> None:
    book.keep(STORY[:3])
    renamed = msgspec.structs.replace(ANNA, name="anna-google")
    book.keep([told._replace(connection=renamed) for told in STORY[3:]])
    for name in ("anna", "anna-google"):
        chapters = seen(book, Wanted(site="downtown", connection=name))
        assert [each.connection for each in chapters] == ["anna-google", "anna-google", "anna", "anna"]
        assert [each.until is None for each in chapters] == [True, False, False, False]


def test_what_held_when_the_window_began_is_held_in_it(book: Book) -> None:
    book.keep(STORY)
    window = Wanted(site="downtown", since=START + 3 * HOUR, until=START + 4 * HOUR)
    assert seen(book, window) == []
    [chapter] = held(book, window)
    assert chapter.reason == "EXTERNAL_CALENDAR_DELETED"


def test_a_fall_from_health_is_one_incident_however_often_its_reason_changes(book: Book) -> None:
    book.keep(STORY)
    begin, end = START - HOUR, START + 10 * HOUR
    anna, bo = sorted(sums(held(book, Wanted(since=begin, until=end)), begin, end), key=lambda s: s.site)
    assert (anna.incidents, anna.unhealthy) == (1, 4 * HOUR)
    assert anna.spent == {"SYNCED": 6 * HOUR, "ERROR": 4 * HOUR}
    assert (bo.incidents, bo.unhealthy) == (1, 10 * HOUR - MINUTE)


def test_what_fell_before_the_window_is_unhealthy_in_it_and_no_incident_of_it(book: Book) -> None:
    book.keep(STORY)
    begin, end = START + 3 * HOUR, START + 6 * HOUR
    first, second = sums(held(book, Wanted(since=begin)), begin, end)
    assert (first.site, first.incidents, first.unhealthy) == ("uptown", 0, 3 * HOUR)
    assert (second.site, second.incidents, second.unhealthy) == ("downtown", 0, 2 * HOUR)


def test_a_fall_whose_past_was_forgotten_is_judged_by_its_word(book: Book) -> None:
    book.keep(STORY)
    book.execute("DELETE FROM transition WHERE observed_at < (SELECT MAX(observed_at) FROM transition)")
    book.execute("UPDATE transition SET healthy = FALSE, from_status = 'ERROR'")
    assert [each.was_healthy for each in seen(book)] == [False]


def test_a_chapter_counts_only_within_the_window(book: Book) -> None:
    book.keep(STORY)
    last: Chapter = seen(book, Wanted(site="downtown"))[0]

    def within(begin: datetime, end: datetime) -> timedelta:
        return last.within(begin, end)

    assert within(START, START + HOUR) == timedelta()
    assert within(START, START + 6 * HOUR) == HOUR
    assert within(START + 7 * HOUR, START + 9 * HOUR) == 2 * HOUR


def test_a_reader_reads_connections_never_seen(book: Book) -> None:
    book.commit([Booking(ANNA, ConnectionState(watched_since=START))], ())
    with book.reading() as reader:
        [present] = reader.present()
    assert (present.status, present.last_success_at, present.watched_since) == (None, None, START)


# Page by page, as the API asks


def test_changes_are_read_page_by_page_newest_first(book: Book) -> None:
    book.keep(STORY)
    with book.reading() as reader:
        first = reader.changes(ALL, 3)
        rest = reader.changes(ALL, 3, before=first[-1][0])
        assert [chapter for _, chapter in (*first, *rest)] == list(reader.seen(ALL))
        assert reader.changes(ALL, 3, before=rest[-1][0]) == []


def test_changes_are_narrowed_by_all_that_is_wanted(book: Book) -> None:
    book.keep(STORY)
    for wanted in (
        Wanted(site="downtown"),
        Wanted(site="downtown", connection="anna"),
        Wanted(site="downtown", connection_id="id-1", status="ERROR"),
        Wanted(since=START + HOUR, until=START + 5 * HOUR),
        Wanted(site="nowhere"),
    ):
        with book.reading() as reader:
            found = [chapter for _, chapter in reader.changes(wanted, 10)]
            assert found == list(reader.seen(wanted))


def test_a_question_that_takes_too_long_is_given_up(book: Book) -> None:
    book.keep(STORY)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    with (
        pytest.raises(StoreUnreadableError, match=r"interrupted|in time"),
        book.reading(seconds=0.05) as reader,
    ):
        next(reader._ask(endless, {}))
