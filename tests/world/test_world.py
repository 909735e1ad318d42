"""The proof in virtual time: whole worlds are played, and a judge holds every step against the promises.

The stories are worlds that matter by themselves; the last of them runs for days. Beside them hypothesis draws
worlds of its own; `python -m tests.world.search` does so for as long as one likes. A world that broke a
promise is told whole: it is pasted into a test as it stands.
"""

import random
from typing import Final, get_args

import pytest
from hypothesis import given, settings

from tests.world.draw import worlds
from tests.world.judge import Judge
from tests.world.play import play
from tests.world.script import Change, Fault, Kind, On, Pause, Rotation, SiteScript, Step, World

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR


@settings(max_examples=50, derandomize=True)  # a new world is for the search, not for whoever comes next
@given(worlds())
def test_no_world_breaks_a_promise(world: World) -> None:
    play(world)


def shown(judge: Judge, site: int, number: int) -> tuple[str, str | None] | None:
    return judge.sites[site].connections[f"c-{site}-{number}"].known


def asked(judge: Judge, site: int, start: float, end: float) -> int:
    return sum(each.site == site and start <= each.at < end for each in judge.requests)


def token_requests(judge: Judge) -> list[float]:
    return [each.at for each in judge.requests if each.connection is None]


def test_a_token_revoked_at_the_site_costs_one_renewal_and_no_poll() -> None:
    revoked = Fault(1000, 2 * HOUR, "revoked")
    judge = play(World(2 * HOUR, (SiteScript(connections=12, token_life=4 * HOUR, faults=(revoked,)),)))
    first, second = token_requests(judge)
    assert first < 5
    assert 1000 <= second < 1005.5
    assert judge.events("connection_polls_failing") == judge.events("site_down") == []
    assert judge.polls == pytest.approx(12 * 120, abs=1)


def test_an_app_that_was_removed_from_the_site_is_tried_now_and_then_with_a_new_token() -> None:
    gone = (Fault(1000, 4 * HOUR, "revoked"), Fault(1000, 4 * HOUR, "rejected", on="tokens"))
    judge = play(World(6 * HOUR, (SiteScript(connections=12, token_life=4 * HOUR, faults=gone),)))
    (down,), (up,) = judge.events("site_down"), judge.events("site_up")
    assert 1000 <= down[0] < 1006
    assert 1000 + 4 * HOUR <= up[0] < 1000 + 4 * HOUR + 361
    trials = [at for at in token_requests(judge) if down[0] < at < up[0] - 1]
    assert len(trials) == pytest.approx(4 * HOUR / 300, rel=0.15), "a token is all a trial asks for"
    assert asked(judge, 0, down[0] + 1, 1000 + 4 * HOUR) == len(trials)


def test_wix_is_down_for_a_day_and_nothing_is_forgotten() -> None:
    kinds: tuple[Kind, ...] = ("server_error", "hangs", "refused", "tls", "gateway")
    outage = tuple(Fault(2 * HOUR + 4.8 * HOUR * n, 4.8 * HOUR, kind, "all") for n, kind in enumerate(kinds))
    changes = (Change(600, 0, "ERROR", "TOKEN_REVOKED"), Change(5 * HOUR, 1, "DISCONNECTED"))
    key = SiteScript(connections=4, interval=120, faults=outage, changes=changes)
    token = SiteScript(connections=4, interval=120, token_life=4 * HOUR, faults=outage, changes=changes)
    judge = play(World(28 * HOUR, (key, token)))
    for site in (0, 1):
        assert shown(judge, site, 0) == ("ERROR", "TOKEN_REVOKED")
        assert shown(judge, site, 1) == ("DISCONNECTED", None)
        assert asked(judge, site, 2.5 * HOUR, 26 * HOUR) < 2 * 23.5 * HOUR / (0.8 * 300)
        assert asked(judge, site, 26.5 * HOUR, 27.5 * HOUR) == pytest.approx(4 * 30, abs=2)
    assert len(judge.events("site_up")) == 2
    late = [line for _, line in judge.events("connection_transition") if line["to_status"] == "DISCONNECTED"]
    assert [line["observed_late"] for line in late] == [True, True]


