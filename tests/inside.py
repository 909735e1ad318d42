"""The daemon's own object in the test's process, over real sockets: its log as facts, its page as values."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog
from structlog.typing import FilteringBoundLogger

from monitor.clock import Clock
from monitor.config import load
from monitor.logs import Redactor
from monitor.service import Outside, Service
from monitor.store import open_store
from monitor.systemd import Notifier
from monitor.web.server import Address, WebOptions
from tests.pages import Samples, samples

Line = dict[str, Any]

_LOOKS: Final = 0.5  # seconds until the next look at a page where the log tells nothing


class Log:
    """Keeps what is logged before anything is made of it, and wakes who waits for it."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._news = asyncio.Event()

    def logger(self) -> FilteringBoundLogger:
        """What writes here: everything, debug too."""
        steps: list[structlog.typing.Processor] = [
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            self._keep,
        ]
        wrapper = structlog.make_filtering_bound_logger(logging.DEBUG)
        logger: FilteringBoundLogger = structlog.wrap_logger(None, processors=steps, wrapper_class=wrapper)
        return logger

    def events(self, name: str, since: int = 0) -> list[Line]:
        """All lines of that event, from the `since`-th line on."""
        return [line for line in self.lines[since:] if line["event"] == name]

    async def news(self, seconds: float) -> None:
        """Wait for the next line, or for so long."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    async def until(self, count: int, name: str, since: int = 0, seconds: float = 30.0) -> list[Line]:
        """The first `count` lines of that event."""
        end = time.monotonic() + seconds
        while len(found := self.events(name, since)) < count:
            assert time.monotonic() < end, f"no {count} {name} in {self.lines[since:]}"
            await self.news(seconds)
        return found[:count]

    def _keep(self, _: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        self.lines.append(dict(event))
        self._news.set()
        raise structlog.DropEvent


class Inside:
    """A daemon that runs in this process."""

    def __init__(self, url: str, log: Log) -> None:
        self.url = url
        self.log = log
        self.pages: list[str] = []

    async def look(self) -> Samples:
        """What `/metrics` says now."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as got:
            assert got.status == 200
            self.pages.append(await got.text())
        return samples(self.pages[-1])

    async def until(self, wanted: Callable[[Samples], bool], seconds: float = 30.0) -> Samples:
        """The first page that is wanted."""
        end = time.monotonic() + seconds
        while not wanted(page := await self.look()):
            assert time.monotonic() < end, f"not seen; the log: {self.log.lines}"
            await self.log.news(_LOOKS)
        return page


@asynccontextmanager
async def inside(config: Path) -> AsyncIterator[Inside]:
    """A daemon over that configuration, on a port of the system's choice, stopped at the end."""
    loaded = load(config, environ={})
    log, clock = Log(), Clock()
    outside = Outside(log.logger(), Redactor(), clock, Notifier({}))
    opened = await open_store(loaded.settings.store, clock)
    service = Service(loaded, outside, opened, asyncio.Event(), WebOptions([Address("127.0.0.1", 0)]))
    stop = asyncio.Event()
    listening: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(service.run(stop, listening.set_result))
        try:
            yield Inside((await listening)[0], log)
        finally:
            stop.set()
    assert running.result()
