"""The past, read from the store beside the daemon that writes it: on a thread, and never for long."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import Final, TypeVar

from monitor.errors import StoreUnreadableError
from monitor.store.reading import Chapter, Instant, Lease, Reader, Wanted

_SECONDS: Final = 5.0  # of a question; what takes longer is given up

T = TypeVar("T")

Open = Callable[[float], AbstractContextManager[Reader]]
"""Opens a store for reading, for so many seconds."""


class Past:
    """Reads a store; without a way to open it there is none."""

    def __init__(self, open_store: Open | None) -> None:
        self._open = open_store
        self._thread = ThreadPoolExecutor(1, "past")

    async def changes(
        self, wanted: Wanted, limit: int, before: Instant | None = None
    ) -> list[tuple[Instant, Chapter]]:
        """A page of what changed, newest first. Raises StoreUnreadableError."""
        return await self._read(lambda reader: reader.changes(wanted, limit, before))

    async def life(self, site: str, connection_id: str, begin: datetime, most: int) -> list[Chapter]:
        """The newest chapters of a connection since then, and the one that it began with, newest first.

        Raises StoreUnreadableError.
        """

        def ask(reader: Reader) -> list[Chapter]:
            its = Wanted(site=site, connection_id=connection_id)
            since = reader.changes(replace(its, since=begin), most)
            before = reader.changes(replace(its, until=begin), 1) if len(since) < most else []
            return [chapter for _, chapter in (*since, *before)]

        return await self._read(ask)

    async def leases(self, site: str) -> list[Lease]:
        """Who owns a site, or parts of it, now. Raises StoreUnreadableError."""
        return await self._read(lambda reader: reader.leases(site))

    def close(self) -> None:
        """Read no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _read(self, ask: Callable[[Reader], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._on_thread, ask)

    def _on_thread(self, ask: Callable[[Reader], T]) -> T:
        if self._open is None:
            raise StoreUnreadableError("there is no store")
        with self._open(_SECONDS) as reader:
            return ask(reader)