@pytest.mark.parametrize(
    ("on", "wait", "seconds"),
    [
        ("polls", "", 60),
        ("polls", "0", 1),
        ("polls", "30", 30),
        ("all", "+90", 89),
        ("all", "-60", 1),
        ("polls", "99999999", 3600),
        ("tokens", "soon", 60),
    ],
)
def test_a_storm_of_429s_is_sat_out(on: On, wait: str, seconds: float) -> None:
    storm = Fault(600, 1800, "limited", on, wait=wait)
    site = SiteScript(connections=10, interval=30, token_life=900, faults=(storm,))
    judge = play(World(6000, (site, SiteScript(connections=2))))
    (_, told), lifted = judge.events("rate_limited")[0], judge.events("rate_limit_lifted")
    assert told["wait_seconds"] == pytest.approx(seconds, abs=1)
    assert len(judge.events("rate_limited")) == len(lifted) == 1
    assert judge.events("site_down") == judge.events("connection_polls_failing") == []
    if seconds > 1 and on != "tokens":
        assert asked(judge, 0, 601, 2400) <= 1800 / seconds + 1
    assert asked(judge, 0, 5000, 6000) == pytest.approx(333, abs=4)


def test_a_site_that_hangs_holds_up_none_of_those_that_share_its_slots() -> None:
    hung = SiteScript(connections=30, interval=30, breaker=100, faults=(Fault(300, 1200, "hangs"),))
    good = SiteScript(connections=8, interval=10)
    judge = play(World(2400, (hung, good, good, good), max_in_flight=16))
    for site in (1, 2, 3):
        assert asked(judge, site, 400, 1400) == pytest.approx(8 * 100, abs=8)
        assert judge.sites[site].late < 0, "not one of their polls was a second late"
    assert {line["site"] for _, line in judge.events("site_down")} == {"site-0"}


@pytest.mark.parametrize("seconds", [-HOUR, HOUR, -3 * DAY])
def test_a_clock_that_is_set_in_an_outage_changes_no_instant(seconds: float) -> None:
    outage = Fault(600, 1800, "server_error")
    site = SiteScript(connections=6, interval=60, token_life=HOUR, faults=(outage,))
    plain = play(World(HOUR, (site,)))
    stepped = play(World(HOUR, (site,), steps=(Step(1200, seconds), Step(1500, -seconds / 2))))
    assert stepped.requests == plain.requests
    (_, up), (_, other) = stepped.events("site_up")[0], plain.events("site_up")[0]
    assert up["duration_seconds"] == other["duration_seconds"]


def test_a_date_to_wait_for_is_read_by_the_clock_as_it_stands() -> None:
    limited = Fault(600, 60, "limited", wait="+120")
    site = SiteScript(connections=6, faults=(limited,))
    judge = play(World(1800, (site,), steps=(Step(300, -HOUR),)))
    assert asked(judge, 0, 611, 718) == 0
    assert asked(judge, 0, 731, 791) == 6


@pytest.mark.parametrize("later", [0.0, 400.0])
@pytest.mark.parametrize("token_life", [None, 900.0])
def test_a_secret_that_is_rotated_is_taken_up_as_soon_as_it_is_in_its_file(
    later: float, token_life: float | None
) -> None:
    site = SiteScript(connections=6, breaker=3, token_life=token_life, rotations=(Rotation(700, later),))
    judge = play(World(HOUR, (site,)))
    up = [at for at, _ in judge.events("site_up")]
    assert len(up) == len(judge.events("site_down")) == (later > 0), "a token is renewed after 810 s"
    assert all(700 + later <= at < 700 + later + 7 for at in up), "a tick of 5 s, a token and a poll"
    assert len(judge.events("secret_replaced")) == 1
    assert asked(judge, 0, 2000, 3000) == pytest.approx(100, abs=2 if token_life is None else 5)


def test_a_secret_rotated_while_a_token_waits_for_the_budget_is_the_one_that_is_sent() -> None:
    refused, rotated = Fault(69, 45, "unauthorized"), Rotation(69, 45)
    site = SiteScript(1, budget=1, breaker=1, token_life=4 * HOUR, faults=(refused,), rotations=(rotated,))
    judge = play(World(600, (site,)))
    _, second = token_requests(judge)
    assert second > 114 + 55, "the 401 came just before, and nothing else may be sent in its minute"
    assert judge.events("site_down") == []


