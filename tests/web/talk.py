"""Clients of the daemon's own HTTP that send what they are told and no more, and the daemon behind it."""

import asyncio
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple, ParamSpec, TypeVar
from urllib.parse import urlsplit

from monitor.metrics.pieces import Piece
from monitor.web.server import Address, Page

P = ParamSpec("P")
T = TypeVar("T")

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
SLICES: Final = [b"# HELP up Whether.\n", b"# TYPE up gauge\n", b'up{site="caf\xc3\xa9"} 1\n']
PAGE: Final = b"".join(SLICES)
LOOPBACK: Final = Address("127.0.0.1", 0)
PATIENCE: Final = 20.0


class Daemon:
    """What the server asks of the daemon."""

    def __init__(self) -> None:
        self.not_ready: str | None = None
        self.slices: Iterable[bytes] = SLICES
        self.page: Callable[[], Page] | None = None
        self.accepts: list[str] = []

    def metrics(self, accept: str) -> Page:
        self.accepts.append(accept)
        if self.page is not None:
            return self.page()
        return Page(OPENMETRICS if "openmetrics" in accept else TEXT, map(Piece.of, self.slices))


class Got(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    url: str,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    *,
    trust: ssl.SSLContext | None = None,
    come_from: str = "127.0.0.1",
) -> Got:
    """One request by the standard library's client."""
    where = urlsplit(url)
    client = http.client.HTTPConnection(
        str(where.hostname), where.port, timeout=PATIENCE, source_address=_source(where.hostname, come_from)
    )
    if trust is not None:
        client.connect()
        client.sock = trust.wrap_socket(client.sock, server_hostname="localhost")
    try:
        client.request(method, path, headers={"Accept-Encoding": "identity", **(headers or {})})
        response = client.getresponse()
        return Got(response.status, dict(response.headers), response.read())
    finally:
        client.close()


def work(seconds: float) -> None:
    """Keep the processor, and the loop, busy for so long."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass


def _source(host: str | None, come_from: str) -> tuple[str, int] | None:
    return None if ":" in (host or "") else (come_from, 0)


CLIENTS: Final = ThreadPoolExecutor(64, "client")


async def off_loop(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking client in a thread of ours: the daemon has the loop's."""
    return await asyncio.get_running_loop().run_in_executor(CLIENTS, partial(work, *args, **kwargs))


def raw(url: str, request: bytes) -> bytes:
    where = urlsplit(url)
    answer = b""
    server = (where.hostname, where.port)
    # The error is that of a refusal while we were still sending.
    with socket.create_connection(server, timeout=PATIENCE) as sock, suppress(ConnectionError):
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        while part := sock.recv(65536):
            answer += part
    return answer


def connect(url: str, come_from: str = "127.0.0.1") -> socket.socket:
    """A connection on which nothing has been said yet."""
    where = urlsplit(url)
    return socket.create_connection((str(where.hostname), where.port), PATIENCE, (come_from, 0))


def is_ended(sock: socket.socket) -> bool:
    """Read to the end; whether the server has ended the connection while we were patient."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


async def until(wanted: Callable[[], bool]) -> None:
    """Let the loop go round until it is so; TimeoutError where our patience ends."""
    async with asyncio.timeout(PATIENCE):
        while not wanted():  # noqa: ASYNC110  the server has no event for what a test asks of it
            await asyncio.sleep(0)
