"""What a scrape costs: `python -m tests.bench.scrape`, a table as output.

Our own server and renderer, asked over a socket by another process as Prometheus asks, gzip and OpenMetrics.
Between two scrapes a quarter of the connections is polled, as at a scrape interval of 15 s and a polling
interval of 60 s. The event loop's stalls are seen by a timer of a millisecond on the same loop.
"""

import argparse
import asyncio
import gc
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
import uvloop
from prometheus_client import generate_latest

from monitor.core.model import CalendarType, Connection, ConnectionState, Policy, Status
from monitor.metrics.exposition import Renderer
from monitor.metrics.page import negotiate, pieces
from monitor.metrics.pieces import Piece
from monitor.metrics.snapshot import Pairs, SiteSnapshot, Snapshot
from monitor.metrics.telemetry import Telemetry
from monitor.web.server import Address, Page, Server
from tests.metrics.reference import registry
from tests.metrics.snapshots import NOW, site

Row = tuple[str, str, str]

ACCEPT: Final = "application/openmetrics-text;version=1.0.0"
MINUTE: Final = timedelta(minutes=1)
POLICY: Final = Policy(MINUTE, 3 * MINUTE, MINUTE)
OF_A_SITE: Final = 100
TARGETS: Final = {10_000: ("≤ 100 ms", "≤ 10 ms"), 100_000: ("≤ 1.2 s", "≤ 20 ms")}
TIMES_LESS: Final = 40

_READER: Final = """
import socket, sys
host, port, request = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode().decode("unicode_escape").encode()
for _ in sys.stdin:
    with socket.create_connection((host, port)) as sock:
        sock.sendall(request)
        got = 0
        while part := sock.recv(1 << 20):
            got += len(part)
    print(got, flush=True)
"""
_REQUEST: Final = (
    r"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: {coding}\r\nAccept: "
    + ACCEPT
    + r"\r\n\r\n"
)


