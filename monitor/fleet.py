"""Every site's sweep, over settings that may change while it runs.

A change is one step without an await: between two polls there is one configuration, whole. What is the same
before and after is not touched: a site keeps its budget, its breaker and its token, a connection its state,
its phase and a poll under way.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from structlog.typing import FilteringBoundLogger

from monitor.clock import Clock
from monitor.config import OAuthCredential, Settings, SiteSettings
from monitor.core.model import Connection
from monitor.ledger import Ledger
from monitor.logs import Redactor
from monitor.metrics.snapshot import Pairs, Snapshot
from monitor.metrics.telemetry import Telemetry
from monitor.report import Reporter
from monitor.schedule import Schedule
from monitor.sweep import Sweep, Watched
from monitor.tasks import TaskBag
from monitor.view.facts import Facts, SiteFacts
from monitor.view.failures import Failures
from monitor.wix.client import Api
from monitor.wix.pace import Pace, Permit, Slots
from monitor.wix.site import adapt_site, connect_site

_AT_A_TIME: Final = 1000  # connections: less than a millisecond
_LONGEST_CHECKPOINT: Final = timedelta(seconds=30)


def checkpoint_for(settings: Settings) -> timedelta:
    """How often what polls merely confirmed is written."""
    return min((_LONGEST_CHECKPOINT, *(site.interval_in_force for site in settings.sites)))


class _Watched(NamedTuple):
    all: Sequence[Watched]
    connections: Sequence[Connection]


class Fleet:
    """The sweeps of all sites, on the schedule."""

    def __init__(
        self,
        settings: Settings,
        api: Api,
        ledger: Ledger,
        *,
        reporter: Reporter,
        telemetry: Telemetry,
        schedule: Schedule,
        clock: Clock,
        log: FilteringBoundLogger,
        redactor: Redactor,
        on_task_error: Callable[[BaseException], None],
        permit: Permit,
    ) -> None:
        self.settings = settings
        self._permit = permit
        self._api = api
        self._ledger = ledger
        self._reporter = reporter
        self._telemetry = telemetry
        self._schedule = schedule
        self._clock = clock
        self._log = log
        self._redactor = redactor
        self._on_task_error = on_task_error
        self._tasks = TaskBag(on_task_error)
        self._failures = Failures()
        self._slots = Slots(settings.api.max_in_flight)
        self._retiring: set[Sweep] = set()
        self._listed: _Watched | None = None
        self._left: dict[Hashable, Pace] = {}  # of sites that went, by the quota that they used
        self._sweeps = {site.name: self._sweep(site) for site in settings.sites}

    def start(self) -> None:
        """Put every site on the schedule."""
        for name in self._sweeps:
            self._begin(name)
        self._tell_stretched(None)

    def take_over(self, settings: Settings) -> None:
        """Go on with other settings, from one instant to the next."""
        before = {site.name: site for site in self.settings.sites}
        if settings.api.max_in_flight != self.settings.api.max_in_flight:
            self._slots.resize(settings.api.max_in_flight)
        former, self._sweeps = self._sweeps, {}
        for name in former.keys() - {site.name for site in settings.sites}:
            self._left[before[name].credential.quota] = former[name].pace
        for site in settings.sites:
            sweep = former.pop(site.name, None)
            self._sweeps[site.name] = sweep or self._sweep(site)
            if sweep is None:
                self._begin(site.name)
            elif site is not before[site.name] and site != before[site.name]:  # to compare all takes longer
                self._adapt(sweep, site)
        for name, sweep in former.items():
            self._end(name, sweep)
        if settings.api != self.settings.api:
            for sweep in self._sweeps.values():
                sweep.try_anew()
        told, self.settings = self.settings, settings
        self._listed = None
        self._ledger.checkpoint_every = checkpoint_for(settings)
        self._tell_stretched(told)

    async def drain(self, limit: float) -> int:
        """Start no poll more, let those under way end; how many were cut off after `limit` seconds."""
        cut = await asyncio.gather(
            *(sweep.drain(limit) for sweep in (*self._sweeps.values(), *self._retiring))
        )
        await self._tasks.drain(0)
        return sum(cut)

    async def let_end(self, those: Iterable[Connection], limit: float) -> None:
        """Start no poll of these, which are to be taken out next, and take the answers under way.

        What has not come within `limit` seconds is cut off, and so are requests of what was taken out before.
        """
        ids: dict[str, set[str]] = {}
        for each in those:
            ids.setdefault(each.site, set()).add(each.id)
        sweeps = [each for each in (*self._sweeps.values(), *self._retiring) if each.pace.site.name in ids]
        await asyncio.gather(*(sweep.let_end(ids[sweep.pace.site.name], limit) for sweep in sweeps))

    def snapshot(self) -> Snapshot:
        """All that `/metrics` shows of sites and connections, as it is now."""
        now = self._clock.now()
        wall = self._clock.wall(now)
        until = {site.name: site.maintenance_until for site in self.settings.sites}
        sites = []
        for name, sweep in self._sweeps.items():
            end = until[name]
            sites.append(sweep.snapshot(maintenance=end is not None and wall < end))
        watched = self._watched()
        known = Pairs(watched.connections, [each.state for each in watched.all])
        return Snapshot(now=now, correction=wall - now, connections=known, sites=sites)

    def _watched(self) -> _Watched:
        """Everything under watch; listed once until the next change, as there may be very much."""
        if self._listed is None:
            all_ = [each for sweep in self._sweeps.values() for each in sweep.watched]
            self._listed = _Watched(all_, [each.connection for each in all_])
        return self._listed

    def facts(self) -> Facts:
        """What runs, for the page and the API; no connection is looked at here, as there may be very many."""
        now = self._clock.now()
        return Facts(
            now=now,
            monotonic=self._clock.monotonic(),
            correction=self._clock.wall(now) - now,
            sites={site.name: _facts_of(site, self._sweeps[site.name]) for site in self.settings.sites},
            failures=self._failures,
            store=self._ledger.facts,
        )

    async def tally(self) -> str:
        """All in a line, for `systemctl status`; counted a few at a time, as there may be very many."""
        watched = self._watched().all
        unseen = bad = stale = 0
        for start in range(0, len(watched), _AT_A_TIME):
            now = self._clock.now()
            for each in watched[start : start + _AT_A_TIME]:
                state, policy = each.state, each.connection.policy
                unseen += state.status is None
                bad += state.status is not None and not state.is_healthy(policy)
                stale += state.is_stale(policy, now)
            await asyncio.sleep(0)
        down = sum(sweep.pace.state.outage is not None for sweep in self._sweeps.values())
        return (
            f"connections: {len(watched)}, {unseen} not seen yet, {bad} unhealthy, {stale} stale; "
            f"sites: {len(self._sweeps)}, {down} down"
        )

    def counts(self) -> dict[str, int]:
        """How many sites and connections are watched."""
        sites = self.settings.sites
        return {"sites": len(sites), "connections": sum(len(site.connections) for site in sites)}

    def _sweep(self, site: SiteSettings) -> Sweep:
        client = connect_site(
            site,
            self._api,
            self._slots,
            self._clock,
            hide=self._redactor.hide,
            on_renewed=lambda: self._log.debug("token_renewed", site=site.name),
            permit=self._permit,
        )
        if (left := self._left.pop(site.credential.quota, None)) is not None:
            client.pace.inherit(left)
        return Sweep(
            site.connections,
            client,
            self._ledger,
            self._reporter,
            self._telemetry,
            self._clock,
            on_crash=self._poll_crashed,
            on_task_error=self._on_task_error,
            failures=self._failures,
        )

    def _begin(self, name: str) -> None:
        sweep = self._sweeps[name]
        sweep.start()
        self._schedule.every(_job(name), sweep.tick_period, sweep.tick)

    def _adapt(self, sweep: Sweep, site: SiteSettings) -> None:
        period = sweep.tick_period
        adapt_site(sweep.client, site)
        sweep.take_over(site.connections)
        if sweep.tick_period != period:
            self._schedule.cancel(_job(site.name))
            self._schedule.every(_job(site.name), sweep.tick_period, sweep.tick)

    def _end(self, name: str, sweep: Sweep) -> None:
        self._schedule.cancel(_job(name))
        sweep.take_over(())
        self._retiring.add(sweep)
        self._tasks.start(self._retire(sweep), name=f"end of site {name}")

    async def _retire(self, sweep: Sweep) -> None:
        await sweep.drain(self.settings.api.timeout.total_seconds())
        self._retiring.discard(sweep)

    def _tell_stretched(self, before: Settings | None) -> None:
        stretched = [site for site in self.settings.sites if site.interval_in_force > site.interval]
        sites = before.sites if before is not None and stretched else ()
        told = {site.name: site.interval_in_force for site in sites}
        for site in stretched:
            if told.get(site.name) != site.interval_in_force:
                self._log.warning("interval_stretched", site=site.name, interval=site.interval_in_force)

    def _poll_crashed(self, connection: Connection, error: Exception) -> None:
        self._log.error("poll_crashed", site=connection.site, connection=connection.name, exc_info=error)


def _facts_of(site: SiteSettings, sweep: Sweep) -> SiteFacts:
    pace = sweep.pace
    return SiteFacts(
        name=site.name,
        state=pace.state,
        watched=sweep.watched,
        interval=site.interval,
        interval_in_force=site.interval_in_force,
        requests_per_minute=pace.requests_per_minute,
        used=pace.used,
        requests=pace.requests,
        failures=dict(pace.failures),
        polls_waiting=sweep.polls_waiting,
        throttled_seconds=pace.throttled_seconds,
        lag_seconds=sweep.lag_seconds,
        credential="oauth" if isinstance(site.credential, OAuthCredential) else "api_key",
        maintenance_until=site.maintenance_until,
    )


def _job(site: str) -> str:
    return f"sweep {site}"
