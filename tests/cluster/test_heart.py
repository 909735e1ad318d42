"""A node's life: whether its lease is known to hold, what waits for that, and how lives end and begin."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from monitor.cluster.heart import CONFIRMED, GRACE, HEARTBEAT
from monitor.errors import WithheldError
from monitor.store.postgresql.leases import NameTakenError
from tests.cluster.nodes import TTL, House, Node

SHORT = timedelta(seconds=2)
EPSILON = 0.001


@pytest.fixture
async def node(house: House) -> Node:
    """It has joined, and what it watches is its own."""
    node = await house.node("a", house.settings("downtown"))
    await node.join()
    node.heart.settle()
    return node


async def waits(work: Awaitable[None]) -> "asyncio.Task[None]":
    """It runs, and has not ended after some turns of the loop."""
    task = asyncio.ensure_future(work)  # noqa: TID251  held by the test
    await asyncio.sleep(0)
    assert not task.done()
    return task


def holds(node: Node) -> bool:
    """Whether Wix may be asked now."""
    return node.heart.holds


def test_a_node_stops_asking_before_another_may_begin() -> None:
    assert CONFIRMED < GRACE < TTL.total_seconds()


async def test_who_has_not_joined_holds_nothing(house: House) -> None:
    heart = (await house.node("a", house.settings("downtown"))).heart
    assert (heart.holds, heart.incarnation) == (False, None)
    with pytest.raises(WithheldError):
        await heart.renewed()


async def test_who_renewed_holds_once_what_it_watches_is_its_own(house: House) -> None:
    node = await house.node("a", house.settings("downtown"))
    await node.join()
    assert not holds(node)
    node.heart.settle()
    assert holds(node)


async def test_what_it_holds_ends_a_moment_after_the_last_renewal_was_sent(house: House, node: Node) -> None:
    await node.beat()
    await node.stand_still()
    house.run(CONFIRMED - EPSILON)
    assert holds(node)
    house.run(EPSILON)
    assert not holds(node)


async def test_the_time_that_a_renewal_takes_counts_as_past(house: House, node: Node) -> None:
    """Others may have seen our lock fall while the answer was on its way."""
    await node.stand_still()
    house.run(CONFIRMED)
    locked = await house.shared.lock("node")
    node.go_on()
    waiting = await waits(node.heart.renewed())
    await locked.somebody_waits()
    house.run(CONFIRMED - EPSILON)
    await locked.end()
    await waiting
    assert holds(node)
    house.run(EPSILON)
    assert not holds(node)


async def test_a_request_waits_for_the_next_renewal(house: House, node: Node) -> None:
    house.run(CONFIRMED)
    beats = node.beats
    await node.heart.renewed()
    assert holds(node)
    assert node.beats > beats


async def test_many_requests_wait_for_the_same_renewal_and_one_that_is_given_up_disturbs_no_other(
    house: House, node: Node
) -> None:
    await node.stand_still()
    house.run(CONFIRMED)
    first, second, third = [await waits(node.heart.renewed()) for _ in range(3)]
    await cancelled(first)
    node.go_on()
    await asyncio.gather(second, third)


async def test_a_request_is_withheld_once_the_lease_is_lost(house: House, node: Node) -> None:
    await node.stand_still()
    house.run(CONFIRMED)
    waiting = await waits(node.heart.renewed())
    node.session.terminate()
    with pytest.raises(WithheldError):
        await waiting
    assert node.heart.incarnation is None


async def test_who_waits_before_all_is_claimed_makes_the_heart_beat_no_faster(house: House) -> None:
    """A claim of very much takes its time, and the database has enough to do."""
    node = await house.node("a", house.settings("downtown"))
    await node.join()
    waiting = await waits(node.heart.renewed())
    beats = node.beats
    await node.until(lambda: node.beats > beats)
    await asyncio.sleep(0)  # who waited looks again, and waits on
    began = asyncio.get_running_loop().time()
    await node.until(lambda: node.beats > beats + 1)
    assert asyncio.get_running_loop().time() - began > 0.2
    node.heart.settle()
    await waiting


# Names


async def test_who_takes_another_ones_name_waits_as_long_as_a_lease_lives_and_is_refused(
    house: House, node: Node
) -> None:
    twin = await house.node("a", house.settings("downtown"))
    joining = await waits(twin.heart.start())
    await twin.until(lambda: len(twin.tries) == 2)
    house.run(TTL.total_seconds() + 1)
    with pytest.raises(NameTakenError, match=r"called 'a'; give each node a --node\.name of its own"):
        await joining
    await node.beat()
    assert node.heart.incarnation is not None


async def test_who_finds_its_name_taken_between_two_lives_tells_it_and_ends(house: House, node: Node) -> None:
    """Two processes with one name: the other would be fenced for ever."""
    await node.stand_still()
    node.session.terminate()
    twin = await house.node("a", house.settings("downtown"))
    await twin.join()
    ending = asyncio.get_running_loop().create_task(node.heart.run())
    await node.until(lambda: node.events("lease_still_lost"))
    (told,) = node.events("lease_still_lost")
    assert told["reason"] == "another live node is called 'a'; give each node a --node.name of its own"
    house.run(TTL.total_seconds() + 1)
    await twin.beat()
    with pytest.raises(NameTakenError):
        await ending


async def test_who_takes_the_name_of_one_that_goes_meanwhile_gets_it(house: House, node: Node) -> None:
    twin = await house.node("a", house.settings("downtown"))
    joining = await waits(twin.heart.start())
    await twin.until(lambda: twin.tries)
    await node.stand_still()
    node.session.terminate()
    await joining
    assert twin.heart.incarnation is not None


async def test_nodes_that_died_long_ago_are_forgotten_when_one_comes(house: House, node: Node) -> None:
    await house.shared.rows(
        "INSERT INTO node (name, incarnation, lock_key, expires_at, joined_at, version, urls)"
        " SELECT name, gen_random_uuid(), 1, clock_timestamp() - dead, clock_timestamp(), '', '{}'"
        " FROM (VALUES ('long', interval '25 hours'), ('lately', interval '23 hours')) AS it (name, dead)"
        " RETURNING 1"
    )
    await (await house.node("b", house.settings("downtown"))).join()
    assert {name for (name,) in await house.shared.rows("SELECT name FROM node")} == {"a", "b", "lately"}
    assert node.heart.incarnation is not None


# Lives


async def test_a_session_that_ends_is_lost_at_once_and_joined_again_as_another_incarnation(
    node: Node,
) -> None:
    before, lost = node.heart.incarnation, []
    node.heart.on_lost = lambda: lost.append(node.heart.holds)
    node.session.terminate()
    await node.until(lambda: lost)
    assert lost == [False]
    await node.until(lambda: node.heart.incarnation is not None)
    assert node.heart.incarnation != before
    assert not holds(node), "what it watched is not its own yet"
    assert [line["event"] for line in node.lines] == ["lease_lost"]
    assert node.events("lease_lost")[0]["reason"] == "the connection to PostgreSQL has ended"
    assert node.heart.was(before)
    assert node.heart.was(node.heart.incarnation)
    node.heart.settle()
    assert [line["event"] for line in node.lines] == ["lease_lost", "lease_held"]
    assert not node.heart.was(before), "it owns nothing more"


async def test_a_lease_that_ended_is_lost_though_the_session_lives(house: House, node: Node) -> None:
    await house.shared.rows("UPDATE node SET expires_at = clock_timestamp() RETURNING 1")
    before = node.heart.incarnation
    await node.until(lambda: node.heart.incarnation not in (None, before))
    (told,) = node.events("lease_lost")
    assert told["reason"] == "the lease had ended before it was renewed"


async def test_a_lock_that_fell_is_lost_though_the_session_lives(node: Node) -> None:
    """As behind a proxy that lent the session to others."""
    before = node.heart.incarnation
    await node.session.execute("SELECT pg_advisory_unlock_all()")
    await node.until(lambda: node.heart.incarnation not in (None, before))
    assert node.events("lease_lost")


async def test_a_database_that_does_not_answer_for_half_a_lease_is_given_up(house: House) -> None:
    node = await house.node("a", house.settings("downtown"), SHORT)
    await node.join()
    locked = await house.shared.lock("node")
    await node.until(lambda: node.events("lease_lost"))
    assert node.events("lease_lost")[0]["reason"] == "PostgreSQL has not answered within 1 s"
    assert node.heart.incarnation is None
    await locked.end()
    await node.until(lambda: node.heart.incarnation is not None)


async def test_a_node_that_is_answered_too_late_for_as_long_as_a_lease_lives_gives_it_up(
    house: House, node: Node
) -> None:
    """It would hold its sites, and never ask."""
    for seconds, lost in (
        (CONFIRMED, []),
        (TTL.total_seconds(), ["PostgreSQL needs 0.7 s and more for each renewal"]),
    ):
        await node.stand_still()
        locked = await house.shared.lock("node")
        node.go_on()
        node.heart.hurry()
        await locked.somebody_waits()
        house.run(seconds)
        waiting = await waits(node.heart.renewed())
        await locked.end()
        with suppress(WithheldError):
            await waiting
        assert [line["reason"] for line in node.events("lease_lost")] == lost
    await node.until(lambda: node.heart.incarnation is not None)


async def test_while_the_database_is_away_the_loss_is_told_once_each_reason_once_and_how_long_it_lasted(
    house: House, node: Node
) -> None:
    async with house.shared.away():
        await node.until(lambda: len(node.tries) == 6)
        house.run(7)
    await node.until(lambda: node.heart.incarnation is not None)
    node.heart.settle()
    lost, *still, held = (line["event"] for line in node.lines)
    assert (lost, {*still}, held) == ("lease_lost", {"lease_still_lost"}, "lease_held")
    reasons = [line["reason"] for line in node.events("lease_still_lost")]
    assert len(reasons) == len({*reasons}) < len(node.tries) - 1
    assert node.events("lease_held")[0]["after_seconds"] == pytest.approx(7)


async def test_who_leaves_is_seen_to_be_gone_at_once(house: House, node: Node) -> None:
    other = await house.node("b", house.settings("downtown"))
    await other.join()
    await node.until(lambda: len(node.heart.peers) == 2)
    await other.stand_still()
    await other.heart.stop()
    await node.beat()
    assert [each.name for each in node.heart.peers] == ["a"]
    assert not other.heart.holds
    assert await house.shared.rows("SELECT name FROM node") == [("a",)]


# Who is left alone


async def test_from_who_lost_its_lock_nothing_is_taken_for_a_while_and_then_it_is(
    house: House, node: Node
) -> None:
    other = await house.node("b", house.settings("downtown"))
    await other.join()
    await node.until(lambda: len(node.heart.peers) == 2)
    gone = other.heart.incarnation
    await other.stand_still()
    other.session.terminate()
    await node.until(lambda: len(node.heart.peers) == 1)
    house.run(GRACE - EPSILON)
    assert node.heart.left_alone({gone: False}) == {gone: pytest.approx(EPSILON)}
    house.run(EPSILON)
    assert node.heart.left_alone({gone: False}) == {gone: 0}


async def test_an_owner_that_was_never_seen_is_left_alone_from_its_first_sight_on(
    house: House, node: Node
) -> None:
    unknown = uuid4()
    assert node.heart.left_alone({unknown: False}) == {unknown: GRACE}
    house.run(GRACE)
    assert node.heart.left_alone({unknown: False}) == {unknown: 0}


async def test_what_nobody_owns_and_what_was_ours_may_be_taken_at_once(node: Node) -> None:
    me = node.heart.incarnation
    for has_ended in (False, True):
        owners: dict[UUID | None, bool] = {None: has_ended, me: has_ended}
        assert node.heart.left_alone(owners) == {None: 0, me: 0}


async def test_who_has_just_come_alive_leaves_those_whose_lease_has_ended_time_for_that_as_well(
    house: House, node: Node
) -> None:
    """All may have lost the database at once: what is first seen is no proof that nobody else comes back."""
    unknown = uuid4()
    one_attempt = TTL.total_seconds() / 2 + HEARTBEAT
    assert node.heart.left_alone({unknown: True}) == {unknown: pytest.approx(one_attempt)}
    house.run(one_attempt)
    await node.beat()
    assert node.heart.left_alone({unknown: True}) == {unknown: 0}


async def test_owners_that_own_nothing_more_are_forgotten(house: House, node: Node) -> None:
    """Nodes come and go for years."""
    unknown = uuid4()
    node.heart.left_alone({unknown: False})
    node.heart.left_alone({})
    house.run(GRACE)
    assert node.heart.left_alone({unknown: False}) == {unknown: GRACE}
    for _ in range(3):
        await node.lose_session()
        node.heart.settle()
    assert len(node.heart._lives) == 1


async def test_it_is_calm_once_the_same_nodes_have_lived_for_a_while(house: House, node: Node) -> None:
    house.run(10)
    other = await house.node("b", house.settings("downtown"))
    await other.join()
    await node.until(lambda: len(node.heart.peers) == 2)
    calm = [node.heart.calm]
    for _ in range(3):
        house.run(0.5)
        calm.append(node.heart.calm)
    assert calm == [False, False, False, True]


async def test_who_stood_still_is_not_calm_for_a_while(house: House, node: Node) -> None:
    """All that waited is asked at once then: to hand a site over would lose its answers."""
    await node.beat()
    house.run(10)
    await node.beat()
    calm = [node.heart.calm]
    for _ in range(3):
        house.run(0.5)
        await node.beat()
        calm.append(node.heart.calm)
    assert calm == [False, False, False, True]


async def cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
