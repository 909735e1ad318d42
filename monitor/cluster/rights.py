"""What is this node's by right: of what the live nodes offer to own, what rendezvous hashing gives to it.

While nodes divide a site into parts differently, only the division that most have counts, and nothing of the
site is claimed before nobody can poll it by another one.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from uuid import UUID

from monitor.core.shards import Unit, in_agreement, owner
from monitor.store.postgresql.leases import Leases, Peer

Offer = tuple[UUID, int]
"""Of a life of a node, its so-many-th."""


class Rights:
    """The offers of those who live, and what they make this node's."""

    def __init__(self, name: str, leases: Leases) -> None:
        self._name = name
        self._leases = leases
        self._heard: dict[Offer, frozenset[Unit]] = {}
        self._offers: dict[Offer, frozenset[Unit]] = {}  # what of it may be owned
        self._in_dispute: frozenset[str] = frozenset()  # sites that nodes divide differently
        self._closed: frozenset[str] = frozenset()  # those, and those that they just did
        self._ours: frozenset[Unit] = frozenset()

    def forget(self) -> None:
        """Ask for all offers anew: ours may have been read before it was made."""
        self._heard.clear()

    async def among(self, peers: Sequence[Peer], *, calm: bool, owned: Collection[Unit]) -> AbstractSet[Unit]:
        """What is ours while these live. Raises StoreError."""
        seen = {(each.incarnation, each.offers_version): each for each in peers}
        if self._heard.keys() != seen.keys():
            await self._hear(seen)
        return self._ours - await self._not_yet(owned, calm=calm) if self._closed else self._ours

    def wants(self, unit: Unit) -> bool:
        """Whether somebody who lives would own it."""
        return any(unit in its for its in self._offers.values())

    async def _hear(self, seen: Mapping[Offer, Peer]) -> None:
        told = await self._leases.offers_of([seen[key] for key in seen.keys() - self._heard.keys()])
        self._heard = {key: self._heard.get(key) or told.get(key[0], frozenset()) for key in seen}
        self._offers, self._in_dispute = await asyncio.to_thread(in_agreement, self._heard)
        self._closed |= self._in_dispute
        offers = {peer.name: self._offers[key] for key, peer in seen.items()}
        self._ours = await asyncio.to_thread(_rights, self._name, offers)

    async def _not_yet(self, owned: Collection[Unit], *, calm: bool) -> AbstractSet[Unit]:
        """What we do not claim while somebody may poll its site by another division.

        A node that is gone has stopped to by the time that the others are calm.
        """
        closed: AbstractSet[str] = self._closed
        if calm:
            self._closed = self._in_dispute
            allowed = {key[0]: its for key, its in self._offers.items()}
            owners = await self._leases.owners(self._closed)
            closed = {unit.site for unit, who in owners.items() if unit not in allowed.get(who, (unit,))}
        return {unit for unit in self._ours.difference(owned) if unit.site in closed}


def _rights(name: str, offers: Mapping[str, frozenset[Unit]]) -> frozenset[Unit]:
    """What is by right that node's among those that offer to own it."""
    return frozenset(
        unit
        for unit in offers.get(name, ())
        if owner(unit, [each for each, its in offers.items() if unit in its]) == name
    )
