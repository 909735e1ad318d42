"""For all tests: how hard hypothesis looks, no event loop but pytest-asyncio's, and certificates."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.certificates import make_certificates
from tests.postgresql import PostgreSQL, postgresql_server

# No deadline, no complaint about slow data: the machine is shared. No database: a run leaves nothing behind.
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=100,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci")

# Else pytest-asyncio 1.x asks the policy for a loop before its first test, which the policy makes and nobody
# closes: the warning then fails whichever test the garbage collector happens to run in.
asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what `tests.certificates` makes."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL that runs all along; who stops it must start it again."""
    with postgresql_server() as server:
        yield server
