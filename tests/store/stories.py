"""What Wix told at which moment, booked by the core and kept in a real store."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from monitor.core.effects import ConnectionFirstSeen, Transition
from monitor.core.machine import advance
from monitor.core.model import Connection, ConnectionState, ErrorReason, Observed, Status
from monitor.store import Booking
from monitor.store.sqlite.file import File


class Told(NamedTuple):
    """A connection's status, seen at a moment."""

    connection: Connection
    at: datetime
    status: Status
    reason: ErrorReason | None = None


def keep(store: File, story: Iterable[Told]) -> list[str]:
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
