"""How each row of the operators' table is played: what server, network or file do to the daemon."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from monitor.clock import Clock
from tests.certificates import ELSEWHERE, show
from tests.e2e.table import Row
from tests.fleet import CLIENT_SECRET
from tests.wix.plays import HTML, answered, close, drip, drop_all, drop_nothing, endless, reset, then
from tests.wix.servers import (
    TOKEN,
    TOKEN_PATH,
    Play,
    RawServer,
    Speaker,
    Talk,
    as_json,
    connection_body,
    envelope,
    hang,
    id_in,
    message,
    says,
)

PROMPT: Final = "2s"  # of a deadline that is to pass
SHORT_LIFE: Final = 3  # seconds of a token that is to be renewed soon


class Names:
    """A name service of the test's own, where Python asks the machine's: its answers and its errors are real.

    It knows ELSEWHERE, until it forgets it. Another machine's would need root, and be asked over a network.
    """

    def __init__(self) -> None:
        self.knows = True
        self._ask = socket.getaddrinfo

    def __call__(
        self, host: Any, port: Any, family: int = 0, kind: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        """As `socket.getaddrinfo`."""
        if host == ELSEWHERE and self.knows:
            host = "127.0.0.1"
        elif host == ELSEWHERE:
            flags |= socket.AI_NUMERICHOST  # for a name, this is the way to hear "unknown" without a network
        return self._ask(host, port, family, kind, proto, flags)


@dataclass
class Scene:
    """What a fault may turn and break."""

    row: Row
    folder: Path
    certificates: Path
    names: Names
    server: RawServer
    proxy: RawServer
    usual: Play


Fault = Callable[[Scene], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Plot:
    """How a row is played: its fault, and what must be so before."""

    fault: Fault
    timeout: str = "10s"
    tls: bool = False
    host: str = "localhost"
    api_key: bool = False
    leaves: bool = False  # a connection for each poll, so that the next one meets the fault
    token_life: int = 14_400
    proxied: bool = False
    renews: bool = False  # tokens are short-lived: polls may wait for one together, or go with the old one
    asks: bool = True  # False: what fails is no request, and is not counted as one
    wait: tuple[float, float] = (1.0, 1.0)  # the least and the most that a 429 may ask for


# --- what the server says -------------------------------------------------------------------------------


def plays(play: Play, *, tokens: bool = False) -> Fault:
    """It does this to polls (or to requests for tokens), and answers the others as ever."""

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[None]:
        async def mixed(talk: Talk) -> None:
            hit = talk.heard.path.endswith(TOKEN_PATH) == tokens
            await (play if hit else scene.usual)(talk)

        scene.server.play = mixed
        yield
        scene.server.play = scene.usual

    return fault


def answers(body: bytes = b"", *, tokens: bool = False, **headers: str) -> Fault:
    """It answers with the row's statuses, in turn."""

    def fault(scene: Scene) -> AbstractAsyncContextManager[None]:
        turn = cycle(sorted(status for status in scene.row.statuses if status is not None))

        async def play(talk: Talk) -> None:
            await answered(next(turn), body, **headers)(talk)

        return plays(play, tokens=tokens)(scene)

    return fault


async def wait_until(talk: Talk) -> None:
    """A 429 with a date two seconds ahead."""
    clock = Clock()
    when = clock.wall(clock.now()) + timedelta(seconds=2)
    await answered(429, envelope(), Retry_After=format_datetime(when, usegmt=True))(talk)


async def another_id(talk: Talk) -> None:
    """A connection that nobody asked for."""
    await says(message(200, connection_body(id_in(talk.heard) + "0")))(talk)


async def truncated(talk: Talk) -> None:
    """The beginning of a good answer."""
    body = connection_body(id_in(talk.heard))
    await then(message(200, body[:20], length=len(body)), close)(talk)


# --- what the network does ------------------------------------------------------------------------------


@asynccontextmanager
async def refuses(scene: Scene) -> AsyncIterator[None]:
    """Nobody listens."""
    await scene.server.leave()
    yield
    await scene.server.come()


@asynccontextmanager
async def drops_syns(scene: Scene) -> AsyncIterator[None]:
    """No new connection comes about."""
    drop_all(scene.server.listener)
    yield
    drop_nothing(scene.server.listener)


@asynccontextmanager
async def drops_all(scene: Scene) -> AsyncIterator[None]:
    """Connections are made, and then nothing gets through."""

    async def swallow(talk: Talk) -> None:  # what came along before the filter was there is not answered
        drop_all(talk.writer.get_extra_info("socket"))
        await hang(talk)

    for writer in scene.server.open:
        drop_all(writer.get_extra_info("socket"))
    scene.server.play = swallow
    yield
    scene.server.play = scene.usual


@asynccontextmanager
async def forgets_the_name(scene: Scene) -> AsyncIterator[None]:
    """The host's name is unknown."""
    scene.names.knows = False
    yield
    scene.names.knows = True


def shows(name: str) -> Fault:
    """The server shows that certificate."""

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[None]:
        assert scene.server.ssl is not None
        show(scene.server.ssl, scene.certificates, name)
        yield
        show(scene.server.ssl, scene.certificates, "right")

    return fault


async def plain_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak before anybody is greeted in TLS."""
    writer.write(message(400, b""))
    writer.close()


async def silence(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Say nothing at all."""
    await asyncio.Event().wait()


def another_has_the_port(speak: Speaker) -> Fault:
    """Somebody else answers there."""

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[None]:
        async with scene.server.replaced(speak):
            yield

    return fault


