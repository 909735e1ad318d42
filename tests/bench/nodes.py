"""Nodes that share a PostgreSQL: a million connections, four processes, and one of them killed.

All of them stand on this machine, and so do the database and what answers: what is told is what each costs,
and how long a take-over takes where everybody has his share of two cores. By itself, smaller:
`python -m tests.bench.nodes --connections=20000 --minutes=1`.
"""

import argparse
import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

import aiohttp
import asyncpg

from monitor.clock import Clock
from monitor.core.machine import advance
from monitor.core.model import ConnectionState
from monitor.store import Announcement
from monitor.store.postgresql.engine import Engine
from monitor.store.postgresql.leases import Leases, Membership, Node
from monitor.store.postgresql.migrating import bring_up_to_date
from monitor.store.postgresql.schema import SCHEMA, TRANSITION_COLUMNS
from monitor.store.rows import FLAGS, STATE_COLUMNS, announcement_row, state_rows
from monitor.tasks import TaskBag
from tests.bench.fleet import every, grown, now, p99
from tests.bench.nginx import Answering, nginx
from tests.bench.processes import cpu_seconds, cpu_seconds_of_family, resident_bytes
from tests.bench.turns import tell
from tests.bench.watching import AS_ANSWERED, Fleet, write_config
from tests.daemon import Daemon, running
from tests.postgresql import PASSWORD, PostgreSQL, postgresql_server

if TYPE_CHECKING:
    from monitor.store.postgresql.engine import Connection

Row = tuple[str, str, str]

SERVER: Final = {
    "shared_buffers": "512MB",
    "wal_level": "replica",
    "checkpoint_timeout": "5min",
    "max_wal_size": "4GB",
}
"""A PostgreSQL as one has it; fsync is on."""

_LOOK_EVERY: Final = 0.02
_RENEW_EVERY: Final = 0.25
_WARM: Final = 75.0  # until what was claimed is written as watched, too
_PATIENCE: Final = 1800.0
_IN_FLIGHT: Final = 500
_MB: Final = 1_000_000
_MOVES: Final = {"sites_claimed": 1, "sites_handed_over": -1, "sites_lost": -1}
_TABLES: Final = ("connection", "transition", "lease", "node")
_AS_PROMETHEUS: Final = {
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
    "Accept-Encoding": "gzip",
}
_LAG: Final = "wix_calendar_monitor_poll_lag_seconds_bucket{"
_MISSED: Final = "wix_calendar_monitor_polls_missed_total{"
_WRITTEN: Final = f"""
    SELECT n_tup_ins + n_tup_upd, n_tup_upd, n_tup_hot_upd, pg_current_wal_lsn() - '0/0'
    FROM pg_stat_user_tables WHERE schemaname = '{SCHEMA}' AND relname = 'connection'
"""  # noqa: S608
_LEASES: Final = f"SELECT owner, count(*) FROM {SCHEMA}.lease GROUP BY owner"  # noqa: S608
_LIVE: Final = f"SELECT name, incarnation FROM {SCHEMA}.node"  # noqa: S608


class Plan(NamedTuple):
    """What is run: nodes over a fleet, looked at for so many seconds once all is settled."""

    nodes: int
    fleet: Fleet
    seconds: float


@dataclass(slots=True)
class Settled:
    """One node, from its start until it watches what is its own."""

    ready: float = 0.0
    watching: float = 0.0


@dataclass(slots=True)
class Sums:
    """What has been used and done until a moment."""

    at: float
    nodes: list[float]
    database: float
    polls: int
    rows: int
    updates: int
    hot: int
    wal: int
    pages: list[bytes] = field(default_factory=list)


class Stage:
    """The nodes, their database and what answers them."""

    def __init__(
        self,
        plan: Plan,
        server: PostgreSQL,
        database: "Connection",
        answering: Answering,
        session: aiohttp.ClientSession,
    ) -> None:
        self.plan = plan
        self.server = server
        self.database = database
        self.session = session
        self.daemons: list[Daemon] = []
        self._answering = answering

    def watched(self, daemon: Daemon) -> int:
        """The sites that it watches, by its log."""
        return sum(sign * line["sites"] for name, sign in _MOVES.items() for line in daemon.events(name))

    async def scrape(self, daemon: Daemon) -> bytes:
        """The page as Prometheus has it."""
        async with self.session.get(f"{await daemon.url()}/metrics", headers=_AS_PROMETHEUS) as got:
            return await got.read()

    async def sums(self) -> Sums:
        """What has been used until now."""
        rows, updates, hot, wal = await self.database.fetchrow(_WRITTEN) or (0, 0, 0, 0)
        nodes = [cpu_seconds(each.process.pid) for each in self.daemons]
        database = cpu_seconds_of_family(self.server.pid)
        polls = await self._answering.requests()
        return Sums(now(), nodes, database, polls, rows, updates, hot, int(wal))


