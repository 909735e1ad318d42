"""A node behind a PgBouncer: where sessions last it lives, where they are lent out it is refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from monitor.clock import Clock
from monitor.errors import CannotStartError
from monitor.store.postgresql.engine import POOLED, Engine
from monitor.store.postgresql.held import Held
from monitor.store.postgresql.leases import Node
from monitor.store.postgresql.store import Shared, open_postgresql
from tests.pgbouncer import pgbouncer
from tests.postgresql import PASSWORD, PostgreSQL

pytestmark = pytest.mark.real

LENDING = [
    {"pool_mode": "transaction"},
    {"pool_mode": "transaction", "server_round_robin": 1},
    {"pool_mode": "transaction", "default_pool_size": 1},
    {"pool_mode": "statement"},
]


@asynccontextmanager
async def opened(url: str, clock: Clock) -> AsyncIterator[Shared]:
    its = await open_postgresql(Engine(url, "a"), "a", Held(), clock)
    assert its.shared is not None
    yield its.shared
    await its.store.close()


async def test_behind_a_proxy_whose_sessions_last_a_node_lives(postgresql: PostgreSQL, clock: Clock) -> None:
    database = postgresql.new_database()
    with pgbouncer(postgresql, pool_mode="session") as port:
        async with opened(through(postgresql, port, database), clock) as shared:
            membership = await shared.leases.join(Node("a", []), timedelta(seconds=60), None)
            assert [each.name for each in await membership.beat() or ()] == ["a"]
            await membership.leave()
            membership.end()


@pytest.mark.parametrize("settings", LENDING, ids=lambda its: ", ".join(f"{k}={v}" for k, v in its.items()))
async def test_behind_a_proxy_that_lends_connections_out_a_start_is_refused_and_nothing_is_made(
    postgresql: PostgreSQL, clock: Clock, settings: dict[str, Any]
) -> None:
    database = postgresql.new_database()
    with pgbouncer(postgresql, **settings) as port:
        for _ in range(2):
            with pytest.raises(CannotStartError) as refused:
                await open_postgresql(Engine(through(postgresql, port, database), "a"), "a", Held(), clock)
            assert str(refused.value) == POOLED
    assert postgresql.sql(database, "SELECT 1 FROM pg_tables WHERE schemaname LIKE 'wix%'") == ""


async def test_what_such_a_proxy_mixes_up_with_anothers_is_said_as_clearly(
    postgresql: PostgreSQL, clock: Clock
) -> None:
    """The driver's first question may be known already to the session that it was lent."""
    database = postgresql.new_database()
    with pgbouncer(postgresql, pool_mode="transaction") as port:
        url = through(postgresql, port, database)
        other = await asyncpg.connect(url)
        names = (f"__asyncpg_stmt_{number:x}__" for number in range(5000))
        await other.execute("; ".join(f"PREPARE {name} AS SELECT 1" for name in names))
        with pytest.raises(CannotStartError) as refused:
            await open_postgresql(Engine(url, "a"), "a", Held(), clock)
        await other.close()
    assert POOLED in str(refused.value)


async def test_a_proxy_that_lets_in_too_few_is_told_from_one_that_lets_in_nobody(
    postgresql: PostgreSQL, clock: Clock
) -> None:
    database = postgresql.new_database()
    settings = {"pool_mode": "session", "default_pool_size": 1, "query_wait_timeout": 1}
    with pgbouncer(postgresql, **settings) as port:
        place = f"postgresql://127.0.0.1:{port}/{database}"
        with pytest.raises(CannotStartError) as refused:
            await open_postgresql(Engine(through(postgresql, port, database), "a"), "a", Held(), clock)
    assert str(refused.value).startswith(f"{place} lets us in once and not twice (")
    assert "a node has up to 6 connections: see to a proxy's pool" in str(refused.value)
    assert PASSWORD not in str(refused.value)


def through(postgresql: PostgreSQL, port: int, database: str) -> str:
    return postgresql.url(database).replace(f":{postgresql.port}/", f":{port}/")
