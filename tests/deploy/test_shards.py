"""The template unit on a machine: several shards beside each other, each with its own port and store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.deploy.installation import BUILD_SECONDS
from tests.deploy.operated import CONFIG, MONITOR, NAME, SECRET, Operated, operated

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("nspawn"),
    pytest.mark.timeout(BUILD_SECONDS + 60),
]

_ORDINALS: Final = (0, 1)
_UNITS: Final = [f"{NAME}@{ordinal}" for ordinal in _ORDINALS]
_STORE: Final = f"sqlite:////var/lib/{NAME}-shard-${{WIX_CALENDAR_MONITOR_SHARD}}/state.db"
_COMMON: Final = f"/etc/default/{NAME}-shards"
_OWN: Final = f"/etc/default/{NAME}-shard-1"


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Operated]:
    """A machine on which two shards run, and the service that watches everything does not."""
    with operated(package) as machine:
        machine.install(package)
        machine.configure()
        config = yaml.safe_load(MONITOR) | {"store": {"url": _STORE}}
        machine.write(CONFIG, yaml.safe_dump(config), f"--group={NAME}", "--mode=640")
        drop_ins = f"/etc/systemd/system/{NAME}@.service.d"
        machine.output("install", "-d", drop_ins)
        machine.output("cp", f"/etc/systemd/system/{NAME}.service.d/credentials.conf", drop_ins)
        machine.write(_COMMON, "WIX_CALENDAR_MONITOR_TOTAL_SHARDS=2\n")
        machine.write(_OWN, "WIX_CALENDAR_MONITOR_WEB_LISTEN_ADDRESS=127.0.0.1:19999\n")
        machine.simulate()
        machine.output("systemctl", "daemon-reload")
        machine.output("systemctl", "disable", "--now", NAME)
        machine.output("systemctl", "enable", "--now", *_UNITS)
        machine.until(lambda: _watching(machine) != [], _UNITS[0])
        yield machine


def _page(machine: Operated, ordinal: int) -> str:
    port = (19880, 19999)[ordinal]
    return machine.output("curl", "--fail", "--silent", f"http://127.0.0.1:{port}/metrics")


def _watching(machine: Operated) -> list[int]:
    """The shards that know a calendar's state."""
    return [each for each in _ORDINALS if "\nwix_calendar_connection_healthy{" in _page(machine, each)]


def _pids(machine: Operated) -> list[str]:
    return [machine.show(unit, "MainPID")["MainPID"] for unit in _UNITS]


def test_each_shard_says_which_it_is_at_a_port_of_its_own(machine: Operated) -> None:
    for ordinal in _ORDINALS:
        assert f"\nwix_calendar_monitor_shard_ordinal {ordinal}.0\n" in _page(machine, ordinal)
        assert "\nwix_calendar_monitor_total_shards 2.0\n" in _page(machine, ordinal)


def test_the_site_has_one_of_them(machine: Operated) -> None:
    assert len(_watching(machine)) == 1
    assert SECRET not in "".join(machine.journal(unit) for unit in _UNITS)


def test_each_has_a_store_that_is_closed_to_others(machine: Operated) -> None:
    folders = [f"/var/lib/{NAME}-shard-{ordinal}" for ordinal in _ORDINALS]
    shown = machine.output("stat", "--format=%A %U", *folders).splitlines()
    assert shown == [f"drwx------ {NAME}"] * 2
    assert [each for each in folders if not machine.exists(f"{each}/state.db")] == []
    assert not machine.exists(f"/var/lib/{NAME}/state.db")


def test_a_shard_may_not_write_where_another_does(machine: Operated) -> None:
    pid = _pids(machine)[0]
    flags = ("--target", pid, "--mount")  # as root: what is mounted read-only is so for everybody
    mine, other = (f"/var/lib/{NAME}-shard-{ordinal}/x" for ordinal in _ORDINALS)
    assert machine.run("nsenter", *flags, "touch", mine).returncode == 0
    assert "Read-only file system" in machine.run("nsenter", *flags, "touch", other).stderr


def test_a_shard_without_a_total_fails_and_says_so(machine: Operated) -> None:
    machine.output("mv", _COMMON, "/etc/kept")
    try:
        assert machine.run("systemctl", "start", f"{NAME}@2").returncode != 0
        assert machine.show(f"{NAME}@2", "Result", "ExecMainStatus") == {
            "Result": "exit-code",
            "ExecMainStatus": "2",
        }
        assert "--total-shards" in machine.journal(f"{NAME}@2")
    finally:
        machine.output("mv", "/etc/kept", _COMMON)
        machine.output("systemctl", "reset-failed", f"{NAME}@2")


def test_an_upgrade_restarts_each_shard_that_runs_and_starts_no_other(
    machine: Operated, package: Path
) -> None:
    before = _pids(machine)
    machine.install(package)
    after = _pids(machine)
    assert "0" not in after
    assert set(before) & set(after) == set()
    assert machine.show(NAME, "ActiveState") == {"ActiveState": "inactive"}


def test_removed_it_stops_and_purged_it_leaves_nothing(machine: Operated) -> None:
    machine.dpkg("--remove", NAME)
    assert machine.run("pgrep", "--full", "wix-calendar-monitor run").stdout == ""
    assert machine.exists(f"/var/lib/{NAME}-shard-0/state.db")
    machine.dpkg("--purge", NAME)
    machine.output("rm", "--recursive", f"/etc/systemd/system/{NAME}@.service.d")
    look = f"find /etc /var/lib /usr/lib/systemd -name '*{NAME}*' ! -name '{NAME}.service.d'"
    assert machine.output("sh", "-c", look).split() == []
