"""Connections, states and announcements to keep, and a machine whose clocks a test sets."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from monitor.clock import Clock
from monitor.core.effects import Transition
from monitor.core.model import CalendarType, Connection, ConnectionState, Policy, Status
from monitor.store import Booking

START: Final = datetime(2026, 7, 1, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
POLICY: Final = Policy(MINUTE, 3 * MINUTE, MINUTE)
ANNA: Final = Connection("downtown", "id-1", "anna", POLICY)


class Machine:
    """A machine's two clocks, in seconds."""

    def __init__(self, wall: datetime = START) -> None:
        self.wall = wall.timestamp()
        self.monotonic = 0.0

    def boot(self) -> Clock:
        """The clock of a process that starts now."""
        return Clock(lambda: self.wall, lambda: self.monotonic)

    def run(self, span: timedelta) -> None:
        """Let time pass."""
        self.wall += span.total_seconds()
        self.monotonic += span.total_seconds()


def connection(number: int, site: str = "downtown") -> Connection:
    """One of many."""
    return Connection(site, f"id-{number}", f"name-{number}", POLICY)


def state(**facts: Any) -> ConnectionState:
    """A state as far as the test cares."""
    return ConnectionState(**{"watched_since": START, "status": Status.SYNCED, **facts})


def transition(number: int, of: Connection = ANNA, **facts: Any) -> Transition:
    """The n-th change of a connection."""
    usual = {
        "site": of.site,
        "connection": of.name,
        "connection_id": of.id,
        "calendar_type": CalendarType.GOOGLE,
        "from_status": Status.SYNCED,
        "from_reason": None,
        "to_status": Status.DISCONNECTED,
        "to_reason": None,
        "healthy": False,
        "from_since": START,
        "duration": MINUTE,
        "observed_at": START,
        "transition_id": f"{of.site}-{of.id}-{number}",
    }
    return Transition(**{**usual, **facts})


def change(number: int, of: Connection = ANNA, **facts: Any) -> Booking:
    """A connection's state after its n-th change, with that change to tell."""
    return Booking(of, state(transitions=number), (transition(number, of, **facts),))
