"""A stand-in for Wix with nothing in it but time: `python -m tests.bench.slow`, over uvloop.

Each answer comes `--delay` seconds after its request. When each connection was asked is kept; `GET /begin`
forgets that, `GET /account` sums it up as JSON. Prints its port once it listens.
"""

import argparse
import asyncio
import json
import math
import statistics
from array import array
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final, cast

import uvloop

_END: Final = b"\r\n\r\n"
_BODY: Final = (
    b'{"connection": {"id": "%b", "calendarType": "GOOGLE", "status": "SYNCED", "syncConfig": '
    b'{"listEventFromCalendars": {"enabled": true}, "syncToCalendar": {"enabled": true}}}}'
)
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"x-wix-request-id: 1763900000.123456789012345678\r\n\r\n%b"
)


class Record:
    """When each connection was asked, on the loop's clock."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self.begin()

    def begin(self) -> None:
        """Forget all."""
        self._began = asyncio.get_running_loop().time()
        self._asked: dict[bytes, array[float]] = {}

    def add(self, name: bytes) -> None:
        """It was asked now."""
        now = asyncio.get_running_loop().time()
        if (moments := self._asked.get(name)) is None:
            self._asked[name] = array("d", (now,))
        else:
            moments.append(now)

    def account(self) -> Mapping[str, Any]:
        """Seconds by which a gap between two requests of a connection is off the interval; what is missing.

        Missing is what would have filled a gap of more than one and a half intervals, the one up to now too.
        """
        now = asyncio.get_running_loop().time()
        off: list[float] = []
        missed = 0
        for moments in self._asked.values():
            for one, other in pairwise((*moments, now)):
                missed += max(round((other - one) / self._interval) - 1, 0)
                off.append(abs(other - one - self._interval))
            off.pop()
        return {
            "connections": len(self._asked),
            "requests": sum(map(len, self._asked.values())),
            "seconds": now - self._began,
            "missed": missed,
            "p99": statistics.quantiles(off, n=100)[98] if len(off) > 1 else math.nan,
            "longest": max(off, default=math.nan),
        }


class Answers(asyncio.Protocol):
    """One connection: a request at a time, as HTTP/1.1 without pipelining has it."""

    def __init__(self, record: Record, delay: float) -> None:
        self._record = record
        self._delay = delay
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by type

    def data_received(self, data: bytes) -> None:
        self._read += data
        if self._read.endswith(_END):
            path = self._read.split(b" ", 2)[1]
            self._read = b""
            self._answer(path)

    def _answer(self, path: bytes) -> None:
        if path == b"/begin":
            self._record.begin()
            self._write(b"{}")
        elif path == b"/account":
            self._write(json.dumps(self._record.account()).encode())
        else:
            name = path.rpartition(b"/")[2]
            self._record.add(name)
            asyncio.get_running_loop().call_later(self._delay, self._write, _BODY % name)

    def _write(self, body: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(_HEAD % (len(body), body))


async def serve(delay: float, interval: float) -> None:
    """Answer until ended."""
    record = Record(interval)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answers(record, delay), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Go on until ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, required=True)
    parser.add_argument("--interval", type=float, required=True)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.delay, options.interval))


if __name__ == "__main__":
    main()
