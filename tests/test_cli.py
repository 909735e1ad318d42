"""The command line as an operator meets it: exit codes, streams and words."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from monitor import __version__
from monitor.cli import cli
from monitor.clock import Clock
from monitor.core.model import Status
from monitor.core.shards import Shard, Unit
from monitor.flags import node_named
from monitor.store.sqlite.file import open_file
from tests.postgresql import PASSWORD, PostgreSQL
from tests.store.samples import ANNA
from tests.store.stories import Told, keep

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "config" / "monitor.yml"
EXPORT = "elsewhere run as root: export CREDENTIALS_DIRECTORY=/etc/wix-calendar-monitor/secrets"


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


@pytest.mark.parametrize(
    "command", ["run", "check-config", "poll", "status", "history", "backup", "migrate-store"]
)
def test_a_configuration_that_is_not_there_ends_with_2(command: str, tmp_path: Path) -> None:
    arguments = {
        "poll": ["downtown/anna"],
        "backup": ["copy.db"],
        "migrate-store": ["--from=sqlite:////x"],
    }.get(command, [])
    result = call(command, f"--config.file={tmp_path}/none.yml", *arguments)
    assert result.exit_code == 2
    assert f"{tmp_path}/none.yml" in result.stderr


def test_systemd_s_credentials_may_be_missing_for_a_check_but_not_for_a_run() -> None:
    checked = call("check-config", f"--config.file={SAMPLE}")
    assert checked.exit_code == 0
    assert "warning: ${CREDENTIALS_DIRECTORY} is not set" in checked.stderr
    started = call("run", f"--config.file={SAMPLE}")
    assert started.exit_code == 2
    assert (
        f"${{CREDENTIALS_DIRECTORY}} is not set here; systemd sets it for the service, {EXPORT}"
        in started.stderr
    )


@pytest.mark.parametrize("command", ["status", "history", "backup"])
def test_a_password_of_systemd_s_that_is_not_here_is_told_with_the_way_to_it(
    command: str, tmp_path: Path
) -> None:
    config = tmp_path / "monitor.yml"
    config.write_text(
        "store:\n  url: postgresql://monitor@127.0.0.1:1/monitor?sslmode=disable\n"
        "  password_file: ${CREDENTIALS_DIRECTORY}/postgresql-password\n"
        "sites:\n- {name: downtown, credential: {api_key_env: KEY, site_id: s}, connections: [{id: c}]}\n"
    )
    destination = ["copy.db"] if command == "backup" else []
    told = call(command, f"--config.file={config}", *destination)
    assert told.exit_code == 1
    assert told.stderr.endswith(f"service, {EXPORT}\n")


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


@pytest.mark.parametrize("command", ["run", "check-config", "status", "history", "backup"])
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ["--shard=3", "--total-shards=3"],
            "--shard=3 is none of --total-shards=3, which are counted from 0",
        ),
        (["--shard=-1", "--total-shards=3"], "counted from 0: write 0 to 2."),
        (["--shard=1", "--total-shards=1"], "counted from 0: write 0."),
        (["--shard=1"], "--shard=1 needs --total-shards: write how many there are"),
        (["--shard=0", "--total-shards=0"], "--total-shards=0: write how many there are, 1 to 1000."),
        (["--shard=0", "--total-shards=1001"], "--total-shards=1001: write how many there are, 1 to 1000."),
        (["--shard=one"], "'one' is not a valid integer"),
    ],
)
def test_a_shard_that_is_none_ends_with_2_and_shows_one(command: str, flags: list[str], told: str) -> None:
    destination = ["copy.db"] if command == "backup" else []
    result = call(command, f"--config.file={SAMPLE}", *flags, *destination)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize("command", ["run", "status"])
def test_of_several_shards_one_has_to_be_named(command: str) -> None:
    result = call(command, f"--config.file={SAMPLE}", WIX_CALENDAR_MONITOR_TOTAL_SHARDS="3")
    assert result.exit_code == 2
    assert "--total-shards=3 needs --shard: write which of them this is, 0 to 2." in result.stderr


@pytest.mark.parametrize("command", ["run", "check-config", "status", "history", "backup"])
def test_shards_over_a_postgresql_end_with_2_and_say_what_to_do(large: Path, command: str) -> None:
    (large.parent / "key").write_text("key")
    large.write_text("store: {url: 'postgresql://a@localhost/s'}\n" + large.read_text())
    destination = ["copy.db"] if command == "backup" else []
    result = call(command, f"--config.file={large}", "--shard=1", "--total-shards=3", *destination)
    assert result.exit_code == 2
    told = "store.url: is PostgreSQL's, whose nodes divide the sites among themselves"
    assert f"{large}:1: {told}; leave out --shard and --total-shards\n" in result.stderr


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A configuration of two sites, one of which has three parts."""
    config = tmp_path / "monitor.yml"
    config.write_text(
        "sites:\n"
        "  - {name: downtown, credential: {api_key_file: key, site_id: d}, connections: [{id: a}, {id: b}]}\n"
        "  - name: large\n"
        "    credential: {api_key_file: key, site_id: l}\n"
        "    parts: 3\n"
        "    connections: [{id: c1}, {id: c2}, {id: c3}, {id: c4}, {id: c5}]\n"
    )
    return config


