"""Moments, spans and people as the page says them."""

from datetime import datetime, timedelta
from typing import Final

from monitor.core.model import HEALTHY_BY_DEFAULT
from monitor.view.index import UNSEEN
from monitor.view.moves import Move

_UNITS: Final = (
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("min", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
)
_NEAR: Final = timedelta(days=6)

_PEOPLE: Final = {
    "owner": "the calendar's owner",
    "team": "the site's team",
    "operator": "the monitor's operator",
    "site owner": "the site's owner",
}


def span_of(span: timedelta) -> str:
    """A span by its two largest units: `47 min`, `3 d 4 h`; seconds only where there is nothing larger."""
    rest = max(span, timedelta())
    parts: list[str] = []
    for unit, length in _UNITS:
        n, rest = divmod(rest, length)
        if n and not (parts and unit == "s"):
            parts.append(f"{n} {unit}")
    return " ".join(parts[:2]) or "0 s"


def moment_of(moment: datetime, now: datetime) -> str:
    """A moment: `02:13` today, `Tue 02:13` within the week, else its date."""
    if moment.date() == now.date():
        return f"{moment:%H:%M}"
    return f"{moment:%a %H:%M}" if abs(now - moment) < _NEAR else f"{moment:%Y-%m-%d}"


def who_of(move: Move, team: str = "") -> str:
    """Who acts, in words."""
    return f"team {team}" if move.who == "team" and team else _PEOPLE[move.who]


def kind_of(status: str) -> str:
    """How a status is shown by itself."""
    if status == UNSEEN:
        return "unknown"
    return "well" if status in HEALTHY_BY_DEFAULT else "bad"


def status_of(status: str) -> str:
    """A status as words that may wrap."""
    return status.replace("_", " ").capitalize() if status == UNSEEN else status
