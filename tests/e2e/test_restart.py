"""Killed, stopped, started again: what was known stays known, what was told keeps its id, nothing is lost."""

import asyncio
import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import Daemon, running
from tests.disks import disk
from tests.fleet import oauth_site, write_config
from tests.soak.restarts import Account, account, trial

FLEET: Final = Scenario(sites=(oauth_site("downtown", [Connection(id="anna"), Connection(id="ben")]),))
PATIENT: Final = {"stale_after": 100, "breaker_failures": 3}
SECOND: Final = timedelta(seconds=1)


async def test_ten_kills_at_random_instants_lose_nothing_and_tell_nothing_under_two_ids(
    tmp_path: Path,
) -> None:
    outcome = await trial(tmp_path, restarts=10, seed=20261123)
    assert (outcome.lost, outcome.doubled, outcome.out_of_order) == (0, 0, 0), str(outcome)
    assert outcome.restarts == 10
    assert outcome.told == outcome.answered > 8


def told(number: int, status: str, transition_id: str | None = None) -> dict[str, object]:
    """A line of a log, as the trial reads it."""
    return {
        "event": "connection_transition",
        "connection_id": "anna",
        "transition_id": transition_id or f"t{number}",
        "to_status": status,
        "to_reason": None,
    }


A, B, C = (told(number, status) for number, status in enumerate(("SYNCED", "ERROR", "CONNECTED")))


@pytest.mark.parametrize(
    ("lives", "wrong"),
    [
        ([[A, B], [B, C], []], (1, 0, 0, 0)),
        ([[A, C]], (0, 1, 0, 0)),
        ([[A, B], [told(9, "ERROR"), C]], (0, 0, 1, 0)),
        ([[B, A], [C]], (0, 0, 0, 1)),
        ([[A, B, A, C]], (1, 0, 0, 1)),
    ],
    ids=["told again", "lost", "two ids", "out of order", "twice in one life"],
)
def test_the_account_of_a_trial_sees_each_kind_of_mistake(
    lives: list[list[dict[str, object]]], wrong: tuple[int, int, int, int]
) -> None:
    drawn: Account = account(lives, {"anna": [("SYNCED", None), ("ERROR", None), ("CONNECTED", None)]})
    assert (drawn.told_again, drawn.lost, drawn.doubled, drawn.out_of_order) == wrong


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
async def test_what_was_known_is_on_the_first_scrape_before_any_poll(
    tmp_path: Path, end: signal.Signals
) -> None:
    async with Simulator(FLEET) as simulator:
        config = write_config(tmp_path, simulator.base_url, FLEET, polling=PATIENT)
        async with running(config) as daemon:
            await daemon.event("connection_first_seen", connection="ben")
            await daemon.event("connection_first_seen", connection="anna")
            simulator.set_status("anna", "CONNECTED")
            await daemon.event("connection_transition", connection="anna", to_status="CONNECTED")
            simulator.set_status("anna", "ERROR", "TOKEN_REVOKED")
            await daemon.event("connection_transition", connection="anna", to_status="ERROR")
            simulator.set_fault("reset")
            await daemon.event("site_down")
            before = samples(await daemon.get("/metrics"))
            await daemon.stop(end)
        simulator.set_fault(None)
        simulator.set_fault("hang")
        async with running(config) as daemon:
            first = samples(await daemon.get("/metrics"))
            await daemon.stop(signal.SIGKILL)
    assert ("wix_calendar_site_up", "downtown", "") not in first  # nothing has been answered yet
    kept = (
        "wix_calendar_connection_status",
        "wix_calendar_connection_error_reason",
        "wix_calendar_connection_healthy",
        "wix_calendar_connection_stale",
        "wix_calendar_connection_status_since_timestamp_seconds",
        "wix_calendar_connection_transitions_total",
        "wix_calendar_connection_info",
    )
    for family in kept:
        assert of(first, family) == of(before, family), family
    assert first["wix_calendar_connection_transitions_total", "anna", ""] == 2
    assert first["wix_calendar_connection_status", "anna", "ERROR"] == 1
    assert daemon.events("connection_first_seen") == daemon.events("connection_transition") == []
    success = "wix_calendar_connection_last_success_timestamp_seconds"
    lost = [was - first[key] for key, was in of(before, success).items()]
    assert len(lost) == 2
    assert all(0 <= each <= (0 if end is signal.SIGTERM else 2) for each in lost), lost
    unhealthy = ("wix_calendar_connection_unhealthy_seconds_total", "anna", "")
    assert before[unhealthy] <= first[unhealthy] <= before[unhealthy] + 20


