"""The Debian package: what is in it, and its life on a machine until the last trace is gone."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from monitor import __version__
from tests.deploy.installation import BUILD_SECONDS, HOME, build
from tests.deploy.operated import (
    CONFIG,
    DROP_INS,
    ETC,
    MONITOR,
    NAME,
    SECRET,
    STATE,
    UNIT,
    Operated,
    operated,
)
from tests.deploy.readme import blocks
from tests.real_parts import require

pytestmark = [
    pytest.mark.real,
    pytest.mark.xdist_group("nspawn"),
    pytest.mark.timeout(BUILD_SECONDS + 60),
]

NEXT: Final = "99.0.0rc1"
_SHARE: Final = f"usr/share/{NAME}"
_LINK: Final = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")
_BUILD_INFO: Final = re.compile(r'^wix_calendar_monitor_build_info\{.*version="([^"]+)"', re.MULTILINE)


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a later version."""
    return build(tmp_path_factory.mktemp("newer"), NEXT)


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its files, and its own in DEBIAN."""
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder], check=True, timeout=60)
    return folder


@pytest.fixture(scope="module")
def booted_machine(package: Path, newer: Path) -> Iterator[Operated]:
    with operated(package, newer) as machine:
        yield machine


@pytest.fixture
def machine(booted_machine: Operated) -> Operated:
    """A machine that knows nothing of us."""
    machine = booted_machine
    machine.run("dpkg", "--purge", NAME)
    machine.run("rm", "--recursive", "--force", DROP_INS, "/usr/sbin/policy-rc.d")
    machine.output("systemctl", "daemon-reload")
    return machine


@pytest.fixture
def running(machine: Operated, package: Path) -> Operated:
    """A machine on which the service runs; nobody answers for Wix there."""
    machine.install(package)
    machine.configure()
    machine.output("systemctl", "start", UNIT)
    return machine


@pytest.fixture
def polling(running: Operated) -> Operated:
    """A machine on which the service knows its calendars."""
    running.simulate()
    running.until(running.polled, UNIT)
    return running


def _version(machine: Operated) -> str:
    found = _BUILD_INFO.search(machine.page())
    assert found is not None
    return found[1]


def _since(machine: Operated) -> dict[str, float]:
    return machine.samples("wix_calendar_connection_status_since_timestamp_seconds")


# --- what is in it ------------------------------------------------------------------------------------------


def test_two_builds_are_equal_to_the_byte(package: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert again.name == package.name == f"{NAME}_{__version__}_{again.stem.rpartition('_')[2]}.deb"
    assert again.read_bytes() == package.read_bytes()


def test_a_release_candidate_comes_before_its_release(newer: Path) -> None:
    told = subprocess.run(
        ["dpkg-deb", "--field", newer, "Version"], check=True, capture_output=True, text=True, timeout=60
    )
    compare = ["dpkg", "--compare-versions", told.stdout.strip(), "lt", "99.0.0"]
    assert subprocess.run(compare, check=False, timeout=60).returncode == 0


def test_all_belongs_to_root_and_nothing_is_open_to_be_changed(package: Path) -> None:
    listed = subprocess.run(
        ["dpkg-deb", "--contents", package], check=True, capture_output=True, text=True, timeout=60
    ).stdout.splitlines()
    assert {line.split()[1] for line in listed} == {"root/root"}
    assert [line for line in listed if not line.startswith("l") and "w" in line[5:10]] == []
    assert [line.split()[0] for line in listed if line.endswith(f".{ETC}/secrets/")] == ["drwx------"]


def test_it_names_no_folder_of_its_building(package: Path, unpacked: Path) -> None:
    built = str(package.parent.parent).encode()
    assert [path for path in unpacked.rglob("*") if path.is_file() and built in path.read_bytes()] == []


def test_what_only_builds_it_stays_out(unpacked: Path) -> None:
    assert list((unpacked / HOME.lstrip("/")).rglob("hatchling*")) == []
    assert list((unpacked / HOME.lstrip("/")).rglob("pip")) == []


def test_the_links_of_its_documents_lead_somewhere(unpacked: Path) -> None:
    links = [
        (page, link)
        for page in (unpacked / _SHARE).rglob("*.md")
        for link in _LINK.findall(page.read_text())
        if "://" not in link and not link.endswith(".py")  # code is in the source
    ]
    assert len(links) > 50
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


# --- its life -----------------------------------------------------------------------------------------------


def test_it_waits_for_its_configuration_and_says_so(machine: Operated, package: Path) -> None:
    assert f"waits for its configuration, {CONFIG}" in machine.install(package)
    machine.output("systemctl", "start", UNIT)
    assert machine.show(UNIT, "ActiveState", "ConditionResult", "NRestarts", "UnitFileState") == {
        "ActiveState": "inactive",
        "ConditionResult": "no",
        "NRestarts": "0",
        "UnitFileState": "enabled",
    }
    shown = machine.output("stat", "--format=%n %A %U %G", ETC, f"{ETC}/secrets", f"{ETC}/monitor.yml.sample")
    assert shown.splitlines() == [
        f"{ETC} drwxr-x--- root {NAME}",
        f"{ETC}/secrets drwx------ root root",
        f"{ETC}/monitor.yml.sample -rw-r--r-- root root",
    ]


def test_installed_over_a_configuration_it_is_started(machine: Operated, package: Path) -> None:
    machine.write(CONFIG, MONITOR.replace("${CREDENTIALS_DIRECTORY}", ETC))
    machine.write(f"{ETC}/downtown-client-secret", SECRET)
    assert "waits" not in machine.install(package)
    assert machine.page("/-/ready")


def test_where_services_may_not_be_started_it_is_not(machine: Operated, package: Path) -> None:
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", "--mode=755")
    machine.write(CONFIG, MONITOR.replace("${CREDENTIALS_DIRECTORY}", ETC))
    machine.write(f"{ETC}/downtown-client-secret", SECRET)
    machine.install(package)
    assert machine.show(UNIT, "ActiveState") == {"ActiveState": "inactive"}


def test_an_environment_of_pips_is_not_mixed_with_ours(machine: Operated, package: Path) -> None:
    machine.write(f"{HOME}/bin/pip", "")
    done = machine.run("dpkg", "--install", f"/var/tmp/packages/{package.name}")
    machine.output("rm", "--recursive", HOME)
    assert done.returncode != 0
    assert "From pip to the package" in done.stderr


def test_an_upgrade_restarts_it_over_the_same_state_and_configuration(polling: Operated, newer: Path) -> None:
    since = _since(polling)
    polling.output("chmod", "755", ETC)
    polling.install(newer)
    assert _version(polling) == NEXT
    assert _since(polling) == since
    assert polling.output("cat", CONFIG) == MONITOR
    assert polling.output("stat", "--format=%A", ETC).strip() == "drwxr-xr-x"
    assert polling.dpkg("--verify", NAME) == ""


def test_an_upgrade_leaves_alone_who_was_disabled(running: Operated, newer: Path) -> None:
    running.output("systemctl", "disable", "--now", UNIT)
    running.install(newer)
    assert running.show(UNIT, "ActiveState", "UnitFileState") == {
        "ActiveState": "inactive",
        "UnitFileState": "disabled",
    }


def test_an_upgrade_that_cannot_start_says_so_and_is_installed(running: Operated, newer: Path) -> None:
    running.output("sed", "--in-place", "s/^sites:/sitez:/", CONFIG)
    assert "does not start; see: systemctl status" in running.install(newer)
    assert running.show(UNIT, "Result", "ExecMainStatus") == {"Result": "exit-code", "ExecMainStatus": "2"}


def test_removed_and_installed_again_it_goes_on_where_it_was(polling: Operated, package: Path) -> None:
    since = _since(polling)
    polling.dpkg("--remove", NAME)
    assert polling.show(UNIT, "LoadState", "ActiveState") == {
        "LoadState": "not-found",
        "ActiveState": "inactive",
    }
    gone = (HOME, f"/usr/bin/{NAME}", f"/{_SHARE}", f"/usr/share/doc/{NAME}")
    assert [path for path in gone if polling.exists(path)] == []
    polling.install(package)
    polling.until(polling.polled, UNIT)
    assert _since(polling) == since


# --- the documented way -------------------------------------------------------------------------------------


def test_each_command_of_the_documents_works_in_their_order(
    machine: Operated, package: Path, newer: Path
) -> None:
    for tool in ("jq", "apt", "runuser"):
        require(tool)
    told = blocks("The service, from the package")
    sections = iter(told)

    def do(section: str, folder: str = f"/{_SHARE}") -> str:
        assert next(sections) == section, "a section that no test knows"
        return "".join(
            machine.output("bash", "-euo", "pipefail", "-c", f"cd {folder}\n{each}", seconds=60, stdin=SECRET)
            for each in told[section]
        )

    def bring(package: Path) -> None:
        machine.output("rm", "--recursive", "--force", "/var/tmp/brought")
        machine.output(
            "install", "-D", f"/var/tmp/packages/{package.name}", f"/var/tmp/brought/{package.name}"
        )

    machine.write("/etc/apt/apt.conf.d/yes", 'APT::Get::Assume-Yes "true";\n')
    assert told[next(sections)] == ["deploy/package.sh\n"]
    bring(package)
    assert "waits for its configuration" in do("Install", "/var/tmp/brought")
    do("Configure")
    machine.write(CONFIG, MONITOR)
    machine.simulate()
    assert "anna-google" in do("Check")
    do("Start")
    machine.until(machine.polled, UNIT)
    assert 'wix_calendar_connection_healthy{site="downtown",connection="anna-google"} 1' in do("Look")
    machine.by_hand("connections/anna", "--data", '{"status": "ERROR", "reason": "CALENDAR_DELETED"}')
    machine.until(lambda: machine.samples("wix_calendar_connection_healthy")["anna-google"] == 0, UNIT)
    log = do("Read its log")
    assert "\terror\tconnection_transition\tanna-google" in log
    assert log.count('"event":"connection_transition"') == 3
    machine.write(CONFIG, MONITOR.replace("ben-outlook", "ben"), f"--group={NAME}", "--mode=640")
    assert next(sections) == "Change the configuration"
    reload, look = told["Change the configuration"]
    machine.output("bash", "-euc", reload)
    machine.until(lambda: "config_reloaded" in {line["event"] for line in machine.lines()}, UNIT)
    assert '"event":"config_reloaded"' in machine.output("bash", "-euo", "pipefail", "-c", look)
    do("Rotate a secret")
    machine.until(machine.polled, UNIT)
    assert "exposure level for wix-calendar-monitor.service: 1.0" in do("Lock down further")
    bring(newer)
    since = _since(machine)
    do("Upgrade", "/var/tmp/brought")
    assert (_version(machine), _since(machine)) == (NEXT, since)
    assert next(sections) == "Remove"
    remove, purge = told["Remove"]
    machine.output("bash", "-euc", remove)
    assert [path for path in (STATE, CONFIG) if not machine.exists(path)] == []
    machine.output("bash", "-euc", purge)
    assert list(sections) == []
    assert _left(machine) == []
    assert NAME in machine.output("getent", "passwd", NAME)


def _left(machine: Operated) -> list[str]:
    """What bears our name where packages and operators put things."""
    places = ("/etc", "/opt", "/usr/bin", "/usr/lib/sys*", "/usr/share", "/var/lib")
    look = f"find {' '.join(places)} -name '*{NAME}*'"
    return machine.output("sh", "-c", look, seconds=60).split()
