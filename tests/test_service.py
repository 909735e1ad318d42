"""The daemon's life: what a start that fails leaves behind."""

import asyncio
import io
import json
import socket
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from monitor.clock import Clock
from monitor.config import load
from monitor.errors import CannotStartError
from monitor.logs import Format, Redactor, set_up
from monitor.service import Outside, Service
from monitor.simulator import Connection, Scenario
from monitor.store import open_store
from monitor.store.sqlite.file import open_file
from monitor.systemd import Notifier
from monitor.web.server import Address, WebOptions
from tests.fleet import oauth_site, write_config
from tests.postgresql import PostgreSQL
from tests.store.engines import Shared


async def test_a_start_that_fails_lets_go_of_the_store_and_writes_nothing_in_it(tmp_path: Path) -> None:
    scenario = Scenario(sites=(oauth_site("downtown", [Connection(id="anna")]),))
    loaded = load(write_config(tmp_path, "http://127.0.0.1:1", scenario), environ={})
    redactor, clock = Redactor(), Clock()
    log = set_up("info", Format.JSON, redactor, stream=io.StringIO())
    opened = await open_store(loaded.settings.store, clock)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        web = WebOptions([Address("127.0.0.1", taken.getsockname()[1])])
        outside = Outside(log, redactor, clock, Notifier({}))
        service = Service(loaded, outside, opened, asyncio.Event(), web)
        with pytest.raises(CannotStartError, match="something else does"):
            await service.run(asyncio.Event(), lambda _: None)
    again = open_file(loaded.settings.store.path, clock).file
    assert again.states() == {}
    again.close()


async def test_a_node_begins_each_site_once(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """More sites than the schedule calls in one go: what was begun twice would be called twice."""
    sites = tuple(oauth_site(f"site-{number}", [Connection(id=f"anna-{number}")]) for number in range(40))
    path = write_config(tmp_path, "http://127.0.0.1:1", Scenario(sites=sites))
    loaded = load(path, environ={})
    loaded = replace(loaded, settings=replace(loaded.settings, store=Shared(postgresql).settings))
    lines, stop, scheduled = io.StringIO(), asyncio.Event(), list[str]()
    redactor, clock = Redactor(), Clock()
    log = set_up("info", Format.JSON, redactor, stream=lines)
    opened = await open_store(loaded.settings.store, clock, node="a")
    outside = Outside(log, redactor, clock, Notifier({}), node="a")
    service = Service(loaded, outside, opened, asyncio.Event(), WebOptions([Address("127.0.0.1", 0)]))

    def announce(_: list[str]) -> None:
        scheduled.extend(name for group in service._schedule._groups.values() for name in group.calls)
        stop.set()

    assert await service.run(stop, announce)
    swept = Counter(name for name in scheduled if name.startswith("sweep "))
    assert swept == {f"sweep site-{number}": 1 for number in range(40)}
    events = [json.loads(line)["event"] for line in lines.getvalue().splitlines()]
    assert events.index("sites_claimed") < events.index("monitor_ready")
