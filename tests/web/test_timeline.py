"""The picture of a connection's past."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from monitor.store.reading import Chapter
from monitor.web.timeline import COLUMNS, draw, spans_of
from tests.view.scene import NOW

HOUR = timedelta(hours=1)


def lived(*story: tuple[timedelta, str, bool]) -> list[Chapter]:
    """Chapters that began so long ago, newest first."""
    begun = [NOW - ago for ago, _, _ in story]
    made = [
        Chapter(
            site="downtown",
            connection="anna",
            connection_id="id-anna",
            from_status=None,
            from_reason=None,
            status=status,
            reason=None,
            healthy=healthy,
            was_healthy=True,
            since=since,
            until=until,
            not_before=None,
            kept_at=NOW,
            transition_id=str(since),
        )
        for since, until, (_, status, healthy) in zip(begun, [*begun, None][1:], story, strict=True)
    ]
    return made[::-1]


def drawn(chapters: list[Chapter], known_until: datetime = NOW) -> list[list[tuple[str, int]]]:
    lines = draw(spans_of(chapters, known_until, NOW), NOW)
    return [[(bar.kind, bar.width) for bar in line.bars] for line in lines]


def test_what_was_before_the_first_sight_is_not_known() -> None:
    day, week, month = drawn(lived((12 * HOUR, "SYNCED", True)))
    assert day == [("unknown", 180), ("well", 180)]
    assert week == [("unknown", 334), ("well", 26)]
    assert month == [("unknown", 354), ("well", 6)]


def test_a_short_trouble_is_seen_in_the_longest_window() -> None:
    story = lived((900 * HOUR, "SYNCED", True), (400 * HOUR, "ERROR", False), (399.99 * HOUR, "SYNCED", True))
    assert drawn(story)[2] == [("well", 160), ("bad", 1), ("well", 199)]


def test_what_is_stale_is_not_known() -> None:
    day = drawn(lived((900 * HOUR, "SYNCED", True)), known_until=NOW - 6 * HOUR)[0]
    assert day == [("well", 271), ("unknown", 89)]


def test_a_window_is_told_in_words() -> None:
    story = lived((900 * HOUR, "SYNCED", True), (8 * HOUR, "ERROR", False), (2 * HOUR, "SYNCED", True))
    lines = draw(spans_of(story, NOW, NOW), NOW)
    assert lines[0].summary == "unwell 1 time, 6 h in all"
    assert lines[0].marks == ["12:00", "18:00", "00:00", "06:00"]
    assert draw([], NOW)[1].summary == "nothing is known of this time"
    young = draw(spans_of(lived((HOUR, "SYNCED", True)), NOW, NOW), NOW)
    assert young[0].summary == "never unwell; 23 h not known"


@given(st.lists(st.tuples(st.integers(1, 1000), st.booleans()), max_size=60), st.integers(0, 1000))
def test_every_window_is_filled_and_has_an_upper_size(story: list[tuple[int, bool]], fresh: int) -> None:
    ages = sorted({ago for ago, _ in story}, reverse=True)
    chapters = lived(*((ago * HOUR, "SYNCED" if ago % 2 else "ERROR", bool(ago % 2)) for ago in ages))
    for line in drawn(chapters, NOW - fresh * HOUR):
        assert sum(width for _, width in line) == COLUMNS
        assert all(width > 0 for _, width in line)
