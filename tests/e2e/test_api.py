"""The API and the pages of a real daemon: what polls have found is there, and nothing that is a secret."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from monitor.simulator import CANARY_EMAIL, Connection, FaultWindow, Scenario, Simulator
from tests.daemon import Daemon, running
from tests.fleet import API_KEY, CLIENT_SECRET, key_site, oauth_site, write_config

ODD: Final = "a/b?c=ö"
FLEET: Final = Scenario(
    sites=(
        oauth_site("downtown", [Connection(id="anna"), Connection(id="ben"), Connection(id=ODD)]),
        key_site("uptown", [Connection(id="cleo", status="ERROR", reason="TOKEN_REVOKED")]),
    ),
    faults=(
        FaultWindow.model_validate(
            {"from": "3s", "sites": ["downtown"], "connections": ["ben"], "fault": {"status": 503}}
        ),
    ),
)
PAGES: Final = (
    "/",
    "/sites",
    "/sites/downtown",
    "/sites/uptown",
    "/connections/downtown/ben",
    "/connections/uptown/cleo",
    "/api/v1/connections",
    "/api/v1/connections/downtown/ben",
    "/api/v1/sites",
    "/api/v1/sites/uptown",
    "/api/v1/fleet",
    "/api/v1/transitions",
)


async def test_what_polls_have_found_is_told_and_no_secret_is(tmp_path: Path) -> None:
    async with Simulator(FLEET) as simulator:
        config = write_config(tmp_path, simulator.base_url, FLEET)
        async with running(config) as daemon:
            failing = await daemon.event("connection_polls_failing", connection="ben")
            ben = await told(daemon, "/connections/downtown/ben")
            assert (ben["status"], ben["last_poll_success"]) == ("SYNCED", False)
            assert failing["request_id"] in [each["request_id"] for each in ben["failures"]]
            assert {each["http_status"] for each in ben["failures"]} == {503}
            anna = await told(daemon, "/connections/downtown/anna")
            seconds = (datetime.fromisoformat(anna["next_poll"]) - datetime.now(UTC)).total_seconds()  # noqa: TID251
            assert -1 < seconds <= 1.5, "the interval is one second"
            assert anna["poll_command"].endswith(f"--config.file={config} downtown/anna")
            odd = await told(daemon, f"/connections/downtown/{quote(ODD, safe='')}")
            assert odd["connection_id"] == ODD
            site = await told(daemon, "/sites/downtown")
            assert (site["up"], site["credential"], site["credential_state"]) == (True, "oauth", "accepted")
            assert site["requests_last_minute"] > 0
            assert site["poll_lag_seconds"] is not None
            changes = (await told(daemon, "/transitions"))["transitions"]
            assert {each["connection"] for each in changes} == {"anna", "ben", ODD, "cleo"}
            shown = "".join([await daemon.get(path) for path in PAGES])
            assert await daemon.stop() == 0
    assert not any(secret in shown for secret in (CANARY_EMAIL, API_KEY, CLIENT_SECRET, "client-secret"))


async def told(daemon: Daemon, path: str) -> Any:
    return json.loads(await daemon.get(f"/api/v1{path}"))
