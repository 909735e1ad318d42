"""Checks across the file: what must be unique, and whether the plan fits its budgets."""

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, NamedTuple

from monitor.config.document import Loc
from monitor.config.listed import Item, Listed, Written
from monitor.config.model import Site
from monitor.config.settings import ApiKeyCredential, FeedSettings, OAuthCredential
from monitor.config.source import Source
from monitor.core.plan import (
    SITE_SLOTS,
    crowding,
    fitting_interval,
    interval_in_force,
    requests_per_minute,
    slots_needed,
)
from monitor.core.shards import Shard, part_of, part_of_budget
from monitor.durations import format_duration
from monitor.errors import Problem

PUBLISHED_LIMIT: Final = 200
"""Requests a minute per app instance. Source: "Rate limits" of the Wix API documentation."""

_NARROW: Final = 0.9


class PartDraft(NamedTuple):
    """How many connections a part of a site has, and its share of the budget."""

    connections: int
    budget: int

    def in_force(self, interval: timedelta) -> timedelta:
        """The interval that its share allows."""
        return interval_in_force(self.connections, self.budget, interval)


def parts_of(site: Site, lists: Sequence[Listed]) -> tuple[PartDraft, ...]:
    """The parts of a site, of which most have one."""
    if site.parts == 1:
        return (PartDraft(sum(map(len, lists)), site.requests_per_minute),)
    counts = Counter(part_of(entry.id, site.parts) for listed in lists for entry in listed.entries())
    budgets = (part_of_budget(site.requests_per_minute, number, site.parts) for number in range(site.parts))
    return tuple(PartDraft(counts[number], budget) for number, budget in enumerate(budgets))


@dataclass(frozen=True, slots=True)
class SiteDraft:
    """One site with all that was resolved about it; `mine` are the numbers of the parts watched here."""

    loc: Loc
    site: Site
    credential: OAuthCredential | ApiKeyCredential
    interval: timedelta
    inline: Listed
    from_files: tuple[Listed, ...]
    parts: tuple[PartDraft, ...]
    mine: tuple[int, ...]
    feeds: tuple[FeedSettings, ...] = ()
    crowding: float = 1.0

    def lists(self) -> Iterator[Listed]:
        """All its connections, in the order of the files."""
        yield self.inline
        yield from self.from_files

    def items(self) -> Iterator[Item]:
        """The same, one by one, each with its place."""
        return (item for listed in self.lists() for item in listed.items())

    def entries(self) -> Iterator[Written]:
        """The same, without their places."""
        return (entry for listed in self.lists() for entry in listed.entries())

    @property
    def grows(self) -> bool:
        """Whether files give it connections, which may become more."""
        return any(map(len, self.from_files))

    @property
    def count(self) -> int:
        """How many connections it has."""
        return sum(part.connections for part in self.parts)

    @property
    def in_force(self) -> timedelta:
        """The interval that its budget allows each part, and the slots that all sites share."""
        alone = max(part.in_force(self.interval) for part in self.parts)
        if self.crowding == 1.0:
            return alone
        return timedelta(seconds=math.ceil(alone.total_seconds() * self.crowding))

    @property
    def polls_per_second(self) -> float:
        """What it asks of the slots here."""
        return sum(self.parts[number].connections for number in self.mine) / self.in_force.total_seconds()


def make_room(drafts: Sequence[SiteDraft], max_in_flight: int) -> list[SiteDraft]:
    """The sites, those that grow through files stretched until all fit into the slots, where that can be."""
    growing = sum(draft.polls_per_second for draft in drafts if draft.grows)
    fixed = sum(draft.polls_per_second for draft in drafts if not draft.grows)
    factor = crowding(fixed, growing, max_in_flight)
    if factor in (1.0, math.inf):
        return list(drafts)
    return [replace(draft, crowding=factor) if draft.grows and draft.mine else draft for draft in drafts]


def check_sites(source: Source, drafts: Sequence[SiteDraft]) -> Iterator[Problem]:
    """Site names and credentials that are used twice."""
    names: dict[str, SiteDraft] = {}
    quotas: dict[Hashable, SiteDraft] = {}
    for draft in drafts:
        first = names.setdefault(draft.site.name, draft)
        if first is not draft:
            told = f"is the name of the site in line {source.line(first.loc)} too; choose another"
            yield source.problem((*draft.loc, "name"), told)
        first = quotas.setdefault(draft.credential.quota, draft)
        if first is not draft:
            told = f"is the credential of site {first.site.name} (line {source.line(first.loc)}) too"
            mend = "they would share one quota: put the connections into one site"
            yield source.problem((*draft.loc, "credential"), f"{told}; {mend}")


def check_connections(drafts: Sequence[SiteDraft]) -> Iterator[Problem]:
    """Names and ids that stand twice in a site, and ids that stand in two sites."""
    ids: set[str] = set()
    for draft in drafts:
        its = {entry.id for entry in draft.entries()}
        if draft.count != len(its) or draft.count != len({entry.name for entry in draft.entries()}):
            yield from _twice(draft)
        ids |= its
    if len(ids) != sum(draft.count for draft in drafts):
        yield from _shared(drafts)


