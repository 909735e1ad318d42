"""What a changed configuration changes."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from monitor.config.settings import Settings, SiteSettings
from monitor.core.model import Connection

FIRST: Final = 20
"""Names of each kind that are told."""

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Names:
    """How many, and the names of the first ones."""

    count: int
    first: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Sites and connections (as `site/name`) that came, went, or are other than before.

    A connection is the same while its site and its id are; a site while its name is.
    """

    sites_added: Names
    sites_removed: Names
    sites_changed: Names
    added: Names
    removed: Names
    changed: Names


def difference(before: Settings, after: Settings) -> Difference:
    """What comes, goes and changes from one to the other."""
    sites = _compare({site.name: _own(site) for site in before.sites}, {s.name: _own(s) for s in after.sites})
    was, now = _connections(before), _connections(after)
    known = was | now
    connections = (
        [f"{site}/{known[site, its_id].name}" for site, its_id in keys] for keys in _compare(was, now)
    )
    return Difference(*map(_names, sites), *map(_names, connections))


def _compare(before: Mapping[T, object], after: Mapping[T, object]) -> tuple[list[T], list[T], list[T]]:
    added = [key for key in after if key not in before]
    removed = [key for key in before if key not in after]
    changed = [key for key in after if key in before and before[key] != after[key]]
    return added, removed, changed


def _own(site: SiteSettings) -> object:
    """What of a site's settings is not in its connections."""
    return (
        site.credential,
        site.requests_per_minute,
        site.interval,
        site.interval_in_force,
        site.breaker_failures,
        site.maintenance_until,
        site.feeds,
    )


def _connections(settings: Settings) -> dict[tuple[str, str], Connection]:
    return {(site.name, each.id): each for site in settings.sites for each in site.connections}


def _names(names: list[str]) -> Names:
    return Names(len(names), tuple(names[:FIRST]))
