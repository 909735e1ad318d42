"""The alert rules: read and unit-tested by Prometheus' own tool, and held against our tables."""

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from monitor.core.model import ErrorReason, FailureReason, Status
from monitor.metrics.families import FAMILIES
from tests.deploy.installation import ROOT
from tests.real_parts import require

PROMETHEUS: Final = ROOT / "deploy/prometheus"
RULES: Final = PROMETHEUS / "rules/wix-calendar-monitor.yml"
UNIT_TESTS: Final = PROMETHEUS / "rules/wix-calendar-monitor.test.yml"
_ALERTS: Final[list[dict[str, Any]]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
_PER_CONNECTION: Final = ["TokenRevoked", "Deleted", "Disconnected", "ConnectionBlind"]


def _alert(name: str) -> dict[str, Any]:
    return next(rule for rule in _ALERTS if rule["alert"] == f"WixCalendar{name}")


def _promtool(*arguments: str | Path) -> None:
    command = [require("promtool"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_prometheus_accepts_the_sample_configuration() -> None:
    _promtool("check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.real
def test_prometheus_accepts_the_rules() -> None:
    _promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.real
def test_the_rules_pass_their_unit_tests() -> None:
    _promtool("test", "rules", UNIT_TESTS)


def test_the_sample_configuration_names_every_rule_file_and_no_unit_test() -> None:
    named = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["rule_files"]
    there = {f"rules/{path.name}" for path in RULES.parent.glob("*.yml")}
    assert set(named) == {name for name in there if not name.endswith(".test.yml")}


def test_every_series_that_the_rules_ask_for_is_a_family_of_ours() -> None:
    text = "\n".join(line for line in RULES.read_text().splitlines() if not line.lstrip().startswith("#"))
    asked = set(re.findall(r"\bwix_calendar_\w+", text))
    assert asked <= {family.name for family in FAMILIES}
    assert len(asked) > 5


def test_every_word_that_the_rules_ask_for_is_one_of_ours() -> None:
    asked = set(re.findall(r'\b(?:reason|status)="(\w+)"', RULES.read_text()))
    assert asked <= {*ErrorReason, *Status}
    assert asked != set()


def test_every_failure_reason_that_a_text_names_is_one_of_ours() -> None:
    told = " ".join(_alert(name)["annotations"]["description"] for name in ("ConnectionBlind", "SiteDown"))
    advice = " ".join(re.findall(r"To mend: ([^{]*)", told))
    named = set(re.findall(r"\w+_\w+|unauthorized|forbidden|rejected", advice)) - {"connection_polls_failing"}
    assert named <= {*FailureReason}
    assert len(named) > 3


@pytest.mark.parametrize("rule", _ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_since_when_whose_move_it_is_and_how_to_mend_it(
    rule: dict[str, Any],
) -> None:
    description = rule["annotations"]["description"]
    assert rule["annotations"]["summary"]
    for part in ("humanizeTimestamp", "Whose move:", "To mend:"):
        assert part in description
    assert rule["labels"]["severity"] in {"warning", "critical"}


@pytest.mark.parametrize("rule", _ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_is_seen_to_fire_and_not_to_fire(rule: dict[str, Any]) -> None:
    document = yaml.safe_load(UNIT_TESTS.read_text())
    moments = [each for test in document["tests"] for each in test["alert_rule_test"]]
    fires = {bool(each.get("exp_alerts")) for each in moments if each["alertname"] == rule["alert"]}
    assert fires == {True, False}


@pytest.mark.parametrize("name", _PER_CONNECTION)
def test_a_connections_alert_heeds_freshness_and_maintenance_and_is_routed_by_team(name: str) -> None:
    rule = _alert(name)
    for part in (
        "wix_calendar_connection_stale",
        "wix_calendar_connection_maintenance == 1",
        "group_left (team, calendar_type)",
        f'ALERTS{{alertname="WixCalendar{name}", alertstate="firing"}}',
        "max by (site, connection)",
    ):
        assert part in rule["expr"]
    assert rule["keep_firing_for"]
