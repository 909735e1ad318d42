"""The same on the faster loop, where it differs from asyncio's own: sockets, transports and TLS."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from monitor.web.connections import Limits
from monitor.web.protection import WebConfig
from monitor.web.server import Server
from tests.web.talk import LOOPBACK, PAGE, Daemon, ask, connect, is_ended, off_loop, until
from tests.web.test_limits import GET, HEALTHY, answer, drip, hangs_up


def on_uvloop(story: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story)


@asynccontextmanager
async def serving(daemon: Daemon, **options: Any) -> AsyncIterator[tuple[Server, str]]:
    server = Server(daemon.metrics, lambda: None, **options)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop)
        (url,) = await server.start([LOOPBACK])
        yield server, url


@pytest.fixture
def web_config(tmp_path: Path, certificates: Path) -> WebConfig:
    shutil.copy(certificates / "ca.pem", tmp_path)
    for kind in ("crt", "key"):
        shutil.copy(certificates / f"right.{kind}", tmp_path / f"server.{kind}")
    path = tmp_path / "web-config.yml"
    path.write_text(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"
        "  client_allowed_sans: [localhost]\n"
    )
    return WebConfig(path)


def test_slow_and_silent_clients_are_cut_off() -> None:
    async def story() -> None:
        daemon = Daemon()
        daemon.slices = [b"a_metric 1\n" * 100_000] * 30
        async with serving(daemon, limits=Limits(request_seconds=0.3, response_seconds=1)) as (server, url):
            with connect(url) as silent, connect(url) as slow, connect(url) as deaf:
                deaf.sendall(GET)
                slow.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
                ended = asyncio.gather(
                    off_loop(is_ended, silent), off_loop(drip, slow, b"x"), off_loop(hangs_up, deaf)
                )
                assert all(await ended)
            await until(lambda: server.connections == 0)
            assert len((await off_loop(ask, url, "/metrics")).body) == 33_000_000

    on_uvloop(story())


def test_a_flood_of_silent_connections_keeps_nobody_out() -> None:
    async def story() -> None:
        async with serving(Daemon(), limits=Limits(connections=5)) as (server, url):
            with ExitStack() as stack:
                for _ in range(50):
                    stack.enter_context(connect(url))
                assert (await off_loop(ask, url, "/metrics")).body == PAGE
                kept = stack.enter_context(connect(url))
                for _ in range(10):
                    kept.sendall(HEALTHY)
                    assert await off_loop(answer, kept)
                assert server.connections <= 5

    on_uvloop(story())


@pytest.mark.parametrize(
    ("shows", "served"), [("right", True), ("wrong-name", False), ("untrusted", False), (None, False)]
)
def test_a_client_shows_its_certificate(
    web_config: WebConfig, certificates: Path, shows: str | None, *, served: bool
) -> None:
    trust = ssl.create_default_context(cafile=certificates / "ca.pem")
    if shows is not None:
        trust.load_cert_chain(certificates / f"{shows}.pem")

    async def is_served(url: str) -> bool:
        try:
            return (await off_loop(ask, url, "/metrics", trust=trust)).body == PAGE
        except OSError:  # SSL's too
            return False

    async def story() -> None:
        async with serving(Daemon(), config=web_config) as (server, url):
            assert await is_served(url) is served
            await until(lambda: server.connections == 0)

    on_uvloop(story())


def test_a_handshake_has_a_deadline(web_config: WebConfig) -> None:
    async def story() -> None:
        limits = Limits(request_seconds=0.3, connections=5)
        async with serving(Daemon(), config=web_config, limits=limits) as (server, url):
            silent = [connect(url) for _ in range(8)]
            await until(lambda: server.connections == 5)
            for each in silent:
                with each:
                    assert await off_loop(is_ended, each)
            await until(lambda: server.connections == 0)

    on_uvloop(story())
