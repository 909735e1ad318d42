"""The door to the engines: the driver that may be missing, and passwords that nothing tells."""

import io
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from monitor.clock import Clock
from monitor.config import SecretSource, StoreSettings
from monitor.errors import CannotStartError, StoreError
from monitor.logs import Format, Redactor, set_up
from monitor.store import Store, open_store
from tests.daemon import ROOT
from tests.postgresql import PASSWORD, PostgreSQL

DAY = timedelta(days=1)


def test_without_the_driver_its_installation_is_said_and_sqlite_needs_none() -> None:
    script = (
        "import asyncio, sys; sys.modules['asyncpg'] = None\n"  # as where it is not installed
        "from datetime import timedelta\n"
        "from monitor.clock import Clock\n"
        "from monitor.config import StoreSettings\n"
        "from monitor.store import open_store\n"
        "asyncio.run(open_store(StoreSettings(sys.argv[1], timedelta(days=90)), Clock()))"
    )
    command = [sys.executable, "-c", script, "postgresql://anna@localhost/state"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert found.stderr.splitlines()[-1] == (
        "monitor.errors.CannotStartError: store.url is PostgreSQL's, and its driver is not installed; "
        "run pip install 'wix-calendar-monitor[postgresql]'"
    )


async def test_the_engine_that_the_url_names_is_opened(
    path: Path, clock: Clock, postgresql: PostgreSQL
) -> None:
    word = path.with_name("word")
    word.write_text(f"{PASSWORD}\n")
    url = postgresql.url(postgresql.new_database(), password=None)
    for settings in (
        StoreSettings(f"sqlite:///{path}", DAY),
        StoreSettings(url, DAY, SecretSource(file=word)),
    ):
        opened = await open_store(settings, clock)
        assert (opened.known, opened.untold, opened.set_aside) == ({}, [], None)
        assert (opened.shared is not None) is settings.is_shared
        assert not await opened.store.commit([], [])
        await opened.store.close()


async def test_a_password_that_was_replaced_is_used_by_the_next_connection(
    path: Path, clock: Clock, postgresql: PostgreSQL
) -> None:
    database = postgresql.new_database()
    postgresql.sql(database, f"CREATE ROLE of_{database} LOGIN PASSWORD 'first'; ")
    postgresql.sql(database, f"CREATE SCHEMA wix_calendar_monitor AUTHORIZATION of_{database}")
    word = path.with_name("word")
    word.write_text("first")
    url = postgresql.url(database, f"of_{database}", None)
    store = (await open_store(StoreSettings(url, DAY, SecretSource(file=word)), clock)).store
    postgresql.sql(database, f"ALTER ROLE of_{database} PASSWORD 'second'")
    postgresql.restart()
    with pytest.raises(StoreError, match="password authentication failed"):
        await until_refused(store)
    word.write_text("second")
    assert await store.states() == {}
    await store.close()


async def until_refused(store: Store) -> None:
    """The first question may only find that its connection is gone."""
    with suppress(StoreError):
        await store.states()
    await store.states()


@pytest.mark.parametrize("where", ["right", "wrong password", "nobody listens"])
async def test_no_password_and_no_user_is_in_what_is_logged_of_a_failure(
    path: Path, clock: Clock, postgresql: PostgreSQL, where: str
) -> None:
    word = path.with_name("word")
    word.write_text("canary-word" if where == "wrong password" else PASSWORD)
    url = postgresql.url("none-such", password=None)
    if where == "nobody listens":
        url = "postgresql://postgres@127.0.0.1:1/none-such"
    redactor, stream = Redactor(), io.StringIO()
    log = set_up("info", Format.JSON, redactor, stream=stream)
    with pytest.raises(CannotStartError) as refused:
        await open_store(StoreSettings(url, DAY, SecretSource(file=word)), clock, hide=redactor.hide)
    log.error("failed", exc_info=refused.value)
    told = stream.getvalue()
    assert "Traceback" in told
    assert not any(each in told + str(refused.value) for each in ("canary-word", PASSWORD))
    assert "postgres@" not in told
    log.error("failed", reason=f"{word.read_text()} is wrong")
    assert "[REDACTED] is wrong" in stream.getvalue()
