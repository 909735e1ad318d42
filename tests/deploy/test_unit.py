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
_OBVIOUS: Final = {"Description", "ExecStart", "WantedBy"}


def _analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [require("systemd-analyze"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _verify(root: Path, unit: str) -> str:
    """What `systemd-analyze verify` says of a unit, in a root with the system's units and our command."""
    require("systemd-analyze")
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    folder = root / "etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / UNIT.name).write_text(unit)
    command = root / COMMAND.lstrip("/")
    command.parent.mkdir(parents=True)
    command.touch(mode=0o755)
    done = _analyze("verify", "--man=no", f"--root={root}", UNIT.name)
    return done.stdout + done.stderr


@pytest.mark.real
def test_verify_has_nothing_to_say(tmp_path: Path) -> None:
    assert _verify(tmp_path, UNIT.read_text()) == ""


@pytest.mark.real
def test_verify_would_say_what_is_wrong(tmp_path: Path) -> None:
    assert "RestartSecs" in _verify(tmp_path, UNIT.read_text().replace("RestartSec=", "RestartSecs="))


@pytest.mark.real
@pytest.mark.parametrize(("tenths", "passes"), [(12, True), (9, False)])
def test_the_sandbox_scores_1_2_or_better(tenths: int, passes: bool) -> None:  # noqa: FBT001  parametrized
    done = _analyze("security", "--no-pager", "--offline=true", f"--threshold={tenths}", UNIT)
    assert (done.returncode == 0) is passes, done.stdout + done.stderr


@pytest.mark.real
def test_sysusers_makes_the_user_that_the_unit_runs_as(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    command = [require("systemd-sysusers"), f"--root={tmp_path}", str(SYSTEMD / "sysusers.conf")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    user = re.findall(r"^User=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert [line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()] == user


def test_above_each_setting_stands_a_reason() -> None:
    # A reason may stand above a few settings that serve one purpose, without an empty line between them.
    for paragraph in re.split(r"\n\n", UNIT.read_text()):
        first = next((line for line in paragraph.splitlines() if not line.startswith("[")), "#")
        assert first.startswith("#") or first.split("=")[0] in _OBVIOUS, paragraph


def test_a_usage_or_configuration_error_is_not_started_again() -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    assert settings["RestartPreventExitStatus"] == "2"
    assert "ProcSubset" not in settings, "process_* metrics need /proc/stat"
