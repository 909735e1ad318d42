"""Who of the nodes polls what: the questions that a node asks PostgreSQL about itself and the others.

A node is one row, renewed on the database's clock, and a session's advisory lock, which falls with its
connection however the process ends. It is alive while it has both. Whoever is dead stays dead: to live again
it joins as another incarnation. So a lease may be taken from a dead owner at the epoch at which it was seen.

Source: "Advisory Locks" and "Explicit Locking" of the PostgreSQL documentation.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from secrets import randbits
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID, uuid4

import asyncpg
import msgspec

from monitor import __version__
from monitor.core.shards import Unit
from monitor.errors import CannotStartError
from monitor.store.postgresql.engine import CONNECT_SECONDS, Engine, one_of, telling_failures

if TYPE_CHECKING:
    from monitor.store.postgresql.engine import Connection, Pool

CHANNEL: Final = "wix_calendar_monitor_leases"
"""Where a node says that there is something to claim, or that it has come."""

# An advisory lock's key of 64 bits stands in pg_locks as two halves.
LIVE: Final = """
    live AS (
        SELECT name, incarnation, offers_version, urls
        FROM node
        WHERE expires_at > clock_timestamp() AND lock_key IN (
            SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted
              AND database = (SELECT oid FROM pg_database WHERE datname = current_database())))
"""
"""The nodes that live, as a part of a query."""

_BEAT: Final = """
    UPDATE node SET expires_at = clock_timestamp() + $2
    WHERE incarnation = $1 AND expires_at > clock_timestamp()
"""
_NODES: Final = f"WITH {LIVE} SELECT * FROM live ORDER BY name"  # noqa: S608  names of our own
_JOIN: Final = f"""
    WITH {LIVE}
    INSERT INTO node AS known
        (name, incarnation, lock_key, expires_at, joined_at, version, urls)
    VALUES ($1, $2, $3, clock_timestamp() + $4, clock_timestamp(), $5, $6)
    ON CONFLICT (name) DO UPDATE SET
        incarnation = excluded.incarnation, lock_key = excluded.lock_key, expires_at = excluded.expires_at,
        joined_at = excluded.joined_at, version = excluded.version, urls = excluded.urls,
        offers = excluded.offers, offers_version = excluded.offers_version
    WHERE known.incarnation = $7 OR known.incarnation NOT IN (SELECT incarnation FROM live)
"""  # noqa: S608  names of our own
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(1464028467, hashtext($1))"  # of a name
# Hosts get new names, and sites go: who asks what is free, or who lives, need not read of them for ever.
_FORGET_NODES: Final = "DELETE FROM node WHERE expires_at < clock_timestamp() - interval '1 day'"
_FORGET_LEASES: Final = """
    DELETE FROM lease
    WHERE since < clock_timestamp() - interval '1 day'
      AND NOT EXISTS (SELECT 1 FROM node WHERE incarnation = owner)
      AND (site, part) NOT IN (
          SELECT unit ->> 0, (unit ->> 1)::int FROM node, jsonb_array_elements(offers) AS unit)
"""
_OFFER: Final = """
    UPDATE node SET offers = $2, offers_version = offers_version + 1
    WHERE incarnation = $1
"""
_NO_SYNC: Final = "SET LOCAL synchronous_commit = off"  # renewals of this row wait for it, and for no disk
_OFFERS: Final = "SELECT incarnation, offers::text FROM node WHERE incarnation = ANY($1)"
_MAKE: Final = """
    INSERT INTO lease (site, part) SELECT * FROM unnest($1::text[], $2::int[])
    ON CONFLICT DO NOTHING
"""
_FREE: Final = f"""
    WITH {LIVE}
    SELECT site, part, epoch,
        owner, owner IN (SELECT incarnation FROM node WHERE expires_at <= clock_timestamp()) AS has_ended,
        owner IN (SELECT incarnation FROM node) AS is_orphan
    FROM lease
    WHERE owner IS NULL OR owner NOT IN (SELECT incarnation FROM live)
"""  # noqa: S608
# An owner whose lease has ended has its row touched in the same statement: a renewal that is under way comes
# before, and is heeded, or after, and is none.
_CLAIM_PATIENTLY: Final = """
    WITH ended AS (
        UPDATE node SET expires_at = expires_at
        WHERE incarnation = ANY($5::uuid[]) AND expires_at <= clock_timestamp()
        RETURNING incarnation)
    UPDATE lease AS it
    SET owner = $1, epoch = it.epoch + 1, since = clock_timestamp()
    FROM (
        SELECT lease.site, lease.part FROM lease
        JOIN unnest($2::text[], $3::int[], $4::bigint[]) AS seen (site, part, epoch) USING (site, part, epoch)
        WHERE EXISTS (
            SELECT 1 FROM node WHERE incarnation = $1 AND expires_at > clock_timestamp())
          AND (lease.owner IS NULL OR lease.owner <> ALL($5::uuid[])
               OR lease.owner IN (SELECT incarnation FROM ended))
        ORDER BY lease.site, lease.part FOR UPDATE OF lease) AS free
    WHERE it.site = free.site AND it.part = free.part
    RETURNING it.site, it.part, it.epoch
