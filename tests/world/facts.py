"""What can be seen of a site from outside, and the plain model of it that the rules are held against.

Nothing here asks the code under test but for three public things: which task polls a connection now
(`Watched.task`), the two states, and the clock.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from monitor.core.model import ConnectionState, FailureReason, Status
from monitor.core.plan import SITE_SLOTS, in_phase_order, seconds_to_first, site_offset
from monitor.sweep import Sweep
from tests.world.script import SiteScript, World

WINDOW: Final = 60.0
TOUCH: Final = 2e-3
"""Seconds within which two instants may come in either order."""

REFUSALS: Final = frozenset(
    {FailureReason.UNAUTHORIZED, FailureReason.FORBIDDEN, FailureReason.PREMIUM_REQUIRED}
)
COUNTED: Final = REFUSALS | {
    FailureReason.SERVER_ERROR,
    FailureReason.TIMEOUT,
    FailureReason.CONNECT,
    FailureReason.TLS,
}
LONGEST_BACKOFF: Final = 300.0
JITTER: Final = 0.2
DEAD: Final = (Status.NOT_FOUND, Status.DISCONNECTED)
DAY: Final = 86_400.0

Shown = tuple[str, str | None]
Task = asyncio.Task[Any]


class Meaning(NamedTuple):
    """What an answer is to tell, known to the world that gave it. `again`: the client may ask once more."""

    failure: FailureReason | None = None
    shown: Shown | None = None
    token: str = ""
    wait: float = 0.0
    refuses: bool = False
    again: bool = False


STALE: Final = Meaning(FailureReason.CONNECT, again=True)
"""A kept connection was closed under the request."""


class Request:
    """One request that reached the session; `connection` None: for a token."""

    __slots__ = (
        "connection",
        "credential",
        "doubtful",
        "ended",
        "extra",
        "meaning",
        "order",
        "site",
        "started",
        "task",
    )

    def __init__(
        self, site: int, connection: str | None, credential: str, started: float, task: Task
    ) -> None:
        self.site = site
        self.connection = connection
        self.credential = credential
        self.started = started
        self.task = task
        self.ended: float | None = None
        self.order = 0  # of its answer among all answers
        self.meaning: Meaning | None = None
        self.doubtful = False
        self.extra = False


class Traffic:
    """All requests in flight, of whatever site."""

    def __init__(self, world: World) -> None:
        self.limit = world.max_in_flight
        self.half = max(world.max_in_flight // 2, 1)
        self.sites = len(world.sites)
        self.timeout = world.timeout
        self.in_flight: set[Request] = set()

    @property
    def doubtful(self) -> int:
        """How many of them were started by sites whose last poll had failed."""
        return sum(each.doubtful for each in self.in_flight)


@dataclass
class Poll:
    """One poll that has begun to ask: the requests of one task. `refused`: it has had its 401."""

    task: Task
    last: Request
    held: float  # the site's held-back seconds when it began
    refused: bool = False


@dataclass
class Seen:
    """One connection, as far as it can be seen."""

    id: str
    number: int
    known: Shown | None = None
    known_since: float = 0.0
    state: ConnectionState | None = None  # the last that was found to say so
    transitions: int = 0
    absent: int = 0
    poll: Poll | None = None
    booked: float = -1e9
    unsettled: bool = False
    waiting: float | None = None  # since when a due poll has not been started
    held: float = 0.0  # the site's held-back seconds when that wait began
    may: bool = False  # a poll may come that is not demanded: who can tell which of two instants was first?


@dataclass
class Outage:
    """The site is down. The present back-off began at `mark`; by `latest` a trial must have been made."""

    reason: FailureReason
    mark: float
    failed: float
    backoff: float
    latest: float
    held: float
    older: frozenset[Task]  # polls that were begun before
    trial: Task | None = None
    tried: str = ""  # the last trial's connection
    older_renewal: bool = True  # a token that was wanted before may still be asked for, once


@dataclass
class Token:
    """A token as the client got it; `refused`: the 401 for which it may be dropped.

    `forgotten`: by a trial after a refusal, which asks for a new one.
    """

    name: str
    got: float
    ends: float
    renew_at: float
    held: float
    refused: float | None = None
    forgotten: bool = False


@dataclass
class TokenFailure:
    """The last request for a token that earned none; whether a poll was booked for it, and one counted."""

    request: Request
    meaning: Meaning
    booked: bool = False
    counted: bool = False


class Result(NamedTuple):
    """The answer by which a poll ended; `shared`: another poll's, for which it waited too."""

    meaning: Meaning
    shared: bool = False


