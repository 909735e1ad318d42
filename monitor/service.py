"""The daemon: the only place that builds its parts, and their life from start to stop.

Start: listen, connect, put each site's sweep on the schedule, then say ready. Stop: start no poll, let what
is asked be answered within a limit, close. A task of its own, outside the schedule, watches the clock and
feeds the watchdog only while the schedule ticks.
"""

import asyncio
import signal
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from structlog.typing import FilteringBoundLogger

from monitor import __version__
from monitor.clock import Clock
from monitor.config import Settings, SiteSettings
from monitor.core.model import Connection
from monitor.errors import CannotStartError
from monitor.ledger import Ledger
from monitor.logs import Redactor
from monitor.metrics.page import negotiate, pieces
from monitor.metrics.snapshot import Snapshot
from monitor.metrics.telemetry import Telemetry
from monitor.report import Reporter
from monitor.schedule import Schedule
from monitor.store import Opened, open_store
from monitor.sweep import Sweep
from monitor.systemd import Notifier
from monitor.tasks import TaskBag
from monitor.web.server import Address, Page, Server
from monitor.wix.client import Api
from monitor.wix.pace import Slots
from monitor.wix.site import connect_site

DRAIN_SECONDS: Final = 6.0
"""How long a stop waits for answers under way; with all the rest it ends within 10 s."""

CLOSE_SECONDS: Final = 2.0
"""How long a stop goes on writing what a slow disk has left waiting."""

Announce = Callable[[list[str]], None]

_HEARTBEAT: Final = timedelta(seconds=1)
_PURGE_EVERY: Final = timedelta(hours=1)
_LONGEST_CHECKPOINT: Final = timedelta(seconds=30)
_STATUS_EVERY: Final = 5  # heartbeats


@dataclass(frozen=True, slots=True)
class Outside:
    """What the daemon takes from the process it runs in."""

    log: FilteringBoundLogger
    redactor: Redactor
    clock: Clock
    notifier: Notifier


