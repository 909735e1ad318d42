"""Who owns what: claims, hand-overs, and what becomes of a unit whose owner loses its lease."""

import asyncio
from collections import Counter
from uuid import UUID

from monitor.cluster.heart import CONFIRMED, GRACE
from monitor.config import units
from monitor.core.model import Status
from monitor.core.shards import Unit
from tests.cluster.nodes import TTL, House, Node, names, share_of

DOWNTOWN = Unit("downtown")
SYNCED, ERROR, DISCONNECTED = Status.SYNCED, Status.ERROR, Status.DISCONNECTED


async def settled(house: House, *nodes: Node) -> None:
    """Let them divide all among themselves."""
    for node in nodes:
        await node.move()
    for step in (0.0, 0.5, 0.5, 0.5):  # and no renewal is late
        house.run(step)
        for node in nodes:
            await node.beat()
    for node in (*nodes, *nodes):
        await node.move()


# Shares


async def test_who_is_alone_owns_all_and_each_under_its_first_epoch(house: House) -> None:
    node = await house.come("a", house.settings("downtown", "uptown", "midtown"))
    assert node.owned == node.watched == {"downtown", "uptown", "midtown"}
    assert set(await house.leases()) == set(node.held.epochs)
    assert set(node.held.epochs.values()) == {1}
    assert (node.mover.owned, node.mover.unowned) == (3, 3), "none of them was owned when it looked"


async def test_two_nodes_divide_the_units_as_their_names_say(house: House) -> None:
    settings = house.settings(*names(12))
    first = await house.come("a", settings)
    second = await house.come("b", settings)
    await settled(house, first, second)
    for node in (first, second):
        assert node.held.epochs.keys() == share_of(node.name, "ab", settings)
        assert node.owned == node.watched
        assert node.mover.unowned == 0
    assert {lease.owner for lease in (await house.leases()).values()} == {
        first.heart.incarnation,
        second.heart.incarnation,
    }


async def test_a_site_with_parts_is_divided(house: House) -> None:
    settings = house.settings(large=8)
    first, second = await house.come("a", settings), await house.come("b", settings)
    await settled(house, first, second)
    for node in (first, second):
        assert node.held.epochs.keys() == share_of(node.name, "ab", settings)
    assert len(first.held.epochs) + len(second.held.epochs) == 8
    everything = {each.id for each in settings.sites[0].connections}
    assert first.polls.watched.keys() | second.polls.watched.keys() == everything
    assert not first.polls.watched.keys() & second.polls.watched.keys()


async def test_one_that_joins_gets_its_share_only_once_it_has_lived_for_a_while(house: House) -> None:
    settings = house.settings(*names(12))
    nodes = [await house.come("a", settings), await house.come("b", settings)]
    await settled(house, *nodes)
    third = await house.come("c", settings)
    for node in nodes:
        await node.move()
    assert third.owned == set()
    assert sum(len(node.owned) for node in nodes) == 12
    await settled(house, *nodes, third)
    for node in (*nodes, third):
        assert node.held.epochs.keys() == share_of(node.name, "abc", settings)
    assert third.owned


async def test_a_site_is_owned_only_by_who_has_it_in_its_configuration(house: House) -> None:
    """Though by their names all would be another's."""
    everything = house.settings(*names(12))
    of_a = share_of("a", "ab", everything)
    rest = house.settings(*(unit.site for unit in units(everything) if unit not in of_a))
    first = await house.come("a", rest)
    assert first.held.epochs.keys() == set(units(rest))
    second = await house.come("b", everything)
    assert second.held.epochs.keys() == of_a
    await settled(house, first, second)
    assert first.held.epochs == {}
    assert second.held.epochs.keys() == set(units(everything))


async def test_who_comes_and_goes_takes_nothing_that_stays(house: House) -> None:
    settings = house.settings(*names(12))
    first, second = await house.come("a", settings), await house.come("b", settings)
    await settled(house, first, second)
    kept = dict(first.held.epochs)
    await second.leave()
    await first.move()
    assert kept.items() < first.held.epochs.items()
    assert len(first.owned) == 12


# Whom something is taken from


async def test_what_was_given_up_is_claimed_at_once(house: House) -> None:
    settings = house.settings("downtown")
    first = await house.come("a", settings)
    second = await house.come("b", settings)
    await first.leave()
    await second.move()
    assert second.owned == {"downtown"}
    assert (await house.leases())[DOWNTOWN].epoch == 2