async def tunnel(talk: Talk) -> None:
    """What a proxy does when it is asked to CONNECT."""
    port = int(talk.heard.path.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await says(b"HTTP/1.1 200 Connected\r\n\r\n")(talk)
    try:
        await asyncio.gather(_carry(talk.reader, writer), _carry(reader, talk.writer))
    finally:
        writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


@asynccontextmanager
async def proxy_refuses(scene: Scene) -> AsyncIterator[None]:
    """The proxy builds no tunnel."""
    turn = cycle((407, 403, 502))

    async def play(talk: Talk) -> None:
        await answered(next(turn), HTML)(talk)

    scene.proxy.play = play
    yield
    scene.proxy.play = tunnel


@asynccontextmanager
async def nothing_more(_: Scene) -> AsyncIterator[None]:
    """All rows are played in an environment that names a dead proxy."""
    yield


# --- what happens to the secret -------------------------------------------------------------------------


def becomes(content: str | None) -> Fault:
    """Its file has that content, or is gone."""

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[None]:
        path = scene.folder / "client-secret"
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        yield
        path.touch(mode=0o600)
        path.write_text(f"{CLIENT_SECRET}\n")

    return fault


# --- all of it ------------------------------------------------------------------------------------------

# Free text of a refusal may hold anything, even what was sent; it is not to be repeated.
IN_OAUTHS_WORDS: Final = as_json({"error": "invalid_client", "error_description": f"not {CLIENT_SECRET}"})
IN_WIXS_WORDS: Final = as_json(
    {"message": f"not {CLIENT_SECRET}", "details": {"applicationError": {"code": "APP_NOT_FOUND"}}}
)

hasty: Final = partial(Plot, timeout=PROMPT)
tls: Final = partial(Plot, tls=True, leaves=True)
token: Final = partial(Plot, token_life=SHORT_LIFE, renews=True)

PLOTS: Final[dict[str, Plot]] = {
    "nobody listens: the connection is refused": Plot(refuses, leaves=True),
    "the connection is reset": Plot(plays(reset)),
    "the connection is closed without an answer": Plot(plays(close)),
    "a black hole: new connections (SYN) are dropped": hasty(drops_syns, leaves=True),
    "a black hole: a connection is established, then all is dropped": hasty(drops_all),
    "DNS: the host's name cannot be resolved": tls(forgets_the_name, host=ELSEWHERE),
    "TLS: the certificate has expired": tls(shows("expired")),
    "TLS: the certificate's authority is not trusted": tls(shows("untrusted")),
    "TLS: the certificate is for another name": tls(shows("wrong-name")),
    "TLS: the port speaks plain HTTP": tls(another_has_the_port(plain_http)),
    "TLS: the handshake hangs": tls(another_has_the_port(silence), timeout=PROMPT),
    "the proxy refuses to connect us (407, 403, 502)": tls(proxy_refuses, proxied=True),
    "the environment has `HTTPS_PROXY` and its kin": Plot(nothing_more),
    "no answer comes before `api.timeout`": hasty(plays(hang)),
    "the head of an answer comes, but no body before `api.timeout`": hasty(
        plays(then(message(200, b"", length=9), hang))
    ),
    "the answer drips in too slowly to end before `api.timeout`": hasty(plays(drip)),
    "401 to a token, and to the new one that was asked for at once": Plot(
        answers(envelope("UNAUTHENTICATED"))
    ),
    "401 to an API key, and again after its file was read anew": Plot(
        answers(envelope("UNAUTHENTICATED")), api_key=True
    ),
    "403": Plot(answers(envelope("PERMISSION_DENIED"))),
    "403 with PREMIUM_FEATURE_NOT_ENABLED": Plot(answers(envelope("PREMIUM_FEATURE_NOT_ENABLED"))),
    "404 in Wix's own words (its JSON envelope)": Plot(answers(envelope("CONNECTION_NOT_FOUND"))),
    "404 of a gateway, in other words": Plot(answers(HTML, Content_Type="text/html")),
    "409": Plot(answers(envelope("CONFLICT"))),
    "428": Plot(answers(envelope("REQUIRED_APP_NOT_INSTALLED"))),
    "another 4xx": Plot(answers(envelope("INVALID_ARGUMENT"))),
    "429 with a Retry-After in seconds": Plot(answers(envelope(), Retry_After="1")),
    "429 with a Retry-After that is a date": Plot(plays(wait_until), wait=(1.0, 2.0)),
    "429 without a Retry-After": Plot(answers(envelope()), wait=(60.0, 60.0)),
    "an error of Wix's servers": Plot(answers(envelope("INTERNAL"))),
    "502 with a page of HTML": Plot(answers(HTML, Content_Type="text/html")),
    "200 with a page of HTML": Plot(answers(HTML, Content_Type="text/html")),
    "200 that is cut off (truncated)": Plot(plays(truncated)),
    "200 with a body that does not end": Plot(plays(endless)),
    "200 with a connection of another id": Plot(plays(another_id)),
    "204 and other 2xx": Plot(answers()),
    "a redirect, which is never followed": Plot(answers(Location="http://127.0.0.1:9/")),
    "an answer that is no HTTP": Plot(plays(then(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", close))),
    "the token endpoint refuses, in OAuth's words": token(answers(IN_OAUTHS_WORDS, tokens=True)),
    "the token endpoint refuses, in Wix's words": token(answers(IN_WIXS_WORDS, tokens=True)),
    "the token endpoint answers 500": token(answers(HTML, tokens=True)),
    "the token endpoint answers 429": token(answers(envelope(), tokens=True, Retry_After="1")),
    "the token endpoint hangs": token(plays(hang, tokens=True), timeout=PROMPT),
    "the token endpoint answers 200 without a token": token(answers(as_json({"token": TOKEN}), tokens=True)),
    "the secret's file is gone when a token is asked for": token(becomes(None), asks=False),
    "the secret's file is empty when a token is asked for": token(becomes("\n"), asks=False),
}
