"""Putting a site's way to Wix together: its pace and its client, over the shared session and slots."""

import random
from collections.abc import Callable

from monitor.clock import Clock
from monitor.config import SiteSettings
from monitor.core.site import Site
from monitor.wix.client import Api, WixClient
from monitor.wix.pace import UNSHARED, Pace, Permit, Slots


def connect_site(
    settings: SiteSettings,
    api: Api,
    slots: Slots,
    clock: Clock,
    *,
    hide: Callable[[str], None],
    on_renewed: Callable[[], None],
    permit: Permit = UNSHARED,
) -> WixClient:
    """The client of one site; nothing is sent yet."""
    jitter = lambda: random.uniform(-1, 1)  # noqa: E731, S311
    pace = Pace(_site(settings), settings.requests_per_minute, slots, clock, jitter, permit)
    return WixClient(api, pace, clock, settings.credential, hide, on_renewed)


def adapt_site(client: WixClient, settings: SiteSettings) -> None:
    """Let a site's client go on with other settings; its budget and what is known of the site stand."""
    client.pace.adapt(_site(settings), settings.requests_per_minute)
    client.use(settings.credential)


def _site(settings: SiteSettings) -> Site:
    return Site(
        name=settings.name,
        interval=settings.interval_in_force,
        breaker_failures=settings.breaker_failures,
        connections=len(settings.connections),
        slots=settings.slots,
    )
