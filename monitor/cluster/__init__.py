"""This node among the others: what it may poll, and until when; see `heart` and `mover`."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from structlog.typing import FilteringBoundLogger

from monitor.clock import Clock
from monitor.cluster.heart import Heart
from monitor.cluster.mover import Mover
from monitor.config import Settings, StoreSettings
from monitor.errors import StoreError
from monitor.fleet import Fleet
from monitor.ledger import Ledger
from monitor.metrics.telemetry import Telemetry
from monitor.store import Key
from monitor.store.postgresql.leases import Node
from monitor.store.postgresql.store import Shared
from monitor.tasks import TaskBag
from monitor.view.facts import NodeFacts, PeerFacts

__all__ = ["Cluster"]


class Cluster:
    """A node: its heart, and its mover once there is a fleet to move."""

    def __init__(
        self,
        name: str,
        shared: Shared,
        ttl: timedelta,
        clock: Clock,
        log: FilteringBoundLogger,
        telemetry: Telemetry,
        on_task_error: Callable[[BaseException], None],
    ) -> None:
        self._node = Node(name, ())
        self._shared = shared
        self._log = log
        self._telemetry = telemetry
        self._beating = TaskBag(on_task_error)
        self._moving = TaskBag(on_task_error)
        self._heart = Heart(lambda former: shared.leases.join(self._node, ttl, former), ttl, clock, log)
        self._mover: Mover | None = None

    @property
    def holds(self) -> bool:
        """Whether the others surely respect our lease now."""
        return self._heart.holds

    @property
    def lost(self) -> bool:
        """Whether there is no lease, as far as we know."""
        return self._heart.incarnation is None

    def facts(self, store: StoreSettings, *, stops: bool) -> NodeFacts:
        """How it stands, for the page and the API; `stops`: without a lease nothing is polled."""
        return NodeFacts(
            name=self._node.name,
            nodes=[PeerFacts(each.name, each.urls) for each in self._heart.peers],
            lost_since=self._heart.lost_at,
            place=store.place,
            stops=stops,
        )

    async def renewed(self) -> None:
        """Wait until the lease is known to hold. Raises WithheldError where it is lost."""
        await self._heart.renewed()

    def may_tell(self, key: Key) -> bool:
        """Whether what changed there is ours to tell now."""
        return self.holds and self._shared.held.unit_of(*key) in self._shared.held.epochs

    async def start(self, urls: Sequence[str], settings: Settings, fleet: Fleet, ledger: Ledger) -> None:
        """Join, claim what is free, and go on so. Raises CannotStartError, StoreError."""
        self._node = Node(self._node.name, urls)
        mover = self._mover = Mover(
            self._node.name, self._heart, self._shared, settings, fleet=fleet, ledger=ledger, log=self._log
        )
        await self._heart.start()
        self._beating.start(self._heart.run(), name="heart")  # a first claim of very much may outlast a lease
        try:
            await mover.move()
        except StoreError:
            await self.stop()
            raise
        self._moving.start(mover.run(), name="mover")

    def take_over(self, settings: Settings) -> None:
        """Go on with other settings."""
        if self._mover is not None:
            self._mover.take_over(settings)

    async def rest(self) -> None:
        """Own nothing more than so far: nobody would watch it."""
        await self._moving.drain(0)

    async def stop(self) -> None:
        """Hand over what is left, and be gone; what was to be written has been."""
        await self.rest()
        await self._beating.drain(0)
        await self._heart.stop()

    def measure(self) -> None:
        """Tell the instruments how it stands."""
        if self._mover is not None:
            self._telemetry.node_stands(
                holds=self._heart.holds,
                nodes=len(self._heart.peers),
                owned=self._mover.owned,
                unowned=self._mover.unowned,
            )
