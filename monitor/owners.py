"""`status` of nodes that share a PostgreSQL: who lives, and who owns what; what nobody owns comes first."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from monitor.config import Settings, units
from monitor.core.shards import Unit
from monitor.logs import rfc3339_or_none
from monitor.store.reading import Lease, Node, Reader
from monitor.tables import table

NO_NODES: Final = "There are no nodes: the store is a file, which one process uses."

_NOBODY: Final = "nobody"


def nodes_report(nodes: Sequence[Node], width: int | None) -> str:
    """The nodes as a table."""
    if not nodes:
        return "No node runs, and none has gone without a word."
    head = ("node", "state", "version", "joined (UTC)", "sites", "urls")
    rows = [
        (each.name, _state(each), each.version, _at(each.joined_at), str(each.sites), ", ".join(each.urls))
        for each in nodes
    ]
    return table(head, rows, right=("sites",), whole=("state", "joined (UTC)", "sites"), width=width)


def owners_report(settings: Settings, reader: Reader, site: str | None, width: int | None) -> str:
    """Each site, or part of one, and which node owns it, as a table."""
    if not settings.store.is_shared:
        return NO_NODES
    leases = _leases(settings, reader, site)
    if not leases:
        return "Nothing is configured, and nothing is owned."
    head = ("site", "part", "owner", "epoch", "since (UTC)")
    rows = [
        (each.site, str(each.part), each.owner or _NOBODY, str(each.epoch), _at(each.since))
        for each in leases
    ]
    return table(head, rows, right=("part", "epoch"), whole=head[3:], width=width)


def owners_json(settings: Settings, reader: Reader, site: str | None) -> str:
    """All nodes and the leases as JSON; both are empty with a store that one process uses."""
    leases = _leases(settings, reader, site) if settings.store.is_shared else []
    told = {"nodes": list(map(_node_json, reader.nodes())), "leases": list(map(_lease_json, leases))}
    return json.dumps(told, indent=2)


def _leases(settings: Settings, reader: Reader, site: str | None) -> list[Lease]:
    """Of all that is configured here, owned or not, and of what only others have, or had when they died."""
    configured = {unit: _unclaimed(unit) for unit in units(settings) if site in (None, unit.site)}
    kept = {Unit(each.site, each.part): each for each in reader.leases(site)}
    owned = {unit: each for unit, each in kept.items() if unit in configured or each.owner or each.is_orphan}
    return sorted((configured | owned).values(), key=_unowned_first)


def _unclaimed(unit: Unit) -> Lease:
    return Lease(unit.site, unit.part, owner=None, urls=(), epoch=0, since=None, is_orphan=False)


def _unowned_first(lease: Lease) -> tuple[bool, str, int]:
    return lease.owner is not None, lease.site, lease.part


def _state(node: Node) -> str:
    return "alive" if node.lease_until is None else f"gone, its lease to {_at(node.lease_until)}"


def _node_json(node: Node) -> dict[str, Any]:
    return {
        "node": node.name,
        "alive": node.lease_until is None,
        "lease_until": rfc3339_or_none(node.lease_until),
        "version": node.version,
        "joined_at": rfc3339_or_none(node.joined_at),
        "sites": node.sites,
        "urls": list(node.urls),
    }


def _lease_json(lease: Lease) -> dict[str, Any]:
    return {
        "site": lease.site,
        "part": lease.part,
        "owner": lease.owner,
        "epoch": lease.epoch,
        "since": rfc3339_or_none(lease.since),
    }


def _at(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