async def test_from_an_owner_whose_lock_fell_nothing_is_taken_before_it_surely_knows(house: House) -> None:
    settings = house.settings("downtown")
    first = await house.come("a", settings)
    second = await house.come("b", settings)
    await first.die()
    await second.move()
    house.run(GRACE - 0.01)
    await second.move()
    assert (second.owned, second.mover.unowned) == (set(), 1)
    house.run(0.01)
    await second.move()
    assert second.owned == {"downtown"}


async def test_a_site_that_only_a_dead_node_knew_is_unowned_until_one_of_its_name_comes(house: House) -> None:
    more, less = house.settings("downtown", "uptown"), house.settings("downtown")
    first = await house.come("a", more)
    second = await house.come("b", less)
    await first.die()
    await second.move()
    house.run(GRACE)
    await second.move()
    assert (second.owned, second.mover.unowned) == ({"downtown"}, 2)
    await second.move()
    assert second.mover.unowned == 1
    await house.come("a", less)
    await second.move()
    assert second.mover.unowned == 0


async def test_the_claim_comes_by_itself_when_the_owner_surely_knows(house: House) -> None:
    settings = house.settings("downtown")
    first = await house.come("a", settings)
    second = await house.come("b", settings)
    second.moves_by_itself()
    await first.die()
    await second.until(lambda: len(second.heart.peers) == 1)
    house.run(GRACE)
    await second.until(lambda: second.events("sites_claimed"))


async def test_an_owner_whose_lease_ended_is_not_waited_for(house: House) -> None:
    settings = house.settings("downtown")
    first = await house.come("a", settings)
    second = await house.come("b", settings)
    house.run(TTL.total_seconds())
    await first.stand_still()
    await house.shared.rows("UPDATE node SET expires_at = clock_timestamp() WHERE name = 'a' RETURNING 1")
    await second.move()
    assert second.owned == {"downtown"}


async def test_nodes_that_all_lost_the_database_for_longer_than_a_lease_come_back_with_what_they_had(
    house: House,
) -> None:
    settings = house.settings("downtown", "uptown")
    first = await house.come("a", settings)
    second = await house.node("b", settings)
    await second.join()
    async with house.shared.away():
        await first.until(lambda: first.heart.incarnation is None)
        await second.until(lambda: second.heart.incarnation is None)
        await first.stand_still()
    await house.shared.rows("UPDATE node SET expires_at = clock_timestamp() RETURNING 1")
    await second.move()
    assert second.owned == set()
    first.polls.poll("downtown-0", SYNCED)
    await first.come()
    assert first.owned == {"downtown", "uptown"}
    assert await first.ledger.flush()
    assert first.told() == [("downtown-0", "SYNCED")]
    assert not first.events("sites_lost")


async def test_a_unit_whose_last_owner_still_writes_is_not_waited_for_but_claimed_later(
    house: House,
) -> None:
    settings = house.settings("downtown", "uptown")
    first, second = await house.node("a", settings), await house.node("b", settings)
    await first.come()
    await second.come()
    await first.leave()
    writing = await house.shared.lock("lease", "site = 'downtown'", "FOR SHARE")
    await second.move()
    assert second.owned == {"uptown"}
    await writing.end()
    await second.move()
    assert second.owned == {"downtown", "uptown"}


async def test_a_node_takes_over_what_the_last_owner_knew_and_tells_what_it_had_not_told(
    house: House,
) -> None:
    settings = house.settings("downtown")
    first, second = await house.come("a", settings), await house.come("b", settings)
    first.polls.poll("downtown-0", SYNCED)
    assert await first.ledger.flush()
    first.polls.poll("downtown-0", ERROR)
    house.run(CONFIRMED + 0.05)  # it may not tell by now
    await first.stand_still()
    assert await first.ledger.flush()
    assert first.told() == [("downtown-0", "SYNCED")]
    await first.heart.stop()
    await second.move()
    assert second.told() == [("downtown-0", "ERROR")]
    assert second.polls.states["downtown-0"] == first.polls.states["downtown-0"]
    second.polls.poll("downtown-0", ERROR)
    assert await second.ledger.flush()
    assert second.told() == [("downtown-0", "ERROR")]


async def test_a_part_takes_its_answers_under_way_with_it_though_others_of_its_site_stay(
    house: House,
) -> None:
    settings = house.settings(large=8)
    first = await house.come("a", settings)
    everything = {each.id for each in settings.sites[0].connections}
    first.polls.under_way = dict.fromkeys(everything, SYNCED)
    second = await house.come("b", settings)
    await settled(house, first, second)
    gone = second.polls.watched.keys()
    assert gone
    assert first.polls.under_way.keys() == everything - gone
    assert sorted(first.told()) == sorted((each, "SYNCED") for each in gone)
    assert all(second.polls.states[each].status is SYNCED for each in gone)


