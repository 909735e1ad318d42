"""`status` and `history`: the morning-after questions, answered from the store as tables or JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, Final

from monitor.config import Settings
from monitor.core.model import Connection, Status
from monitor.durations import format_age, parse_duration
from monitor.logs import rfc3339_or_none
from monitor.store.reading import Chapter, Present, Reader, Sum, Wanted, sums
from monitor.tables import table

_LONGEST_CHECKPOINT: Final = timedelta(seconds=30)  # freshness in the store is this much older at most
_NEVER_SEEN: Final = "(no successful poll yet)"
_LATE: Final = "~ seen late: not_before in --format=json says since when it can have been so"
_ALARMING: Final = (Status.ERROR, Status.NOT_FOUND)


class Output(StrEnum):
    """What is printed."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class _Line:
    """One connection of the configuration, and what the store knows of it."""

    connection: Connection
    known: Present | None
    now: datetime

    @property
    def status(self) -> str | None:
        return None if self.known is None else self.known.status

    @property
    def stale(self) -> bool:
        if self.known is None:
            return True
        policy = self.connection.policy
        every = policy.every(self.known.status, self.known.since, self.now)
        window = policy.stale_window * every + min(policy.interval, _LONGEST_CHECKPOINT)
        return self.now - (self.known.last_success_at or self.known.watched_since) > window

    @property
    def badness(self) -> int:
        if self.known is None or self.known.status is None:
            return 2
        if not self.known.healthy:
            return 0 if self.known.status in _ALARMING else 1
        return 3 if self.stale else 4


def parse_moment(text: str, now: datetime) -> datetime:
    """Read a moment: an age such as 7d, or RFC 3339. Raises ValueError, saying what to write instead."""
    with suppress(ValueError, OverflowError):
        return now - parse_duration(text)
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    told = f"{text!r} is no moment; write an age such as 7d, or a time such as 2026-11-23T07:00:00Z"
    raise ValueError(told)


def status_report(
    settings: Settings, reader: Reader, wanted: Wanted, output: Output, now: datetime, width: int | None
) -> str:
    """Every configured connection wanted, the worst first, as the store knows it."""
    known = {(each.site, each.connection_id): each for each in reader.present()}
    lines = [
        _Line(each, known.get((each.site, each.id)), now)
        for site in settings.sites
        for each in site.connections
        if wanted.site in (None, each.site)
    ]
    lines = [line for line in lines if wanted.status in (None, line.status)]
    lines.sort(key=_worst_first)
    if output is Output.JSON:
        return json.dumps([_status_json(line) for line in lines], indent=2)
    if not lines:
        return "No configured connection matches."
    rows = [_status_row(line) for line in lines]
    return table(
        ("status", "for", "last answer", "connection"), rows, whole=("for", "last answer"), width=width
    )


def ended(chapters: Iterable[Chapter], settings: Settings) -> Iterator[Chapter]:
    """The chapters, of which those of connections that were taken out of the configuration last no more."""
    watched = {(each.site, each.id) for site in settings.sites for each in site.connections}
    for each in chapters:
        if each.until is None and each.kept_at and (each.site, each.connection_id) not in watched:
            yield replace(each, until=max(each.kept_at, each.since))
        else:
            yield each


def history_report(
    chapters: Iterable[Chapter], limit: int | None, output: Output, now: datetime, width: int | None
) -> str:
    """Changes, newest first, and how long what they led to lasted."""
    newest = list(islice(chapters, limit))
    if output is Output.JSON:
        return json.dumps([_chapter_json(each, now) for each in newest], indent=2)
    if not newest:
        return "Nothing changed."
    head = ("seen at (UTC)", "connection", "status", "lasted", "was")
    rows = [_chapter_row(each, now) for each in newest]
    told = table(head, rows, whole=("seen at (UTC)", "lasted"), width=width)
    return f"{told}\n{_LATE}" if any(each.not_before for each in newest) else told


def summary_report(
    chapters: Iterable[Chapter], begin: datetime, now: datetime, output: Output, width: int | None
) -> str:
    """Per connection, over a window: incidents, time unhealthy, and the time in each status."""
    found = sums(chapters, begin, now)
    if output is Output.JSON:
        return json.dumps([_sum_json(each) for each in found], indent=2)
    if not found:
        return "Nothing is known of that time."
    head = ("connection", "incidents", "unhealthy", "time in each status")
    rows = [_sum_row(each) for each in found]
    figures = ("incidents", "unhealthy")
    return table(head, rows, right=figures, whole=figures, width=width)


def _worst_first(line: _Line) -> tuple[int, float, str, str]:
    since = line.known.since.timestamp() if line.known is not None and line.known.since is not None else 0.0
    return line.badness, since, line.connection.site, line.connection.name


def _status_row(line: _Line) -> Sequence[str]:
    known = line.known
    name = f"{line.connection.site}/{line.connection.name}"
    if known is None or known.status is None:
        return (_NEVER_SEEN, "", "", name)
    told = _words(known.status, known.reason) + (" (stale)" if line.stale else "")
    return (told, _age(known.since, line.now), f"{_age(known.last_success_at, line.now)} ago", name)


def _status_json(line: _Line) -> dict[str, Any]:
    known = line.known
    return {
        "site": line.connection.site,
        "connection": line.connection.name,
        "connection_id": line.connection.id,
        "calendar_type": known.calendar_type if known is not None else None,
        "status": line.status,
        "reason": known.reason if known is not None else None,
        "healthy": None if known is None or known.status is None or line.stale else known.healthy,
        "stale": line.stale,
        "since": rfc3339_or_none(known.since) if known is not None else None,
        "last_success": rfc3339_or_none(known.last_success_at) if known is not None else None,
        "transitions": known.transitions if known is not None else 0,
    }


def _chapter_row(chapter: Chapter, now: datetime) -> Sequence[str]:
    lasted = format_age((chapter.until or now) - chapter.since) + ("" if chapter.until else " so far")
    return (
        f"{chapter.since:%Y-%m-%d %H:%M:%S}{'~' if chapter.not_before else ''}",
        f"{chapter.site}/{chapter.connection}",
        _words(chapter.status, chapter.reason),
        lasted,
        _words(chapter.from_status, chapter.from_reason) if chapter.from_status else "(first seen)",
    )


def _chapter_json(chapter: Chapter, now: datetime) -> dict[str, Any]:
    lasted = (chapter.until or now) - chapter.since
    return {**chapter.document(), "lasted_seconds": max(lasted.total_seconds(), 0.0)}


def _sum_row(total: Sum) -> Sequence[str]:
    spent = sorted(total.spent.items(), key=lambda each: -each[1])
    told = ", ".join(f"{status} {format_age(time)}" for status, time in spent)
    return (f"{total.site}/{total.connection}", str(total.incidents), format_age(total.unhealthy), told)


def _sum_json(total: Sum) -> dict[str, Any]:
    return {
        "site": total.site,
        "connection": total.connection,
        "connection_id": total.connection_id,
        "incidents": total.incidents,
        "unhealthy_seconds": total.unhealthy.total_seconds(),
        "seconds": {status: time.total_seconds() for status, time in total.spent.items()},
    }


def _words(status: str, reason: str | None) -> str:
    return f"{status} {reason}" if reason else status


def _age(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else format_age(now - moment)
