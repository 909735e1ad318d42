"""The whole fleet: counted, ranked, and turned over page by page."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from monitor.core.model import ConnectionState, Status
from monitor.view.index import PIECE, Entry, page
from monitor.view.wanted import Wanted, narrowed
from tests.view.scene import MINUTE, NOW, UNSEEN, WELL, facts_of, indexed, outage, site_of, state, watched

LONG_AGO = NOW - timedelta(hours=1)
STATES: list[ConnectionState] = [
    WELL,
    UNSEEN,
    state(status=Status.ERROR),
    state(status=Status.ERROR, status_since=NOW - 2 * MINUTE),
    state(status=Status.NOT_FOUND, last_success_at=LONG_AGO),
    state(status=Status.DISCONNECTED),
    state(last_success_at=LONG_AGO),
]


def test_the_worst_come_first_and_what_changed_last_before_the_older() -> None:
    those = [
        watched("well"),
        watched("unseen", UNSEEN),
        watched("stale", state(last_success_at=LONG_AGO)),
        watched("resting", state(status=Status.ERROR), maintenance_until=NOW + MINUTE),
        watched("gone", state(status=Status.DISCONNECTED)),
        watched("old", state(status=Status.ERROR)),
        watched("new", state(status=Status.NOT_FOUND, status_since=NOW - 2 * MINUTE)),
        watched("refused", ConnectionState(watched_since=NOW - MINUTE, failures_in_a_row=2)),
    ]
    found = page(indexed(facts_of(site_of(those))).runs, 50)
    told = [entry.name for entry in found.entries]
    assert told == ["new", "old", "gone", "refused", "stale", "unseen", "resting", "well"]
    assert (found.before, found.total, found.is_last) == (0, 8, True)


def test_all_is_counted_for_each_site_and_together() -> None:
    downtown = site_of([watched(f"c{n}", each) for n, each in enumerate(STATES)])
    uptown = site_of([watched("x", site="uptown", maintenance_until=NOW + MINUTE)], "uptown", state=outage())
    index = indexed(facts_of(downtown, uptown))
    tally = index.tally
    assert (tally.connections, tally.healthy, tally.unhealthy, tally.stale) == (8, 2, 4, 2)
    assert (tally.unseen, tally.maintenance) == (1, 0)
    assert tally.statuses == {"SYNCED": 3, "UNSEEN": 1, "ERROR": 2, "NOT_FOUND": 1, "DISCONNECTED": 1}
    assert (index.sites["downtown"].connections, index.sites["uptown"].connections) == (7, 1)
    assert [site.name for site in index.down] == ["uptown"]


def test_what_is_unwell_in_maintenance_counts_as_maintenance_only() -> None:
    those = [watched("a", state(status=Status.ERROR), maintenance_until=NOW + MINUTE)]
    tally = indexed(facts_of(site_of(those))).tally
    assert (tally.unhealthy, tally.stale, tally.maintenance) == (0, 0, 1)


@given(st.lists(st.sampled_from(STATES), max_size=40), st.integers(1, 7), st.integers(1, 9))
def test_pages_turned_either_way_show_each_connection_once_in_one_order(
    states: list[ConnectionState], limit: int, piece: int
) -> None:
    entries = [
        entry
        for part in indexed(
            facts_of(site_of([watched(f"c{n}", each) for n, each in enumerate(states)]))
        ).pieces
        for entry in part
    ]
    runs = [
        sorted(entries[at : at + piece], key=lambda each: each.place) for at in range(0, len(entries), piece)
    ]
    whole = sorted(entries, key=lambda each: each.place)
    forth: list[Entry] = []
    while (found := page(runs, limit, after=forth[-1].place if forth else None)).entries:
        assert (found.before, found.total) == (len(forth), len(entries))
        forth += found.entries
        assert found.is_last == (len(forth) == len(entries))
    assert forth == whole
    if whole:
        back = page(runs, limit, before=whole[-1].place)
        assert back.entries == whole[:-1][-limit:]
        assert back.before == max(len(whole) - 1 - limit, 0)


def test_a_large_fleet_is_looked_at_in_pieces() -> None:
    index = indexed(facts_of(site_of([watched(f"c{n}") for n in range(2 * PIECE + 1)])))
    assert [len(piece) for piece in index.pieces] == [PIECE, PIECE, 1]
    assert index.tally.connections == 2 * PIECE + 1


def test_who_asks_for_what_is_counted_is_shown_just_that() -> None:
    those = [watched(f"c{n}", each) for n, each in enumerate(STATES)]
    resting = [watched(f"m{n}", each, maintenance_until=NOW + MINUTE) for n, each in enumerate(STATES)]
    index = indexed(facts_of(site_of([*those, *resting])))

    def shown(wanted: Wanted) -> str:
        return " ".join(sorted(entry.name for run in index.runs for entry in narrowed(wanted, run)))

    assert shown(Wanted(healthy=False, maintenance=False)) == "c2 c3 c4 c5"
    assert shown(Wanted(stale=True, maintenance=False)) == "c4 c6"
    assert shown(Wanted(maintenance=True)) == "m1 m2 m3 m4 m5 m6"
    assert (index.tally.unhealthy, index.tally.stale, index.tally.maintenance) == (4, 2, 6)
    assert shown(Wanted(healthy=False)) == "c2 c3 c4 c5 m2 m3 m4 m5"
    assert shown(Wanted(stale=True)) == "c4 c6 m4 m6"
