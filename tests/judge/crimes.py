"""Each kind of broken promise, found in the evidence."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from tests.judge.answers import Answers, by_calendar
from tests.judge.evidence import Ask, Calendar, Evidence, Line, Row, Terms, Trouble
from tests.judge.ownership import Ownership

if TYPE_CHECKING:
    from monitor.core.shards import Unit

Crime = Literal[
    "lost",
    "repeated",
    "broken chain",
    "invented",
    "told never",
    "told, not kept",
    "told out of order",
    "told by a fenced node",
    "written under an old epoch",
    "two owners",
    "asked without a lease",
    "asked blindly",
    "not asked",
]
CRIMES: Final[tuple[Crime, ...]] = Crime.__args__  # type: ignore[attr-defined]

_SKEW: Final = 0.05  # seconds by which two processes' steady clocks may call one instant differently
_CUT_OFF: Final = 0.001  # a log's moments have milliseconds, what is beyond is cut off


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise."""

    crime: Crime
    where: str
    at: float
    words: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.crime}: {self.where} at {self.at:.3f}: {self.words}"


class Court:
    """The evidence, put in order once."""

    def __init__(self, evidence: Evidence, terms: Terms) -> None:
        self.evidence = evidence
        self.terms = terms
        self.ownership = Ownership(evidence.claims)
        self.answers = Answers(evidence, self.ownership, terms)
        self.asks = by_calendar(evidence.asks)
        self.rows: dict[Calendar, list[Row]] = defaultdict(list)
        for row in sorted(evidence.rows, key=lambda each: each.n):
            self.rows[row.calendar].append(row)
        self.unit_asks: dict[Unit, list[Ask]] = defaultdict(list)
        for ask in sorted(evidence.asks, key=lambda each: each.arrived):
            self.unit_asks[evidence.unit_of(ask.calendar)].append(ask)
        self.in_flight = 0

    def findings(self) -> Iterator[Finding]:
        """All that is wrong."""
        yield from self._lost()
        yield from self._repeated()
        for calendar, rows in self.rows.items():
            yield from _broken_chains(calendar, rows)
            yield from self._invented(calendar, rows)
        yield from self._told_and_kept()
        yield from self._out_of_order()
        yield from self._told_by_fenced()
        yield from self._old_epochs()
        yield from self._without_lease()
        yield from self._blindly()
        yield from self._not_asked()

    def _lost(self) -> Iterator[Finding]:
        for run in filter(self.answers.is_due, self.answers):
            known = [row for row in self.rows[run.calendar] if row.observed_at < run.until]
            if not known or known[-1].after != run.shown:
                last = known[-1].after if known else None
                words = f"{run.shown} was told {len(run.asks)} times, known is {last}"
                yield Finding("lost", _name(run.calendar), run.since, words)

    def _repeated(self) -> Iterator[Finding]:
        changes: dict[Calendar, set[tuple[float, str]]] = defaultdict(set)
        for row in self.evidence.rows:
            changes[row.calendar].add((row.observed_at, row.transition_id))
        kept = {row.transition_id for row in self.evidence.rows}
        for line in self.evidence.lines:
            if line.transition_id not in kept:
                changes[line.calendar].add((line.observed_at + _CUT_OFF, line.transition_id))
        for calendar, found in changes.items():
            begins = [run.since for run in self.answers.of(calendar)]
            seen: dict[int, set[str]] = defaultdict(set)
            for observed_at, transition_id in found:
                seen[bisect_right(begins, observed_at)].add(transition_id)
            for place, ids in seen.items():
                if len(ids) > 1:
                    at = begins[place - 1] if place else self.evidence.began
                    yield Finding("repeated", _name(calendar), at, f"one change has the ids {sorted(ids)}")

    def _invented(self, calendar: Calendar, rows: Sequence[Row]) -> Iterator[Finding]:
        for row in rows:
            moments = (row.observed_at, row.observed_at + _SKEW)
            told = {self.answers.told_to(calendar, row.node, moment) for moment in moments}
            if row.after not in told:
                words = f"{row.node} kept {row.after} ({row.transition_id}) and had been told {told}"
                yield Finding("invented", _name(calendar), row.observed_at, words)

    def _told_and_kept(self) -> Iterator[Finding]:
        told = {line.transition_id: line for line in self.evidence.lines}
        kept = {row.transition_id: row for row in self.evidence.rows}
        for row in (row for key, row in kept.items() if key not in told):
            words = f"{row.transition_id}, kept by {row.node}, is in no log"
            yield Finding("told never", _name(row.calendar), row.observed_at, words)
        for line in (line for key, line in told.items() if key not in kept):
            words = f"{line.transition_id}, told by {line.node}, is in no row"
            yield Finding("told, not kept", _name(line.calendar), line.at, words)

    def _out_of_order(self) -> Iterator[Finding]:
        number = {row.transition_id: row.n for row in self.evidence.rows}
        first: dict[Calendar, dict[str, Line]] = defaultdict(dict)
        for line in sorted(self.evidence.lines, key=lambda each: each.at):  # stable: a log's own order stays
            first[line.calendar].setdefault(line.transition_id, line)
        for calendar, lines in first.items():
            kept = [line for key, line in lines.items() if key in number]
            for before, after in pairwise(kept):
                if number[after.transition_id] < number[before.transition_id]:
                    words = f"{after.transition_id} was told after {before.transition_id}"
                    yield Finding("told out of order", _name(calendar), after.at, words)

    def _told_by_fenced(self) -> Iterator[Finding]:
        for line in self.evidence.lines:
            tenure = self.ownership.seen_at(self.evidence.unit_of(line.calendar), line.at)
            if tenure is not None and tenure.node not in (None, line.node):
                late = line.at - tenure.claim.committed
                words = f"{line.node} told {line.transition_id} {late:.3f} s after {tenure.node}'s claim"
                yield Finding("told by a fenced node", _name(line.calendar), line.at, words)

    def _old_epochs(self) -> Iterator[Finding]:
        newest: dict[Unit, Row] = {}
        for row in sorted(self.evidence.rows, key=lambda each: each.n):
            unit = self.evidence.unit_of(row.calendar)
            before = newest.setdefault(unit, row)
            if row.epoch < before.epoch:
                words = f"{row.node} wrote {row.transition_id} under {row.epoch}, after {before.epoch}"
                yield Finding("written under an old epoch", _name(row.calendar), row.observed_at, words)
            else:
                newest[unit] = row

    def _without_lease(self) -> Iterator[Finding]:
        granted: set[tuple[object, ...]] = set()
        for ask in sorted(self.evidence.asks, key=lambda each: each.arrived):
            tenure = self.ownership.at(self.evidence.unit_of(ask.calendar), ask.arrived)
            owner = tenure.node if tenure is not None else None
            if owner == ask.node:
                continue
            grants = set(self._grants(ask)) - granted
            if grants:
                granted.add(grants.pop())
                self.in_flight += 1
                continue
            words = f"{ask.node} asked, {owner or 'nobody'} has the site"
            crime: Crime = "two owners" if owner is not None else "asked without a lease"
            yield Finding(crime, _name(ask.calendar), ask.arrived, words)

    def _grants(self, ask: Ask) -> Iterator[tuple[object, ...]]:
        """What excuses a request without a lease, each of them one request."""
        unit = self.evidence.unit_of(ask.calendar)
        lost = self.ownership.lost_by(unit, ask.node, ask.arrived)
        if lost is not None and ask.arrived <= lost + self.terms.in_flight:
            yield ("hand-over", unit, lost)
        for (
            trouble
        ) in self.evidence.troubles:  # it was stopped between its last look at the lease and the wire
            if trouble.kind == "stop" and trouble.node == ask.node and self._has_just_ended(trouble, ask):
                yield ("stop", trouble)

    def _has_just_ended(self, trouble: Trouble, ask: Ask) -> bool:
        return trouble.ended <= ask.arrived <= trouble.ended + self.terms.in_flight

    def _blindly(self) -> Iterator[Finding]:
        """A node that cannot renew its lease goes on for no longer than the lease does."""
        for trouble in self.evidence.troubles:
            end = trouble.began + self.terms.ttl + self.terms.in_flight
            if trouble.kind not in ("cut", "outage"):
                continue
            for ask in self.evidence.asks:
                if trouble.node in (None, ask.node) and end < ask.arrived < trouble.ended:
                    words = f"{ask.node} asked {ask.arrived - trouble.began:.1f} s into its {trouble.kind}"
                    yield Finding("asked blindly", _name(ask.calendar), ask.arrived, words)

    def _not_asked(self) -> Iterator[Finding]:
        for calendar, before, after, excused in self.gaps():
            gap = after - before - excused
            if gap > self.terms.interval + self.terms.take_over:
                words = f"for {gap:.1f} s" + (f" beside {excused:.1f} s of outage" if excused else "")
                yield Finding("not asked", _name(calendar), before, words)

    def gaps(self) -> Iterator[tuple[Calendar, float, float, float]]:
        """From one request of a calendar to the next, and for how long of it nobody could ask."""
        outages = [each for each in self.evidence.troubles if each.kind == "outage"]
        for calendar, asks in self.asks.items():
            moments = [*(ask.arrived for ask in asks), self.evidence.ended]
            for before, after in pairwise(moments):
                excused = (min(after, each.ended) - max(before, each.began) for each in outages)
                yield calendar, before, after, sum(each for each in excused if each > 0)


def _broken_chains(calendar: Calendar, rows: Iterable[Row]) -> Iterator[Finding]:
    known = None
    for row in rows:
        if row.before != known:
            words = f"{row.transition_id} goes from {row.before}, known was {known}"
            yield Finding("broken chain", _name(calendar), row.observed_at, words)
        known = row.after


def _name(calendar: Calendar) -> str:
    return f"{calendar.site}/{calendar.id}"
