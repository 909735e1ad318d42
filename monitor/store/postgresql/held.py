"""What this node owns, as its coordinator knows it: the store writes nothing else."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from monitor.core.shards import Unit, part_of


def _nothing() -> None:
    """Nobody listens."""


@dataclass(slots=True)
class Held:
    """The units of this node with the epochs they were claimed under, and into how many parts a site is cut.

    `incarnation` is this run of the node; without one nothing is owned.
    """

    incarnation: UUID | None = None
    epochs: dict[Unit, int] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    on_doubt: Callable[[], None] = _nothing

    def stands(self, refused: Collection[Unit], incarnation: UUID | None, epochs: Mapping[Unit, int]) -> bool:
        """Whether a refusal of these is for good: what was sent is not outdated by a later claim of ours.

        Where we believe to have what was refused, `on_doubt` is called.
        """
        if self.incarnation != incarnation:
            return False
        believed = {unit: self.epochs[unit] for unit in refused if unit in self.epochs}
        if any(epochs.get(unit) != epoch for unit, epoch in believed.items()):
            return False
        if believed:
            self.on_doubt()
        return True

    def unit_of(self, site: str, connection_id: str) -> Unit:
        """The unit that a connection belongs to; a site that nobody cut is one part."""
        return Unit(site, part_of(connection_id, self.parts.get(site, 1)))
