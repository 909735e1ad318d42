"""What a changed configuration changes."""

from collections.abc import Collection, Hashable, Mapping
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
    was, now = _by_name(before), _by_name(after)
    sites = _compare(_own_of(was), _own_of(now))
    same = {name for name, site in now.items() if was.get(name) is site}  # most, after a reload
    old, new = _connections(was, same), _connections(now, same)
    known = old | new
    connections = (
        [f"{site}/{known[site, its_id].name}" for site, its_id in keys] for keys in _compare(old, new)
    )
    return Difference(*map(_names, sites), *map(_names, connections))


def _compare(before: Mapping[T, object], after: Mapping[T, object]) -> tuple[list[T], list[T], list[T]]:
    added = [key for key in after if key not in before]
    removed = [key for key in before if key not in after]
    changed = [key for key in after if key in before and before[key] != after[key]]
    return added, removed, changed


def _by_name(settings: Settings) -> dict[str, SiteSettings]:
    return {site.name: site for site in settings.sites}


def _own_of(sites: Mapping[str, SiteSettings]) -> dict[str, object]:
    return {name: _own(site) for name, site in sites.items()}


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
        [part.number for part in site.parts],
    )


def _connections(
    sites: Mapping[str, SiteSettings], but_for: Collection[str]
) -> dict[tuple[str, str], Connection]:
    return {
        (name, each.id): each
        for name, site in sites.items()
        if name not in but_for
        for each in site.connections
    }


def _names(names: list[str]) -> Names:
    return Names(len(names), tuple(names[:FIRST]))
