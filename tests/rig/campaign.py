"""A trial: nodes over sites whose calendars change fast, and one trouble after the other."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from monitor.simulator import Connection, Scenario, Simulator
from tests.fleet import oauth_site
from tests.judge.evidence import Evidence, Terms
from tests.postgresql import PASSWORD
from tests.rig.apart import Apart, apart
from tests.rig.database import Database, database
from tests.rig.history import watch_leases
from tests.rig.nodes import Rig, rig

PATIENCE: Final = 60.0  # seconds for whatever must come
INTERVAL: Final = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a trial is, and how much of each trouble it has."""

    nodes: int = 3
    sites: int = 24
    calendars: int = 2
    """Of each site."""
    parts: int = 1
    """Of each site."""
    slow: float = 0.0
    """Seconds that Wix takes for an answer."""
    ttl: float = 6.0
    database: bool = True
    """Without, one daemon keeps a file of its own."""
    seed: int = 0
    kills: int = 0
    stops: int = 0
    """SIGSTOP for longer than a lease."""
    naps: int = 0
    """SIGSTOP for shorter than a lease."""
    edges: int = 0
    """SIGSTOP for as long as a lease."""
    sleepers: int = 0
    """SIGSTOP for shorter than a lease, and meanwhile the node's sessions are ended."""
    restarts: int = 0
    """Of the database, in order and as a crash by turns."""
    outages: int = 0
    outage_seconds: float = 60.0
    backends: int = 0
    leaves: int = 0
    rollings: int = 0
    cuts: int = 0
    """Of the link between one node and the database."""
    ambushes: int = 0
    """A cut, and meanwhile the database is restarted."""
    pause: float = 8.0
    """At most so many seconds between two troubles."""
    gone: float = 12.0
    """At most so many seconds from a node's end to its next start."""

    @property
    def terms(self) -> Terms:
        """What is promised of such nodes on a machine that others use too."""
        alone = self.gone + self.pause + PATIENCE  # nobody takes over from it: it is started again
        return Terms(interval=INTERVAL, ttl=self.ttl, take_over=self.ttl + 4.0 if self.nodes > 1 else alone)


class Campaign:
    """The troubles of a plan, each at a random moment to a random node."""

    def __init__(self, its: Rig, plan: Plan, place: Apart | None, chance: random.Random) -> None:
        self._rig = its
        self._plan = plan
        self._place = place
        self._chance = chance
        self._crashes = 0

    async def run(self) -> None:
        """All of them, shuffled, one after the other."""
        troubles = list(self._troubles())
        self._chance.shuffle(troubles)
        for trouble in troubles:
            await self._rest(self._plan.pause)
            await trouble()

    def _troubles(self) -> Iterator[Callable[[], Awaitable[None]]]:
        plan = self._plan
        yield from [self._kill] * plan.kills
        yield from [self._stop] * plan.stops
        yield from [self._nap] * plan.naps
        yield from [self._edge] * plan.edges
        yield from [self._sleeper] * plan.sleepers
        yield from [self._restart] * plan.restarts
        yield from [self._outage] * plan.outages
        yield from [self._backends] * plan.backends
        yield from [self._leave] * plan.leaves
        yield from [self._roll] * plan.rollings
        yield from [self._cut] * plan.cuts
        yield from [self._ambush] * plan.ambushes

    async def _kill(self) -> None:
        names = self._some(2 if len(self._rig.nodes) > 2 and self._chance.random() < 0.2 else 1)
        for name in names:
            await self._rig.kill(name)
        await self._rest(self._plan.gone)
        for name in names:
            await self._rig.start(name)

    async def _stop(self) -> None:
        with self._rig.stopped(self._one()):
            await asyncio.sleep(self._plan.ttl * self._chance.uniform(1.2, 2.0))

    async def _nap(self) -> None:
        with self._rig.stopped(self._one()):
            await asyncio.sleep(self._plan.ttl * self._chance.uniform(0.1, 0.9))

    async def _edge(self) -> None:
        """The beat before may be a heartbeat old: it goes on a moment before its lease ends, or after."""
        with self._rig.stopped(self._one()):
            await asyncio.sleep(self._plan.ttl - self._chance.uniform(0, 0.7))

    async def _sleeper(self) -> None:
        """Its session ends while it cannot hear of that, and its lease has not ended when it goes on."""
        name = self._one()
        with self._rig.stopped(name):
            await self._rig.lose_backends(name, notices=False)
            await asyncio.sleep(self._plan.ttl * self._chance.uniform(0.2, 0.7))

    async def _restart(self) -> None:
        self._crashes += 1
        await self._rig.outage(0, crash=self._crashes % 2 == 1)
        await self._rig.every_site_asked(PATIENCE)

    async def _outage(self) -> None:
        await self._rig.outage(self._plan.outage_seconds)
        await self._rig.every_site_asked(PATIENCE)

    async def _backends(self) -> None:
        await self._rig.lose_backends(self._one())

    async def _leave(self) -> None:
        name = self._one()
        await self._rig.leave(name)
        await self._rest(self._plan.gone)
        await self._rig.start(name)

    async def _roll(self) -> None:
        for name in self._some(3):
            await self._rig.leave(name)
            await self._rig.start(name)

    async def _cut(self) -> None:
        assert self._place is not None
        with self._rig.parted(APART, self._place):
            await asyncio.sleep(self._plan.ttl * self._chance.uniform(1.5, 2.5))

    async def _ambush(self) -> None:
        """Its session ends with the database, and the news of that is lost on the link."""
        assert self._place is not None
        with self._rig.parted(APART, self._place):
            await self._rest(1.0)
            await self._rig.outage(0)
            await asyncio.sleep(self._plan.ttl * 2)

    async def _rest(self, most: float) -> None:
        await asyncio.sleep(self._chance.uniform(0, most))

    def _one(self) -> str:
        return self._some(1)[0]

    def _some(self, count: int) -> list[str]:
        return self._chance.sample(list(self._rig.nodes), min(count, len(self._rig.nodes)))


