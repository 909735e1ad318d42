"""The heart: renews this node's lease, on PostgreSQL's clock, and knows whether the others respect it now.

    join ─▶ beat, beat, beat … ─▶ lost (no renewal, or the session ended) ─▶ join as another incarnation

A node whose lock has fallen is taken over from at once, though it may live and not have heard of it: its
machine paused, or the network swallowed the news. So nothing is asked of Wix unless a renewal was good less
than `CONFIRMED` ago, counted from before it was sent; requests wait for the next one. And from a node without
its lock nothing is taken until `GRACE`, which is longer, after that was seen first.

A node to which PostgreSQL answers too late for that, again and again, gives its lease up: another may have
a better way to it. And nodes that have all lost PostgreSQL do not come back in one instant: who is first
leaves the others what was theirs for as long as their next attempt may take.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

from structlog.typing import FilteringBoundLogger

from monitor.clock import Clock
from monitor.errors import CannotStartError, StoreError, WithheldError
from monitor.logs import Reasons
from monitor.store.postgresql.leases import Membership, NameTakenError, Peer

HEARTBEAT: Final = 0.2
"""Seconds between two renewals."""

CONFIRMED: Final = 0.7
"""Seconds for which a good renewal lets Wix be asked."""

GRACE: Final = 0.78
"""Seconds for which a node without its lock is left alone."""

_PATIENCE_PART: Final = 0.5  # of a lease, that an answer may take
_CALM: Final = 1.5  # seconds

Join = Callable[[UUID | None], Awaitable[Membership]]
"""Joins; told which incarnation this process was before."""

T = TypeVar("T")


def _nothing() -> None:
    """Nobody listens."""


class Heart:
    """This node's life.

    `on_beat` is called after each renewal, `on_news` when another node has given something up or has come,
    `on_lost` when a life ends.
    """

    def __init__(self, join: Join, ttl: timedelta, clock: Clock, log: FilteringBoundLogger) -> None:
        self.peers: Sequence[Peer] = ()
        self.on_beat: Callable[[], None] = _nothing
        self.on_news: Callable[[], None] = _nothing
        self.on_lost: Callable[[], None] = _nothing
        self._join = join
        self._ttl = ttl.total_seconds()
        self._patience = self._ttl * _PATIENCE_PART
        self._clock = clock
        self._log = log
        self._membership: Membership | None = None
        self._lives: set[UUID] = set()  # this process's, that may own something
        self._former: UUID | None = None
        self._settled = False
        self._confirmed_at = -CONFIRMED
        self._same_since = 0.0  # these peers
        self._missing_since: dict[UUID, float] = {}
        self._hurry = asyncio.Event()
        self._renewed: asyncio.Future[None] | None = None
        self._lost_at: datetime | None = None
        self._reasons = Reasons()
        self._alive_since = 0.0  # this life's first renewal
        self._in_time_at = 0.0  # the last renewal that let Wix be asked
        self._name_taken_at: float | None = None

    @property
    def incarnation(self) -> UUID | None:
        """Who we are, None while we are nobody."""
        return None if self._membership is None else self._membership.incarnation

    @property
    def lost_at(self) -> datetime | None:
        """When (steady) the lease was lost, until one is held again."""
        return self._lost_at

    @property
    def holds(self) -> bool:
        """Whether what is watched is surely ours now."""
        return self._settled and self._clock.monotonic() < self._confirmed_at + CONFIRMED

    @property
    def calm(self) -> bool:
        """Whether the same nodes have lived for a while, and we with them.

        Nothing is handed over to one that flaps, nor by one that has stood still.
        """
        return self._clock.monotonic() >= self._same_since + _CALM

    def was(self, owner: UUID | None) -> bool:
        """Whether an owner is this process, in this life or one before."""
        return owner in self._lives

    def left_alone(self, owners: Mapping[UUID | None, bool]) -> dict[UUID | None, float]:
        """For how many seconds more nothing is taken from each of these, all that own and do not live.

        By owner whether its lease has ended.
        """
        now = self._clock.monotonic()
        others = {each: ended for each, ended in owners.items() if each is not None and not self.was(each)}
        missing = (each for each, ended in others.items() if not ended)
        self._missing_since = {each: self._missing_since.get(each, now) for each in missing}
        back = self._alive_since + self._patience + HEARTBEAT
        ends = {each: back if ended else self._missing_since[each] + GRACE for each, ended in others.items()}
        return {each: max(ends[each] - now, 0.0) if each in ends else 0.0 for each in owners}

    def settle(self) -> None:
        """What is watched is ours in this life too, or is watched no more."""
        self._settled = True
        self._lives.intersection_update({self.incarnation})
        self._tell_held()
        self._tell_those_who_wait()

    async def renewed(self) -> None:
        """Wait until the lease is known to hold. Raises WithheldError where it is lost."""
        while not self.holds:
            if self._membership is None:
                raise WithheldError("no lease")
            if self._renewed is None:
                self._renewed = asyncio.get_running_loop().create_future()
            if self._settled:  # else it is the mover that all wait for
                self._hurry.set()
            await asyncio.shield(self._renewed)

    async def start(self) -> None:
        """Come alive. Raises CannotStartError, StoreError.

        Another node's name is waited for, as it may be our own of before a crash.
        """
        while True:
            try:
                await self._come_alive()
            except NameTakenError as error:
                self._wait_for_name(error)
                await asyncio.sleep(HEARTBEAT)
            else:
                return

    async def run(self) -> None:
        """Stay alive, or come alive again, until cancelled. Raises NameTakenError: another has our name."""
        while True:
            await self._pause()
            try:
                if self._membership is None:
                    await self._come_alive()
                else:
                    await self._beat(self._membership)
            except NameTakenError as error:
                self._lose(str(error))
                self._wait_for_name(error)
            except (StoreError, CannotStartError) as error:
                self._lose(str(error))

    def hurry(self) -> None:
        """Beat now rather than at the next time."""
        self._hurry.set()

    async def stop(self) -> None:
        """Own nothing more, and be gone; nobody calls `run` any more."""
        if (membership := self._be_nobody()) is not None:
            with suppress(StoreError):
                await self._in_time(membership.leave())
            membership.end()

    async def _come_alive(self) -> None:
        membership = await self._in_time(self._join(self._former))
        self._membership, self._former = membership, membership.incarnation
        self._lives.add(membership.incarnation)
        self._name_taken_at = None
        self._alive_since = now = self._clock.monotonic()
        self._in_time_at = now if self._lost_at is None else now - self._ttl
        membership.on_end(lambda: self._session_ended(membership))
        await self._in_time(membership.on_news(self._heard))
        await self._beat(membership)

    async def _beat(self, membership: Membership) -> None:
        sent = self._clock.monotonic()
        peers = await self._in_time(membership.beat())
        if membership is not self._membership:
            raise StoreError("the connection to PostgreSQL has ended")
        if peers is None:
            raise StoreError("the lease had ended before it was renewed")
        self._be_in_time(sent)
        if sent >= self._confirmed_at + CONFIRMED:  # polls have waited, and are under way all at once now
            self._same_since = self._clock.monotonic()
        self._confirmed_at = sent
        self._see(peers)
        self._tell_those_who_wait()
        self.on_beat()

    def _be_in_time(self, sent: float) -> None:
        """Raises StoreError where no renewal has been of use for as long as a lease lives."""
        now = self._clock.monotonic()
        if now < sent + CONFIRMED:
            self._in_time_at = now
        elif now >= self._in_time_at + self._ttl:
            raise StoreError(f"PostgreSQL needs {CONFIRMED:g} s and more for each renewal")

    def _wait_for_name(self, error: NameTakenError) -> None:
        """Raise it after as long as a lease lives: the name is another's then."""
        now = self._clock.monotonic()
        if self._name_taken_at is None:
            self._name_taken_at = now
        if now >= self._name_taken_at + self._ttl + 1.0:
            raise error

    def _see(self, peers: Sequence[Peer]) -> None:
        if peers == self.peers:
            return
        now = self._clock.monotonic()
        gone = {each.incarnation for each in self.peers} - {each.incarnation for each in peers}
        self._missing_since |= dict.fromkeys(gone, now)
        self.peers, self._same_since = peers, now

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._patience):
                return await work
        except TimeoutError:
            raise StoreError(f"PostgreSQL has not answered within {self._patience:g} s") from None

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT):
                await self._hurry.wait()
        self._hurry.clear()

    def _heard(self) -> None:
        self._hurry.set()
        self.on_news()

    def _session_ended(self, membership: Membership) -> None:
        if membership is self._membership:
            self._lose("the connection to PostgreSQL has ended")
            self._hurry.set()

    def _lose(self, reason: str) -> None:
        """Others may own soon what we owned: our lock has fallen, or is about to."""
        if (membership := self._be_nobody()) is not None:
            membership.end()
            self.on_lost()
        if self._lost_at is None:
            self._lost_at = self._clock.now()
            self._reasons = Reasons(reason)
            self._log.error("lease_lost", reason=reason)
        elif self._reasons.is_new(reason):
            self._log.warning("lease_still_lost", reason=reason)

    def _be_nobody(self) -> Membership | None:
        """Hold nothing any more; who waited hears of it. What we were, to be ended."""
        membership, self._membership, self._settled = self._membership, None, False
        self._tell_those_who_wait()
        return membership

    def _tell_held(self) -> None:
        if self._lost_at is not None:
            self._log.info("lease_held", after_seconds=(self._clock.now() - self._lost_at).total_seconds())
            self._lost_at = None

    def _tell_those_who_wait(self) -> None:
        waiting, self._renewed = self._renewed, None
        if waiting is not None:
            waiting.set_result(None)
