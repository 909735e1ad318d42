"""What changes, told to open pages as server-sent events: one look for all of them, every two seconds.

An event says that something has changed, and names a few; the page asks for itself again. So a hundred pages
cost one comparison, and one rendering where they show the same. Nobody looks while no page is open. Who does
not read is dropped; a stream ends by itself before the server's limit on answers would cut it off, and the
browser comes again.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Final

from aiohttp import web

from monitor.tasks import TaskBag
from monitor.view.index import Entry, Index
from monitor.view.verdict import NAMED, several, spoken
from monitor.web.html import HEADERS, mark_of
from monitor.web.outlook import Outlook

STREAMS: Final = 100
"""Open pages at a time that are told; others look again by themselves now and then."""

_EVERY: Final = 2.0
_UNREAD: Final = 4  # events that may wait for a reader
_AT_A_TIME: Final = 5  # streams
_PART: Final = 0.75  # of the time that an answer may take
_PATIENCE: Final = 15.0  # seconds after which a silent stream says that it is alive
_COME_AGAIN: Final = "2000"  # milliseconds


class EventStream(web.StreamResponse):
    """One open page's stream; it is written by whoever sends responses, and ends when it is closed."""

    def __init__(self, seconds: float, opened: "Opened") -> None:
        headers = {**HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers)
        self._seconds = seconds
        self._opened = opened
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue(_UNREAD)

    def tell(self, event: bytes | None) -> bool:
        """Hand over an event, None to end; False where too many wait: it does not read."""
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            return False
        return True

    async def write_events(self, was_read: Callable[[], None]) -> None:
        """Write what comes until its time is over; `was_read`: the client has read something."""
        async with self._opened(self):
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self.write(f"retry: {_COME_AGAIN}\n\n".encode())
                    while (event := await self._next()) is not None:
                        await self.write(event)
                        was_read()

    async def _next(self) -> bytes | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._waiting.get()
        except TimeoutError:
            return b": still here\n\n"


Opened = Callable[[EventStream], AbstractAsyncContextManager[None]]
"""While a stream is open, it is told."""


class Events:
    """Looks for what has changed while a page is open, and tells it."""

    def __init__(self, outlook: Outlook, response_seconds: float) -> None:
        self._outlook = outlook
        self._seconds = response_seconds * _PART
        self._tasks = TaskBag(_log_error)
        self._streams: dict[EventStream, web.Request] = {}
        self._changed_at = 0

    @property
    def streams(self) -> int:
        """How many pages are told."""
        return len(self._streams)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """A stream, while there is room."""
        if len(self._streams) >= STREAMS:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n", headers={"Retry-After": "60"})
        return EventStream(self._seconds, partial(self._open, request))

    async def close(self) -> None:
        """End all streams."""
        await self._tasks.drain(0)
        for stream, request in list(self._streams.items()):
            if not stream.tell(None):
                _drop(request)

    @asynccontextmanager
    async def _open(self, request: web.Request, stream: EventStream) -> AsyncIterator[None]:
        self._streams[stream] = request
        try:
            if not len(self._tasks):
                index = await self._outlook.index()
                if not len(self._tasks):  # who came meanwhile has begun it
                    self._changed_at = mark_of(index.facts)
                    self._tasks.start(self._watch(index), name="events")
            stream.tell(_event("hello", self._changed_at))
            yield
        finally:
            self._streams.pop(stream, None)

    async def _watch(self, before: Index) -> None:
        while self._streams:
            await asyncio.sleep(_EVERY)
            index = await self._outlook.index()
            if index is before:
                continue
            told = await _difference(before, index)
            before = index
            if told is not None:
                self._changed_at = mark_of(index.facts)
                await self._tell(_event("changed", {"at": self._changed_at, "told": told}))

    async def _tell(self, event: bytes) -> None:
        for number, (stream, request) in enumerate(list(self._streams.items())):
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)  # each is a task that wakes: polls have their turn in between
            if not stream.tell(event):
                self._streams.pop(stream, None)
                _drop(request)


def _log_error(error: BaseException) -> None:
    logging.getLogger("monitor.web").error("open pages are told nothing more", exc_info=error)


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _difference(before: Index, now: Index) -> str | None:
    """What has changed between two looks, in a sentence; None where nothing has."""
    changed: list[Entry] = []
    count = 0
    for each in _changes(before, now):
        if each is None:
            await asyncio.sleep(0)
            continue
        count += 1
        if len(changed) < NAMED:
            changed.append(each)
    if count:
        return _sentence(changed, count)
    return _of_sites(before, now) or _of_store(before, now)


def _changes(before: Index, now: Index) -> Iterator[Entry | None]:
    """The connections that stand elsewhere than they did; None between the pieces."""
    if len(before.pieces) != len(now.pieces):
        yield from (each for piece in now.pieces for each in piece)
        return
    for old, new in zip(before.pieces, now.pieces, strict=True):
        if len(old) != len(new):
            yield from new
        else:
            yield from (b for a, b in zip(old, new, strict=True) if not b.stands_as(a))
        yield None


def _sentence(changed: list[Entry], count: int) -> str:
    told = (f"{spoken(f'{each.site}/{each.name}')} is {_state(each)}" for each in changed)
    return f"{count:,} calendar{'' if count == 1 else 's'} changed: {several(told, count)}"


def _state(entry: Entry) -> str:
    told = f"{entry.status} {entry.state.reason}" if entry.state.reason else entry.status
    return f"{told} (stale)" if entry.stale else told


def _of_sites(before: Index, now: Index) -> str | None:
    was, its = ({site.name for site in index.down} for index in (before, now))
    if was == its:
        return None
    told = [
        f"{spoken(name)} is {'down' if name in its else 'up'}"
        for name in (*sorted(its - was), *sorted(was - its))
    ]
    return f"Sites changed: {several(told, len(told))}"


def _of_store(before: Index, now: Index) -> str | None:
    failed, fails = (index.facts.store.failing_since is not None for index in (before, now))
    if failed == fails:
        return None
    return "The store cannot be written" if fails else "The store can be written again"


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