async def fill(engine: Engine, fleet: Fleet) -> None:
    """The store that nodes have left behind: every connection known, and told."""
    await bring_up_to_date(engine)
    clock = Clock()
    unseen = ConnectionState(watched_since=clock.now())
    known = []
    for each in fleet.connections():
        step = advance(each, unseen, AS_ANSWERED, clock.now())
        known.append((each, step.state, [told for told in step.effects if isinstance(told, Announcement)]))
    writer = uuid4()
    states = state_rows(((each, state) for each, state, _ in known), clock)
    told = (announcement_row(what, clock) for _, _, news in known for what in news)
    connection = await engine.connect(None)
    try:
        await connection.execute("SET statement_timeout = 0")
        await connection.copy_records_to_table(
            "connection",
            records=((*row, writer, 0) for row in states),
            columns=(*STATE_COLUMNS, "writer", "turn"),
        )
        await connection.copy_records_to_table(
            "transition",
            records=(
                (*(bool(row[name]) if name in FLAGS else row[name] for name in TRANSITION_COLUMNS), True)
                for row in told
            ),
            columns=(*TRANSITION_COLUMNS, "announced"),
        )
        await connection.execute("VACUUM ANALYZE")
    finally:
        connection.terminate()


@contextmanager
def database() -> Iterator[tuple[PostgreSQL, str]]:
    """A server with settings as one has them, and an empty database of it."""
    with postgresql_server() as server:
        for name, value in SERVER.items():
            server.sql("postgres", f"ALTER SYSTEM SET {name} = '{value}'")
        server.restart()
        yield server, server.new_database()


@asynccontextmanager
async def stage(plan: Plan, folder: Path) -> AsyncIterator[tuple[Stage, list[Settled]]]:
    """All of it, settled: each node watches what is its own."""
    with database() as (server, name):
        url = server.url(name)
        tell(f"a store of {plan.fleet.sites * plan.fleet.each:,} connections is made")
        await fill(Engine(url, "bench"), plan.fleet)
        word = folder / "password"
        word.touch(mode=0o600)
        word.write_text(PASSWORD)
        async with (
            nginx(folder / "nginx") as answering,
            aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(_PATIENCE)) as session,
            AsyncExitStack() as stack,
        ):
            it = Stage(plan, server, await asyncpg.connect(url), answering, session)
            stored = f"{{url: '{url.replace(f':{PASSWORD}@', '@')}', password_file: '{word}'}}"
            config = write_config(
                folder / "nodes", plan.fleet, answering.plain, store=stored, max_in_flight=_IN_FLIGHT
            )
            yield it, await started(it, config, stack)


async def started(it: Stage, config: Path, stack: AsyncExitStack) -> list[Settled]:
    """All nodes at once, until each watches what is its own."""
    began = now()
    for number in range(it.plan.nodes):
        it.daemons.append(await stack.enter_async_context(running(config, f"--node.name=node-{number}")))
    found = [Settled() for _ in it.daemons]
    losses = TaskBag(lambda _: None)
    for each in it.daemons:
        losses.start(_tell_losses(each))

    async def ready(daemon: Daemon, its: Settled) -> None:
        await daemon.event("monitor_ready", _PATIENCE)
        its.ready = now() - began
        tell(f"ready after {its.ready:.1f} s")

    await asyncio.gather(*map(ready, it.daemons, found))
    await settled(it, began, found)
    await losses.drain(0)
    return found


async def _tell_losses(daemon: Daemon) -> None:
    """A node that loses its lease while it starts has no time left to renew it."""
    told: list[object] = []
    while True:
        line = await daemon.until(lambda line: line["event"] == "lease_lost" and line not in told, _PATIENCE)
        told.append(line)
        tell(f"a lease was lost: {line['reason']}")


