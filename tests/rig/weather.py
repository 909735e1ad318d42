"""What the calendars show, changed fast: a status is held until it was answered since the last trouble."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from monitor.simulator import Scenario, Simulator
from monitor.simulator.record import ConnectionRecord
from monitor.tasks import TaskBag
from tests.judge.evidence import Calendar, Shown

STATES: Final[tuple[Shown, ...]] = (
    ("SYNCED", None),
    ("ERROR", "TOKEN_REVOKED"),
    ("ERROR", "EXTERNAL_CALENDAR_DELETED"),
    ("DISCONNECTED", None),
    ("SYNC_IN_PROGRESS", None),
    ("CONNECTED", None),
    ("NOT_FOUND", None),
)
_LOOKS: Final = 0.05  # seconds; the record wakes nobody
_BELIEVED: Final = 2  # not-founds in a row
_MORE: Final = (0, 0, 0, 1, 2)  # answers beyond those that are needed


class Sky:
    """One calendar: what it shows, and how often that must be answered before it may change."""

    def __init__(self, calendar: Calendar, record: ConnectionRecord) -> None:
        self.calendar = calendar
        self.shown: Shown = STATES[0]
        self._record = record
        self._needed = 1
        self._mark = (0, 0)

    def show(self, shown: Shown, more: int) -> None:
        """Show something else from now on."""
        self.shown = shown
        self.hold(more)

    def hold(self, more: int = 0) -> None:
        """Whatever was answered so far does not count."""
        self._needed = (_BELIEVED if self.shown[0] == "NOT_FOUND" else 1) + more
        self._mark = self._place()

    def was_answered(self) -> bool:
        """Whether it was, often enough."""
        runs = self._record.runs
        if not runs or (runs[-1].status, runs[-1].reason) != self.shown:
            return False
        number, count = self._place()
        return count - (self._mark[1] if number == self._mark[0] else 0) >= self._needed

    def _place(self) -> tuple[int, int]:
        runs = self._record.runs
        return self._record.runs_dropped + len(runs), runs[-1].count if runs else 0


class Weather:
    """All calendars of a scenario."""

    def __init__(self, simulator: Simulator, scenario: Scenario, chance: random.Random) -> None:
        self._simulator = simulator
        self._chance = chance
        self._skies = [
            Sky(Calendar(site.name, each.id), simulator.record.connection(each.id, site.name))
            for site in scenario.sites
            for each in site.connections
        ]

    @asynccontextmanager
    async def blowing(self) -> AsyncIterator[None]:
        """Meanwhile what was answered changes."""
        failures: list[BaseException] = []
        tasks = TaskBag(failures.append)
        tasks.start(self._blow())
        try:
            yield
        finally:
            await tasks.drain(0)
        assert not failures, failures

    async def _blow(self) -> None:
        while True:
            for sky in self._skies:
                if sky.was_answered():
                    self._change(sky)
            await asyncio.sleep(_LOOKS)

    def hold(self, sites: Iterable[str]) -> None:
        """What was answered of these sites so far may have been lost with who asked."""
        held = set(sites)
        for sky in self._skies:
            if sky.calendar.site in held:
                sky.hold()

    async def settle(self, times: int, seconds: float) -> Sequence[Calendar]:
        """Wait until each has been answered so often from now on; those that were not within the time."""
        for sky in self._skies:
            sky.hold(times)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._waiting():  # noqa: ASYNC110  the record wakes nobody
                    await asyncio.sleep(_LOOKS)
        return self._waiting()

    def _waiting(self) -> list[Calendar]:
        return [sky.calendar for sky in self._skies if not sky.was_answered()]

    def _change(self, sky: Sky) -> None:
        shown = self._chance.choice([each for each in STATES if each != sky.shown])
        self._simulator.set_status(sky.calendar.id, *shown, site=sky.calendar.site)
        sky.show(shown, self._chance.choice(_MORE))
