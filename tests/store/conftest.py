"""A store on a real file or in a real PostgreSQL, opened by the machine's first process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.clock import Clock
from monitor.store.sqlite.file import File, open_file
from tests.store.engines import Book, Engine, Shared, SQLite
from tests.store.samples import Machine


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def clock(machine: Machine) -> Clock:
    return machine.boot()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[File]:
    opened = open_file(path, clock)
    assert opened.set_aside is None
    yield opened.file
    opened.file.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, path: Path) -> Engine:
    """Each of the two; of PostgreSQL a database of the test's own."""
    return SQLite(path) if request.param == "sqlite" else Shared(request.getfixturevalue("postgresql"))


@pytest.fixture
def book(engine: Engine, clock: Clock) -> Iterator[Book]:
    """A store for a test without a loop."""
    book = Book(engine, clock)
    yield book
    book.close()
