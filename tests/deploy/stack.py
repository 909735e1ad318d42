"""A real Prometheus and a real Alertmanager on loopback, over the shipped files with shorter times."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml
from aiohttp import web

from tests.deploy.installation import ROOT
from tests.real_parts import require

DEPLOY: Final = ROOT / "deploy"
_LOOK_AGAIN: Final = 0.1


async def until(wanted: Callable[[], Awaitable[object]], seconds: float = 30.0) -> None:
    """Look again and again until it is so; TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await wanted():  # noqa: ASYNC110  another program cannot set an event of ours
            await asyncio.sleep(_LOOK_AGAIN)


class Prometheus:
    """A running Prometheus, asked over its HTTP API."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def query(self, query: str) -> list[dict[str, str]]:
        """The labels of each series that the query finds now."""
        async with self._session.get(f"{self._url}/api/v1/query", params={"query": query}) as got:
            answer = await got.json()
        assert answer["status"] == "success", answer
        return [each["metric"] for each in answer["data"]["result"]]


class Inbox:
    """What Alertmanager sent to its webhook, in the order of arrival."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self._news = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        """Answer one notification."""
        notification = await request.json()
        async with self._news:
            self.alerts += notification["alerts"]
            self._news.notify_all()
        return web.Response()

    async def told(self, status: str, seconds: float = 30.0) -> dict[str, Any]:
        """The first alert that came, or will come, as `firing` or as `resolved`."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: any(alert["status"] == status for alert in self.alerts))
        return next(alert for alert in self.alerts if alert["status"] == status)


@asynccontextmanager
async def inbox() -> AsyncIterator[tuple[Inbox, str]]:
    """A webhook receiver, and its URL."""
    inbox, app = Inbox(), web.Application()
    app.router.add_post("/", inbox.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield inbox, f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def prometheus(folder: Path, target: str, alertmanager: str | None = None) -> AsyncIterator[Prometheus]:
    """Prometheus over the shipped configuration, looking every second; all but one rule wait as shipped."""
    config = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [alertmanager or "127.0.0.1:1"]}]
    for name in config["rule_files"]:
        _shorten_rules(DEPLOY / "prometheus" / name, folder / name)
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{_free_port()}"
    flags = (f"--config.file={path}", f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address={address}")
    async with _running("prometheus", *flags, address=address) as session:
        yield Prometheus(session, f"http://{address}")


@asynccontextmanager
async def alertmanager(folder: Path, webhook: str) -> AsyncIterator[str]:
    """Alertmanager over the shipped configuration, telling at once; its address."""
    config = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yml").read_text())
    config["route"] |= {"group_wait": "0s", "group_interval": "1s"}
    config["receivers"][0]["webhook_configs"][0]["url"] = webhook
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{_free_port()}"
    flags = (f"--config.file={path}", f"--storage.path={folder}/alerts", f"--web.listen-address={address}")
    # Without an address to cluster on, none is looked for: a machine may have loopback only.
    alone = "--cluster.listen-address="
    async with _running("prometheus-alertmanager", *flags, alone, address=address):
        yield address


def _shorten_rules(source: Path, target: Path) -> None:
    document = yaml.safe_load(source.read_text())
    for rule in document["groups"][0]["rules"]:
        if rule["alert"] == "WixCalendarTokenRevoked":
            rule |= {"for": "0s", "keep_firing_for": "0s"}
    target.parent.mkdir(exist_ok=True)
    target.write_text(yaml.safe_dump(document))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def _running(tool: str, *flags: str, address: str) -> AsyncIterator[aiohttp.ClientSession]:
    """One of the two programs, once it is ready; terminated at the end."""
    process = await asyncio.create_subprocess_exec(
        require(tool),
        *flags,
        "--log.level=error",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    told = asyncio.ensure_future(process.communicate())  # noqa: TID251  held here
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session:

        async def ready() -> bool:
            assert not told.done(), told.result()[1].decode()
            with suppress(aiohttp.ClientError):
                async with session.get(f"http://{address}/-/ready") as got:
                    return got.status == 200
            return False

        try:
            await until(ready)
            yield session
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await told
