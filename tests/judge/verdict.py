"""The verdict over a trial: what was found, how much was looked at, and how long a take-over took."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from monitor.core.shards import Unit
from tests.judge.crimes import CRIMES, Court, Finding
from tests.judge.evidence import Evidence, Terms, Trouble


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Of a node that was disturbed: seconds until the last of its sites was claimed, and was asked again."""

    trouble: Trouble
    sites: int
    claimed: float
    asked: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What there is to say of a trial."""

    findings: Sequence[Finding]
    take_overs: Sequence[TakeOver]
    figures: dict[str, float]

    @property
    def is_clean(self) -> bool:
        """Whether each promise was kept."""
        return not self.findings

    def count(self, crime: str) -> int:
        """How often a promise was broken."""
        return sum(each.crime == crime for each in self.findings)

    def __str__(self) -> str:
        """A table of figures, and the first findings of each kind."""
        rows = [
            *self.figures.items(),
            *self._take_over_rows(),
            *((each, self.count(each)) for each in CRIMES),
        ]
        width = max(len(name) for name, _ in rows)
        table = [f"{name:{width}}  {_plain(value)}" for name, value in rows]
        return "\n".join([*table, *map(str, self._first_findings(5))])

    def _take_over_rows(self) -> Iterator[tuple[str, float]]:
        for kind in sorted({each.trouble.kind for each in self.take_overs}):
            those = [each for each in self.take_overs if each.trouble.kind == kind]
            for what in ("claimed", "asked"):
                seconds = [getattr(each, what) for each in those]
                yield f"{kind}: last site {what}, median s", median(seconds)
                yield f"{kind}: last site {what}, max s", max(seconds)

    def _first_findings(self, most: int) -> Iterator[Finding]:
        seen: Counter[str] = Counter()
        for finding in sorted(self.findings, key=lambda each: each.at):
            seen[finding.crime] += 1
            if seen[finding.crime] <= most:
                yield finding


def judge(evidence: Evidence, terms: Terms) -> Verdict:
    """Hold what happened against what is promised."""
    court = Court(evidence, terms)
    findings = list(court.findings())
    return Verdict(findings, list(_take_overs(court)), _figures(court))


def _figures(court: Court) -> dict[str, float]:
    evidence, ids = court.evidence, {line.transition_id for line in court.evidence.lines}
    runs = list(court.answers)
    gaps = [after - before - excused for _, before, after, excused in court.gaps()]
    return {
        "seconds": evidence.ended - evidence.began,
        "troubles": len(evidence.troubles),
        "requests": len(evidence.asks),
        "statuses answered": len(runs),
        "of them surely heard": sum(map(court.answers.is_due, runs)),
        "transitions kept": len(evidence.rows),
        "told": len(ids),
        "told again": len(evidence.lines) - len(ids),
        "claims": sum(claim.node is not None for claim in evidence.claims),
        "taken from a node left alone": sum(1 for _ in _taken_for_nothing(court)),
        "in flight at a hand-over": court.in_flight,
        "longest without a request, s": max(gaps, default=0.0),
    }


def _taken_for_nothing(court: Court) -> Iterator[Unit]:
    for unit in court.ownership.units:
        for tenure in court.ownership.tenures(unit):
            taken = tenure.until if tenure.was_taken else None
            if taken is not None and not any(
                _explains(each, tenure.node, taken, court.terms) for each in _all(court)
            ):
                yield unit


def _all(court: Court) -> Sequence[Trouble]:
    return court.evidence.troubles


def _explains(trouble: Trouble, node: str | None, taken: float, terms: Terms) -> bool:
    return trouble.node in (None, node) and trouble.began <= taken <= trouble.ended + terms.take_over


def _take_overs(court: Court) -> Iterator[TakeOver]:
    for trouble in court.evidence.troubles:
        those = [unit for unit in court.ownership.units if _has(court, trouble, unit)]
        waits = [wait for wait in (_wait(court, trouble, unit) for unit in those) if wait is not None]
        if waits:
            claimed, asked = (max(column) for column in zip(*waits, strict=True))
            yield TakeOver(trouble, len(waits), claimed, asked)


def _has(court: Court, trouble: Trouble, unit: Unit) -> bool:
    tenure = court.ownership.at(unit, trouble.began)
    return trouble.node is not None and tenure is not None and tenure.node == trouble.node


def _wait(court: Court, trouble: Trouble, unit: Unit) -> tuple[float, float] | None:
    """Seconds until a site was claimed and until it was asked; None where its node kept it."""
    kept = trouble.kind in (
        "stop",
        "cut",
    )  # else its sites move later, for other reasons
    limit = trouble.ended + (court.terms.settle if kept else court.terms.take_over)
    claim = next(
        (each for each in court.ownership.claims_after(unit, trouble.began) if each.at < limit), None
    )
    if claim is None:
        return None
    asked = (
        ask.arrived for ask in court.unit_asks[unit] if ask.arrived >= claim.at and ask.node == claim.node
    )
    first = next(asked, court.evidence.ended)
    return claim.committed - trouble.began, first - trouble.began


def _plain(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
