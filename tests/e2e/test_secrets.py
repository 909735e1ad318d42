"""Canaries are planted in every credential; none may sing in a log, a page, a metric or a traceback."""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from monitor.simulator import CANARY_EMAIL, Connection, Scenario, Simulator
from tests.daemon import ROOT, running
from tests.fleet import API_KEY, CLIENT_SECRET, key_site, oauth_site, write_config

TOKEN_MARK = "OauthNG.JWS."  # how every access token of Wix, and of its stand-in, begins
PROXY_PASSWORD = "canary-proxy-password-90cc"


@pytest.mark.parametrize("form", ["json", "logfmt", "console"])
async def test_no_output_of_the_daemon_holds_a_secret(tmp_path: Path, form: str) -> None:
    scenario = fleet()
    async with Simulator(scenario) as simulator:
        config = write_config(tmp_path, simulator.base_url, scenario, polling={"breaker_failures": 2})
        async with running(config, "--log.level=debug") as daemon:
            await daemon.event("connection_first_seen", connection="anna")
            await daemon.event("connection_first_seen", connection="kim")
            simulator.revoke_tokens()
            simulator.set_fault({"status": 401, "body": "html"})
            await daemon.event("site_down", site="downtown")
            await daemon.event("site_down", site="old-town")
            simulator.set_fault(None)
            simulator.set_fault("refuse", endpoint="token")
            await daemon.event("site_up", site="old-town")
            pages = [await daemon.get(path) for path in ("/", "/metrics", "/-/ready")]
            assert await daemon.stop() == 0
        shown = await console(config, "check-config"), await console(config, "poll", "downtown/anna")
        other = await console(config, "poll", "old-town/kim")
        said = await logged(config, form)
    assert "wix_calendar_connection_status" in pages[1]
    assert '"id": "kim"' in other
    told = "\n".join([*daemon.raw, daemon.stderr, *pages, *shown, other, said])
    assert [secret for secret in (CLIENT_SECRET, API_KEY, CANARY_EMAIL, TOKEN_MARK) if secret in told] == []
    assert simulator.record.site("downtown").requests["token"] > 1


async def test_a_proxy_s_password_is_not_shown_when_the_proxy_refuses(tmp_path: Path) -> None:
    scenario = fleet()
    environ = {"HTTPS_PROXY": f"http://operator:{PROXY_PASSWORD}@127.0.0.1:1"}
    config = write_config(
        tmp_path, "https://wix.example.invalid", scenario, api={"proxy_from_environment": True}
    )
    async with running(config, "--log.level=debug", environ=environ) as daemon:
        await daemon.event("connection_polls_failing", reason="connect")
        page = await daemon.get("/metrics")
        assert await daemon.stop() == 0
    shown = await console(config, "poll", "old-town/kim", environ={**os.environ, **environ})
    assert "connect" in shown
    assert PROXY_PASSWORD not in "\n".join([*daemon.raw, daemon.stderr, page, shown])


def fleet() -> Scenario:
    return Scenario(
        sites=(
            oauth_site("downtown", [Connection(id="anna", import_enabled=True)]),
            key_site("old-town", [Connection(id="kim", import_enabled=True)]),
        )
    )


async def logged(config: Path, form: str) -> str:
    """What a daemon says in that format until it is ready and is stopped."""
    command = [sys.executable, "-m", "monitor", "run", f"--config.file={config}", f"--log.format={form}"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--log.level=debug",
        "--web.listen-address=127.0.0.1:0",
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = b""
    async with asyncio.timeout(20):
        while b"connection_first_seen" not in said and b"site_down" not in said:
            said += await process.stdout.readline()
        process.terminate()
        said += await process.stdout.read()
        await process.wait()
    return said.decode()


async def console(
    config: Path, command: str, *arguments: str, environ: Mapping[str, str] | None = None
) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "monitor",
        command,
        f"--config.file={config}",
        *arguments,
        cwd=ROOT,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(20):
        told, _ = await process.communicate()
    return told.decode()
