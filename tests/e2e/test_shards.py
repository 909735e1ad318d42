"""Daemons that share one configuration: each connection has one that polls it, and no quota is used twice."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from monitor.core.shards import Shard, Unit, part_of
from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import Daemon, running
from tests.fleet import key_site, write_config
from tests.pages import samples

PARTS: Final = 4
BUDGET: Final = 120
SMALL: Final = [f"site-{number}" for number in range(29)]
LARGE: Final = [f"large-{number}" for number in range(16)]
FLEET: Final = Scenario(
    sites=(
        *(key_site(name, [Connection(id=f"{name}-{who}") for who in ("anna", "ben")]) for name in SMALL),
        key_site("large", [Connection(id=each, status="SYNC_IN_PROGRESS") for each in LARGE]),
    )
)
CONNECTIONS: Final = [each.id for site in FLEET.sites for each in site.connections]
STORE: Final = "state-${WIX_CALENDAR_MONITOR_SHARD}.db"


def unit_of(connection: str) -> Unit:
    """What has to be owned for a connection to be watched."""
    site = connection.rpartition("-")[0]
    return Unit("large", part_of(connection, PARTS)) if site == "large" else Unit(site)


def owned(shard: Shard) -> set[str]:
    return {each for each in CONNECTIONS if shard.owns(unit_of(each))}


def shared(folder: Path, base_url: str) -> Path:
    """A configuration in which the large site's connections, in much need of polls, are shared out."""
    config = write_config(folder, base_url, FLEET, polling={"interval": "2s"})
    document = yaml.safe_load(config.read_text())
    document["store"]["url"] = f"sqlite:///{folder / STORE}"
    document["sites"][-1] |= {"parts": PARTS, "requests_per_minute": BUDGET, "interval": "10s"}
    config.write_text(yaml.safe_dump(document))
    return config


@asynccontextmanager
async def shards(config: Path, total: int) -> AsyncIterator[list[Daemon]]:
    async with AsyncExitStack() as stack:
        starts = [
            stack.enter_async_context(running(config, f"--shard={number}", f"--total-shards={total}"))
            for number in range(total)
        ]
        yield [await start for start in starts]


async def all_seen(daemon: Daemon, those: set[str]) -> None:
    for each in sorted(those):
        await daemon.event("connection_first_seen", seconds=40, connection=each)


async def shown(daemon: Daemon) -> tuple[set[str], set[str], list[float]]:
    """The connections and sites of its metrics, and which of how many it says it is."""
    page = samples(await daemon.get("/metrics"))
    return (
        {key[1] for key in page if key[0] == "wix_calendar_connection_stale"},
        {key[1] for key in page if key[0] == "wix_calendar_site_up"},
        [page[f"wix_calendar_monitor_{name}", "", ""] for name in ("shard_ordinal", "total_shards")],
    )


async def test_three_shards_watch_everything_once_and_a_fourth_takes_little(tmp_path: Path) -> None:
    async with Simulator(FLEET) as simulator:
        config = shared(tmp_path, simulator.base_url)
        three = [owned(Shard(number, 3)) for number in range(3)]
        async with shards(config, 3) as daemons:
            for number, daemon in enumerate(daemons):
                await all_seen(daemon, three[number])
                connections, sites, which = await shown(daemon)
                assert connections == three[number]
                assert sites == {unit_of(each).site for each in connections}
                assert which == [number, 3]
                told = (await daemon.event("monitor_ready", shard=number, total_shards=3))["connections"]
                assert told == len(three[number])
            assert await asyncio.gather(*(daemon.stop() for daemon in daemons)) == [0, 0, 0]
        assert sorted(each for those in three for each in those) == sorted(CONNECTIONS)
        assert sum("large" in {unit_of(each).site for each in those} for those in three) > 1
        assert_each_was_asked_by_one(simulator, daemons)
        four = [owned(Shard(number, 4)) for number in range(4)]
        async with shards(config, 4) as daemons:
            await all_seen(daemons[3], four[3])
            assert [(await shown(daemon))[0] for daemon in daemons] == four
            assert [daemon.events("connection_first_seen") for daemon in daemons[:3]] == [[], [], []]
        assert [after - before for before, after in zip(three, four, strict=False)] == [set(), set(), set()]
        assert 0 < len({unit_of(each) for each in four[3]}) < (len(SMALL) + PARTS) / 2


def assert_each_was_asked_by_one(simulator: Simulator, daemons: list[Daemon]) -> None:
    seen = [line["connection"] for daemon in daemons for line in daemon.events("connection_first_seen")]
    assert sorted(seen) == sorted(CONNECTIONS)
    record = simulator.record
    assert {record.connection(each).under_way.most for each in CONNECTIONS} == {1}
    assert BUDGET / 3 < record.busiest_minute("large") <= BUDGET


async def test_a_shard_without_a_site_is_ready_and_takes_the_first_that_comes(tmp_path: Path) -> None:
    async with Simulator(FLEET) as simulator:
        config = shared(tmp_path, simulator.base_url)
        whole = yaml.safe_load(config.read_text())
        (first, *_), (other, *_) = ([n for n in SMALL if Shard(k, 2).owns(Unit(n))] for k in (0, 1))
        keep_sites(config, whole, first)
        async with running(config, "--shard=1", "--total-shards=2") as daemon:
            ready = await daemon.event("monitor_ready")
            assert (ready["sites"], ready["connections"]) == (0, 0)
            for path in ("/sites", "/metrics", "/-/ready", "/api/v1/connections", "/api/v1/sites"):
                await daemon.get(path)
            page = await daemon.get("/")
            assert "No calendar is watched" in page
            assert "This is shard 1 of 2" in page
            fleet = json.loads(await daemon.get("/api/v1/fleet"))
            assert (fleet["shard"], fleet["total_shards"], fleet["sites"]) == (1, 2, 0)
            keep_sites(config, whole, first, other)
            daemon.process.send_signal(signal.SIGHUP)
            await daemon.event("config_reloaded", sites_added_first=[other])
            await all_seen(daemon, {f"{other}-anna", f"{other}-ben"})
            assert await daemon.stop() == 0
        assert simulator.record.site(first).requests == {}


def keep_sites(config: Path, whole: dict[str, Any], *names: str) -> None:
    sites = [each for each in whole["sites"] if each["name"] in names]
    config.write_text(yaml.safe_dump({**whole, "sites": sites}))


async def test_two_shards_do_not_share_a_store_and_are_told_how_to_name_theirs(tmp_path: Path) -> None:
    async with Simulator(FLEET) as simulator:
        config = shared(tmp_path, simulator.base_url)
        config.write_text(config.read_text().replace(STORE, "state.db"))
        async with running(config, "--shard=0", "--total-shards=2") as first:
            await first.event("monitor_ready")
            async with running(config, "--shard=1", "--total-shards=2") as second:
                assert await second.ended() == 1
    assert f"state.db is in use by process {first.process.pid} on " in second.stderr
    assert second.stderr.endswith(
        "stop that one, or give each monitor a store.url of its own"
        " (shards of one configuration: write ${WIX_CALENDAR_MONITOR_SHARD} into it)\n"
    )
