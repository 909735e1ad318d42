"""Aligned plain-text tables that fit a terminal."""

from collections.abc import Sequence

_GAP = "  "
_SHORTEST = 8


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), width: int | None = None
) -> str:
    """The rows under their head; the columns named in `right` are set to the right.

    Where a `width` is given and the table is wider, its widest columns are cut, marked by an ellipsis.
    """
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    if width is not None:
        _narrow(widths, width - len(_GAP) * (len(head) - 1))
    return "\n".join(_GAP.join(_cells(head, line, widths, right)).rstrip() for line in lines)


def _narrow(widths: list[int], room: int) -> None:
    while sum(widths) > room and max(widths) > _SHORTEST:
        widest = widths.index(max(widths))
        widths[widest] -= 1


def _cells(head: Sequence[str], line: Sequence[str], widths: list[int], right: Sequence[str]) -> list[str]:
    cells = []
    for name, text, width in zip(head, line, widths, strict=True):
        shown = text if len(text) <= width else text[: width - 1] + "…"
        cells.append(shown.rjust(width) if name in right else shown.ljust(width))
    return cells
