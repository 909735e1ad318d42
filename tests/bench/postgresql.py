"""What a PostgreSQL costs a node: `python -m tests.bench.postgresql`, a table as output.

The server is the tests' own, on this machine's disk; each figure is the median of five runs.
"""

import argparse
import asyncio
import os
import platform
import statistics
import time
from collections.abc import Awaitable
from uuid import uuid4

from monitor.clock import Clock
from monitor.core.shards import Unit
from monitor.ledger import BATCH
from monitor.store import Booking, Store
from monitor.store.postgresql.engine import Engine
from monitor.store.postgresql.held import Held
from monitor.store.postgresql.schema import SCHEMA
from monitor.store.postgresql.store import open_postgresql
from monitor.tables import table
from tests.bench.store import REVOKED, RUNS, booking, first_sights
from tests.postgresql import PostgreSQL, postgresql_server

CLOCK = Clock()


async def timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def in_batches(store: Store, bookings: list[Booking], size: int) -> None:
    for start in range(0, len(bookings), size):
        assert not await store.commit(bookings[start : start + size], ())


async def round_of(server: PostgreSQL, count: int) -> tuple[float, float, float, float]:
    """Transitions a second one by one and in batches; seconds of a checkpoint and of a claim."""
    database = server.new_database()
    held = Held(uuid4())
    opened = await open_postgresql(Engine(server.url(database), "bench"), "bench", held, CLOCK)
    store, seen = opened.store, first_sights(count)
    for site in {each.connection.site for each in seen}:
        held.epochs[Unit(site, 0)] = 1
        server.sql(database, f"INSERT INTO {SCHEMA}.lease VALUES ('{site}', 0, '{held.incarnation}', 1)")  # noqa: S608
    await in_batches(store, seen, BATCH)
    changed = [booking(each.connection, each.state, REVOKED) for each in seen]
    few, many = changed[:1000], changed[1000:21_000]
    one = len(few) / await timed(in_batches(store, few, 1))
    batch = len(many) / await timed(in_batches(store, many, BATCH))
    again = [Booking(each.connection, each.state) for each in changed]
    checkpoint = await timed(in_batches(store, again, store.piece))
    claim = await timed(store.states())
    await store.close()
    return one, batch, checkpoint, claim


async def figures(server: PostgreSQL, count: int) -> list[tuple[str, str, str]]:
    rounds = [await round_of(server, count) for _ in range(RUNS)]
    one, batch, checkpoint, claim = (statistics.median(each) for each in zip(*rounds, strict=True))
    return [
        ("transitions a second, one a commit", f"{one:,.0f}", ""),
        (f"transitions a second, {BATCH} a commit", f"{batch:,.0f}", ""),
        (f"checkpoint of {count:,} connections", f"{checkpoint:.2f} s", ""),
        (f"states of {count:,} connections at a claim", f"{claim:.2f} s", ""),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=100_000)
    count = parser.parse_args().connections
    with postgresql_server() as server:
        found = asyncio.run(figures(server, count))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, median of {RUNS}")
    print(table(("what", "figure", "target"), found, right=("figure",)))


if __name__ == "__main__":
    main()
