"""Aligned plain-text tables that fit a terminal."""

import unicodedata
from collections.abc import Sequence
from typing import Final

_GAP: Final = "  "
_SHORTEST: Final = 8
_NO_CELLS: Final = ("Mn", "Me", "Cf")  # combining marks and invisible signs


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """The rows under their head; the columns named in `right` are set to the right.

    Where a `width` is given and the table is wider, its widest columns are cut, marked by an ellipsis; never
    those named in `whole`, nor any below eight.
    """
    lines = [head, *rows]
    widths = [max(cells(line[column]) for line in lines) for column in range(len(head))]
    if width is not None:
        room = width - len(_GAP) * (len(head) - 1)
        _narrow(widths, [n for n, name in enumerate(head) if name not in whole], room)
    return "\n".join(_GAP.join(_aligned(head, line, widths, right)).rstrip() for line in lines)


def cells(text: str) -> int:
    """How many columns of a terminal a text takes: East Asian wide letters two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(letter: str) -> int:
    if unicodedata.category(letter) in _NO_CELLS:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _narrow(widths: list[int], cuttable: Sequence[int], room: int) -> None:
    while sum(widths) > room:
        widest = max(cuttable, key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= _SHORTEST:
            return
        widths[widest] -= 1


def _aligned(head: Sequence[str], line: Sequence[str], widths: list[int], right: Sequence[str]) -> list[str]:
    aligned = []
    for name, text, width in zip(head, line, widths, strict=True):
        shown = _cut(text, width)
        padding = " " * (width - cells(shown))
        aligned.append(padding + shown if name in right else shown + padding)
    return aligned


def _cut(text: str, width: int) -> str:
    if cells(text) <= width:
        return text
    kept = text[: width - 1]
    while cells(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…"
