"""The store of a node: each commit is one statement that takes only what the node owns at that moment.

The statement locks the node's leases for its own length, so that whoever takes one over waits for it, and
matches none that was taken over before. A commit of which it is not known whether it was made is made again:
transitions are known by their ids, and a state that a later commit of the same run has written stays.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from monitor.clock import Clock
from monitor.core.model import ConnectionState
from monitor.core.shards import Unit
from monitor.errors import CannotStartError, LeaseChangedError, StoreError
from monitor.store.face import Booking, Key, Opened
from monitor.store.postgresql.engine import Engine, one_of, telling_failures
from monitor.store.postgresql.held import Held
from monitor.store.postgresql.leases import Leases
from monitor.store.postgresql.migrating import bring_up_to_date
from monitor.store.postgresql.schema import TRANSITION_COLUMNS, array_of, columns_of
from monitor.store.retention import PURGE_ROWS, Retention
from monitor.store.rows import (
    FLAGS,
    STATE_COLUMNS,
    Announcement,
    announcement_of,
    announcement_row,
    state_of,
    state_rows,
)

if TYPE_CHECKING:
    from monitor.store.postgresql.engine import Connection, Pool

_CLOSE_SECONDS: Final = 2.0
_PIECE: Final = 250  # rows read or confirmed at a time: making them holds the loop for some 10 ms
_PURGE_LOCK: Final = 0x57434D32


def _arrays(first: int, columns: Iterable[str]) -> str:
    return ", ".join(f"${number}::{array_of(column)}" for number, column in enumerate(columns, start=first))


def _commit() -> str:
    states, news = ("part", *STATE_COLUMNS), ("part", *TRANSITION_COLUMNS)
    at_states = 8
    at_news = at_states + len(states)
    changes = ", ".join(f"{column} = excluded.{column}" for column in (*STATE_COLUMNS[2:], "writer", "turn"))
    return f"""
        WITH own AS MATERIALIZED (
            SELECT lease.site, lease.part, lease.epoch
            FROM unnest($1::text[], $2::int[], $3::bigint[]) AS mine (site, part, epoch)
            JOIN lease ON lease.site = mine.site AND lease.part = mine.part AND lease.epoch = mine.epoch
            WHERE lease.owner = $4::uuid
            ORDER BY lease.site, lease.part
            FOR SHARE OF lease
        ), kept AS (
            INSERT INTO connection ({columns_of()}, writer, turn)
            SELECT {columns_of("it.")}, $4::uuid, $5::bigint
            FROM unnest({_arrays(at_states, states)}) AS it ({", ".join(states)})
            JOIN own ON own.site = it.site AND own.part = it.part
            ON CONFLICT (site, id) DO UPDATE SET {changes}
            WHERE connection.writer <> excluded.writer OR connection.turn < excluded.turn
        ), announced AS (
            INSERT INTO transition ({", ".join(TRANSITION_COLUMNS)}, node, epoch)
            SELECT {", ".join(f"it.{column}" for column in TRANSITION_COLUMNS)}, $6::text, own.epoch
            FROM unnest({_arrays(at_news, news)}) WITH ORDINALITY AS it ({", ".join(news)}, place)
            JOIN own ON own.site = it.site AND own.part = it.part
            ORDER BY it.place
            ON CONFLICT (transition_id) DO NOTHING
        ), marked AS (
            UPDATE transition SET announced = true WHERE transition_id = ANY($7::text[]) AND NOT announced
        )
        SELECT site, part FROM own
    """  # noqa: S608  names of our own


_COMMIT: Final = _commit()
_STATES: Final = f"SELECT {columns_of()} FROM connection WHERE site = ANY($1)"  # noqa: S608
_UNTOLD: Final = f"""
    SELECT {", ".join(TRANSITION_COLUMNS)} FROM transition WHERE NOT announced AND site = ANY($1) ORDER BY n
"""  # noqa: S608
_LEFT: Final = "SELECT site, id FROM connection WHERE kept_at < $1"
_FORGET: Final = """
    DELETE FROM connection USING unnest($2::text[], $3::text[]) AS left_over (site, id)
    WHERE connection.site = left_over.site AND connection.id = left_over.id AND connection.kept_at < $1
"""
_PURGE: Final = """
    DELETE FROM transition WHERE n IN (
        SELECT n FROM transition AS old
        WHERE observed_at < $1 AND announced AND (
            EXISTS (
                SELECT 1 FROM transition AS next
                WHERE next.site = old.site AND next.connection_id = old.connection_id
                  AND next.n > old.n AND next.observed_at < $1)
            OR NOT EXISTS (
                SELECT 1 FROM connection
                WHERE connection.site = old.site AND connection.id = old.connection_id))
        ORDER BY observed_at LIMIT $2)
