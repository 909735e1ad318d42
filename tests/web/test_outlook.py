"""The look at the fleet that all who ask share: taken once, kept for a moment, and then let go."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from monitor.view.facts import Facts
from monitor.view.wanted import Wanted
from monitor.web.outlook import Outlook
from tests.view.scene import NOW, facts_of, site_of, watched

pytestmark = pytest.mark.looptime


class Fleet:
    """Counts how often it is looked at."""

    def __init__(self, connections: int = 3) -> None:
        self.looks = 0
        self.fails = False
        self._facts = facts_of(site_of([watched(f"c{n}") for n in range(connections)]))

    def facts(self) -> Facts:
        self.looks += 1
        if self.fails:
            raise ValueError("a defect")
        return replace(self._facts, now=NOW + timedelta(seconds=self.looks))


async def test_all_who_ask_within_a_moment_share_one_look() -> None:
    fleet = Fleet(2000)
    outlook = Outlook(fleet.facts)
    found = await asyncio.gather(*(outlook.index() for _ in range(10)))
    assert all(each is found[0] for each in found)
    assert await outlook.index() is found[0]
    assert fleet.looks == 1


async def test_a_look_that_has_grown_old_is_taken_anew_and_let_go() -> None:
    fleet = Fleet()
    outlook = Outlook(fleet.facts)
    first = await outlook.index()
    await asyncio.sleep(5)
    assert outlook._looking is None, "nobody holds what nobody looks at"
    assert await outlook.index() is not first
    assert fleet.looks == 2


async def test_a_look_that_failed_is_not_kept() -> None:
    fleet = Fleet()
    outlook = Outlook(fleet.facts)
    fleet.fails = True
    with pytest.raises(ValueError, match="a defect"):
        await outlook.index()
    fleet.fails = False
    assert (await outlook.index()).tally.connections == 3


async def test_who_goes_away_ends_nobodys_look() -> None:
    fleet = Fleet(2000)
    outlook = Outlook(fleet.facts)
    first = asyncio.ensure_future(outlook.index())  # noqa: TID251  the test is its holder
    second = asyncio.ensure_future(outlook.index())  # noqa: TID251
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).tally.connections == 2000
    assert fleet.looks == 1


async def test_polls_have_their_turn_while_a_large_fleet_is_looked_at() -> None:
    outlook = Outlook(Fleet(20_000).facts)
    turns = 0

    async def polls() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    polling = asyncio.ensure_future(polls())  # noqa: TID251  held here
    await outlook.page(Wanted(text="nowhere"), 50)
    polling.cancel()
    assert turns > 100
