"""The unit file as systemd's own tools judge it, and as its reader does."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.installation import COMMAND, ROOT
from tests.real_parts import require

SYSTEMD: Final = ROOT / "deploy/systemd"
UNIT: Final = SYSTEMD / "wix-calendar-monitor.service"
TEMPLATE: Final = SYSTEMD / "wix-calendar-monitor@.service"
DROP_INS: Final = [SYSTEMD / "addresses.conf", SYSTEMD / "credentials.conf"]
_OBVIOUS: Final = {"Description", "ExecStart", "WantedBy"}
_OF_A_SHARD: Final = {"Description", "ExecStart", "StateDirectory", "EnvironmentFile"}


def _analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [require("systemd-analyze"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _settings(unit: Path) -> list[tuple[str, str]]:
    return re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE)


def _verify(root: Path, unit: str, *drop_ins: Path, name: str = UNIT.name) -> str:
    """What `systemd-analyze verify` says of a unit with drop-ins, over the system's units and our command."""
    require("systemd-analyze")
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    folder = root / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / name).write_text(unit)
    (folder / f"{name}.d").mkdir()
    for each in drop_ins:
        shutil.copy(each, folder / f"{name}.d")
    for path in (COMMAND, "/usr/bin/kill"):
        command = root / path.lstrip("/")
        command.parent.mkdir(parents=True)
        command.touch(mode=0o755)
    done = _analyze("verify", "--man=no", f"--root={root}", name.replace("@.", "@3."))
    return done.stdout + done.stderr


@pytest.mark.real
def test_verify_has_nothing_to_say(tmp_path: Path) -> None:
    assert _verify(tmp_path, UNIT.read_text()) == ""


@pytest.mark.real
def test_verify_has_nothing_to_say_of_a_shard(tmp_path: Path) -> None:
    assert _verify(tmp_path, TEMPLATE.read_text(), *DROP_INS, name=TEMPLATE.name) == ""


@pytest.mark.real
def test_verify_would_say_what_is_wrong(tmp_path: Path) -> None:
    assert "RestartSecs" in _verify(tmp_path, UNIT.read_text().replace("RestartSec=", "RestartSecs="))


def _scores(folder: Path, tenths: int, *drop_ins: Path) -> bool:
    """Whether the sandbox scores so many tenths or fewer, less being better."""
    (folder / f"{UNIT.name}.d").mkdir()
    unit = shutil.copy(UNIT, folder)
    for each in drop_ins:
        shutil.copy(each, folder / f"{UNIT.name}.d")
    done = _analyze("security", "--no-pager", "--offline=true", f"--threshold={tenths}", unit)
    assert "Overall exposure level" in done.stdout, done.stderr
    return done.returncode == 0


@pytest.mark.real
@pytest.mark.parametrize(("tenths", "passes"), [(12, True), (10, False)])
def test_the_sandbox_scores_1_2_or_better(tmp_path: Path, tenths: int, passes: bool) -> None:  # noqa: FBT001  parametrized
    assert _scores(tmp_path, tenths) is passes


@pytest.mark.real
def test_the_sandbox_scores_1_0_where_addresses_are_named(tmp_path: Path) -> None:
    assert _scores(tmp_path, 10, SYSTEMD / "addresses.conf")


@pytest.mark.real
def test_sysusers_makes_the_user_that_the_unit_runs_as(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    command = [require("systemd-sysusers"), f"--root={tmp_path}", str(SYSTEMD / "sysusers.conf")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    user = re.findall(r"^User=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert [line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()] == user


@pytest.mark.real
def test_verify_has_nothing_to_say_of_the_drop_ins(tmp_path: Path) -> None:
    assert _verify(tmp_path, UNIT.read_text(), *DROP_INS) == ""


@pytest.mark.parametrize("file", [UNIT, TEMPLATE, *DROP_INS], ids=lambda file: file.name)
def test_above_each_setting_stands_a_reason(file: Path) -> None:
    # A reason may stand above a few settings that serve one purpose, without an empty line between them.
    for paragraph in re.split(r"\n\n|^\[Service\]\n", file.read_text(), flags=re.MULTILINE):
        first = next((line for line in paragraph.splitlines() if not line.startswith("[")), "#")
        assert first.startswith("#") or first.split("=")[0] in _OBVIOUS, paragraph


def test_a_usage_or_configuration_error_is_not_started_again() -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    assert settings["RestartPreventExitStatus"] == "2"
    assert "ProcSubset" not in settings, "process_* metrics need /proc/stat"


def test_a_shard_is_run_as_the_service_is_but_for_what_makes_it_a_shard() -> None:
    mine, shards = _settings(UNIT), _settings(TEMPLATE)
    port = ("Environment", "WIX_CALENDAR_MONITOR_WEB_LISTEN_ADDRESS=127.0.0.1:1988%i")
    assert [each for each in shards if each[0] not in _OF_A_SHARD and each != port] == [
        each for each in mine if each[0] not in _OF_A_SHARD
    ]
    assert dict(shards)["ExecStart"] == f"{dict(mine)['ExecStart']} --shard=%i"
    assert dict(shards)["StateDirectory"].endswith("-%i")
