"""What state and history cost: `python -m tests.bench.store`, a table as output.

Each figure is the median of five runs on a fresh file in the folder given (default: a temporary one).
"""

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from structlog import get_logger

from monitor.clock import Clock
from monitor.core.effects import Effect
from monitor.core.machine import Step, advance
from monitor.core.model import Connection, ConnectionState, ErrorReason, Observed, Policy, Status
from monitor.ledger import BATCH, Ledger
from monitor.metrics.telemetry import Telemetry
from monitor.store import Booking
from monitor.store.rows import Announcement
from monitor.store.sqlite.file import open_file
from monitor.store.sqlite.threaded import ThreadedFile
from monitor.tables import table

RUNS = 5
MINUTE = timedelta(minutes=1)
POLICY = Policy(MINUTE, 3 * MINUTE, MINUTE)
CLOCK = Clock()
SYNCED, REVOKED = Observed(Status.SYNCED), Observed(Status.ERROR, ErrorReason.TOKEN_REVOKED)


def fleet(count: int) -> list[Connection]:
    return [Connection(f"site-{n // 100}", f"{n:036}", f"connection-{n}", POLICY) for n in range(count)]


def booking(connection: Connection, state: ConnectionState, seen: Observed) -> Booking:
    step = advance(connection, state, seen, CLOCK.now())
    told = tuple(effect for effect in step.effects if is_kept(effect))
    return Booking(connection, step.state, told)  # type: ignore[arg-type]  # is_kept saw to it


def is_kept(effect: Effect) -> bool:
    return isinstance(effect, Announcement)


def first_sights(count: int) -> list[Booking]:
    unseen = ConnectionState(watched_since=CLOCK.now())
    return [booking(each, unseen, SYNCED) for each in fleet(count)]


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_batches(store: Any, bookings: list[Booking], size: int) -> None:
    for start in range(0, len(bookings), size):
        store.commit(bookings[start : start + size], ())


def transitions_a_second(folder: Path, batch: int, count: int) -> float:
    store = open_file(folder / f"rate-{time.monotonic_ns()}.db", CLOCK).file
    seen = first_sights(count)
    in_batches(store, seen, BATCH)
    changed = [booking(each.connection, each.state, REVOKED) for each in seen]
    seconds = timed(lambda: in_batches(store, changed, batch))
    store.close()
    return count / seconds


def unchanged_poll(folder: Path, count: int) -> float:
    """Microseconds that booking one confirmed poll takes on the event loop; nothing is written for it."""
    store = open_file(folder / f"same-{time.monotonic_ns()}.db", CLOCK).file
    silent: Any = Silent()
    kept = ThreadedFile(store, ThreadPoolExecutor(1))
    ledger = Ledger(kept, silent, Telemetry(), CLOCK, get_logger(), MINUTE, known={})
    steps = [(each.connection, Step(each.state)) for each in first_sights(count)]
    seconds = timed(lambda: [ledger.book(connection, step) for connection, step in steps])
    store.close()
    return seconds / count * 1e6


class Silent:
    """A reporter of nothing."""

    def emit(self, effects: Any) -> None:
        del effects


def checkpoint(folder: Path, count: int) -> float:
    store = open_file(folder / f"bulk-{time.monotonic_ns()}.db", CLOCK).file
    seen = first_sights(count)
    in_batches(store, seen, 5000)
    again = [Booking(each.connection, each.state) for each in seen]
    seconds = timed(lambda: in_batches(store, again, 5000))
    store.close()
    return seconds


def start(folder: Path, count: int) -> float:
    path = folder / f"start-{time.monotonic_ns()}.db"
    store = open_file(path, CLOCK).file
    seen = first_sights(count)
    in_batches(store, seen, 5000)
    store.commit((), [told.transition_id for each in seen for told in each.announcements])
    store.close()
    began = time.perf_counter()
    store = open_file(path, CLOCK).file
    seconds = time.perf_counter() - began
    store.close()
    return seconds


