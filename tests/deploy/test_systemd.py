"""The unit under a real systemd: it starts, tells, is watched, stops in good order, and comes back."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.installation import COMMAND, ROOT, install, settle
from tests.deploy.nspawn import Machine, booted, copy

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("nspawn")]

UNIT: Final = "wix-calendar-monitor.service"
CONFIG: Final = "/etc/wix-calendar-monitor/monitor.yml"
SECRET: Final = "canary-client-secret-under-systemd"

_SCENARIO: Final = {
    "sites": [
        {
            "name": "downtown",
            "oauth": {"client_id": "app", "client_secret": SECRET, "instance_id": "i"},
            "connections": [{"id": "anna"}, {"id": "ben", "status": "ERROR", "reason": "TOKEN_REVOKED"}],
        }
    ]
}
_MONITOR: Final = {
    "api": {"base_url": "http://127.0.0.1:8080"},
    "polling": {"interval": "1s", "unsettled_interval": "1s"},
    "sites": [
        {
            "name": "downtown",
            "credential": {
                "oauth": {
                    "client_id": "app",
                    "client_secret_file": "${CREDENTIALS_DIRECTORY}/downtown-secret",
                    "instance_id": "i",
                }
            },
            "requests_per_minute": 200,
            "connections": [{"id": "anna", "name": "anna"}, {"id": "ben", "name": "ben"}],
        }
    ],
}
_SIMULATOR: Final = f"""[Service]
ExecStart={COMMAND} simulate --listen=127.0.0.1:8080 --scenario=/etc/simulator.yml
"""
_CREDENTIAL: Final = """[Service]
LoadCredential=downtown-secret:/etc/wix-calendar-monitor/secrets/downtown
"""


def _prepare(root: Path) -> tuple[str, ...]:
    more = install(root)
    systemd = ROOT / "deploy/systemd"
    copy(systemd / UNIT, root, f"/etc/systemd/system/{UNIT}")
    copy(systemd / "sysusers.conf", root, "/etc/sysusers.d/wix-calendar-monitor.conf")
    _write(root, f"/etc/systemd/system/{UNIT}.d/credentials.conf", _CREDENTIAL)
    _write(root, "/etc/shorter-watchdog.conf", "[Service]\nWatchdogSec=3\n")
    _write(root, "/etc/systemd/system/simulator.service", _SIMULATOR)
    _write(root, "/etc/simulator.yml", yaml.safe_dump(_SCENARIO))
    _write(root, CONFIG, yaml.safe_dump(_MONITOR))
    _write(root, "/etc/wix-calendar-monitor/secrets/downtown", SECRET, mode=0o600)
    return tuple(more)


def _write(root: Path, path: str, text: str, mode: int = 0o644) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch(mode=mode)
    target.write_text(text)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with booted(_prepare) as machine:
        machine.output(*settle())
        machine.output("systemd-sysusers")
        machine.output("systemctl", "start", "simulator")
        machine.until(lambda: _answers(machine, "http://127.0.0.1:8080/_simulator/record"), "simulator")
        yield machine


@pytest.fixture
def service(machine: Machine) -> Machine:
    """The machine, with the service running."""
    machine.output("systemctl", "start", UNIT)
    return machine


def _answers(machine: Machine, url: str) -> bool:
    return machine.run("curl", "--fail", "--silent", url).returncode == 0


def _page(machine: Machine, path: str) -> str:
    return machine.output("curl", "--fail", "--silent", f"http://127.0.0.1:19877{path}")


def test_it_is_active_once_it_serves(service: Machine) -> None:
    state = service.show(UNIT, "ActiveState", "SubState", "User")
    assert state == {"ActiveState": "active", "SubState": "running", "User": "wix-calendar-monitor"}
    assert _page(service, "/-/ready")


def test_its_status_line_counts(service: Machine) -> None:
    def told() -> bool:
        return "0 not seen yet, 1 unhealthy" in service.show(UNIT, "StatusText")["StatusText"]

    service.until(told, UNIT)


def test_it_polls_with_a_credential_that_systemd_handed_over(service: Machine) -> None:
    def seen() -> bool:
        return 'connection="ben",reason="TOKEN_REVOKED"} 1' in _page(service, "/metrics")

    service.until(seen, UNIT)
    assert SECRET not in service.journal(UNIT)


def test_the_sandbox_leaves_the_process_metrics(service: Machine) -> None:
    families = {family.name for family in text_string_to_metric_families(_page(service, "/metrics"))}
    assert families >= {
        "process_cpu_seconds",
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    }


def test_the_sandbox_holds(service: Machine) -> None:
    pid = service.show(UNIT, "MainPID")["MainPID"]
    status = dict(re.findall(r"^(\w+):\s+(.*)$", service.output("cat", f"/proc/{pid}/status"), re.MULTILINE))
    assert (status["NoNewPrivs"], status["Seccomp"], int(status["CapBnd"], 16)) == ("1", "2", 0)
    state = service.output("stat", "--format=%A %U", "/var/lib/wix-calendar-monitor").strip()
    assert state == "drwx------ wix-calendar-monitor"


def test_it_stops_within_ten_seconds_and_without_a_traceback(service: Machine) -> None:
    service.output("systemctl", "stop", UNIT, seconds=10)
    assert service.show(UNIT, "ActiveState", "Result", "ExecMainStatus") == {
        "ActiveState": "inactive",
        "Result": "success",
        "ExecMainStatus": "0",
    }
    journal = service.journal(UNIT)
    assert "monitor_stopped" in journal
    assert "Traceback" not in journal


def test_it_comes_back_after_it_was_killed(service: Machine) -> None:
    before = service.show(UNIT, "MainPID", "NRestarts")
    service.output("kill", "-KILL", before["MainPID"])

    def back() -> bool:
        now = service.show(UNIT, "MainPID", "NRestarts", "ActiveState")
        again = int(now["NRestarts"]) == int(before["NRestarts"]) + 1
        return again and now["ActiveState"] == "active" and now["MainPID"] != before["MainPID"]

    service.until(back, UNIT)
    assert _page(service, "/-/ready")


def test_a_hang_is_ended_tells_its_place_and_is_started_anew(service: Machine) -> None:
    # Three seconds in place of the unit's thirty, for the test's patience only.
    shorter = f"/run/systemd/system/{UNIT}.d/shorter.conf"
    service.output("install", "-D", "/etc/shorter-watchdog.conf", shorter)
    service.output("systemctl", "daemon-reload")
    service.output("systemctl", "restart", UNIT)
    before = service.show(UNIT, "MainPID")["MainPID"]
    service.output("kill", "-STOP", before)
    service.until(lambda: service.show(UNIT, "NRestarts")["NRestarts"] == "1", UNIT)
    service.until(lambda: service.show(UNIT, "ActiveState")["ActiveState"] == "active", UNIT)
    journal = service.journal(UNIT)
    assert "Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal
    service.output("rm", shorter)
    service.output("systemctl", "daemon-reload")


def test_a_configuration_that_cannot_be_used_is_not_tried_again(service: Machine) -> None:
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
