"""A thousand sites of which three hundred hang: the others are watched as if nothing were."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from tests.daemon import ROOT, Daemon, running
from tests.e2e.crowd import MUTE
from tests.pages import Samples, samples

pytestmark = pytest.mark.alone

INTERVAL: Final = 10
TIMEOUT: Final = 2
HANGING: Final = [f"{MUTE}{number}" for number in range(300)]
ANSWERING: Final = [f"fine-{number}" for number in range(700)]


def names(site: str) -> list[str]:
    """Its connections; they have the names of their ids."""
    return [f"{site}-a", f"{site}-b"]


def write_config(folder: Path, port: int) -> Path:
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_text("a-key\n")
    document = {
        "api": {"base_url": f"http://127.0.0.1:{port}", "timeout": f"{TIMEOUT}s"},
        "polling": {"interval": f"{INTERVAL}s", "breaker_failures": 3},
        "store": {"url": f"sqlite:///{folder / 'state.db'}"},
        "sites": [
            {
                "name": site,
                "credential": {"api_key_file": "key", "site_id": f"{site}-id"},
                "connections": [{"id": name} for name in names(site)],
            }
            for site in (*HANGING, *ANSWERING)
        ],
    }
    (folder / "monitor.yml").write_text(json.dumps(document))  # which is YAML too
    return folder / "monitor.yml"


@asynccontextmanager
async def crowd() -> AsyncIterator[int]:
    """The server; its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.e2e.crowd", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def all_told(daemon: Daemon, event: str, count: int) -> None:
    """Wait until so many lines of that event are in the log."""
    seen = 0

    def counts(line: dict[str, object]) -> bool:
        nonlocal seen
        seen += line["event"] == event
        return seen >= count

    await daemon.until(counts, seconds=60)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def at(page: Samples, family: str, name: str = "") -> float | None:
    return page.get((f"wix_calendar_{family}", name, ""))


async def test_sites_that_hang_leave_the_others_alone(tmp_path: Path) -> None:
    async with crowd() as port, running(write_config(tmp_path, port)) as daemon:
        await all_told(daemon, "site_down", len(HANGING))
        await all_told(daemon, "connection_first_seen", 2 * len(ANSWERING))
        page = samples(await daemon.get("/metrics"))
        assert await daemon.stop() == 0
    assert_the_others_were_asked_in_time(page)
    (ready,) = daemon.events("monitor_ready")
    first = max(moment(line["observed_at"]) for line in daemon.events("connection_first_seen"))
    assert first - moment(ready["timestamp"]) < timedelta(seconds=INTERVAL + TIMEOUT)
    assert {at(page, "site_up", site) for site in HANGING} == {0}
    assert {page["wix_calendar_site_down_reason", site, "timeout"] for site in HANGING} == {1}
    down = daemon.events("site_down")
    assert Counter(line["site"] for line in down) == Counter(HANGING)
    assert {(line["reason"], line["detail"]) for line in down} == {("timeout", "TimeoutError")}
    assert {line["site"] for line in daemon.events("connection_polls_failing")} == set(HANGING)


def assert_the_others_were_asked_in_time(page: Samples) -> None:
    assert {at(page, "site_up", site) for site in ANSWERING} == {1}
    watched = [name for site in ANSWERING for name in names(site)]
    for family, value in (("healthy", 1), ("stale", 0), ("poll_success", 1)):
        assert {at(page, f"connection_{family}", name) for name in watched} == {value}
    now = at(page, "monitor_last_tick_timestamp_seconds") or 0
    last = [at(page, "connection_last_success_timestamp_seconds", name) or 0 for name in watched]
    assert now - min(last) < INTERVAL + TIMEOUT
    assert page["wix_calendar_monitor_polls_missed_total", "", "overrun"] == 0
    assert page["wix_calendar_monitor_polls_missed_total", "", "overlap"] == 0
