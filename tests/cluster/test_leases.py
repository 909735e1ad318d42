"""A lease that ends in the moment in which it is renewed: it goes on, or is taken; never both."""

import asyncio

import asyncpg

from monitor.store.postgresql.schema import SCHEMA
from tests.cluster.nodes import House, Node

_ENDS = "UPDATE node SET expires_at = clock_timestamp() - interval '1 second' WHERE name = 'a' RETURNING 1"
_RENEWED = "UPDATE node SET expires_at = clock_timestamp() + interval '1 minute' WHERE name = 'a'"


async def owner_at_its_end(house: House) -> tuple[Node, Node]:
    """A node that has been silent for a lease, and another that looks."""
    settings = house.settings("downtown")
    first, second = await house.come("a", settings), await house.come("b", house.settings("uptown"))
    await first.stand_still()
    assert await house.shared.rows(_ENDS) == [(1,)]
    return first, second


async def test_who_renews_while_another_claims_is_not_taken_over(house: House) -> None:
    _, second = await owner_at_its_end(house)
    (free,) = [each for each in await second.share.leases.free() if each.unit.site == "downtown"]
    assert free.has_ended
    renewing = await asyncpg.connect(house.shared.url, server_settings={"search_path": SCHEMA})
    await renewing.execute(f"BEGIN; {_RENEWED}")
    assert second.heart.incarnation is not None
    claiming = asyncio.get_running_loop().create_task(
        second.share.leases.claim(second.heart.incarnation, [free])
    )
    while await house.shared.rows("SELECT count(*) FROM pg_locks WHERE NOT granted") == [(0,)]:
        pass
    await renewing.execute("COMMIT")
    await renewing.close()
    assert await claiming == {}


async def test_who_was_claimed_from_cannot_renew_any_more(house: House) -> None:
    first, second = await owner_at_its_end(house)
    assert second.heart.incarnation is not None
    free = await second.share.leases.free()
    assert list((await second.share.leases.claim(second.heart.incarnation, free)).values()) == [2]
    assert await first.memberships[-1].beat() is None
