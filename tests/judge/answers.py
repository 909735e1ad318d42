"""What the simulator told of each calendar: runs of equal answers, and which of them had to be noticed."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final

from tests.judge.evidence import Ask, Calendar, Evidence, Shown, Terms
from tests.judge.ownership import Ownership

_EVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Run:
    """The same told `asks` times in a row, until the first request that was told something else."""

    calendar: Calendar
    shown: Shown
    asks: Sequence[Ask]
    until: float

    @property
    def since(self) -> float:
        """When the first of its requests came."""
        return self.asks[0].arrived


class Answers:
    """All runs, and the judgement which of them count."""

    def __init__(self, evidence: Evidence, ownership: Ownership, terms: Terms) -> None:
        self._troubles = evidence.troubles
        self._ended = evidence.ended
        self._ownership = ownership
        self._terms = terms
        told: dict[Calendar, list[Ask]] = defaultdict(list)
        for ask in sorted(evidence.asks, key=lambda each: each.ended):
            if ask.told is not None:
                told[ask.calendar].append(ask)
        self._unit_of = evidence.unit_of
        self._by_node = _by_node(evidence.asks)
        self._runs = {calendar: list(_runs(calendar, asks)) for calendar, asks in told.items()}

    def __iter__(self) -> Iterator[Run]:
        """All runs, calendar by calendar."""
        for runs in self._runs.values():
            yield from runs

    def of(self, calendar: Calendar) -> Sequence[Run]:
        """A calendar's runs, in order."""
        return self._runs.get(calendar, ())

    def told_to(self, calendar: Calendar, node: str, moment: float) -> Shown | None:
        """What the last request of a node that came before this moment was told."""
        asks = self._by_node.get((calendar, node), [])
        place = bisect_right(asks, moment, key=lambda ask: ask.arrived)
        return asks[place - 1].told if place else None

    def is_due(self, run: Run) -> bool:
        """Whether nobody was disturbed in hearing it: it must have been noticed."""
        needed = self._terms.believed if run.shown[0] == "NOT_FOUND" else 1
        heard = groupby(run.asks, key=lambda ask: (ask.node, self._counts(ask)))
        return any(counts and len(list(asks)) >= needed for (_, counts), asks in heard)

    def _counts(self, ask: Ask) -> bool:
        begin, end = ask.arrived, ask.ended + self._terms.settle
        disturbed = any(
            each.node in (None, ask.node) and each.began <= end and begin <= each.ended
            for each in self._troubles
        )
        return not disturbed and end <= self._ended and self._is_kept(ask, end)

    def _is_kept(self, ask: Ask, end: float) -> bool:
        """Whether its node had the site when it asked, and nobody took it before it had settled."""
        tenure = self._ownership.at(self._unit_of(ask.calendar), ask.arrived)
        if tenure is None or tenure.node != ask.node:
            return False
        return tenure.until > end or not tenure.was_taken


def _runs(calendar: Calendar, asks: Sequence[Ask]) -> Iterator[Run]:
    rows = [(shown, list(row)) for shown, row in groupby(asks, key=lambda ask: ask.told)]
    for (shown, row), following in pairwise([*rows, (None, [])]):
        if shown is not None:
            yield Run(calendar, shown, row, following[1][0].arrived if following[1] else _EVER)


def _by_node(asks: Iterable[Ask]) -> dict[tuple[Calendar, str], list[Ask]]:
    found: dict[tuple[Calendar, str], list[Ask]] = defaultdict(list)
    for ask in sorted(asks, key=lambda each: each.arrived):
        if ask.told is not None:
            found[ask.calendar, ask.node].append(ask)
    return found


def by_calendar(asks: Iterable[Ask]) -> dict[Calendar, list[Ask]]:
    """All requests of each calendar, in the order in which they came."""
    found: dict[Calendar, list[Ask]] = defaultdict(list)
    for ask in sorted(asks, key=lambda each: each.arrived):
        found[ask.calendar].append(ask)
    return found