class Watched:
    """A fleet of which a part is polled now and then."""

    def __init__(self, count: int) -> None:
        self._chance = random.Random(1)
        self._telemetry = Telemetry()
        self._renderer = Renderer()
        self.now = NOW
        self.connections = [self._connection(number) for number in range(count)]
        self.states = [self._state() for _ in self.connections]
        self.sites = [self._site(number) for number in range(count // OF_A_SITE)]

    def _connection(self, number: int) -> Connection:
        name = str(UUID(int=self._chance.getrandbits(128)))
        return Connection(f"site-{number // OF_A_SITE}", name, name, POLICY, team="front-desk")

    def _state(self) -> ConnectionState:
        seen = self.now - timedelta(seconds=self._chance.uniform(0, 60))
        return ConnectionState(
            watched_since=self.now - 2 * MINUTE,
            status=Status.SYNCED,
            status_since=self.now - timedelta(hours=self._chance.uniform(0, 1000)),
            calendar_type=CalendarType.GOOGLE,
            import_enabled=True,
            export_enabled=True,
            last_poll_at=seen,
            last_success_at=seen,
            last_poll_succeeded=True,
        )

    def _site(self, number: int) -> SiteSnapshot:
        return site(name=f"site-{number}", requests=self._chance.randrange(10**6), connections=OF_A_SITE)

    def go_on(self) -> None:
        """15 s later: a quarter has been polled, and all sites' counts have gone up."""
        self.now += MINUTE / 4
        for at in self._chance.sample(range(len(self.states)), len(self.states) // 4):
            seen = self.now - timedelta(seconds=self._chance.uniform(0, 15))
            self.states[at] = msgspec.structs.replace(
                self.states[at], last_poll_at=seen, last_success_at=seen
            )
        self.sites = [self._site(number) for number in range(len(self.sites))]

    def snapshot(self) -> Snapshot:
        """As the daemon takes it: in one go."""
        known = Pairs(self.connections, list(self.states))
        return Snapshot(self.now, timedelta(), known, self.sites)

    def page(self, accept: str) -> Page:
        """As the daemon serves it."""
        dialect, content_type = negotiate(accept)

        def rendered() -> Iterator[Piece]:
            yield from pieces(self.snapshot(), self._telemetry, dialect, self._renderer)

        return Page(content_type, rendered())


class Cost(NamedTuple):
    """Of a scrape: processor time of the server's process, the loop's longest stall (seconds), bytes."""

    cpu: float
    stall: float
    size: int


class Stalls:
    """Looks at how long the loop leaves a timer of a millisecond waiting."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = asyncio.get_running_loop().time()
        self._look()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self.longest = max(self.longest, now - self._last - 0.001)
        self._last = now
        self._timer = loop.call_later(0.001, self._look)

    def end(self) -> float:
        self._timer.cancel()
        return self.longest


@asynccontextmanager
async def reader(url: str, coding: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that asks once for each line that it gets."""
    host, port = url.removeprefix("http://").split(":")
    command = [sys.executable, "-c", _READER, host, port, _REQUEST.format(coding=coding)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def scrape(process: asyncio.subprocess.Process) -> Cost:
    assert process.stdin is not None
    assert process.stdout is not None
    stalls, began = Stalls(), time.process_time()
    process.stdin.write(b"\n")
    size = int(await process.stdout.readline())
    return Cost(time.process_time() - began, stalls.end(), size)


async def scrapes(watched: Watched, coding: str, runs: int) -> list[Cost]:
    """The first page, which is made from nothing, and those after it."""
    server = Server(watched.page, lambda: None)
    (url,) = await server.start([Address("127.0.0.1", 0)])
    costs = []
    try:
        async with reader(url, coding) as process:
            for _ in range(runs + 1):
                costs.append(await scrape(process))
                watched.go_on()
    finally:
        await server.stop()
    return costs


def library(watched: Watched) -> float:
    """Processor seconds of prometheus_client's generator on the same series."""
    theirs = registry(watched.snapshot())
    began = time.process_time()
    generate_latest(theirs)
    return time.process_time() - began


def figures(count: int, runs: int) -> list[Row]:
    watched = Watched(count)
    gc.collect()
    gc.freeze()  # as the daemon does when it is ready
    gc.set_threshold(5_000, 100, 20)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        first, *later = runner.run(scrapes(watched, "gzip", runs))
        plain = runner.run(scrapes(watched, "identity", runs))[1:]
    cpu = statistics.median(cost.cpu for cost in later)
    stall = statistics.median(cost.stall for cost in later)
    theirs = library(watched)
    name = f"/metrics, {count:,} connections"
    targets = TARGETS.get(count, ("", ""))
    return [
        (f"{name}, gzip: CPU", f"{cpu * 1e3:,.0f} ms", targets[0]),
        (f"{name}, gzip: longest stall of the loop", f"{stall * 1e3:.1f} ms", targets[1]),
        (f"{name}, gzip: the first page's CPU", f"{first.cpu * 1e3:,.0f} ms", ""),
        (f"{name}, gzip: bytes", f"{later[-1].size / 1e6:.1f} MB", ""),
        (
            f"{name}, plain: CPU",
            f"{statistics.median(cost.cpu for cost in plain) * 1e3:,.0f} ms",
            "",
        ),
        (f"{name}, plain: bytes", f"{plain[-1].size / 1e6:.1f} MB", ""),
        (f"{name}: generate_latest, plain, once: CPU", f"{theirs * 1e3:,.0f} ms", ""),
        (f"{name}: generate_latest / ours with gzip", f"{theirs / cpu:.0f}", f"≥ {TIMES_LESS}"),
    ]


def rows(*, quick: bool = False, counts: tuple[int, ...] = (1_000, 10_000, 100_000)) -> list[Row]:
    """What, figure, target."""
    runs = 5 if quick else 9
    return [row for count in counts for row in figures(count, runs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    for row in rows(quick=options.quick, counts=tuple(options.connections)):
        print(*row, sep="\t")


if __name__ == "__main__":
    main()