def test_check_config_shows_how_sites_are_spread_over_shards(large: Path) -> None:
    result = call("check-config", f"--config.file={large}", "--skip-secrets", "--total-shards=3")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "shard  sites  connections  requests/min     slots",
        "0          1            2           2.0  1 of 256",
        "1          2            5           5.0  1 of 256",
        "2          0            0           0.0  0 of 256",
        "total      2            7           7.0  2 of 768",
    ]


def test_check_config_shows_the_plan_of_one_shard(large: Path) -> None:
    flags = ["--skip-secrets", "--total-shards=3"]
    told = [call("check-config", f"--config.file={large}", *flags, f"--shard={n}").stdout for n in range(3)]
    assert told[1].splitlines() == [
        "site      connections  interval  shortest  requests/min  budget  headroom     slots",
        "downtown            2        1m        1s           2.0     160      99 %         1",
        "large               3        1m        3s           3.0     107      97 %         1",
        "total               5                               5.0     267      98 %  1 of 256",
    ]
    by_variable = call(
        "check-config",
        f"--config.file={large}",
        "--skip-secrets",
        WIX_CALENDAR_MONITOR_SHARD="1",
        WIX_CALENDAR_MONITOR_TOTAL_SHARDS="3",
    )
    assert by_variable.stdout == told[1]


def test_what_all_shards_say_is_told_once_by_check_config(large: Path) -> None:
    large.write_text(large.read_text().replace("parts: 3", "requests_per_minute: 201"))
    result = call("check-config", f"--config.file={large}", "--skip-secrets", "--total-shards=3")
    assert (result.exit_code, result.stderr.count("201 is above the 200")) == (0, 1)
    large.write_text(large.read_text().replace("downtown", "large"))
    result = call("check-config", f"--config.file={large}", "--skip-secrets", "--total-shards=3")
    assert (result.exit_code, result.stderr.count("is the name of the site in line 2 too")) == (2, 1)


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "x" * 61, "a\x07", "a\u200bb", "a\u00a0b", "a\nb"])
def test_a_name_of_a_node_that_is_none_ends_with_2_and_says_what_to_write(name: str) -> None:
    result = call("run", f"--config.file={SAMPLE}", f"--node.name={name}")
    assert result.exit_code == 2
    told = "is no name of a node; write 1 to 60 visible characters without white space"
    assert told in re.sub(r"\s+", " ", result.stderr)


@pytest.mark.parametrize("name", ["a", "x" * 60, "db-1.example.org", "Änna/🎉"])
def test_any_visible_name_of_a_node_will_do(name: str) -> None:
    assert node_named(name) == name


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


