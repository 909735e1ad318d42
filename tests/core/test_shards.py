"""Who owns what: one owner each, an even spread, and little that moves."""

import time
from collections import Counter
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.shards import Shard, Unit, in_agreement, owner, part_of, part_of_budget

units = st.builds(Unit, st.text(max_size=20), st.integers(0, 1000))
members = st.lists(st.text(max_size=20), min_size=1, max_size=9, unique=True)

MANY = [Unit(f"site-{number}") for number in range(10_000)]


def ordinals(total: int) -> list[str]:
    return [str(number) for number in range(total)]


def moved(before: list[str], after: list[str]) -> list[Unit]:
    return [each for each in MANY[:2000] if owner(each, before) != owner(each, after)]


@given(units, members, st.randoms())
def test_the_owner_is_a_member_whatever_their_order(unit: Unit, those: list[str], shuffler: Random) -> None:
    first = owner(unit, those)
    shuffler.shuffle(those)
    assert first in those
    assert owner(unit, those) == first


@given(st.lists(units), members, st.data())
def test_a_member_that_goes_takes_only_its_own_with_it(
    those: list[Unit], who: list[str], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(who))
    rest = [each for each in who if each != gone]
    if not rest:
        return
    before = {unit: owner(unit, who) for unit in those}
    assert [u for u, its in before.items() if its != gone and owner(u, rest) != its] == []


@given(st.lists(units), members, st.text(max_size=20))
def test_what_moves_when_a_member_comes_moves_to_it(those: list[Unit], who: list[str], new: str) -> None:
    after = {unit: owner(unit, [*who, new]) for unit in those}
    assert [u for u, its in after.items() if its not in (new, owner(u, who))] == []


@pytest.mark.parametrize("total", [2, 3, 4, 16])
def test_the_spread_is_even(total: int) -> None:
    counts = Counter(owner(unit, ordinals(total)) for unit in MANY)
    fair = len(MANY) / total
    assert sorted(counts) == sorted(ordinals(total))
    assert max(abs(count - fair) for count in counts.values()) < 4 * fair**0.5  # as chance would have it


@pytest.mark.parametrize("total", [1, 3, 15])
def test_one_more_member_gets_its_share_and_nothing_else_moves(total: int) -> None:
    those = moved(ordinals(total), ordinals(total + 1))
    assert len(those) == pytest.approx(2000 / (total + 1), rel=0.2)
    assert {owner(each, ordinals(total + 1)) for each in those} == {str(total)}


def test_the_owners_are_the_same_in_every_version() -> None:
    """Two nodes of two versions would both watch a site, or neither."""
    those = [Unit("downtown"), Unit("uptown"), Unit("uptown", 1), Unit("uptown", 2)]
    assert [owner(unit, ordinals(4)) for unit in those] == ["1", "1", "2", "0"]
    assert [owner(unit, ["node-a", "node-b"]) for unit in those] == ["node-b", "node-b", "node-a", "node-a"]
    assert [part_of(name, 4) for name in ("anna", "ben", "cleo", "dora")] == [2, 0, 3, 0]


def test_ten_thousand_units_find_their_owners_among_sixteen_in_a_fraction_of_a_second() -> None:
    began = time.process_time()
    for unit in MANY:
        owner(unit, ordinals(16))
    assert time.process_time() - began < 1


@given(units, st.integers(1, 20))
def test_of_all_shards_exactly_one_owns_a_unit(unit: Unit, total: int) -> None:
    assert sum(Shard(number, total).owns(unit) for number in range(total)) == 1


def test_a_shard_is_named_by_its_ordinal() -> None:
    assert str(Shard(2, 4)) == "shard 2 of 4"


@given(st.text(), st.integers(1, 1000))
def test_a_connection_is_in_one_of_the_parts(connection_id: str, parts: int) -> None:
    assert 0 <= part_of(connection_id, parts) < parts


def test_the_parts_of_a_site_are_alike() -> None:
    counts = Counter(part_of(f"c{number}", 8) for number in range(8000))
    assert max(abs(count - 1000) for count in counts.values()) < 4 * 1000**0.5


@given(st.integers(1, 10_000), st.data())
def test_the_shares_of_a_budget_are_the_whole_and_none_is_without(budget: int, data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, min(budget, 1000)))
    shares = [part_of_budget(budget, part, parts) for part in range(parts)]
    assert sum(shares) == budget
    assert min(shares) >= 1
    assert all(abs(share - Fraction(budget, parts)) < 1 for share in shares)


def division(**parts: int) -> frozenset[Unit]:
    return frozenset(Unit(site, number) for site, count in parts.items() for number in range(count))


def test_where_all_divide_alike_each_offer_stands() -> None:
    offers = {"a": division(large=4, small=1), "b": division(large=4), "c": frozenset[Unit]()}
    assert in_agreement(offers) == (offers, frozenset())


@pytest.mark.parametrize(
    ("counts", "chosen"),
    [((4, 1), 1), ((1, 4), 1), ((4, 4, 1), 4), ((8, 1, 8, 1, 4), 1), ((2, 3, 3, 2, 3), 3)],
)
def test_of_several_divisions_that_of_most_stands_and_of_as_many_that_of_fewest_parts(
    counts: tuple[int, ...], chosen: int
) -> None:
    offers = {n: division(large=count, small=1) for n, count in enumerate(counts)}
    agreed, disputed = in_agreement(offers)
    assert disputed == {"large"}
    assert agreed == {
        n: division(large=chosen, small=1) if count == chosen else division(small=1)
        for n, count in enumerate(counts)
    }
