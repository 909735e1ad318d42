"""Raw servers on the loopback, which say exactly what a test wants, and the settings that point at them."""

import asyncio
import json
import select
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import unquote

from monitor.clock import Clock
from monitor.config import ApiKeyCredential, ApiSettings, OAuthCredential, SecretSource

API_KEY: Final = "canary-api-key-5b0e"
CLIENT_SECRET: Final = "canary-client-secret-91c4"
TOKEN: Final = "canary-token-27fd"
CANARIES: Final = (API_KEY, CLIENT_SECRET, TOKEN)

CONNECTIONS: Final = "/bookings/v2/external-calendars/connections/"
TOKEN_PATH: Final = "/oauth2/token"
REQUEST_ID: Final = "1734427301.191556792796277844"


class Heard(NamedTuple):
    """One request as it came over the wire."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Talk(NamedTuple):
    """A request that waits for its answer."""

    heard: Heard
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


Play = Callable[[Talk], Awaitable[None]]
Speaker = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """Hands each request to `play`, which writes whatever it likes; keeps all it heard."""

    def __init__(self, play: Play, ssl_context: ssl.SSLContext | None = None) -> None:
        self.play = play
        self.ssl = ssl_context
        self.heard: list[Heard] = []
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._place = socket.socket()
        self.port = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))  # never listens: it keeps the port while nobody does
        self.port = self._place.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}" if self.ssl is None else f"https://localhost:{self.port}"
        await self.come()
        return self

    async def come(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self.ssl, backlog=256
        )

    async def leave(self) -> None:
        """Listen no more: who was here is let in, who comes now is refused, until `come`."""
        quiet = 0

        def all_are_in() -> (
            bool
        ):  # some turns after the last came: asyncio drops whom it has only half let in
            nonlocal quiet
            quiet = 0 if select.select([self.listener], [], [], 0)[0] else quiet + 1
            return quiet > 5

        await until(all_are_in)
        self._server.close()

    @asynccontextmanager
    async def replaced(self, speak: Speaker) -> AsyncIterator[None]:
        """Another answers at this port; at no moment is anybody refused, and whom it met it keeps."""
        listener = self.listener.dup()
        other = await asyncio.start_server(partial(_meet, speak, self._tasks), sock=listener)
        self._server.close()
        yield
        self._server = await asyncio.start_server(self._serve, sock=listener.dup(), ssl=self.ssl)
        other.close()

    @property
    def listener(self) -> socket.socket:
        """Where the kernel takes connections in, for options to be set."""
        return self._server.sockets[0]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._place.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def polls(self) -> list[Heard]:
        return [heard for heard in self.heard if heard.method == "GET"]

    def token_requests(self) -> list[Heard]:
        return [heard for heard in self.heard if heard.method == "POST"]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while not writer.is_closing():
                    await self._one(reader, writer)
        finally:
            self._tasks.discard(task)
            self.open.discard(writer)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
        line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = [(field.split(":", 1)[0], field.split(":", 1)[1].strip()) for field in fields]
        length = next((int(value) for key, value in headers if key.lower() == "content-length"), 0)
        heard = Heard(line, headers, await reader.readexactly(length))
        self.heard.append(heard)
        await self.play(Talk(heard, reader, writer))


def message(status: int, body: bytes, *, length: int | None = None, **headers: str) -> bytes:
    """A whole answer; `length` may lie."""
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body) if length is None else length),
        "x-wix-request-id": REQUEST_ID,
    }
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Word\r\n{lines}\r\n".encode() + body


def says(data: bytes) -> Play:
    """Write this and keep the connection."""

    async def play(talk: Talk) -> None:
        talk.writer.write(data)
        await talk.writer.drain()

    return play


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def connection_body(connection_id: str, status: str = "SYNCED") -> bytes:
    return as_json({"connection": {"id": connection_id, "status": status, "calendarType": "GOOGLE"}})


def envelope(code: str = "") -> bytes:
    details = {"applicationError": {"code": code}} if code else {}
    return as_json({"message": "", "details": details})


def id_in(heard: Heard) -> str:
    return unquote(heard.path.split(CONNECTIONS, 1)[1])


def gives(*, token_life: int = 14_400, leaves: bool = False) -> Play:
    """Give tokens, and answer each poll with the connection it asked for; `leaves`: and go after each."""

    async def play(talk: Talk) -> None:
        if talk.heard.path.endswith(TOKEN_PATH):
            body = as_json({"access_token": TOKEN, "token_type": "Bearer", "expires_in": token_life})
        else:
            body = connection_body(id_in(talk.heard))
        await says(message(200, body, Connection="close" if leaves else "keep-alive"))(talk)
        if leaves:
            talk.writer.close()

    return play


good: Final = gives()


async def hang(talk: Talk) -> None:
    """Say nothing (more) until the other side goes."""
    await talk.reader.read()


async def _meet(
    speak: Speaker,
    tasks: set[asyncio.Task[None]],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Speak with one client, as one of the tasks, which may be cancelled."""
    task = asyncio.current_task()
    assert task is not None
    tasks.add(task)
    try:
        with suppress(asyncio.CancelledError):
            await speak(reader, writer)
    finally:
        tasks.discard(task)
        writer.transport.abort()


@asynccontextmanager
async def listening(speak: Speaker) -> AsyncIterator[int]:
    """A server below HTTP; its port."""
    tasks: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(partial(_meet, speak, tasks), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class ShiftedClock(Clock):
    """The steady clock, which a test may move ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0
        super().__init__(monotonic=lambda: time.monotonic() + self.ahead)


def api_settings(url: str, seconds: float = 10.0, **more: Any) -> ApiSettings:
    return ApiSettings(base_url=url, timeout=timedelta(seconds=seconds), max_in_flight=64, **more)


def key_credential(folder: Path, key: str = API_KEY) -> ApiKeyCredential:
    path = folder / "api-key"
    path.write_text(key + "\n")
    return ApiKeyCredential(SecretSource(file=path), site_id="the-site")


def oauth_credential(
    folder: Path, secret: str = CLIENT_SECRET, instance_id: str | None = "the-instance"
) -> OAuthCredential:
    path = folder / "client-secret"
    path.write_text(secret + "\n")
    return OAuthCredential("the-app", SecretSource(file=path), instance_id)


async def until(true: Callable[[], bool], rounds: int = 20_000) -> None:
    """Let the loop turn until something is true; a test that waits in vain fails."""
    for _ in range(rounds):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came true")
