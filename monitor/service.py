"""The daemon: the only place that builds its parts, and their life from start to stop.

Start: listen, connect, put each site's sweep on the schedule, then say ready. Stop: start no poll, let what
is asked be answered within a limit, close. A task of its own, outside the schedule, watches the clock and
feeds the watchdog only while the schedule ticks. SIGHUP, which may come at any time after the process has
begun to start, reloads the configuration once all is up.
"""

import asyncio
import gc
import signal
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from structlog.typing import FilteringBoundLogger

from monitor import __version__
from monitor.clock import Clock
from monitor.config import Loaded, Settings, share
from monitor.core.shards import ALONE
from monitor.errors import CannotStartError, ConfigError, Problem, StoreError
from monitor.feeds import Feeds
from monitor.fleet import Fleet, checkpoint_for
from monitor.ledger import Ledger
from monitor.logs import Redactor
from monitor.metrics.exposition import Dialect, Renderer
from monitor.metrics.page import negotiate, pieces
from monitor.metrics.pieces import Piece
from monitor.metrics.telemetry import Telemetry
from monitor.reload import Outcome, Reloader, Trigger
from monitor.report import Reporter
from monitor.schedule import Schedule
from monitor.store import Key, Opened, open_store, reading
from monitor.systemd import Notifier
from monitor.tasks import TaskBag
from monitor.view.facts import Facts
from monitor.web.listening import for_others
from monitor.web.server import Known, Page, ReloadAnswer, Server, WebOptions
from monitor.wix.client import Api
from monitor.wix.pace import UNSHARED, Permit

if TYPE_CHECKING:
    from monitor.cluster import Cluster

DRAIN_SECONDS: Final = 6.0
"""How long a stop waits for answers under way; with all the rest it ends within 10 s."""

CLOSE_SECONDS: Final = 2.0
"""How long a stop goes on writing what a slow disk has left waiting."""

Announce = Callable[[list[str]], None]

_CYCLES: Final = (5_000, 100, 20)
"""How much must be new before cycles are looked for: each look is a stall, and few things here are in one."""

_TURN: Final = 0.001
"""Seconds after which a thread that reads or writes gives the loop its turn. With Python's own 5 ms a
client, who needs several turns, waits for a tenth of a second while a configuration is read."""

_HEARTBEAT: Final = timedelta(seconds=1)
_PURGE_EVERY: Final = timedelta(hours=1)
_STATUS_EVERY: Final = 5  # heartbeats


@dataclass(frozen=True, slots=True)
class Outside:
    """What the daemon takes from the process it runs in.

    `auto_reload`: whether it takes the configuration as it changes; `node`: what it is called among others
    that share its store.
    """

    log: FilteringBoundLogger
    redactor: Redactor
    clock: Clock
    notifier: Notifier
    auto_reload: bool = False
    node: str = ""


