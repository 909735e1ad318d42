"""Connections that an inventory system serves: a real HTTP server, a real daemon."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from aiohttp import web

from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import Daemon, running
from tests.fleet import oauth_site, write_config

FLEET: Final = Scenario(
    sites=(oauth_site("downtown", [Connection(id=name) for name in ("anna", "ben", "cy", "dora")]),)
)
TOKEN: Final = "canary-inventory-token-91c0"


class Inventory:
    """Serves whatever it holds, to whom has the token."""

    def __init__(self) -> None:
        self.text = ""
        self.status = 200
        self.url = ""

    def hold(self, document: Any) -> None:
        self.text = json.dumps(document)

    async def serve(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        return web.Response(text=self.text, status=self.status)


@asynccontextmanager
async def inventory() -> AsyncIterator[Inventory]:
    its = Inventory()
    app = web.Application()
    app.router.add_get("/downtown", its.serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    its.url = f"http://127.0.0.1:{runner.addresses[0][1]}/downtown?key=1234"
    try:
        yield its
    finally:
        await runner.cleanup()


def fed(folder: Path, base_url: str, its: Inventory) -> Path:
    """A configuration with anna in it, and a feed for the others."""
    config = write_config(folder, base_url, FLEET)
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(TOKEN)
    document = yaml.safe_load(config.read_text())
    site = document["sites"][0]
    site["connections"] = [{"id": "anna", "name": "anna"}]
    site["connection_feeds"] = [{"url": its.url, "interval": "5s", "bearer_token_file": "token"}]
    config.write_text(yaml.safe_dump(document))
    return config


async def reloaded(daemon: Daemon, added: str, **facts: Any) -> None:
    await daemon.event("config_reloaded", trigger="files", added_first=[added], **facts)


async def test_a_feed_is_followed_through_its_outages_and_our_restarts(tmp_path: Path) -> None:
    async with Simulator(FLEET) as simulator, inventory() as its:
        its.hold([{"id": "ben"}, {"id": "anna"}])  # the latter stands in the file already
        config = fed(tmp_path, simulator.base_url, its)
        async with running(config) as daemon:
            await reloaded(daemon, "downtown/ben")
            await daemon.event("connection_first_seen", connection="ben")
            its.hold([{"targets": ["ben", "cy"], "labels": {"team": "spa", "__meta_floor": "1"}}])
            await reloaded(daemon, "downtown/cy", changed_first=["downtown/ben"])
            its.text = '[{"id": "ben"}, {"id"'
            broken = await daemon.event("connection_feed_failing")
            its.hold([{"id": "dora"}])
            await reloaded(daemon, "downtown/dora", removed=2)
            await daemon.event("connection_feed_recovered")
            its.status = 503
            await daemon.until(lambda _: len(daemon.events("connection_feed_failing")) == 2)
            out = daemon.events("connection_feed_failing")[1]
            assert await daemon.stop() == 0
        async with running(config) as again:
            first = await again.event("monitor_ready")
            page = await again.get("/metrics")
    warnings = {warning["path"] for warning in daemon.events("config_warning")}
    assert warnings >= {"sites[0].connection_feeds[0]", "[1].id"}
    assert "not valid YAML" in broken["reason"]
    assert out["reason"] == "it answers with 503"
    assert out["feed"].startswith(its.url.partition("?")[0])
    assert first["connections"] == 2
    assert 'connection="dora",status="SYNCED"} 1' in page
    told = "".join(daemon.raw) + "".join(again.raw) + daemon.stderr
    assert TOKEN not in told
    assert "key=1234" not in told


async def test_a_feed_that_never_answered_stops_no_start(tmp_path: Path) -> None:
    async with Simulator(FLEET) as simulator, inventory() as its:
        its.status = 500
        config = fed(tmp_path, simulator.base_url, its)
        async with running(config) as daemon:
            await daemon.event("connection_first_seen", connection="anna")
            await daemon.event("connection_feed_failing", site="downtown")
            its.status = 200
            its.hold([{"id": "ben"}])
            await daemon.event("connection_first_seen", connection="ben")
            assert await daemon.stop() == 0
