"""The daemon's own port as a process serves it: TLS, passwords, sockets of systemd."""

import json
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

import bcrypt
import pytest

from monitor.demo.children import free_address
from monitor.simulator import Connection, Scenario, Simulator
from tests.daemon import running
from tests.deploy.stack import until
from tests.fleet import oauth_site, write_config
from tests.real_parts import require
from tests.web.talk import PATIENCE, ask, off_loop
from tests.web.test_passwords import authorized

FLEET: Final = Scenario(sites=(oauth_site("downtown", [Connection(id="anna")]),))
PASSWORD: Final = b"canary-password"


@pytest.fixture
async def config(tmp_path: Path) -> AsyncIterator[Path]:
    """A configuration over a simulator."""
    async with Simulator(FLEET) as simulator:
        yield write_config(tmp_path, simulator.base_url, FLEET)


@pytest.fixture
def web_config(tmp_path: Path, certificates: Path) -> Path:
    for kind in ("crt", "key"):
        shutil.copy(certificates / f"right.{kind}", tmp_path / f"server.{kind}")
        (tmp_path / f"server.{kind}").chmod(0o600)
    return write(tmp_path / "web-config.yml", users={"alice": PASSWORD})


def write(path: Path, users: dict[str, bytes]) -> Path:
    path.touch(mode=0o600)
    hashes = {name: bcrypt.hashpw(each, bcrypt.gensalt(4)).decode() for name, each in users.items()}
    path.write_text(
        "tls_server_config: {cert_file: server.crt, key_file: server.key}\nbasic_auth_users:\n"
        + "".join(f"  {name}: {each}\n" for name, each in hashes.items())
    )
    return path


async def test_it_is_served_by_tls_and_password_and_follows_the_file(
    config: Path, web_config: Path, certificates: Path
) -> None:
    trust = ssl.create_default_context(cafile=certificates / "ca.pem")
    alice, bob = authorized(b"alice", PASSWORD), authorized(b"bob", PASSWORD)
    async with running(config, f"--web.config.file={web_config}") as daemon:
        url = await daemon.url()
        assert url.startswith("https://")
        assert (await off_loop(ask, url, "/metrics", trust=trust)).status == 401
        assert (await off_loop(ask, url, "/-/ready", trust=trust)).status == 200
        got = await off_loop(ask, url, "/metrics", "GET", alice, trust=trust)
        assert b"wix_calendar_site_up" in got.body
        write(web_config, {"bob": PASSWORD})
        await daemon.event("web_config_reloaded", level="info")
        assert (await off_loop(ask, url, "/metrics", "GET", alice, trust=trust)).status == 401
        assert (await off_loop(ask, url, "/metrics", "GET", bob, trust=trust)).status == 200
        shutil.copy(certificates / "wrong-name.key", web_config.parent / "server.key")
        failed = await daemon.event("web_config_failed", level="error")
        assert "is not the key of the certificate" in failed["problems"][0]
        assert (await off_loop(ask, url, "/metrics", "GET", bob, trust=trust)).status == 200
        assert await daemon.stop() == 0
    log = "".join(daemon.raw) + daemon.stderr
    assert len(daemon.events("web_config_failed")) == len(daemon.events("web_config_reloaded")) == 1
    assert not any(secret in log for secret in ("canary", "$2b$", "Authorization"))


def spoil(config: Path, web_config: Path) -> None:
    config.write_text(f"pollin: {{}}\n{config.read_text()}")
    web_config.write_text("basic_auth_users: {alice: canary}\ntls: {}\n")


async def test_all_problems_of_both_files_end_it_with_2(config: Path, web_config: Path) -> None:
    spoil(config, web_config)
    async with running(config, environ={"WIX_CALENDAR_MONITOR_WEB_CONFIG_FILE": str(web_config)}) as daemon:
        assert await daemon.ended() == 2
    assert [line.split(" ")[0] for line in daemon.stderr.splitlines()] == [
        f"{config}:1:",
        f"{web_config}:1:",
        f"{web_config}:2:",
    ]
    assert "canary" not in daemon.stderr


async def test_a_reload_is_asked_for_over_http_where_that_is_enabled(config: Path) -> None:
    async with running(config, "--web.enable-lifecycle") as daemon:
        url = await daemon.url()
        got = await off_loop(ask, url, "/-/reload", "POST")
        assert (got.status, json.loads(got.body)["status"]) == (200, "reloaded")
        spoil(config, config.parent / "unused.yml")
        got = await off_loop(ask, url, "/-/reload", "POST")
        assert (got.status, json.loads(got.body)["status"]) == (400, "refused")
        assert "pollin: unknown key; did you mean polling?" in json.loads(got.body)["problems"][0]
        assert (await off_loop(ask, url, "/-/healthy")).status == 200
        await daemon.event("config_reload_failed", trigger="request")


async def test_without_a_socket_of_systemd_it_does_not_start(config: Path) -> None:
    async with running(config, "--web.systemd-socket") as daemon:
        assert await daemon.ended() == 1
    assert daemon.stderr.startswith("systemd handed over no socket: ")


def as_pair(address: str) -> tuple[str, int]:
    host, _, port = address.partition(":")
    return host, int(port)


async def connects(client: socket.socket, place: str | tuple[str, int]) -> bool:
    try:
        client.connect(place)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    return True


@pytest.mark.real
@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_it_serves_on_the_sockets_that_systemd_hands_over(
    config: Path, tmp_path: Path, kind: str
) -> None:
    tcp, unix = free_address(), tmp_path / "it.sock"
    tool = [require("systemd-socket-activate"), f"--listen={tcp}", f"--listen={unix}"]
    tool += [f"--setenv={name}={value}" for name, value in os.environ.items() if "=" not in name]
    async with running(config, "--web.systemd-socket", started_by=tool) as daemon:
        family, place = (socket.AF_UNIX, str(unix)) if kind == "unix" else (socket.AF_INET, as_pair(tcp))
        with socket.socket(family) as client:
            await until(partial(connects, client, place))  # which is what starts it
            client.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
            client.settimeout(PATIENCE)
            assert (await off_loop(client.recv, 12)) == b"HTTP/1.1 200"
        ready = await daemon.event("monitor_ready")
        assert ready["listening"] == [f"http://{tcp}", f"unix:{unix}"]
        assert (await off_loop(ask, f"http://{tcp}", "/-/healthy")).status == 200
        assert await daemon.stop() == 0
