"""The ledger: what polls changed is kept first and told after, and no poll waits for the disk.

A poll books its step and goes on; a task writes what was booked, many steps in one commit, then tells it.
While the disk fails, steps wait here, at most `BACKLOG` that have something to tell; past that a change is
not booked at all, and its connection goes stale instead of its change getting lost. What polls merely
confirmed is written in bulk, every `checkpoint` at most.
"""

import asyncio
import math
import sqlite3
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from structlog.typing import FilteringBoundLogger

from monitor.clock import Clock
from monitor.core.effects import ConnectionFirstSeen, Effect, SyncSettingsChanged, Transition
from monitor.core.machine import Step
from monitor.core.model import Connection, ConnectionState
from monitor.metrics.telemetry import Telemetry
from monitor.report import Reporter
from monitor.store import Booking, Key, Store
from monitor.view.facts import StoreFacts

BACKLOG: Final = 50_000
"""Steps with something to tell that wait for the disk at most, about 1 KiB each."""

BATCH: Final = 500
"""Steps of a commit at most."""

CHECKPOINT_ROWS: Final = 5000
"""Confirmed states of a commit at most: about 0.1 s of the store's thread."""

_RETRY_SECONDS: Final = 1.0
_MARK_SECONDS: Final = 1.0  # what was told is marked with the next commit, or after this
_LASTING: Final = (ConnectionFirstSeen, Transition, SyncSettingsChanged)

T = TypeVar("T")


