"""What a shard has of a configuration, and what it still checks of the others'."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from monitor.config import Loaded, Settings, difference, load, load_each, share, units
from monitor.core.plan import interval_in_force
from monitor.core.shards import Shard, Unit, part_of, part_of_budget
from monitor.errors import ConfigError

Write = Callable[..., Path]
ENVIRON = {"KEY": "key"}
NAMES = [f"site-{number}" for number in range(30)]


def site(name: str, count: int = 2, **keys: object) -> dict[str, object]:
    return {
        "name": name,
        "credential": {"api_key_env": "KEY", "site_id": name},
        "connections": [{"id": f"{name}-{number}"} for number in range(count)],
        **keys,
    }


@pytest.fixture
def config(write: Write) -> Callable[..., Path]:
    """Writes a configuration of these sites."""
    return lambda *sites, **keys: write(json.dumps({**keys, "sites": sites}))


@pytest.fixture
def fleet(config: Callable[..., Path]) -> Path:
    """Thirty sites, and one of four parts."""
    return config(*map(site, NAMES), site("large", 100, parts=4, requests_per_minute=150))


def read(path: Path, shard: Shard | None = None) -> Loaded:
    return load(path, environ=ENVIRON, shard=shard)


def ids(settings: Settings) -> list[str]:
    return [each.id for its in settings.sites for each in its.connections]


def named(settings: Settings) -> list[str]:
    return [its.name for its in settings.sites]


def test_the_units_are_the_sites_and_the_parts_of_those_that_have_some(fleet: Path) -> None:
    large = [Unit("large", part) for part in range(4)]
    assert units(read(fleet).settings) == [*map(Unit, NAMES), *large]


def test_the_shares_are_together_everything_and_nothing_twice(fleet: Path) -> None:
    whole = read(fleet).settings
    shares = [read(fleet, Shard(number, 3)).settings for number in range(3)]
    assert sorted(unit for each in shares for unit in units(each)) == sorted(units(whole))
    assert sorted(i for each in shares for i in ids(each)) == sorted(ids(whole))
    budgets = [its.requests_per_minute for each in shares for its in each.sites if its.name == "large"]
    assert sum(budgets) == 150
    assert all(0 < len(each.sites) < 31 for each in shares)


def test_a_site_that_is_whole_is_the_very_same_object(fleet: Path) -> None:
    whole = read(fleet).settings
    mine = share(whole, [Unit("site-7"), Unit("site-3"), *(Unit("large", part) for part in range(4))])
    assert named(mine) == ["site-3", "site-7", "large"]
    assert [its is whole.sites[n] for its, n in zip(mine.sites, (3, 7, 30), strict=True)] == [True] * 3
    assert share(whole, lambda _: True) == whole


def test_a_process_with_some_parts_of_a_site_has_their_connections_budgets_and_slots(fleet: Path) -> None:
    whole = read(fleet).settings
    (large,) = share(whole, {Unit("large", 3), Unit("large", 1)}).sites
    assert [each.id for each in large.connections] == [
        f"large-{n}" for part in (1, 3) for n in range(100) if part_of(f"large-{n}", 4) == part
    ]
    assert large.requests_per_minute == sum(part_of_budget(150, part, 4) for part in (1, 3)) == 75
    assert (whole.sites[-1].slots, large.slots, whole.sites[0].slots) == (32, 16, 8)
    assert share(share(whole, {Unit("large", 3), Unit("large", 1)}), [Unit("large", 1)]) == share(
        whole, [Unit("large", 1)]
    )


def test_parts_that_move_change_the_site_and_nothing_about_its_connections(fleet: Path) -> None:
    whole = read(fleet).settings
    before = share(whole, [Unit("large", 0)])
    made = difference(before, share(whole, [Unit("large", 0), Unit("large", 1)]))
    assert (made.sites_changed.first, made.removed.count, made.changed.count) == (("large",), 0, 0)
    assert made.added.count == sum(part_of(each, 4) == 1 for each in ids(share(whole, [*units(whole)][-4:])))


def test_the_interval_in_force_is_the_longest_that_a_part_needs(config: Callable[..., Path]) -> None:
    path = config(site("large", 45, parts=3, interval="20s", requests_per_minute=150))
    counts = [sum(part_of(f"large-{n}", 3) == part for n in range(45)) for part in range(3)]
    longest = max(interval_in_force(count, 50, timedelta(seconds=20)) for count in counts)
    assert timedelta(seconds=20) < longest
    for shard in (Shard(), Shard(0, 2), Shard(1, 2)):
        for its in read(path, shard).settings.sites:
            assert its.interval_in_force == longest == its.connections[0].policy.interval


def test_what_fits_no_single_process_fits_its_shards(config: Callable[..., Path]) -> None:
    path = config(*(site(name, 20, interval="10s") for name in NAMES), api={"max_in_flight": 10})
    with pytest.raises(ConfigError, match="10 are too few: the plan needs 18 at 300 ms an answer"):
        read(path, Shard())
    assert sum(len(ids(read(path, Shard(n, 3)).settings)) for n in range(3)) == 600
    assert len(ids(read(path).settings)) == 600


SHARED = {"url": "postgresql:///s?host=/run/postgresql"}


def test_each_node_over_a_postgresql_has_it_all_whatever_one_process_could_carry(
    config: Callable[..., Path],
) -> None:
    sites = [site(name, 20, interval="10s") for name in NAMES]
    loaded = read(config(*sites, api={"max_in_flight": 10}, store=SHARED), Shard())
    config(*sites, site("new"), api={"max_in_flight": 10}, store=SHARED)
    for each, count in ((loaded, 600), (loaded.again(), 602)):
        assert (each.shard, len(ids(each.settings))) == (None, count)


def test_nodes_over_a_postgresql_divide_the_sites_themselves_and_are_no_shards(
    config: Callable[..., Path],
) -> None:
    path = config(*map(site, NAMES), store=SHARED)
    with pytest.raises(ConfigError) as refused:
        load_each(path, 3, environ=ENVIRON)
    (problem,) = refused.value.problems
    told = "is PostgreSQL's, whose nodes divide the sites among themselves"
    assert (problem.path, problem.message) == ("store.url", f"{told}; leave out --shard and --total-shards")


def test_a_shard_that_does_not_fit_is_named(config: Callable[..., Path]) -> None:
    path = config(*(site(name, 20, interval="10s") for name in NAMES), api={"max_in_flight": 7})
    with pytest.raises(ConfigError) as refused:
        load_each(path, 2, environ=ENVIRON)
    told = [
        (f"shard {n} of 2 needs {needs}", f"write {needs} or more, longer intervals, or run more shards")
        for n, needs in ((0, 10), (1, 9))
    ]
    assert [problem.message for problem in refused.value.problems] == [
        f"7 are too few: the plan of {who} at 300 ms an answer; {mend}" for who, mend in told
    ]


def test_lists_that_grow_stretch_only_the_shard_that_they_crowd(
    config: Callable[..., Path], write: Write
) -> None:
    for name in NAMES:
        write(json.dumps([{"id": f"{name}-file-{n}"} for n in range(20)]), f"{name}.json")
    path = config(
        *(site(name, 0, interval="10s", connection_files=[f"{name}.json"]) for name in NAMES),
        api={"max_in_flight": 9},
    )
    alone = {its.interval_in_force for its in read(path, Shard()).settings.sites}
    shares = [read(path, Shard(n, 3)).settings for n in range(3)]
    assert alone == {timedelta(seconds=20)}
    assert {its.interval_in_force for each in shares for its in each.sites} == {timedelta(seconds=10)}


@pytest.mark.parametrize("ordinal", range(3))
def test_every_shard_refuses_what_is_wrong_with_any_site(config: Callable[..., Path], ordinal: int) -> None:
    path = config(*map(site, NAMES), site("site-3"))
    with pytest.raises(ConfigError) as refused:
        read(path, Shard(ordinal, 3))
    assert [each.path for each in refused.value.problems if each.severity == "error"] == [
        "sites[30].name",
        "sites[30].credential",
    ]


def test_a_shard_asks_for_the_lists_of_its_own_feeds_only(config: Callable[..., Path]) -> None:
    feed = [{"url": "http://127.0.0.1:1/list"}]
    path = config(*(site(name, connection_feeds=feed) for name in NAMES))
    shares = [read(path, Shard(number, 3)) for number in range(3)]
    assert [len(each.warnings) for each in shares] == [len(each.settings.sites) for each in shares]
    folders = {f.copy.parent.name for each in shares for its in each.settings.sites for f in its.feeds}
    assert folders == {"feeds-0", "feeds-1", "feeds-2"}


def test_a_shard_that_reads_again_is_the_same_shard_and_keeps_what_is_the_same(
    config: Callable[..., Path], fleet: Path
) -> None:
    first = read(fleet, Shard(1, 3))
    config(*map(site, NAMES), site("new"), site("large", 100, parts=4, requests_per_minute=150))
    again = first.again()
    before = {its.name: its for its in first.settings.sites}
    assert again.shard == Shard(1, 3)
    assert {name for name in named(again.settings) if name != "new"} == before.keys()
    assert all(its is before[its.name] for its in again.settings.sites if its.name.startswith("site-"))
    assert again.settings.sites[-1] == first.settings.sites[-1]


def test_a_shard_may_have_nothing(config: Callable[..., Path]) -> None:
    shares = [read(config(site("only")), Shard(number, 3)).settings for number in range(3)]
    assert sorted(len(each.sites) for each in shares) == [0, 0, 1]


def test_a_store_may_be_named_by_the_shard_however_that_was_given(config: Callable[..., Path]) -> None:
    url = "sqlite:////s/${WIX_CALENDAR_MONITOR_SHARD}-${WIX_CALENDAR_MONITOR_TOTAL_SHARDS}.db"
    path = config(site("only"), store={"url": url})
    names = [read(path, shard).settings.store.path.name for shard in (Shard(2, 3), Shard(), None)]
    assert names == ["2-3.db", "0-1.db", "0-1.db"]
    environ = {**ENVIRON, "WIX_CALENDAR_MONITOR_SHARD": "1"}
    assert load(path, environ=environ, shard=None).settings.store.path.name == "1-1.db"


def test_ten_thousand_sites_are_shared_out_in_milliseconds(config: Callable[..., Path]) -> None:
    (its,) = read(config(site("one"))).settings.sites
    sites = tuple(replace(its, name=f"site-{number}") for number in range(10_000))
    whole = replace(read(config(site("one"))).settings, sites=sites)
    mine = frozenset(units(whole)[::2])
    began = time.process_time()
    assert len(share(whole, mine).sites) == 5000
    assert time.process_time() - began < 0.1
