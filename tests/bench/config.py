"""What a configuration costs to check, to start with and to change: `python -m tests.bench.config`, a table.

Three natural layouts of one fleet, a hundred connections a site: all in one file; a YAML file of connections
for each site; the same as JSON. A reload brings a hundred changes over many sites. It is measured twice: with
a server that lets all sites wait, so that the figures are the reload's own, and with one that answers every
poll, which takes most of a core by itself. The longest wait is that of a client that asks for `/-/healthy`
every few milliseconds: its own lateness and that of a busy machine are in it.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import queue
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from monitor.clock import Clock
from monitor.core.model import Connection, ConnectionState, Policy, Status
from monitor.store import Booking
from monitor.store.sqlite.file import open_file
from monitor.tables import table

Row = tuple[str, str, str]

RUNS: Final = 5
PER_SITE: Final = 100
CHANGES: Final = 100
ASK_EVERY: Final = 0.005
TOLD: Final = (b'"monitor_ready"', b'"config_reloaded"', b'"config_reload_failed"')
PATIENCE: Final = 120.0
SETTLED: Final = 5.0  # seconds after the start, so that its own work is over
ROOT: Final = Path(__file__).resolve().parent.parent.parent
ANSWER: Final = b'{"connection":{"id":"any","calendarType":"GOOGLE","status":"SYNCED"}}'
BUSY: Final = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n"
RESPONSE: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(ANSWER),
    ANSWER,
)


@dataclass(frozen=True)
class Written:
    """One connection as the configuration writes it."""

    id: str
    name: str
    labels: str = ""

    def yaml(self) -> str:
        labels = f", labels: {{staff: {self.labels}}}" if self.labels else ""
        return f"{{id: {self.id}, name: {self.name}{labels}}}"

    def block(self, indent: str) -> str:
        labels = f"{indent}  labels: {{staff: {self.labels}}}\n" if self.labels else ""
        return f"{indent}- id: {self.id}\n{indent}  name: {self.name}\n{labels}"

    def document(self) -> dict[str, Any]:
        labels = {"labels": {"staff": self.labels}} if self.labels else {}
        return {"id": self.id, "name": self.name, **labels}


Fleet = list[list[Written]]


def fleet(count: int) -> Fleet:
    entries = [Written(f"{n:08x}-aaaa-4bbb-8ccc-{n:012x}", f"connection-{n}") for n in range(count)]
    return [entries[start : start + PER_SITE] for start in range(0, count, PER_SITE)]


def changed(sites: Fleet, turn: int) -> Fleet:
    """A hundred changes of four kinds, in as many sites as there are up to that number."""
    made = [list(site) for site in sites]
    for number in range(CHANGES):
        site = made[(number * max(len(made) // CHANGES, 1) + turn) % len(made)]
        place = (number + turn) % len(site)
        if number % 4 == 0:
            site[place] = replace(site[place], name=f"renamed-{turn}-{number}")
        elif number % 4 == 1:
            site[place] = replace(site[place], labels=f"label-{turn}-{number}")
        elif number % 4 == 2:
            del site[place]
        else:
            site.append(Written(f"new-{turn:08}-{number:023}", f"new-{turn}-{number}"))
    return made


class Layout:
    """A fleet's configuration in a folder; what did not change is not written again."""

    def __init__(self, folder: Path, kind: str, base_url: str, connections: int) -> None:
        self.folder = folder
        self.kind = kind
        self.base_url = base_url
        self.connections = connections
        self.store = folder / "state.db"
        self.file = folder / "monitor.yml"
        folder.mkdir()
        (folder / "key").touch(mode=0o600)
        (folder / "key").write_text("key")

    def write(self, sites: Fleet) -> None:
        slots = max(self.connections // 60, 1)
        lines = [
            f"store: {{url: 'sqlite:///{self.store}'}}\n",
            f"api: {{base_url: '{self.base_url}', max_in_flight: {slots}}}\n",
            "polling: {interval: 60s}\nsites:\n",
            *(self._site(number, site) for number, site in enumerate(sites)),
        ]
        self._put(self.file, "".join(lines))

    def _site(self, number: int, site: list[Written]) -> str:
        head = f"  - name: site-{number}\n    credential: {{api_key_file: key, site_id: site-{number}}}\n"
        if self.kind == "inline":
            return f"{head}    connections:\n{''.join(each.block('      ') for each in site)}"
        name = f"site-{number}.{self.kind}"
        documents = [each.document() for each in site]
        listed = json.dumps(documents) if self.kind == "json" else "".join(each.block("") for each in site)
        self._put(self.folder / name, listed)
        return f"{head}    connection_files: [{name}]\n"

    def _put(self, path: Path, text: str) -> None:
        if path.exists() and path.read_text() == text:
            return
        aside = path.with_suffix(".new")
        aside.write_text(text)
        aside.replace(path)

    def know(self, sites: Fleet) -> None:
        """Let the store know all of them, as an earlier run would have left it."""
        self.forget()
        minute = Clock().now() - Clock().now()
        store = open_file(self.store, Clock()).file
        now = Clock().now()
        state = ConnectionState(
            watched_since=now, status=Status.SYNCED, status_since=now, last_poll_at=now, last_success_at=now
        )
        policy = Policy(minute, minute, minute)
        known = [
            Booking(Connection(f"site-{number}", each.id, each.name, policy), state)
            for number, site in enumerate(sites)
            for each in site
        ]
        store.commit(known, ())
        store.close()

    def forget(self) -> None:
        for path in self.folder.glob("state.db*"):
            path.unlink()


class Wix(asyncio.Protocol):
    """Answers each request with one good connection, or lets each site wait."""

    def __init__(self, response: bytes) -> None:
        self.response = response

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.response * data.count(b"\r\n\r\n"))