APART: Final = "n1"
"""The node that runs in a namespace of its own, where there is one."""


async def trial(folder: Path, plan: Plan, say: Callable[[str], None] = lambda _: None) -> Evidence:
    """Carry out a plan; what it leaves behind."""
    chance = random.Random(plan.seed)
    scenario = _scenario(plan)
    async with (
        _machine(plan) as (place, made),
        Simulator(scenario) as simulator,
        rig(simulator, scenario, made, chance) as its,
    ):
        await _prepare(its, folder, plan, place)
        its.say = say
        async with its.weather.blowing():
            await Campaign(its, plan, place, chance).run()
        await its.weather.settle(3, PATIENCE)
        await its.all_told(PATIENCE)
        return await its.end(plan.parts)


async def _prepare(its: Rig, folder: Path, plan: Plan, place: Apart | None) -> None:
    """All nodes, ready; the first one makes the tables, and leases are watched from then on."""
    for number in range(1, plan.nodes + 1):
        name = f"n{number}"
        apart_ = place if name == APART else None
        await its.add(
            name, folder, _store(folder, plan, its.database, apart_), apart_, site={"parts": plan.parts}
        )
    for name in its.nodes:
        await its.start(name)
        if its.database is not None and name == APART:
            await watch_leases(its.database)
    await its.every_site_asked(PATIENCE)


def _store(folder: Path, plan: Plan, its: Database | None, place: Apart | None) -> dict[str, object]:
    if its is None:
        return {}
    word = folder / "password"
    word.write_text(PASSWORD)
    word.chmod(0o600)
    url = its.url() if place is None else its.url(place.database)
    return {
        "url": url.replace(f":{PASSWORD}@", "@"),
        "password_file": str(word),
        "lease_ttl": f"{plan.ttl:g}s",
    }


def _scenario(plan: Plan) -> Scenario:
    names = [f"s{number:03}" for number in range(plan.sites)]
    calendars = range(plan.calendars)
    return Scenario(
        latency=timedelta(seconds=plan.slow),
        sites=tuple(
            oauth_site(name, [Connection(id=f"{name}-c{each}") for each in calendars]) for name in names
        ),
    )


@asynccontextmanager
async def _machine(plan: Plan) -> AsyncIterator[tuple[Apart | None, Database | None]]:
    """The namespace and the database, where the plan wants them."""
    with _place(plan) as place:
        if not plan.database:
            yield place, None
            return
        async with database([] if place is None else [place.database]) as made:
            yield place, made


@contextmanager
def _place(plan: Plan) -> Iterator[Apart | None]:
    with apart() if plan.cuts or plan.ambushes else nullcontext() as place:
        yield place
