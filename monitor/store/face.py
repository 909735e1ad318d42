"""What the monitor asks of a store, whichever engine keeps it."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from monitor.core.model import Connection, ConnectionState
from monitor.store.rows import Announcement

if TYPE_CHECKING:
    from monitor.store.postgresql.store import Shared

Key = tuple[str, str]
"""Site and Wix's id: a new name keeps its state."""


class Booking(NamedTuple):
    """A connection's new state, and what there is to tell of it."""

    connection: Connection
    state: ConnectionState
    announcements: tuple[Announcement, ...] = ()


class Store(Protocol):
    """An open store; its calls never hold the loop.

    Any of them raises StoreError where the engine fails. Nothing of a call was kept then, or it is not known
    whether it was: the same call again does no harm.
    """

    piece: int
    """States of a commit at most where many merely confirm: so long the disk or the loop is held."""

    async def states(self) -> dict[Key, ConnectionState]:
        """What is known of each connection of ours, watched or not."""

    async def untold(self) -> list[Announcement]:
        """What was committed of ours and, for all we know, not told; in the order of its commits."""

    async def commit(self, bookings: Sequence[Booking], told: Collection[str]) -> Collection[Key]:
        """Keep states, announcements and the marks of what was told, all or nothing.

        The connections that were refused, as another node has them; none where there are no others.
        """

    async def purge(self, retention: timedelta, watched: Collection[Key]) -> int:
        """Forget connections no longer watched and statuses that ended before; rows gone, a few at most."""

    async def close(self) -> None:
        """Let go of it, after what is under way."""


class Opened(NamedTuple):
    """An open store and what was read of it.

    `set_aside` is where a file that could not be read was moved, `shared` what a node has of a PostgreSQL.
    """

    store: Store
    known: dict[Key, ConnectionState]
    untold: list[Announcement]
    set_aside: Path | None = None
    shared: "Shared | None" = None
