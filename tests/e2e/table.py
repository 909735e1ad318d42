"""What monitor/wix/README.md promises to operators, read from its tables."""

import re
from pathlib import Path
from typing import Final, NamedTuple

import monitor.wix

README: Final = (Path(monitor.wix.__file__).parent / "README.md").read_text(encoding="utf-8")

_LOG: Final = re.compile(
    r"`(?P<event>\w+)`(?:: [^`]*`(?P<detail>[^`]+)`)?(?:.*`wait_seconds` (?P<wait>\d+))?"
)


class Row(NamedTuple):
    """One way to go wrong, as the table has it. `down` is "no", "at once" or after a row of failures."""

    happens: str
    reason: str | None
    statuses: frozenset[int | None]
    down: str
    event: str
    detail: str | None
    wait_seconds: float | None


def table(head: str) -> list[list[str]]:
    """The cells of the table whose head is this."""
    after = README.split(f"\n{head}\n")[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in after.splitlines()[1:]]


def word(cell: str) -> str | None:
    """What stands in a cell; None for "none"."""
    return None if cell == "none" else cell.strip("`")


def _row(happens: str, reason: str, statuses: str, down: str, log: str) -> Row:
    told = _LOG.match(log)
    wait = told["wait"] if told is not None else None
    return Row(
        happens=happens,
        reason=word(reason),
        statuses=frozenset(None if text == "none" else int(text) for text in statuses.split(", ")),
        down=down,
        event=told["event"] if told is not None else "",
        detail=told["detail"] if told is not None else None,
        wait_seconds=float(wait) if wait is not None else None,
    )


ROWS: Final = [
    _row(*cells)
    for cells in table("| what happens | `reason` | HTTP status | takes the site down | what the log says |")
]
MOVES: Final = table("| `reason` | whose move | what to do |")
RULE: Final = table("| what comes of asking | `reason` | for the breaker |")
METRICS: Final = table("| family | while it lasts |")
