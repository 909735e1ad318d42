"""The alerts of the demo: where both programs are installed, what Alertmanager would send is shown."""

import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import yaml

from monitor.demo.children import ChildError, free_address
from monitor.demo.faster import Shipped, Webhook
from monitor.demo.programs import Programs, alertmanager, prometheus
from monitor.demo.talk import Notification, inbox
from monitor.demo.teller import Teller

FACTOR: Final = 60
"""By how much the demo's waits are shorter than the shipped ones: its seconds are minutes."""

_NAMES: Final = (("prometheus",), ("prometheus-alertmanager", "alertmanager"))
_RECEIVERS: Final = frozenset({"operator"})
_BOLD: Final = "\x1b[1m{}\x1b[0m"  # left out where there is no terminal, by click
_NONE: Final = "No alerts are shown: {why}."


def installed() -> Programs | None:
    """The two programs, where both are on PATH."""
    found = [next(filter(None, map(shutil.which, names)), None) for names in _NAMES]
    paths = [path for path in found if path is not None]
    return Programs(*paths) if len(paths) == len(_NAMES) else None


class Alerts:
    """Both programs on ports of their own, over the files of a deploy folder; `say` is told each message."""

    def __init__(self, programs: Programs, deploy: Path, folder: Path, say: Callable[[str], None]) -> None:
        self._programs = programs
        self._shipped = Shipped(deploy, FACTOR)
        self._folder = folder
        self._say = say
        self._teller = Teller()
        self.prometheus = free_address()
        self.alertmanager = free_address()

    async def run(self, target: str) -> None:
        """Run both until cancelled. Where one fails that is said, and the demo goes on without alerts."""
        try:
            async with (
                inbox(self._tell) as url,
                alertmanager(
                    self._programs.alertmanager,
                    self._shipped,
                    self._folder,
                    self.alertmanager,
                    Webhook(url, _RECEIVERS),
                ) as teller,
                prometheus(
                    self._programs.prometheus,
                    self._shipped,
                    self._folder,
                    self.prometheus,
                    target,
                    self.alertmanager,
                ) as watcher,
            ):
                await watcher.take_rules(self._shipped, self._folder)
                await asyncio.gather(teller.child.lives(), watcher.child.lives())
        except (ChildError, OSError, yaml.YAMLError) as error:
            self._say(_NONE.format(why=error))

    def _tell(self, notification: Notification) -> None:
        with suppress(OSError):  # a closed pipe behind stdout is no trouble of Alertmanager's
            for line in self._teller.lines(notification):
                self._say(_BOLD.format(line))