class Ledger:
    """Books steps, writes them on a thread of its own, and tells what has been written."""

    def __init__(
        self,
        store: Store,
        reporter: Reporter,
        telemetry: Telemetry,
        clock: Clock,
        log: FilteringBoundLogger,
        checkpoint: timedelta,
    ) -> None:
        self._store = store
        self._reporter = reporter
        self._telemetry = telemetry
        self._clock = clock
        self._log = log
        self.checkpoint_every = checkpoint
        self._thread = ThreadPoolExecutor(1, "store")
        self._pending: list[tuple[Booking, tuple[Effect, ...]]] = []
        self._confirmed: dict[Key, tuple[Connection, ConnectionState]] = {}
        self._told: list[str] = []
        self._failing_since: datetime | None = None
        self._news = asyncio.Event()
        self._checkpoint_at = 0.0
        self._known = store.states()

    @property
    def facts(self) -> StoreFacts:
        """How the store does, to be looked at."""
        return StoreFacts(self._failing_since, len(self._pending), BACKLOG)

    def known(self, connection: Connection) -> ConnectionState | None:
        """What an earlier run left behind, or this one when the connection was last let go."""
        return self._known.get(_key(connection))

    def let_go(self, connection: Connection, state: ConnectionState) -> None:
        """A connection is watched no more: its state is kept, should it come back."""
        self._known[_key(connection)] = state

    def tell_untold(self) -> None:
        """Tell what an earlier run committed and did not live to tell, or to mark: under the same ids."""
        untold = self._store.untold()
        self._reporter.emit(untold)
        self._told += [told.transition_id for told in untold]
        self._news.set()

    def watch(self, connection: Connection, state: ConnectionState) -> None:
        """Remember that this connection is watched, before its first poll too."""
        self._confirmed[_key(connection)] = (connection, state)

    def book(self, connection: Connection, step: Step) -> bool:
        """Take a poll's step; False where there is no room, and the step must be taken back."""
        key = _key(connection)
        if not any(isinstance(effect, _LASTING) for effect in step.effects):
            self._confirmed[key] = (connection, step.state)
            self._reporter.emit(step.effects)
            return True
        if len(self._pending) >= BACKLOG:
            return False
        told = tuple(each for each in step.effects if isinstance(each, ConnectionFirstSeen | Transition))
        self._confirmed.pop(key, None)
        self._pending.append((Booking(connection, step.state, told), step.effects))
        self._news.set()
        return True

    async def run(self) -> None:
        """Write and tell, until cancelled."""
        now = asyncio.get_running_loop().time
        self._checkpoint_at = now() + self.checkpoint_every.total_seconds()
        while True:
            await self._pause(now())
            began = now()
            if await self.flush() and began >= self._checkpoint_at and await self.checkpoint():
                self._checkpoint_at = began + self.checkpoint_every.total_seconds()

    async def flush(self) -> bool:
        """Write a batch of what was booked, in order, and tell it; False on a failure: it waits then.

        What it told is marked by the next one.
        """
        batch, marks = self._pending[:BATCH], self._told[:]
        if not batch and not marks:
            return True
        if not await self._write([booking for booking, _ in batch], marks):
            return False
        del self._pending[: len(batch)], self._told[: len(marks)]
        for booking, effects in batch:
            self._reporter.emit(effects)
            self._told += [told.transition_id for told in booking.announcements]
        return True

    async def checkpoint(self, deadline: float = math.inf) -> bool:
        """Write what was confirmed since the last time; False on a failure: the rest is kept.

        Changes are written between its pieces, so that they do not wait for all of it.
        """
        keys = list(self._confirmed)
        for start in range(0, len(keys), CHECKPOINT_ROWS):
            if asyncio.get_running_loop().time() >= deadline:
                return False
            piece = self._ready(keys[start : start + CHECKPOINT_ROWS])
            if piece and not await self._write([Booking(*newest) for newest in piece.values()], []):
                return False
            for key, newest in piece.items():
                if self._confirmed.get(key) is newest:
                    del self._confirmed[key]
            if not await self.flush():
                return False
        return True

    async def purge(self, retention: timedelta, watched: Collection[Key]) -> None:
        """Forget what is older than the retention, a bounded piece at a time; not while the disk fails."""
        while self._failing_since is None and await self._attempt(
            partial(self._store.purge, retention, watched)
        ):
            pass

    async def close(self, limit: float) -> int:
        """Write what is left for some `limit` seconds, and close the store; how many bookings stay unwritten.

        A commit under way is waited for: nothing ends it but the disk.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + limit
        while (self._pending or self._told) and now() < deadline and await self.flush():
            pass
        if not self._pending:
            await self.checkpoint(deadline)
        await self._on_thread(self._store.close)
        self._thread.shutdown()
        return len(self._pending)

    async def _pause(self, now: float) -> None:
        """Until there is something to write, and a little longer while the disk fails."""
        if self._failing_since is not None:
            await asyncio.sleep(_RETRY_SECONDS)
            return
        patience = max(self._checkpoint_at - now, 0.0)
        if not self._pending:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(patience, _MARK_SECONDS) if self._told else patience):
                    await self._news.wait()
        self._news.clear()

    def _ready(self, keys: Collection[Key]) -> dict[Key, tuple[Connection, ConnectionState]]:
        """What was confirmed of these, but for where a booking waits, lest it be overtaken."""
        waiting = {_key(booking.connection) for booking, _ in self._pending}
        return {key: self._confirmed[key] for key in keys if key in self._confirmed and key not in waiting}

    async def _write(self, bookings: Sequence[Booking], marks: Sequence[str]) -> bool:
        return await self._attempt(partial(self._store.commit, bookings, marks)) is not None

    async def _attempt(self, work: Callable[[], int]) -> int | None:
        """What `work` counts, done on the store's thread; None where the store failed."""
        try:
            done = await self._on_thread(work)
        except sqlite3.Error as error:
            self._telemetry.store_failed()
            if self._failing_since is None:
                self._failing_since = self._clock.now()
                self._log.error("store_failing", reason=str(error), waiting=len(self._pending))
            return None
        if self._failing_since is not None:
            self._failing_since = None
            self._log.info("store_recovered", waiting=len(self._pending))
        return done

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _key(connection: Connection) -> Key:
    return connection.site, connection.id
