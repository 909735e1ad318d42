"""The command line as an operator meets it: exit codes, streams and words."""

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from monitor import __version__
from monitor.cli import cli

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "config" / "monitor.yml"


def call(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environ, prog_name="wix-calendar-monitor")


def test_the_version_names_python_and_platform() -> None:
    result = call("--version")
    assert result.exit_code == 0
    assert re.fullmatch(rf"wix-calendar-monitor {__version__} \(Python 3\.\S+, \S+\)\n", result.stdout)


def test_the_sample_configuration_is_accepted_and_its_plan_is_printed() -> None:
    result = call("check-config", f"--config.file={SAMPLE}", "--skip-secrets")
    assert result.exit_code == 0, result.output
    sites = [site["name"] for site in yaml.safe_load(SAMPLE.read_text())["sites"]]
    assert [name for name in sites if name not in result.stdout] == []


def test_every_problem_of_a_configuration_is_told_at_once_and_ends_with_2(tmp_path: Path) -> None:
    config = tmp_path / "monitor.yml"
    config.write_text("polling:\n  intervall: 60s\nsites: []\n")
    result = call("check-config", f"--config.file={config}")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert [line.split(" ")[0] for line in result.stderr.splitlines()] == [f"{config}:2:", f"{config}:3:"]


@pytest.mark.parametrize("command", ["run", "check-config", "poll"])
def test_a_configuration_that_is_not_there_ends_with_2(command: str, tmp_path: Path) -> None:
    arguments = ["downtown/anna"] if command == "poll" else []
    result = call(command, f"--config.file={tmp_path}/none.yml", *arguments)
    assert result.exit_code == 2
    assert f"{tmp_path}/none.yml" in result.stderr


def test_systemd_s_credentials_may_be_missing_for_a_check_but_not_for_a_run() -> None:
    checked = call("check-config", f"--config.file={SAMPLE}")
    assert checked.exit_code == 0
    assert "warning: ${CREDENTIALS_DIRECTORY} is not set" in checked.stderr
    started = call("run", f"--config.file={SAMPLE}")
    assert started.exit_code == 2
    assert "${CREDENTIALS_DIRECTORY} is not set; systemd sets it" in started.stderr


def test_a_flag_is_read_from_the_environment() -> None:
    result = call("check-config", "--skip-secrets", WIX_CALENDAR_MONITOR_CONFIG_FILE=str(SAMPLE))
    assert result.exit_code == 0, result.output


def test_the_schema_is_json_and_needs_no_configuration() -> None:
    result = call("check-config", "--schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["properties"].keys() >= {"api", "polling", "sites"}


def test_check_config_without_a_file_says_what_is_missing() -> None:
    result = call("check-config")
    assert result.exit_code == 2
    assert "--config.file" in result.stderr


@pytest.mark.parametrize("address", ["9090", "host:", "::1:9090", "host:70000", "[::1]"])
def test_an_address_that_is_none_ends_with_2_and_shows_one(address: str) -> None:
    result = call("run", f"--config.file={SAMPLE}", f"--web.listen-address={address}")
    assert result.exit_code == 2
    assert "write host:port, [v6]:port or :port" in result.stderr


def test_a_connection_that_is_not_configured_ends_with_2(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("s")
    config = tmp_path / "monitor.yml"
    config.write_text(
        "sites:\n  - name: a\n    connections: [{id: x}]\n"
        "    credential: {api_key_file: secret, site_id: s}\n"
    )
    result = call("poll", f"--config.file={config}", "a/y")
    assert result.exit_code == 2
    assert "'a/y' is not in" in result.stderr


def test_a_scenario_that_is_wrong_ends_with_2_and_names_the_line(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.yml"
    scenario.write_text("sites:\n  - nme: downtown\n")
    result = call("simulate", f"--scenario={scenario}")
    assert result.exit_code == 2
    assert f"{scenario}:2:" in result.stderr


@pytest.mark.parametrize("command", ["", "run", "check-config", "poll", "simulate", "demo"])
def test_every_command_has_help(command: str) -> None:
    result = call(*filter(None, [command]), "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: wix-calendar-monitor {command}".rstrip())