"""
_CLAIM: Final = _CLAIM_PATIENTLY.replace("FOR UPDATE OF lease", "FOR UPDATE OF lease SKIP LOCKED")
# Renewals wait for no disk: what a crash of the engine takes with it has lost its lock anyway.
_WATCHED: Final = """
    SELECT set_config('synchronous_commit', 'off', false), pg_advisory_lock($1)
"""
_NOTIFY: Final = f"NOTIFY {CHANNEL}"
_OWNERS: Final = "SELECT site, part, owner FROM lease WHERE site = ANY($1) AND owner IS NOT NULL"
_OWNED: Final = "SELECT site, part, epoch FROM lease WHERE owner = $1"
_TALLY: Final = "SELECT count(*), coalesce(sum(epoch), 0)::bigint FROM lease WHERE owner = $1"
_RELEASE: Final = """
    UPDATE lease SET owner = NULL, since = clock_timestamp()
    WHERE owner = $1 AND (site, part) IN (SELECT * FROM unnest($2::text[], $3::int[]))
"""
_LEAVE: Final = """
    WITH left_ AS (UPDATE lease SET owner = NULL, since = clock_timestamp() WHERE owner = $1)
    DELETE FROM node WHERE incarnation = $1
"""


class NameTakenError(CannotStartError):
    """Another live node bears this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"another live node is called {name!r}; give each node a --node.name of its own")


class Node(NamedTuple):
    """What a process is called among the others, and where its pages are."""

    name: str
    urls: Sequence[str]


class Peer(NamedTuple):
    """A node that lives, and where its pages are."""

    name: str
    incarnation: UUID
    offers_version: int
    urls: tuple[str, ...] = ()


class Free(NamedTuple):
    """A unit that no live node owns, and its epoch when that was seen.

    `owner` is who had it, None where it was given up; `has_ended` that the owner's lease has, though it may
    have its lock yet; `is_orphan` that the owner went without a word, and none of its name has come since.
    """

    unit: Unit
    epoch: int
    owner: UUID | None = None
    has_ended: bool = False
    is_orphan: bool = False


class Tally(NamedTuple):
    """How many units a node owns, and the sum of their epochs: cheap to compare."""

    units: int
    epochs: int


class Membership:
    """This node among the live ones, for as long as one session lasts; each call may raise StoreError."""

    def __init__(self, session: "Connection", incarnation: UUID, ttl: timedelta) -> None:
        self.incarnation = incarnation
        self._session = session
        self._ttl = ttl

    def on_end(self, told: Callable[[], None]) -> None:
        """Call `told` once the session has ended: the lock has fallen with it."""
        self._session.add_termination_listener(lambda _: told())

    async def on_news(self, told: Callable[[], None]) -> None:
        """Call `told` whenever another node has something to say."""
        with telling_failures():
            await self._session.add_listener(CHANNEL, lambda *_: told())

    async def beat(self) -> Sequence[Peer] | None:
        """Renew, and look who lives; None where this incarnation is dead."""
        with telling_failures():
            if await self._session.execute(_BEAT, self.incarnation, self._ttl) != "UPDATE 1":
                return None
            rows = await self._session.fetch(_NODES)
        peers = [_peer(row) for row in rows]
        return peers if any(each.incarnation == self.incarnation for each in peers) else None

    async def leave(self) -> None:
        """Own nothing more, and be gone."""
        with telling_failures():
            await self._session.execute(_LEAVE, self.incarnation)
            await self._session.execute(_NOTIFY)

    def end(self) -> None:
        """Drop the session, and the lock with it, whoever answers."""
        self._session.terminate()


