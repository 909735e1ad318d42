"""A connection's past as a picture: where in a window it was well, unwell or unknown to us.

A window is as many columns wide as it is drawn; a column shows the worst of what lies in it, so that no
short trouble is lost however long the window is, and the picture has an upper size.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final, NamedTuple

from monitor.store.reading import Chapter
from monitor.web.words import span_of

COLUMNS: Final = 360

WINDOWS: Final = (
    ("24 hours", timedelta(hours=24), timedelta(hours=6), "%H:%M"),
    ("7 days", timedelta(days=7), timedelta(days=1), "%a %d"),
    ("30 days", timedelta(days=30), timedelta(days=5), "%d %b"),
)
"""Their names, lengths, the steps of their scales and how a step is written."""

_UNSEEN: Final = 0.01  # part of a window that may be unknown without a word
_UNKNOWN, _WELL, _BAD = range(3)
_KINDS: Final = ("unknown", "well", "bad")


class Span(NamedTuple):
    """A status from then to then."""

    since: datetime
    until: datetime
    kind: int
    told: str


class Bar(NamedTuple):
    """Columns that look alike, and what to say of them."""

    left: int
    width: int
    kind: str
    told: str


class Timeline(NamedTuple):
    """One window, drawn; `summary` says in words what the picture shows."""

    name: str
    bars: Sequence[Bar]
    marks: Sequence[str]
    summary: str


def spans_of(chapters: Sequence[Chapter], known_until: datetime, now: datetime) -> list[Span]:
    """The chapters, newest first, as spans, oldest first; what came after `known_until` is unknown."""
    spans = []
    for each in reversed(chapters):
        until = min(each.until or now, now)
        told = f"{each.status} {each.reason}" if each.reason else each.status
        if each.until is None and known_until < until:
            end = max(known_until, each.since)
            spans += [Span(each.since, end, _BAD - each.healthy, told), Span(end, until, _UNKNOWN, "stale")]
        else:
            spans.append(Span(each.since, until, _BAD - each.healthy, told))
    return spans


def draw(spans: Sequence[Span], now: datetime) -> list[Timeline]:
    """All windows that end now."""
    return [_window(spans, now - length, now, name, step, form) for name, length, step, form in WINDOWS]


def _window(
    spans: Sequence[Span], begin: datetime, end: datetime, name: str, step: timedelta, form: str
) -> Timeline:
    within = [each for each in spans if each.until > begin and each.since < end]
    marks = [f"{begin + n * step:{form}}" for n in range(int((end - begin) / step))]
    return Timeline(name, _bars(within, begin, end), marks, _summary(within, begin, end))


def _bars(spans: Sequence[Span], begin: datetime, end: datetime) -> list[Bar]:
    columns: list[tuple[int, str]] = [(_UNKNOWN, "")] * COLUMNS
    for each in spans:
        first = max(int((each.since - begin) / (end - begin) * COLUMNS), 0)
        last = min(int((each.until - begin) / (end - begin) * COLUMNS), COLUMNS - 1)
        told = f"{each.told}, {each.since:%Y-%m-%d %H:%M} to {each.until:%Y-%m-%d %H:%M}"
        for at in range(first, last + 1):
            if each.kind >= columns[at][0] or not columns[at][1]:
                columns[at] = (each.kind, told)
    bars, left = [], 0
    for (kind, told), those in groupby(columns):
        width = len(list(those))
        bars.append(Bar(left, width, _KINDS[kind], told or "not known"))
        left += width
    return bars


def _summary(spans: Sequence[Span], begin: datetime, end: datetime) -> str:
    """In words."""
    bad = [each for each in spans if each.kind == _BAD]
    known = sum((_within(each, begin, end) for each in spans if each.kind != _UNKNOWN), timedelta())
    if not known:
        return "nothing is known of this time"
    unwell = sum((_within(each, begin, end) for each in bad), timedelta())
    times = sum(
        1
        for before, each in zip([None, *spans], spans, strict=False)
        if each.kind == _BAD and (before is None or before.kind != _BAD)
    )
    told = (
        f"unwell {times} time{'' if times == 1 else 's'}, {span_of(unwell)} in all" if bad else "never unwell"
    )
    blind = end - begin - known
    return f"{told}; {span_of(blind)} not known" if blind > _UNSEEN * (end - begin) else told


def _within(span: Span, begin: datetime, end: datetime) -> timedelta:
    return max(min(span.until, end) - max(span.since, begin), timedelta())
