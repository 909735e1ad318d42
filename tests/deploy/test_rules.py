"""The alert rules: read and unit-tested by Prometheus' own tool, and held against our tables."""

import itertools
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import pytest
import yaml

from monitor.core.model import ErrorReason, FailureReason, Status
from monitor.durations import parse_duration
from monitor.metrics.families import FAMILIES
from tests.deploy.installation import ROOT
from tests.real_parts import newer, require

Tool = Callable[..., None]

PROMETHEUS: Final = ROOT / "deploy/prometheus"
RULES: Final = PROMETHEUS / "rules/wix-calendar-monitor.yml"
UNIT_TESTS: Final = sorted(RULES.parent.glob("*.test.yml"))
_GROUPS: Final[list[dict[str, Any]]] = yaml.safe_load(RULES.read_text())["groups"]
_RULES: Final = [rule for group in _GROUPS for rule in group["rules"]]
_ALERTS: Final = [rule for rule in _RULES if "alert" in rule]
_TOLD: Final = [rule for rule in _ALERTS if rule["labels"]["severity"] != "none"]
_ON_STATUS: Final = [
    *("TokenRevoked", "Deleted", "CreationFailed", "Error", "Disconnected", "NotFound", "SyncStuck"),
    *("ExportNotStarted", "Unexpected"),
]


def _alert(name: str) -> dict[str, Any]:
    return next(rule for rule in _ALERTS if rule["alert"] == name)


def _seconds(text: str) -> float:
    return parse_duration(text).total_seconds()


@pytest.fixture(params=[require, newer], ids=["installed", "newest"])
def promtool(request: pytest.FixtureRequest) -> Tool:
    tool = request.param("promtool")

    def run(*arguments: str | Path) -> None:
        done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.mark.real
def test_prometheus_accepts_the_sample_configuration(promtool: Tool) -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.real
def test_prometheus_accepts_the_documented_file_of_targets(promtool: Tool, tmp_path: Path) -> None:
    text = (ROOT / "deploy/README.md").read_text()
    found = re.findall(r"^ *```yaml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    blocks = [dedent(each) for each in found]
    job, targets = next(pair for pair in itertools.pairwise(blocks) if "file_sd_configs" in pair[0])
    (file,) = yaml.safe_load(job)["scrape_configs"][0]["file_sd_configs"][0]["files"]
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(targets)
    (tmp_path / "prometheus.yml").write_text(job)
    promtool("check", "config", tmp_path / "prometheus.yml")
    (tmp_path / file).write_text(targets.replace("targets", "tragets"))
    with pytest.raises(AssertionError, match="tragets"):
        promtool("check", "config", tmp_path / "prometheus.yml")


@pytest.mark.real
def test_prometheus_accepts_the_rules(promtool: Tool) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


@pytest.mark.real
@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.name)
def test_the_rules_pass_their_unit_tests(promtool: Tool, path: Path) -> None:
    promtool("test", "rules", path)


def test_the_sample_configuration_names_every_rule_file_and_no_unit_test() -> None:
    named = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["rule_files"]
    there = {f"rules/{path.name}" for path in RULES.parent.glob("*.yml")}
    assert set(named) == {name for name in there if not name.endswith(".test.yml")}


def test_every_series_that_the_rules_ask_for_is_a_family_of_ours() -> None:
    text = "\n".join(line for line in RULES.read_text().splitlines() if not line.lstrip().startswith("#"))
    asked = set(re.findall(r"(?<!:)\bwix_calendar_\w+(?!\w*:)", text))
    assert asked <= {family.name for family in FAMILIES} | {f"{f.name}_bucket" for f in FAMILIES} | {
        f"{f.name}_count" for f in FAMILIES
    }
    assert len(asked) > 5


def test_every_word_that_the_rules_ask_for_is_one_of_ours() -> None:
    asked = re.findall(r'\b(?:reason|status)=~?"([\w|]+)"', RULES.read_text())
    words = {word for each in asked for word in each.split("|")}
    assert words <= {*ErrorReason, *Status, *FailureReason}
    assert len(words) > 12


@pytest.mark.parametrize("rule", _TOLD, ids=lambda rule: rule["alert"])
def test_every_alert_that_is_told_says_since_when_whose_move_it_is_and_how_to_mend_it(
    rule: dict[str, Any],
) -> None:
    description = rule["annotations"]["description"]
    assert rule["annotations"]["summary"]
    for part in ("humanizeTimestamp", "Whose move:", "To mend:"):
        assert part in description
    assert rule["labels"]["severity"] in {"warning", "critical"}


@pytest.mark.parametrize("rule", _ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_is_seen_to_fire_and_those_that_may_be_silent_not_to_fire(rule: dict[str, Any]) -> None:
    documents = [yaml.safe_load(path.read_text()) for path in UNIT_TESTS]
    tests = [test for document in documents for test in document["tests"]]
    moments = [each for test in tests for each in test.get("alert_rule_test", [])]
    fires = {bool(each.get("exp_alerts")) for each in moments if each["alertname"] == rule["alert"]}
    assert fires == ({True} if rule["alert"] == "WixCalendarWatchdog" else {True, False})


@pytest.mark.parametrize("name", _ON_STATUS)
def test_an_alert_on_a_status_heeds_freshness_stands_through_an_outage_and_is_routed_by_team(
    name: str,
) -> None:
    rule = _alert(f"WixCalendar{name}")
    for part in (
        "site_connection:wix_calendar_connection_status_since_timestamp_seconds:max",  # has the team
        f'ALERTS{{alertname="WixCalendar{name}", alertstate="firing"}}',
    ):
        assert part in rule["expr"]
    assert re.search(r"_healthy:max == 0|_stale:min == 0", rule["expr"])
    assert rule["keep_firing_for"]


def test_what_mutes_another_alert_comes_before_it_and_ends_after_it() -> None:
    wix, site = _alert("WixUnreachable"), _alert("WixCalendarSiteUnreachable")
    assert _seconds(wix["for"]) < _seconds(site["for"])
    assert _seconds(wix["keep_firing_for"]) > _seconds(site["keep_firing_for"])
    late, blind = _alert("WixCalendarMonitorLate"), _alert("WixCalendarConnectionBlind")
    assert _seconds(late["for"]) < _seconds(blind["for"])
    assert _seconds(late["keep_firing_for"]) > _seconds(blind["keep_firing_for"])
