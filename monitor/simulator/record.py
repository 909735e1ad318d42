"""What was asked and what was answered: the other side of the daemon's own account.

Of a request only its moments, its kind, the address it came to, what it was told and whether its
credentials were right are kept, never a header. Moments are the time since the simulator's start.
Memory is bounded: see REQUESTS_KEPT and RUNS_KEPT.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from monitor.simulator.scenario import Scenario
from monitor.simulator.world import Shown, Target

REQUESTS_KEPT: Final = 100_000
"""Newest requests kept of each site; the counts go on beyond."""
RUNS_KEPT: Final = 1_000
"""Newest runs kept of each connection."""

_MINUTE: Final = timedelta(minutes=1)


@dataclass(slots=True)
class Run:
    """The same status and reason answered `count` times in a row, all of them arrived in full."""

    status: str | None
    reason: str | None
    first_at: timedelta
    last_at: timedelta
    count: int = 1


@dataclass(slots=True)
class Request:
    """One request; `told` is the status that an answer sent whole told, None where none did."""

    target: Target
    address: str
    arrived: timedelta
    ended: timedelta | None = None
    told: Shown | None = None


@dataclass(slots=True)
class UnderWay:
    """Requests that came and have not ended: now, and at most at any time."""

    now: int = 0
    most: int = 0

    def enter(self) -> None:
        """Count one more."""
        self.now += 1
        self.most = max(self.most, self.now)

    def leave(self) -> None:
        """Count one less."""
        self.now -= 1


@dataclass(slots=True)
class SiteRecord:
    """What a site's credentials were used for; the site named "" is whoever could not be told."""

    sent: deque[Request] = field(default_factory=lambda: deque(maxlen=REQUESTS_KEPT))
    requests: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    wrong_credentials: int = 0
    under_way: UnderWay = field(default_factory=UnderWay)


@dataclass(slots=True)
class ConnectionRecord:
    """What was asked and told of one connection."""

    runs: deque[Run] = field(default_factory=lambda: deque(maxlen=RUNS_KEPT))
    runs_dropped: int = 0
    under_way: UnderWay = field(default_factory=UnderWay)


class Record:
    """The account of one simulator, by site and by connection of its scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.strays = 0
        """Requests of paths that Wix does not have."""
        self._sites = {name: SiteRecord() for name in ("", *(site.name for site in scenario.sites))}
        self._connections = {
            (site.name, connection.id): ConnectionRecord()
            for site in scenario.sites
            for connection in site.connections
        }

    def runs(self, connection_id: str, site: str | None = None) -> tuple[Run, ...]:
        """What was told of a connection, in order; of the first site that has it unless one is named."""
        return tuple(self.connection(connection_id, site).runs)

    def connection(self, connection_id: str, site: str | None = None) -> ConnectionRecord:
        """All that is known of a connection's requests; raises KeyError where the scenario has none such."""
        for (its_site, its_id), record in self._connections.items():
            if its_id == connection_id and site in (None, its_site):
                return record
        raise KeyError(connection_id)

    def site(self, name: str) -> SiteRecord:
        """All that is known of a site's requests; raises KeyError where the scenario has none such."""
        return self._sites[name]

    def moments(self, site: str, endpoint: str | None = None) -> tuple[timedelta, ...]:
        """When a site's requests came, in order: those of one endpoint, or all."""
        return tuple(
            each.arrived for each in self._sites[site].sent if endpoint in (None, each.target.endpoint)
        )

    def requests(self, site: str) -> tuple[Request, ...]:
        """The newest requests of a site's connections, in the order in which they came."""
        return tuple(each for each in self._sites[site].sent if each.target.endpoint == "connection")

    def busiest_minute(self, site: str) -> int:
        """The most requests of a site in any rolling minute, tokens included."""
        window: deque[timedelta] = deque()
        most = 0
        for at in self.moments(site):
            window.append(at)
            while at - window[0] >= _MINUTE:
                window.popleft()
            most = max(most, len(window))
        return most

    @contextmanager
    def under_way(
        self, target: Target, address: str, now: Callable[[], timedelta], *, trusted: bool
    ) -> Iterator[Request]:
        """Keep a request from its arrival to its end, whatever the end is."""
        request = Request(target, address, now())
        site = self._sites[target.site]
        site.sent.append(request)
        site.requests[target.endpoint] += 1
        site.wrong_credentials += not trusted
        connection = self._connections.get((target.site, target.connection))
        concerned = [record.under_way for record in (site, connection) if record is not None]
        for count in concerned:
            count.enter()
        try:
            yield request
        finally:
            request.ended = now()
            for count in concerned:
                count.leave()

    def misbehaved(self, target: Target, kind: str) -> None:
        """Note that a request met a fault."""
        self._sites[target.site].faults[kind] += 1

    def answered(self, request: Request, http_status: int, shown: Shown | None, at: timedelta) -> None:
        """Note an answer that was sent whole and, where it told a connection's status, what it told."""
        target = request.target
        self._sites[target.site].answers[http_status] += 1
        record = self._connections.get((target.site, target.connection))
        if record is None or shown is None:
            return
        request.told = shown
        if record.runs and (record.runs[-1].status, record.runs[-1].reason) == shown:
            record.runs[-1].last_at = at
            record.runs[-1].count += 1
            return
        record.runs_dropped += len(record.runs) == RUNS_KEPT
        record.runs.append(Run(shown.status, shown.reason, at, at))

    def as_json(self, *, moments: bool = False) -> dict[str, Any]:
        """The whole account, times in seconds; with each request when asked."""
        requests = self._requests_json() if moments else {}
        return {
            "strays": self.strays,
            "sites": {name: self._site_json(name, moments=moments) for name in self._sites},
            "connections": [
                _connection_json(site, connection_id, record) | requests.get((site, connection_id), {})
                for (site, connection_id), record in self._connections.items()
            ],
        }

    def _requests_json(self) -> dict[tuple[str, str], dict[str, Any]]:
        listed: dict[tuple[str, str], dict[str, Any]] = {key: {"requests": []} for key in self._connections}
        for site in self._sites:
            for each in self.requests(site):
                if (key := (site, each.target.connection)) in listed:
                    listed[key]["requests"].append(_request_json(each))
        return listed

    def _site_json(self, name: str, *, moments: bool) -> dict[str, Any]:
        site = self._sites[name]
        account: dict[str, Any] = {
            "requests": dict(site.requests),
            "answers": {str(http_status): count for http_status, count in site.answers.items()},
            "faults": dict(site.faults),
            "wrong_credentials": site.wrong_credentials,
            "busiest_minute": self.busiest_minute(name),
            "under_way": site.under_way.now,
            "most_under_way": site.under_way.most,
        }
        if moments:
            account["moments"] = [[each.arrived.total_seconds(), each.target.endpoint] for each in site.sent]
        return account


def _request_json(request: Request) -> dict[str, Any]:
    return {
        "address": request.address,
        "arrived": request.arrived.total_seconds(),
        "ended": None if request.ended is None else request.ended.total_seconds(),
        "told": None if request.told is None else request.told._asdict(),
    }


def _connection_json(site: str, connection_id: str, record: ConnectionRecord) -> dict[str, Any]:
    runs = [
        {
            "status": run.status,
            "reason": run.reason,
            "first_at": run.first_at.total_seconds(),
            "last_at": run.last_at.total_seconds(),
            "count": run.count,
        }
        for run in record.runs
    ]
    return {
        "site": site,
        "id": connection_id,
        "runs": runs,
        "runs_dropped": record.runs_dropped,
        "most_under_way": record.under_way.most,
    }
