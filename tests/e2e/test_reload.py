"""A configuration that changes while the daemon runs: a real process, real signals, real files."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import ROOT, Daemon, Line, running
from tests.fleet import CLIENT_SECRET, oauth_site, write_config
from tests.pages import Labelled, labelled

NAMES: Final = ("anna", "ben", "cy", "dora")
FLEET: Final = Scenario(
    sites=(
        oauth_site("downtown", [Connection(id=name) for name in NAMES]),
        oauth_site("uptown", [Connection(id="emil")]),
    )
)
NONE: Final[frozenset[tuple[str, str]]] = frozenset()
Document = dict[str, Any]


class Watch:
    """A daemon, the simulator that it asks, and the file that it reads."""

    def __init__(self, daemon: Daemon, simulator: Simulator, config: Path) -> None:
        self.daemon = daemon
        self.simulator = simulator
        self.config = config

    def edit(self, change: Callable[[Document], None]) -> None:
        """Change the file, as an editor does: aside, then in one step."""
        document = yaml.safe_load(self.config.read_text())
        change(document)
        put(self.config, yaml.safe_dump(document, sort_keys=False))

    async def hangup(self, event: str = "config_reloaded") -> Line:
        """Send SIGHUP; the line that tells what became of it."""
        told = len(self.daemon.events(event))
        self.daemon.process.send_signal(signal.SIGHUP)
        return await self.told(event, told)

    async def told(self, event: str, before: int) -> Line:
        """The line of that event after the first so many."""
        await self.daemon.until(lambda _: len(self.daemon.events(event)) > before)
        return self.daemon.events(event)[before]

    async def page(self, wanted: Callable[[Labelled], bool] = lambda _: True) -> Labelled:
        """The first page that is wanted."""
        async with asyncio.timeout(20):
            while not wanted(page := labelled(await self.daemon.get("/metrics"))):
                await asyncio.to_thread(os.sched_yield)
        return page


def put(path: Path, text: str) -> None:
    aside = path.with_suffix(".new")
    aside.write_text(text)
    aside.replace(path)


def only(document: Document, *names: str) -> None:
    site = document["sites"][0]
    site["connections"] = [{"id": name, "name": name} for name in names]


@asynccontextmanager
async def watching(
    folder: Path, change: Callable[[Document], None] = lambda _: None, *flags: str
) -> AsyncIterator[Watch]:
    async with Simulator(FLEET) as simulator:
        config = write_config(folder, simulator.base_url, FLEET)
        document = yaml.safe_load(config.read_text())
        change(document)
        config.write_text(yaml.safe_dump(document))
        async with running(config, *flags) as daemon:
            await daemon.event("monitor_ready")
            yield Watch(daemon, simulator, config)


def shown(page: Labelled, family: str) -> dict[str, float]:
    """The values of a connection family, by the connection's name."""
    return {dict(labels)["connection"]: value for (name, labels), value in page.items() if name == family}


async def test_a_signal_brings_connections_lets_others_go_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    async with watching(tmp_path, lambda document: only(document, "anna", "ben")) as watch:
        await watch.daemon.event("connection_first_seen", connection="anna")
        watch.simulator.set_status("anna", "ERROR", "TOKEN_REVOKED")
        await watch.daemon.event("connection_transition", connection="anna")
        before = await watch.page()
        watch.edit(lambda document: only(document, "anna", "cy"))
        told = await watch.hangup()
        await watch.daemon.event("connection_first_seen", connection="cy")
        after = await watch.page()
        asked = len(watch.simulator.record.connection("ben").runs)
        await watch.daemon.stop()
    assert (told["trigger"], told["added"], told["removed"], told["changed"]) == ("signal", 1, 1, 0)
    assert (told["added_first"], told["removed_first"]) == (["downtown/cy"], ["downtown/ben"])
    assert (told["sites_added"], told["sites_removed"], told["sites_changed"]) == (0, 0, 0)
    assert set(shown(after, "wix_calendar_connection_stale")) == {"anna", "cy", "emil"}
    for family in ("status_since_timestamp_seconds", "transitions_total"):
        name = f"wix_calendar_connection_{family}"
        assert shown(after, name)["anna"] == shown(before, name)["anna"]
    assert asked == len(watch.simulator.record.connection("ben").runs)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("sites: [", "monitor.yml:2"),
        ("sites: []\n", "sites: "),
        ("nothing: here\n", "nothing"),
        ("", "is empty"),
    ],
)
async def test_a_refused_reload_changes_nothing_and_is_seen(
    tmp_path: Path, broken: str, problem: str
) -> None:
    async with watching(tmp_path) as watch:
        good = watch.config.read_text()
        put(watch.config, broken)
        told = await watch.hangup("config_reload_failed")
        page = await watch.page()
        put(watch.config, good)
        await watch.hangup()
        mended = await watch.page()
    assert problem in " ".join(told["problems"])
    assert (told["level"], told["trigger"]) == ("error", "signal")
    assert [each["wix_calendar_monitor_config_last_reload_successful", NONE] for each in (page, mended)] == [
        0,
        1,
    ]
    assert set(shown(page, "wix_calendar_connection_stale")) == {*NAMES, "emil"}