@dataclass
class SiteFacts:
    """One site."""

    name: str
    index: int
    script: SiteScript
    interval: float
    sweep: Sweep
    traffic: Traffic
    broken: Callable[[str, str], None]
    now: float = 0.0
    connections: dict[str, Seen] = field(default_factory=dict)
    flying: set[Request] = field(default_factory=set)
    token_request: Request | None = None
    token: Token | None = None
    token_failure: TokenFailure | None = None
    dropped: float = -1e9  # when a token was given up for a 401
    failures: int = 0
    outage: Outage | None = None
    up_since: float = -1e9
    wait_until: float = -1e9
    told_to_wait: float = -1e9
    doubtful: bool = False
    doubted: float = -1e9
    held: float = 0.0
    disturbed_until: float = 0.0
    stood_still: float = 0.0
    drained: bool = False
    secret: str = ""
    secret_is_new: bool = False  # and no tick has come since
    replaced: float = -1e9  # when a tick first found the new one
    late: float = -1e9  # the last due instant whose poll came more than ON_PHASE late
    _leaving: deque[Request] = field(default_factory=deque)
    _dues: list[tuple[float, str]] = field(default_factory=list)

    def put_in_phase(self, epoch: float) -> None:
        """When each connection is due first: at its k/n of the interval, counted from the wall's epoch."""
        ids = {each.connection.id: n for n, each in enumerate(self.sweep.watched)}
        for rank, name in enumerate(in_phase_order(ids)):
            place = rank + site_offset(self.name)
            wait = seconds_to_first(epoch, self.sweep.pace.site.interval, place, len(ids))
            self.connections[name] = Seen(name, ids[name])
            heapq.heappush(self._dues, (self.now + wait, name))

    @property
    def n(self) -> int:
        return len(self.connections)

    @property
    def window(self) -> int:
        """Requests that may have reached Wix within the last 60 s, whenever each arrived on its way."""
        while self._leaving and (self._leaving[0].ended or 0.0) + WINDOW <= self.now + 1e-6:
            self._leaving.popleft()
        return len(self.flying) + len(self._leaving)

    @property
    def extras_of_the_minute(self) -> int:
        """Extra looks that were begun within the last 60 s."""
        extras = (each for each in (*self.flying, *self._leaving) if each.extra)
        return sum(each.started > self.now - WINDOW + TOUCH for each in extras)

    @property
    def is_asked(self) -> bool:
        """Whether nothing but budget and slots holds its polls back."""
        return self.outage is None and self.now >= self.wait_until

    def pass_to(self, now: float) -> None:
        """Let time pass: due instants come, and the time in which Wix or we held the site back adds up."""
        while self._dues and self._dues[0][0] <= now:
            at, name = heapq.heappop(self._dues)
            self._spend(at)
            self._fall_due(self.connections[name], at)
            heapq.heappush(self._dues, (at + self.interval, name))
        self._spend(now)

    def started(self, request: Request) -> None:
        """A request is on its way."""
        self.flying.add(request)
        self.traffic.in_flight.add(request)
        request.doubtful = self.doubtful
        if request.connection is None:
            self.token_request = request

    def ended(self, request: Request) -> None:
        """A request has ended, however."""
        request.ended = self.now
        self.flying.discard(request)
        self.traffic.in_flight.discard(request)
        self._leaving.append(request)
        if request.connection is None:
            self.token_request = None

    def drop_waits(self) -> None:
        """Who waits is sent away, or may come when it is let go late."""
        for each in self.connections.values():
            each.may = each.may or each.waiting is not None
            each.waiting = None

    def be_told_to_wait(self, seconds: float) -> None:
        """A 429 was received."""
        self.told_to_wait = self.now
        self.wait_until = max(self.wait_until, self.now + seconds)
        self.drop_waits()

    def disturb(self, paused: float, seconds: float) -> None:
        """The loop stood still: for a while nothing is demanded."""
        self.stood_still = paused
        self.disturbed_until = max(self.disturbed_until, self.now + seconds)
        self.drop_waits()
        if self.outage is not None:
            self.outage.latest = max(self.outage.latest, self.now + seconds + 1.2 * LONGEST_BACKOFF)

    def is_dead(self, seen: Seen, at: float) -> bool:
        """Whether it is polled at each k-th interval only."""
        return seen.known is not None and seen.known[0] in DEAD and at - seen.known_since >= DAY

    def _fall_due(self, seen: Seen, at: float) -> None:
        touched = min(abs(at - each) for each in (self.up_since, self.wait_until, seen.booked)) < TOUCH
        if touched or at < self.disturbed_until:
            seen.may = True
        elif self.is_asked and seen.poll is None and seen.waiting is None and self._is_its_turn(seen, at):
            seen.waiting, seen.held = at, self.held

    def _is_its_turn(self, seen: Seen, at: float) -> bool:
        if not self.is_dead(seen, at):
            return True
        return at - seen.booked > self.interval * (self.script.dead_every - 0.5)

    def _spend(self, now: float) -> None:
        if now <= self.now:
            return
        if self.doubtful:
            self.doubted = now
        self.held += now - self.now if self._is_held() else self._held_by_budget(now)
        self.now = now

    def _is_held(self) -> bool:
        """Whether slots or a token under way hold the next request back.

        A site in doubt is promised half of the slots only, and one that asked for its slot in doubt waits
        on among the doubtful.
        """
        flying = len(self.traffic.in_flight)
        doubt = self.now - self.doubted <= self.traffic.timeout * (self.traffic.sites + 1)
        return (
            self.token_request is not None
            or len(self.flying) >= SITE_SLOTS
            or flying >= self.traffic.limit
            or (doubt and flying >= self.traffic.half)
        )

    def _held_by_budget(self, until: float) -> float:
        over = self.window - self.script.budget
        if over < 0:
            return 0.0
        if over >= len(self._leaving):
            return until - self.now
        free = (self._leaving[over].ended or 0.0) + WINDOW
        return min(free, until) - self.now