class Service:
    """The daemon over one configuration."""

    def __init__(
        self, loaded: Loaded, outside: Outside, opened: Opened, hangup: asyncio.Event, web: WebOptions
    ) -> None:
        self._web = web
        self._log = outside.log
        self._clock = outside.clock
        self._node = outside.node
        self._notifier = outside.notifier
        self._shard = loaded.shard or ALONE
        self._telemetry = Telemetry(shard_ordinal=self._shard.ordinal, total_shards=self._shard.total)
        self._renderer = Renderer()
        self._not_ready: str | None = "starting"
        self._beats = 0
        self._failed = asyncio.Event()
        self._api = Api(loaded.settings.api, self._clock, self._telemetry.request_took)
        self._server = Server(
            self._page,
            lambda: self._not_ready,
            self._reload_on_request if web.enable_lifecycle else None,
            known=Known(
                self._facts,
                lambda seconds: reading(loaded.settings.store, seconds, outside.redactor.hide),
                str(loaded.file),
                self._shard,
            ),
            config=web.config,
            config_changed=self._web_config_changed,
            on_error=self._task_failed,
        )
        self._schedule = Schedule(self._clock, self._tick_skipped, self._tick_failed)
        self._tasks = TaskBag(self._task_failed)
        self._store = opened.store
        self._whole = loaded.settings
        self._cluster = self._cluster_over(opened, outside)
        keep = self._whole.store.on_engine_loss == "keep"
        self._permit: Permit = UNSHARED if self._cluster is None or keep else self._cluster
        self._untold = opened.untold
        if opened.set_aside is not None:
            self._telemetry.store_failed()
        if loaded.settings.store.is_shared:
            self._telemetry.store_is_shared()
        reporter = Reporter(self._log, self._telemetry, self._clock)
        self._ledger = Ledger(
            opened.store,
            reporter,
            self._telemetry,
            self._clock,
            self._log,
            checkpoint_for(loaded.settings),
            known=opened.known,
            may_tell=self._may_tell,
        )
        self._fleet = Fleet(
            loaded.settings if self._cluster is None else share(loaded.settings, ()),
            self._api,
            self._ledger,
            reporter=reporter,
            telemetry=self._telemetry,
            schedule=self._schedule,
            clock=self._clock,
            log=self._log,
            redactor=outside.redactor,
            on_task_error=self._task_failed,
            permit=self._permit,
        )
        self._reloader = Reloader(
            loaded,
            self._take_over,
            self._log,
            self._telemetry,
            self._wall,
            watch_file=outside.auto_reload,
        )
        self._feeds = Feeds(self._log, self._telemetry, self._wall, outside.redactor.hide, self._task_failed)
        self._hangup = hangup
        self._file = loaded.file

    async def run(self, stop: asyncio.Event, announce: Announce) -> bool:
        """Watch until `stop` is set; False where a defect ended it. Raises CannotStartError."""
        try:
            urls = await self._start()
        except CannotStartError:
            await self._store.close()  # not the ledger: it would write what this run has never watched
            raise
        announce(urls)
        counts = self._fleet.counts() | self._which()
        self._log.info("monitor_started", version=__version__, **counts)
        gc.freeze()  # what the start has made stays, and need not be walked through for cycles ever again
        gc.set_threshold(*_CYCLES)
        gc.enable()
        self._not_ready = None
        self._notifier.ready(await self._status())
        self._log.info("monitor_ready", version=__version__, listening=urls, **counts)
        self._tasks.start(self._reload_on_hangup(), name="reload")
        self._tasks.start(self._reloader.watch(), name="watch")
        try:
            await self._until(stop)
        finally:
            await self._stop()
        return not self._failed.is_set()

    def _which(self) -> dict[str, object]:
        """The node or the shard, where there are several."""
        its = self._shard
        if self._cluster is not None:
            return {"node": self._node}
        return {"shard": its.ordinal, "total_shards": its.total} if its.several else {}

    async def _start(self) -> list[str]:
        try:
            await self._api.open()
        except (OSError, ssl.SSLError) as error:
            raise CannotStartError(f"api.ca_file {self._fleet.settings.api.ca_file}: {error}") from error
        try:
            urls = await self._server.start(self._web.addresses, systemd_socket=self._web.systemd_socket)
        except CannotStartError:
            await self._api.close()
            raise
        self._fleet.start()  # of a node nothing: what it claims begins by itself
        if self._cluster is not None:
            await self._join(self._cluster, urls)
        self._telemetry.config_reloaded(self._wall())
        self._ledger.learn({}, self._untold)
        self._tasks.start(self._ledger.run(), name="ledger")
        self._schedule.every("purge", _PURGE_EVERY, self._purge)
        self._schedule.every("heartbeat", _HEARTBEAT, self._beat)
        self._feeds.take_over(self._whole)
        self._schedule.start()
        self._tasks.start(self._guard(), name="guard")
        return urls

    def _cluster_over(self, opened: Opened, outside: Outside) -> "Cluster | None":
        if opened.shared is None:
            return None
        from monitor.cluster import Cluster  # noqa: PLC0415  its driver is an extra

        return Cluster(
            outside.node,
            opened.shared,
            self._whole.store.lease_ttl,
            self._clock,
            self._log,
            self._telemetry,
            self._task_failed,
        )

    async def _join(self, cluster: "Cluster", urls: list[str]) -> None:
        try:
            await cluster.start(for_others(urls), self._whole, self._fleet, self._ledger)
        except (CannotStartError, StoreError) as error:
            await self._server.stop()
            await self._api.close()
            place = self._whole.store.place
            told = f"{place} cannot be shared ({error}); see to its log"
            raise error if isinstance(error, CannotStartError) else CannotStartError(told) from error

    def _may_tell(self, key: Key) -> bool:
        return self._cluster is None or self._cluster.may_tell(key)

    async def _until(self, stop: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (stop, self._failed)]  # noqa: TID251  held here
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _stop(self) -> None:
        counts = self._fleet.counts() | self._which()
        self._not_ready = "stopping"
        self._notifier.stopping()
        self._log.info("monitor_stopping", version=__version__, **counts)
        self._schedule.stop()
        if self._cluster is not None:
            await self._cluster.rest()
        cut = await self._fleet.drain(DRAIN_SECONDS)
        await self._feeds.close()
        await self._tasks.drain(0)
        unwritten = await self._ledger.close(CLOSE_SECONDS)
        if self._cluster is not None:
            await self._cluster.stop()
        await self._server.stop()
        await self._api.close()
        if unwritten:
            self._log.error(
                "changes_unwritten", changes=unwritten, mend="they are told anew if they still hold"
            )
        facts = {"polls_cut_off": cut, "changes_unwritten": unwritten}
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
            self._tasks.start(self._tell_status(), name="status")

    async def _tell_status(self) -> None:
        status = await self._status()
        if self._not_ready is None:
            self._notifier.status(status)

    async def _status(self) -> str:
        """Counted only where somebody listens: it is some work at many connections."""
        return await self._fleet.tally() if self._notifier.is_heard else ""

    def _purge(self) -> None:
        """Every hour, but for the first: a clock that is wrong at boot has been set by then."""
        if self._beats * _HEARTBEAT < _PURGE_EVERY / 2:
            return
        settings = self._whole
        watched = {(each.site, each.id) for site in settings.sites for each in site.connections}
        self._tasks.start(self._ledger.purge(settings.store.history_retention, watched), name="purge")

    def _page(self, accept: str) -> Page:
        dialect, content_type = negotiate(accept)
        return Page(content_type, self._pieces(dialect))

    def _pieces(self, dialect: Dialect) -> Iterator[Piece]:
        """The page as of when its first piece is asked for."""
        if self._cluster is not None:
            self._cluster.measure()
        yield from pieces(self._fleet.snapshot(), self._telemetry, dialect, self._renderer)

    def _facts(self) -> Facts:
        facts, cluster = self._fleet.facts(), self._cluster
        if cluster is None:
            return facts
        return replace(facts, node=cluster.facts(self._whole.store, stops=self._permit is cluster))

    def _wall(self) -> float:
        return self._clock.wall(self._clock.now()).timestamp()

    async def reload(self, trigger: Trigger) -> Outcome:
        """Read the configuration anew."""
        self._notifier.reloading()
        try:
            return await self._reloader.reload(trigger)
        finally:
            status = await self._status()
            if self._not_ready is None:
                self._notifier.ready(status)

    async def _reload_on_hangup(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            await self.reload("signal")

    async def _reload_on_request(self) -> ReloadAnswer:
        outcome = await self.reload("request")
        return ReloadAnswer(outcome.taken, outcome.document())

    async def _take_over(self, settings: Settings) -> None:
        if self._not_ready is not None:
            raise self._refusal("", "the daemon is stopping")
        for key in self._whole.store.needs_restart(settings.store):
            raise self._refusal(f"store.{key}", "cannot change while the daemon runs; restart it")
        try:
            await self._api.adapt(settings.api)
        except (OSError, ssl.SSLError) as error:
            raise self._refusal("api.ca_file", f"cannot be used: {error}") from error
        self._whole = settings
        if self._cluster is None:
            self._fleet.take_over(settings)
        else:
            self._cluster.take_over(settings)
        self._feeds.take_over(settings)

    def _refusal(self, path: str, message: str) -> ConfigError:
        return ConfigError((Problem(str(self._file), 0, path, message),))

    def _tick_skipped(self, job: str) -> None:
        self._log.warning("tick_skipped", job=job)

    def _tick_failed(self, job: str, error: BaseException) -> None:
        self._log.error("tick_failed", job=job, exc_info=error)

    def _web_config_changed(self, problems: tuple[Problem, ...]) -> None:
        if problems:
            self._log.error("web_config_failed", problems=[str(each) for each in problems])
        else:
            self._log.info("web_config_reloaded")

    def _task_failed(self, error: BaseException) -> None:
        """A task nobody may lose has died: better to end, and be started anew, than to watch half."""
        if isinstance(error, CannotStartError):
            self._log.critical("cannot_go_on", reason=str(error))
        else:
            self._log.critical("task_failed", exc_info=error)
        self._failed.set()


async def serve(
    loaded: Loaded, outside: Outside, web: WebOptions, announce: Announce = lambda _: None
) -> bool:
    """Run the daemon until SIGTERM or SIGINT; False where a defect ended it. Raises CannotStartError.

    `announce` is told the URLs that answer, before anything else is.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    hangup = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    sys.setswitchinterval(_TURN)
    gc.disable()  # until it is ready: what a start makes stays, and looking for cycles in it costs seconds
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one that came before now comes here
    opened = await open_store(
        loaded.settings.store, outside.clock, node=outside.node, hide=outside.redactor.hide
    )
    if opened.set_aside is not None:  # told before the start can fail: the next one would find no trace
        outside.log.error("store_set_aside", kept_as=str(opened.set_aside), mend="history begins anew")
    return await Service(loaded, outside, opened, hangup, web).run(stop, announce)
