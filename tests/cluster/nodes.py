"""Nodes in one process over a real PostgreSQL: hearts and movers as they are, polls by hand."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import structlog

from monitor.clock import Clock
from monitor.cluster.heart import Heart
from monitor.cluster.mover import Mover
from monitor.config import Settings, load, units
from monitor.core.machine import advance
from monitor.core.model import Connection, ConnectionState, Observed, Status
from monitor.core.shards import Unit, owner
from monitor.ledger import Ledger
from monitor.metrics.telemetry import Telemetry
from monitor.report import Reporter
from monitor.store.postgresql.held import Held
from monitor.store.postgresql.leases import Membership
from monitor.store.postgresql.leases import Node as Name
from monitor.store.postgresql.store import Shared as Share
from monitor.store.postgresql.store import open_postgresql
from tests.store.engines import Shared
from tests.store.samples import Machine

TTL: Final = timedelta(seconds=60)  # so that no lease ends because the machine is slow
LONG: Final = timedelta(hours=1)

Line = Mapping[str, Any]


class Lease(NamedTuple):
    """A row of the leases."""

    owner: UUID | None
    epoch: int


class Polls:
    """Watches what it is given, as the fleet does; each poll is a test's."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self.watched: dict[str, Connection] = {}
        self.states: dict[str, ConnectionState] = {}
        self.under_way: dict[str, Status] = {}
        self._ledger = ledger
        self._clock = clock

    async def let_end(self, those: Iterable[Connection], limit: float) -> None:
        """What is under way of these is answered, where there is time."""
        for each in those:
            status = self.under_way.pop(each.id, None)
            if status is not None and limit:
                self.poll(each.id, status)

    def take_over(self, settings: Settings) -> None:
        given = {each.id: each for site in settings.sites for each in site.connections}
        for gone in self.watched.keys() - given.keys():
            self._ledger.let_go(self.watched.pop(gone), self.states.pop(gone))
        for new in given.keys() - self.watched.keys():
            known = self._ledger.known(given[new])
            self.states[new] = known or ConnectionState(watched_since=self._clock.now())
        self.watched = given

    def poll(self, connection_id: str, status: Status) -> None:
        """Book what Wix tells of one that is watched."""
        connection = self.watched[connection_id]
        step = advance(connection, self.states[connection_id], Observed(status), self._clock.now())
        assert self._ledger.book(connection, step)
        self.states[connection_id] = step.state


