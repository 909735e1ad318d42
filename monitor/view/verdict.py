"""What is wrong, in a sentence for each: calendars, sites, our own sight, or our store."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

import msgspec

from monitor.view.facts import Facts, SiteFacts
from monitor.view.index import Index, page
from monitor.view.moves import MOVES, Move, move_for, site_move

NAMED: Final = 3
"""Connections or sites that a sentence names at most."""

_MOST: Final = 0.5
_LONGEST: Final = 60  # characters of a name in a sentence
_TURNING: Final = dict.fromkeys((0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
"""The characters that set the direction of a text."""


class Scope(msgspec.Struct, frozen=True):
    """How one of them is: `state` is well, bad or unknown."""

    name: str
    state: str
    told: str
    move: Move | None = None


class Verdict(msgspec.Struct, frozen=True):
    """The scopes, and which is read first: the widest that is bad, else that is unknown.

    A wider one explains the narrower; the store, which explains none, is first where no other is bad.
    """

    calendars: Scope
    sites: Scope
    sight: Scope
    store: Scope

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """From the narrowest to the widest; the store only while it fails."""
        failing = (self.store,) if self.store.state == "bad" else ()
        return *failing, self.calendars, self.sites, self.sight

    @property
    def headline(self) -> Scope:
        """The one to read first."""
        for state in ("bad", "unknown"):
            for scope in reversed(self.scopes):
                if scope.state == state:
                    return scope
        return self.calendars


def judge(index: Index) -> Verdict:
    """Tell whether it is calendars, sites, our own blindness, or our store."""
    return Verdict(_calendars(index), _sites(index), _sight(index), _store(index.facts))


def blindness(facts: Facts) -> Scope | None:
    """That this node may not poll, where it may not."""
    since, node = facts.blind_since, facts.node
    if since is None or node is None:
        return None
    told = f"This node may not poll since {_moment(since, facts)}"
    reason = f"it has no lease of PostgreSQL at {node.place}"
    return Scope("Our sight", "bad", f"{told}: {reason}", MOVES["WixCalendarNodeWithoutLease"])


def spoken(name: str) -> str:
    """A name within a sentence: not too long, and without what would turn the sentence round."""
    text = name.translate(_TURNING)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def several(told: Iterable[str], count: int) -> str:
    """The first few of so many within a sentence, and how many there are besides."""
    named = list(islice(told, NAMED))
    more = count - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")


def _calendars(index: Index) -> Scope:
    tally = index.tally
    if tally.unhealthy == 1:
        return _one_calendar(index)
    if tally.unhealthy:
        sites = sum(1 for each in index.sites.values() if each.unhealthy)
        told = f"{_count(tally.unhealthy, 'calendar')} of {tally.connections:,} broken"
        where = f", at {_count(sites, 'site')}" if len(index.sites) > 1 else ""
        return Scope("Calendars", "bad", f"{told}{where}")
    if index.facts.blind_since is not None and tally.healthy:
        told = f"{tally.healthy:,} of {tally.connections:,} were well when we could last ask"
        return Scope("Calendars", "unknown", told)
    if tally.connections == 0 and index.facts.blind_since is None:
        return Scope("Calendars", "well", "No calendar is watched")
    if tally.healthy == 0:
        return Scope(
            "Calendars", "unknown", "Nothing is known yet" if tally.unseen else "Nothing is known now"
        )
    return Scope("Calendars", "well", f"{tally.healthy:,} of {tally.connections:,} well")


def _one_calendar(index: Index) -> Scope:
    (worst,) = page(index.runs, 1).entries
    facts = index.facts
    site = facts.sites[worst.site].state
    move = move_for(worst.watching.connection, worst.state, site, facts.now, stale=worst.stale)
    told = f"1 calendar of {index.tally.connections:,} broken: {spoken(f'{worst.site}/{worst.name}')}"
    return Scope("Calendars", "bad", told, move)


def _sites(index: Index) -> Scope:
    down = index.down
    if down:
        told = f"{len(down):,} of {_count(len(index.sites), 'site')} down: {_names(down)}"
        return Scope("Sites", "bad", told, site_move(down[0].state))
    if index.facts.blind_since is not None:
        return Scope("Sites", "unknown", f"{_count(len(index.sites), 'site')}, none asked now")
    limited = [site for site in index.facts.sites.values() if site.state.limited_since is not None]
    if limited:
        return Scope("Sites", "unknown", f"Told to wait: {_names(limited)}", MOVES["WixCalendarRateLimited"])
    return Scope("Sites", "well", f"{_count(len(index.sites), 'site')}, none down")


def _names(sites: Sequence[SiteFacts]) -> str:
    return several((spoken(site.name) for site in sites), len(sites))


def _sight(index: Index) -> Scope:
    if (blind := blindness(index.facts)) is not None:
        return blind
    tally, down = index.tally, index.down
    if len(down) > 1 and len(down) > _MOST * len(index.sites):
        return Scope("Our sight", "bad", "Most sites cannot be asked", MOVES["WixUnreachable"])
    if tally.stale > _MOST * tally.connections:
        told = f"Blind: {tally.stale:,} of {tally.connections:,} stale"
        return Scope("Our sight", "bad", told, site_move(down[0].state) if down else None)
    if tally.stale:
        return Scope("Our sight", "unknown", f"{_count(tally.stale, 'calendar')} stale: not known now")
    return Scope("Our sight", "well", "Every answer is fresh")


def _store(facts: Facts) -> Scope:
    store = facts.store
    if store.failing_since is None:
        return Scope("Store", "well", "Every change is kept")
    polling = "polling goes on" if facts.blind_since is None else "this node does not poll"
    held = f"{store.waiting:,} of at most {store.room:,} changes held in memory"
    told = f"Store failing since {_moment(store.failing_since, facts)}: {polling}, {held}"
    # Then the way to the database is what fails, and the page on files has nothing on that.
    without_lease = facts.node is not None and facts.node.lost_since is not None
    alert = "WixCalendarNodeWithoutLease" if without_lease else "WixCalendarStoreFailing"
    return Scope("Store", "bad", told, MOVES[alert])


def _moment(at: datetime, facts: Facts) -> str:
    return f"{facts.wall(at):%Y-%m-%d %H:%M} UTC"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