@pytest.mark.parametrize(
    "command",
    ["", "run", "check-config", "poll", "status", "history", "backup", "migrate-store", "simulate", "demo"],
)
def test_every_command_has_help(command: str) -> None:
    result = call(*filter(None, [command]), "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: wix-calendar-monitor {command}".rstrip())


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A configuration that watches Anna as `anna-new`, and a store that knows her as `anna`."""
    clock = Clock()
    store = open_file(tmp_path / "state.db", clock).file
    ago = [clock.now() - timedelta(hours=hours) for hours in (3, 1)]
    keep(store, [Told(ANNA, ago[0], Status.SYNCED), Told(ANNA, ago[1], Status.DISCONNECTED)])
    store.close()
    config = tmp_path / "monitor.yml"
    config.write_text(
        f"store: {{url: 'sqlite:///{tmp_path}/state.db'}}\n"
        "sites:\n  - name: downtown\n    connections: [{id: id-1, name: anna-new}]\n"
        "    credential: {api_key_file: secret, site_id: s}\n"
    )
    return config


def test_status_and_history_are_told_from_the_store_without_secrets(kept: Path) -> None:
    status = call("status", f"--config.file={kept}")
    assert (status.exit_code, status.stderr) == (0, "")
    assert re.search(r"DISCONNECTED \(stale\) +1h\S* +1h\S* ago +downtown/anna-new", status.stdout)
    history = call("history", f"--config.file={kept}")
    assert history.exit_code == 0
    assert re.search(r"DISCONNECTED +1h\S* so far +SYNCED\n.* SYNCED +2h\S* +\(first seen\)", history.stdout)


def test_status_and_backup_go_to_the_store_of_the_shard(kept: Path) -> None:
    flags = [f"--config.file={kept}", "--total-shards=3"]
    kept.write_text(kept.read_text().replace("state.db", "state-${WIX_CALENDAR_MONITOR_SHARD}.db"))
    mine = next(n for n in range(3) if Shard(n, 3).owns(Unit("downtown")))
    (kept.parent / "state.db").rename(kept.parent / f"state-{mine}.db")
    assert "downtown/anna-new" in call("status", *flags, f"--shard={mine}").stdout
    assert "downtown/anna " in call("history", *flags, f"--shard={mine}").stdout
    assert call("backup", *flags, f"--shard={mine}", str(kept.parent / "copy.db")).exit_code == 0
    (kept.parent / "copy.db").rename(kept.parent / f"state-{(mine + 1) % 3}.db")
    other = call("status", *flags, f"--shard={(mine + 1) % 3}")
    assert (other.exit_code, other.stdout) == (0, "No configured connection matches.\n")


@pytest.mark.parametrize("name", ["downtown/anna-new", "downtown/anna"])
def test_the_past_of_a_renamed_connection_is_found_by_either_name(kept: Path, name: str) -> None:
    told = call("history", name, f"--config.file={kept}", "--format=json")
    assert [each["connection_id"] for each in json.loads(told.stdout)] == ["id-1", "id-1"]


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        (["--since=2h"], 1),
        (["--until=2h"], 1),
        (["--since=4h", "--until=30m"], 2),
        (["--limit=1"], 1),
        (["--status=SYNCED"], 1),
        (["--site=downtown"], 2),
    ],
)
def test_a_history_can_be_narrowed(kept: Path, flags: list[str], changes: int) -> None:
    told = call("history", f"--config.file={kept}", "--format=json", *flags)
    assert told.exit_code == 0, told.output
    assert len(json.loads(told.stdout)) == changes


@pytest.mark.parametrize("flags", [["--site=uptown"], ["downtown/bo"], ["downtown/bo", "--summary"]])
def test_a_slip_of_the_pen_does_not_read_as_all_quiet(kept: Path, flags: list[str]) -> None:
    told = call("history", f"--config.file={kept}", *flags)
    assert (told.exit_code, told.stdout) == (2, "")
    assert "is neither in the configuration nor in the store" in told.stderr


def test_a_quiet_time_tells_what_held_through_it(kept: Path) -> None:
    told = call("history", f"--config.file={kept}", "--since=10m")
    assert told.exit_code == 0
    assert told.stdout.startswith("No change in that time. What held:\n\n")
    assert re.search(r"DISCONNECTED +1h\S* so far +SYNCED", told.stdout)


def test_a_summary_of_a_window_that_ends_in_the_future_ends_now(kept: Path) -> None:
    flags = ["--summary", "--since=2h", "--until=2199-01-01T00:00:00Z", "--format=json"]
    [total] = json.loads(call("history", f"--config.file={kept}", *flags).stdout)
    assert total["incidents"] == 1
    assert sum(total["seconds"].values()) == pytest.approx(7200, abs=60)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--since=soon"], "'soon' is no moment; write an age such as 7d, or a time such as"),
        (["--until=2026-11-23"], "'2026-11-23' is no moment"),
        (["--since=1h", "--until=2h"], "'1h' is not before --until '2h' and now"),
        (["--since=0s"], "'0s' is not before now"),
        (["--limit=0"], "0 is not in the range x>=1"),
        (["--limit=5", "--summary"], "--limit is for changes; leave it out with --summary"),
        (["--status=BROKEN"], "'BROKEN' is not one of"),
        (["downtown"], "'downtown': write SITE/NAME"),
        (["downtown/anna", "--site=uptown"], "SITE/NAME says the site: leave out --site"),
    ],
)
def test_a_question_that_makes_no_sense_ends_with_2_and_says_why(
    kept: Path, flags: list[str], words: str
) -> None:
    result = call("history", f"--config.file={kept}", *flags)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in re.sub(r"\s+", " ", result.stderr)


@pytest.mark.parametrize(
    "command", [["status"], ["history"], ["history", "--summary"], ["backup", "copy.db"]]
)
def test_a_store_that_cannot_be_read_ends_with_1_in_one_line(kept: Path, command: list[str]) -> None:
    (kept.parent / "state.db").unlink()
    result = call(*command, f"--config.file={kept}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"there is no {kept.parent}/state.db; the daemon makes it: has it run with this store.url?\n"
    )


def test_a_backup_is_a_store_and_overwrites_nothing(kept: Path) -> None:
    copy = kept.parent / "copy.db"
    assert call("backup", f"--config.file={kept}", str(copy)).exit_code == 0
    again = call("backup", f"--config.file={kept}", str(copy))
    assert (again.exit_code, again.stderr) == (1, f"{copy} is there already; name a file that is not\n")
    opened = open_file(copy, Clock())
    assert len(opened.file.untold()) == 2
    opened.file.close()


# The same in PostgreSQL


@pytest.fixture
def moved(kept: Path, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same configuration with a PostgreSQL, into which the store was copied."""
    word = kept.with_name("word")
    word.write_text(PASSWORD)
    url = postgresql.url(postgresql.new_database(), password=None)
    config = kept.with_name("moved.yml")
    was = f"url: 'sqlite:///{kept.parent}/state.db'"
    config.write_text(kept.read_text().replace(was, f"url: '{url}', password_file: word"))
    copied = call("migrate-store", f"--config.file={config}", f"--from=sqlite:///{kept.parent}/state.db")
    assert (copied.exit_code, copied.stderr) == (0, "")
    place = url.replace("postgres@", "")
    assert copied.stdout == f"1 connections and 2 changes copied into {place}\n"
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return config