def serve(sock: socket.socket, response: bytes) -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Wix(response), sock=sock)
        await server.serve_forever()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(forever())


@contextmanager
def answering(response: bytes) -> Iterator[str]:
    """The URL of a server with one answer, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:
        process = multiprocessing.Process(target=serve, args=(sock, response), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            process.kill()
            process.join()


class Running:
    """A daemon over a layout."""

    def __init__(self, layout: Layout) -> None:
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [*command("run", layout), "--web.listen-address=127.0.0.1:0", "--log.level=info"],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        self.told: queue.SimpleQueue[tuple[float, dict[str, Any]]] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        at, ready = self.line("monitor_ready")
        self.listening = str(ready["listening"][0])
        self.took = at - self.began

    def line(self, event: str) -> tuple[float, dict[str, Any]]:
        """The next log line of an event and when it came; all before it are passed over."""
        while True:
            at, line = self.told.get(timeout=PATIENCE)
            if line["event"] == event:
                return at, line
            assert line["event"] not in {"ended", "config_reload_failed"}, line

    def _read(self) -> None:
        """A daemon whose log nobody reads would stand still."""
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            if any(event in raw for event in TOLD):
                self.told.put((time.perf_counter(), json.loads(raw)))
        self.told.put((time.perf_counter(), {"event": "ended"}))

    def reload(self) -> float:
        """Seconds from the signal to the line that tells of it."""
        began = time.perf_counter()
        self.process.send_signal(signal.SIGHUP)
        return self.line("config_reloaded")[0] - began

    def cpu(self) -> float:
        """Seconds of CPU time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self) -> float:
        """MiB in memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    def end(self) -> None:
        self.process.kill()
        self.reader.join()
        self.process.wait()


def command(name: str, layout: Layout) -> list[str]:
    return [sys.executable, "-m", "monitor", name, f"--config.file={layout.file}"]


def longest_wait(url: str, until: Any) -> float:
    """The longest in seconds that the daemon let a client wait, until an event is set."""
    host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
    longest = 0.0
    with socket.create_connection((host, int(port))) as sock:
        while not until.is_set():
            began = time.perf_counter()
            sock.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(4096)
            longest = max(longest, time.perf_counter() - began)
            time.sleep(ASK_EVERY)
    return longest


@contextmanager
def watched(url: str) -> Iterator[Callable[[], float]]:
    """How long the daemon let a client wait at most, in the block; told once the block is left."""
    until = multiprocessing.Event()
    mine, its = multiprocessing.Pipe()
    process = multiprocessing.Process(target=lambda: its.send(longest_wait(url, until)), daemon=True)
    process.start()
    time.sleep(0.2)  # it has connected by then
    try:
        yield lambda: float(mine.recv())
    finally:
        until.set()
        process.join()


@dataclass
class Figures:
    """Seconds, and MiB, of each run."""

    check: list[float]
    empty: list[float]
    known: list[float]
    rss: list[float]
    reload: list[float]
    cpu: list[float]
    stall: list[float]
    quiet: list[float]
    rss_after: list[float]
    polled_reload: list[float]
    polled_stall: list[float]
    polled_quiet: list[float]


def checked(layout: Layout) -> float:
    began = time.perf_counter()
    subprocess.run(command("check-config", layout), check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - began


def measured(layout: Layout, polled: str, runs: int) -> Figures:
    """All figures of one layout; `polled` is the URL that answers polls."""
    sites = fleet(layout.connections)
    layout.write(sites)
    made = Figures([checked(layout) for _ in range(runs)], *([] for _ in range(11)))
    for _ in range(runs):
        layout.forget()
        start(layout, made.empty, made.rss).end()
    layout.know(sites)
    for _ in range(runs - 1):
        start(layout, made.known, made.rss).end()
    running = start(layout, made.known, made.rss)
    sites = reloads(running, layout, sites, range(runs), (made.reload, made.cpu, made.stall, made.quiet))
    made.rss_after.append(running.rss())
    running.end()
    layout.base_url = polled
    layout.write(sites)
    running = start(layout, [], [])
    polled_too: tuple[list[float], ...] = (made.polled_reload, [], made.polled_stall, made.polled_quiet)
    reloads(running, layout, sites, range(runs, 2 * runs), polled_too)
    running.end()
    return made


def start(layout: Layout, took: list[float], rss: list[float]) -> Running:
    running = Running(layout)
    took.append(running.took)
    rss.append(running.rss())
    return running


def reloads(
    running: Running, layout: Layout, sites: Fleet, turns: range, made: tuple[list[float], ...]
) -> Fleet:
    """A reload each turn, and before it the same without one; the fleet that has come of it."""
    took, cpu, stall, quiet = made
    time.sleep(SETTLED)
    for turn in turns:
        with watched(running.listening) as wait:
            time.sleep(1)
        quiet.append(wait())
        sites = changed(sites, turn)
        layout.write(sites)
        before = running.cpu()
        with watched(running.listening) as wait:
            took.append(running.reload())
            cpu.append(running.cpu() - before)
            time.sleep(0.2)  # what follows the line is a part of it
        stall.append(wait())
    return sites


LAYOUTS: Final = {"inline": "all in one file", "yaml": "a YAML file a site", "json": "a JSON file a site"}


def rows(connections: int = 100_000, runs: int = RUNS) -> list[Row]:
    """What, figure and target of each layout."""
    made: list[Row] = []
    with tempfile.TemporaryDirectory() as name, answering(BUSY) as busy, answering(RESPONSE) as polled:
        for kind, words in LAYOUTS.items():
            layout = Layout(Path(name) / kind, kind, busy, connections)
            made += told(f"{connections:,} connections, {words}", measured(layout, polled, runs))
    return made


def told(of: str, made: Figures) -> list[Row]:
    count = len(made.reload)
    return [
        (f"check-config, {of}", seconds(made.check), "≤ 8 s"),
        (f"start to ready, store empty, {of}", seconds(made.empty), "≤ 10 s"),
        (f"start to ready, all known, {of}", seconds(made.known), "≤ 10 s"),
        (f"memory when ready, {of}", f"{statistics.median(made.rss):,.0f} MiB", ""),
        (f"reload with {CHANGES} changes, {of}", seconds(made.reload), "≤ 3 s"),
        (f"its CPU time, {of}", seconds(made.cpu), ""),
        (f"longest wait of a client meanwhile, {of}", millis(made.stall), "≤ 50 ms"),
        (f"the same without a reload, {of}", millis(made.quiet), ""),
        (f"memory after {count} reloads, {of}", f"{made.rss_after[0]:,.0f} MiB", ""),
        (f"reload while all is polled, {of}", seconds(made.polled_reload), "≤ 3 s"),
        (f"longest wait of a client meanwhile, polled, {of}", millis(made.polled_stall), ""),
        (f"the same without a reload, polled, {of}", millis(made.polled_quiet), ""),
    ]


def seconds(runs: list[float]) -> str:
    return f"{statistics.median(runs):.2f} s"


def millis(runs: list[float]) -> str:
    return f"{statistics.median(runs) * 1000:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    made = rows(arguments.connections, arguments.runs)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, median of {arguments.runs}")
    print(table(("what", "figure", "target"), made, right=("figure", "target")))


if __name__ == "__main__":
    main()