async def test_a_change_while_nobody_watched_is_told_late_with_its_window(tmp_path: Path) -> None:
    async with Simulator(FLEET) as simulator:
        config = write_config(tmp_path, simulator.base_url, FLEET, polling={**PATIENT, "breaker_failures": 8})
        async with running(config) as daemon:
            await daemon.event("connection_first_seen", connection="ben")
            await daemon.event("connection_first_seen", connection="anna")
            simulator.set_fault("reset")
            await daemon.event("site_down")  # eight failures of two connections: about four seconds
            before = samples(await daemon.get("/metrics"))
            assert await daemon.stop() == 0
        simulator.set_status("anna", "DISCONNECTED")
        simulator.set_fault(None)
        async with running(config) as daemon:
            late = await daemon.event("connection_transition", connection="anna")
            assert await daemon.stop() == 0
    assert late["observed_late"] is True
    last_success = before["wix_calendar_connection_last_success_timestamp_seconds", "anna", ""]
    assert seconds(late["not_before"]) == pytest.approx(last_success, abs=0.002)
    assert seconds(late["observed_at"]) > last_success + 2


async def test_a_restart_is_no_burst(tmp_path: Path) -> None:
    """Sixty connections at 5 s are 12 a second, from the first second on."""
    names = [f"c{number}" for number in range(60)]
    fleet = Scenario(sites=(oauth_site("downtown", [Connection(id=name) for name in names]),))
    async with Simulator(fleet) as simulator:
        polling = {"interval": "5s", "unsettled_interval": "5s"}
        config = write_config(tmp_path, simulator.base_url, fleet, polling=polling)
        async with running(config) as daemon:
            for name in names:
                await daemon.event("connection_first_seen", connection=name)
            assert await daemon.stop() == 0
        before = len(simulator.record.moments("downtown", "connection"))
        async with running(config) as daemon:
            async with asyncio.timeout(20):
                while len(simulator.record.moments("downtown", "connection")) < before + 60:
                    await daemon.get("/-/healthy")
            assert await daemon.stop() == 0
    moments = simulator.record.moments("downtown", "connection")[before : before + 60]
    in_a_second = [sum(begin <= at < begin + SECOND for at in moments) for begin in moments]
    assert 9 <= in_a_second[0] <= 15
    assert max(in_a_second) <= 15
    assert daemon.events("connection_first_seen") == []


async def test_another_daemon_on_the_same_file_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    async with Simulator(FLEET) as simulator:
        config = write_config(tmp_path, simulator.base_url, FLEET)
        async with running(config) as daemon:
            await daemon.event("monitor_ready")
            async with running(config) as second:
                assert await second.ended() == 1
            await daemon.event("connection_first_seen", connection="anna")
            assert await daemon.stop() == 0
    assert f"state.db is in use by process {daemon.process.pid} on " in second.stderr
    assert "Traceback" not in second.stderr
    assert second.events("monitor_started") == []


