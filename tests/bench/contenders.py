"""Who asks for a connection's status: the daemon, what it is made of, and its peers; each a process."""

import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import aiohttp
import yaml

from monitor.demo.children import Child, child, free_address
from monitor.wix.client import CONNECTION_PATH
from tests.bench.nginx import Answering
from tests.bench.turns import NotSteadyError
from tests.bench.watching import Fleet, watching
from tests.daemon import Daemon

BLACKBOX: Final = "prometheus-blackbox-exporter"
PROMETHEUS: Final = "prometheus"

_CHECKED: Final = 10_000  # connections; the page of more is long in coming
_FAILURES: Final = "wix_calendar_site_request_failures_total{", "wix_calendar_monitor_polls_missed_total{"
_REQUESTS: Final = "wix_calendar_site_requests_total{"
_TOLERANCE: Final = 0.01  # for what is on its way, and our own looks
_RELABEL: Final = (
    {"source_labels": ["__address__"], "target_label": "__param_target"},
    {"source_labels": ["__param_target"], "target_label": "instance"},
)

Pids = AsyncIterator[tuple[int, ...]]


class Asked(NamedTuple):
    """Whom a fleet asks, over HTTP or TLS."""

    server: Answering
    scheme: str
    fleet: Fleet

    @property
    def base(self) -> str:
        """Where the server answers."""
        return self.server.plain if self.scheme == "HTTP" else self.server.tls

    @property
    def urls(self) -> list[str]:
        """Of all connections."""
        return [self.base + CONNECTION_PATH + each for each in self.fleet.ids()]


def installed(*programs: str) -> bool:
    """Whether they all are."""
    return all(map(shutil.which, programs))


@asynccontextmanager
async def daemon(folder: Path, asked: Asked) -> Pids:
    """`monitor run`."""
    async with _daemon(folder, asked) as ours:
        yield (ours.process.pid,)


@asynccontextmanager
async def loop(folder: Path, asked: Asked, kind: str) -> Pids:
    """One of `tests.bench.loops`."""
    async with _loop(folder, kind, asked.urls, asked) as process:
        yield (process.pid,)


@asynccontextmanager
async def probed(folder: Path, asked: Asked) -> Pids:
    """blackbox_exporter, asked at an even rate to probe."""
    async with _blackbox(folder, asked) as (exporter, address):
        probes = [f"http://{address}/probe?module=synced&target={quote(url, safe='')}" for url in asked.urls]
        if "\nprobe_success 1\n" not in await _text(probes[0]):
            raise NotSteadyError(f"a probe has failed: {probes[0]}")
        async with _loop(folder / "driver", "bare", probes, asked):
            yield (exporter.pid,)


@asynccontextmanager
async def daemon_scraped(folder: Path, asked: Asked) -> Pids:
    """The daemon, and a Prometheus that scrapes its page once an interval."""
    async with _daemon(folder, asked) as ours:
        targets = [(await ours.url()).removeprefix("http://")]
        job = {"static_configs": [{"targets": targets}]}
        async with _prometheus(folder / "prometheus", asked, job) as scraping:
            yield (ours.process.pid, scraping.pid)


@asynccontextmanager
async def probed_by_prometheus(folder: Path, asked: Asked) -> Pids:
    """blackbox_exporter, and a Prometheus for which each connection is a target."""
    async with _blackbox(folder, asked) as (exporter, address):
        job = {
            "metrics_path": "/probe",
            "params": {"module": ["synced"]},
            "static_configs": [{"targets": asked.urls}],
            "relabel_configs": [*_RELABEL, {"target_label": "__address__", "replacement": address}],
        }
        async with _prometheus(folder / "prometheus", asked, job) as scraping:
            yield (exporter.pid, scraping.pid)


@asynccontextmanager
async def _daemon(folder: Path, asked: Asked) -> AsyncIterator[Daemon]:
    """Ready; what it counted itself is held against what it was asked for."""
    before = await asked.server.requests()
    async with watching(folder, asked.fleet, asked.base, asked.server.ca) as ours:
        yield ours
        if asked.fleet.sites * asked.fleet.each > _CHECKED:
            return
        least = await asked.server.requests() - before
        page = await ours.get("/metrics")
        most = await asked.server.requests() - before
    if failed := _total(page, *_FAILURES):
        raise NotSteadyError(f"{failed:.0f} polls of the daemon failed or were missed")
    counted = _total(page, _REQUESTS)
    if not (1 - _TOLERANCE) * least <= counted <= (1 + _TOLERANCE) * most:
        raise NotSteadyError(f"the daemon counted {counted:.0f} requests, the server {least} to {most}")


def _total(page: str, *families: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(families))


@asynccontextmanager
async def _loop(folder: Path, kind: str, urls: Sequence[str], asked: Asked) -> AsyncIterator[Child]:
    listed = _written(folder, "urls", "\n".join(urls))
    flags = [f"--urls={listed}", f"--rate={asked.fleet.rate}", f"--ca={asked.server.ca}"]
    async with child(sys.executable, "-m", "tests.bench.loops", kind, *flags, log=folder / "log") as process:
        yield process


@asynccontextmanager
async def _blackbox(folder: Path, asked: Asked) -> AsyncIterator[tuple[Child, str]]:
    """The exporter, which looks for the status in the body, and its address."""
    address = free_address()
    probe = {
        "fail_if_body_not_matches_regexp": ['"status":\\s*"SYNCED"'],
        "preferred_ip_protocol": "ip4",
        "tls_config": {"ca_file": str(asked.server.ca)},
    }
    modules = {"modules": {"synced": {"prober": "http", "timeout": "5s", "http": probe}}}
    config = _written(folder, "blackbox.yml", yaml.safe_dump(modules))
    flags = [f"--config.file={config}", f"--web.listen-address={address}"]
    async with child(BLACKBOX, *flags, log=folder / "log") as process:
        await process.until(partial(_is_up, f"http://{address}/-/healthy"), 10.0, "answering")
        yield process, address


@asynccontextmanager
async def _prometheus(folder: Path, asked: Asked, job: dict[str, Any]) -> AsyncIterator[Child]:
    """A Prometheus with that job alone."""
    address = free_address()
    every = f"{asked.fleet.interval}s"
    document = {
        "global": {"scrape_interval": every, "scrape_timeout": every},
        "scrape_configs": [{"job_name": "wix", **job}],
    }
    config = _written(folder, "prometheus.yml", yaml.safe_dump(document))
    flags = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    listen = f"--web.listen-address={address}"
    async with child(PROMETHEUS, *flags, listen, log=folder / "log") as process:
        await process.until(partial(_is_up, f"http://{address}/-/ready"), 30.0, "ready")
        yield process


def _written(folder: Path, name: str, text: str) -> Path:
    folder.mkdir()
    path = folder / name
    path.write_text(text)
    return path


async def _text(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as got:
        return await got.text()


async def _is_up(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as got:
            return got.ok
    except aiohttp.ClientError:
        return False