async def settled(it: Stage, began: float, found: list[Settled]) -> None:
    """Until all is owned by whom it is by right, that is until nothing has moved for a while."""
    last: list[int] = [0] * len(it.daemons)
    since = now()
    while now() < since + 10.0 or sum(last) != it.plan.fleet.sites:
        await asyncio.sleep(0.1)
        sites = [it.watched(each) for each in it.daemons]
        for number, (before, count) in enumerate(zip(last, sites, strict=True)):
            if before != count:
                found[number].watching, since = now() - began, now()
        last = sites
        assert now() < began + _PATIENCE, sites
    tell(f"sites: {last}")


async def watch(it: Stage) -> tuple[Sums, Sums]:
    """What all use over the window, and do; a node's page at both ends."""
    await asyncio.sleep(_WARM)
    first = await it.scrape(it.daemons[0])
    before = await it.sums()
    await asyncio.sleep(it.plan.seconds)
    after = await it.sums()
    after.pages = [first, await it.scrape(it.daemons[0])]
    return before, after


async def renewals(url: str, seconds: float) -> list[float]:
    """How long a renewal takes, of a node that offers nothing: it is asked as a node asks."""
    engine = Engine(url, "looker")
    pool = await engine.pool()
    membership: Membership = await Leases(pool, engine).join(Node("looker", []), timedelta(seconds=6), None)
    took: list[float] = []
    until = now() + seconds
    try:
        while now() < until:
            began = now()
            await membership.beat()
            took.append(now() - began)
            await asyncio.sleep(_RENEW_EVERY)
        await membership.leave()
    finally:
        membership.end()
        await pool.close()
    return sorted(took)


@dataclass(slots=True)
class TakenOver:
    """From a kill until the last site is claimed, and watched again; what each survivor's client waited."""

    claimed: float = 0.0
    watched: float = 0.0
    looks: list[list[float]] = field(default_factory=list)


async def killed(it: Stage) -> TakenOver:
    """One node ends as by a power cut."""
    gone, *left = it.daemons
    owner = {row["name"]: row["incarnation"] for row in await it.database.fetch(_LIVE)}["node-0"]
    made = TakenOver(looks=[[] for _ in left])
    failed: list[BaseException] = []
    tasks = TaskBag(failed.append)
    for daemon, its in zip(left, made.looks, strict=True):
        tasks.start(every(_LOOK_EVERY, looking(it, await daemon.url(), its)))
    began = now()
    gone.process.kill()
    while not made.claimed or not made.watched:
        await asyncio.sleep(0.05)
        owned = {row["owner"] for row in await it.database.fetch(_LEASES)}
        if not made.claimed and owner not in owned and None not in owned:
            made.claimed = now() - began
        if not made.watched and sum(map(it.watched, left)) == it.plan.fleet.sites:
            made.watched = now() - began
        assert now() < began + _PATIENCE
    await asyncio.sleep(5.0)  # what is left to do in consequence
    await tasks.drain(0)
    assert not failed, failed
    return made


def looking(it: Stage, url: str, took: list[float]) -> Callable[[], Awaitable[None]]:
    """Asks whether it lives."""

    async def look() -> None:
        began = now()
        async with it.session.get(f"{url}/-/healthy") as got:
            await got.read()
        took.append(now() - began)

    return look


async def scraped(it: Stage, daemon: Daemon) -> list[tuple[float, float, int]]:
    """Seconds, processor seconds and bytes of the first page and the next one."""
    found = []
    for _ in range(2):
        began, used = now(), cpu_seconds(daemon.process.pid)
        size = len(await it.scrape(daemon))
        found.append((now() - began, cpu_seconds(daemon.process.pid) - used, size))
    return found


