"""Lists of connections that an inventory system serves: asked again and again, the last good one kept.

A feed never stops anything: what it served last is a file beside the store, which the configuration reads
like any other file of connections. So its connections are watched through its outages and our restarts. A
list that is not whole, or not a list, never gets there.
"""

import asyncio
import os
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Final

import aiohttp
from structlog.typing import FilteringBoundLogger

from monitor import __version__
from monitor.config import FeedSettings, Settings, check_connections_text
from monitor.metrics.telemetry import Telemetry
from monitor.tasks import TaskBag

SIZE_LIMIT: Final = 64 << 20
"""Bytes of a list at most: more than a million connections."""

_PASSING: Final = (aiohttp.ClientError, OSError, ValueError)  # a TimeoutError is an OSError
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30)
_CHUNK: Final = 1 << 16


class _UnusableError(Exception):
    """What came cannot be used; the message says why."""


class Feeds:
    """Follows the feeds of all sites."""

    def __init__(
        self,
        log: FilteringBoundLogger,
        telemetry: Telemetry,
        wall: Callable[[], float],
        hide: Callable[[str], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._log = log
        self._telemetry = telemetry
        self._wall = wall
        self._hide = hide
        self._tasks = TaskBag(on_error)
        self._followed: dict[tuple[str, FeedSettings], asyncio.Task[None]] = {}

    def take_over(self, settings: Settings) -> None:
        """Follow these feeds from now on; those that are followed already are not disturbed."""
        wanted = {(site.name, feed) for site in settings.sites for feed in site.feeds}
        for gone in self._followed.keys() - wanted:
            self._followed.pop(gone).cancel()
            self._telemetry.feed_gone(gone[0], _shown(gone[1]))
        for site, feed in wanted - self._followed.keys():
            self._followed[site, feed] = self._tasks.start(self._follow(site, feed), name=f"feed of {site}")

    async def close(self) -> None:
        """Follow none any more."""
        await self._tasks.drain(0)

    async def _follow(self, site: str, feed: FeedSettings) -> None:
        failing = False
        while True:
            problem = await self._look(feed)
            facts = {"site": site, "feed": _shown(feed)}
            self._telemetry.feed_looked_at(**facts, wall_seconds=self._wall(), well=problem is None)
            if problem is not None and not failing:
                self._log.warning("connection_feed_failing", **facts, reason=problem)
            elif problem is None and failing:
                self._log.info("connection_feed_recovered", **facts)
            failing = problem is not None
            await asyncio.sleep(feed.interval.total_seconds())

    async def _look(self, feed: FeedSettings) -> str | None:
        """Take what the feed serves now; what is wrong with it, or None."""
        try:
            await asyncio.to_thread(_keep, feed.copy, await self._fetch(feed))
        except (_UnusableError, *_PASSING) as error:
            return str(error) or type(error).__name__
        return None

    async def _fetch(self, feed: FeedSettings) -> bytes:
        """The feed's answer. Raises one of the errors that `_look` knows."""
        headers = {
            "Accept": "application/json, application/yaml",
            "User-Agent": f"wix-calendar-monitor/{__version__}",
        }
        if feed.bearer_token is not None:
            token = feed.bearer_token.read()
            self._hide(token)
            headers["Authorization"] = f"Bearer {token}"
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(feed.url, headers=headers, allow_redirects=False) as answer,
        ):
            if answer.status != 200:  # noqa: PLR2004  OK
                raise _UnusableError(f"it answers with {answer.status}")
            content = bytearray()
            async for chunk in answer.content.iter_chunked(_CHUNK):
                content += chunk
                if len(content) > SIZE_LIMIT:
                    raise _UnusableError(f"its answer has more than {SIZE_LIMIT >> 20} MiB")
        return bytes(content)


def _shown(feed: FeedSettings) -> str:
    """Its URL as it may be told: of a query, in which there may be a key, only that it is another one."""
    plain, _, query = feed.url.partition("?")
    return f"{plain}?{blake2b(query.encode(), digest_size=4).hexdigest()}" if query else plain


def _keep(copy: Path, content: bytes) -> None:
    """Put the list in the place of the last one, unless it is the same. Raises for one that is none."""
    if copy.exists() and copy.read_bytes() == content:
        return
    if problems := check_connections_text(copy, content.decode("utf-8-sig")):
        raise _UnusableError("; ".join(problems))
    copy.parent.mkdir(mode=0o700, exist_ok=True)
    aside = copy.with_suffix(".new")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(copy)
    finally:
        aside.unlink(missing_ok=True)
