"""A server on a thread of its own over a fleet that a test makes up, with a store beside it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Final

from monitor.clock import Clock
from monitor.core.model import ErrorReason, FailureReason, PollFailed, Status
from monitor.core.shards import ALONE, Shard
from monitor.core.site import SiteState
from monitor.store.sqlite.file import open_file
from monitor.store.sqlite.reading import reading_file
from monitor.view.facts import Facts
from monitor.web.server import Known, Server
from tests.store.samples import connection
from tests.store.stories import Told, keep
from tests.view.scene import MINUTE, NOW, UNSEEN, Watched, facts_of, outage, site_of, state, watched
from tests.web.talk import LOOPBACK, PATIENCE, Daemon

SCRIPT: Final = "<script>alert(1)</script>"
MIRRORED: Final = "\u202egnp.exe\u202c \u2067\u05e9\u05dc\u05d5\u05dd\u2069"
LONG: Final = "x" * 200
QUOTES: Final = "a/b?c#d%2F&e=\"f\"'g' é 🎉"
HALF: Final = "half \ud800"
HOSTILE: Final = (SCRIPT, MIRRORED, LONG, QUOTES, HALF)

LABELLED: Final = (("staff", "Änna & <b>co</b>"), ("floor", "2"))


def fleet() -> Facts:
    """Three sites: all kinds of states, hostile names, and one that is down."""
    broken = state(status=Status.ERROR, reason=ErrorReason.TOKEN_REVOKED, status_since=NOW - 47 * MINUTE)
    downtown = [
        watched("anna", broken, team="front-desk", labels=LABELLED),
        watched("ben", team="front-desk"),
        watched("cleo", state(status=Status.NOT_FOUND, status_since=NOW - timedelta(days=3))),
        watched("dora", UNSEEN),
        watched("emil", state(status=Status.DISCONNECTED), maintenance_until=NOW + timedelta(hours=1)),
        watched("fred", state(last_success_at=NOW - timedelta(hours=2), last_poll_succeeded=False)),
        watched("gina", state(status=Status.CONNECTED)),
        watched("hugo", state(status=Status.SYNC_IN_PROGRESS)),
    ]
    hostile = [watched(name, site="uptown", team=name, labels=(("its", name),)) for name in HOSTILE]
    dark = [watched(f"c{n}", state(last_success_at=NOW - MINUTE * 9), "midtown") for n in range(3)]
    facts = facts_of(
        site_of(downtown),
        site_of(
            hostile, "uptown", state=SiteState(answered=True, limited_since=NOW, wait_until=NOW + MINUTE)
        ),
        site_of(dark, "midtown", state=outage(FailureReason.UNAUTHORIZED), credential="api_key"),
    )
    failed = PollFailed(FailureReason.BAD_RESPONSE, "canary-detail", 200, "1732.4711-<i>")
    facts.failures.note("downtown", "id-fred", failed, NOW - MINUTE)
    return facts


def crowd(count: int, of_a_site: int = 100) -> Facts:
    """A large fleet, in which one in fifty is broken."""
    sites = []
    for start in range(0, count, of_a_site):
        name = f"site-{start // of_a_site:04}"
        sites.append(site_of([_one(n, name) for n in range(start, start + of_a_site)], name))
    return facts_of(*sites)


def _one(number: int, site: str) -> Watched:
    since = NOW - timedelta(minutes=7 * number % 10_000)
    known = state(status_since=since)
    if number % 50 == 7:
        known = state(status=Status.ERROR, reason=ErrorReason.TOKEN_REVOKED, status_since=since)
    return watched(f"calendar-{number:06}", known, site, team="front-desk")


def keep_a_past(path: Path) -> None:
    """A store in which the first connections of downtown have a month behind them."""
    opened = open_file(path, Clock(NOW.timestamp, lambda: 0.0))
    anna = watched("anna").connection
    days = timedelta(days=1)
    keep(
        opened.file,
        (
            Told(anna, NOW - 40 * days, Status.SYNCED),
            Told(anna, NOW - 20 * days, Status.DISCONNECTED),
            Told(anna, NOW - 19 * days, Status.SYNCED),
            Told(anna, NOW - 2 * days, Status.SYNC_IN_PROGRESS),
            Told(anna, NOW - 2 * days + MINUTE, Status.SYNCED),
            Told(anna, NOW - 47 * MINUTE, Status.ERROR, ErrorReason.TOKEN_REVOKED),
            Told(watched("ben").connection, NOW - 3 * days, Status.SYNCED),
            *(Told(connection(n, "gone"), NOW - n * MINUTE, Status.SYNCED) for n in range(30)),
        ),
    )
    opened.file.close()


@contextmanager
def served(facts: Facts, store: Path | None = None, shard: Shard = ALONE, **options: Any) -> Iterator[str]:
    """The URL of a server that shows these, on a thread of its own."""
    loop = asyncio.new_event_loop()
    opened = None if store is None else partial(reading_file, store)
    known = Known(lambda: facts, opened, "/etc/it/monitor.yml", shard)

    async def begin() -> tuple[Server, str]:
        server = Server(Daemon().metrics, lambda: None, known=known, **options)
        (url,) = await server.start([LOOPBACK])
        return server, url

    thread = Thread(target=loop.run_forever, name="server")
    thread.start()
    try:
        server, url = asyncio.run_coroutine_threadsafe(begin(), loop).result(PATIENCE)
        yield url
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(PATIENCE)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
