"""Servers over a daemon that a test plays, stopped at its end."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from monitor.web.server import Server
from tests.web.talk import LOOPBACK, Daemon

Serve = Callable[..., Awaitable[tuple[Server, str]]]


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
async def serve(daemon: Daemon) -> AsyncIterator[Serve]:
    """Starts a server with these options on a port of the system's choice: it, and its URL."""
    servers: list[Server] = []

    async def begin(**options: Any) -> tuple[Server, str]:
        servers.append(Server(daemon.metrics, lambda: daemon.not_ready, **options))
        (url,) = await servers[-1].start([LOOPBACK])
        return servers[-1], url

    yield begin
    for server in servers:
        await server.stop()
