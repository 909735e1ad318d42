"""`status` over a PostgreSQL: which nodes live, and which of them owns what."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from monitor import __version__
from monitor.cli import cli
from monitor.clock import Clock
from monitor.core.shards import Unit
from monitor.store.sqlite.file import open_file
from tests.postgresql import PASSWORD, PostgreSQL
from tests.store.engines import Shared
from tests.store.members import joined

SITES: Final = (
    "sites:\n"
    "  - {name: downtown, credential: {api_key_file: key, site_id: d}, connections: [{id: a}]}\n"
    "  - {name: large, credential: {api_key_file: key, site_id: l}, parts: 2, connections: [{id: c}]}\n"
)
MOMENT: Final = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture
def shared(postgresql: PostgreSQL) -> Shared:
    return Shared(postgresql)


@pytest.fixture
def config(shared: Shared, tmp_path: Path) -> Path:
    (tmp_path / "word").write_text(PASSWORD)
    (tmp_path / "word").chmod(0o600)
    url = shared.server.url(shared.database, password=None)
    path = tmp_path / "monitor.yml"
    path.write_text(f"store: {{url: '{url}', password_file: word}}\n{SITES}")
    return path


async def call(*arguments: str) -> Result:
    """Beside the test's own loop, as a reader has one of its own."""
    return await asyncio.to_thread(CliRunner().invoke, cli, arguments)


async def lines(*arguments: str) -> list[str]:
    result = await call(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


async def told(*arguments: str) -> Any:
    return json.loads("\n".join(await lines(*arguments, "--format=json")))


async def test_below_the_connections_stand_the_nodes_with_what_they_own(shared: Shared, config: Path) -> None:
    async with joined(shared, "b") as b, joined(shared, "a", ["http://192.0.2.1:19877"]) as a:
        await a.claim(Unit("downtown"), Unit("large", 1))
        await b.claim(Unit("large", 0))
        await b.expire()
        seen = await lines("status", f"--config.file={config}")
    assert seen[0].split() == ["status", "for", "last", "answer", "connection"]
    assert seen[seen.index("") + 1].split() == [
        "node",
        "state",
        "version",
        "joined",
        "(UTC)",
        "sites",
        "urls",
    ]
    version = re.escape(__version__)
    assert re.fullmatch(rf"a +alive +{version} +{MOMENT} +2  http://192\.0\.2\.1:19877", seen[-2])
    assert re.fullmatch(rf"b +gone, its lease to 2026-11-23 07:00:00  {version} +{MOMENT} +0", seen[-1])


async def test_what_nobody_owns_comes_before_what_somebody_does(shared: Shared, config: Path) -> None:
    async with joined(shared, "b") as b, joined(shared, "a") as a:
        await a.claim(Unit("downtown"), Unit("elsewhere"))
        await b.claim(Unit("large", 1), Unit("uptown"))
        await b.expire()
        seen = await lines("status", "--nodes", f"--config.file={config}")
    assert [line.split()[:4] for line in seen] == [
        ["site", "part", "owner", "epoch"],
        ["large", "0", "nobody", "0"],
        ["large", "1", "nobody", "1"],
        ["uptown", "0", "nobody", "1"],
        ["downtown", "0", "a", "1"],
        ["elsewhere", "0", "a", "1"],
    ]
    assert seen[1].endswith("nobody      0")
    assert seen[2].endswith("2026-11-23 07:00:00")
    assert re.search(rf"1  {MOMENT}$", seen[4])


async def test_a_site_that_was_given_up_is_nobodys_since_then(shared: Shared, config: Path) -> None:
    async with joined(shared, "a") as a:
        await a.claim(Unit("downtown"), Unit("uptown"))
        before = await told("status", "--nodes", "--site=downtown", f"--config.file={config}")
        await a.leave()
        after = await told("status", "--nodes", "--site=downtown", f"--config.file={config}")
    assert [each["node"] for each in before["nodes"]] == ["a"]
    [owned], [free] = before["leases"], after["leases"]
    assert (owned["owner"], free["owner"], owned["epoch"], free["epoch"]) == ("a", None, 1, 1)
    assert owned["since"] < free["since"]
    assert after["nodes"] == []
    assert len((await told("status", "--nodes", f"--config.file={config}"))["leases"]) == 3, "without uptown"


async def test_nodes_and_leases_are_told_as_json_under_stable_names(shared: Shared, config: Path) -> None:
    async with joined(shared, "a", ["http://192.0.2.1:1"]) as a, joined(shared, "b") as b:
        await a.claim(Unit("downtown"))
        await b.expire()
        body = await told("status", "--nodes", f"--config.file={config}")
        connections = await told("status", f"--config.file={config}")
    [first, gone] = body["nodes"]
    assert first == {
        "node": "a",
        "alive": True,
        "lease_until": None,
        "version": __version__,
        "joined_at": first["joined_at"],
        "sites": 1,
        "urls": ["http://192.0.2.1:1"],
    }
    assert (gone["alive"], gone["lease_until"]) == (False, "2026-11-23T07:00:00.000Z")
    assert body["leases"][0] == {"site": "large", "part": 0, "owner": None, "epoch": 0, "since": None}
    assert [each["owner"] for each in body["leases"]] == [None, None, "a"]
    assert [each["connection"] for each in connections] == ["a", "c"]


async def test_who_has_lost_its_lock_is_gone_before_its_lease_ends(shared: Shared, config: Path) -> None:
    async with joined(shared, "a") as a:
        await a.claim(Unit("downtown"))
        a.end()
        async with asyncio.timeout(20):  # the server sees to it in its own time
            while (body := await told("status", "--nodes", f"--config.file={config}"))["nodes"][0]["alive"]:
                pass
    assert body["nodes"][0]["sites"] == 0
    assert [each["owner"] for each in body["leases"]] == [None, None, None]


async def test_a_store_that_one_process_uses_has_no_nodes(tmp_path: Path) -> None:
    config = tmp_path / "monitor.yml"
    config.write_text(f"store: {{url: 'sqlite:///{tmp_path}/state.db'}}\n{SITES}")
    open_file(tmp_path / "state.db", Clock()).file.close()
    seen = await lines("status", "--nodes", f"--config.file={config}")
    assert seen == ["There are no nodes: the store is a file, which one process uses."]
    assert await told("status", "--nodes", f"--config.file={config}") == {"nodes": [], "leases": []}


async def test_a_status_is_none_of_a_node(config: Path) -> None:
    result = await call("status", "--nodes", "--status=ERROR", f"--config.file={config}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--status is for connections; leave it out with --nodes." in result.stderr
