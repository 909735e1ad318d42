"""From an answer to the operator: simulator, daemon, Prometheus, Alertmanager, webhook, all of them real."""

from pathlib import Path

import pytest

from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import running
from tests.deploy.stack import alertmanager, inbox, prometheus, until
from tests.fleet import oauth_site, write_config

pytestmark = pytest.mark.real

REVOKED = (
    'wix_calendar_connection_error_reason{site="downtown", connection="anna", reason="TOKEN_REVOKED"} == 1'
)


@pytest.fixture
def scenario() -> Scenario:
    return Scenario(sites=(oauth_site("downtown", [Connection(id="anna"), Connection(id="ben")]),))


async def test_prometheus_answers_for_status_and_error_reason(tmp_path: Path, scenario: Scenario) -> None:
    async with Simulator(scenario) as simulator:
        config = write_config(tmp_path, simulator.base_url, scenario)
        async with running(config) as daemon:
            target = (await daemon.url()).removeprefix("http://")
            async with prometheus(tmp_path, target) as server:
                synced = 'wix_calendar_connection_status{connection="anna", status="SYNCED"} == 1'
                await until(lambda: server.query(synced))
                assert await server.query(REVOKED) == []
                simulator.set_status("anna", "ERROR", "TOKEN_REVOKED")
                await until(lambda: server.query(REVOKED))
                bad = await server.query('wix_calendar_connection_status{status="ERROR"} == 1')
                assert [each["connection"] for each in bad] == ["anna"]
                assert await server.query("wix_calendar_connection_healthy == 0") != []
                assert await server.query('up{job="wix-calendar-monitor"} == 1') != []


async def test_a_revoked_token_and_its_end_reach_the_webhook(tmp_path: Path, scenario: Scenario) -> None:
    async with Simulator(scenario) as simulator, inbox() as (mail, webhook):
        config = write_config(tmp_path, simulator.base_url, scenario, site={"team": "front-desk"})
        async with running(config) as daemon, alertmanager(tmp_path, webhook) as address:
            target = (await daemon.url()).removeprefix("http://")
            async with prometheus(tmp_path, target, address) as server:
                await until(lambda: server.query("wix_calendar_connection_healthy == 1"))
                simulator.set_status("anna", "ERROR", "TOKEN_REVOKED")
                first = await mail.told("firing")
                simulator.set_status("anna", "SYNCED")
                await mail.told("resolved")
    assert [alert["status"] for alert in mail.alerts] == ["firing", "resolved"]
    assert first["labels"] == {
        "alertname": "WixCalendarTokenRevoked",
        "site": "downtown",
        "connection": "anna",
        "calendar_type": "GOOGLE",
        "team": "front-desk",
        "severity": "warning",
    }
    assert "through team front-desk" in first["annotations"]["description"]
