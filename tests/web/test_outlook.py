"""The look at the fleet that all who ask share: taken once, kept for a moment, and then let go."""

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from monitor.view.facts import Facts
from monitor.view.index import PIECE
from monitor.view.wanted import Wanted
from monitor.web.outlook import Outlook, Page
from tests.view.scene import NOW, Watched, facts_of, site_of, watched
from tests.web.talk import work

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


class Listed(list[Watched]):
    """Counts how many of it have been looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Watched]:
        for each in super().__iter__():
            self.looks += 1
            yield each

    def __getitem__(self, at: Any) -> Any:
        self.looks += len(range(*at.indices(len(self))))
        return super().__getitem__(at)


async def test_who_is_asked_for_by_name_is_found_without_a_look_at_all_others() -> None:
    those = Listed(watched(f"c{n}") for n in range(2500))
    site = site_of([])
    facts = facts_of(replace(site, watched=those))
    outlook = Outlook(lambda: facts)
    found = await asyncio.gather(*(outlook.find(facts, "downtown", f"c{n}") for n in (0, 1700, 2499)))
    assert [each[1].connection.name for each in found if each] == ["c0", "c1700", "c2499"]
    assert await outlook.find(facts, "downtown", "nobody") is None
    assert await outlook.find(facts, "uptown", "c0") is None
    assert those.looks == 2500, "all of them once"


async def test_names_follow_the_list_of_connections() -> None:
    before = facts_of(site_of([watched("anna"), watched("ben")]), site_of([], "uptown"))
    after = facts_of(site_of([watched("ann"), watched("ben")]))
    outlook = Outlook(lambda: after)
    assert await outlook.find(before, "downtown", "anna") is not None
    assert await outlook.find(after, "downtown", "anna") is None
    found = await outlook.find(after, "downtown", "ann")
    assert found is not None
    assert found[1] is after.sites["downtown"].watched[0]


async def test_polls_have_their_turn_while_the_names_of_a_large_site_are_listed() -> None:
    facts = facts_of(site_of([watched(f"c{n}") for n in range(20_000)]))
    finding = asyncio.ensure_future(Outlook(lambda: facts).find(facts, "downtown", "c7"))  # noqa: TID251  held
    turns = 0
    while not finding.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 15


@pytest.mark.looptime(False)  # noqa: FBT003  a turn ends by the true clock
async def test_polls_have_their_turn_while_a_large_fleet_is_looked_at_and_searched() -> None:
    outlook = Outlook(Fleet(20_000).facts)
    assert await turns_while(outlook.page(Wanted(text="nowhere"), 50)) > 20_000 // PIECE + 5


@pytest.mark.looptime(False)  # noqa: FBT003
async def test_and_while_a_long_page_of_it_is_made() -> None:
    facts = facts_of(site_of([Slow(watched(f"c{n}")) for n in range(50)]))
    assert await turns_while(Outlook(lambda: facts).page(Wanted(), 50)) > 50


class Slow:
    """A connection that takes a turn to be looked at."""

    def __init__(self, one: Watched) -> None:
        self.connection = one.connection
        self.state = one.state
        self.extra_at = None

    @property
    def next_at(self) -> float | None:
        work(0.001)
        return None


async def turns_while(paging: Coroutine[Any, Any, Page]) -> int:
    """How many turns others have until it is done."""
    its = asyncio.ensure_future(paging)  # noqa: TID251  held here
    turns = 0
    while not its.done():
        turns += 1
        await asyncio.sleep(0)
    return turns