def test_a_secret_rotated_while_a_token_is_on_its_way_is_tried_before_the_site_counts_as_down() -> None:
    slow = Fault(0, 70, "slow", on="tokens", delay=25.0)
    site = SiteScript(1, token_life=4 * HOUR, faults=(slow,), rotations=(Rotation(60),))
    judge = play(World(600, (site,), timeout=30.0))
    first, second = token_requests(judge)
    assert first < 60 < second < first + 26
    assert judge.events("site_down") == []


def test_a_machine_that_slept_through_the_night_goes_on_in_phase() -> None:
    site = SiteScript(connections=6, token_life=4 * HOUR)
    judge = play(World(2 * HOUR, (site, site), pauses=(Pause(HOUR, 9 * HOUR, asleep=True),)))
    for index in (0, 1):
        assert asked(judge, index, 10.2 * HOUR, 10.7 * HOUR) == pytest.approx(6 * 30, abs=1)
    assert judge.events("site_down") == []


def days(count: int, seed: int) -> World:
    """A few sites and many little troubles, and one dead connection."""
    chance = random.Random(seed)
    kinds = sorted(set(get_args(Kind)) - {"absent", "hangs"})

    def fault() -> Fault:
        kind = chance.choice([*kinds, "hangs"])
        start, length = chance.uniform(0, (count - 0.5) * DAY), chance.choice([5.0, 60.0, 600.0, 3 * HOUR])
        only = chance.choice([None, 0, 1])
        places: list[On] = ["polls", "tokens", "all"]
        on: On = "all" if kind == "limited" else chance.choice(places)
        return Fault(
            start, length, kind, on, only, chance.choice(["", "20", "+100"]), chance.choice([2.0, 20.0])
        )

    def change(connections: int) -> Change:
        status = chance.choice(["SYNCED", "SYNC_IN_PROGRESS", "DISCONNECTED", "NOT_FOUND", "CONNECTED"])
        return Change(chance.uniform(0, count * DAY), chance.randrange(1, connections), status)

    def site(connections: int, interval: float, token_life: float | None) -> SiteScript:
        return SiteScript(
            connections,
            interval,
            unsettled=100,
            token_life=token_life,
            dead_every=3,
            faults=tuple(fault() for _ in range(25)),
            changes=(Change(HOUR, 0, "NOT_FOUND"), *(change(connections) for _ in range(40))),
            rotations=(Rotation(chance.uniform(0, DAY), 120),),
        )

    return World(
        count * DAY,
        (site(4, 120, 4 * HOUR), site(4, 300, None), site(12, 600, 900)),
        max_in_flight=8,
        late=0.9,
        seed=seed,
        pauses=tuple(Pause(chance.uniform(0, count * DAY), 40, chance.random() < 0.5) for _ in range(3)),
        steps=tuple(Step(chance.uniform(0, count * DAY), chance.choice([-HOUR, 90, HOUR])) for _ in range(4)),
    )


def test_days_of_many_little_troubles_break_no_promise() -> None:
    judge = play(days(3, 7))
    assert judge.polls > 12_000
    assert len(judge.events("connection_transition")) > 50
    assert len(judge.events("site_up")) > 5
    dead = [each for each in judge.requests if each.connection == "c-0-0" and each.at > 2.2 * DAY]
    assert len(dead) == pytest.approx(0.8 * DAY / 360, rel=0.2), "long dead: each third interval"


def test_a_poll_that_takes_the_slot_of_one_that_failed_goes_by_that_failure() -> None:
    hung = SiteScript(interval=5.0, breaker=2, confirmations=1, faults=(Fault(0, 45.0, "hangs"),))
    lone = SiteScript(connections=1, breaker=1, confirmations=1)
    assert play(World(600, (hung, lone, lone, lone), max_in_flight=2)).polls > 0


def test_a_token_that_comes_again_does_not_make_its_site_one_that_answers() -> None:
    token = Fault(0, 45, "server_error", on="tokens")
    tried = SiteScript(connections=1, interval=20, breaker=1, token_life=14_400, faults=(token,))
    failing = SiteScript(connections=2, faults=(Fault(0, 10, "server_error"),))
    judge = play(World(600, (tried, failing), max_in_flight=4, pauses=(Pause(17, 200),)))
    assert judge.polls > 0
