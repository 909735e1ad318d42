"""The routes, and what stands before them: passwords and limits. Health never mirrors Wix."""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from monitor.core.shards import ALONE, Shard
from monitor.errors import CannotStartError
from monitor.systemd import handed_over
from monitor.tasks import TaskBag
from monitor.view.facts import Facts
from monitor.web.answers import wants_gzip
from monitor.web.api import Api, problems
from monitor.web.connections import Connection, Gate, Limits, Readers
from monitor.web.events import Events, EventStream
from monitor.web.html import Html
from monitor.web.listening import Address, listen, url_of
from monitor.web.outlook import Outlook, nothing
from monitor.web.pages import Page, PageResponse, Pages
from monitor.web.passwords import Credentials, Passwords, Verdict
from monitor.web.past import Open, Past
from monitor.web.protection import Protection, Told, WebConfig

__all__ = ["Address", "Known", "Page", "ReloadAnswer", "Server", "WebOptions"]

_REQUEST_LIMIT: Final = 64 * 1024
_LINE_LIMIT: Final = 8 * 1024  # bytes of a request's first line, and of a header
_HEADER_LIMIT: Final = 100
_CLOSING_SECONDS: Final = 1.0
_OPEN_TO_ALL: Final = frozenset({"/-/healthy", "/-/ready"})
_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="wix-calendar-monitor", charset="UTF-8"'}


class ReloadAnswer(NamedTuple):
    """What came of a reload: whether the new configuration is in force, and what to tell as JSON."""

    ok: bool
    body: Mapping[str, object]


Reload = Callable[[], Awaitable[ReloadAnswer]]


@dataclass(frozen=True, slots=True)
class Known:
    """What there is to be looked at: what runs, its store, where it is configured, which shard of that."""

    facts: Callable[[], Facts] = nothing
    store: Open | None = None
    config_file: str = "monitor.yml"
    shard: Shard = ALONE


@dataclass(frozen=True, slots=True)
class WebOptions:
    """How the daemon serves, as the flags `--web.…` say it."""

    addresses: Sequence[Address]
    config: WebConfig | None = None
    systemd_socket: bool = False
    enable_lifecycle: bool = False


def _log_error(error: BaseException) -> None:
    logging.getLogger("monitor.web").error("a task failed", exc_info=error)


