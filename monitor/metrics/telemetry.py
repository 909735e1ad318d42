"""The process's own instruments, on a registry of their own: histograms, counts, the build, the process."""

import math
import platform
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Metric,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from monitor import __version__
from monitor.metrics.exposition import Dialect
from monitor.metrics.families import BY_NAME

MissReason = Literal["overrun", "overlap"]

_MISS_REASONS: Final = ("overrun", "overlap")
_FIELDS: Final = ("status", "errorReason", "calendarType")
_NODE: Final = (
    "wix_calendar_monitor_lease_held",
    "wix_calendar_monitor_nodes",
    "wix_calendar_monitor_sites",
    "wix_calendar_monitor_sites_unowned",
)
_REQUEST_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ENCODERS: Final = {
    Dialect.TEXT: choose_encoder("")[0],
    Dialect.OPENMETRICS: choose_encoder("application/openmetrics-text")[0],
}


class Telemetry:
    """Counts what the process does; each method is named after what happened."""

    def __init__(self, *, shard_ordinal: int = 0, total_shards: int = 1) -> None:
        self._registry = _Registry()
        self._requests = _Distribution("wix_calendar_api_request_duration_seconds", _REQUEST_BUCKETS)
        self._lags = _Distribution("wix_calendar_monitor_poll_lag_seconds", _LAG_BUCKETS)
        self._registry.register(self._requests)
        self._registry.register(self._lags)
        self._missed = self._counter("wix_calendar_monitor_polls_missed_total", _MISS_REASONS)
        self._unrecognized = self._counter("wix_calendar_monitor_unrecognized_values_total", _FIELDS)
        self._store_failures = self._counter("wix_calendar_monitor_store_failures_total")
        self._fenced = self._counter("wix_calendar_monitor_fenced_writes_total", shown=False)
        self._feed_up = self._gauge("wix_calendar_monitor_feed_up")
        self._feed_success = self._gauge("wix_calendar_monitor_feed_last_success_timestamp_seconds")
        self._node = [_Late(name, self._registry) for name in _NODE]
        self._tick = _Late("wix_calendar_monitor_last_tick_timestamp_seconds", self._registry)
        self._loaded = _Late("wix_calendar_monitor_config_last_reload_successful", self._registry)
        self._loaded_at = _Late(
            "wix_calendar_monitor_config_last_reload_success_timestamp_seconds", self._registry
        )
        self._gauge("wix_calendar_monitor_build_info").labels(__version__, platform.python_version()).set(1)
        self._gauge("wix_calendar_monitor_shard_ordinal").set(shard_ordinal)
        self._gauge("wix_calendar_monitor_total_shards").set(total_shards)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def request_took(self, seconds: float) -> None:
        """One HTTP request to Wix ended, with or without an answer, after so many seconds."""
        self._requests.observe(seconds)

    def poll_lagged(self, seconds: float) -> None:
        """A poll was started so many seconds after its due instant."""
        self._lags.observe(seconds)

    def poll_missed(self, reason: MissReason, count: int = 1) -> None:
        """So many polls of a connection were due and are not going to be started."""
        self._missed.labels(reason).inc(count)

    def ticked(self, wall_seconds: float) -> None:
        """The scheduler is alive; seconds since 1970 on the machine's clock."""
        self._tick.set(wall_seconds)

    def value_unrecognized(self, field: str) -> None:
        """Wix used a word in this field of the answer that this version does not know."""
        self._unrecognized.labels(field).inc()

    def config_reloaded(self, wall_seconds: float) -> None:
        """A configuration came into force, the first one too; seconds since 1970 on the machine's clock."""
        self._loaded.set(1)
        self._loaded_at.set(wall_seconds)

    def config_reload_failed(self) -> None:
        """A configuration was refused."""
        self._loaded.set(0)

    def feed_looked_at(self, site: str, feed: str, wall_seconds: float, *, well: bool) -> None:
        """A list of connections was asked for; seconds since 1970 on the machine's clock."""
        self._feed_up.labels(site, feed).set(well)
        if well:
            self._feed_success.labels(site, feed).set(wall_seconds)

    def feed_gone(self, site: str, feed: str) -> None:
        """That URL is not asked any more."""
        for gauge in (self._feed_up, self._feed_success):
            gauge.remove(site, feed)

    def store_failed(self) -> None:
        """The state store could not be read or written."""
        self._store_failures.inc()

    def store_is_shared(self) -> None:
        """Several nodes may write the store: what it refuses is counted from here on."""
        self._registry.register(self._fenced)

    def writes_fenced(self, count: int) -> None:
        """The store refused so many states, as another node has taken their connections over."""
        self._fenced.inc(count)

    def node_stands(self, *, holds: bool, nodes: int, owned: int, unowned: int) -> None:
        """How this node stands among those that share the store: its lease, who lives, what is whose."""
        for gauge, value in zip(self._node, (holds, nodes, owned, unowned), strict=True):
            gauge.set(value)

    def render(self, dialect: Dialect) -> bytes:
        """The families of this process, without the line that ends an OpenMetrics page."""
        return _ENCODERS[dialect](self._registry).removesuffix(b"# EOF\n")

    def _counter(self, name: str, known: tuple[str, ...] = (), *, shown: bool = True) -> Counter:
        family = BY_NAME[name]
        counter = Counter(name, family.help, family.labels, registry=self._registry if shown else None)
        for value in known:  # a series that starts at 0 lets increase() see its first step
            counter.labels(value)
        return counter

    def _gauge(self, name: str) -> Gauge:
        family = BY_NAME[name]
        return Gauge(name, family.help, family.labels, registry=self._registry)


class _Distribution(Collector):
    """A histogram that counts in a tenth of the time of the library's, which is made for many threads."""

    def __init__(self, name: str, buckets: tuple[float, ...]) -> None:
        self._name = name
        self._bounds = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterable[Metric]:
        bounds = [str(floatToGoString(each)) for each in (*self._bounds, math.inf)]  # type: ignore[no-untyped-call]
        family = HistogramMetricFamily(self._name, BY_NAME[self._name].help)
        family.add_metric([], list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)
        return (family,)


class _Late:
    """A gauge that is absent before its first value, where the library's would say 0."""

    def __init__(self, name: str, registry: CollectorRegistry) -> None:
        self._gauge = Gauge(name, BY_NAME[name].help, registry=None)
        self._registry: CollectorRegistry | None = registry

    def set(self, value: float) -> None:
        self._gauge.set(value)
        if self._registry is not None:
            self._registry.register(self._gauge)
            self._registry = None


class _Registry(CollectorRegistry):
    """A registry without `_created` series; the library's own switch would be one for the whole process."""

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
