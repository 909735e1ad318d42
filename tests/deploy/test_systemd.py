"""The installed service under a real systemd: it starts, tells, is watched, stops, and comes back."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitor.demo.alerts import FACTOR
from monitor.demo.faster import Shipped, Webhook
from tests.deploy.installation import BUILD_SECONDS, HOME, ROOT
from tests.deploy.operated import (
    CONFIG,
    DROP_INS,
    INTERVAL,
    MONITOR,
    NAME,
    SECRET,
    STATE,
    UNIT,
    Operated,
    operated,
)
from tests.real_parts import lacking, require

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("nspawn"),
    pytest.mark.timeout(BUILD_SECONDS + 60),
]

_SINCE: Final = "wix_calendar_connection_status_since_timestamp_seconds"
_TRANSITIONS: Final = "wix_calendar_connection_transitions_total"
_RELOADS: Final = """
import signal
from monitor.systemd import Notifier

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
notifier = Notifier()
notifier.ready("up")
notifier.reloading()
signal.sigwait([signal.SIGHUP])
notifier.ready("up again")
signal.pause()
"""
_STRANGER: Final = "203.0.113.1"
_LAST_SUCCESS: Final = "wix_calendar_connection_last_success_timestamp_seconds"


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Operated]:
    """A machine with the package and its configuration."""
    with operated(package) as machine:
        machine.install(package)
        machine.configure()
        machine.simulate()
        machine.output("systemctl", "start", UNIT)
        machine.until(machine.polled, UNIT)
        _fall_ill_and_heal(machine)
        yield machine


@pytest.fixture
def service(machine: Operated) -> Operated:
    """The machine, with the service running and both calendars known."""
    machine.output("systemctl", "start", UNIT)
    machine.until(machine.polled, UNIT)
    return machine


@contextmanager
def _drop_in(machine: Operated, name: str, text: str) -> Iterator[None]:
    """The service started anew with a drop-in, until the end."""
    machine.write(f"{DROP_INS}/{name}", text)
    machine.output("systemctl", "daemon-reload")
    machine.output("systemctl", "restart", UNIT)
    try:
        yield
    finally:
        machine.output("rm", f"{DROP_INS}/{name}")
        machine.output("systemctl", "daemon-reload")
        machine.output("systemctl", "restart", UNIT)


def _known(machine: Operated) -> dict[str, dict[str, float]]:
    """What no restart may change while no calendar does."""
    return {name: machine.samples(name) for name in (_SINCE, _TRANSITIONS)}


def _fall_ill_and_heal(machine: Operated) -> None:
    """Let a calendar do so, and both be seen: there is something to forget then."""

    def seen(count: int) -> bool:
        return machine.samples(_TRANSITIONS)["anna-google"] == count

    machine.by_hand("connections/anna", "--data", '{"status": "DISCONNECTED"}')
    machine.until(lambda: seen(1), UNIT)
    machine.by_hand("connections/anna", "--request", "DELETE")
    machine.until(lambda: seen(2), UNIT)


def test_it_is_active_once_it_serves(service: Operated) -> None:
    state = service.show(UNIT, "ActiveState", "SubState", "User")
    assert state == {"ActiveState": "active", "SubState": "running", "User": NAME}
    service.output("systemctl", "restart", UNIT)
    assert service.page("/-/ready")


def test_its_status_line_counts(service: Operated) -> None:
    service.until(lambda: "0 not seen yet, 1 unhealthy" in service.output("systemctl", "status", UNIT), UNIT)


def test_it_polls_with_a_credential_that_systemd_handed_over(service: Operated) -> None:
    assert 'connection="ben-outlook",reason="TOKEN_REVOKED"} 1' in service.page()
    assert SECRET not in service.journal(UNIT)


def test_the_sandbox_leaves_the_process_metrics(service: Operated) -> None:
    families = {family.name for family in text_string_to_metric_families(service.page())}
    assert families >= {
        "process_cpu_seconds",
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    }
    assert service.samples("process_max_fds") == {"": 16384.0}


def test_the_sandbox_holds(service: Operated) -> None:
    pid = service.show(UNIT, "MainPID")["MainPID"]
    status = dict(re.findall(r"^(\w+):\s+(.*)$", service.output("cat", f"/proc/{pid}/status"), re.MULTILINE))
    assert (status["NoNewPrivs"], status["Seccomp"], int(status["CapBnd"], 16)) == ("1", "2", 0)
    assert service.output("stat", "--format=%A %U", STATE).strip() == f"drwx------ {NAME}"


def test_where_addresses_are_named_it_serves_them_and_nobody_else(service: Operated) -> None:
    if not service.filters_addresses():
        lacking("a filter of addresses needs CAP_BPF")
    require("ip")
    service.output("ip", "address", "replace", f"{_STRANGER}/32", "dev", "lo")
    assert _answered(service, _STRANGER)
    with _drop_in(service, "addresses.conf", (ROOT / "deploy/systemd/addresses.conf").read_text()):
        assert not _answered(service, _STRANGER)
        before = max(service.samples(_LAST_SUCCESS).values())
        service.until(lambda: min(service.samples(_LAST_SUCCESS).values()) > before, UNIT)


def _answered(machine: Operated, asker: str) -> bool:
    asked = ("curl", "--silent", "--max-time", "2", "--interface", asker, "http://127.0.0.1:19877/-/ready")
    return machine.run(*asked).returncode == 0


def test_the_operator_reads_what_the_store_knows(service: Operated) -> None:
    asked = ("wix-calendar-monitor", "status", f"--config.file={CONFIG}")
    assert "downtown/ben-outlook" in service.output("runuser", "-u", NAME, "--", *asked)
    service.output("systemctl", "stop", UNIT)
    assert "downtown/ben-outlook" in service.output(*asked)
    service.output("systemctl", "start", UNIT)  # root has left nothing behind that its user cannot open
    assert set(service.output("find", STATE, "-printf", "%u\n").split()) == {NAME}


def test_levels_are_the_journals_priorities(service: Operated) -> None:
    asked = ("journalctl", "--boot", "--output=json", f"_SYSTEMD_UNIT={UNIT}")
    entries = [json.loads(line) for line in service.output(*asked).splitlines()]
    pairs = {
        (json.loads(each["MESSAGE"])["level"], each["PRIORITY"]) for each in entries if "{" in each["MESSAGE"]
    }
    assert pairs >= {("info", "6"), ("warning", "4"), ("error", "3")}
    assert len(pairs) == len({level for level, _ in pairs})
    assert {each["SYSLOG_IDENTIFIER"] for each in entries} == {NAME}


def test_a_reload_takes_a_configuration_or_leaves_all_as_it_is(service: Operated) -> None:
    before = service.show(UNIT, "MainPID")
    without_ben = MONITOR.replace("  - id: ben\n    name: ben-outlook\n", "")
    assert _reloaded(service, without_ben) == "config_reloaded"
    assert _watched(service) == {"anna-google"}
    assert _reloaded(service, MONITOR.replace("sites:", "sitez:")) == "config_reload_failed"
    assert _watched(service) == {"anna-google"}
    assert _reloaded(service, MONITOR) == "config_reloaded"
    assert _watched(service) == {"anna-google", "ben-outlook"}
    assert service.show(UNIT, "MainPID") == before


def _reloaded(machine: Operated, config: str) -> str:
    """How a reload with that configuration ends, which leaves the service active."""
    seen = len(machine.lines())

    def ends() -> list[str]:
        return [line["event"] for line in machine.lines()[seen:] if line["event"].startswith("config_reload")]

    machine.write(CONFIG, config, f"--group={NAME}", "--mode=640")
    machine.output("systemctl", "reload", UNIT)
    machine.until(lambda: ends() != [], UNIT)
    machine.until(lambda: machine.show(UNIT, "ActiveState")["ActiveState"] == "active", UNIT)
    (end,) = ends()
    return end


def _watched(machine: Operated) -> set[str]:
    return set(machine.samples("wix_calendar_connection_info"))


def test_systemd_understands_that_a_service_is_reloading_and_is_ready_again(machine: Operated) -> None:
    machine.write("/run/reloads.py", _RELOADS)
    flags = ("--unit=reloads", "--collect", "--property=Type=notify")
    machine.output("systemd-run", *flags, f"{HOME}/bin/python3", "/run/reloads.py")
    machine.until(lambda: machine.show("reloads", "ActiveState")["ActiveState"] == "reloading", "reloads")
    machine.output("kill", "-HUP", machine.show("reloads", "MainPID")["MainPID"])
    machine.until(lambda: machine.show("reloads", "ActiveState")["ActiveState"] == "active", "reloads")
    assert machine.show("reloads", "StatusText") == {"StatusText": "up again"}
    machine.output("systemctl", "stop", "reloads")


def test_it_stops_within_ten_seconds_while_wix_hangs(service: Operated) -> None:
    service.by_hand("faults", "--data", '{"fault": "hang"}')
    service.until(lambda: service.record()["sites"]["downtown"]["under_way"] > 0, UNIT)
    service.output("systemctl", "stop", UNIT, seconds=10)
    service.by_hand("faults", "--request", "DELETE")
    assert service.show(UNIT, "ActiveState", "Result", "ExecMainStatus") == {
        "ActiveState": "inactive",
        "Result": "success",
        "ExecMainStatus": "0",
    }
    assert service.lines()[-1]["event"] == "monitor_stopped"
    assert service.lines()[-1]["polls_cut_off"] > 0
    assert "Traceback" not in service.journal(UNIT)


def test_it_comes_back_after_it_was_killed_and_knows_what_it_knew(service: Operated) -> None:
    known = _known(service)
    before = service.show(UNIT, "MainPID", "NRestarts")
    service.output("kill", "-KILL", before["MainPID"])

    def back() -> bool:
        now = service.show(UNIT, "MainPID", "NRestarts", "ActiveState")
        again = int(now["NRestarts"]) == int(before["NRestarts"]) + 1
        return again and now["ActiveState"] == "active" and now["MainPID"] != before["MainPID"]

    service.until(back, UNIT)
    assert _known(service) == known


def test_a_hang_is_ended_tells_its_place_and_is_started_anew(service: Operated) -> None:
    # In place of the unit's 30 and 5 seconds, for the test's patience only.
    with _drop_in(service, "shorter.conf", "[Service]\nWatchdogSec=3\nRestartSec=1\n"):
        service.output("kill", "-STOP", service.show(UNIT, "MainPID")["MainPID"])
        service.until(lambda: service.show(UNIT, "NRestarts")["NRestarts"] == "1", UNIT)
        service.until(lambda: service.show(UNIT, "ActiveState")["ActiveState"] == "active", UNIT)
    assert "Watchdog timeout" in service.journal(UNIT)
    place = r'Fatal Python error: Aborted\n(.*\n)*?  File ".*/monitor/cli.py", line \d+ in'
    # The process wrote it; the journal takes it in its own time.
    service.until(lambda: re.search(place, service.journal(UNIT)) is not None, UNIT)


def test_a_configuration_that_cannot_be_used_is_not_tried_again(service: Operated) -> None:
    service.output("systemctl", "stop", UNIT)
    service.output("sed", "--in-place", "s/^sites:/sitez:/", CONFIG)
    try:
        assert service.run("systemctl", "start", UNIT).returncode != 0
        state = service.show(UNIT, "ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts")
    finally:
        service.output("sed", "--in-place", "s/^sitez:/sites:/", CONFIG)
        service.output("systemctl", "reset-failed", UNIT)
    assert state == {
        "ActiveState": "failed",
        "SubState": "failed",
        "Result": "exit-code",
        "ExecMainStatus": "2",
        "NRestarts": "0",
    }
    assert "sitez" in service.journal(UNIT)


def test_a_secret_is_rotated_by_a_restart_that_forgets_nothing(service: Operated) -> None:
    known, phases = _known(service), _phases(service)
    service.simulate("the-next-secret")
    service.until(lambda: not service.is_up(), UNIT, seconds=40)
    service.keep_secret("the-next-secret")
    service.output("systemctl", "restart", UNIT)
    assert _known(service) == known
    service.until(service.polled, UNIT)
    assert _known(service) == known
    assert _same(_phases(service), phases)
    service.keep_secret(SECRET)
    service.simulate()
    service.output("systemctl", "restart", UNIT)


def test_prometheus_and_alertmanager_notice_within_seconds_that_it_has_stopped(
    service: Operated, tmp_path: Path
) -> None:
    with _stack(service, tmp_path):
        service.until(lambda: _found(service, "up == 1") and not _alerted(service), "prometheus", seconds=40)
        service.output("systemctl", "stop", UNIT)
        service.until(lambda: _found(service, "up == 0"), "prometheus", seconds=5)
        service.until(lambda: _alerted(service), "prometheus-alertmanager", seconds=15)


@contextmanager
def _stack(machine: Operated, folder: Path) -> Iterator[None]:
    """Debian's Prometheus and Alertmanager over the shipped files, in which time passes faster."""
    services = ("prometheus", "prometheus-alertmanager")
    for each in services:
        require(each)
    shipped = Shipped(ROOT / "deploy", FACTOR)
    shipped.copy_prometheus(folder, "127.0.0.1:19877", "127.0.0.1:9093")
    shipped.copy_rules(folder)
    shipped.copy_alertmanager(folder, Webhook("", frozenset()))
    for path in folder.rglob("*.*"):
        machine.write(f"/etc/prometheus/{path.relative_to(folder)}", path.read_text())
    # Else Alertmanager looks for an address to cluster on, and this machine has loopback only.
    machine.write("/etc/default/prometheus-alertmanager", 'ARGS="--cluster.listen-address="\n')
    machine.output("systemctl", "start", *services)
    try:
        yield
    finally:
        machine.output("systemctl", "stop", *services)


