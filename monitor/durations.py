"""Durations as Prometheus writes them: `90s`, `5m`, `1h30m`, `500ms`, `0`."""

import re
from datetime import timedelta
from typing import Final

_UNITS: Final = {
    "y": timedelta(days=365),
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_UNITS_OF_AN_AGE: Final = 2
_DURATION: Final = re.compile(
    r"(?:(?P<y>\d+)y)?(?:(?P<w>\d+)w)?(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?"
    r"(?:(?P<m>\d+)m(?!s))?(?:(?P<s>\d+)s)?(?:(?P<ms>\d+)ms)?",
    re.ASCII,
)


def parse_duration(text: str) -> timedelta:
    """Read a Prometheus duration: whole numbers with units, largest unit first.

    Raises ValueError where the text is no such duration; its message says what one looks like.
    Source: "Time durations" in the Prometheus documentation of its configuration file.
    """
    if text == "0":
        return timedelta()
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text!r} is not a duration; write for example 90s, 5m or 1h30m")
    try:
        return sum((_UNITS[unit] * int(n) for unit, n in match.groupdict().items() if n), timedelta())
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any duration can be") from None


def format_duration(span: timedelta) -> str:
    """Write a span the way parse_duration reads it, largest unit first; milliseconds are the finest."""
    rest = round(span / timedelta(milliseconds=1)) * timedelta(milliseconds=1)
    if rest < timedelta():
        return f"-{format_duration(-rest)}"
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        n, rest = divmod(rest, _UNITS[unit])
        if n:
            parts.append(f"{n}{unit}")
    return "".join(parts) or "0s"


def format_age(span: timedelta) -> str:
    """A span as people say it: its two largest units at most, whole seconds the finest."""
    parts = []
    rest = max(round(span / timedelta(seconds=1)), 0) * timedelta(seconds=1)
    for unit in ("d", "h", "m", "s"):
        n, rest = divmod(rest, _UNITS[unit])
        if n:
            parts.append(f"{n}{unit}")
        if len(parts) == _UNITS_OF_AN_AGE:
            break
    return "".join(parts) or "0s"
