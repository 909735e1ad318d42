"""The demo's HTTP: it asks Prometheus and Alertmanager, and hears what Alertmanager sends."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from aiohttp import web

Notification = dict[str, Any]

_ANSWER_SECONDS: Final = 10
_LIMIT: Final = 64 << 20  # bytes; a message on a thousand alerts has two million


class NoAnswerError(Exception):
    """One of the two does not answer, or not well."""


class Api:
    """The HTTP API of one of the two."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}"
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS))

    async def get(self, path: str, **parameters: str) -> Any:
        """The answer's document; raises NoAnswerError."""
        try:
            async with self._session.get(self._url + path, params=parameters) as got:
                got.raise_for_status()
                return await got.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NoAnswerError(f"{path}: {error}") from error

    async def ready(self) -> bool:
        """Whether it says that it does its work."""
        try:
            async with self._session.get(f"{self._url}/-/ready") as got:
                return got.ok
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def close(self) -> None:
        """Let go of the connections."""
        await self._session.close()


@asynccontextmanager
async def inbox(take: Callable[[Notification], None]) -> AsyncIterator[str]:
    """Receive Alertmanager's webhooks on loopback and hand on each message; the URL to send to."""

    async def receive(request: web.Request) -> web.Response:
        take(await request.json())
        return web.Response()

    app = web.Application(client_max_size=_LIMIT)
    app.router.add_post("/", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
