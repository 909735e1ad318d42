"""The machine's clock is set back an hour and forward a day under a running daemon: nothing is harmed.

The clock is injected, the rest is real: service, schedule, simulator, store.
"""

import asyncio
import io
import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from monitor.clock import Clock
from monitor.config import load
from monitor.logs import Format, Redactor, set_up
from monitor.service import Outside, Service
from monitor.simulator import Connection, Scenario, Simulator
from monitor.store import open_store
from monitor.systemd import Notifier
from monitor.web.server import Address, WebOptions
from tests.fleet import oauth_site, write_config


class Journal(io.StringIO):
    """A stdout whose lines can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []
        self.news = asyncio.Event()

    def write(self, text: str) -> int:
        self.lines.append(json.loads(text))
        self.news.set()
        return len(text)

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(15):
            while True:
                for line in self.lines:
                    if wanted(line):
                        return line
                self.news.clear()
                await self.news.wait()


@pytest.mark.parametrize(
    "step", [timedelta(hours=-1), timedelta(days=1)], ids=["back an hour", "forward a day"]
)
async def test_polls_go_on_and_no_duration_is_negative_when_the_clock_is_set(
    tmp_path: Path, step: timedelta
) -> None:
    scenario = Scenario(sites=(oauth_site("downtown", [Connection(id="anna")]),))
    offset = 0.0
    async with Simulator(scenario) as simulator:
        loaded = load(write_config(tmp_path, simulator.base_url, scenario), environ={})
        journal, redactor, stop = Journal(), Redactor(), asyncio.Event()
        clock = Clock(wall_seconds=lambda: time.time() + offset)  # noqa: TID251  the machine's, set by the test
        log = set_up("info", Format.JSON, redactor, stream=journal)
        outside = Outside(log, redactor, clock, Notifier({}))
        opened = await open_store(loaded.settings.store, clock)
        web = WebOptions([Address("127.0.0.1", 0)])
        service = Service(loaded, outside, opened, asyncio.Event(), web)
        running = asyncio.ensure_future(service.run(stop, lambda _: None))  # noqa: TID251
        await journal.until(lambda line: line["event"] == "connection_first_seen")
        offset = step.total_seconds()
        stepped = await journal.until(lambda line: line["event"] == "clock_stepped")
        asked = simulator.record.site("downtown").requests["connection"]
        simulator.set_status("anna", "ERROR", "TOKEN_REVOKED")
        told = await journal.until(lambda line: line["event"] == "connection_transition")
        assert simulator.record.site("downtown").requests["connection"] > asked
        stop.set()
        assert await running
    assert stepped["step_seconds"] == pytest.approx(step.total_seconds(), abs=1)
    assert 0 < told["duration_seconds"] < 15
    seen_at = datetime.fromisoformat(told["observed_at"])
    assert abs((seen_at - clock.wall(clock.now())).total_seconds()) < 15
    assert "observed_late" not in told
    assert not [line for line in journal.lines if line["level"] == "critical" or "exception" in line]
