"""The Alertmanager sample, as its own tool reads it."""

import re
import subprocess
from typing import Final

import pytest
import yaml

from tests.deploy.installation import ROOT
from tests.real_parts import require

pytestmark = pytest.mark.real

CONFIG: Final = ROOT / "deploy/alertmanager/alertmanager.yml"
RULES: Final = ROOT / "deploy/prometheus/rules/wix-calendar-monitor.yml"
_GROUPS: Final = yaml.safe_load(RULES.read_text())["groups"]
_ALERTS: Final = {
    rule["alert"]: rule["labels"]["severity"]
    for group in _GROUPS
    for rule in group["rules"]
    if "alert" in rule
}
_ELSEWHERE: Final = {"WixCalendarWatchdog": "dead-mans-switch"}


def _amtool(*arguments: str) -> str:
    command = [require("amtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_alertmanager_accepts_the_configuration_and_its_template() -> None:
    told = _amtool("check-config", str(CONFIG))
    assert "3 receivers" in told
    assert "1 templates" in told


@pytest.mark.parametrize(("alert", "severity"), _ALERTS.items())
def test_every_alert_reaches_whom_it_is_for(alert: str, severity: str) -> None:
    receiver = _ELSEWHERE.get(alert, "nobody" if severity == "none" else "operator")
    labels = [f"alertname={alert}", "site=downtown", "team=front-desk", f"severity={severity}"]
    where = ("config", "routes", "test", f"--config.file={CONFIG}", f"--verify.receivers={receiver}")
    assert _amtool(*where, *labels).strip() == receiver
    assert _amtool(*where, *labels, "connection=anna").strip() == receiver


def test_every_alert_that_is_named_in_a_route_or_an_inhibition_is_one_of_the_rules() -> None:
    patterns = re.findall(r'alertname=~?"([^"]+)"', CONFIG.read_text())
    assert len(patterns) > 10
    for pattern in patterns:
        for part in re.sub(r"\(([^)]*)\)", "", pattern).split("|"):
            assert [name for name in _ALERTS if re.fullmatch(part, name)], part
