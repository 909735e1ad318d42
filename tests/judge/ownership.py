"""Whose a site, or a part of one, was at an instant, out of the history of its leases."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from monitor.core.shards import Unit
from tests.judge.evidence import Claim

_EVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Tenure:
    """A claim and the next one of its unit."""

    claim: Claim
    successor: Claim | None

    @property
    def node(self) -> str | None:
        """Whose it is."""
        return self.claim.node

    @property
    def until(self) -> float:
        """When the next claim was made."""
        return self.successor.at if self.successor is not None else _EVER

    @property
    def was_taken(self) -> bool:
        """Whether another took it, rather than that it was given up or lasts."""
        if self.node is None or self.successor is None:
            return False
        return self.successor.node not in (None, self.node)


class Ownership:
    """Each unit's tenures, in order."""

    def __init__(self, claims: Iterable[Claim]) -> None:
        changes: dict[Unit, list[Claim]] = defaultdict(list)
        for claim in claims:
            changes[claim.unit].append(claim)
        self._tenures = {
            unit: [Tenure(*pair) for pair in pairwise([*its, None])]  # type: ignore[arg-type]
            for unit, its in changes.items()
        }
        self._made = {unit: [each.claim.at for each in its] for unit, its in self._tenures.items()}
        self._seen = {unit: [each.claim.committed for each in its] for unit, its in self._tenures.items()}

    @property
    def units(self) -> Iterable[Unit]:
        """All that were ever claimed."""
        return self._tenures

    def tenures(self, unit: Unit) -> Sequence[Tenure]:
        """All of a unit's."""
        return self._tenures.get(unit, ())

    def at(self, unit: Unit, moment: float) -> Tenure | None:
        """By the moments at which claims were made; None before the first."""
        return self._find(unit, self._made, moment)

    def seen_at(self, unit: Unit, moment: float) -> Tenure | None:
        """By the moments at which claims were committed; None before the first."""
        return self._find(unit, self._seen, moment)

    def lost_by(self, unit: Unit, node: str, moment: float) -> float | None:
        """When the last tenure of this node before the moment ended; None where it had none."""
        ends = [each.until for each in self.tenures(unit) if each.node == node and each.claim.at <= moment]
        return ends[-1] if ends else None

    def claims_after(self, unit: Unit, moment: float) -> Iterable[Claim]:
        """The claims of a unit by whomever, made after this moment."""
        for each in self.tenures(unit):
            if each.claim.at > moment and each.node is not None:
                yield each.claim

    def _find(self, unit: Unit, moments: dict[Unit, list[float]], moment: float) -> Tenure | None:
        place = bisect_right(moments.get(unit, []), moment)
        return self._tenures[unit][place - 1] if place else None
