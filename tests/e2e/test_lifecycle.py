"""Start, stop, and what must go on whatever Wix answers."""

import asyncio
import socket
import sys
import time
from pathlib import Path

import pytest

from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import ROOT, running
from tests.fleet import oauth_site, write_config
from tests.pages import samples


async def test_a_stop_ends_within_ten_seconds_and_loses_no_result(tmp_path: Path) -> None:
    scenario = Scenario(sites=(oauth_site("downtown", [Connection(id="anna"), Connection(id="ben")]),))
    async with Simulator(scenario) as simulator:
        simulator.set_fault({"latency": "2s"}, ["anna"])
        simulator.set_fault("hang", ["ben"])
        config = write_config(
            tmp_path, simulator.base_url, scenario, api={"timeout": "30s"}, polling={"interval": "3s"}
        )
        async with running(config) as daemon:
            await daemon.event("monitor_ready")
            async with asyncio.timeout(10):
                while [simulator.record.connection(name).under_way.now for name in ("anna", "ben")] != [1, 1]:
                    await daemon.get("/-/healthy")
            began = time.monotonic()
            assert await daemon.stop() == 0
            took = time.monotonic() - began
    assert took < 10
    assert [line["connection"] for line in daemon.events("connection_first_seen")] == ["anna"]
    stopped = daemon.events("monitor_stopped")
    assert [line["polls_cut_off"] for line in stopped] == [1]
    assert "Traceback" not in "".join(daemon.raw) + daemon.stderr


async def test_a_port_that_is_taken_ends_with_1_and_says_what_to_do(tmp_path: Path) -> None:
    scenario = Scenario(sites=(oauth_site("downtown", [Connection(id="anna")]),))
    config = write_config(tmp_path, "http://127.0.0.1:1", scenario)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "monitor",
            "run",
            f"--config.file={config}",
            f"--web.listen-address=127.0.0.1:{port}",
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            _, errors = await process.communicate()
    assert process.returncode == 1
    told = f"cannot listen on 127.0.0.1:{port}: something else does; choose another --web.listen-address\n"
    assert errors.decode() == told


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("no_connection", "bad_response"),
        ("wrong_id", "bad_response"),
        ("huge", "bad_response"),
        ("endless", "bad_response"),
        ("not_utf8", "bad_response"),
        ("truncated_json", "bad_response"),
        ("not_found_html", "bad_response"),
        ("not_found_other_json", "bad_response"),
        ("truncated", "connect"),
        ("reset", "connect"),
        ("hang", "timeout"),
        ({"status": 500, "body": "html"}, "server_error"),
        ({"status": 418}, "rejected"),
        ({"status": 403, "code": "PREMIUM_FEATURE_NOT_ENABLED"}, "premium_required"),
    ],
    ids=str,
)
async def test_a_bad_answer_is_counted_and_everything_else_goes_on(
    tmp_path: Path, fault: str | dict[str, object], reason: str
) -> None:
    """The breaker is kept out of it: one connection fails, the other's successes close it."""
    scenario = Scenario(sites=(oauth_site("downtown", [Connection(id="bad"), Connection(id="good")]),))
    async with Simulator(scenario) as simulator:
        config = write_config(tmp_path, simulator.base_url, scenario, api={"timeout": "500ms"})
        async with running(config) as daemon:
            await daemon.event("connection_first_seen", connection="bad")
            simulator.set_fault(fault, ["bad"])
            told = await daemon.event("connection_polls_failing", connection="bad")
            simulator.set_status("good", "ERROR", "TOKEN_REVOKED")
            await daemon.event("connection_transition", connection="good")
            page = await daemon.get("/metrics")
            simulator.set_fault(None, ["bad"])
            await daemon.event("connection_polls_recovered", connection="bad")
            assert await daemon.stop() == 0
    assert told["reason"] == reason
    values = samples(page)
    assert values["wix_calendar_site_request_failures_total", "downtown", reason] >= 1
    assert values["wix_calendar_connection_status", "bad", "SYNCED"] == 1
    assert values["wix_calendar_connection_poll_success", "bad", ""] == 0
    assert values["wix_calendar_connection_status", "good", "ERROR"] == 1
    assert [line["connection"] for line in daemon.events("connection_transition")] == ["good"]


async def test_a_whole_site_that_fails_is_one_line_and_its_calendars_keep_their_status(
    tmp_path: Path,
) -> None:
    names = [f"c{number}" for number in range(10)]
    scenario = Scenario(sites=(oauth_site("downtown", [Connection(id=name) for name in names]),))
    async with Simulator(scenario) as simulator:
        config = write_config(tmp_path, simulator.base_url, scenario, polling={"breaker_failures": 3})
        async with running(config) as daemon:
            for name in names:
                await daemon.event("connection_first_seen", connection=name)
            simulator.set_fault({"status": 503})
            down = await daemon.event("site_down")
            page = await daemon.get("/metrics")
            simulator.set_fault(None)
            await daemon.event("site_up")
            assert await daemon.stop() == 0
    assert (down["reason"], down["http_status"], down["connections"]) == ("server_error", 503, 10)
    assert len(daemon.events("site_down")) == len(daemon.events("site_up")) == 1
    assert len(daemon.events("connection_polls_failing")) == 2  # the two before the breaker opened
    assert daemon.events("connection_transition") == []
    values = samples(page)
    assert values["wix_calendar_site_up", "downtown", ""] == 0
    assert values["wix_calendar_site_down_reason", "downtown", "server_error"] == 1
    assert all(values["wix_calendar_connection_status", name, "SYNCED"] == 1 for name in names)


async def test_a_store_set_aside_is_told_even_when_the_start_then_fails(tmp_path: Path) -> None:
    scenario = Scenario(sites=(oauth_site("downtown", [Connection(id="anna")]),))
    config = write_config(tmp_path, "http://127.0.0.1:1", scenario)
    (tmp_path / "state.db").write_bytes(b"what was once a store" * 1000)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"--web.listen-address=127.0.0.1:{taken.getsockname()[1]}"
        async with running(config, address) as daemon:
            assert await daemon.ended() == 1
    [aside] = daemon.events("store_set_aside")
    kept = tmp_path / Path(aside["kept_as"]).name
    assert kept.read_bytes() == b"what was once a store" * 1000
