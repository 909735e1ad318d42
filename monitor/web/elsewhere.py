"""What this node does not watch: which of the others does, as the leases in the store tell."""

from typing import Final, NamedTuple

from monitor.errors import StoreUnreadableError
from monitor.store.reading import Lease
from monitor.view.facts import Facts, PeerFacts
from monitor.web.past import Past

_SITE: Final = "it"
_CONNECTION: Final = "its site"


class Elsewhere(NamedTuple):
    """The other nodes that watch a site or parts of it, and that in a sentence without its end."""

    told: str
    nodes: list[PeerFacts]


async def elsewhere(past: Past, facts: Facts, site: str, *, connection: bool = False) -> Elsewhere | None:
    """Who watches what is not watched here; None where there is nobody else, or no such site."""
    if facts.node is None:
        return None
    try:
        leases = await past.leases(site)
    except StoreUnreadableError:
        return Elsewhere("which node watches it cannot be told now", [])
    return _of(leases, facts.node.name, _CONNECTION if connection else _SITE)


def _of(leases: list[Lease], me: str, what: str) -> Elsewhere | None:
    owners = {each.owner: PeerFacts(each.owner, each.urls) for each in leases if each.owner is not None}
    others = [owner for name, owner in sorted(owners.items()) if name != me]
    if others:
        names = ", ".join(each.name for each in others)
        return Elsewhere(
            f"node {names} watches {what}" if len(others) == 1 else f"nodes {names} watch {what}", others
        )
    return Elsewhere(f"no node watches {what} now", []) if leases and not owners else None
