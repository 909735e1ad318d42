"""Prometheus and Alertmanager, running over faster copies of the shipped files."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from monitor.demo.children import Child, child
from monitor.demo.faster import Shipped, Webhook
from monitor.demo.talk import Api, NoAnswerError

__all__ = ["Alertmanager", "Api", "Programs", "Prometheus", "alertmanager", "prometheus"]

_START_SECONDS: Final = 30.0
_RESEND: Final = "5s"
"""A minute unless given: Prometheus forgets for a moment where its Alertmanager is when it takes rules."""


class Programs(NamedTuple):
    """Where the two programs are."""

    prometheus: str
    alertmanager: str


class Alertmanager:
    """A running Alertmanager."""

    def __init__(self, child: Child, api: Api) -> None:
        self.child = child
        self._api = api

    async def alerts(self) -> list[dict[str, Any]]:
        """All that it knows of, those that are inhibited too."""
        known: list[dict[str, Any]] = await self._api.get("/api/v2/alerts")
        return known


class Prometheus:
    """A running Prometheus."""

    def __init__(self, child: Child, api: Api) -> None:
        self.child = child
        self._api = api

    async def query(self, query: str) -> list[dict[str, str]]:
        """The labels of each series that the query finds now."""
        answer = await self._api.get("/api/v1/query", query=query)
        return [each["metric"] for each in answer["data"]["result"]]

    async def take_rules(self, shipped: Shipped, folder: Path) -> None:
        """Let it judge once it has looked at the target, after 5 to 10 s: till then the monitor is absent."""
        await self.child.until(self._has_looked, _START_SECONDS, "looking at the monitor")
        shipped.copy_rules(folder)
        self.child.signal(signal.SIGHUP)
        await self.child.until(self._judges, _START_SECONDS, "evaluating the rules")

    async def _has_looked(self) -> bool:
        with suppress(NoAnswerError):
            return bool(await self.query("up == 1"))
        return False

    async def _judges(self) -> bool:
        with suppress(NoAnswerError):
            rules = await self._api.get("/api/v1/rules")
            told = await self._api.get("/api/v1/alertmanagers")
            return bool(rules["data"]["groups"] and told["data"]["activeAlertmanagers"])
        return False


@asynccontextmanager
async def alertmanager(
    program: str, shipped: Shipped, folder: Path, address: str, webhook: Webhook
) -> AsyncIterator[Alertmanager]:
    """Run Alertmanager, which tells the webhook."""
    flags = (
        f"--config.file={shipped.copy_alertmanager(folder, webhook)}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        # Without an address to cluster on, none is looked for: a machine may have loopback only.
        "--cluster.listen-address=",
    )
    async with _running(program, flags, folder / "alertmanager.log", address) as (child, api):
        yield Alertmanager(child, api)


@asynccontextmanager
async def prometheus(
    program: str, shipped: Shipped, folder: Path, address: str, target: str, alertmanager: str
) -> AsyncIterator[Prometheus]:
    """Run Prometheus, which looks at the target; without rules until it is told to take them."""
    flags = (
        f"--config.file={shipped.copy_prometheus(folder, target, alertmanager)}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={address}",
        f"--rules.alert.resend-delay={_RESEND}",
    )
    async with _running(program, flags, folder / "prometheus.log", address) as (child, api):
        yield Prometheus(child, api)


@asynccontextmanager
async def _running(
    program: str, flags: tuple[str, ...], log: Path, address: str
) -> AsyncIterator[tuple[Child, Api]]:
    api = Api(address)
    try:
        async with child(program, *flags, log=log) as its:
            await its.until(api.ready, _START_SECONDS, "ready")
            yield its, api
    finally:
        await api.close()