# Lives


async def test_a_node_whose_session_ended_goes_on_with_its_own_as_if_nothing_had_been(house: House) -> None:
    node = await house.come("a", house.settings("downtown", "uptown"))
    node.polls.poll("downtown-0", SYNCED)
    assert await node.ledger.flush()
    node.polls.poll("downtown-0", ERROR)
    before = dict(node.polls.states)
    await node.lose_session()
    assert not node.held.epochs
    await node.move()
    assert set(node.held.epochs.values()) == {2}
    assert node.polls.states == before, "nothing was read anew"
    assert await node.ledger.flush()
    assert node.told() == [("downtown-0", "SYNCED"), ("downtown-0", "ERROR")]
    assert await house.shared.rows("SELECT to_status, epoch FROM transition ORDER BY n") == [
        ("SYNCED", 1),
        ("ERROR", 2),
    ]
    assert not node.events("sites_lost")
    assert node.heart.holds


async def test_between_two_lives_nothing_is_written_and_nothing_is_lost(house: House) -> None:
    node = await house.come("a", house.settings("downtown"))
    await node.lose_session()
    node.polls.poll("downtown-0", SYNCED)
    assert not await node.ledger.flush()
    await node.move()
    assert await node.ledger.flush()
    assert node.told() == [("downtown-0", "SYNCED")]


async def test_what_another_owned_between_two_lives_is_dropped_and_read_anew(house: House) -> None:
    settings = house.settings("downtown")
    node, other = await house.come("a", settings), await house.come("b", settings)
    node.polls.poll("downtown-0", SYNCED)
    assert await node.ledger.flush()
    assert await node.ledger.flush()  # the mark
    node.polls.poll("downtown-0", ERROR)
    async with house.shared.away():
        await node.until(lambda: node.heart.incarnation is None)
        await node.stand_still()
    await other.until(lambda: other.heart.incarnation is not None)
    await other.beat()
    other.heart.left_alone({node.memberships[-1].incarnation: False})
    house.run(GRACE)
    await other.move()
    assert other.owned == {"downtown"}
    other.polls.poll("downtown-0", DISCONNECTED)
    assert await other.ledger.flush()
    await other.leave()
    await node.come()
    assert node.owned == {"downtown"}
    assert node.polls.states["downtown-0"] == other.polls.states["downtown-0"]
    (lost,) = node.events("sites_lost")
    assert (lost["sites_first"], lost["changes_dropped"]) == (["downtown"], 1)
    assert await node.ledger.flush()
    assert node.told() == [("downtown-0", "SYNCED")]
    assert other.told() == [("downtown-0", "DISCONNECTED")]


async def test_what_is_another_ones_after_the_end_of_a_life_is_polled_no_more(house: House) -> None:
    settings = house.settings("downtown")
    node = await house.come("a", settings)
    node.polls.poll("downtown-0", SYNCED)
    await node.lose_session()
    await house.shared.take(DOWNTOWN, (await other_that_lives(house)).heart.incarnation)
    await node.move()
    assert node.owned == node.watched == set()
    assert await node.ledger.flush()
    assert node.told() == []
    assert node.heart.holds


async def other_that_lives(house: House) -> Node:
    return await house.come("other", house.settings("elsewhere"))


async def test_a_life_that_ends_before_all_is_claimed_again_costs_nothing(house: House) -> None:
    node = await house.come("a", house.settings("downtown"))
    node.polls.poll("downtown-0", SYNCED)
    for _ in range(3):
        await node.lose_session()
    await node.move()
    assert await node.ledger.flush()
    assert node.told() == [("downtown-0", "SYNCED")]
    assert not node.events("sites_lost")


async def test_a_life_that_ends_after_its_claim_and_before_its_answer_costs_nothing(house: House) -> None:
    """Another incarnation of ours owned it in between, and nobody else."""
    node = await house.come("a", house.settings("downtown"))
    node.polls.poll("downtown-0", SYNCED)
    await node.lose_session()
    me = node.heart.incarnation
    assert me is not None
    await node.share.leases.claim(me, await node.share.leases.free())
    await node.lose_session()
    await node.move()
    assert node.held.epochs == {DOWNTOWN: 3}
    assert await node.ledger.flush()
    assert node.told() == [("downtown-0", "SYNCED")]
    assert not node.events("sites_lost")


