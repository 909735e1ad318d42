"""Real daemons over the same sites, each known by the address it asks at, and what is done to them."""

import asyncio
import random
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from monitor.clock import Clock
from monitor.simulator import Scenario, Simulator
from tests.daemon import Daemon, running
from tests.fleet import write_config
from tests.judge.evidence import Claim, Evidence, Kind, Line, Row, Trouble
from tests.rig import history
from tests.rig.account import Asks, lines
from tests.rig.apart import Apart, certificate
from tests.rig.database import Database
from tests.rig.weather import Weather

READY: Final = 30.0  # seconds a node may take to its start
STOPPED: Final = 30.0  # and to its end
_LOOKS: Final = 0.1


@dataclass
class Node:
    """A name, where it asks, and its lives."""

    name: str
    config: Path
    flags: Sequence[str]
    started_by: Sequence[str] = ()
    lives: list[Daemon] = field(default_factory=list)
    down: Trouble | None = None

    @property
    def life(self) -> Daemon:
        """The present one, or the last."""
        return self.lives[-1]

    @property
    def is_up(self) -> bool:
        """Whether there is a process."""
        return bool(self.lives) and self.life.process.returncode is None


class Rig:
    """The nodes, their database, the simulator, and the account of what was done to whom."""

    def __init__(
        self, simulator: Simulator, scenario: Scenario, database: Database | None, chance: random.Random
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self.weather = Weather(simulator, scenario, chance)
        self.troubles: list[Trouble] = []
        self.database = database
        self.say: Callable[[str], None] = lambda _: None
        self._simulator = simulator
        self._scenario = scenario
        self._asks = Asks(simulator, scenario)
        self._stack = AsyncExitStack()
        self._clock = Clock()
        self._began = self.now()

    def now(self) -> float:
        """Seconds since 1970, as the simulator's record counts them."""
        return self._clock.now().timestamp()

    async def add(
        self,
        name: str,
        folder: Path,
        store: Mapping[str, object],
        place: Apart | None = None,
        *,
        site: Mapping[str, object] | None = None,
    ) -> None:
        """Prepare a node: an address at the simulator, and a configuration; it is not started."""
        (folder / name).mkdir()
        base_url, api = await self._stand_in(folder / name, place)
        config = write_config(folder / name, base_url, self._scenario, store=store, api=api, site=site)
        flags = [f"--node.name={name}"] if self.database is not None else []
        self._asks.nodes[base_url.rpartition("/")[2]] = name
        self.nodes[name] = Node(name, config, flags, place.started_by if place is not None else ())

    async def _stand_in(self, folder: Path, place: Apart | None) -> tuple[str, dict[str, object]]:
        """An address of the simulator for one node only; it is asked over TLS where it is not on loopback."""
        if place is None:
            return await self._simulator.start(f"127.0.0.{11 + len(self.nodes)}"), {}
        shown = certificate(place.wix, folder)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(shown)
        return await self._simulator.start(place.wix, ssl_context=context), {"ca_file": str(shown)}

    async def start(self, name: str) -> None:
        """Begin a life of a node, and wait until it is ready."""
        node = self.nodes[name]
        daemon = running(node.config, *node.flags, started_by=node.started_by)
        node.lives.append(await self._stack.enter_async_context(daemon))
        await node.life.event("monitor_ready", READY)
        self._is_over(node)

    async def kill(self, name: str) -> None:
        """End a life with -9."""
        node = self._alive(name)
        node.down = self._begin("kill", name)
        await node.life.stop(signal.SIGKILL)

    async def leave(self, name: str) -> None:
        """Let a node go in order."""
        node = self._alive(name)
        node.down = self._begin("leave", name)
        code = await node.life.stop(signal.SIGTERM, STOPPED)
        assert code == 0, f"{name} ended with {code}: {node.life.raw[-3:]} {node.life.stderr}"

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Meanwhile a node stands still."""
        process = self._alive(name).life.process
        with self._trouble("stop", name):
            process.send_signal(signal.SIGSTOP)
            yield
            process.send_signal(signal.SIGCONT)

    @contextmanager
    def parted(self, name: str, place: Apart) -> Iterator[None]:
        """Meanwhile a node is parted from the database."""
        self._alive(name)
        with self._trouble("cut", name):
            place.cut()
            yield
            place.heal()

    async def lose_backends(self, name: str, *, notices: bool = True) -> None:
        """End all that the database does for a node, which may ask again at once.

        On a busy machine it takes a moment longer than the database says: until the node `notices`.
        """
        life = self._alive(name).life
        known = len(life.lines)
        ports = ",".join(map(str, _ports(life.process.pid, self._db.port)))
        with self._trouble("backends", name):
            ended = await self._db.query(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE client_port IN ({ports})"  # noqa: S608
            )
            if notices:
                await life.until(lambda line: line["event"] == "lease_lost", after=known)
        assert ended, f"the database did nothing for {name}"

    async def outage(self, seconds: float, *, crash: bool = False) -> None:
        """Stop the database for so long, and start it again."""
        with self._trouble("outage", None):
            await (self._db.kill() if crash else self._db.stop())
            await asyncio.sleep(seconds)
            await self._db.start()

    async def every_site_asked(self, seconds: float) -> None:
        """Wait until each site has been asked from now on, by whomever."""
        begin, missing = self.now(), {site.name for site in self._scenario.sites}
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while missing:
                    await asyncio.sleep(_LOOKS)
                    missing -= {ask.calendar.site for ask in self._asks.newest() if ask.arrived > begin}
        said = {node.name: (node.life.raw[-3:], node.life.stderr) for node in self.nodes.values()}
        assert not missing, f"nobody asks for {sorted(missing)}: {said}"

    async def all_told(self, seconds: float) -> None:
        """Wait until what was kept is in the logs, or for so long."""
        end = self.now() + seconds
        while self.now() < end:
            told = {line.transition_id for line in self._lines()}
            if all(row.transition_id in told for row in await self._rows()):
                return
            await asyncio.sleep(_LOOKS)

    async def end(self, parts: int = 1) -> Evidence:
        """Let all nodes go, and gather what is left behind of sites of so many parts."""
        ended = self.now()
        for name in [node.name for node in self.nodes.values() if node.is_up]:
            await self.leave(name)
        for node in self.nodes.values():
            node.down = None
        troubles = [each for each in self.troubles if each.began < ended]
        return Evidence(
            asks=list(self._asks),
            lines=list(self._lines()),
            rows=await self._rows(),
            claims=await self._claims(),
            troubles=troubles,
            began=self._began,
            ended=ended,
            parts=parts,
        )

    async def close(self) -> None:
        """End whatever still runs."""
        for node in self.nodes.values():
            if node.is_up:
                node.life.process.send_signal(signal.SIGCONT)
        await self._stack.aclose()

    @property
    def _db(self) -> Database:
        assert self.database is not None
        return self.database

    def _alive(self, name: str) -> Node:
        node = self.nodes[name]
        assert node.is_up, f"{name} ended by itself: {node.life.raw[-3:]} {node.life.stderr}"
        return node

    def _begin(self, kind: Kind, name: str | None) -> Trouble:
        """It lasts until it is said to be over."""
        trouble = Trouble(kind, name, self.now(), float("inf"))
        self.troubles.append(trouble)
        self.say(f"{trouble.began - self._began:6.1f}  {kind} {name or ''}")
        self._hold(name)
        return trouble

    def _end(self, trouble: Trouble) -> None:
        ended = Trouble(trouble.kind, trouble.node, trouble.began, self.now())
        self.troubles[self.troubles.index(trouble)] = ended
        self._hold(trouble.node)

    @contextmanager
    def _trouble(self, kind: Kind, name: str | None) -> Iterator[None]:
        trouble = self._begin(kind, name)
        yield
        self._end(trouble)

    def _is_over(self, node: Node) -> None:
        if node.down is not None:
            self._end(node.down)
            node.down = None

    def _hold(self, name: str | None) -> None:
        self.weather.hold(ask.calendar.site for ask in self._asks.newest() if name in (None, ask.node))

    def _lines(self) -> Iterator[Line]:
        for node in self.nodes.values():
            for life in node.lives:
                yield from lines(node.name, life.lines)

    async def _rows(self) -> list[Row]:
        if self.database is not None:
            return await history.rows(self.database)
        [node] = self.nodes.values()
        return list(history.rows_of_file(node.config.parent / "state.db", node.name))

    async def _claims(self) -> list[Claim]:
        if self.database is not None:
            return await history.claims(self.database)
        [name] = self.nodes
        return [Claim(site.name, name, 0, self._began, self._began) for site in self._scenario.sites]


@asynccontextmanager
async def rig(
    simulator: Simulator, scenario: Scenario, database: Database | None, chance: random.Random
) -> AsyncIterator[Rig]:
    """A rig whose nodes are all ended at the end."""
    made = Rig(simulator, scenario, database, chance)
    try:
        yield made
    finally:
        await made.close()


def _ports(pid: int, port: int) -> list[int]:
    """The local ports of a process's connections to that port."""
    folder = Path(f"/proc/{pid}/fd")
    sockets = {each.readlink().name.removeprefix("socket:[").removesuffix("]") for each in folder.iterdir()}
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [
        int(row[1].partition(":")[2], 16)
        for row in rows
        if row[9] in sockets and int(row[2].partition(":")[2], 16) == port
    ]