@pytest.mark.parametrize(
    "command",
    [["status"], ["history"], ["history", "downtown/anna-new", "--format=json"], ["history", "--summary"]],
)
def test_a_command_says_of_a_postgresql_what_it_says_of_the_same_in_a_file(
    kept: Path, moved: Path, command: list[str]
) -> None:
    ours, theirs = (call(*command, f"--config.file={config}") for config in (moved, kept))
    assert (ours.exit_code, theirs.exit_code) == (0, 0)
    told = ours.stdout.removesuffix("\n\nNo node runs, and none has gone without a word.\n") + (
        "\n" if command == ["status"] else ""
    )
    assert timeless(told) == timeless(theirs.stdout)


def timeless(text: str) -> str:
    """Without how long ago: it is more by the second call, and may be wider."""
    return re.sub(r" +", " ", re.sub(r"(\d+[smhd])+|\d+\.\d+", "", text))


def test_a_backup_of_a_postgresql_is_its_own_tools_business(moved: Path) -> None:
    result = call("backup", f"--config.file={moved}", "copy.db")
    assert result.exit_code == 1
    assert "run pg_dump --schema=wix_calendar_monitor --format=custom on postgresql://127.0" in result.stderr


def test_a_store_is_copied_back_into_a_file(kept: Path, moved: Path) -> None:
    back = kept.with_name("back.yml")
    back.write_text(kept.read_text().replace("state.db", "back.db"))
    url = re.findall(r"postgresql://[^']*", moved.read_text())[0]
    assert call("migrate-store", f"--config.file={back}", f"--from={url}").exit_code == 0
    ours, theirs = (call("history", f"--config.file={config}").stdout for config in (back, kept))
    assert timeless(ours) == timeless(theirs)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://anna:canary@localhost/s", "has a password in it, which every user can see"),
        ("postgresql://localhost", "names no host or no database"),
        ("state.db", "write sqlite:/// and an absolute path"),
    ],
)
def test_a_store_to_copy_that_is_written_wrongly_is_said(kept: Path, url: str, told: str) -> None:
    result = call("migrate-store", f"--config.file={kept}", f"--from={url}")
    assert result.exit_code == 2
    assert told in re.sub(r"\s+", " ", result.stderr)
    assert "canary" not in result.stderr