def ready(folder: Path, count: int) -> float:
    """Seconds from starting the process to `monitor_ready`, every connection known to the store."""
    path = folder / f"ready-{time.monotonic_ns()}.db"
    store = open_file(path, CLOCK).file
    seen = first_sights(count)
    in_batches(store, seen, 5000)
    store.commit((), [told.transition_id for each in seen for told in each.announcements])
    store.close()
    command = [sys.executable, "-m", "monitor", "run", f"--config.file={config_of(folder, path, count)}"]
    began = time.perf_counter()
    with subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        while b"monitor_ready" not in daemon.stdout.readline():
            assert daemon.poll() is None
        seconds = time.perf_counter() - began
        daemon.kill()
    return seconds


def config_of(folder: Path, store: Path, count: int) -> Path:
    """A configuration of that fleet; nobody answers at its address."""
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_text("key")
    lines = [
        f"store: {{url: 'sqlite:///{store}'}}",
        "api: {base_url: 'http://127.0.0.1:1', max_in_flight: 1000}",
    ]
    lines.append("sites:")
    by_site = itertools.groupby(fleet(count), lambda each: each.site)
    for site, connections in by_site:
        lines.append(f"- {{name: {site}, credential: {{api_key_file: key, site_id: {site}}}, connections: [")
        lines += [f"    {{id: '{each.id}', name: {each.name}}}," for each in connections]
        lines.append("  ]}")
    path = folder / "monitor.yml"
    path.write_text("\n".join(lines))
    return path


def size(folder: Path, connections: int, rounds: int) -> tuple[float, float]:
    """MiB of a file with so many connections, and of each million transitions more."""
    path = folder / f"size-{time.monotonic_ns()}.db"
    store = open_file(path, CLOCK).file
    store.commit([Booking(each.connection, each.state) for each in first_sights(connections)], ())
    store.close()
    bare = path.stat().st_size
    store = open_file(path, CLOCK).file
    states = [(each.connection, each.state) for each in first_sights(connections)]
    for turn in range(rounds):
        changed = [booking(connection, state, (REVOKED, SYNCED)[turn % 2]) for connection, state in states]
        in_batches(store, changed, 5000)
        states = [(each.connection, each.state) for each in changed]
    store.close()
    grown = path.stat().st_size - bare
    return bare / 2**20, grown / (connections * rounds) * 1e6 / 2**20


def median(work: Callable[[], float]) -> float:
    return statistics.median(work() for _ in range(RUNS))


def rows(
    *, quick: bool = False, folder: Path | None = None, count: int = 100_000
) -> list[tuple[str, str, str]]:
    """What, figure, and no target; in a folder below the given one."""
    count = count // 10 if quick else count
    with tempfile.TemporaryDirectory(dir=folder) as name:
        return [(what, figure, "") for what, figure in figures(Path(name), count)]


def figures(folder: Path, count: int) -> list[tuple[str, str]]:
    """Measured with files in that folder."""
    bare, per_million = size(folder, count, 3)
    return [
        (
            "an unchanged poll, on the event loop",
            f"{median(lambda: unchanged_poll(folder, count)):.2f} µs",
        ),
        (
            "transitions a second, one a commit",
            f"{median(lambda: transitions_a_second(folder, 1, 2000)):,.0f}",
        ),
        (
            f"transitions a second, {BATCH} a commit",
            f"{median(lambda: transitions_a_second(folder, BATCH, 20_000)):,.0f}",
        ),
        (f"checkpoint of {count:,} connections", f"{median(lambda: checkpoint(folder, count)):.2f} s"),
        (f"open and read {count:,} connections", f"{median(lambda: start(folder, count)):.2f} s"),
        (f"process start to ready, {count:,} known", f"{median(lambda: ready(folder, count)):.1f} s"),
        (f"file with {count:,} connections", f"{bare:.1f} MiB"),
        ("file, per million transitions", f"{per_million:.0f} MiB"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, help="where the files are written; its disk is what is measured"
    )
    parser.add_argument("--connections", type=int, default=100_000)
    arguments = parser.parse_args()
    found = rows(folder=arguments.folder, count=arguments.connections)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, median of {RUNS}")
    print(table(("what", "figure", "target"), found, right=("figure",)))


if __name__ == "__main__":
    main()
