"""What Prometheus makes of the daemon's page, both of them real."""

import re
import shutil
from pathlib import Path
from typing import Any, Final

import bcrypt
import pytest
import yaml

from monitor.demo.children import free_address
from monitor.demo.faster import Shipped
from monitor.demo.programs import prometheus
from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import running
from tests.deploy.installation import ROOT
from tests.deploy.stack import installed, stack, until
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


def documented_job() -> dict[str, Any]:
    """The job of deploy/README.md that asks by TLS and password."""
    blocks = re.findall(
        r"^```yaml\n(.*?)^```", (ROOT / "deploy/README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (block,) = (each for each in blocks if "basic_auth" in each)
    (job,) = yaml.safe_load(block)["scrape_configs"]
    assert isinstance(job, dict)
    return job


def protect(folder: Path, certificates: Path, password: str) -> Path:
    """A web configuration by the sample that ships, with that password."""
    for kind in ("crt", "key"):
        shutil.copy(certificates / f"right.{kind}", folder / f"server.{kind}")
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()
    text = re.sub(r"\$2y\$\S+", lambda _: hashed, (ROOT / "deploy/web-config.yml").read_text())
    path = folder / "web-config.yml"
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def shipped_with(folder: Path, certificates: Path, password: str) -> Shipped:
    """The shipped configuration of Prometheus, its job being the documented one."""
    deploy = folder / f"deploy-{password}"
    (deploy / "prometheus").mkdir(parents=True)
    (folder / f"password-{password}").write_text(password)
    job = documented_job()
    job["tls_config"] |= {"ca_file": str(certificates / "ca.pem"), "server_name": "localhost"}
    job["basic_auth"]["password_file"] = str(folder / f"password-{password}")
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    config["scrape_configs"] = [job]
    (deploy / "prometheus/prometheus.yml").write_text(yaml.safe_dump(config))
    return Shipped(deploy, factor=15)


@pytest.mark.parametrize(("password", "up"), [("right", 1), ("wrong", 0)])
async def test_prometheus_asks_by_tls_and_password_as_documented(
    tmp_path: Path, certificates: Path, password: str, up: int
) -> None:
    address, mine = free_address(), free_address()
    web_config = protect(tmp_path, certificates, "right")
    async with Simulator(FLEET) as simulator:
        config = write_config(tmp_path, simulator.base_url, FLEET)
        flags = (f"--web.listen-address={address}", f"--web.config.file={web_config}")
        async with running(config, *flags) as daemon:
            await daemon.url()
            shipped = shipped_with(tmp_path, certificates, password)
            program = installed().prometheus
            async with prometheus(program, shipped, tmp_path, mine, address, free_address()) as its:
                await until(lambda: its.query(f'up{{job="wix-calendar-monitor"}} == {up}'))
                seen = await its.query('wix_calendar_connection_status{connection="anna", status="SYNCED"}')
                assert bool(seen) is bool(up)