class Node:
    """A node that moves when it is told to."""

    def __init__(self, name: str, share: Share, settings: Settings, clock: Clock, ttl: timedelta) -> None:
        self.name = name
        self.share = share
        self.lines: list[Line] = []
        self.beats = 0
        self.tries: list[UUID | None] = []  # to join, each with who it was before
        self.memberships: list[Membership] = []
        log = structlog.wrap_logger(
            None, processors=[self._keep], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        telemetry = Telemetry()
        telemetry.store_is_shared()
        self.heart = Heart(lambda former: self._join(ttl, former), ttl, clock, log)
        self.ledger = Ledger(
            share.store,
            Reporter(log, telemetry, clock),
            telemetry,
            clock,
            log,
            LONG,
            known={},
            may_tell=lambda key: self.heart.holds and self.held.unit_of(*key) in self.held.epochs,
        )
        self.polls = Polls(self.ledger, clock)
        self.mover = Mover(name, self.heart, share, settings, fleet=self.polls, ledger=self.ledger, log=log)
        self._changed = asyncio.Event()
        self._on_beat, self.heart.on_beat = self.heart.on_beat, self._beaten
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def held(self) -> Held:
        return self.share.held

    @property
    def owned(self) -> set[str]:
        """The names of its sites."""
        return {unit.site for unit in self.held.epochs}

    @property
    def watched(self) -> set[str]:
        """The names of the sites that are polled."""
        return {each.site for each in self.polls.watched.values()}

    @property
    def session(self) -> "Any":
        """What its present lock is held by."""
        return self.memberships[-1]._session

    def told(self) -> list[tuple[str, str]]:
        """Of each announcement the connection's id and the status."""
        return [
            (line["connection_id"], str(line.get("to_status", line.get("status"))))
            for line in self.lines
            if "transition_id" in line
        ]

    def ids(self) -> list[str]:
        return [line["transition_id"] for line in self.lines if "transition_id" in line]

    def events(self, name: str) -> list[Line]:
        return [line for line in self.lines if line["event"] == name]

    async def join(self) -> None:
        """Come alive, and stay so, but claim nothing yet."""
        await self.heart.start()
        self.go_on()

    async def come(self) -> None:
        """Come alive and claim."""
        await self.join()
        await self.move()

    def moves_by_itself(self) -> None:
        self._run(self.mover.run())

    async def move(self) -> None:
        """With the newest that can be known of the others."""
        await self.beat()
        await self.mover.move()

    async def beat(self) -> None:
        """Wait for a renewal that is sent from now on."""
        await self.until(lambda: self.heart.incarnation is not None)
        for number in (self.beats, self.beats + 1):  # one may have been under way
            self.heart.hurry()
            await self.until(lambda number=number: self.beats > number)  # type: ignore[misc]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what beats, ends of lives and log lines may change."""
        async with asyncio.timeout(20):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def lose_session(self) -> None:
        """Its lock falls; wait until it lives again."""
        former = self.heart.incarnation
        self.session.terminate()
        await self.until(lambda: self.heart.incarnation not in (None, former))

    async def stand_still(self) -> None:
        """Beat no more, as a process that is stopped."""
        await self._end(self._tasks)

    def go_on(self) -> None:
        """Beat again."""
        self._run(self.heart.run())

    async def leave(self) -> None:
        await self._end(self._tasks)
        await self.ledger.close(5)
        await self.heart.stop()

    async def die(self) -> None:
        """End with nothing said."""
        await self._end(self._tasks)
        for each in self.memberships:
            each.end()
        await self.share.store.close()

    async def _join(self, ttl: timedelta, former: UUID | None) -> Membership:
        self.tries.append(former)
        self._changed.set()
        self.memberships.append(await self.share.leases.join(Name(self.name, []), ttl, former))
        return self.memberships[-1]

    def _run(self, work: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        tasks.clear()

    def _beaten(self) -> None:
        self.beats += 1
        self._on_beat()
        self._changed.set()

    def _keep(self, _: object, __: str, event: Line) -> Line:
        self.lines.append(event)
        self._changed.set()
        raise structlog.DropEvent


class House:
    """A database, and the nodes that share it; their clocks go on when the test says so."""

    def __init__(self, shared: Shared, folder: Path) -> None:
        self.shared = shared
        self.machine = Machine()
        self.nodes: list[Node] = []
        self._folder = folder

    def settings(self, *sites: str, **parts: int) -> Settings:
        """Of sites with two connections each; and of those with parts, with eight."""
        document = {
            "sites": [
                *(_site(name, 2) for name in sites),
                *(_site(name, 8, cut) for name, cut in parts.items()),
            ]
        }
        path = self._folder / "monitor.yml"
        path.write_text(json.dumps(document))
        return load(path, environ={"KEY": "key"}).settings

    async def node(self, name: str, settings: Settings, ttl: timedelta = TTL) -> Node:
        """One that has not joined."""
        held, clock = Held(), self.machine.boot()
        opened = await open_postgresql(self.shared.way(name), name, held, clock)
        assert opened.shared is not None
        self.nodes.append(Node(name, opened.shared, settings, clock, ttl))
        return self.nodes[-1]

    async def come(self, name: str, settings: Settings, ttl: timedelta = TTL) -> Node:
        """One that has joined and claimed."""
        node = await self.node(name, settings, ttl)
        await node.come()
        return node

    def run(self, seconds: float) -> None:
        """Let time pass for all nodes."""
        self.machine.run(timedelta(seconds=seconds))

    async def leases(self) -> dict[Unit, Lease]:
        rows = await self.shared.rows("SELECT site, part, owner, epoch FROM lease")
        return {Unit(site, part): Lease(owner, epoch) for site, part, owner, epoch in rows}

    @asynccontextmanager
    async def without(self, table: str) -> AsyncIterator[None]:
        """Meanwhile the database refuses whatever has to do with that table."""
        await self.shared.ask(lambda its: its.execute(f"ALTER TABLE {table} RENAME TO elsewhere"))
        try:
            yield
        finally:
            await self.shared.ask(lambda its: its.execute(f"ALTER TABLE elsewhere RENAME TO {table}"))

    async def close(self) -> None:
        for node in self.nodes:
            await node.die()


def _site(name: str, connections: int, parts: int = 1) -> dict[str, object]:
    return {
        "name": name,
        "credential": {"api_key_env": "KEY", "site_id": name},
        "connections": [{"id": f"{name}-{number}"} for number in range(connections)],
        **({} if parts == 1 else {"parts": parts}),
    }


def names(count: int) -> list[str]:
    return [f"site-{number}" for number in range(count)]


def share_of(name: str, members: Collection[str], settings: Settings) -> set[Unit]:
    """What is that one's by right."""
    return {unit for unit in units(settings) if owner(unit, sorted(members)) == name}
