"""What one whole poll costs: the daemon beside a bare aiohttp GET, the floor of the language, and its peers.

All ask the same server for the same body at the same rate, in turns (A B C A B C …), and each turn has new
processes. What is counted is processor time of the process that asks, and what the server was asked.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import aiohttp
import yaml

from monitor.demo.children import child, free_address
from monitor.wix.client import CONNECTION_PATH
from tests.bench.nginx import Answering, nginx
from tests.bench.processes import cpu_seconds
from tests.bench.watching import Fleet, watching

Row = tuple[str, str, str]

FLEET: Final = Fleet(sites=300, each=17, interval=10)
"""510 polls a second, and as many ticks for each as 1,000 sites of 100 at a minute have."""

GROWTH: Final = (Fleet(20, 50, 2), Fleet(100, 100, 20), Fleet(100, 1000, 200))
"""500 polls and 20 ticks a second, over ever more connections."""

_CONNECTIONS: Final = f"{FLEET.sites * FLEET.each:,} connections"
_BLACKBOX: Final = "prometheus-blackbox-exporter"
_MISSING: Final = "not installed"
_PATIENCE: Final = 3
_SHORT: Final = 0.9  # of the polls that a window should have had; with less, something was in the way


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long to look: seconds of warming up and of each window, how often."""

    warm: float
    window: float
    rounds: int


FULL: Final = Lengths(warm=12.0, window=20.0, rounds=5)
QUICK: Final = Lengths(warm=4.0, window=10.0, rounds=3)


class Asked(NamedTuple):
    """Which URLs, who vouches for their server, and how often a second."""

    urls: list[str]
    ca: Path
    rate: float


Contender = Callable[[Path], AbstractAsyncContextManager[int]]
"""Runs over a folder that is not there yet; gives the process whose time counts."""


class NotSteadyError(Exception):
    """A window in which not all was asked that should have been."""


@asynccontextmanager
async def daemon(folder: Path, *, fleet: Fleet, base_url: str, ca: Path) -> AsyncIterator[int]:
    """`monitor run`; the failures that it counts are counted against it."""
    async with watching(folder, fleet, base_url, ca) as ours:
        yield ours.process.pid
        if fleet.sites * fleet.each > FLEET.sites * FLEET.each:
            return
        page = await ours.get("/metrics")
    bad = [line for line in page.splitlines() if _tells_of_failure(line)]
    if bad:
        raise NotSteadyError("\n".join(bad[:5]))


def _tells_of_failure(line: str) -> bool:
    families = "wix_calendar_site_request_failures_total{", "wix_calendar_monitor_polls_missed_total{"
    return line.startswith(families) and float(line.rpartition(" ")[2]) > 0


@asynccontextmanager
async def loop(folder: Path, *, kind: str, asked: Asked) -> AsyncIterator[int]:
    """One of `tests.bench.loops`."""
    flags = [f"--urls={_written(folder, 'urls', *asked.urls)}", f"--rate={asked.rate}", f"--ca={asked.ca}"]
    async with child(sys.executable, "-m", "tests.bench.loops", kind, *flags, log=folder / "log") as process:
        yield process.pid


@asynccontextmanager
async def blackbox(folder: Path, ca: Path) -> AsyncIterator[tuple[int, str]]:
    """The exporter, and where it answers: it looks for the status in the body."""
    address = free_address()
    probe = {
        "fail_if_body_not_matches_regexp": ['"status":\\s*"SYNCED"'],
        "preferred_ip_protocol": "ip4",
        "tls_config": {"ca_file": str(ca)},
    }
    modules = {"modules": {"synced": {"prober": "http", "timeout": "5s", "http": probe}}}
    config = _written(folder, "blackbox.yml", yaml.safe_dump(modules))
    flags = [f"--config.file={config}", f"--web.listen-address={address}"]
    async with child(_BLACKBOX, *flags, log=folder / "log") as process:
        await process.until(partial(is_up, f"http://{address}/-/healthy"), 10.0, "answering")
        yield process.pid, f"http://{address}"


@asynccontextmanager
async def probed(folder: Path, *, asked: Asked) -> AsyncIterator[int]:
    """The exporter, asked at an even rate to probe."""
    async with blackbox(folder, asked.ca) as (pid, address):
        probes = [f"{address}/probe?module=synced&target={quote(url, safe='')}" for url in asked.urls]
        async with aiohttp.ClientSession() as session, session.get(probes[0]) as got:
            if "\nprobe_success 1\n" not in await got.text():
                raise NotSteadyError(f"a probe has failed: {probes[0]}")
        async with loop(folder / "driver", kind="bare", asked=asked._replace(urls=probes)):
            yield pid


