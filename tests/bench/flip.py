"""How long a change takes to be seen: from a flip in the stand-in for Wix to the gauge on the page.

The page is read all the time, 50 ms after each answer; a change counts as seen when the answer is there.
"""

import asyncio
import random
import re
import statistics
import tempfile
from pathlib import Path
from typing import Final

import aiohttp

from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import running
from tests.fleet import key_site, write_config

Row = tuple[str, str, str]

SITES: Final = 10
EACH: Final = 20
INTERVAL: Final = 2
FLIPS: Final = 1000
ALLOWED: Final = 0.5

_STATUSES: Final = ("SYNCED", "DISCONNECTED", "CONNECTED", "SYNC_IN_PROGRESS")
_SHOWN: Final = re.compile(
    r'^wix_calendar_connection_status\{site="[^"]*",connection="([^"]*)",status="([^"]*)"\} 1(?:\.0)?$',
    re.MULTILINE,
)
_READ_EVERY: Final = 0.05
_AT_ONCE: Final = 50  # flips that wait to be seen


class Flips:
    """Statuses that were flipped, and how long it took until each was seen."""

    def __init__(self, simulator: Simulator, names: list[str]) -> None:
        self._simulator = simulator
        self._chance = random.Random(7)
        self._names = names
        self._waiting: dict[str, tuple[str, float]] = {}
        self._shown: dict[str, str] = {}
        self.took: list[float] = []

    @property
    def begun(self) -> int:
        """How many, seen or not."""
        return len(self.took) + len(self._waiting)

    def see(self, page: str, now: float) -> None:
        """What the page shows now."""
        self._shown = dict(_SHOWN.findall(page))
        for name, (status, since) in list(self._waiting.items()):
            if self._shown[name] == status:
                del self._waiting[name]
                self.took.append(now - since)

    def flip(self, now: float) -> None:
        """One connection that does not wait to be seen shows another status from now on."""
        if len(self._waiting) >= _AT_ONCE:
            return
        name = self._chance.choice([each for each in self._names if each not in self._waiting])
        status = self._chance.choice([each for each in _STATUSES if each != self._shown[name]])
        self._simulator.set_status(name, status)
        self._waiting[name] = status, now


async def flips(folder: Path, wanted: int) -> list[float]:
    """Seconds from flip to gauge, sorted."""
    names = [f"c{number}" for number in range(SITES * EACH)]
    sites = [
        key_site(f"site-{n}", [Connection(id=name) for name in names[n * EACH : (n + 1) * EACH]])
        for n in range(SITES)
    ]
    scenario = Scenario(sites=tuple(sites))
    polling = {"interval": f"{INTERVAL}s", "unsettled_interval": f"{INTERVAL}s"}
    async with Simulator(scenario) as simulator:
        site = {"requests_per_minute": 60 * EACH}
        config = write_config(folder, simulator.base_url, scenario, polling=polling, site=site)
        async with running(config) as daemon, aiohttp.ClientSession() as session:
            page = f"{await daemon.url()}/metrics"
            await asyncio.sleep(2 * INTERVAL)  # each has been polled
            return await observed(Flips(simulator, names), session, page, wanted)


async def observed(run: Flips, session: aiohttp.ClientSession, page: str, wanted: int) -> list[float]:
    """Flip and look until so many have been seen."""
    now = asyncio.get_running_loop().time
    while len(run.took) < wanted:
        run.see(await read(session, page), now())
        if run.begun < wanted:
            run.flip(now())
        await asyncio.sleep(_READ_EVERY)
    return sorted(run.took)


async def read(session: aiohttp.ClientSession, url: str) -> str:
    """A page."""
    async with session.get(url) as got:
        return await got.text()


def rows(*, quick: bool = False) -> list[Row]:
    """What, figure, target."""
    with tempfile.TemporaryDirectory() as name:
        took = asyncio.run(flips(Path(name), 200 if quick else FLIPS))
    what = f"status flip to gauge, {SITES * EACH} connections at {INTERVAL} s"
    return [
        (f"{what}: median", f"{statistics.median(took):.2f} s", ""),
        (
            f"{what}: p99 of {len(took):,}",
            f"{took[int(0.99 * len(took))]:.2f} s",
            f"≤ {INTERVAL + ALLOWED} s",
        ),
        (f"{what}: longest", f"{took[-1]:.2f} s", ""),
    ]


if __name__ == "__main__":
    for row in rows():
        print(*row, sep="\t")
