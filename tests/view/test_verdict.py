"""Calendars, a site, or our own blindness: the sentence that is read first."""

from dataclasses import replace
from datetime import timedelta

import pytest

from monitor.core.model import FailureReason, Status
from monitor.core.site import SiteState
from monitor.view.facts import NodeFacts, SiteFacts
from monitor.view.moves import MOVES
from monitor.view.verdict import judge, spoken
from tests.view.scene import (
    BLIND,
    FAILING,
    NODE,
    NOW,
    UNSEEN,
    facts_of,
    indexed,
    outage,
    site_of,
    state,
    watched,
)

STALE = state(last_success_at=NOW - timedelta(hours=1))
BROKEN = state(status=Status.ERROR)


def site(name: str, *states: object, known: SiteState | None = None) -> SiteFacts:
    those = [watched(f"c{n}", each, name) for n, each in enumerate(states) if isinstance(each, type(UNSEEN))]
    return site_of(those, name, state=known or SiteState(answered=True))


def headline(*sites: SiteFacts) -> tuple[str, str, str, str | None]:
    head = judge(indexed(facts_of(*sites))).headline
    return head.name, head.state, head.told, None if head.move is None else head.move.alert


@pytest.mark.parametrize(
    ("sites", "told"),
    [
        ([], ("Calendars", "well", "No calendar is watched", None)),
        ([site("a", state(), state())], ("Calendars", "well", "2 of 2 well", None)),
        ([site("a", UNSEEN)], ("Calendars", "unknown", "Nothing is known yet", None)),
        (
            [site("a", state(), BROKEN)],
            ("Calendars", "bad", "1 calendar of 2 broken: a/c1", "WixCalendarError"),
        ),
        (
            [site("a", BROKEN, BROKEN), site("b", state())],
            ("Calendars", "bad", "2 calendars of 3 broken, at 1 site", None),
        ),
        (
            [site("a", state(), state(), STALE)],
            ("Our sight", "unknown", "1 calendar stale: not known now", None),
        ),
        (
            [site("a", STALE, known=outage()), site("b", state(), state()), site("c", BROKEN)],
            ("Sites", "bad", "1 of 3 sites down: a", "WixCalendarSiteUnreachable"),
        ),
        (
            [site("a", state(), known=SiteState(limited_since=NOW))],
            ("Sites", "unknown", "Told to wait: a", "WixCalendarRateLimited"),
        ),
        (
            [site("a", STALE, known=outage()), site("b", state(), known=outage()), site("c", state())],
            ("Our sight", "bad", "Most sites cannot be asked", "WixUnreachable"),
        ),
        (
            [site("a", STALE, STALE, state())],
            ("Our sight", "bad", "Blind: 2 of 3 stale", None),
        ),
        (
            [site("a", STALE, known=outage(FailureReason.FORBIDDEN))],
            ("Our sight", "bad", "Blind: 1 of 1 stale", "WixCalendarCredentialRefused"),
        ),
    ],
)
def test_the_widest_cause_is_told_first(
    sites: list[SiteFacts], told: tuple[str, str, str, str | None]
) -> None:
    assert headline(*sites) == told


def test_a_store_that_fails_is_told_beside_all_else_and_first_where_nothing_else_is_bad() -> None:
    held = "1,234 of at most 50,000 changes held in memory"
    told = f"Store failing since 2026-03-01 11:13 UTC: polling goes on, {held}"
    for sites, first in (([site("a", state())], told), ([site("a", BROKEN)], "1 calendar of 1 broken: a/c0")):
        verdict = judge(indexed(facts_of(*sites, store=FAILING)))
        assert verdict.headline.told == first
        assert [(each.name, each.told) for each in verdict.scopes if each.name == "Store"] == [
            ("Store", told)
        ]
    assert [each.name for each in judge(indexed(facts_of())).scopes] == ["Calendars", "Sites", "Our sight"]


def test_a_node_that_may_not_poll_calls_nothing_well() -> None:
    told = "This node may not poll since 2026-03-01 11:13 UTC: it has no lease of PostgreSQL at "
    for sites, calendars in (
        ([site("a", state(), state())], ("unknown", "2 of 2 were well when we could last ask")),
        ([site("a", state(), BROKEN)], ("bad", "1 calendar of 2 broken: a/c1")),
        ([site("a", UNSEEN)], ("unknown", "Nothing is known yet")),
        ([], ("unknown", "Nothing is known now")),
    ):
        verdict = judge(indexed(facts_of(*sites, node=BLIND)))
        assert verdict.headline.told == f"{told}{BLIND.place}"
        assert (verdict.calendars.state, verdict.calendars.told) == calendars
        assert verdict.sites.state == "unknown"
        assert verdict.headline.move is MOVES["WixCalendarNodeWithoutLease"]


def test_a_node_that_polls_without_its_lease_or_with_it_says_what_it_sees() -> None:
    for node in (NODE, replace(BLIND, stops=False)):
        assert judge(indexed(facts_of(site("a", state()), node=node))).headline.told == "1 of 1 well"


def test_a_store_that_fails_where_nobody_polls_does_not_say_that_polling_goes_on() -> None:
    verdict = judge(indexed(facts_of(site("a", state()), store=FAILING, node=BLIND)))
    assert "UTC: this node does not poll, 1,234 of" in verdict.store.told


@pytest.mark.parametrize(
    ("node", "alert"),
    [
        (None, "WixCalendarStoreFailing"),
        (NODE, "WixCalendarStoreFailing"),
        (BLIND, "WixCalendarNodeWithoutLease"),
        (replace(BLIND, stops=False), "WixCalendarNodeWithoutLease"),
    ],
)
def test_a_store_that_fails_without_the_lease_leads_to_the_page_of_nodes(
    node: NodeFacts | None, alert: str
) -> None:
    verdict = judge(indexed(facts_of(site("a", state()), store=FAILING, node=node)))
    assert verdict.store.move is MOVES[alert]


def test_a_name_within_a_sentence_neither_turns_it_round_nor_fills_it() -> None:
    assert spoken("downtown/\u202egnp.exe\u2069") == "downtown/gnp.exe"
    assert spoken("downtown/" + "x" * 200) == f"downtown/{'x' * 50}…"


def test_of_many_sites_a_few_are_named_shortly_and_the_others_counted() -> None:
    down = [site(f"{n}{'x' * 199}", STALE, known=outage()) for n in range(5)]
    waiting = [site(f"w{n}", state(), known=SiteState(limited_since=NOW)) for n in range(4)]
    well = [site(f"s{n}", state()) for n in range(6)]
    names = ", ".join(f"{n}{'x' * 58}…" for n in range(3))
    assert headline(*down, *well)[2] == f"5 of 11 sites down: {names} and 2 more"
    assert headline(*waiting, *well)[2] == "Told to wait: w0, w1, w2 and 1 more"
