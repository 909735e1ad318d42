"""The metric reference for operators says what the code does."""

import re
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
import yaml

import monitor.metrics
from monitor.core.model import Connection, ConnectionState, ErrorReason, FailureReason, Status
from monitor.metrics.exposition import Dialect, slices
from monitor.metrics.families import BY_NAME, FAMILIES, Family, Group
from tests.metrics.snapshots import NOW, connection, polled, snapshot, state
from tests.real_parts import require

README: Final = (Path(monitor.metrics.__file__).parent / "README.md").read_text(encoding="utf-8")
TITLES: Final = {Group.CONNECTION: "Connections", Group.SITE: "Sites", Group.MONITOR: "The monitor"}
QUERIES: Final = re.findall(r"```promql\n(.+?)```", README, re.DOTALL)


def row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}` | {family.type} | {labels} | {family.help} | {family.absent} |"


@pytest.mark.parametrize("group", Group)
def test_the_table_of_a_group_is_the_codes(group: Group) -> None:
    section = README.split(f"## {TITLES[group]}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [row(family) for family in FAMILIES if family.group is group]


@pytest.mark.parametrize(
    ("watched", "known", "count"),
    [
        (connection(), polled(), 20),
        (connection(), polled(status=Status.ERROR, reason=ErrorReason.TOKEN_REVOKED), 21),
        (connection(maintenance_until=NOW + timedelta(hours=1)), polled(), 21),
        (connection(), state(), 5),
    ],
)
def test_a_connection_has_the_number_of_series_that_is_told(
    watched: Connection, known: ConnectionState, count: int
) -> None:
    page = b"".join(slices(snapshot((watched, known)), Dialect.TEXT)).decode()
    assert sum(not line.startswith("#") for line in page.splitlines()) == count
    assert "20 series: 21 while it is in ERROR, one more in maintenance, 5 before its first poll." in README


def test_every_failure_reason_is_told() -> None:
    assert all(f"`{reason}`" in README for reason in FailureReason)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_families_that_exist(query: str) -> None:
    names = set(re.findall(r"wix_\w+", query))
    assert names
    assert {name.removesuffix("_bucket") for name in names} <= set(BY_NAME)


@pytest.mark.real
def test_promtool_reads_every_query(tmp_path: Path) -> None:
    promtool = require("promtool")
    rules = tmp_path / "rules.yml"
    named = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(QUERIES)]
    rules.write_text(yaml.safe_dump({"groups": [{"name": "readme", "rules": named}]}), encoding="utf-8")
    done = subprocess.run(
        [promtool, "check", "rules", str(rules)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(QUERIES)} rules found" in done.stdout
