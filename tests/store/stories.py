"""What Wix told at which moment, booked by the core and kept in a real store."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from monitor.core.effects import ConnectionFirstSeen, Transition
from monitor.core.machine import advance
from monitor.core.model import Connection, ConnectionState, ErrorReason, Observed, Status
from monitor.store import Booking, Key
from monitor.store.reading import Chapter
from tests.store.samples import ANNA, MINUTE, START, connection


class Told(NamedTuple):
    """A connection's status, seen at a moment."""

    connection: Connection
    at: datetime
    status: Status
    reason: ErrorReason | None = None


BO: Final = connection(2, "uptown")
HOUR: Final = timedelta(hours=1)
STORY: Final = (
    Told(ANNA, START, Status.SYNCED),
    Told(BO, START + MINUTE, Status.DISCONNECTED),
    Told(ANNA, START + HOUR, Status.ERROR, ErrorReason.TOKEN_REVOKED),
    Told(ANNA, START + 2 * HOUR, Status.ERROR, ErrorReason.EXTERNAL_CALENDAR_DELETED),
    Told(ANNA, START + 5 * HOUR, Status.SYNCED),
)
"""A calendar that breaks twice and is mended, and one that is disconnected all the time."""


def statuses(chapters: Iterable[Chapter]) -> list[tuple[str, str]]:
    """Whose chapters they are, and what they tell."""
    return [(each.connection, each.status) for each in chapters]


class Kept(Protocol):
    """A store that is used from where no loop runs."""

    def states(self) -> dict[Key, ConnectionState]: ...

    def commit(self, bookings: Sequence[Booking], told: Collection[str], /) -> object: ...


def keep(store: Kept, story: Iterable[Told]) -> list[str]:
    """Book a story, each poll a commit; the ids of its announcements."""
    states = store.states()
    told: list[str] = []
    for each in story:
        key = (each.connection.site, each.connection.id)
        before = states.get(key, ConnectionState(watched_since=each.at))
        step = advance(each.connection, before, Observed(each.status, each.reason), each.at)
        states[key] = step.state
        news = tuple(what for what in step.effects if isinstance(what, ConnectionFirstSeen | Transition))
        store.commit([Booking(each.connection, step.state, news)], ())
        told += [what.transition_id for what in news]
    return told