class Server:
    """Serves the daemon's endpoints until it is stopped.

    `metrics` gives the page for an Accept header; `not_ready` says why we are not ready, or None. `reload`
    is what `POST /-/reload` does; without it there is no such route. `known` is what the page and the API
    show. `config_changed` is told of each change of the web configuration's files, `on_error` of what ends
    the accepting of connections.
    """

    def __init__(
        self,
        metrics: Callable[[str], Page],
        not_ready: Callable[[], str | None],
        reload: Reload | None = None,
        *,
        known: Known = Known(),
        config: WebConfig | None = None,
        config_changed: Told = lambda _: None,
        on_error: Callable[[BaseException], None] = _log_error,
        limits: Limits = Limits(),  # noqa: B008  frozen
    ) -> None:
        self._metrics = metrics
        self._not_ready = not_ready
        self._reload = reload
        self._config = config
        self._config_changed = config_changed
        self._on_error = on_error
        self._limits = limits
        self._pages = Pages()
        self._past = Past(known.store)
        outlook = Outlook(known.facts)
        self._api = Api(outlook, self._past, known.config_file, known.shard)
        self._html = Html(outlook, self._past, known.config_file, known.shard)
        self._events = Events(outlook, limits.response_seconds)
        self._passwords = Passwords()
        self._readers = Readers(limits.pages_bytes)
        self._tasks = TaskBag(on_error)
        self._reloads: set[asyncio.Future[ReloadAnswer]] = set()
        self._runner: web.AppRunner | None = None
        self._gate: Gate | None = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return 0 if self._gate is None else len(self._gate)

    @property
    def open_pages(self) -> int:
        """How many are told of changes."""
        return self._events.streams

    async def start(self, addresses: Sequence[Address], *, systemd_socket: bool = False) -> list[str]:
        """Listen there, or on what systemd hands over; the URLs that answer. Raises CannotStartError."""
        sockets = handed_over() if systemd_socket else await _listen(addresses)
        urls = [url_of(sock, tls=self._protection.tls is not None) for sock in sockets]
        logging.getLogger("aiohttp.server").addFilter(_is_of_interest)
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            shutdown_timeout=_CLOSING_SECONDS,
            handler_cancellation=True,
            lingering_time=_CLOSING_SECONDS,
            max_line_size=_LINE_LIMIT,
            max_field_size=_LINE_LIMIT,
            max_headers=_HEADER_LIMIT,
        )
        await self._runner.setup()
        make = self._runner.server
        assert make is not None  # noqa: S101
        self._gate = Gate(self._limits, make, lambda: self._protection.tls, self._on_error)
        for sock in sockets:
            self._gate.open(sock)
        if self._config is not None:
            self._tasks.start(self._config.watch(self._config_changed), name="web config")
        return urls

    async def stop(self) -> None:
        """Answer what is under way, then close."""
        await self._tasks.drain(0)
        if self._gate is not None and self._runner is not None:
            await self._gate.shut()
            await self._events.close()
            await self._runner.cleanup()
            await self._gate.clear()
        self._passwords.close()
        self._past.close()
        if self._config is not None:
            self._config.close()

    @property
    def _protection(self) -> Protection:
        return Protection() if self._config is None else self._config.current

    def _application(self) -> web.Application:
        app = web.Application(
            client_max_size=_REQUEST_LIMIT,
            middlewares=[self._within_limits, self._protected, self._html.refusals, problems],
        )
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/-/healthy", self._healthy)
        app.router.add_get("/-/ready", self._ready)
        app.add_routes([*self._html.routes(), *self._api.routes()])
        app.router.add_get("/events", self._events.serve)
        if self._reload is not None:
            app.router.add_post("/-/reload", self._serve_reload)
        app.on_response_prepare.append(self._add_headers)
        return app

    @web.middleware
    async def _within_limits(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self._gate.connection_of(request.protocol) if self._gate is not None else None
        if connection is None:
            raise asyncio.CancelledError  # the client went before we looked at its request
        with connection.answering():
            try:
                response = await handler(request)
            except web.HTTPException as refusal:
                await self._send(request, refusal, connection)
                raise
            await self._send(request, response, connection)
            return response

    async def _send(self, request: web.Request, response: web.StreamResponse, connection: Connection) -> None:
        """Write the whole response here: once this returns, the client has read it (or its kernel has)."""
        connection.now_reads()
        with suppress(ConnectionError):  # which aiohttp meets again and takes for the end of the client
            await response.prepare(request)
            if isinstance(response, PageResponse) and request.method != "HEAD":
                with self._readers.reading(response.page, connection):
                    await response.write_page()
            elif isinstance(response, EventStream) and request.method != "HEAD":
                await response.write_events(connection.now_reads)
            await response.write_eof()

    @web.middleware
    async def _protected(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        users = self._protection.users
        resource = request.match_info.route.resource
        if not users or (resource is not None and resource.canonical in _OPEN_TO_ALL):
            return await handler(request)
        given = Credentials.parse(request.headers.get("Authorization", ""))
        if given is None:
            return web.Response(status=401, text="unauthorized\n", headers=_CHALLENGE)
        verdict = await self._passwords.judge(users, given, request.remote or "")
        if verdict is Verdict.BUSY:
            told = "too many passwords are being checked; try again\n"
            return web.Response(status=429, text=told, headers={"Retry-After": "1"})
        if verdict is Verdict.WRONG:
            return web.Response(status=401, text="unauthorized\n", headers=_CHALLENGE)
        return await handler(request)

    async def _add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._protection.headers)
        response.headers.setdefault("X-Content-Type-Options", "nosniff")

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(text="healthy\n")

    async def _ready(self, _: web.Request) -> web.Response:
        why_not = self._not_ready()
        if why_not is not None:
            return web.Response(status=503, text=f"not ready: {why_not}\n")
        return web.Response(text="ready\n")

    async def _serve_reload(self, _: web.Request) -> web.Response:
        assert self._reload is not None  # noqa: S101
        # Whoever asked may go away meanwhile: a reload that has begun goes on to its end.
        reload = asyncio.ensure_future(self._reload())  # noqa: TID251  held here
        self._reloads.add(reload)
        reload.add_done_callback(self._reloads.discard)
        answer = await asyncio.shield(reload)
        return web.json_response(answer.body, status=200 if answer.ok else 400, dumps=_as_json)

    async def _serve_metrics(self, request: web.Request) -> web.StreamResponse:
        page = self._metrics(request.headers.get("Accept", ""))
        compressed = wants_gzip(request)
        pieces = await self._pages.rendered(page)
        headers = {"Content-Type": page.content_type, "Vary": "Accept, Accept-Encoding"}
        return PageResponse(pieces, headers, compressed=compressed)


async def _listen(addresses: Sequence[Address]) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            sockets += await listen(address)
    except CannotStartError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _as_json(body: object) -> str:
    return json.dumps(dict(body) if isinstance(body, Mapping) else body, indent=2) + "\n"


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Whether aiohttp's line tells of a defect; what a stranger sends that is no HTTP is none."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)