async def test_a_commit_under_way_when_the_session_ended_is_waited_for(house: House) -> None:
    """It holds the lease: who did not wait would drop what comes after it."""
    node = await house.come("a", house.settings("downtown"))
    node.polls.poll("downtown-0", SYNCED)
    writing = await house.shared.lock("lease", how="FOR SHARE")
    await node.lose_session()
    moving = asyncio.ensure_future(node.move())  # noqa: TID251  held by the test
    await writing.somebody_waits()
    held = node.heart.holds
    await writing.end()
    await moving
    assert (held, node.heart.holds) == (False, True)
    assert await node.ledger.flush()
    assert node.told() == [("downtown-0", "SYNCED")]
    assert not node.events("sites_lost")


async def test_a_session_that_ends_in_the_middle_of_a_move_ends_that_move_too(house: House) -> None:
    settings = house.settings("downtown")
    node = await house.node("a", settings)
    await node.join()
    in_the_way = await house.shared.lock("node")
    moving = asyncio.ensure_future(node.mover.move())  # noqa: TID251  held by the test
    await in_the_way.somebody_waits()
    node.session.terminate()
    await node.until(lambda: node.heart.incarnation is None)
    await in_the_way.end()
    await moving
    await node.until(lambda: node.heart.incarnation)
    assert (node.owned, node.watched) == (set(), set())
    await node.move()
    assert (node.owned, node.watched) == ({"downtown"}, {"downtown"})


# Reloads


async def test_a_reload_that_drops_a_site_releases_it(house: House) -> None:
    both = house.settings("downtown", "uptown")
    first, second = await house.come("a", both), await house.come("b", both)
    await settled(house, first, second)
    for node in (first, second):
        node.mover.take_over(house.settings("uptown"))
    await settled(house, first, second)
    assert first.owned | second.owned == first.watched | second.watched == {"uptown"}
    assert (await house.leases())[DOWNTOWN].owner is None


async def test_a_site_that_one_node_drops_goes_to_the_one_that_has_it(house: House) -> None:
    both = house.settings("downtown", "uptown")
    first = await house.come("a", both)
    first.polls.poll("downtown-0", SYNCED)
    first.mover.take_over(house.settings("uptown"))
    assert (first.watched, first.owned) == ({"uptown"}, {"downtown", "uptown"})
    second = await house.come("b", both)
    await settled(house, first, second)
    assert "downtown" in second.owned
    assert first.told() == [("downtown-0", "SYNCED")]
    assert second.polls.states["downtown-0"].status is SYNCED


async def test_a_site_that_is_dropped_and_comes_back_before_it_was_handed_over_is_polled_again(
    house: House,
) -> None:
    both, one = house.settings("downtown", "uptown"), house.settings("uptown")
    node = await house.come("a", both)
    node.polls.poll("downtown-0", SYNCED)
    state = node.polls.states["downtown-0"]
    node.mover.take_over(one)
    node.mover.take_over(both)
    await node.move()
    assert node.watched == {"downtown", "uptown"}
    assert node.held.epochs[DOWNTOWN] == 1
    assert node.polls.states["downtown-0"] == state
    assert await node.ledger.flush()
    assert node.told() == [("downtown-0", "SYNCED")]


async def test_a_site_that_is_new_is_claimed(house: House) -> None:
    node = await house.come("a", house.settings("downtown"))
    node.mover.take_over(house.settings("downtown", "uptown"))
    await node.move()
    assert node.owned == node.watched == {"downtown", "uptown"}


async def test_what_nobody_offers_or_owns_is_forgotten_after_a_day_and_begins_anew_when_it_comes_back(
    house: House,
) -> None:
    both, one = house.settings("downtown", "uptown"), house.settings("uptown")
    node = await house.come("a", both)
    node.mover.take_over(one)
    await settled(house, node)
    assert len(await house.leases()) == 2
    await house.shared.rows("UPDATE lease SET since = since - interval '2 days' RETURNING 1")
    other = await house.come("b", one)
    assert set(await house.leases()) == {Unit("uptown")}
    other.mover.take_over(both)
    await settled(house, node, other)
    assert "downtown" in other.owned


async def test_what_a_node_offers_that_is_dead_since_less_than_a_day_is_not_forgotten(house: House) -> None:
    node = await house.come("a", house.settings("downtown"))
    await node.die()
    await house.shared.rows("UPDATE lease SET since = since - interval '2 days', owner = NULL RETURNING 1")
    await house.come("b", house.settings("uptown"))
    assert DOWNTOWN in await house.leases()


