"""The plan as `check-config` prints it."""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from monitor.config.load import Loaded
from monitor.config.settings import Settings, SiteSettings
from monitor.core.plan import fitting_interval, requests_per_minute, slots_needed
from monitor.durations import format_duration
from monitor.tables import table

_HEAD: Final = ("site", "connections", "interval", "shortest", "requests/min", "budget", "headroom", "slots")
_NOT_ASKED: Final = "The database is not asked here; `status` asks it."
_SPREAD: Final = ("shard", "sites", "connections", "requests/min", "slots")


def plan_report(settings: Settings) -> str:
    """An aligned table: per site what it asks of Wix at the interval in force, and a line of totals.

    `shortest` is the shortest interval that the site's budget and slots carry. Where nodes divide the sites,
    it is the plan of all of them together, and says that their database was not asked.
    """
    rows = [*(_row(site) for site in settings.sites), _total(settings)]
    told = table(_HEAD, rows, right=_HEAD[1:])
    return f"{told}\n\n{_nodes(settings)}\n{_NOT_ASKED}" if settings.store.is_shared else told


def spread_report(shards: Sequence[Loaded]) -> str:
    """An aligned table: what each shard watches; of a site of several parts, each shard has its own."""
    rows = [_shard(str(number), [each.settings]) for number, each in enumerate(shards)]
    rows.append(_shard("total", [each.settings for each in shards]))
    return table(_SPREAD, rows, right=_SPREAD[1:])


def _shard(name: str, of: Sequence[Settings]) -> tuple[str, ...]:
    sites = [site for settings in of for site in settings.sites]
    asked = sum(map(_asked, sites))
    slots = sum(slots_needed(sum(map(_asked, settings.sites)) / 60) for settings in of)
    room = sum(settings.api.max_in_flight for settings in of)
    return (
        name,
        str(len({site.name for site in sites})),
        str(sum(len(site.connections) for site in sites)),
        f"{asked:.1f}",
        f"{slots} of {room}",
    )


def _row(site: SiteSettings) -> tuple[str, ...]:
    interval = format_duration(site.interval_in_force)
    if site.interval_in_force > site.interval:
        interval = f"{interval} (asked: {format_duration(site.interval)})"
    asked = _asked(site)
    return (
        site.name,
        str(len(site.connections)),
        interval,
        format_duration(_shortest(site)),
        *_budget([site], asked),
    )


def _total(settings: Settings) -> tuple[str, ...]:
    count = sum(len(site.connections) for site in settings.sites)
    asked = sum(_asked(site) for site in settings.sites)
    row = ("total", str(count), "", "", *_budget(settings.sites, asked))
    room = settings.api.max_in_flight
    return (*row[:-1], f"{row[-1]}, {room} a node" if settings.store.is_shared else f"{row[-1]} of {room}")


def _nodes(settings: Settings) -> str:
    """How many nodes it takes, whichever of them has which sites."""
    room = settings.api.max_in_flight
    asked = sum(_asked(site) for site in settings.sites)
    least = max(math.ceil(slots_needed(asked / 60) / room), 1)
    told = "The plan of all nodes together, which divide the sites among themselves"
    return f"{told}: it takes {least} of them with {room} slots each, and one more for each that may fail."


def _shortest(site: SiteSettings) -> timedelta:
    parts = [(len(part.connections), part.requests_per_minute) for part in site.parts]
    parts = parts or [(len(site.connections), site.requests_per_minute)]
    return max(fitting_interval(count, budget) for count, budget in parts)


def _asked(site: SiteSettings) -> float:
    return requests_per_minute(len(site.connections), site.interval_in_force)


def _budget(sites: tuple[SiteSettings, ...] | list[SiteSettings], asked: float) -> tuple[str, ...]:
    budget = sum(site.requests_per_minute for site in sites)
    headroom = f"{100 * (1 - asked / budget):.0f} %" if budget else ""
    return f"{asked:.1f}", str(budget), headroom, str(slots_needed(asked / 60))
