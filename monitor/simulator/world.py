"""What is the case at a given moment: each connection's status, and the fault that meets a request.

No clock and no I/O: `elapsed` is the time since the simulator's start. What was set by hand goes before
the script, and of two faults set by hand the later one; of two scripted faults the first in the file.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from monitor.simulator.scenario import Connection, Endpoint, Fault, FaultWindow, Scenario


class Shown(NamedTuple):
    """A connection as Wix would show it: the words of `status` and `errorReason`."""

    status: str | None
    reason: str | None = None


class Target(NamedTuple):
    """Where a request goes; `site` is empty where its credentials belong to none."""

    endpoint: Endpoint
    site: str
    connection: str = ""


def scripted(connection: Connection, elapsed: timedelta) -> Shown:
    """What the script says of a connection at this moment."""
    within = elapsed % connection.repeat if connection.repeat is not None else elapsed
    shown = Shown(connection.status, connection.reason)
    for step in connection.timeline:
        if step.at > within:
            break
        shown = Shown(step.status, step.reason)
    return shown


def is_on(window: FaultWindow, elapsed: timedelta) -> bool:
    """Whether a fault's time is now."""
    within = elapsed % window.repeat if window.repeat is not None else elapsed
    return window.begins <= within and (window.ends is None or within < window.ends)


def meets(window: FaultWindow, target: Target) -> bool:
    """Whether a fault is meant for this request."""
    return (
        window.where in ("any", target.endpoint)
        and (not window.sites or target.site in window.sites)
        and (not window.connections or target.connection in window.connections)
    )


class World:
    """A scenario, and what was set by hand over it."""

    def __init__(self, scenario: Scenario) -> None:
        self._scripts = {
            (site.name, connection.id): connection
            for site in scenario.sites
            for connection in site.connections
        }
        self._faults = scenario.faults
        self._shown_by_hand: dict[tuple[str, str], Shown] = {}
        self._faults_by_hand: tuple[FaultWindow, ...] = ()

    def connections(self) -> Iterable[tuple[str, Connection]]:
        """Every connection with its site's name, in the order of the scenario."""
        return ((site, connection) for (site, _), connection in self._scripts.items())

    def find(self, site: str, connection_id: str) -> Connection | None:
        """The script of a site's connection, None where the site has no such connection."""
        return self._scripts.get((site, connection_id))

    def shown(self, site: str, connection: Connection, elapsed: timedelta) -> Shown:
        """What a connection shows at this moment."""
        by_hand = self._shown_by_hand.get((site, connection.id))
        return by_hand if by_hand is not None else scripted(connection, elapsed)

    def is_by_hand(self, site: str, connection_id: str) -> bool:
        """Whether the connection shows what somebody set, whatever its script says."""
        return (site, connection_id) in self._shown_by_hand

    def fault(self, target: Target, elapsed: timedelta) -> Fault | None:
        """The fault that meets this request, if any."""
        candidates = (
            *(window for window in self._faults_by_hand if meets(window, target)),
            *(window for window in self._faults if meets(window, target) and is_on(window, elapsed)),
        )
        return candidates[0].fault if candidates else None

    def set_shown(self, connection_id: str, shown: Shown | None, site: str | None = None) -> int:
        """Set by hand what a connection shows, None to follow its script again; how many were set."""
        places = [place for place in self._scripts if place[1] == connection_id and site in (None, place[0])]
        for place in places:
            self._shown_by_hand.pop(place, None)
            if shown is not None:
                self._shown_by_hand[place] = shown
        return len(places)

    def set_fault(self, window: FaultWindow) -> None:
        """Put a fault in front of all others; one set before for the same target ends."""
        others = (other for other in self._faults_by_hand if _target(other) != _target(window))
        self._faults_by_hand = (window, *others)

    def clear_faults(self, sites: tuple[str, ...] = (), connections: tuple[str, ...] = ()) -> None:
        """End the faults set by hand for exactly these; all of them where none is named."""
        named = (sites, connections)
        kept = (other for other in self._faults_by_hand if any(named) and _target(other)[1:] != named)
        self._faults_by_hand = tuple(kept)


def _target(window: FaultWindow) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    return window.where, window.sites, window.connections
