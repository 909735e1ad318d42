"""The plan as `check-config` prints it."""

from typing import Final

from monitor.config.settings import Settings, SiteSettings
from monitor.core.plan import fitting_interval, requests_per_minute, slots_needed
from monitor.durations import format_duration
from monitor.tables import table

_HEAD: Final = ("site", "connections", "interval", "shortest", "requests/min", "budget", "headroom", "slots")


def plan_report(settings: Settings) -> str:
    """An aligned table: per site what it asks of Wix at the interval in force, and a line of totals.

    `shortest` is the shortest interval that the site's budget and slots carry.
    """
    rows = [*(_row(site) for site in settings.sites), _total(settings)]
    return table(_HEAD, rows, right=_HEAD[1:])


def _row(site: SiteSettings) -> tuple[str, ...]:
    interval = format_duration(site.interval_in_force)
    if site.interval_in_force > site.interval:
        interval = f"{interval} (asked: {format_duration(site.interval)})"
    asked = _asked(site)
    shortest = fitting_interval(len(site.connections), site.requests_per_minute)
    return (
        site.name,
        str(len(site.connections)),
        interval,
        format_duration(shortest),
        *_budget([site], asked),
    )


def _total(settings: Settings) -> tuple[str, ...]:
    count = sum(len(site.connections) for site in settings.sites)
    asked = sum(_asked(site) for site in settings.sites)
    row = ("total", str(count), "", "", *_budget(settings.sites, asked))
    return (*row[:-1], f"{row[-1]} of {settings.api.max_in_flight}")


def _asked(site: SiteSettings) -> float:
    return requests_per_minute(len(site.connections), site.interval_in_force)


def _budget(sites: tuple[SiteSettings, ...] | list[SiteSettings], asked: float) -> tuple[str, ...]:
    budget = sum(site.requests_per_minute for site in sites)
    headroom = 100 * (1 - asked / budget)
    return f"{asked:.1f}", str(budget), f"{headroom:.0f} %", str(slots_needed(asked / 60))