def _written(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir()
    path = folder / name
    path.write_text("\n".join(lines))
    return path


async def is_up(url: str) -> bool:
    """Whether somebody answers there."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as got:
            return got.status == 200
    except aiohttp.ClientError:
        return False


def tell(what: str) -> None:
    """Say how it goes."""
    print(f"  {what}", file=sys.stderr, flush=True)


async def steady_cost(pid: int, server: Answering, seconds: float, rate: float) -> float:
    """As `cost`; where the machine had no time for us, once more, and again."""
    for _ in range(_PATIENCE):
        try:
            return await cost(pid, server, seconds, rate)
        except NotSteadyError as error:
            tell(f"{error}; again")
    return await cost(pid, server, seconds, rate)


async def cost(pid: int, server: Answering, seconds: float, rate: float) -> float:
    """Microseconds of a poll over a window of so many seconds."""
    asked, used = await server.requests(), cpu_seconds(pid)
    await asyncio.sleep(seconds)
    polls, used = await server.requests() - asked - 1, cpu_seconds(pid) - used
    if polls < _SHORT * rate * seconds:
        raise NotSteadyError(f"{polls} polls in {seconds:.0f} s instead of {rate * seconds:.0f}")
    return used / polls * 1e6


async def turns(
    contenders: dict[str, Contender], server: Answering, folder: Path, lengths: Lengths, rate: float
) -> dict[str, float]:
    """The median of each, over turns."""
    costs: dict[str, list[float]] = defaultdict(list)
    number = count()
    for _ in range(lengths.rounds):
        for name, contender in contenders.items():
            async with contender(folder / f"turn-{next(number)}") as pid:
                await asyncio.sleep(lengths.warm)
                costs[name].append(await steady_cost(pid, server, lengths.window, rate))
            tell(f"{name}: {costs[name][-1]:.0f} µs")
    return {name: statistics.median(each) for name, each in costs.items()}


def contenders(server: Answering, scheme: str, fleet: Fleet) -> dict[str, Contender]:
    """Who asks, over HTTP or TLS."""
    base = server.plain if scheme == "HTTP" else server.tls
    asked = Asked([base + CONNECTION_PATH + each for each in fleet.ids()], server.ca, fleet.rate)
    found: dict[str, Contender] = {
        "the daemon": partial(daemon, fleet=fleet, base_url=base, ca=server.ca),
        "bare aiohttp": partial(loop, kind="bare", asked=asked),
        "raw uvloop": partial(loop, kind="raw", asked=asked),
    }
    if shutil.which(_BLACKBOX):
        found["blackbox_exporter"] = partial(probed, asked=asked)
    return {f"{scheme}: {name}": start for name, start in found.items()}


async def whole_poll(lengths: Lengths) -> list[Row]:
    """The daemon's poll, and what it is to be compared with."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with nginx(folder / "nginx") as server:
            all_of_them = contenders(server, "HTTP", FLEET) | contenders(server, "TLS", FLEET)
            medians = await turns(all_of_them, server, folder, lengths, FLEET.rate)
    return [row for scheme, part in (("HTTP", 3), ("TLS", 5)) for row in compared(scheme, medians, part)]


def compared(scheme: str, medians: dict[str, float], part: int) -> list[Row]:
    """One scheme's rows."""
    ours = medians[f"{scheme}: the daemon"]
    bare, floor = medians[f"{scheme}: bare aiohttp"], medians[f"{scheme}: raw uvloop"]
    peer = medians.get(f"{scheme}: blackbox_exporter")
    return [
        (f"a poll, {scheme}: the daemon, {_CONNECTIONS}", f"{ours:.0f} µs", ""),
        (f"a poll, {scheme}: bare aiohttp on uvloop", f"{bare:.0f} µs", ""),
        (f"a poll, {scheme}: raw uvloop", f"{floor:.0f} µs", ""),
        (f"a poll, {scheme}: blackbox_exporter", f"{peer:.0f} µs" if peer else _MISSING, ""),
        (f"a poll, {scheme}: the daemon / bare aiohttp", f"{ours / bare:.2f}", "≤ 1.20"),
        (
            f"a poll, {scheme}: the daemon / blackbox_exporter",
            f"{ours / peer:.2f}" if peer else _MISSING,
            f"≤ 1/{part} = {1 / part:.2f}",
        ),
    ]


def rows(*, quick: bool = False) -> list[Row]:
    """What, figure, target."""
    lengths = QUICK if quick else FULL
    return asyncio.run(whole_poll(lengths))
