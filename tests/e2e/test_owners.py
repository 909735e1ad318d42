"""A real node beside another: it says who it is, what the other watches, and when it may not poll."""

import asyncio
import json
import signal
from pathlib import Path
from socket import gethostname
from typing import Any, Final

from monitor.clock import Clock
from monitor.core.shards import Unit
from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import Daemon, running
from tests.fleet import key_site, write_config
from tests.postgresql import PASSWORD, PostgreSQL
from tests.store.engines import Shared
from tests.store.members import joined
from tests.web.talk import Got, ask

FLEET: Final = Scenario(
    sites=(
        key_site("downtown", [Connection(id="anna")]),
        key_site("uptown", [Connection(id="cleo")]),
    )
)


def over(shared: Shared, folder: Path, base_url: str) -> Path:
    word = folder / "word"
    word.touch(mode=0o600)
    word.write_text(PASSWORD)
    url = shared.server.url(shared.database, password=None)
    store = {"url": url, "password_file": "word"}
    # What was well is not stale as long as a test looks at it.
    return write_config(folder, base_url, FLEET, polling={"stale_after": 100}, store=store)


async def got(daemon: Daemon, path: str) -> Got:
    return await asyncio.to_thread(ask, await daemon.url(), path)


async def fleet(daemon: Daemon) -> Any:
    return json.loads((await got(daemon, "/api/v1/fleet")).body)


async def until_it_shows(daemon: Daemon, path: str, told: str) -> str:
    """The page, once it says so; a look of it is kept for a second."""
    async with asyncio.timeout(30):
        while told not in (text := (await got(daemon, path)).body.decode()):
            pass
    return text


async def test_a_node_says_who_it_is_and_which_other_watches_what_it_does_not(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    shared = Shared(postgresql)
    async with Simulator(FLEET) as simulator, joined(shared, "b", ["http://192.0.2.7:19877"]) as other:
        await other.claim(Unit("uptown"))
        flags = ["--node.name=a", "--web.listen-address=0.0.0.0:0"]
        async with running(over(shared, tmp_path, simulator.base_url), *flags) as daemon:
            ready = await daemon.event("monitor_ready")
            assert (ready["node"], ready["sites"], ready["connections"]) == ("a", 1, 1)
            assert daemon.events("monitor_started")[0]["node"] == "a"
            body = await fleet(daemon)
            assert body["node"] == {"name": "a", "without_lease_since": None, "may_poll": True}
            port = ready["listening"][1].removeprefix("http://0.0.0.0:")
            assert body["nodes"] == [
                {"name": "a", "urls": [await daemon.url(), f"http://{gethostname()}:{port}"]},
                {"name": "b", "urls": ["http://192.0.2.7:19877"]},
            ]
            for path, told in (
                ("/sites/uptown", "This node watches no such site; node b watches it."),
                ("/connections/uptown/cleo", "This node watches no such calendar; node b watches its site."),
                ("/sites/nowhere", "No such site is configured."),
                ("/connections/downtown/nobody", "No such calendar is configured."),
            ):
                page = await got(daemon, path)
                assert (page.status, told in page.body.decode()) == (404, True), page.body
                assert (f'href="http://192.0.2.7:19877{path}"' in page.body.decode()) is (
                    "node b watches" in told
                )
            missing = json.loads((await got(daemon, "/api/v1/sites/uptown")).body)
            assert missing["detail"] == "this node watches no such site; node b watches it"
            assert await daemon.stop() == 0


async def test_what_a_node_does_without_its_database_is_settled_at_its_start(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    async with Simulator(FLEET) as simulator:
        config = over(Shared(postgresql), tmp_path, simulator.base_url)
        async with running(config) as daemon:
            await daemon.event("monitor_ready")
            config.write_text(
                config.read_text().replace("password_file:", "on_engine_loss: keep\n  password_file:")
            )
            daemon.process.send_signal(signal.SIGHUP)
            refused = await daemon.event("config_reload_failed")
            told = "store.on_engine_loss: cannot change while the daemon runs; restart it"
            assert refused["problems"] == [f"{config}: {told}"]
            assert await daemon.stop() == 0


async def test_a_node_that_lost_its_database_says_so_and_calls_nothing_well(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    shared = Shared(postgresql)
    async with Simulator(FLEET) as simulator:
        config = over(shared, tmp_path, simulator.base_url)
        async with running(config, "--node.name=a") as daemon:
            await until_it_shows(daemon, "/", "2 of 2 well")
            await asyncio.to_thread(postgresql.stop)
            try:
                page = await until_it_shows(daemon, "/", "This node may not poll since ")
                assert f"it has no lease of PostgreSQL at postgresql://127.0.0.1:{postgresql.port}/" in page
                assert "2 of 2 were well when we could last ask" in page
                body = await fleet(daemon)
                assert (body["node"]["may_poll"], body["verdict"]["sight"]["state"]) == (False, "bad")
                since = body["node"]["without_lease_since"]
                assert since.startswith(f"{Clock().now():%Y-%m-%d}")
                site = (await got(daemon, "/sites/nowhere")).body.decode()
                assert "This node watches no such site; which node watches it cannot be told now." in site
                assert PASSWORD not in page
            finally:
                await asyncio.to_thread(postgresql.start)
            await until_it_shows(daemon, "/", "2 of 2 well")
            assert (await fleet(daemon))["node"]["may_poll"] is True
            assert await daemon.stop() == 0
