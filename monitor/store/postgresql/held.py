"""What this node owns, as its coordinator knows it: the store writes nothing else."""

from dataclasses import dataclass, field
from uuid import UUID

from monitor.core.shards import Unit, part_of


@dataclass(slots=True)
class Held:
    """The units of this node with the epochs they were claimed under, and into how many parts a site is cut.

    `incarnation` is this run of the node; without one nothing is owned.
    """

    incarnation: UUID | None = None
    epochs: dict[Unit, int] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)

    def unit_of(self, site: str, connection_id: str) -> Unit:
        """The unit that a connection belongs to; a site that nobody cut is one part."""
        return Unit(site, part_of(connection_id, self.parts.get(site, 1)))
