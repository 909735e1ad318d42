"""A PostgreSQL that goes away, before a start and during a run: what polls do, what is shown and told."""

import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pytest

from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import Daemon, running
from tests.fleet import oauth_site, write_config
from tests.pages import samples
from tests.postgresql import PASSWORD, postgresql_server
from tests.rig.database import Database, database

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

FLEET: Final = Scenario(sites=(oauth_site("downtown", [Connection(id="anna"), Connection(id="ben")]),))
NAMES: Final = ("anna", "ben")


class Scene(NamedTuple):
    """A daemon over a database, and Wix."""

    simulator: Simulator
    database: Database
    daemon: Daemon

    async def shown(self, name: str) -> float | None:
        """A value without labels, at /metrics."""
        page = samples(await self.daemon.get("/metrics"))
        return page.get((f"wix_calendar_monitor_{name}", "", ""))

    async def stale(self) -> set[float]:
        page = samples(await self.daemon.get("/metrics"))
        return {page["wix_calendar_connection_stale", name, ""] for name in NAMES}

    async def seen(self) -> dict[str, Any]:
        """What the API tells of all."""
        document: dict[str, Any] = json.loads(await self.daemon.get("/api/v1/fleet"))
        return document

    async def until(self, condition: Callable[[], Any]) -> None:
        """Ask until it is so."""
        while not await condition():
            pass

    def requests(self) -> int:
        return len(self.simulator.record.requests("downtown"))

    def told(self) -> list[tuple[str, str, str]]:
        """All transitions in the log."""
        lines = self.daemon.events("connection_transition")
        return [(line["connection"], line["to_status"], line["transition_id"]) for line in lines]

    async def kept(self) -> list[tuple[str, str, str]]:
        """All transitions in the database, of which all are marked as told."""
        await self.until(self._all_marked)
        rows = await self.database.query(
            "SELECT * FROM wix_calendar_monitor.transition WHERE from_status IS NOT NULL ORDER BY n"
        )
        return [(row["connection"], row["to_status"], row["transition_id"]) for row in rows]

    async def _all_marked(self) -> bool:
        rows = await self.database.query("SELECT 1 FROM wix_calendar_monitor.transition WHERE NOT announced")
        return not rows


def config(folder: Path, simulator: Simulator, url: str, on_loss: str) -> Path:
    word = folder / "password"
    word.write_text(PASSWORD)
    word.chmod(0o600)
    store = {
        "url": url.replace(f":{PASSWORD}@", "@"),
        "password_file": str(word),
        "on_engine_loss": on_loss,
    }
    return write_config(folder, simulator.base_url, FLEET, store=store)


@asynccontextmanager
async def scene(folder: Path, on_loss: Literal["stop", "keep"]) -> AsyncIterator[Scene]:
    """All have been seen, and nothing waits."""
    async with (
        Simulator(FLEET) as simulator,
        database() as db,
        running(config(folder, simulator, db.url(), on_loss), "--node.name=a") as daemon,
    ):
        for name in NAMES:
            await daemon.event("connection_first_seen", connection=name)
        yield Scene(simulator, db, daemon)


async def test_with_keep_polls_go_on_and_what_changes_is_told_once_when_the_database_is_back(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, "keep") as its:
        failures = await its.shown("store_failures_total")
        await its.database.stop()
        await its.daemon.event("lease_lost")
        its.simulator.set_status("anna", "ERROR", "TOKEN_REVOKED")
        await its.until(lambda: waits(its, 1))
        its.simulator.set_status("anna", "SYNCED")
        await its.until(lambda: waits(its, 2))
        await its.daemon.event("store_failing")
        before = its.requests()
        await its.until(lambda: asked(its, before + 4))

        assert await its.shown("lease_held") == 0
        assert await its.stale() == {0.0}
        assert (await its.shown("store_failures_total") or 0) > (failures or 0)
        verdict = (await its.seen())["verdict"]["store"]["told"]
        assert verdict.startswith("Store failing since ")
        assert verdict.endswith("polling goes on, 2 of at most 50,000 changes held in memory")
        assert verdict in await its.daemon.get("/")
        assert its.told() == []

        await its.database.start()
        await its.daemon.event("lease_held")
        await its.daemon.event("connection_transition", connection="anna", to_status="SYNCED")
        assert [(who, status) for who, status, _ in its.told()] == [("anna", "ERROR"), ("anna", "SYNCED")]
        assert its.told() == await its.kept()
        assert (await its.seen())["verdict"]["store"]["told"] == "Every change is kept"


async def test_with_stop_nothing_is_asked_all_goes_stale_and_resumes_by_itself(tmp_path: Path) -> None:
    async with scene(tmp_path, "stop") as its:
        assert await its.shown("lease_held") == 1
        await its.database.stop()
        await its.daemon.event("lease_lost")
        before = its.requests()
        its.simulator.set_status("anna", "ERROR", "TOKEN_REVOKED")
        await its.until(lambda: all_stale(its))
        assert its.requests() <= before + len(NAMES), "but what was under way"
        assert await its.shown("lease_held") == 0
        assert (await its.seen())["node"]["without_lease_since"] is not None
        assert its.told() == []

        await its.database.start()
        await its.daemon.event("lease_held")
        await its.daemon.event("connection_transition", connection="anna", to_status="ERROR")
        await its.until(lambda: none_stale(its))
        assert await its.shown("lease_held") == 1
        assert its.told() == await its.kept()
        assert len(its.told()) == 1


async def test_a_start_without_the_database_says_so_without_the_password(tmp_path: Path) -> None:
    async with Simulator(FLEET) as simulator:
        with postgresql_server() as server:
            url = server.url(server.new_database())
            server.stop()
            async with running(config(tmp_path, simulator, url, "stop"), "--node.name=a") as daemon:
                assert await daemon.ended(30) == 1
    place = url.replace(f"postgres:{PASSWORD}@", "")
    told = daemon.stderr + "".join(daemon.raw)
    assert f"{place} cannot be used (" in told
    assert "see that it runs and lets us in" in told
    assert PASSWORD not in told
    assert "Traceback" not in told
    assert not simulator.record.requests("downtown")


async def waits(its: Scene, count: int) -> bool:
    waiting: int = (await its.seen())["store"]["changes_waiting"]
    return waiting == count


async def asked(its: Scene, count: int) -> bool:
    await its.seen()
    return its.requests() >= count


async def all_stale(its: Scene) -> bool:
    return await its.stale() == {1.0}


async def none_stale(its: Scene) -> bool:
    return await its.stale() == {0.0}


@pytest.mark.parametrize("on_loss", ["stop", "keep"])
@pytest.mark.parametrize("known", [False, True], ids=["at once", "once it is known"])
async def test_a_stop_while_the_database_says_nothing_ends_by_itself(
    tmp_path: Path, on_loss: Literal["stop", "keep"], *, known: bool
) -> None:
    """Within the time that systemd leaves it; it hung where a write was under way."""
    async with scene(tmp_path, on_loss) as its:
        with its.database.mute():
            its.simulator.set_status("anna", "ERROR", "TOKEN_REVOKED", site="downtown")
            if known:
                await its.daemon.event("lease_lost")
            assert await its.daemon.stop(signal.SIGTERM, 20) == 0
        (stopped,) = its.daemon.events("monitor_stopped")
        assert stopped["changes_unwritten"] in (0, 1)
