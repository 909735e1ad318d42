"""What the page costs: `python -m tests.bench.page`, a table as output.

Our own server over a fleet that is made up, asked over a socket by another process as a browser asks (gzip).
Each first page is one after the last look has grown old: it is looked at anew, ranked and rendered. Costs are
processor time of the server's process. Then a hundred pages are open and follow a fleet in which something
changes every second, while a timer of ten milliseconds stands for polls that are due: how late it fires is
how late they would be.
"""

import argparse
import asyncio
import gc
import gzip
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Final, NamedTuple

import msgspec
import uvloop

from monitor.core.model import ErrorReason, Status
from monitor.tables import table
from monitor.view.facts import Facts
from monitor.web.server import Known, Server
from tests.view.scene import NOW, Watched
from tests.web.shown import crowd
from tests.web.talk import LOOPBACK, Daemon

Row = tuple[str, str, str]

PAGES: Final = 100
_WINDOWS: Final = 5
TARGETS: Final = {10_000: ("< 50 ms", "< 100 KB"), 100_000: ("", "")}

_READER: Final = """
import socket, sys
host, port, request = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode().decode("unicode_escape").encode()
for _ in sys.stdin:
    with socket.create_connection((host, port)) as sock:
        sock.sendall(request)
        got = b""
        while part := sock.recv(1 << 20):
            got += part
    head, _, body = got.partition(bytes([13, 10, 13, 10]))
    print(len(body), body.hex(), flush=True)
"""
_FOLLOWERS: Final = """
import asyncio, random, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
async def look():
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nAccept-Encoding: gzip\\r\\n\\r\\n")
    while await reader.read(1 << 20):
        pass
    writer.close()
async def follow():
    while True:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /events HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        while line := await reader.readline():
            if line == b"event: changed\\n":
                await asyncio.sleep(random.random())
                await look()
        writer.close()
async def main():
    tasks = [asyncio.create_task(follow()) for _ in range(count)]
    print("open", flush=True)
    await asyncio.gather(*tasks, asyncio.Event().wait())
asyncio.run(main())
"""
_REQUEST: Final = r"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n"


class Fleet:
    """One in which something changes when it is told to."""

    def __init__(self, count: int) -> None:
        self._facts = crowd(count)
        self._begun = time.monotonic()
        self._changes = 0
        gc.collect()
        gc.freeze()  # as the daemon does once it is ready

    def facts(self) -> Facts:
        """As the daemon hands it over: nothing is copied."""
        return replace(self._facts, now=NOW + timedelta(seconds=time.monotonic() - self._begun))

    def change(self) -> None:
        """Let one calendar fall ill."""
        self._changes += 1
        sites = list(self._facts.sites.values())
        one = sites[self._changes % len(sites)].watched[0]
        assert isinstance(one, Watched)
        one.state = msgspec.structs.replace(
            one.state, status=Status.ERROR, reason=ErrorReason.TOKEN_REVOKED, status_since=self.facts().now
        )


class Cost(NamedTuple):
    """Of a page: processor time (seconds), bytes as sent, bytes unpacked."""

    cpu: float
    sent: int
    plain: int


class Lag(NamedTuple):
    """Seconds by which a timer was late, and the part of a processor that all took.

    The worst is the median of five windows' worst: one stall may be the machine's own.
    """

    typical: float
    worst: float
    cpu: float


@asynccontextmanager
async def serving(fleet: Fleet) -> AsyncIterator[tuple[str, str]]:
    """The server's host and port."""
    server = Server(Daemon().metrics, lambda: None, known=Known(fleet.facts))
    (url,) = await server.start([LOOPBACK])
    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        yield host, port
    finally:
        await server.stop()


@asynccontextmanager
async def client(script: str, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that asks, ended at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
    )
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()


async def first_pages(count: int, path: str, times: int) -> list[Cost]:
    """The page asked for again and again, each time when the last look has grown old."""
    async with serving(Fleet(count)) as where, client(_READER, *where, _REQUEST.format(path=path)) as reader:
        return [await one_page(reader) for _ in range(times + 1)][1:]


async def one_page(reader: asyncio.subprocess.Process) -> Cost:
    """One, after a rest in which the last look grows old."""
    assert reader.stdin is not None
    assert reader.stdout is not None
    await asyncio.sleep(3)
    began = time.process_time()
    reader.stdin.write(b"go\n")
    told = (await reader.stdout.readline()).split()
    cpu = time.process_time() - began
    return Cost(cpu, int(told[0]), len(gzip.decompress(bytes.fromhex(told[1].decode()))))


async def lag(count: int, pages: int, seconds: float) -> Lag:
    """How late timers fire while so many pages follow a fleet that changes every second."""
    fleet = Fleet(count)
    async with serving(fleet) as where, client(_FOLLOWERS, *where, str(pages)) as followers:
        assert followers.stdout is not None
        await followers.stdout.readline()
        await asyncio.sleep(1)
        clock = asyncio.get_running_loop().time
        late: list[float] = []
        ends, changes_at, began = clock() + seconds, clock(), time.process_time()
        while (now := clock()) < ends:
            if now >= changes_at:
                fleet.change()
                changes_at += 1
            await asyncio.sleep(0.01)
            late.append(max(clock() - now - 0.01, 0.0))
        cpu = (time.process_time() - began) / seconds
    part = len(late) // _WINDOWS
    worst = [max(late[n * part : (n + 1) * part]) for n in range(_WINDOWS)]
    return Lag(statistics.median(late), statistics.median(worst), cpu)


def rows(*, quick: bool = False) -> list[Row]:
    """The table's rows."""
    times, seconds = (2, 5.0) if quick else (7, 20.0)
    found: list[Row] = []
    for count, (cpu, size) in TARGETS.items():
        costs = uvloop.run(first_pages(count, "/", times))
        what = f"the first page at {count:,} connections"
        found += [
            (f"{what}, processor time", f"{_median([each.cpu for each in costs]) * 1e3:.0f} ms", cpu),
            (f"{what}, plain (gzip: {costs[0].sent / 1e3:.0f} KB)", f"{costs[0].plain / 1e3:.0f} KB", size),
        ]
    costs = uvloop.run(first_pages(10_000, "/?text=calendar-0042", times))
    searched = f"{_median([each.cpu for each in costs]) * 1e3:.0f} ms"
    found.append(("a text searched among 10,000 connections, processor time", searched, ""))
    for pages in (0, PAGES):
        seen = uvloop.run(lag(10_000, pages, seconds))
        what = f"{pages} open pages, 10,000 connections, a change a second"
        bound = "< 20 ms" if pages else ""
        found += [
            (
                f"{what}: a timer late, median / worst",
                f"{seen.typical * 1e3:.1f} / {seen.worst * 1e3:.1f} ms",
                bound,
            ),
            (f"{what}: of one core", f"{seen.cpu:.1%}", ""),
        ]
    return found


def _median(values: list[float]) -> float:
    return statistics.median(values)


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter: a first look")
    print(table(("what", "figure", "target"), rows(quick=parser.parse_args().quick), right=("figure",)))


if __name__ == "__main__":
    main()