def _found(machine: Operated, query: str) -> bool:
    """Whether Prometheus finds something; it does not while it starts."""
    return machine.run("promtool", "query", "instant", "http://127.0.0.1:9090", query).stdout != ""


def _alerted(machine: Operated) -> bool:
    asked = (
        "amtool",
        "alert",
        "query",
        "--alertmanager.url=http://127.0.0.1:9093",
        "WixCalendarMonitorAbsent",
    )
    return "WixCalendarMonitorAbsent" in machine.run(*asked).stdout


def _phases(machine: Operated) -> dict[str, float]:
    """When in its interval each connection is polled, once two polls in a row agree on it."""
    seen = [machine.samples(_LAST_SUCCESS)]

    def steady() -> bool:
        now, before = machine.samples(_LAST_SUCCESS), seen[-1]
        if any(now[name] == before[name] for name in before):
            return False
        seen.append(now)
        return _same(_phase(now), _phase(before))

    machine.until(steady, UNIT)
    return _phase(seen[-1])


def _phase(moments: dict[str, float]) -> dict[str, float]:
    return {name: moment % INTERVAL for name, moment in moments.items()}


def _same(phases: dict[str, float], others: dict[str, float]) -> bool:
    gaps = (abs(phase - others[name]) for name, phase in phases.items())
    return all(min(gap, INTERVAL - gap) < INTERVAL / 10 for gap in gaps)


def test_no_line_is_dropped_however_many_come_at_once(service: Operated) -> None:
    with _drop_in(service, "talk.conf", "[Service]\nExecStartPre=/usr/bin/seq 70000\n"):
        service.output("journalctl", "--sync")
        assert "\n70000\n" in service.journal(UNIT)