# Divisions


async def test_a_site_that_two_nodes_divide_differently_is_polled_by_one_division_only(house: House) -> None:
    whole, divided = house.settings(large=1), house.settings(large=4)
    first, second = await house.come("a", whole), await house.come("b", divided)
    await settled(house, first, second)
    assert first.held.epochs.keys() == set(units(whole)), "of two that as many have, the one of fewer parts"
    assert (second.owned, second.watched) == (set(), set())
    assert (first.mover.unowned, second.mover.unowned) == (0, 0)
    third = await house.come("c", divided)
    for node in (second, third):
        await node.move()
        assert node.watched == set(), "the first may poll yet"
    await settled(house, first, second, third)
    await settled(house, first, second, third)
    assert (first.owned, first.watched) == (set(), set())
    assert second.held.epochs.keys() | third.held.epochs.keys() == set(units(divided))


async def test_a_division_that_changes_node_by_node_is_never_mixed_and_tells_each_change_once(
    house: House,
) -> None:
    settings = [house.settings(large=parts) for parts in (4, 2, 1, 3)]
    everything = {each.id for each in settings[0].sites[0].connections}
    nodes = [await house.come(name, settings[0]) for name in "abc"]
    await settled(house, *nodes)
    statuses = [ERROR, SYNCED] * 20
    for division in settings[1:]:
        for node in nodes:
            poll_all(nodes, status := statuses.pop())
            node.mover.take_over(division)
            for _ in range(2):
                await settled(house, *nodes)
                polled = Counter(each for one in nodes for each in one.polls.watched)
                assert set(polled.values()) <= {1}, "polled twice"
            assert {each for one in nodes for each in one.polls.watched} == everything
            poll_all(nodes, status)
    for node in nodes:
        await node.ledger.flush()
    told = Counter(line["connection_id"] for node in nodes for line in node.lines if "transition_id" in line)
    assert set(told.values()) == {1 + 8}, told


def poll_all(nodes: list[Node], status: Status) -> None:
    for node in nodes:
        for each in node.polls.watched:
            node.polls.poll(each, status)


async def test_a_site_is_divided_anew_once_all_of_it_is_written(house: House) -> None:
    """Until then it is polled as it was: what waits is of no other part."""
    whole, divided = house.settings(large=1), house.settings(large=4)
    node = await house.come("a", whole)
    everything = set(node.polls.watched)
    node.polls.under_way = {"large-1": ERROR}
    node.polls.poll("large-0", SYNCED)
    node.mover.take_over(divided)
    assert node.polls.watched.keys() == everything
    async with house.without("transition"):
        await node.move()
        assert node.held.epochs.keys() == set(units(whole))
        assert node.polls.watched.keys() == everything
    await node.move()
    assert node.held.epochs.keys() == set(units(divided))
    assert node.polls.watched.keys() == everything
    assert sorted(node.told()) == [("large-0", "SYNCED"), ("large-1", "ERROR")]
    assert node.polls.states["large-1"].status is ERROR


async def test_a_division_goes_back_and_forth_before_it_is_made(house: House) -> None:
    whole, divided = house.settings(large=1), house.settings(large=4)
    node = await house.come("a", whole)
    node.mover.take_over(divided)
    node.mover.take_over(whole)
    await node.move()
    assert node.held.epochs == {Unit("large"): 1}


async def test_a_division_whose_last_node_died_is_followed_once_the_others_are_calm(house: House) -> None:
    whole, divided = house.settings(large=1), house.settings(large=4)
    first, second = await house.come("a", whole), await house.come("b", divided)
    await settled(house, first, second)
    await first.die()
    await second.move()
    assert second.owned == set()
    await settled(house, second)
    assert second.held.epochs.keys() == set(units(divided))


# Failures


async def test_a_claim_whose_answer_was_lost_is_found(house: House) -> None:
    """As one does that the database made before it cut us off."""
    node = await house.node("a", house.settings("downtown"))
    await node.join()
    await node.share.leases.offer(me(node), {DOWNTOWN})
    await node.share.leases.claim(me(node), await node.share.leases.free())
    await fails(house, node)
    await node.until(lambda: node.events("sites_claimed"))
    assert node.held.epochs == {DOWNTOWN: 1}
    assert node.watched == {"downtown"}


