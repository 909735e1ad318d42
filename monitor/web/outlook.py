"""The look at the whole fleet that all who ask within a moment share, taken while polls go on."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from monitor.view.facts import Facts, SiteFacts, Watching
from monitor.view.failures import Failures
from monitor.view.index import Index, Place, Slice, build, page
from monitor.view.look import ConnectionView, look_at
from monitor.view.wanted import Wanted, narrowed, runs_of
from monitor.web.pages import Turns

_FRESH_SECONDS: Final = 1.0
_TIMES_LONGER: Final = (
    10  # a look is kept for as long as this many take: looking is a tenth of the work at most
)
_NAMED_AT_A_TIME: Final = 1000  # connections: a fifth of a millisecond

Named = Mapping[str, Watching]
"""Connections of one site by name."""


def nothing() -> Facts:
    """A fleet of no site."""
    start = datetime.fromtimestamp(0, UTC)
    return Facts(now=start, monotonic=0.0, correction=timedelta(), sites={}, failures=Failures())


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the list, and where the pages before and after it are."""

    index: Index
    connections: list[ConnectionView]
    before: int
    total: int
    after: Place | None
    until: Place | None


class Outlook:
    """Looks, and remembers for a moment what it saw."""

    def __init__(self, facts: Callable[[], Facts]) -> None:
        self._facts = facts
        self.turns = Turns()
        self._looking: asyncio.Future[Index] | None = None
        self._fresh_until = 0.0
        self._forgetting: asyncio.TimerHandle | None = None
        self._names = _Names()

    async def index(self) -> Index:
        """The whole fleet, as it was a moment ago at most."""
        now = asyncio.get_running_loop().time()
        if self._looking is None or (self._looking.done() and now >= self._fresh_until):  # the timer is late
            self._looking = asyncio.ensure_future(self._look())  # noqa: TID251  held here
        return await asyncio.shield(self._looking)

    async def page(
        self, wanted: Wanted, limit: int, *, after: Place | None = None, before: Place | None = None
    ) -> Page:
        """A page of those that are wanted, the worst first."""
        index = await self.index()
        runs = runs_of(wanted, index)
        if not wanted.asks_for_all:
            runs = await self.turns.all(narrowed(wanted, run) for run in runs)
        found = page(runs, limit, after=after, before=before)
        sites = index.facts.sites
        looks = (look_at(each.watching, sites[each.site], index.facts) for each in found.entries)
        return _page(index, found, await self.turns.all(looks))

    def facts(self) -> Facts:
        """What runs, now."""
        return self._facts()

    async def find(self, facts: Facts, site: str, name: str) -> tuple[SiteFacts, Watching] | None:
        """A connection by the names of the configuration."""
        its = facts.sites.get(site)
        if its is None:
            return None
        found = await self._names.find(facts, its, name)
        return None if found is None else (its, found)

    async def _look(self) -> Index:
        clock = asyncio.get_running_loop().time
        index, worked = Index(self._facts()), 0.0
        pieces = build(index)
        while True:
            began = clock()
            more = next(pieces, index) is None
            worked += clock() - began
            if not more:
                break
            await asyncio.sleep(0)
        fresh = max(_FRESH_SECONDS, _TIMES_LONGER * worked)
        self._fresh_until = clock() + fresh
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(fresh, self._forget)
        return index

    def _forget(self) -> None:
        """What has grown old is let go: at 100,000 connections it is some 30 MB."""
        self._looking = self._forgetting = None


class _Names:
    """The connections of sites by name: of each site that somebody asks for, until it watches others."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Sequence[Watching], list[Named]]] = {}
        self._turn = asyncio.Lock()

    async def find(self, facts: Facts, site: SiteFacts, name: str) -> Watching | None:
        """One of them; who asks while they are listed waits for that."""
        async with self._turn:
            watched, pieces = self._kept.get(site.name, (None, []))
            if watched is not site.watched:
                pieces = await _named(site.watched)
                kept = {name: each for name, each in self._kept.items() if name in facts.sites}
                self._kept = {**kept, site.name: (site.watched, pieces)}
        return next((piece[name] for piece in pieces if name in piece), None)


async def _named(watched: Sequence[Watching]) -> list[Named]:
    """In pieces, as one that grows to 100,000 takes 5 ms in one go: polls have their turn in between."""
    pieces: list[Named] = []
    for start in range(0, len(watched), _NAMED_AT_A_TIME):
        pieces.append({each.connection.name: each for each in watched[start : start + _NAMED_AT_A_TIME]})
        await asyncio.sleep(0)
    return pieces


def _page(index: Index, found: Slice, connections: list[ConnectionView]) -> Page:
    return Page(
        index=index,
        connections=connections,
        before=found.before,
        total=found.total,
        after=None if found.is_last or not found.entries else found.entries[-1].place,
        until=found.entries[0].place if found.before and found.entries else None,
    )
