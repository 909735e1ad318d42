"""A database that is empty at each test's begin, and the nodes over it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.nodes import House
from tests.postgresql import PostgreSQL
from tests.store.engines import Shared


@pytest.fixture(scope="session")
def shared(postgresql: PostgreSQL) -> Shared:
    """One for all: to make one takes longer than most tests."""
    return Shared(postgresql)


@pytest.fixture
async def house(shared: Shared, tmp_path: Path) -> AsyncIterator[House]:
    house = House(shared, tmp_path)
    yield house
    await house.close()
    for table in ("node", "lease", "transition", "connection"):
        await shared.rows(f"DELETE FROM {table} RETURNING 1")  # noqa: S608