async def test_a_release_whose_answer_was_lost_is_found(house: House) -> None:
    """What another may have by then is not polled again."""
    both = house.settings("downtown", "uptown")
    node = await house.come("a", both)
    node.mover.take_over(house.settings("uptown"))
    await node.share.leases.release(me(node), {DOWNTOWN})
    await house.shared.take(DOWNTOWN, (await other_that_lives(house)).heart.incarnation)
    await fails(house, node)
    node.mover.take_over(both)
    await node.until(lambda: node.owned == {"uptown"})
    assert node.watched == {"uptown"}


async def test_a_claim_of_ours_that_comes_true_after_we_have_looked_is_found(house: House) -> None:
    node = await house.come("a", house.settings("downtown"))
    await house.shared.rows("UPDATE lease SET epoch = epoch + 1 RETURNING 1")
    await node.move()
    assert node.held.epochs == {DOWNTOWN: 2}
    assert node.watched == {"downtown"}


async def test_what_keeps_a_node_that_lives_from_owning_is_told_once(house: House) -> None:
    node = await house.come("a", house.settings("downtown"))
    async with house.without("lease"):
        node.moves_by_itself()
        await node.until(lambda: node.events("claims_failing"))
        await node.beat()
    await node.until(lambda: node.events("claims_recovered"))
    (told,) = node.events("claims_failing")
    assert told["reason"] == 'relation "lease" does not exist'


async def test_while_the_store_fails_what_is_anothers_by_right_is_polled_on(house: House) -> None:
    settings = house.settings(*names(8))
    first = await house.come("a", settings)
    second = await house.come("b", settings)
    for site in first.watched:
        first.polls.poll(f"{site}-0", SYNCED)
    async with house.without("transition"):
        await settled(house, first, second)
        assert first.watched == set(names(8))
    await settled(house, first, second)
    assert first.watched == {unit.site for unit in share_of("a", ["a", "b"], settings)}
    assert second.watched == {unit.site for unit in share_of("b", ["a", "b"], settings)}


async def test_a_store_that_fails_during_a_hand_over_keeps_the_unit(house: House) -> None:
    both = house.settings("downtown", "uptown")
    node = await house.come("a", both)
    node.polls.poll("downtown-0", SYNCED)
    node.mover.take_over(house.settings("uptown"))
    async with house.without("transition"):
        await settled(house, node)
        assert node.owned == {"downtown", "uptown"}
        assert (await house.leases())[DOWNTOWN].owner == me(node)
    await node.move()
    assert node.owned == {"uptown"}
    assert node.told() == [("downtown-0", "SYNCED")]
    assert (await house.leases())[DOWNTOWN].owner is None


async def test_what_was_to_be_handed_over_when_the_session_ended_is_written_and_told_once(
    house: House,
) -> None:
    both = house.settings("downtown", "uptown")
    node = await house.come("a", both)
    node.polls.poll("downtown-0", SYNCED)
    assert await node.ledger.flush()
    node.polls.poll("downtown-0", ERROR)
    node.mover.take_over(house.settings("uptown"))
    await node.lose_session()
    node.mover.take_over(both)
    await node.move()
    assert node.watched == {"downtown", "uptown"}
    node.polls.poll("downtown-0", ERROR)
    assert await node.ledger.flush()
    assert node.told() == [("downtown-0", "SYNCED"), ("downtown-0", "ERROR")]


async def test_an_offer_that_fails_is_made_again(house: House) -> None:
    node = await house.come("a", house.settings("downtown"))
    node.mover.take_over(house.settings("downtown", "uptown"))
    await fails(house, node)
    await node.until(lambda: node.owned == {"downtown", "uptown"})


def me(node: Node) -> UUID:
    assert node.heart.incarnation is not None
    return node.heart.incarnation


async def fails(house: House, node: Node) -> None:
    """Let it move by itself, and the database refuse a statement first."""
    async with house.without("lease"):
        node.moves_by_itself()
        node.heart.on_news()
        await node.until(lambda: node.mover._unsure)
    node.heart.on_news()


# The end


async def test_who_leaves_gives_up_everything_at_once(house: House) -> None:
    settings = house.settings(*names(6))
    first, second = await house.come("a", settings), await house.come("b", settings)
    first.polls.poll("site-0-0", SYNCED)
    second.moves_by_itself()
    await first.leave()
    assert {lease.owner for lease in (await house.leases()).values()} <= {None, second.heart.incarnation}
    await second.until(lambda: len(second.owned) == 6)
    assert second.polls.states["site-0-0"].status is SYNCED
    assert first.told() == [("site-0-0", "SYNCED")]
    assert second.told() == []