class Service:
    """The daemon over one configuration."""

    def __init__(self, settings: Settings, outside: Outside, opened: Opened) -> None:
        self._settings = settings
        self._log = outside.log
        self._clock = outside.clock
        self._notifier = outside.notifier
        self._telemetry = Telemetry()
        self._not_ready: str | None = "starting"
        self._beats = 0
        self._failed = asyncio.Event()
        self._api = Api(settings.api, self._clock, self._telemetry.request_took)
        self._server = Server(self._page, lambda: self._not_ready)
        self._schedule = Schedule(self._clock, self._tick_skipped, self._tick_failed)
        self._tasks = TaskBag(self._task_failed)
        self._store = opened.store
        if opened.set_aside is not None:
            self._telemetry.store_failed()
        reporter = Reporter(self._log, self._telemetry, self._clock)
        checkpoint = min(_LONGEST_CHECKPOINT, *(site.interval_in_force for site in settings.sites))
        self._ledger = Ledger(opened.store, reporter, self._telemetry, self._log, checkpoint)
        slots = Slots(settings.api.max_in_flight)
        self._sweeps = [self._sweep(site, slots, reporter, outside.redactor) for site in settings.sites]

    def _sweep(self, site: SiteSettings, slots: Slots, reporter: Reporter, redactor: Redactor) -> Sweep:
        client = connect_site(
            site,
            self._api,
            slots,
            self._clock,
            hide=redactor.hide,
            on_renewed=lambda: self._log.debug("token_renewed", site=site.name),
        )
        return Sweep(
            site.connections,
            client,
            self._ledger,
            reporter,
            self._telemetry,
            self._clock,
            on_crash=self._poll_crashed,
            on_task_error=self._task_failed,
        )

    async def run(self, addresses: Sequence[Address], stop: asyncio.Event, announce: Announce) -> bool:
        """Watch until `stop` is set; False where a defect ended it. Raises CannotStartError."""
        counts = self._counts()
        try:
            urls = await self._start(addresses)
        except CannotStartError:
            self._store.close()  # not the ledger: it would write what this run has never watched
            raise
        announce(urls)
        self._log.info("monitor_started", version=__version__, **counts)
        self._not_ready = None
        self._notifier.ready(self._status())
        self._log.info("monitor_ready", version=__version__, listening=urls, **counts)
        try:
            await self._until(stop)
        finally:
            await self._stop(counts)
        return not self._failed.is_set()

    async def _start(self, addresses: Sequence[Address]) -> list[str]:
        try:
            await self._api.open()
        except (OSError, ssl.SSLError) as error:
            raise CannotStartError(f"api.ca_file {self._settings.api.ca_file}: {error}") from error
        try:
            urls = await self._server.start(addresses)
        except CannotStartError:
            await self._api.close()
            raise
        self._telemetry.config_reloaded(self._clock.wall(self._clock.now()).timestamp())
        self._tell_stretched()
        self._ledger.tell_untold()
        self._tasks.start(self._ledger.run(), name="ledger")
        self._schedule.every("purge", _PURGE_EVERY, self._purge)
        self._schedule.every("heartbeat", _HEARTBEAT, self._beat)
        for sweep in self._sweeps:
            sweep.start()
            self._schedule.every(f"sweep {sweep.pace.site.name}", sweep.tick_period, sweep.tick)
        self._schedule.start()
        self._tasks.start(self._guard(), name="guard")
        return urls

    async def _until(self, stop: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (stop, self._failed)]  # noqa: TID251  held here
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _stop(self, counts: dict[str, int]) -> None:
        self._not_ready = "stopping"
        self._notifier.stopping()
        self._log.info("monitor_stopping", version=__version__, **counts)
        self._schedule.stop()
        cut = await asyncio.gather(*(sweep.drain(DRAIN_SECONDS) for sweep in self._sweeps))
        await self._tasks.drain(0)
        unwritten = await self._ledger.close(CLOSE_SECONDS)
        await self._server.stop()
        await self._api.close()
        if unwritten:
            self._log.error(
                "changes_unwritten", changes=unwritten, mend="they are told anew if they still hold"
            )
        facts = {"polls_cut_off": sum(cut), "changes_unwritten": unwritten}
        self._log.info("monitor_stopped", version=__version__, **facts, **counts)

    async def _guard(self) -> None:
        """Watch the clock and feed the watchdog, outside the schedule that they guard."""
        seen = 0
        while True:
            await asyncio.sleep(_HEARTBEAT.total_seconds())
            step = self._clock.notice_step()
            if step is not None:
                self._log.warning("clock_stepped", step_seconds=round(step.total_seconds(), 3))
                self._schedule.rearm()
            if self._beats != seen:
                seen = self._beats
                self._notifier.alive()

    def _beat(self) -> None:
        self._beats += 1
        self._telemetry.ticked(self._clock.wall(self._clock.now()).timestamp())
        if self._beats % _STATUS_EVERY == 0:
            self._notifier.status(self._status())

    def _purge(self) -> None:
        """Every hour, but for the first: a clock that is wrong at boot has been set by then."""
        if self._beats * _HEARTBEAT < _PURGE_EVERY / 2:
            return
        connections = (each for site in self._settings.sites for each in site.connections)
        watched = {(each.site, each.id) for each in connections}
        self._tasks.start(self._ledger.purge(self._settings.store.history_retention, watched), name="purge")

    def _tell_stretched(self) -> None:
        for site in self._settings.sites:
            if site.interval_in_force > site.interval:
                self._log.warning("interval_stretched", site=site.name, interval=site.interval_in_force)

    def _page(self, accept: str) -> Page:
        dialect, content_type = negotiate(accept)
        return Page(content_type, pieces(self._snapshot(), self._telemetry, dialect))

    def _snapshot(self) -> Snapshot:
        now = self._clock.now()
        wall = self._clock.wall(now)
        maintained = [site.maintenance_until for site in self._settings.sites]
        return Snapshot(
            now=now,
            correction=wall - now,
            connections=[(each.connection, each.state) for sweep in self._sweeps for each in sweep.watched],
            sites=[
                sweep.snapshot(maintenance=until is not None and wall < until)
                for sweep, until in zip(self._sweeps, maintained, strict=True)
            ],
        )

    def _status(self) -> str:
        now = self._clock.now()
        watched = [each for sweep in self._sweeps for each in sweep.watched]
        seen = [each for each in watched if each.state.status is not None]
        bad = sum(not each.state.is_healthy(each.connection.policy) for each in seen)
        stale = sum(each.state.is_stale(each.connection.policy, now) for each in watched)
        down = sum(sweep.pace.state.outage is not None for sweep in self._sweeps)
        unseen = len(watched) - len(seen)
        return (
            f"connections: {len(watched)}, {unseen} not seen yet, {bad} unhealthy, {stale} stale; "
            f"sites: {len(self._sweeps)}, {down} down"
        )

    def _counts(self) -> dict[str, int]:
        sites = self._settings.sites
        return {"sites": len(sites), "connections": sum(len(site.connections) for site in sites)}

    def _poll_crashed(self, connection: Connection, error: Exception) -> None:
        self._log.error("poll_crashed", site=connection.site, connection=connection.name, exc_info=error)

    def _tick_skipped(self, job: str) -> None:
        self._log.warning("tick_skipped", job=job)

    def _tick_failed(self, job: str, error: BaseException) -> None:
        self._log.error("tick_failed", job=job, exc_info=error)

    def _task_failed(self, error: BaseException) -> None:
        """A task nobody may lose has died: better to end, and be started anew, than to watch half."""
        self._log.critical("task_failed", exc_info=error)
        self._failed.set()


async def serve(
    settings: Settings, outside: Outside, addresses: Sequence[Address], announce: Announce = lambda _: None
) -> bool:
    """Run the daemon until SIGTERM or SIGINT; False where a defect ended it. Raises CannotStartError.

    `announce` is told the URLs that answer, before anything else is.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: outside.log.warning("reload_not_offered", mend="restart"))
    opened = open_store(settings.store.path, outside.clock)
    if opened.set_aside is not None:  # told before the start can fail: the next one would find no trace
        outside.log.error("store_set_aside", kept_as=str(opened.set_aside), mend="history begins anew")
    return await Service(settings, outside, opened).run(addresses, stop, announce)
