"""A whole fleet on one core: 100,000 connections at a minute, answers after 300 ms, scraped every 15 s.

The daemon is pinned to one core; what answers, scrapes and looks shares the other. By itself, for another
fleet or time: `python -m tests.bench.fleet --sites=100 --minutes=3`.
"""

import argparse
import asyncio
import gzip
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from monitor.demo.children import child
from monitor.tasks import TaskBag
from tests.bench.processes import cpu_seconds, resident_bytes
from tests.bench.turns import tell
from tests.bench.watching import Fleet, watching
from tests.daemon import Daemon

Row = tuple[str, str, str]

FLEET: Final = Fleet(sites=1000, each=100, interval=60, budget=160)
DELAY: Final = 0.3
WARM: Final = (
    150.0  # seconds: two rounds of polls, so that each budget's minute is full and each row rendered
)

_SCRAPE_EVERY: Final = 15.0
_LOOK_EVERY: Final = 0.05
_IN_FLIGHT: Final = 2000
_AS_PROMETHEUS: Final = {
    "Accept": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}
_LAG: Final = "wix_calendar_monitor_poll_lag_seconds_bucket{"
_MISSED: Final = "wix_calendar_monitor_polls_missed_total{"
_PATIENT: Final = aiohttp.ClientTimeout(total=600)
_MB: Final = 1_000_000


@dataclass(slots=True)
class Seen:
    """What was seen from outside over the window."""

    scrapes: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    failed: int = 0
    pages: list[bytes] = field(default_factory=list)  # the first and the last


class Watch:
    """Scrapes and looks at a daemon, by the clock of whoever waits for an answer."""

    def __init__(self, session: aiohttp.ClientSession, url: str, pid: int) -> None:
        self._session = session
        self._url = url
        self._pid = pid
        self.seen = Seen()

    async def scrape(self) -> None:
        """Have the page as Prometheus has it; a daemon that is behind cuts it off after a minute."""
        began = now()
        try:
            async with self._session.get(f"{self._url}/metrics", headers=_AS_PROMETHEUS) as got:
                self.seen.pages[1:] = [await got.read()]
        except aiohttp.ClientError as error:
            tell(f"a scrape has failed: {error}")
            self.seen.failed += 1
        self.seen.scrapes.append(now() - began)

    async def scrape_for(self, seconds: float) -> None:
        """Scrape every 15 s, for so long; a scrape that takes longer is waited for."""
        until = now() + seconds
        while now() < until:
            due = now() + _SCRAPE_EVERY
            await self.scrape()
            await asyncio.sleep(max(min(due, until) - now(), 0.0))

    async def look(self) -> None:
        """Ask whether it lives."""
        began = now()
        async with self._session.get(f"{self._url}/-/healthy") as got:
            await got.read()
        self.seen.looks.append(now() - began)
        self.seen.resident.append(resident_bytes(self._pid))


async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Again and again; where one takes longer than that, the next comes at once."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        await work()
        due = max(due + seconds, loop.time())
        await asyncio.sleep(due - loop.time())


def samples(page: bytes, family: str) -> dict[str, float]:
    """The samples of one family that is not labelled by connection."""
    lines = re.findall(rb"^" + re.escape(family).encode() + rb".*", gzip.decompress(page), re.MULTILINE)
    return {name: float(value) for name, _, value in (line.decode().rpartition(" ") for line in lines)}


def grown(before: bytes, after: bytes, family: str) -> dict[str, float]:
    """By how much they have grown."""
    first = samples(before, family)
    return {name: value - first.get(name, 0.0) for name, value in samples(after, family).items()}


def p99(buckets: dict[str, float]) -> float:
    """The bound of the bucket in which the 99th hundredth lies."""
    by_bound = sorted((float(name.split('"')[1]), value) for name, value in buckets.items())
    return next(bound for bound, value in by_bound if value >= 0.99 * by_bound[-1][1])


@asynccontextmanager
async def answering(folder: Path, cores: tuple[str, str], fleet: Fleet) -> AsyncIterator[str]:
    """The server, on its core; its URL."""
    log = folder / "slow.log"
    module = ("-m", "tests.bench.slow", f"--delay={DELAY}", f"--interval={fleet.interval}")
    async with child("taskset", "-c", cores[1], sys.executable, *module, log=log) as server:

        async def listens() -> bool:
            return log.read_text().endswith("\n")

        await server.until(listens, 10.0, "listening")
        yield f"http://127.0.0.1:{log.read_text().strip()}"


def two_cores() -> tuple[str, str]:
    """One for the daemon, one for all else."""
    cores = sorted(os.sched_getaffinity(0))
    return str(cores[0]), str(cores[-1])


async def soak(folder: Path, fleet: Fleet, minutes: float, warm: float) -> list[Row]:
    """Watch a daemon for so long, after it has become warm."""
    cores = two_cores()
    os.sched_setaffinity(0, {int(cores[1])})
    alone = ("taskset", "-c", cores[0])
    async with (
        answering(folder, cores, fleet) as url,
        watching(folder / "daemon", fleet, url, started_by=alone, max_in_flight=_IN_FLIGHT) as daemon,
        aiohttp.ClientSession(auto_decompress=False, timeout=_PATIENT) as session,
    ):
        watch = Watch(session, await daemon.url(), daemon.process.pid)
        return await watched(watch, daemon, url, session, fleet, (warm, minutes * 60))