async def figures(plan: Plan, folder: Path) -> list[Row]:
    """What, figure, and no target."""
    loads = [os.getloadavg()[0]]
    async with stage(plan, folder) as (it, starts):
        loads.append(os.getloadavg()[0])
        pages = await scraped(it, it.daemons[-1])
        tell("settled; watched for a while")
        (before, after), beats = await asyncio.gather(
            watch(it), renewals(it.server.url("test_1"), _WARM + plan.seconds)
        )
        loads.append(os.getloadavg()[0])
        resident = [resident_bytes(each.process.pid) / _MB for each in it.daemons]
        sizes = [
            await it.database.fetchval(f"SELECT pg_total_relation_size('{SCHEMA}.{name}')")
            for name in _TABLES
        ]
        tell("one is killed")
        taken = await killed(it)
        lost = [len(each.events("lease_lost")) for each in it.daemons]
        again = [resident_bytes(each.process.pid) / _MB for each in it.daemons[1:]]
    return [
        *_started(plan, starts),
        *_used(plan, before, after),
        ("a node's page, first and next", _pages(pages), ""),
        ("renewal: median, 99 %, longest", _spread(beats), ""),
        ("RSS of the nodes", _each(resident, "MB"), ""),
        ("on disk: " + ", ".join(_TABLES), _each([size / _MB for size in sizes], "MB"), ""),
        ("kill -9 of a node: its last unit claimed after", f"{taken.claimed:.1f} s", ""),
        ("the same: all watched again after", f"{taken.watched:.1f} s", ""),
        (
            "the same: longest answer of each survivor",
            _each([max(its) * 1e3 for its in taken.looks], "ms"),
            "",
        ),
        ("the same: RSS of the survivors", _each(again, "MB"), ""),
        ("leases lost by each node", ", ".join(map(str, lost)), "0"),
        ("load of the machine: before, settled, watched", _each(loads, ""), ""),
    ]


def _started(plan: Plan, starts: Sequence[Settled]) -> Iterable[Row]:
    count = plan.fleet.sites * plan.fleet.each
    name = f"{plan.nodes} nodes, {count:,} connections in {plan.fleet.sites:,} sites"
    yield f"{name}: start to ready", _each([each.ready for each in starts], "s"), ""
    yield "the same: until each watches its own", _each([each.watching for each in starts], "s"), ""


def _used(plan: Plan, before: Sums, after: Sums) -> Iterable[Row]:
    took = after.at - before.at
    rows = after.rows - before.rows
    shares = [(end - start) / took * 100 for start, end in zip(before.nodes, after.nodes, strict=True)]
    database = after.database - before.database
    first, last = after.pages
    yield (
        "polls a second, all nodes",
        f"{(after.polls - before.polls) / took:,.0f}",
        f"{plan.fleet.rate:,.0f}",
    )
    yield "polls missed by a node", f"{sum(grown(first, last, _MISSED).values()):.0f}", "0"
    yield "lag behind the due instant, 99 %", f"at most {p99(grown(first, last, _LAG)):g} s", "< 1 s"
    yield "CPU of each node", _each(shares, "%"), ""
    yield "CPU of PostgreSQL, all its processes", f"{database / took:.1%}", ""
    yield "states written a second", f"{rows / took:,.0f}", ""
    yield "CPU of PostgreSQL by states written", f"{database / max(rows, 1) * 1e6:.0f} µs", ""
    hot = (after.hot - before.hot) / max(after.updates - before.updates, 1)
    yield "updates that were HOT", f"{hot:.1%}", ""
    yield "WAL by states written", f"{(after.wal - before.wal) / max(rows, 1):,.0f} bytes", ""


def _pages(pages: Sequence[tuple[float, float, int]]) -> str:
    return "; ".join(f"{took:.1f} s, CPU {used:.1f} s, {size / _MB:.0f} MB" for took, used, size in pages)


def _spread(took: list[float]) -> str:
    at = (took[len(took) // 2], took[int(0.99 * len(took))], took[-1])
    return ", ".join(f"{each * 1e3:.1f}" for each in at) + " ms"


def _each(values: Sequence[float], unit: str) -> str:
    return f"{', '.join(f'{each:,.1f}' if each < 100 else f'{each:,.0f}' for each in values)} {unit}".strip()


def run(plan: Plan) -> list[Row]:
    """In a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(figures(plan, Path(name)))


def rows(*, quick: bool = False) -> list[Row]:
    """What, figure, target."""
    return run(plan_of(20_000 if quick else 1_000_000, 60.0 if quick else 180.0))


def plan_of(connections: int, seconds: float, interval: int = 1200, nodes: int = 4, each: int = 100) -> Plan:
    """Budgets are the sites' own, and hold all."""
    return Plan(nodes, Fleet(connections // each, each, interval), seconds)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--each", type=int, default=100, help="connections of a site")
    parser.add_argument("--interval", type=int, default=1200, help="seconds")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=3.0, help="how long they are watched")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its processes are ended as with Ctrl-C
    plan = plan_of(options.connections, options.minutes * 60, options.interval, options.nodes, options.each)
    for row in run(plan):
        print(*row, sep="\t")


if __name__ == "__main__":
    main()