@pytest.mark.parametrize("word", ["wrong", None])
def test_a_store_to_copy_that_lets_nobody_in_is_told_of_its_own_flag(
    kept: Path, moved: Path, monkeypatch: pytest.MonkeyPatch, word: str | None
) -> None:
    monkeypatch.delenv("PGPASSWORD")
    if word is not None:
        monkeypatch.setenv("PGPASSWORD", word)
    back = kept.with_name("back.yml")
    back.write_text(kept.read_text().replace("state.db", "back.db"))
    url = re.findall(r"postgresql://[^']*", moved.read_text())[0]
    result = call("migrate-store", f"--config.file={back}", f"--from={url}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "see that it runs and lets us in, to --from, and to its password in PGPASSWORD" in result.stderr
    assert "store.url" not in result.stderr


@pytest.mark.parametrize("command", [["status"], ["history"]])
def test_a_postgresql_that_cannot_be_read_ends_with_1_in_one_line(moved: Path, command: list[str]) -> None:
    moved.with_name("word").write_text("wrong")
    result = call(*command, f"--config.file={moved}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(
        r"postgresql://127\.0\.0\.1:\d+/test_\d+ cannot be read \(password authentication failed for user "
        r'"postgres"\); see that it runs and lets us in\n',
        result.stderr,
    )


@pytest.mark.parametrize("command", ["run", "check-config"])
def test_the_problems_of_both_configurations_are_told_at_once(tmp_path: Path, command: str) -> None:
    config, web_config = tmp_path / "monitor.yml", tmp_path / "web-config.yml"
    config.write_text("sites: []\n")
    web_config.write_text("tls_server: {}\n")
    result = call(command, f"--config.file={config}", f"--web.config.file={web_config}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split(" ")[0] for line in result.stderr.splitlines()] == [f"{config}:1:", f"{web_config}:1:"]


def test_what_is_doubtful_in_a_web_configuration_is_told_by_a_check(tmp_path: Path) -> None:
    web_config = tmp_path / "web-config.yml"
    web_config.write_text(f"basic_auth_users: {{alice: '$2y$10${'.' * 53}'}}\n")
    web_config.chmod(0o604)
    flags = [f"--config.file={SAMPLE}", f"--web.config.file={web_config}", "--skip-secrets"]
    result = call("check-config", *flags)
    assert result.exit_code == 0, result.output
    assert (
        f"{web_config}:1: basic_auth_users: warning: {web_config} can be read by every user" in result.stderr
    )
