"""The mover: claims what no live node owns, and hands over what is another's by right.

What the process watches and has not written stays with it through the end of a lease: a unit that it claims
again, and that nobody has owned in between (its epoch tells), goes on as if nothing had been. Any other is
read from the store first, as its last owner left it. What is whose by right, `rights` tells.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final, Protocol, TypeVar
from uuid import UUID

from structlog.typing import FilteringBoundLogger

from monitor.cluster.heart import Heart
from monitor.cluster.rights import Rights
from monitor.config import Settings, share, units
from monitor.core.model import Connection, ConnectionState
from monitor.core.shards import Unit
from monitor.errors import StoreError
from monitor.ledger import Ledger
from monitor.logs import Reasons
from monitor.store import Announcement, Key
from monitor.store.postgresql.leases import Free, Peer, Tally
from monitor.store.postgresql.store import Shared

_AT_A_TIME: Final = 1000  # connections, between two turns of the loop
_LAST_ANSWERS: Final = 2.0  # seconds for answers that are under way when a site is handed over
_LOOK_EVERY: Final = 1.0  # seconds, though nothing has happened that we know of
_UNTOLD: Final = 2.0  # seconds in which a question may fail before that is told: the heart may be about to
_TOLD: Final = 20  # names

T = TypeVar("T")


class Watcher(Protocol):
    """Polls what it is given."""

    def take_over(self, settings: Settings) -> None:
        """Go on with these from one instant to the next."""

    async def let_end(self, those: Iterable[Connection], limit: float) -> None:
        """Start no poll of these, which go next, and take the answers under way, for `limit` seconds."""


class Mover:
    """Owns units with the other nodes, and lets the fleet watch those that are ours."""

    def __init__(
        self,
        name: str,
        heart: Heart,
        shared: Shared,
        settings: Settings,
        *,
        fleet: Watcher,
        ledger: Ledger,
        log: FilteringBoundLogger,
    ) -> None:
        self.unowned = 0  # units that a node has in its configuration that lives, or died, and none owns
        self._heart = heart
        self._leases = shared.leases
        self._store = shared.store
        self._held = shared.held
        self._newest = self._whole = settings
        self._divided_anew: set[str] = set()  # sites that stay as they were until they are handed over
        self._fleet = fleet
        self._ledger = ledger
        self._log = log
        self._news = asyncio.Event()
        self._watched: set[Unit] = set()  # whose polls run
        self._former: dict[Unit, int] = {}  # what an incarnation before owned, and at which epoch
        self._parting: dict[Unit, Sequence[Connection]] = {}  # let go, and not handed over yet
        self._offered: tuple[UUID, frozenset[Unit]] | None = None
        self._rights = Rights(name, shared.leases)
        self._sizes: dict[Unit, int] = {}  # connections
        self._ours_to_offer: frozenset[Unit] = frozenset()
        self._unsure = False  # whether a claim may have succeeded that we did not hear of
        self._measure(settings)
        self._failing_since: float | None = None
        self._reasons = Reasons()
        self._looked_at = -_LOOK_EVERY
        self._looked_among: Sequence[Peer] = ()
        heart.on_beat = self._beaten
        heart.on_news = self._news.set
        heart.on_lost = self._lost
        self._held.on_doubt = self._doubt

    @property
    def owned(self) -> int:
        """Units that are ours."""
        return len(self._held.epochs)

    def take_over(self, settings: Settings) -> None:
        """Go on with other settings; what they do not have any more is handed over soon.

        A site that they divide differently stays as it is until then: what waits of it is its present units'.
        """
        self._newest = settings
        self._go_on_with(self._divided_as_now(settings))

    def _go_on_with(self, settings: Settings) -> None:
        self._measure(settings)
        self._part_with(self._watched - self._ours_to_offer)
        self._whole = settings
        self._watch(self._watched)
        self._news.set()

    async def run(self) -> None:
        """Own what we ought to, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self.move()
            except StoreError as error:
                self._unsure = True
                self._heart.hurry()  # which may find out what is wrong, and tell
                self._fail(str(error))
            else:
                self._recover()

    async def move(self) -> None:
        """Claim and hand over, once. Raises StoreError."""
        me = self._heart.incarnation
        if me is None:
            return
        self._looked_at, self._looked_among = asyncio.get_running_loop().time(), self._heart.peers
        await self._offer(me)
        if self._unsure or await self._leases.tally(me) != self._tally():
            await self._find_out(me)
        owned, calm = self._held.epochs, self._heart.calm
        rightful = await self._rights.among(self._heart.peers, calm=calm, owned=owned)
        free = await self._leases.free()
        self.unowned = sum(each.is_orphan or self._rights.wants(each.unit) for each in free)
        ripe = self._ripe(free)
        if self._held.incarnation != me:
            await self._claim_again(me, ripe)
        wanted = (each for each in ripe if each.unit in rightful and each.unit not in self._held.epochs)
        await self._claim(me, list(wanted))
        self._watch_again((self._held.epochs.keys() - self._watched) & rightful)
        if self._heart.calm:
            await self._hand_over(me, self._held.epochs.keys() - rightful)

    def _fail(self, reason: str) -> None:
        """Tell what keeps a node that lives from owning."""
        now = asyncio.get_running_loop().time()
        if self._heart.incarnation is None:  # that is told
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since, self._reasons = now, Reasons()
        elif now >= self._failing_since + _UNTOLD and self._reasons.is_new(reason):
            self._log.error("claims_failing", reason=reason)

    def _recover(self) -> None:
        if self._failing_since is not None and self._reasons.any:
            self._log.info("claims_recovered")
        self._failing_since = None

    def _beaten(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._heart.peers is not self._looked_among or now >= self._looked_at + _LOOK_EVERY:
            self._news.set()

    def _doubt(self) -> None:
        """The store has refused what we took for ours."""
        self._unsure = True
        self._news.set()

    def _lost(self) -> None:
        """The lease has ended: nothing of ours is written until it is claimed again."""
        self._former |= self._held.epochs
        self._held.incarnation = None
        self._held.epochs.clear()

    def _divided_as_now(self, settings: Settings) -> Settings:
        former = {site.name: site for site in self._whole.sites}
        self._divided_anew = {
            site.name
            for site in settings.sites
            if site.name in former and site.units != former[site.name].units
        }
        stay = {name: former[name] for name in self._divided_anew}
        return replace(settings, sites=tuple(stay.get(site.name, site) for site in settings.sites))

    async def _divide_anew(self, me: UUID) -> None:
        """Nobody polls by the new division before all is written and given up by the former one."""
        if self._held.incarnation == me and not self._unsure:  # else it is claimed again, or found out, first
            await self._hand_over(me, {unit for unit in self._held.epochs if unit.site in self._divided_anew})
        if not any(unit.site in self._divided_anew for unit in (*self._watched, *self._parting)):
            self._divided_anew.clear()
            self._go_on_with(self._newest)

    async def _offer(self, me: UUID) -> None:
        if self._divided_anew:
            await self._divide_anew(me)
        offered = self._ours_to_offer
        if self._offered != (me, offered):
            await self._leases.offer(me, offered)
            await self._leases.forget()
            self._offered = me, offered
            self._rights.forget()

    def _tally(self) -> Tally:
        """Of what we believe to own: an answer that was lost may come true after we have looked."""
        return Tally(len(self._held.epochs), sum(self._held.epochs.values()))

    async def _find_out(self, me: UUID) -> None:
        """What came of a claim or a release that nobody answered."""
        owned = await self._leases.owned(me)
        if self._heart.incarnation == me:
            await self._drop({unit for unit, epoch in self._held.epochs.items() if owned.get(unit) != epoch})
            await self._take(me, owned)
            self._unsure = False

    def _ripe(self, free: Sequence[Free]) -> list[Free]:
        """Those that may be taken now; the others are looked at again when they may."""
        waits = self._heart.left_alone({each.owner: each.has_ended for each in free})
        if (soonest := min(filter(None, waits.values()), default=None)) is not None:
            asyncio.get_running_loop().call_later(soonest, self._news.set)
        return [each for each in free if not waits[each.owner]]

    async def _claim_again(self, me: UUID, free: Sequence[Free]) -> None:
        """What is ours since a life before, ahead of all else; what another has had since goes."""
        still = [each for each in free if each.unit in self._former and self._heart.was(each.owner)]
        await self._drop(self._former.keys() - {each.unit for each in still})
        self._former = {each.unit: each.epoch for each in still}
        await self._claim(me, still, patiently=True)
        if self._heart.incarnation == me:
            await self._drop(set(self._former))
            self._former.clear()
            self._held.incarnation = me
            self._heart.settle()

    async def _claim(self, me: UUID, free: Sequence[Free], *, patiently: bool = False) -> None:
        """Claim these; once others live than when we looked, what is ours is looked at anew first."""
        for batch in self._batches(free, lambda each: each.unit):
            await self._take(me, await self._leases.claim(me, batch, patiently=patiently))
            if not patiently and self._heart.peers is not self._looked_among:
                return

    async def _take(self, me: UUID, got: Mapping[Unit, int]) -> None:
        new = {unit: epoch for unit, epoch in got.items() if self._held.epochs.get(unit) != epoch}
        if not new or self._heart.incarnation != me:
            return
        known = await self._store.states_of(new)
        again = {unit for unit, epoch in new.items() if self._former.get(unit) == epoch - 1}
        here = self._watched | self._parting.keys()
        fresh = new.keys() - (again & here)
        await self._drop(fresh & here)
        async with self._ledger.at_rest():  # what is marked while we read would seem untold
            untold = await self._store.untold_of(new)
            if self._heart.incarnation == me:
                self._own(new, fresh, known, untold)

    def _own(
        self,
        got: Mapping[Unit, int],
        fresh: AbstractSet[Unit],
        known: Mapping[Key, ConnectionState],
        untold: Sequence[Announcement],
    ) -> None:
        """Go on with what nobody has owned meanwhile, begin with `fresh` as its last owner left it."""
        for unit in got:
            self._former.pop(unit, None)
        self._held.epochs.update(got)
        states = {key: state for key, state in known.items() if self._held.unit_of(*key) in fresh}
        self._ledger.learn(states, untold)
        if fresh:
            self._watch(self._watched | fresh)
            self._log.info("sites_claimed", **_told(fresh))

    async def _hand_over(self, me: UUID, those: Collection[Unit]) -> None:
        for batch in self._batches(sorted(those), lambda each: each):
            here = list(self._here_of(batch))
            if not await self._ledger.hand_over(here):  # while they are polled yet
                return
            await self._fleet.let_end(here, _LAST_ANSWERS)
            self._part_with(self._watched.intersection(batch))
            leaving = [each for unit in batch for each in self._parting.get(unit, ())]
            if not await self._ledger.hand_over(leaving):
                self._watch_again(self._parting.keys() & self._ours_to_offer & set(batch))
                return
            if self._heart.incarnation != me:
                return
            await self._leases.release(me, batch)
            self._forget(batch, leaving)
            self._log.info("sites_handed_over", **_told(batch))
            if self._heart.peers is not self._looked_among:  # one that died is to be taken over from first
                self._news.set()
                return

    def _part_with(self, those: Collection[Unit]) -> None:
        """Poll these no more; they are ours until what they changed is written."""
        if those:
            self._parting |= _connections(self._whole, those)
            self._watch(self._watched - set(those))

    def _watch_again(self, those: Collection[Unit]) -> None:
        """Go on with what was to be handed over, and is ours by right again."""
        for unit in those:
            self._parting.pop(unit, None)
        if those:
            self._watch(self._watched.union(those))

    async def _drop(self, those: Collection[Unit]) -> None:
        """These are another's by now: what we knew is old, and what we have not written is for nothing."""
        for batch in self._batches(sorted(those), lambda each: each):
            await self._fleet.let_end(self._here_of(batch), 0.0)
            if watched := self._watched.intersection(batch):
                self._part_with(watched)
            dropped = self._forget(batch, [each for unit in batch for each in self._parting.get(unit, ())])
            if watched:
                self._log.warning("sites_lost", **_told(watched), changes_dropped=dropped)
            await asyncio.sleep(0)  # all at once would hold the heart up, and cost the next lease

    def _forget(self, those: Collection[Unit], connections: Iterable[Connection]) -> int:
        for unit in those:
            self._held.epochs.pop(unit, None)
            self._parting.pop(unit, None)
        return self._ledger.forget(connections)

    def _here_of(self, those: Collection[Unit]) -> Iterator[Connection]:
        """What of these is polled, or was and may be asked for yet."""
        for connections in _connections(self._whole, self._watched.intersection(those)).values():
            yield from connections
        for unit in those:
            yield from self._parting.get(unit, ())

    def _watch(self, those: set[Unit]) -> None:
        self._watched = those
        self._fleet.take_over(share(self._whole, those))

    def _measure(self, settings: Settings) -> None:
        for site in settings.sites:
            self._held.parts[site.name] = max(len(site.parts), 1)
        self._ours_to_offer = frozenset(units(settings))
        every = _connections(settings, self._ours_to_offer)
        self._sizes = {unit: len(connections) for unit, connections in every.items()}

    def _batches(self, those: Iterable[T], unit_of: Callable[[T], Unit]) -> Iterator[list[T]]:
        """So few at a time that reading their states holds nobody up."""
        batch: list[T] = []
        size = 0
        for each in those:
            batch.append(each)
            size += self._sizes.get(unit_of(each), 0)
            if size >= _AT_A_TIME:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def _connections(settings: Settings, those: Collection[Unit]) -> dict[Unit, Sequence[Connection]]:
    """The connections of these units."""
    found: dict[Unit, Sequence[Connection]] = {}
    for site in share(settings, those).sites:
        found |= {Unit(site.name, part.number): part.connections for part in site.parts} or {
            Unit(site.name): site.connections
        }
    return found


def _told(those: Collection[Unit]) -> dict[str, object]:
    return {"sites": len(those), "sites_first": sorted(unit.site for unit in those)[:_TOLD]}
