"""What a poll is compared with: `python -m tests.bench.loops bare|raw`, GETs at an even rate, for ever.

`bare` is aiohttp with nothing around it; `raw` is the floor of the language: a protocol over uvloop that
writes prepared bytes and counts those that come back. Each takes the URLs in turn.
"""

import argparse
import asyncio
import ssl
from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path
from typing import Final, cast

import aiohttp
import uvloop
from yarl import URL

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length: "


def evenly(rate: float, fire: Callable[[], object]) -> None:
    """Call `fire` so often a second from now on."""
    loop = asyncio.get_running_loop()
    began, ticks = loop.time(), count(1)

    def again() -> None:
        loop.call_at(began + next(ticks) / rate, again)
        fire()

    again()


async def bare(urls: list[str], rate: float, context: ssl.SSLContext) -> None:
    """GETs over one session with connections kept."""
    targets = cycle([URL(url, encoded=True) for url in urls])
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
        asyncio.TaskGroup() as group,
    ):

        async def get() -> None:
            async with session.get(next(targets)) as response:
                await response.read()

        evenly(rate, lambda: group.create_task(get()))
        await asyncio.Event().wait()


class Exchange(asyncio.Protocol):
    """One connection of the floor's; it goes back among the idle ones when its answer is whole."""

    def __init__(self, idle: list["Exchange"]) -> None:
        self._idle = idle
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by type

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self._left:
            head = data.index(_HEAD_END)
            at = data[:head].lower().index(_LENGTH) + len(_LENGTH)
            self._left = head + len(_HEAD_END) + int(data[at:].split(b"\r", 1)[0])
        self._left -= len(data)
        if not self._left:
            self._idle.append(self)


async def raw(urls: list[str], rate: float, context: ssl.SSLContext) -> None:
    """The floor; a head that comes in two pieces ends it with an error."""
    loop = asyncio.get_running_loop()
    first = URL(urls[0])
    host, port = cast("str", first.host), cast("int", first.port)
    secure = context if first.scheme == "https" else None
    lines = (f"GET {URL(url).raw_path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n" for url in urls)
    requests = cycle([line.encode() for line in lines])
    idle: list[Exchange] = []
    async with asyncio.TaskGroup() as group:

        async def connect(request: bytes) -> None:
            _, made = await loop.create_connection(lambda: Exchange(idle), host, port, ssl=secure)
            made.ask(request)

        def fire() -> None:
            if idle:
                idle.pop().ask(next(requests))
            else:
                group.create_task(connect(next(requests)))

        evenly(rate, fire)
        await asyncio.Event().wait()


KINDS: Final = {"bare": bare, "raw": raw}


def main() -> None:
    """Go on until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--urls", type=Path, required=True, help="a file of them, one a line")
    parser.add_argument("--rate", type=float, required=True, help="GETs a second")
    parser.add_argument("--ca", type=Path, required=True)
    options = parser.parse_args()
    context = ssl.create_default_context(cafile=options.ca)
    urls = options.urls.read_text().split()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(KINDS[options.kind](urls, options.rate, context))


if __name__ == "__main__":
    main()
