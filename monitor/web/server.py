"""Listening, and the routes. Health never mirrors Wix: it tells whether this process does its work."""

import asyncio
import errno
import gzip
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from monitor.errors import CannotStartError
from monitor.web.landing import LANDING

_COMPRESSION_LEVEL: Final = 1  # text of this kind shrinks tenfold already; more costs CPU for little
_COMPRESSORS: Final = 2
_REQUEST_LIMIT: Final = 64 * 1024
_CLOSING_SECONDS: Final = 1.0
_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[^\[\]\s]+)\]|(?P<host>[^:\[\]\s]*)):(?P<port>\d{1,5})", re.ASCII)


class Address(NamedTuple):
    """Where to listen; an empty host means every address."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `host:port`, `[v6]:port` or `:port`. Raises ValueError with what to write instead."""
        found = _ADDRESS.fullmatch(text)
        if found is None or int(found["port"]) > 65535:  # noqa: PLR2004  the highest there is
            raise ValueError(f"{text!r} is no address to listen on; write host:port, [v6]:port or :port")
        return cls(found["v6"] or found["host"] or "", int(found["port"]))

    def __str__(self) -> str:
        """As it is written."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Page(NamedTuple):
    """A page under way: its slices are rendered one by one, so that polls go on in between."""

    content_type: str
    slices: Iterable[bytes]


class Server:
    """Serves the daemon's endpoints until it is stopped.

    `metrics` gives the page for an Accept header; `not_ready` says why we are not ready, or None.
    """

    def __init__(self, metrics: Callable[[str], Page], not_ready: Callable[[], str | None]) -> None:
        self._metrics = metrics
        self._not_ready = not_ready
        self._runner: web.AppRunner | None = None
        # Threads of our own: names that nobody resolves hold up those of the loop, but no scrape.
        self._compressor = ThreadPoolExecutor(_COMPRESSORS, "gzip")

    async def start(self, addresses: Sequence[Address]) -> list[str]:
        """Listen; the URLs that answer. Raises CannotStartError where an address cannot be had."""
        app = web.Application(client_max_size=_REQUEST_LIMIT)
        app.router.add_get("/", self._landing)
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/-/healthy", self._healthy)
        app.router.add_get("/-/ready", self._ready)
        logging.getLogger("aiohttp.server").addFilter(_is_of_interest)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSING_SECONDS)
        await self._runner.setup()
        for address in addresses:
            await self._listen(address)
        return [_url(host, port) for host, port, *_ in self._runner.addresses]

    async def stop(self) -> None:
        """Answer what is under way, then close."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._compressor.shutdown(wait=False, cancel_futures=True)

    async def _listen(self, address: Address) -> None:
        assert self._runner is not None  # noqa: S101
        try:
            await web.TCPSite(self._runner, address.host or None, address.port).start()
        except (OSError, UnicodeError) as error:  # the latter for a name that no DNS label can hold
            await self.stop()
            raise CannotStartError(_why_not(address, error)) from error

    async def _landing(self, _: web.Request) -> web.Response:
        return web.Response(text=LANDING, content_type="text/html")

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="healthy\n")

    async def _ready(self, _: web.Request) -> web.Response:
        why_not = self._not_ready()
        if why_not is not None:
            return web.Response(status=503, text=f"not ready: {why_not}\n")
        return web.Response(text="ready\n")

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        page = self._metrics(request.headers.get("Accept", ""))
        parts = []
        for part in page.slices:
            parts.append(part)
            await asyncio.sleep(0)
        body = b"".join(parts)
        headers = {"Content-Type": page.content_type, "Vary": "Accept, Accept-Encoding"}
        if _wants_gzip(request):
            loop = asyncio.get_running_loop()
            body = await loop.run_in_executor(self._compressor, gzip.compress, body, _COMPRESSION_LEVEL)
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Whether aiohttp's line tells of a defect; what a stranger sends that is no HTTP is none."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


def _wants_gzip(request: web.Request) -> bool:
    for offer in request.headers.get("Accept-Encoding", "").split(","):
        coding, _, weight = offer.strip().partition(";")
        if coding.strip().lower() == "gzip":
            return weight.replace(" ", "").lower() not in ("q=0", "q=0.", "q=0.0", "q=0.00", "q=0.000")
    return False


def _why_not(address: Address, error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return f"cannot listen on {address}: {address.host!r} is no host name"
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {address}: something else does; choose another --web.listen-address"
    return f"cannot listen on {address}: {error.strerror or error}"


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
