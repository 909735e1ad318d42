"""The daemon's life: what a start that fails leaves behind."""

import asyncio
import io
import socket
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
