"""Daemons that have long been watching: a configuration of so many sites, and a store that knows them all."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from monitor.clock import Clock
from monitor.core.machine import advance
from monitor.core.model import CalendarType, Connection, ConnectionState, Observed, Policy, Status
from monitor.store import Announcement, Booking
from monitor.store.sqlite.file import open_file
from monitor.store.sqlite.threaded import PIECE
from tests.daemon import Daemon, running

AS_ANSWERED = Observed(Status.SYNCED, None, CalendarType.GOOGLE, import_enabled=True, export_enabled=True)
"""What the benchmarks' servers say of every connection."""


class Fleet(NamedTuple):
    """So many sites of so many connections each, every one of them polled once an interval (seconds)."""

    sites: int
    each: int
    interval: int
    budget: int = 10_000  # requests a minute, of each site

    @property
    def rate(self) -> float:
        """Polls a second."""
        return self.sites * self.each / self.interval

    @property
    def checkpoint(self) -> int:
        """Seconds from one bulk write of the daemon's to the next: a fair window holds whole ones."""
        return min(self.interval, 30)

    def ids(self) -> list[str]:
        """Of all connections, site by site."""
        return [f"{number:036}" for number in range(self.sites * self.each)]

    def connections(self) -> Iterator[Connection]:
        """As the store wants them."""
        interval = timedelta(seconds=self.interval)
        policy = Policy(interval, 3 * interval, interval)
        for number, each in enumerate(self.ids()):
            yield Connection(f"site-{number // self.each}", each, f"connection-{number}", policy)


def write_config(
    folder: Path,
    fleet: Fleet,
    base_url: str,
    ca: Path | None = None,
    store: str | None = None,
    **api: object,
) -> Path:
    """The configuration of that fleet, its store in the folder; nothing is asked for between intervals."""
    folder.mkdir()
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text("key")
    told = {"base_url": base_url, **({"ca_file": ca} if ca else {}), **api}
    own = f"{{url: 'sqlite:///{folder / 'state.db'}'}}"
    lines = [f"store: {store or own}", "api:"]
    lines += [f"  {name}: {value}" for name, value in told.items()]
    lines += [f"polling: {{interval: {fleet.interval}s, unsettled_interval: {fleet.interval}s}}", "sites:"]
    ids = fleet.ids()
    for site in range(fleet.sites):
        credential = f"{{api_key_file: key, site_id: site-{site}}}"
        lines.append(f"- {{name: site-{site}, requests_per_minute: {fleet.budget}, credential: {credential},")
        lines.append("   connections: [")
        first = site * fleet.each
        lines += [f"    {{id: '{ids[n]}', name: connection-{n}}}," for n in range(first, first + fleet.each)]
        lines.append("  ]}")
    path = folder / "monitor.yml"
    path.write_text("\n".join(lines))
    return path


def write_store(folder: Path, fleet: Fleet) -> None:
    """The store that such a daemon has left behind: every connection known, and told."""
    clock = Clock()
    store = open_file(folder / "state.db", clock).file
    unseen = ConnectionState(watched_since=clock.now())
    bookings = []
    for connection in fleet.connections():
        step = advance(connection, unseen, AS_ANSWERED, clock.now())
        told = tuple(each for each in step.effects if isinstance(each, Announcement))
        bookings.append(Booking(connection, step.state, told))
    for start in range(0, len(bookings), PIECE):
        store.commit(bookings[start : start + PIECE], ())
    store.commit((), [told.transition_id for each in bookings for told in each.announcements])
    store.close()


@asynccontextmanager
async def watching(
    folder: Path,
    fleet: Fleet,
    base_url: str,
    ca: Path | None = None,
    started_by: Sequence[str] = (),
    **api: object,
) -> AsyncIterator[Daemon]:
    """Such a daemon, ready."""
    config = write_config(folder, fleet, base_url, ca, None, **api)
    write_store(folder, fleet)
    async with running(config, started_by=started_by) as daemon:
        await daemon.event("monitor_ready", 120.0)
        yield daemon
