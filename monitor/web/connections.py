"""What clients may cost: how many connections at a time, how long each may take, how much it may hold.

A connection is either waiting for its client (to finish the handshake, to send a request, to read the answer)
or for us. Where there is no room for another one, the one that has waited for its client longest goes: slow
and silent clients cannot keep others out. Nothing here trusts a client to close what it has opened.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from monitor.metrics.pieces import Piece
from monitor.tasks import TaskBag
from monitor.web.tls import Tls

_AFTER_A_FAILURE: Final = 0.1  # seconds before the next accept, where descriptors are short for example
_END_OF_HEADERS: Final = b"\r\n\r\n"
_NO_LINGERING: Final = struct.pack("ii", 1, 0)
_LOG: Final = logging.getLogger("monitor.web")


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may cost."""

    connections: int = 256
    """At a time, over all addresses; each holds half a MiB at most (buffers of TLS and of the response).

    A hundred open pages have two each, one of which rests."""

    request_seconds: float = 10
    """From the first byte of a request (or from connecting) to its last header; a handshake has as long."""

    response_seconds: float = 60
    """From then until the client has read the response."""

    idle_seconds: float = 300
    """Between a response and the next request; above any usual scrape interval."""

    pages_bytes: int = 64 << 20
    """Of pages, compressed, that are being read; beyond, the readers of the oldest are cut off."""


class Connection(asyncio.Protocol):
    """One client's connection. What comes is handed on to `inner`, aiohttp's side of it."""

    def __init__(self, inner: asyncio.Protocol, sock: socket.socket, tls: Tls | None, gate: "Gate") -> None:
        self.inner = inner
        self._sock = sock
        self.waits_for_client = True
        self.welcome: asyncio.Task[None] | None = None
        self._tls = tls
        self._gate = gate
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.is_made = False
        self._idle = False
        self._ahead = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, if its certificate is one that is allowed."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's are none by type
        if self._tls is not None and not self._tls.admits(_certificate(transport)):
            self.cut_off()
            return
        # What has been written and waited for is with the kernel then, not with us.
        transport.set_write_buffer_limits(high=1, low=0)
        self._within(self._gate.limits.request_seconds)
        self.is_made = True
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """The first byte of a request starts its deadline."""
        if self._idle:
            self._idle = False
            self._within(self._gate.limits.request_seconds)
        self._ahead = not data.endswith(_END_OF_HEADERS)
        if self.is_made:
            self.inner.data_received(data)

    def eof_received(self) -> None:
        """The client will send no more."""
        if self.is_made:
            self.inner.eof_received()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """It has read all that was written."""
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """There is room for another one."""
        self._gate.forget(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self.is_made:
            self.inner.connection_lost(exc)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While we work on a request and its response is written."""
        self._within(self._gate.limits.response_seconds)
        self.waits_for_client = self._idle = False
        try:
            yield
        finally:
            self.now_reads()
            self._idle = not self._ahead  # else another request, or something, has begun to come already
            limits = self._gate.limits
            self._within(limits.idle_seconds if self._idle else limits.request_seconds)

    def now_reads(self) -> None:
        """Our work is done, the rest is the client's."""
        self.waits_for_client = True
        self._gate.last_in_line(self)

    def cut_off(self) -> None:
        """End it at once, whatever is under way."""
        self._gate.forget(self)
        with suppress(OSError):  # closed already
            # Else the kernel would keep what was written until the client reads it.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        if self._transport is not None:
            self._transport.abort()
        elif self.welcome is not None:
            self.welcome.cancel()

    def _within(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._transport is not None and not self._transport.is_closing():
            self._deadline = asyncio.get_running_loop().call_later(seconds, self.cut_off)


class Gate:
    """Accepts connections while there is room, and makes room."""

    def __init__(
        self,
        limits: Limits,
        make: Callable[[], asyncio.Protocol],
        tls: Callable[[], Tls | None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self.limits = limits
        self._make = make
        self._tls = tls
        self._doors = TaskBag(on_error)
        self._welcomes = TaskBag(on_error)
        self._sockets: list[socket.socket] = []
        self._open: dict[asyncio.Protocol, Connection] = {}

    def __len__(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def open(self, sock: socket.socket) -> None:
        """Accept what comes to a listening socket, which is ours from now on."""
        self._sockets.append(sock)
        self._doors.start(self._accept(sock), name=f"accept on {sock.getsockname()}")

    async def shut(self) -> None:
        """Accept no more."""
        await self._doors.drain(0)
        for sock in self._sockets:
            sock.close()

    async def clear(self) -> None:
        """Cut off every connection."""
        for connection in list(self._open.values()):
            connection.cut_off()
        await self._welcomes.drain(0)

    def connection_of(self, inner: Any) -> Connection | None:
        """The connection whose inner protocol this is; None where it is gone."""
        return self._open.get(inner)

    def forget(self, connection: Connection) -> None:
        """It is no longer open."""
        self._open.pop(connection.inner, None)

    def last_in_line(self, connection: Connection) -> None:
        """Its client has only now begun to let us wait."""
        if self._open.pop(connection.inner, None) is not None:
            self._open[connection.inner] = connection

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(sock)
            except OSError:
                await asyncio.sleep(_AFTER_A_FAILURE)
                continue
            if self._has_room():
                self._let_in(client)
            else:
                client.close()

    def _has_room(self) -> bool:
        if len(self._open) >= self.limits.connections:
            slowest = next((each for each in self._open.values() if each.waits_for_client), None)
            if slowest is None:
                return False
            slowest.cut_off()
        return True

    def _let_in(self, client: socket.socket) -> None:
        tls = self._tls()
        connection = Connection(self._make(), client, tls, self)
        self._open[connection.inner] = connection
        connection.welcome = self._welcomes.start(self._welcome(client, connection, tls))
        # Here and not in the task, which may be cancelled before it begins.
        connection.welcome.add_done_callback(lambda _: None if connection.is_made else client.close())

    async def _welcome(self, client: socket.socket, connection: Connection, tls: Tls | None) -> None:
        seconds = None if tls is None else self.limits.request_seconds
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                client,
                ssl=None if tls is None else tls.context,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=seconds,
            )
        except (OSError, asyncio.CancelledError):  # no TLS, gone again, too slow, or cut off
            self.forget(connection)
        except Exception as error:  # noqa: BLE001  one stranger's connection must not end the daemon
            _LOG.error("a connection failed", exc_info=error)
            self.forget(connection)


class Readers:
    """Pages that clients are reading: together no more than a limit of bytes, and always the newest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._read: dict[int, tuple[Sequence[Piece], set[Connection]]] = {}

    @contextmanager
    def reading(self, page: Sequence[Piece], connection: Connection) -> Iterator[None]:
        """While this client reads this page."""
        held = self._read.setdefault(id(page), (page, set()))  # which keeps the page, so its id is unique
        held[1].add(connection)
        self._make_room()
        try:
            yield
        finally:
            held[1].discard(connection)
            if not held[1] and self._read.get(id(page)) is held:
                del self._read[id(page)]

    def _make_room(self) -> None:
        while len(self._read) > 1 and self._held() > self._limit:
            _, readers = self._read.pop(next(iter(self._read)))
            for each in list(readers):
                each.cut_off()

    def _held(self) -> int:
        """Bytes of all pages; what several have in common is there once."""
        return sum(
            {id(piece): len(piece.deflated) for page, _ in self._read.values() for piece in page}.values()
        )


def _certificate(transport: asyncio.Transport) -> dict[str, Any] | None:
    return transport.get_extra_info("ssl_object").getpeercert()  # type: ignore[no-any-return]  # typed Any