async def watched(
    watch: Watch,
    daemon: Daemon,
    server: str,
    session: aiohttp.ClientSession,
    fleet: Fleet,
    seconds: tuple[float, float],
) -> list[Row]:
    """Scraped and looked at all the time; what counts begins with the first scrape after the warming up."""
    failed: list[BaseException] = []
    tasks = TaskBag(failed.append)
    tasks.start(every(_LOOK_EVERY, watch.look))
    await watch.scrape_for(seconds[0])
    tell(f"warm: {watch.seen.scrapes[-1]:.2f} s a scrape")
    watch.seen = Seen()
    await watch.scrape()
    used, began = cpu_seconds(daemon.process.pid), now()
    await ask(session, f"{server}/begin")
    await watch.scrape_for(seconds[1])
    share = (cpu_seconds(daemon.process.pid) - used) / (now() - began)
    await tasks.drain(0)
    await watch.scrape()
    account = await ask(session, f"{server}/account")
    assert not failed, failed
    return figures(fleet, watch.seen, share, account)


def now() -> float:
    """The loop's clock."""
    return asyncio.get_running_loop().time()


async def ask(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """A page of the server's."""
    async with session.get(url) as got:
        found: dict[str, Any] = await got.json()
        return found


def figures(fleet: Fleet, seen: Seen, share: float, account: dict[str, Any]) -> list[Row]:
    """What, figure, target."""
    count = fleet.sites * fleet.each
    name = f"{count:,} connections at {fleet.interval} s"
    lag, missed, size = told(seen.pages)
    unseen = count - account["connections"]
    resident = [each / _MB for each in seen.resident]
    looks = sorted(seen.looks)
    rate = account["requests"] / account["seconds"]
    return [
        (f"{name}: watched, polls a second", f"{account['seconds'] / 60:.1f} min, {rate:,.0f}", ""),
        (f"{name}: poll lag p99, its own histogram", lag, "< 1 s"),
        (f"{name}: gap between polls off the interval, p99", f"{account['p99']:.3f} s", "< 1 s"),
        (f"{name}: the same, longest", f"{account['longest']:.3f} s", ""),
        (
            f"{name}: polls missed, by itself / by the server",
            f"{missed} / {account['missed'] + unseen}",
            "0",
        ),
        (f"{name}: CPU of its one core", f"{share:.0%}", "≤ 80 %"),
        (
            f"{name}: RSS at the start, end, most",
            _ends(resident),
            "≤ 600 MB",
        ),
        (f"{name}: RSS, last third to second", f"{_drift(resident):+.1%}", "flat"),
        (f"{name}: longest scrape of {len(seen.scrapes)}, gzip", f"{max(seen.scrapes):.2f} s", ""),
        (f"{name}: scrapes that failed", str(seen.failed), ""),
        (f"{name}: bytes of a scrape, gzip", size, ""),
        (f"{name}: longest answer of /-/healthy", f"{looks[-1] * 1e3:.0f} ms", ""),
        (f"{name}: the same, p99 of {len(looks):,}", f"{looks[int(0.99 * len(looks))] * 1e3:.0f} ms", ""),
    ]


def told(pages: list[bytes]) -> tuple[str, str, str]:
    """Poll lag and polls missed as the first and the last page tell them, and how large the last one is."""
    if len(pages) < 2:  # the daemon was so far behind that it could not be scraped
        return "no page", "no page", "no page"
    before, after = pages
    missed = sum(grown(before, after, _MISSED).values())
    return f"≤ {p99(grown(before, after, _LAG)):g} s", f"{missed:.0f}", f"{len(after) / _MB:.1f} MB"


def _ends(values: list[float]) -> str:
    return f"{values[0]:.0f} / {values[-1]:.0f} / {max(values):.0f} MB"


def _drift(values: list[float]) -> float:
    third = max(len(values) // 3, 1)
    second, last = values[third : 2 * third] or values, values[-third:]
    return max(last) / max(second) - 1


def run(fleet: Fleet, minutes: float, warm: float) -> list[Row]:
    """In a folder of its own."""
    before = os.sched_getaffinity(0)
    try:
        with tempfile.TemporaryDirectory() as name:
            return asyncio.run(soak(Path(name), fleet, minutes, warm))
    finally:
        os.sched_setaffinity(0, before)


def rows(*, minutes: float = 15.0, quick: bool = False) -> list[Row]:
    """What, figure, target."""
    return run(FLEET, min(minutes, 3.0) if quick else minutes, WARM)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=FLEET.sites)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--warm", type=float, default=WARM, help="seconds before that")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its processes are ended as with Ctrl-C
    for row in run(FLEET._replace(sites=options.sites), options.minutes, options.warm):
        print(*row, sep="\t")


if __name__ == "__main__":
    main()