async def test_a_broken_file_is_set_aside_said_loudly_and_history_begins_anew(tmp_path: Path) -> None:
    async with Simulator(FLEET) as simulator:
        config = write_config(tmp_path, simulator.base_url, FLEET)
        async with running(config) as daemon:
            await daemon.event("connection_first_seen", connection="anna")
            assert await daemon.stop() == 0
        file = tmp_path / "state.db"
        whole = file.read_bytes()
        broken = whole[:4096] + b"\xff" * 3000 + whole[7096:]  # the head of a page, and more
        file.write_bytes(broken)
        async with running(config) as daemon:
            page = samples(await daemon.get("/metrics"))
            await daemon.event("connection_first_seen", connection="anna")
            assert await daemon.stop() == 0
    [line] = daemon.events("store_set_aside")
    assert line["level"] == "error"
    assert tmp_path.joinpath(line["kept_as"]).read_bytes() == broken
    assert page["wix_calendar_monitor_store_failures_total", "", ""] >= 1


async def test_a_full_disk_stops_no_poll_and_no_scrape_and_loses_no_change(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=2m") as small:
        async with Simulator(FLEET) as simulator:
            config = on_disk(write_config(tmp_path, simulator.base_url, FLEET), small.path)
            async with running(config) as daemon:
                await daemon.event("connection_first_seen", connection="anna")
                await daemon.event("connection_first_seen", connection="ben")
                small.fill()
                simulator.set_status("anna", "ERROR", "TOKEN_REVOKED")
                await daemon.event("store_failing")
                await until_answered(simulator, daemon, "ben", 3)
                full = samples(await daemon.get("/metrics"))
                told = json.loads(await daemon.get("/api/v1/fleet"))
                page = await daemon.get("/")
                assert daemon.events("connection_transition") == []
                small.empty()
                line = await daemon.event("connection_transition", connection="anna", to_status="ERROR")
                await daemon.event("store_recovered")
                assert await daemon.stop() == 0
        kept = list(transitions(small.path / "state.db"))
    assert full["wix_calendar_connection_status", "anna", "ERROR"] == 1
    assert (told["verdict"]["store"]["state"], told["store"]["changes_waiting"]) == ("bad", 1)
    assert told["verdict"]["store"]["told"] in page
    assert full["wix_calendar_connection_poll_success", "ben", ""] == 1
    assert full["wix_calendar_monitor_store_failures_total", "", ""] >= 1
    assert len(daemon.events("store_failing")) == len(daemon.events("store_recovered")) == 1
    assert kept == [(line["transition_id"], 1)]


def on_disk(config: Path, folder: Path) -> Path:
    """The same configuration with its state elsewhere."""
    document = yaml.safe_load(config.read_text())
    document["store"] = {"url": f"sqlite:///{folder / 'state.db'}"}
    config.write_text(yaml.safe_dump(document))
    return config


async def until_answered(simulator: Simulator, daemon: Daemon, name: str, times: int) -> None:
    """So many more answers."""
    before = simulator.record.runs(name)[-1].count
    async with asyncio.timeout(20):
        while simulator.record.runs(name)[-1].count < before + times:
            await daemon.get("/-/healthy")


def transitions(path: Path) -> Iterator[tuple[str, int]]:
    """The ids that the store holds, and whether each was told."""
    with closing(sqlite3.connect(path)) as db:
        yield from db.execute(
            "SELECT transition_id, announced FROM transition WHERE from_status NOTNULL ORDER BY n"
        )


Samples = dict[tuple[str, str, str], float]


def samples(page: str) -> Samples:
    """Values by family, connection (or site) and the label that is the family's own."""
    found: Samples = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = dict(sample.labels)
            site = labels.pop("site", "")
            key = (sample.name, labels.pop("connection", site), ",".join(labels.values()))
            found[key] = sample.value
    return found


def of(found: Samples, family: str) -> Samples:
    """The samples of one family; there must be some."""
    picked = {key: value for key, value in found.items() if key[0] == family}
    assert picked, family
    return picked


def seconds(moment: str) -> float:
    """A line's moment in seconds since 1970."""
    return datetime.fromisoformat(moment).timestamp()
