"""Sharing a configuration out: the settings of some of its units, in milliseconds whatever is watched."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from monitor.config.settings import Part, Settings, SiteSettings
from monitor.core.model import Connection
from monitor.core.shards import Unit, part_of, part_of_budget


def units(settings: Settings) -> list[Unit]:
    """All that can be owned by itself, in the order of the sites."""
    return [unit for site in settings.sites for unit in site.units]


def share(settings: Settings, mine: Callable[[Unit], bool] | Collection[Unit]) -> Settings:
    """The settings of only those units; a site that is whole among them stays the very same object."""
    sites: Iterable[SiteSettings] = settings.sites
    if callable(mine):
        wanted = mine
    else:
        wanted, names = frozenset(mine).__contains__, {unit.site for unit in mine}
        sites = [site for site in sites if site.name in names]  # of very many mostly a few
    narrowed = [_narrowed(site, wanted) for site in sites]
    return replace(settings, sites=tuple(site for site in narrowed if site is not None))


def divided(connections: Iterable[Connection], requests_per_minute: int, parts: int) -> tuple[Part, ...]:
    """The parts of a site; none where it has but one."""
    if parts == 1:
        return ()
    lists: list[list[Connection]] = [[] for _ in range(parts)]
    for each in connections:
        lists[part_of(each.id, parts)].append(each)
    return tuple(
        Part(number, tuple(its), part_of_budget(requests_per_minute, number, parts))
        for number, its in enumerate(lists)
    )


def _narrowed(site: SiteSettings, wanted: Callable[[Unit], bool]) -> SiteSettings | None:
    if not site.parts:
        return site if wanted(Unit(site.name)) else None
    parts = tuple(part for part in site.parts if wanted(Unit(site.name, part.number)))
    if not parts or len(parts) == len(site.parts):
        return site if parts else None
    return replace(
        site,
        parts=parts,
        connections=tuple(each for part in parts for each in part.connections),
        requests_per_minute=sum(part.requests_per_minute for part in parts),
    )
