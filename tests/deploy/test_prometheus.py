"""What Prometheus makes of the daemon's page, both of them real."""

from pathlib import Path
from typing import Final

import pytest

from monitor.demo.children import free_address
from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import running
from tests.deploy.stack import installed, stack
from tests.fleet import oauth_site, write_config

pytestmark = pytest.mark.real

FLEET: Final = Scenario(sites=(oauth_site("downtown", [Connection(id="anna"), Connection(id="ben")]),))
REVOKED: Final = (
    'wix_calendar_connection_error_reason{site="downtown", connection="anna", reason="TOKEN_REVOKED"} == 1'
)


async def test_prometheus_answers_for_status_and_error_reason(tmp_path: Path) -> None:
    address = free_address()
    async with Simulator(FLEET) as simulator:
        config = write_config(tmp_path, simulator.base_url, FLEET)
        async with running(config, f"--web.listen-address={address}") as daemon:
            await daemon.url()
            async with stack(installed(), tmp_path, address, factor=60) as its:
                await its.sees('wix_calendar_connection_status{connection="anna", status="SYNCED"} == 1')
                assert await its.prometheus.query(REVOKED) == []
                simulator.set_status("anna", "ERROR", "TOKEN_REVOKED")
                await its.sees(REVOKED)
                bad = await its.prometheus.query('wix_calendar_connection_status{status="ERROR"} == 1')
                assert [each["connection"] for each in bad] == ["anna"]
                assert await its.prometheus.query("wix_calendar_connection_healthy == 0") != []
                assert await its.prometheus.query('up{job="wix-calendar-monitor"} == 1') != []