class Leases:
    """The questions that need no session of their own; each may raise StoreError."""

    def __init__(self, pool: "Pool", engine: Engine) -> None:
        self._pool = pool
        self._engine = engine

    async def join(self, node: Node, ttl: timedelta, former: UUID | None) -> Membership:
        """Come alive; `former` is who this process was before.

        Raises NameTakenError while another live node bears the name.
        """
        session = await self._engine.connect()
        try:
            with telling_failures():
                return await self._join(session, node, ttl, former)
        except BaseException:
            session.terminate()
            raise

    async def _join(
        self, session: "Connection", node: Node, ttl: timedelta, former: UUID | None
    ) -> Membership:
        key, incarnation = randbits(62), uuid4()
        await session.execute(_WATCHED, key)
        await session.execute(_FORGET_NODES)
        facts = (node.name, incarnation, key, ttl, __version__, list(node.urls), former)
        async with session.transaction():
            await session.execute(_ONE_AT_A_TIME, node.name)
            if await session.execute(_JOIN, *facts) != "INSERT 0 1":
                raise NameTakenError(node.name)
        return Membership(session, incarnation, ttl)

    async def offer(self, incarnation: UUID, offers: Collection[Unit]) -> None:
        """Offer to own those units from now on."""
        async with one_of(self._pool) as connection:
            async with connection.transaction():
                await connection.execute(_NO_SYNC)
                await connection.execute(_OFFER, incarnation, _packed(offers))  # first: see `forget`
            await connection.execute(_MAKE, *_columns(sorted(offers)))
            await connection.execute(_NOTIFY)

    async def forget(self) -> None:
        """Drop the leases of what nobody has offered or owned for a day.

        Whoever makes a lease has offered it by then: either we see that, or he makes it after us. Where one
        claims at this moment it is left for another time.
        """
        async with one_of(self._pool) as connection:
            with suppress(asyncpg.LockNotAvailableError):
                async with connection.transaction():
                    await connection.execute("LOCK TABLE lease IN SHARE ROW EXCLUSIVE MODE NOWAIT")
                    await connection.execute(_FORGET_LEASES)

    async def offers_of(self, peers: Collection[Peer]) -> dict[UUID, frozenset[Unit]]:
        """What those nodes offer to own."""
        rows = await self._fetch(_OFFERS, [each.incarnation for each in peers])
        return {row["incarnation"]: _unpacked(row["offers"]) for row in rows}

    async def free(self) -> list[Free]:
        """What no live node owns."""
        rows = await self._fetch(_FREE)
        return [
            Free(Unit(site, part), epoch, owner, bool(has_ended), bool(is_orphan))
            for site, part, epoch, owner, has_ended, is_orphan in rows
        ]

    async def claim(
        self, incarnation: UUID, wanted: Collection[Free], *, patiently: bool = False
    ) -> dict[Unit, int]:
        """Own what nobody has claimed since it was seen free; what is ours now, with the epochs.

        A commit that is under way there is waited for, or left alone.
        """
        question = _CLAIM_PATIENTLY if patiently else _CLAIM
        epochs = [each.epoch for each in wanted]
        ended = list({each.owner for each in wanted if each.has_ended})
        columns = _columns(each.unit for each in wanted)
        return _epochs(await self._fetch(question, incarnation, *columns, epochs, ended))

    async def owned(self, incarnation: UUID) -> dict[Unit, int]:
        """What is ours, with the epochs."""
        return _epochs(await self._fetch(_OWNED, incarnation))

    async def tally(self, incarnation: UUID) -> Tally:
        """Of what is ours."""
        [row] = await self._fetch(_TALLY, incarnation)
        return Tally(*row)

    async def owners(self, sites: Collection[str]) -> dict[Unit, UUID]:
        """Who owns what of these, dead or alive."""
        rows = await self._fetch(_OWNERS, list(sites))
        return {Unit(row["site"], row["part"]): row["owner"] for row in rows}

    async def release(self, incarnation: UUID, units: Collection[Unit]) -> None:
        """Own these no more."""
        await self._fetch(_RELEASE, incarnation, *_columns(units))
        await self._fetch(_NOTIFY)

    async def _fetch(self, question: str, *arguments: object) -> list[Any]:
        """Given up soon: where a connection is dead and nobody knows it, sites wait for an owner."""
        async with one_of(self._pool) as connection:
            return await connection.fetch(question, *arguments, timeout=CONNECT_SECONDS)


def _peer(row: Any) -> Peer:
    return Peer(row["name"], row["incarnation"], row["offers_version"], tuple(row["urls"]))


def _columns(units: Iterable[Unit]) -> tuple[list[str], list[int]]:
    listed = list(units)
    return [unit.site for unit in listed], [unit.part for unit in listed]


def _epochs(rows: Iterable[Any]) -> dict[Unit, int]:
    return {Unit(row["site"], row["part"]): row["epoch"] for row in rows}


def _packed(units: Collection[Unit]) -> str:
    return msgspec.json.encode(sorted(units)).decode()


def _unpacked(offers: str) -> frozenset[Unit]:
    return frozenset(msgspec.json.decode(offers, type=list[Unit]))
