"""The agenda, in virtual time: everything at its own instant, nothing past the horizon."""

import asyncio
from typing import NamedTuple

import pytest

from monitor.agenda import Agenda
from monitor.clock import Clock

pytestmark = pytest.mark.looptime


class Entry(NamedTuple):
    at: float
    again: float | None = None


class Diary:
    """An agenda that writes down what fell due, and when."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.seen: list[tuple[float, float]] = []
        self.asleep = 0.0
        self._loop = loop
        self.agenda = Agenda[Entry](Clock(loop.time, self.now), self._fall_due)

    def now(self) -> float:
        return self._loop.time() + self.asleep

    def _fall_due(self, entry: Entry) -> None:
        self.seen.append((entry.at, round(self.now(), 3)))
        if entry.again is not None:
            self.agenda.add(Entry(entry.at + entry.again, entry.again))


async def test_each_falls_due_at_its_own_instant_whatever_the_order_they_came_in() -> None:
    diary = Diary()
    diary.agenda.run_on(100.0)
    for at in (5.0, 1.0, 3.0, 3.0):
        diary.agenda.add(Entry(at))
    await asyncio.sleep(10.0)
    assert diary.seen == [(1.0, 1.0), (3.0, 3.0), (3.0, 3.0), (5.0, 5.0)]


async def test_nothing_falls_due_past_the_horizon_until_that_moves() -> None:
    diary = Diary()
    diary.agenda.add(Entry(2.0, again=2.0))
    await asyncio.sleep(5.0)
    assert diary.seen == []
    diary.agenda.run_on(7.0)
    await asyncio.sleep(20.0)
    assert diary.seen == [(2.0, 5.0), (4.0, 5.0), (6.0, 6.0)]


async def test_what_came_due_while_the_machine_slept_falls_due_when_it_is_run_on() -> None:
    diary = Diary()
    diary.agenda.run_on(1000.0)
    diary.agenda.add(Entry(500.0))
    diary.asleep = 600.0
    await asyncio.sleep(1.0)
    diary.agenda.run_on(1000.0)
    await asyncio.sleep(1.0)
    assert diary.seen == [(500.0, 601.0)]


async def test_once_stopped_nothing_falls_due() -> None:
    diary = Diary()
    diary.agenda.run_on(100.0)
    diary.agenda.add(Entry(1.0))
    diary.agenda.stop()
    diary.agenda.add(Entry(2.0))
    await asyncio.sleep(10.0)
    assert diary.seen == []