async def test_another_store_needs_a_restart_and_is_refused(tmp_path: Path) -> None:
    async with watching(tmp_path) as watch:
        watch.edit(lambda document: document["store"].update(url=f"sqlite:///{tmp_path / 'other.db'}"))
        told = await watch.hangup("config_reload_failed")
    assert told["problems"] == [f"{watch.config}: store.url: cannot change while the daemon runs; restart it"]


async def test_a_site_that_goes_is_asked_no_more_and_is_known_when_it_comes_back(tmp_path: Path) -> None:
    async with watching(tmp_path) as watch:
        await watch.daemon.event("connection_first_seen", connection="emil")
        watch.simulator.set_status("emil", "DISCONNECTED")
        await watch.daemon.event("connection_transition", connection="emil")
        before = await watch.page()
        uptown: list[Document] = []
        watch.edit(lambda document: uptown.append(document["sites"].pop()))
        gone = await watch.hangup()
        page = await watch.page()
        watch.edit(lambda document: document["sites"].append(uptown[0]))
        await watch.hangup()
        back = await watch.page(lambda page: shown(page, "wix_calendar_connection_healthy").get("emil") == 0)
    assert (gone["sites_removed"], gone["sites_removed_first"], gone["removed"]) == (1, ["uptown"], 1)
    assert [key for key in page if ("site", "uptown") in key[1]] == []
    since = "wix_calendar_connection_status_since_timestamp_seconds"
    assert shown(back, since)["emil"] == pytest.approx(shown(before, since)["emil"], abs=0.01)
    assert [line["connection"] for line in watch.daemon.events("connection_first_seen")].count("emil") == 1


