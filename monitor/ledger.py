"""The ledger: what polls changed is kept first and told after, and no poll waits for the disk.

A poll books its step and goes on; a task writes what was booked, many steps in one commit, then tells it.
While the store fails, steps wait here, at most `BACKLOG` that have something to tell; past that a change is
not booked at all, and its connection goes stale instead of its change getting lost. What polls merely
confirmed is written in bulk, `checkpoint` later at most, in pieces evenly apart: a burst of everything would
hold the loop up, and find no room for a row's next version on the page that it is on.

Where several nodes share the store, it refuses what a node writes of a connection that another has taken
over: that is dropped, and told by nobody but the other. What was kept and may not be told any more stays
unmarked, so that the next owner tells it.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeVar

from structlog.typing import FilteringBoundLogger

from monitor.clock import Clock
from monitor.core.effects import ConnectionFirstSeen, Effect, SyncSettingsChanged, Transition
from monitor.core.machine import Step
from monitor.core.model import Connection, ConnectionState
from monitor.errors import LeaseChangedError, StoreError
from monitor.logs import Reasons
from monitor.metrics.telemetry import Telemetry
from monitor.report import Reporter
from monitor.store import Announcement, Booking, Key, Store
from monitor.view.facts import StoreFacts

BACKLOG: Final = 50_000
"""Steps with something to tell that wait for the store at most, about 1 KiB each."""

BATCH: Final = 500
"""Steps of a commit at most."""

_RETRY_SECONDS: Final = 1.0
_MARK_SECONDS: Final = 1.0  # what was told is marked with the next commit, or after this
_ANNOUNCED: Final = (ConnectionFirstSeen, Transition)
_LASTING: Final = (ConnectionFirstSeen, Transition, SyncSettingsChanged)

T = TypeVar("T")


class _Waiting(NamedTuple):
    """What waits for the store, and what is told once it is kept."""

    booking: Booking
    effects: tuple[Effect, ...]


class _Kept(NamedTuple):
    """What is written, and told as soon as it may be."""

    key: Key
    effects: tuple[Effect, ...]

    @property
    def ids(self) -> Iterator[str]:
        """Under which it is told."""
        return (each.transition_id for each in self.effects if isinstance(each, _ANNOUNCED))


class Ledger:
    """Books steps, writes them while the loop goes on, and tells what has been written.

    `known` is what earlier runs left behind; `may_tell` is asked before what was kept is told.
    """

    def __init__(
        self,
        store: Store,
        reporter: Reporter,
        telemetry: Telemetry,
        clock: Clock,
        log: FilteringBoundLogger,
        checkpoint: timedelta,
        *,
        known: Mapping[Key, ConnectionState],
        may_tell: Callable[[Key], bool] = lambda _: True,
    ) -> None:
        self._store = store
        self._reporter = reporter
        self._telemetry = telemetry
        self._clock = clock
        self._log = log
        self.checkpoint_every = checkpoint
        self._may_tell = may_tell
        self._pending: list[_Waiting] = []
        self._confirmed: dict[Key, tuple[Connection, ConnectionState]] = {}
        self._kept: list[_Kept] = []  # not told yet
        self._told: list[str] = []
        self._failing_since: datetime | None = None
        self._reasons = Reasons()
        self._waits = False  # before it is tried again
        self._news = asyncio.Event()
        self._checkpoint_at = 0.0  # its next piece
        self._round: list[Key] = []  # what is left of it
        self._apart = 0.0  # seconds between its pieces
        self._writing = asyncio.Lock()  # so that no write overtakes an older one of the same connection
        self._known = dict(known)

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

    def at_rest(self) -> AbstractAsyncContextManager[None]:
        """Meanwhile nothing is written and no mark is set."""
        return self._writing

    def learn(self, states: Mapping[Key, ConnectionState], untold: Sequence[Announcement]) -> None:
        """Take what the store knows of connections that are ours from now on.

        What was committed of them and not told, or not marked, is told under the same ids.
        """
        self._known.update(states)
        waiting = (what.transition_id for each in self._pending for what in each.booking.announcements)
        kept = (each_id for each in self._kept for each_id in each.ids)
        heard = {*self._told, *waiting, *kept}  # told, or to be told, from here
        news = (each for each in untold if each.transition_id not in heard)
        self._kept += [_Kept((each.site, each.connection_id), (each,)) for each in news]
        self._tell()
        self._news.set()

    def forget(self, connections: Iterable[Connection]) -> int:
        """These are another node's now: what waits of them is neither written nor told; how many changes."""
        keys = set(map(_key, connections))
        for key in keys:
            self._known.pop(key, None)
            self._confirmed.pop(key, None)
        before = len(self._pending)
        self._pending = [each for each in self._pending if _key(each.booking.connection) not in keys]
        self._kept = [each for each in self._kept if each.key not in keys]
        dropped = before - len(self._pending)
        self._telemetry.writes_fenced(dropped)
        return dropped

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
        told = tuple(each for each in step.effects if isinstance(each, _ANNOUNCED))
        self._confirmed.pop(key, None)
        self._pending.append(_Waiting(Booking(connection, step.state, told), step.effects))
        self._news.set()
        return True

    async def run(self) -> None:
        """Write and tell, until cancelled."""
        now = asyncio.get_running_loop().time
        self._checkpoint_at = now() + self.checkpoint_every.total_seconds()
        while True:
            await self._pause(now())
            began = now()
            if await self.flush() and began >= self._checkpoint_at and await self._go_round():
                self._checkpoint_at = began + self._apart

    async def flush(self) -> bool:
        """Write a batch of what was booked, in order, and tell it; False on a failure: it waits then.

        What it told is marked by the next one.
        """
        self._tell()
        async with self._writing:
            batch, marks = self._pending[:BATCH], self._told[:]
            if not batch and not marks:
                return True
            refused = await self._write([each.booking for each in batch], marks)
            if refused is None:
                return False
            del self._told[: len(marks)]
            for each in self._taken_out(batch):
                if (key := _key(each.booking.connection)) not in refused:
                    self._kept.append(_Kept(key, each.effects))
            self._tell()
        return True

    async def checkpoint(self, deadline: float = math.inf) -> bool:
        """Write what was confirmed since the last time, at once; False on a failure: the rest is kept.

        Changes are written between its pieces, so that they do not wait for all of it.
        """
        return await self._write_confirmed(list(self._confirmed), deadline)

    async def hand_over(self, connections: Collection[Connection]) -> bool:
        """Write all that waits of these, before they become another node's; False where the store failed."""
        keys = dict.fromkeys(map(_key, connections))
        while any(_key(each.booking.connection) in keys for each in self._pending):
            if not await self.flush():
                return False
        confirmed = [key for key in keys if key in self._confirmed]
        return await self._write_confirmed(confirmed) and await self.flush()  # the marks

    async def purge(self, retention: timedelta, watched: Collection[Key]) -> None:
        """Forget what is older than the retention, a bounded piece at a time; not while the disk fails."""
        gone: int | None = 1
        while gone and self._failing_since is None:
            gone = await self._attempt(self._store.purge(retention, watched))

    async def close(self, limit: float) -> int:
        """Write what is left for some `limit` seconds, and close the store; how many bookings stay unwritten.

        A commit under way is waited for.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + limit
        self._tell()
        while (self._pending or self._told) and now() < deadline and await self.flush():
            pass
        if not self._pending:
            await self.checkpoint(deadline)
        await self._store.close()
        return len(self._pending)

    async def _pause(self, now: float) -> None:
        """Until there is something to write, and a little longer where that failed."""
        if self._waits:
            await asyncio.sleep(_RETRY_SECONDS)
            return
        patience = max(self._checkpoint_at - now, 0.0)
        if not self._pending:
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    min(patience, _MARK_SECONDS) if self._told or self._kept else patience
                ):
                    await self._news.wait()
        self._news.clear()

    async def _go_round(self) -> bool:
        """The next piece of the checkpoint; False on a failure: it is tried again.

        What is confirmed just after a round has begun waits for its end, and for its place in the next one.
        """
        if not self._round:
            self._round = list(self._confirmed)
            pieces = max(math.ceil(len(self._round) / self._store.piece), 1)
            self._apart = self.checkpoint_every.total_seconds() / (2 * pieces - 1)
        if not await self._write_piece(self._round[: self._store.piece]):
            return False
        del self._round[: self._store.piece]
        return True

    async def _write_confirmed(self, keys: Sequence[Key], deadline: float = math.inf) -> bool:
        for start in range(0, len(keys), self._store.piece):
            if asyncio.get_running_loop().time() >= deadline:
                return False
            if not await self._write_piece(keys[start : start + self._store.piece]) or not await self.flush():
                return False
        return True

    async def _write_piece(self, keys: Collection[Key]) -> bool:
        async with self._writing:
            piece = self._ready(keys)
            if piece and await self._write([Booking(*newest) for newest in piece.values()], []) is None:
                return False
            for key, newest in piece.items():
                if self._confirmed.get(key) is newest:
                    del self._confirmed[key]
        return True

    def _taken_out(self, batch: Sequence[_Waiting]) -> list[_Waiting]:
        """What still waits of a batch, taken out of what waits: some may have been forgotten meanwhile."""
        ours = set(map(id, batch))
        left = [each for each in self._pending[: len(batch)] if id(each) in ours]
        del self._pending[: len(left)]
        return left

    def _tell(self) -> None:
        """Tell what is kept, in order, but for what may not be told now."""
        kept, self._kept = self._kept, []
        for each in kept:
            if self._may_tell(each.key):
                self._reporter.emit(each.effects)
                self._told += each.ids
            else:
                self._kept.append(each)

    def _ready(self, keys: Collection[Key]) -> dict[Key, tuple[Connection, ConnectionState]]:
        """What was confirmed of these, but for where a booking waits, lest it be overtaken."""
        waiting = {_key(each.booking.connection) for each in self._pending}
        return {key: self._confirmed[key] for key in keys if key in self._confirmed and key not in waiting}

    async def _write(self, bookings: Sequence[Booking], marks: Sequence[str]) -> Collection[Key] | None:
        """The connections of which the store refused to take anything; None where it failed."""
        refused = await self._attempt(self._store.commit(bookings, marks))
        if refused:
            self._telemetry.writes_fenced(sum(_key(each.connection) in refused for each in bookings))
        return refused

    async def _attempt(self, work: Awaitable[T]) -> T | None:
        """What the store gives; None where it failed."""
        try:
            done = await work
        except LeaseChangedError:  # the store is well, and what is whose is found out by now
            self._waits = True
            return None
        except StoreError as error:
            self._waits = True
            self._telemetry.store_failed()
            if self._failing_since is None:
                self._failing_since = self._clock.now()
                self._reasons = Reasons()
            if self._reasons.is_new(str(error)):
                self._log.error("store_failing", reason=str(error), waiting=len(self._pending))
            return None
        self._waits = False
        if self._failing_since is not None:
            self._failing_since = None
            self._log.info("store_recovered", waiting=len(self._pending))
        return done


def _key(connection: Connection) -> Key:
    return connection.site, connection.id
