"""A long configuration in pieces: its head, each entry of its list of sites, and what follows them.

A reload reads again only the pieces that have changed. That is sound because a block of YAML that reads by
itself as one entry of a list reads as the same entry where it stands: an entry ends before a line that is
indented no deeper than its dash, unless a quotation or a bracket is open, and then it does not read by
itself. What could be otherwise (marks of documents, anchors, unusual ends of lines) is not cut, and whatever
is wrong with a piece is told by reading the file whole.
"""

import re
from itertools import accumulate
from typing import Any, Final

from monitor.config.document import Loc, read_alone, read_lines

LISTED: Final = "sites"
"""The key of the list that is cut."""

_BEGIN: Final = re.compile(rf"^{LISTED}:[ \t]*(?:#.*)?\r?\n(?:[ \t]*(?:#.*)?\r?\n)*( *)- ", re.MULTILINE)
_KEY: Final = re.compile(r"[A-Za-z_]")  # a tag, a brace or a byte order mark is another thing at a beginning
_UNUSUAL: Final = ("\n...", "\n---", "\n%", "\x85", "\u2028", "\u2029")


class Pieces:
    """A text that was cut; `entries` are texts, each a list of one.

    `entries` keep their dash and its indentation.
    """

    def __init__(self, head: str, entries: list[str], tail: str) -> None:
        self.entries = entries
        self._head = head
        self._tail = tail
        self._begins = list(accumulate((each.count("\n") for each in entries), initial=head.count("\n")))

    def around(self) -> dict[str, Any] | None:
        """What stands around the list, which is None in it; None where that cannot be told by itself."""
        head = read_alone(self._head)
        tail = read_alone(self._tail) if self._tail else {}
        if not isinstance(head, dict) or not isinstance(tail, dict) or head.keys() & tail.keys():
            return None
        is_last = bool(head) and [*head][-1] == LISTED and head[LISTED] is None
        return head | tail if is_last else None

    def lines(self, loc: Loc) -> tuple[dict[Loc, int], Loc, int]:
        """The lines of the piece that a place is in, the place within it, and the lines before it."""
        if len(loc) > 1 and loc[0] == LISTED:
            number = int(loc[1])
            return read_lines(self.entries[number]), (0, *loc[2:]), self._begins[number]
        blank = "\n" * (self._begins[-1] - self._begins[0])
        return read_lines(f"{self._head}{blank}{self._tail}"), loc, 0


def cut(text: str) -> Pieces | None:
    """The pieces of a configuration; None where it does not lend itself to being cut."""
    begin = _BEGIN.search(text)
    if begin is None or any(mark in text for mark in _UNUSUAL) or text.count("\r") != text.count("\r\n"):
        return None
    dash = f"{begin.group(1)}- "
    first, *others = text[begin.start(1) :].split(f"\n{dash}")
    entries = [f"{first}\n", *(f"{dash}{each}\n" for each in others)]
    end = re.compile(rf"^(?!{dash})[^ #\r\n]", re.MULTILINE).search(entries[-1])
    tail = ""
    if end is not None:
        entries[-1], tail = entries[-1][: end.start()], entries[-1][end.start() :]
        if _KEY.match(tail) is None:
            return None
    return Pieces(text[: begin.start(1)], entries, tail)
