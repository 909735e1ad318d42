"""A real Prometheus and a real Alertmanager on loopback, over the shipped files with shorter times."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from monitor.demo.children import free_address
from monitor.demo.faster import Shipped, Webhook
from monitor.demo.programs import Alertmanager, Programs, Prometheus, alertmanager, prometheus
from monitor.demo.talk import Notification, inbox
from tests.deploy.installation import ROOT
from tests.real_parts import newer, require

DEPLOY: Final = ROOT / "deploy"
OPERATOR: Final = "operator"
_BEATS: Final = "dead-mans-switch"
_LOOK_AGAIN: Final = 0.1


async def until(wanted: Callable[[], Awaitable[object]], seconds: float = 30.0) -> None:
    """Look again and again until it is so; TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await wanted():  # noqa: ASYNC110  another program cannot set an event of ours
            await asyncio.sleep(_LOOK_AGAIN)


def installed() -> Programs:
    """The machine's own."""
    return Programs(require("prometheus"), require("prometheus-alertmanager"))


def newest() -> Programs:
    """Those of Prometheus 3."""
    return Programs(newer("prometheus"), newer("prometheus-alertmanager"))


class Inbox:
    """What Alertmanager sent, message by message: those to the operator, and how often the switch was fed.

    With `sites`, only what tells of one of them, or of no site in particular.
    """

    def __init__(self, sites: Collection[str] | None = None) -> None:
        self.messages: list[Notification] = []
        self._sites = sites
        self._beats = 0
        self._waiting: list[asyncio.Event] = []
        self._parts: list[Inbox] = []

    def part(self, sites: Collection[str]) -> "Inbox":
        """An inbox of what comes from now on and tells of those sites, or of none in particular."""
        self._parts.append(Inbox(sites))
        return self._parts[-1]

    def take(self, message: Notification) -> None:
        """Keep one message."""
        if message["receiver"] != OPERATOR:
            self._beats += message["receiver"] == _BEATS
        elif self._wants(message):
            self.messages.append(message)
        for event in self._waiting:
            event.set()
        for part in self._parts:
            part.take(message)

    async def told(self, status: str, name: str, since: int = 0, seconds: float = 60.0) -> Notification:
        """The first message of that status on that alert, come or to come; `since` messages are old."""

        def found() -> Notification | None:
            fits = (each for each in self.messages[since:] if heading(each) == (status, name))
            return next(fits, None)

        await self._until(lambda: found() is not None, seconds)
        message = found()
        assert message is not None
        return message

    async def beats(self, count: int, seconds: float = 40.0) -> None:
        """Let the dead man's switch be fed so many times more: a while in which a message could have come."""
        enough = self._beats + count
        await self._until(lambda: self._beats >= enough, seconds)

    def _wants(self, message: Notification) -> bool:
        told = {each["labels"].get("site", "") for each in message["alerts"]}
        return self._sites is None or not told.isdisjoint({*self._sites, ""})

    async def _until(self, wanted: Callable[[], bool], seconds: float) -> None:
        event = asyncio.Event()
        self._waiting.append(event)
        try:
            async with asyncio.timeout(seconds):
                while not wanted():
                    event.clear()
                    await event.wait()
        except TimeoutError:
            pytest.fail(f"what came: {[heading(each) for each in self.messages]}")
        finally:
            self._waiting.remove(event)


def heading(message: Notification) -> tuple[str, str]:
    """Whether a message says that something began or ended, and what: all its alerts have one name."""
    return message["status"], message["groupLabels"]["alertname"]


@dataclass(frozen=True)
class Stack:
    """Both programs, and what they told."""

    prometheus: Prometheus
    alertmanager: Alertmanager
    mail: Inbox

    async def sees(self, query: str, seconds: float = 30.0) -> None:
        """Until Prometheus finds something by the query."""
        await until(lambda: self.prometheus.query(query), seconds)

    async def known(self, name: str) -> list[dict[str, Any]]:
        """What Alertmanager knows by the name of an alert."""
        return [each for each in await self.alertmanager.alerts() if each["labels"]["alertname"] == name]


@asynccontextmanager
async def stack(
    programs: Programs, folder: Path, target: str, factor: float, *others: str
) -> AsyncIterator[Stack]:
    """Both of them over the shipped files, every wait divided by the factor, looking at the targets."""
    shipped, mail = Shipped(DEPLOY, factor), Inbox()
    ports = free_address(), free_address()
    async with (
        inbox(mail.take) as url,
        alertmanager(
            programs.alertmanager, shipped, folder, ports[0], Webhook(url, frozenset({OPERATOR, _BEATS}))
        ) as teller,
        prometheus(programs.prometheus, shipped, folder, ports[1], target, ports[0]) as watcher,
    ):
        _look_at(folder / "prometheus.yml", others)
        await watcher.take_rules(shipped, folder)
        yield Stack(watcher, teller, mail)


def _look_at(config: Path, others: Collection[str]) -> None:
    """More targets of the one job, from when the configuration is read anew."""
    document = yaml.safe_load(config.read_text())
    document["scrape_configs"][0]["static_configs"][0]["targets"].extend(others)
    config.write_text(yaml.safe_dump(document))