def _twice(draft: SiteDraft) -> Iterator[Problem]:
    names: dict[str, Item] = {}
    ids: dict[str, Item] = {}
    for item in draft.items():
        same_id = ids.setdefault(item.entry.id, item)
        if same_id is not item:
            yield item.problem("id", f"stands in {same_id.place()} too; remove one of them")
            continue
        same_name = names.setdefault(item.entry.name, item)
        if same_name is not item:
            yield item.problem("name", f"is the name in {same_name.place()} too; choose another")


def _shared(drafts: Sequence[SiteDraft]) -> Iterator[Problem]:
    """One warning for each two sites that share ids: whole lists may be alike."""
    owners: dict[str, tuple[int, Item]] = {}
    shared: dict[tuple[int, int], list[tuple[Item, Item]]] = {}
    for number, draft in enumerate(drafts):
        for item in draft.items():
            owner, first = owners.setdefault(item.entry.id, (number, item))
            if owner != number:
                shared.setdefault((owner, number), []).append((first, item))
    for (owner, _), pairs in shared.items():
        first, item = pairs[0]
        more = f" (and {len(pairs) - 1} more ids of this site)" if len(pairs) > 1 else ""
        told = f"stands in site {drafts[owner].site.name} ({first.place()}) too{more}"
        mend = "remove one where it is not polled twice on purpose"
        yield item.source.problem((*item.loc, "id"), f"{told}; {mend}", "warning")


def check_plan(source: Source, drafts: Sequence[SiteDraft], max_in_flight: int) -> Iterator[Problem]:
    """Whether each site keeps its budget."""
    for draft in drafts:
        yield from _check_limit(source, draft)
        yield from _check_site(source, draft, max_in_flight)


def check_slots(
    source: Source, drafts: Sequence[SiteDraft], max_in_flight: int, shard: Shard
) -> Iterator[Problem]:
    """Whether all that is watched here keeps the slots together."""
    needed = slots_needed(sum(draft.polls_per_second for draft in drafts))
    if needed > max_in_flight:
        plan = f"the plan of {shard}" if shard.several else "the plan"
        told = f"{max_in_flight} are too few: {plan} needs {needed} at 300 ms an answer"
        mend = f"write {needed} or more, longer intervals, or run more shards"
        yield source.problem(("api", "max_in_flight"), f"{told}; {mend}")


def _check_limit(source: Source, draft: SiteDraft) -> Iterator[Problem]:
    budget = draft.site.requests_per_minute
    if budget > PUBLISHED_LIMIT:
        told = f"{budget} is above the {PUBLISHED_LIMIT} a minute that Wix allows an app instance"
        yield source.problem((*draft.loc, "requests_per_minute"), f"{told}; expect it to refuse", "warning")


def _check_site(source: Source, draft: SiteDraft, max_in_flight: int) -> Iterator[Problem]:
    """What does not fit is an error where the file itself asks for it, and stretched where files do."""
    loc = (*draft.loc, "interval")
    budget = draft.site.requests_per_minute
    asked = requests_per_minute(draft.count, draft.interval)
    connections = f"{draft.count} connection{'s' if draft.count > 1 else ''}"
    plan = f"{asked:.6g} requests a minute ({connections} every {format_duration(draft.interval)})"
    slots = slots_needed(draft.count / draft.interval.total_seconds())
    room = SITE_SLOTS * len(draft.parts)
    in_flight = (
        f"the plan needs {slots} requests in flight at 300 ms an answer, and {_whose(draft)} gets {room}"
    )
    fits = f"write interval: {format_duration(max(fitting_interval(*part) for part in draft.parts))} or more"
    stretched = f"the interval is stretched to {format_duration(draft.in_force)}"
    if requests_per_minute(len(draft.inline), draft.interval) > budget:
        yield source.problem(loc, f"{plan} are above requests_per_minute ({budget}); {fits}")
    elif slots_needed(len(draft.inline) / draft.interval.total_seconds()) > room:
        yield source.problem(loc, f"{in_flight}; {fits}")
    elif draft.crowding > 1.0:
        told = f"all sites together need more than max_in_flight ({max_in_flight}) at 300 ms an answer"
        yield source.problem(loc, f"{told}; {stretched}", "warning")
    elif draft.in_force > draft.interval and len(draft.parts) > 1:
        yield source.problem(loc, f"{_fullest(draft)}; {stretched}", "warning")
    elif draft.in_force > draft.interval and slots > room:
        yield source.problem(loc, f"{in_flight}; {stretched}", "warning")
    elif draft.in_force > draft.interval:
        told = f"{plan} are more than requests_per_minute ({budget}) can carry for good"
        yield source.problem(loc, f"{told}; {stretched}", "warning")
    elif asked > _NARROW * budget:
        told = f"{plan} are within 10 % of requests_per_minute ({budget})"
        yield source.problem(loc, f"{told}; a longer interval leaves room to grow", "warning")


def _whose(draft: SiteDraft) -> str:
    return "a site" if len(draft.parts) == 1 else f"a site of {len(draft.parts)} parts"


def _fullest(draft: SiteDraft) -> str:
    """Of the parts of a site, the one that needs the longest interval."""
    number, part = max(enumerate(draft.parts), key=lambda each: each[1].in_force(draft.interval))
    has = f"part {number} of {len(draft.parts)} has {part.connections} connections"
    every = f"every {format_duration(draft.interval)}"
    return (
        f"{has}, more than its {part.budget} requests a minute and {SITE_SLOTS} in flight can carry {every}"
    )