"""


class SharedStore:
    """A node's part of the store; `held` says what that is, at each call anew."""

    piece = _PIECE

    def __init__(self, pool: "Pool", node: str, held: Held, clock: Clock, newest: int | None) -> None:
        self._pool = pool
        self._node = node
        self._held = held
        self._clock = clock
        self._retention = Retention(clock, newest)
        self._turns = count(1)

    async def states(self) -> dict[Key, ConnectionState]:
        """Of all units that this node owns."""
        return await self.states_of(self._held.epochs)

    async def states_of(self, units: Collection[Unit]) -> dict[Key, ConnectionState]:
        """What is known of the connections of these units; others have their turn while much is read."""
        found = {}
        async with one_of(self._pool) as connection, connection.transaction(readonly=True):
            async for row in connection.cursor(_STATES, _sites(units), prefetch=_PIECE):
                if self._held.unit_of(row["site"], row["id"]) in units:
                    found[row["site"], row["id"]] = state_of(row, self._clock)
        return found

    async def untold(self) -> list[Announcement]:
        """Of all units that this node owns."""
        return await self.untold_of(self._held.epochs)

    async def untold_of(self, units: Collection[Unit]) -> list[Announcement]:
        """What was committed of these units and, for all we know, not told; in the order of its commits."""
        async with one_of(self._pool) as connection, connection.transaction(readonly=True):
            return [
                announcement_of(row, self._clock)
                async for row in connection.cursor(_UNTOLD, _sites(units), prefetch=_PIECE)
                if self._held.unit_of(row["site"], row["connection_id"]) in units
            ]

    async def commit(self, bookings: Sequence[Booking], told: Collection[str]) -> Collection[Key]:
        """Keep what is of units that this node owns by now, and all marks: what was told is told."""
        self._need_lease(bookings)
        async with one_of(self._pool) as connection:
            self._need_lease(bookings)  # a connection may have been waited for
            return await self._commit(connection, bookings, told)

    def _need_lease(self, bookings: Sequence[Booking]) -> None:
        if bookings and self._held.incarnation is None:  # they may be ours again in a moment
            raise StoreError("this node has no lease at present")

    async def _commit(
        self, connection: "Connection", bookings: Sequence[Booking], told: Collection[str]
    ) -> Collection[Key]:
        incarnation = self._held.incarnation
        units = {_key(each): self._held.unit_of(*_key(each)) for each in bookings}
        epochs = {unit: self._held.epochs[unit] for unit in units.values() if unit in self._held.epochs}
        ours = [each for each in bookings if units[_key(each)] in epochs]
        rows = await connection.fetch(_COMMIT, *self._parameters(ours, units, epochs, told))
        accepted = {Unit(row["site"], row["part"]) for row in rows}
        refused = {unit for unit in units.values() if unit not in accepted}
        if refused and not self._held.stands(refused, incarnation, epochs):
            raise LeaseChangedError("a lease has changed meanwhile")
        return {key for key, unit in units.items() if unit in refused}

    async def purge(self, retention: timedelta, watched: Collection[Key]) -> int:
        """A piece, of all units; nothing while another node does it."""
        async with one_of(self._pool) as connection, connection.transaction():
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _PURGE_LOCK):
                return 0
            oldest = self._retention.oldest(retention)
            rows = await connection.fetch(_LEFT, oldest)
            left = [key for row in rows if (key := (row["site"], row["id"])) not in watched][:PURGE_ROWS]
            forgotten = await connection.execute(_FORGET, oldest, *_columns(left, 2))
            gone = await connection.execute(_PURGE, oldest, PURGE_ROWS)
        return _count(forgotten) + _count(gone)

    async def close(self) -> None:
        """Wait for what is under way; a connection that does not answer, or breaks meanwhile, is dropped."""
        try:
            with telling_failures():
                await asyncio.wait_for(self._pool.close(), _CLOSE_SECONDS)
        except StoreError:
            self._pool.terminate()

    def _parameters(
        self,
        bookings: Sequence[Booking],
        units: dict[Key, Unit],
        epochs: dict[Unit, int],
        told: Collection[str],
    ) -> list[Any]:
        newest = {_key(each): each for each in bookings}
        states = state_rows(((each.connection, each.state) for each in newest.values()), self._clock)
        news = [(each, what) for each in bookings for what in each.announcements]
        rows = (announcement_row(what, self._clock) for _, what in news)
        return [
            *_columns([(*unit, epoch) for unit, epoch in epochs.items()], 3),
            self._held.incarnation,
            next(self._turns),
            self._node,
            list(told),
            [units[key].part for key in newest],
            *_columns(states, len(STATE_COLUMNS)),
            [units[_key(each)].part for each, _ in news],
            *_columns(map(_transition_row, rows), len(TRANSITION_COLUMNS)),
        ]


class Shared(NamedTuple):
    """What a node has of a PostgreSQL: the store, what of it is the node's, and how that is had."""

    store: SharedStore
    held: Held
    leases: Leases


async def open_postgresql(engine: Engine, node: str, held: Held, clock: Clock) -> Opened:
    """Open the store of a node, make its tables or bring them up to date. Raises CannotStartError.

    Nothing is known of it before units are claimed.
    """
    await bring_up_to_date(engine)
    try:
        pool = await engine.pool()
        with telling_failures():
            newest: int | None = await pool.fetchval("SELECT max(kept_at) FROM connection")
    except StoreError as error:
        raise CannotStartError(f"{engine.shown} cannot be used ({error}); see to its log") from error
    store = SharedStore(pool, node, held, clock, newest)
    return Opened(store, {}, [], shared=Shared(store, held, Leases(pool, engine)))


def _key(booking: Booking) -> Key:
    return booking.connection.site, booking.connection.id


def _sites(units: Iterable[Unit]) -> list[str]:
    return sorted({unit.site for unit in units})


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows as an array for each column."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _transition_row(row: Mapping[str, Any]) -> list[Any]:
    values = ((column, row[column]) for column in TRANSITION_COLUMNS)
    return [bool(value) if column in FLAGS else value for column, value in values]


def _count(status: str) -> int:
    """The rows of a command, of its tag such as `DELETE 7`."""
    return int(status.rpartition(" ")[2])