async def test_other_intervals_names_and_teams_are_taken_over(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["polling"]["interval"] = "7s"
        document["sites"][0]["team"] = "front-desk"
        document["sites"][0]["connections"][0]["name"] = "anna-2"

    async with watching(tmp_path) as watch:
        await watch.daemon.event("connection_first_seen", connection="anna")
        watch.edit(change)
        told = await watch.hangup()
        page = await watch.page()
    assert (told["changed"], told["sites_changed"]) == (5, 2)
    assert set(shown(page, "wix_calendar_connection_poll_interval_seconds").values()) == {7}
    assert shown(page, "wix_calendar_connection_transitions_total")["anna-2"] == 0
    infos = [dict(labels) for (name, labels) in page if name == "wix_calendar_connection_info"]
    assert {each["team"] for each in infos if each["site"] == "downtown"} == {"front-desk"}


async def test_a_new_address_of_the_api_is_asked_from_then_on(tmp_path: Path) -> None:
    async with watching(tmp_path) as watch, Simulator(FLEET) as other:
        other.set_status("anna", "DISCONNECTED")
        await watch.daemon.event("connection_first_seen", connection="anna")
        watch.edit(lambda document: document["api"].update(base_url=other.base_url))
        await watch.hangup()
        await watch.daemon.event("connection_transition", connection="anna", to_status="DISCONNECTED")


async def test_a_site_that_is_down_stays_so_and_a_new_credential_is_tried_at_once(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong-secret"
    wrong.write_text("not-it")
    wrong.chmod(0o600)

    def refused(document: Document) -> None:
        document["polling"]["interval"] = "60s"
        document["sites"][1]["credential"]["oauth"]["client_secret_file"] = str(wrong)
        document["sites"][1]["interval"] = "1s"

    async with watching(tmp_path, refused) as watch:
        await watch.daemon.event("site_down", site="uptown")
        watch.edit(lambda document: document["sites"][0].update(team="front-desk"))
        await watch.hangup()
        page = await watch.page()
        right = {"client_secret_file": str(tmp_path / "client-secret")}
        watch.edit(lambda document: document["sites"][1]["credential"]["oauth"].update(right))
        await watch.hangup()
        await watch.daemon.event("site_up", site="uptown", seconds=5)
    assert page["wix_calendar_site_breaker_open", frozenset({("site", "uptown")})] == 1
    assert CLIENT_SECRET not in "".join(watch.daemon.raw)


def with_file(document: Document) -> None:
    document["sites"][0]["connections"] = []
    document["sites"][0]["connection_files"] = ["more/*.yml"]


async def test_a_connection_file_is_taken_as_it_changes_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    put(more / "a.yml", "- {id: anna}\n- {id: ben}\n")
    async with watching(tmp_path, with_file) as watch:
        put(more / "a.yml", "- {id: anna}\n- {id: be")
        refused = await watch.told("config_reload_failed", 0)
        page = await watch.page()
        put(more / "a.yml", "- {id: anna}\n")
        shorter = await watch.told("config_reloaded", 0)
        put(more / "b.yml", "- {id: cy}\n")
        longer = await watch.told("config_reloaded", 1)
        refusals = len(watch.daemon.events("config_reload_failed"))
    assert "a.yml:3" in refused["problems"][0]
    assert set(shown(page, "wix_calendar_connection_stale")) == {"anna", "ben", "emil"}
    assert (shorter["trigger"], shorter["removed_first"]) == ("files", ["downtown/ben"])
    assert longer["added_first"] == ["downtown/cy"]
    assert refusals == 1, "what was refused is not read again until it changes"


async def test_a_folder_that_is_away_takes_no_connection_with_it(tmp_path: Path) -> None:
    more, away = tmp_path / "more", tmp_path / "away"
    more.mkdir()
    put(more / "a.yml", "- {id: anna}\n- {id: ben}\n")
    async with watching(tmp_path, with_file) as watch:
        more.rename(away)
        refused = await watch.told("config_reload_failed", 0)
        page = await watch.page()
        away.rename(more)
        back = await watch.told("config_reloaded", 0)
        mended = await watch.page()
    assert "more cannot be read (No such file or directory)" in refused["problems"][0]
    assert set(shown(page, "wix_calendar_connection_stale")) == {"anna", "ben", "emil"}
    assert (back["added"], back["removed"], back["changed"]) == (0, 0, 0)
    assert mended["wix_calendar_monitor_config_last_reload_successful", NONE] == 1


async def test_what_cannot_be_read_is_refused_and_ends_nothing(tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    put(more / "a.yml", "- {id: anna}\n")
    async with watching(tmp_path, with_file) as watch:
        (more / "b.yml").symlink_to(tmp_path / "nowhere.yml")
        dangling = await watch.told("config_reload_failed", 0)
        (more / "b.yml").unlink()
        await watch.told("config_reloaded", 0)
        os.mkfifo(more / "b.yml")
        fifo = await watch.told("config_reload_failed", 1)
        (more / "b.yml").unlink()
        await watch.told("config_reloaded", 1)
        watch.config.unlink()
        os.mkfifo(watch.config)
        itself = await watch.hangup("config_reload_failed")
        assert await watch.daemon.stop() == 0
    assert "b.yml: cannot be read (No such file or directory)" in dangling["problems"][0]
    assert "b.yml: cannot be read (it is no regular file)" in fifo["problems"][0]
    assert "monitor.yml: cannot be read (it is no regular file)" in itself["problems"][0]


async def test_files_that_never_rest_are_taken_all_the_same(tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    put(more / "a.yml", "- {id: anna}\n")

    async def never_rest() -> None:
        while True:
            await asyncio.to_thread(put, more / "z.yml", "- {id: dora}\n")
            await asyncio.sleep(0.5)

    async with watching(tmp_path, with_file) as watch:
        writing = asyncio.get_running_loop().create_task(never_rest())
        put(more / "b.yml", "- {id: ben}\n")
        await watch.daemon.event("connection_first_seen", seconds=30, connection="ben")
        writing.cancel()


async def test_a_mended_address_of_the_api_is_tried_at_once(tmp_path: Path) -> None:
    def unreachable(document: Document) -> None:
        document["api"]["base_url"] = "http://127.0.0.1:1"
        document["polling"] |= {"breaker_failures": 1, "interval": "30s", "unsettled_interval": "30s"}
        document["sites"] = document["sites"][1:]

    async with watching(tmp_path, unreachable) as watch:
        await watch.daemon.event("site_down", seconds=40, site="uptown")
        watch.edit(lambda document: document["api"].update(base_url=watch.simulator.base_url))
        await watch.hangup()
        await watch.daemon.event("site_up", seconds=5, site="uptown")


async def test_the_configuration_itself_is_taken_as_it_changes_where_that_is_wanted(tmp_path: Path) -> None:
    async with watching(tmp_path, lambda _: None, "--config.auto-reload") as watch:
        watch.edit(lambda document: only(document, "cy"))
        told = await watch.told("config_reloaded", 0)
    assert (told["trigger"], told["removed"]) == ("files", 3)


async def test_what_grows_past_its_budget_is_stretched_and_none_is_left_out(tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    put(more / "a.yml", "- {id: anna}\n")

    def narrow(document: Document) -> None:
        with_file(document)
        document["sites"][0]["requests_per_minute"] = 100

    async with watching(tmp_path, narrow) as watch:
        put(more / "a.yml", "".join(f"- {{id: {name}}}\n" for name in NAMES))
        await watch.told("config_reloaded", 0)
        stretched = await watch.daemon.event("interval_stretched", site="downtown")
        page = await watch.page()
        await watch.daemon.event("connection_first_seen", connection="dora")
    assert shown(page, "wix_calendar_connection_poll_interval_seconds")["anna"] == 3
    assert stretched["interval"] == 3


def set_team(team: str, document: Document) -> None:
    document["sites"][0]["team"] = team


async def test_a_hundred_reloads_lose_no_poll(tmp_path: Path) -> None:
    async with watching(tmp_path) as watch:
        answered = [watch.simulator.record.connection(name).runs for name in NAMES]
        for number in range(2000):
            watch.edit(partial(set_team, f"team-{number}"))
            await watch.hangup()
            if number >= 99 and all(answered):
                break
        page = await watch.page()
        for name in NAMES:  # a disk may be slower than a stop is patient
            await watch.daemon.event("connection_first_seen", connection=name)
        asked = [sum(run.count for run in runs) for runs in answered]
        await watch.daemon.stop()
    for reason in ("overrun", "overlap"):
        assert page["wix_calendar_monitor_polls_missed_total", frozenset({("reason", reason)})] == 0
    assert all(asked)
    assert len(watch.daemon.events("connection_first_seen")) == 5, watch.daemon.raw[-5:]


async def test_signals_that_come_together_are_served_one_after_the_other(tmp_path: Path) -> None:
    async with watching(tmp_path) as watch:
        for _ in range(20):
            watch.daemon.process.send_signal(signal.SIGHUP)
        await watch.told("config_reloaded", 0)
        watch.edit(lambda document: only(document, "anna"))
        watch.daemon.process.send_signal(signal.SIGHUP)
        await watch.page(lambda page: set(shown(page, "wix_calendar_connection_stale")) == {"anna", "emil"})
        assert await watch.daemon.stop() == 0


async def test_a_signal_during_the_start_is_kept(tmp_path: Path) -> None:
    async with Simulator(FLEET) as simulator:
        config = write_config(tmp_path, simulator.base_url, FLEET)
        async with running(config) as daemon:
            async with asyncio.timeout(60):
                while not holds_hangup(daemon.process.pid):
                    await asyncio.to_thread(os.sched_yield)
            daemon.process.send_signal(signal.SIGHUP)
            await daemon.event("config_reloaded", trigger="signal")
            order = [line["event"] for line in daemon.lines]
    assert order.index("monitor_ready") < order.index("config_reloaded")


def holds_hangup(pid: int) -> bool:
    """Whether the process keeps SIGHUP for later, and only that: between fork and exec all are blocked.

    Source: proc(5), SigBlk.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigBlk"))
    return mask == 1 << (signal.SIGHUP - 1)


async def test_a_configuration_that_is_broken_at_the_start_still_ends_with_2(tmp_path: Path) -> None:
    config = tmp_path / "monitor.yml"
    config.write_text("sites: []\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "monitor",
        "run",
        f"--config.file={config}",
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        await process.communicate()
    assert process.returncode == 2
