"""A file behind a thread of its own: the loop waits for no disk, and commits come in the order of calls."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from monitor.clock import Clock
from monitor.core.model import ConnectionState
from monitor.errors import StoreError
from monitor.store.face import Booking, Key, Opened
from monitor.store.rows import Announcement
from monitor.store.sqlite.file import File, open_file

T = TypeVar("T")

PIECE: Final = 5000
"""About 0.1 s of the thread."""


class ThreadedFile:
    """A store of one process: nobody else writes it, so nothing is ever refused."""

    piece = PIECE

    def __init__(self, file: File, thread: ThreadPoolExecutor) -> None:
        self._file = file
        self._thread = thread

    async def states(self) -> dict[Key, ConnectionState]:
        """As the file says."""
        return await self._on_thread(self._file.states)

    async def untold(self) -> list[Announcement]:
        """As the file says."""
        return await self._on_thread(self._file.untold)

    async def commit(self, bookings: Sequence[Booking], told: Collection[str]) -> Collection[Key]:
        """Synced to the disk; one that is cancelled goes on, and the next waits for it."""
        await self._on_thread(partial(self._file.commit, bookings, told))
        return ()

    async def purge(self, retention: timedelta, watched: Collection[Key]) -> int:
        """A piece."""
        return await self._on_thread(partial(self._file.purge, retention, watched))

    async def close(self) -> None:
        """A commit under way is waited for: nothing ends it but the disk."""
        await self._on_thread(self._file.close)
        self._thread.shutdown()

    async def _on_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error


async def open_sqlite(path: Path, clock: Clock) -> Opened:
    """Open a file on the thread that is to be its own. Raises CannotStartError, as `open_file` does."""
    thread = ThreadPoolExecutor(1, "store")
    try:
        opened = await asyncio.get_running_loop().run_in_executor(thread, open_file, path, clock)
    except BaseException:
        thread.shutdown()
        raise
    return Opened(ThreadedFile(opened.file, thread), opened.known, opened.untold, opened.set_aside)
