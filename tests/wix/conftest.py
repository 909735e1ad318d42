"""A site's client over the real session, pointed at whatever server a test has."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from typing import NamedTuple

import pytest

from monitor.config import ApiKeyCredential, ApiSettings, OAuthCredential, SiteSettings
from monitor.wix.client import Api, WixClient
from monitor.wix.pace import Slots
from monitor.wix.site import connect_site
from tests.wix import plays
from tests.wix.servers import ShiftedClock


class Party(NamedTuple):
    """A client and what it told around it."""

    client: WixClient
    clock: ShiftedClock
    hidden: list[str]
    renewals: list[None]
    took: list[float]


OpenParty = Callable[..., Awaitable[Party]]


@pytest.fixture
async def open_party() -> AsyncIterator[OpenParty]:
    """Open a client of one site; everything is closed after the test."""
    opened: list[tuple[WixClient, Api]] = []

    async def connect(
        settings: ApiSettings,
        credential: ApiKeyCredential | OAuthCredential,
        *,
        slots: Slots | None = None,
        requests_per_minute: int = 1000,
    ) -> Party:
        clock = ShiftedClock()
        hidden: list[str] = []
        renewals: list[None] = []
        took: list[float] = []
        api = Api(settings, clock, took.append)
        await api.open()
        site = SiteSettings(
            name="downtown",
            credential=credential,
            requests_per_minute=requests_per_minute,
            interval=timedelta(minutes=1),
            interval_in_force=timedelta(minutes=1),
            breaker_failures=5,
            maintenance_until=None,
            connections=(),
        )
        client = connect_site(
            site,
            api,
            slots or Slots(64),
            clock,
            hide=hidden.append,
            on_renewed=lambda: renewals.append(None),
        )
        opened.append((client, api))
        return Party(client, clock, hidden, renewals, took)

    yield connect
    for client, api in opened:
        await client.close()
        await api.close()


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that refuses."""
    with plays.dead_port() as port:
        yield port


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """A port whose queue is full."""
    with plays.full_backlog() as port:
        yield port
