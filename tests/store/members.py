"""Nodes as PostgreSQL knows them: real rows and locks, without daemons around them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final

from monitor.clock import Clock
from monitor.core.shards import Unit
from monitor.store.postgresql.held import Held
from monitor.store.postgresql.leases import Leases, Membership, Node
from monitor.store.postgresql.store import open_postgresql
from tests.store.engines import Shared

TTL: Final = timedelta(minutes=5)


class Member:
    """A node that has joined."""

    def __init__(self, shared: Shared, leases: Leases, membership: Membership) -> None:
        self._shared = shared
        self._leases = leases
        self._membership = membership

    async def claim(self, *units: Unit) -> None:
        """Own these, which nobody owns."""
        me = self._membership.incarnation
        await self._leases.offer(me, units)
        free = [each for each in await self._leases.free() if each.unit in units]
        assert (await self._leases.claim(me, free)).keys() == set(units)

    async def leave(self) -> None:
        """Go in order."""
        await self._membership.leave()

    async def expire(self) -> None:
        """Be gone without a word: the lease has run out."""
        me = self._membership.incarnation
        gone = f"UPDATE node SET expires_at = '2026-11-23T07:00:00Z' WHERE incarnation = '{me}'"  # noqa: S608
        await self._shared.rows(gone)

    def end(self) -> None:
        """Let go of the session."""
        self._membership.end()


@asynccontextmanager
async def joined(shared: Shared, name: str, urls: Sequence[str] = ()) -> AsyncIterator[Member]:
    """A node that has joined, until the end."""
    opened = await open_postgresql(shared.way(name), name, Held(), Clock())
    assert opened.shared is not None
    async with AsyncExitStack() as stack:
        stack.push_async_callback(opened.store.close)
        member = Member(
            shared, opened.shared.leases, await opened.shared.leases.join(Node(name, urls), TTL, None)
        )
        stack.callback(member.end)
        yield member
