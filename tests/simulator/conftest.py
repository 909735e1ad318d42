"""A small world, its simulator on a real socket, and a client that asks it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from monitor.simulator import Connection, OAuthClient, Scenario, Simulator, Site, Step
from tests.simulator.talk import CONNECTIONS, KEY, Ask, HandClock, OpenRaw, Reply, json_of


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def scenario() -> Scenario:
    anna = Connection(
        id="anna",
        import_enabled=True,
        export_enabled=True,
        timeline=(
            Step(at=timedelta(seconds=40), status="ERROR", reason="TOKEN_REVOKED"),
            Step(at=timedelta(seconds=90), status="SYNCED"),
        ),
        repeat=timedelta(minutes=2),
    )
    bare = Connection(id="bare", calendar_type="", status="", print_undefined=True)
    north = Site(
        name="north",
        api_key="canary-key-north",
        site_id="site-north",
        connections=(
            anna,
            bare,
            Connection(id="odd / ?%✓", status=None, calendar_type="I_CAL", import_enabled=False),
        ),
    )
    oauth = OAuthClient(client_id="app", client_secret="canary-secret", instance_id="south-instance")
    south = Site(
        name="south",
        oauth=oauth,
        connections=(Connection(id="ben"), Connection(id="gone", status="NOT_FOUND")),
    )
    return Scenario(sites=(north, south))


@pytest.fixture
async def simulator(scenario: Scenario, clock: HandClock) -> AsyncIterator[Simulator]:
    async with Simulator(scenario, clock) as simulator:
        yield simulator


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=5), auto_decompress=False
    ) as session:
        session._retry_connection = False  # else a GET that was cut off is silently sent once more
        yield session


@pytest.fixture
def ask(simulator: Simulator, session: aiohttp.ClientSession) -> Ask:
    """Send one request to a raw path, exactly as written."""

    async def send(path: str, method: str = "GET", **options: Any) -> Reply:
        url = URL(simulator.base_url + path, encoded=True)
        async with session.request(method, url, allow_redirects=False, **options) as answer:
            body = await answer.read()
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status, headers, body, json_of(body))

    return send


@pytest.fixture
def ask_connection(ask: Ask) -> Ask:
    """Get a connection of the site "north", with its key unless other headers are given."""

    async def send(connection_id: str = "anna", headers: dict[str, str] = KEY, **options: Any) -> Reply:
        return await ask(CONNECTIONS + quote(connection_id, safe=""), headers=headers, **options)

    return send


@pytest.fixture
def ask_token(ask: Ask) -> Ask:
    """Ask for a token of the site "south"; None leaves a field of the body out."""

    async def send(**changes: Any) -> Reply:
        right = {
            "grant_type": "client_credentials",
            "client_id": "app",
            "client_secret": "canary-secret",
            "instance_id": "south-instance",
        }
        body = {field: value for field, value in (right | changes).items() if value is not None}
        return await ask("/oauth2/token", "POST", json=body)

    return send


@pytest.fixture
async def open_raw(simulator: Simulator) -> AsyncIterator[OpenRaw]:
    """Send a request for a connection by hand; the answer is read by hand too."""
    writers = []

    async def send(connection_id: str = "anna") -> asyncio.StreamReader:
        url = URL(simulator.base_url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writers.append(writer)
        headers = "".join(f"{name}: {value}\r\n" for name, value in KEY.items())
        writer.write(f"GET {CONNECTIONS}{connection_id} HTTP/1.1\r\nHost: wix\r\n{headers}\r\n".encode())
        return reader

    yield send
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
