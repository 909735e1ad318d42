"""The minimal Alertmanager configuration, as its own tool reads it."""

import subprocess
from typing import Final

import pytest
import yaml

from tests.deploy.installation import ROOT
from tests.real_parts import require

pytestmark = pytest.mark.real

CONFIG: Final = ROOT / "deploy/alertmanager/alertmanager.yml"
RULES: Final = ROOT / "deploy/prometheus/rules/wix-calendar-monitor.yml"
_ALERTS: Final = [rule["alert"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]]


def _amtool(*arguments: str) -> str:
    command = [require("amtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_alertmanager_accepts_the_configuration() -> None:
    assert "1 receivers" in _amtool("check-config", str(CONFIG))


@pytest.mark.parametrize("alert", _ALERTS)
def test_every_alert_reaches_the_operator(alert: str) -> None:
    labels = [f"alertname={alert}", "site=downtown", "team=front-desk", "severity=warning"]
    where = ("config", "routes", "test", f"--config.file={CONFIG}", "--verify.receivers=operator")
    assert _amtool(*where, *labels).strip() == "operator"
