"""What open pages are told: what has changed, once, and only while they read."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import cast

import pytest

from monitor.core.model import ErrorReason, Status
from monitor.view.facts import Facts
from monitor.web import events
from monitor.web.connections import Limits
from monitor.web.server import Known, Server
from tests.view.scene import FAILING, KEPT, NOW, facts_of, outage, site_of, state, watched
from tests.web.conftest import Serve
from tests.web.talk import PATIENCE, ask, off_loop, until

Event = tuple[str, str]


class Fleet:
    """Two calendars, and a clock that goes on with each look."""

    def __init__(self) -> None:
        self.those = [watched("anna"), watched("ben")]
        self.site = site_of(self.those)
        self.store = KEPT
        self.looks = 0

    def facts(self) -> Facts:
        self.looks += 1
        return replace(facts_of(self.site, store=self.store), now=NOW + timedelta(milliseconds=self.looks))


class Open:
    """An open page's stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def status(self) -> int:
        line = await self._reader.readline()
        return int(line.split()[1])

    async def head(self) -> dict[str, str]:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines) if value}

    async def event(self, name: str) -> str:
        async with asyncio.timeout(PATIENCE):
            while (line := (await self._reader.readline()).decode()) != f"event: {name}\n":
                assert line, "the stream has ended"
            return (await self._reader.readline()).decode().removeprefix("data: ").strip()

    async def ended(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            try:
                while await self._reader.read(1 << 16):
                    pass
            except ConnectionError:
                pass
        return True


Come = Callable[[], Awaitable[Open]]


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_EVERY", 0.01)
    monkeypatch.setattr("monitor.web.outlook._FRESH_SECONDS", 0.005)


@pytest.fixture
async def server(serve: Serve, fleet: Fleet) -> tuple[Server, str]:
    return await serve(known=Known(fleet.facts))


@pytest.fixture
async def come(server: tuple[Server, str]) -> AsyncIterator[Come]:
    opened: list[Open] = []
    _, _, port = server[1].rpartition(":")

    async def once() -> Open:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        opened.append(Open(reader, writer))
        writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        return opened[-1]

    yield once
    for each in opened:
        each.writer.close()


def break_anna(fleet: Fleet) -> None:
    fleet.those[0].state = state(
        status=Status.ERROR, reason=ErrorReason.TOKEN_REVOKED, status_since=NOW - timedelta(seconds=1)
    )


async def test_a_stream_says_hello_and_then_what_has_changed(come: Come, fleet: Fleet) -> None:
    page = await come()
    assert await page.status() == 200
    head = await page.head()
    assert (head["content-type"], head["cache-control"]) == ("text/event-stream", "no-store")
    hello = int(await page.event("hello"))
    break_anna(fleet)
    told = json.loads(await page.event("changed"))
    assert told["told"] == "1 calendar changed: downtown/anna is ERROR TOKEN_REVOKED"
    assert told["at"] > hello


async def test_a_new_poll_that_changes_nothing_is_not_told(come: Come, fleet: Fleet) -> None:
    page = await come()
    await page.event("hello")
    for each in fleet.those:
        each.state = state(last_success_at=NOW - timedelta(seconds=1))
    looks = fleet.looks
    await until(lambda: fleet.looks >= looks + 5)
    break_anna(fleet)
    assert "anna" in json.loads(await page.event("changed"))["told"]


async def test_a_site_that_goes_down_is_told(come: Come, fleet: Fleet) -> None:
    page = await come()
    await page.event("hello")
    fleet.site = site_of(fleet.those, state=outage())
    assert json.loads(await page.event("changed"))["told"] == "Sites changed: downtown is down"


async def test_a_store_that_fails_is_told_and_that_it_is_over(come: Come, fleet: Fleet) -> None:
    page = await come()
    await page.event("hello")
    fleet.store = FAILING
    assert json.loads(await page.event("changed"))["told"] == "The store cannot be written"
    fleet.store = KEPT
    assert json.loads(await page.event("changed"))["told"] == "The store can be written again"


async def test_a_changed_configuration_is_told_in_few_words(come: Come, fleet: Fleet) -> None:
    page = await come()
    await page.event("hello")
    fleet.those = [watched(f"c{n}") for n in range(500)]
    fleet.site = site_of(fleet.those)
    told = json.loads(await page.event("changed"))["told"]
    assert told.startswith("500 calendars changed: downtown/c0 is SYNCED, ")
    assert told.endswith(" and 497 more")


async def test_who_comes_later_learns_when_something_changed_last(come: Come, fleet: Fleet) -> None:
    first = await come()
    await first.event("hello")
    break_anna(fleet)
    at = json.loads(await first.event("changed"))["at"]
    later = await come()
    assert int(await later.event("hello")) >= at


async def test_nobody_looks_while_no_page_is_open(come: Come, server: tuple[Server, str]) -> None:
    page = await come()
    await page.event("hello")
    page.writer.close()
    await until(lambda: server[0].open_pages == 0)
    await until(lambda: len(server[0]._events._tasks) == 0)


async def test_pages_that_come_while_the_first_look_is_taken_share_it(
    come: Come, fleet: Fleet, server: tuple[Server, str]
) -> None:
    fleet.site = site_of([watched(f"c{n}") for n in range(5_000)])
    for page in [await come() for _ in range(20)]:
        await page.event("hello")
    assert len(server[0]._events._tasks) == 1


async def test_there_are_only_so_many_streams(
    come: Come, server: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STREAMS", 2)
    for page in [await come() for _ in range(2)]:
        await page.event("hello")
    got = await off_loop(ask, server[1], "/events")
    assert (got.status, got.headers["Retry-After"]) == (503, "60")


async def test_a_page_that_does_not_read_is_dropped(
    come: Come, fleet: Fleet, server: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_sentence", lambda *_: "x" * 4_000_000)
    page = await come()
    await page.event("hello")
    cast("asyncio.Transport", page.writer.transport).pause_reading()
    numbers = count(1)

    def dropped() -> bool:
        fleet.those[0].state = state(status_since=NOW - timedelta(seconds=next(numbers)))
        return server[0].open_pages == 0

    await until(dropped)


async def test_streams_end_when_the_server_stops(come: Come, server: tuple[Server, str]) -> None:
    page = await come()
    await page.event("hello")
    async with asyncio.timeout(PATIENCE):
        await server[0].stop()
    assert await page.ended()


async def test_a_stream_ends_by_itself_before_it_would_be_cut_off(serve: Serve, fleet: Fleet) -> None:
    _, url = await serve(known=Known(fleet.facts), limits=Limits(response_seconds=0.4))
    got = await off_loop(ask, url, "/events")
    assert got.status == 200
    assert got.body.startswith(b"retry: 2000\n\nevent: hello\n")


async def test_head_opens_no_stream(server: tuple[Server, str]) -> None:
    got = await off_loop(ask, server[1], "/events", "HEAD")
    assert (got.status, got.body, server[0].open_pages) == (200, b"", 0)
