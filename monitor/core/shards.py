"""Who watches what, where several processes share one configuration: by names alone, so nobody has to ask.

A unit is a site, or one part of a site that is shared out by its connections. Each has one owner among the
members there are: the one that a hash of both ranks highest. So a member that goes takes only its own units
with it, and one that comes takes its share of each other's.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import blake2b
from typing import Final, NamedTuple, TypeVar

K = TypeVar("K")


class Unit(NamedTuple):
    """What is owned whole: a part of a site; most sites have one, number 0."""

    site: str
    part: int = 0


class Shard(NamedTuple):
    """One of so many processes that share a configuration for good; the first is number 0."""

    ordinal: int = 0
    total: int = 1

    def __str__(self) -> str:
        return f"shard {self.ordinal} of {self.total}"

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.total > 1

    def owns(self, unit: Unit) -> bool:
        """Whether it watches this one."""
        return not self.several or owner(unit, _ordinals(self.total)) == str(self.ordinal)


ALONE: Final = Shard()
"""The one that watches everything."""


@cache
def _ordinals(total: int) -> tuple[str, ...]:
    return tuple(map(str, range(total)))


def owner(unit: Unit, members: Sequence[str]) -> str:
    """Who of the members, at least one, has this unit; their order does not matter."""
    seed = blake2b(f"{unit.site}/{unit.part}\0".encode(), digest_size=8)
    ranks = []
    for member in members:
        rank = seed.copy()  # a third faster than to begin anew
        rank.update(member.encode())
        ranks.append((rank.digest(), member))
    return max(ranks)[1]


def in_agreement(offers: Mapping[K, frozenset[Unit]]) -> tuple[dict[K, frozenset[Unit]], frozenset[str]]:
    """Of all units that each would own those of one division of each site; and the sites in dispute.

    Two divisions of a site have connections in common, and only one may be polled: that which most would own,
    of several such the one into the fewest parts.
    """
    divisions = {key: Counter(unit.site for unit in its) for key, its in offers.items()}
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for its in divisions.values():
        for site, parts in its.items():
            votes[site][parts] += 1
    disputed = {site: its for site, its in votes.items() if len(its) > 1}
    chosen = {
        site: min(its, key=lambda parts, its=its: (-its[parts], parts))  # type: ignore[misc]
        for site, its in disputed.items()
    }
    if not chosen:
        return dict(offers), frozenset()
    agreed = {
        key: frozenset(unit for unit in its if chosen.get(unit.site) in (None, divisions[key][unit.site]))
        for key, its in offers.items()
    }
    return agreed, frozenset(chosen)


def part_of(connection_id: str, parts: int) -> int:
    """Which of a site's parts a connection is in."""
    if parts == 1:
        return 0
    # salted, as the bare digest ranks the phases: a part has connections of all of them
    digest = blake2b(connection_id.encode(errors="surrogatepass"), digest_size=8, person=b"part").digest()
    return int.from_bytes(digest) % parts


def part_of_budget(requests_per_minute: int, part: int, parts: int) -> int:
    """A part's requests a minute: at least one, where there are as many as parts; all are the whole."""
    return requests_per_minute // parts + (part < requests_per_minute % parts)
