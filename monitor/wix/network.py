"""What a network does to a request, as answers: read whole or cut, and every error as a failure reason."""

import asyncio
import json
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from yarl import URL

from monitor import __version__
from monitor.config import ApiSettings
from monitor.core.model import Answer, FailureReason, NoAnswer
from monitor.errors import WithheldError

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler

BODY_LIMIT: Final = 256 * 1024
"""Bytes of an answer that we read; a connection has about two thousand."""

_KEEP_ALIVE: Final = 90.0  # seconds: above the usual interval, so that a lone connection's socket survives it
_NO_LIMITS: Final = aiohttp.ClientTimeout()  # one deadline stands over all
_ALWAYS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"wix-calendar-monitor/{__version__}",
}
_REQUEST_ID: Final = re.compile(r"[\w.:/+=-]{1,100}", re.ASCII)  # it is shown, what we sent is not
_INTERIM: Final = frozenset({100, *range(102, 200)})  # 101 is an end
_CUT_OFF: Final = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, aiohttp.EofStream)
_NO_WAY_THROUGH: Final = (
    OSError,
    UnicodeError,  # a host that can be no name
    aiohttp.ClientConnectionError,
    aiohttp.EofStream,
    aiohttp.ClientPayloadError,
    aiohttp.ClientHttpProxyError,
)


class StaleConnection(NoAnswer, frozen=True, gc=False):
    """A connection kept from earlier was closed under the request: Wix may have closed it as we wrote."""


class Ways:
    """Ways to one host: aiohttp's connections, TLS, proxies and parser, without its session.

    A session follows redirects, keeps cookies, asks again by itself and decompresses, each to be switched
    off, and makes every request anew; here a request is one write of bytes, and what comes is read.
    """

    def __init__(self, settings: ApiSettings) -> None:
        """Nothing is sent yet. Raises OSError or ssl.SSLError where `ca_file` cannot be used."""
        base, proxy = URL(settings.base_url), None
        self._no_proxy = False
        if (named := _proxy(settings)) is not None:
            try:
                proxy = URL(named)
            except ValueError:  # nobody has checked what the environment says
                self._no_proxy = True
        self._seconds = settings.timeout.total_seconds()
        self._connector = aiohttp.TCPConnector(
            limit=0, ssl=ssl.create_default_context(cafile=settings.ca_file), keepalive_timeout=_KEEP_ALIVE
        )
        # What the connector wants to know of a request is the same for all of them.
        self._request = aiohttp.ClientRequest("GET", base, loop=asyncio.get_running_loop(), proxy=proxy)
        self._fixed = _lines({"Host": self._request.headers["Host"], **_ALWAYS})
        self._in_plain_by_proxy = proxy is not None and base.scheme == "http"
        self._prefix = (str(base) if self._in_plain_by_proxy else base.raw_path).rstrip("/")
        self._kept: WeakSet[ResponseHandler] = WeakSet()

    async def close(self) -> None:
        """Close every connection."""
        await self._connector.close()

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Mapping[str, str] | None,
        may_go: Callable[[], bool],
    ) -> Answer | NoAnswer:
        """One request, sent once: its whole answer, or how far it came. Raises for nothing that happens.

        But for WithheldError, where it may not go any more once there is a connection.
        """
        heard = _Heard()
        try:
            if self._no_proxy:
                raise aiohttp.InvalidURL("the proxy's")
            async with asyncio.timeout(self._seconds):
                connection = await self._connector.connect(self._request, [], _NO_LIMITS)
                try:
                    if not may_go():
                        raise WithheldError(path)  # noqa: TRY301  the connection is closed as for all else
                    written = self._written(method, path, headers, body)
                    answer = await self._exchange(connection, written, heard)
                except BaseException:
                    connection.close()
                    raise
                connection.release()  # which closes it where its answer was not read to the end
                return answer
        except (aiohttp.ClientError, aiohttp.EofStream, HttpProcessingError, OSError, UnicodeError) as error:
            told = explain(error)
            if heard.was_kept and heard.status is None and isinstance(error, _CUT_OFF):
                return StaleConnection(*told)
            return NoAnswer(*told, heard.status, heard.request_id)

    async def _exchange(self, connection: Connection, written: bytes, heard: "_Heard") -> Answer | NoAnswer:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        heard.was_kept = protocol in self._kept
        if heard.was_kept and protocol.should_close:  # something came unasked: it must not pass for an answer
            raise aiohttp.ServerDisconnectedError
        if not heard.was_kept:
            self._kept.add(protocol)
            protocol.set_response_params(auto_decompress=False, read_until_eof=True)
        transport.write(written)
        message, payload = await protocol.read()
        while message.code in _INTERIM:
            message, payload = await protocol.read()
        heard.status = message.code
        heard.request_id = _request_id(message.headers.get("x-wix-request-id", ""))
        retry_after = message.headers.get("Retry-After", "")[:100]
        body = payload.read_nowait() if payload.is_eof() else await _body(message, payload)
        if body is None or len(body) > BODY_LIMIT:
            return _too_long(message.code, heard.request_id, retry_after)
        return Answer(message.code, body, heard.request_id, retry_after)

    def _written(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, str] | None
    ) -> bytes:
        lines = self._fixed + _lines(headers)
        if self._in_plain_by_proxy and (password := self._request.headers.get("Proxy-Authorization")):
            lines += _lines({"Proxy-Authorization": password})
        content = b""
        if body is not None:
            content = json.dumps(body).encode()
            lines += _lines({"Content-Type": "application/json", "Content-Length": str(len(content))})
        return f"{method} {self._prefix}{path} HTTP/1.1\r\n{lines}\r\n".encode("ascii") + content


def _lines(headers: Mapping[str, str]) -> str:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers):
        raise ValueError("a header of several lines")
    return lines


@dataclass(slots=True)
class _Heard:
    """How far a request came."""

    was_kept: bool = False
    status: int | None = None
    request_id: str = ""


def _proxy(settings: ApiSettings) -> str | None:
    """The configured proxy or the environment's; aiohttp's `trust_env` would obey `~/.netrc` as well."""
    url = URL(settings.base_url)
    if not settings.proxy_from_environment or proxy_bypass(url.host or ""):
        return settings.proxy_url
    found = getproxies().get(url.scheme)
    return f"http://{found}" if found and "://" not in found else found


async def _body(message: RawResponseMessage, payload: aiohttp.StreamReader) -> bytes | None:
    """None where it is too long; one that says so beforehand is not read then."""
    length = message.headers.get("Content-Length", "")
    if length.isdigit() and not message.chunked:
        return await payload.read() if int(length) <= BODY_LIMIT else None
    body = bytearray()
    async for chunk in payload.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            return None
    return bytes(body)


def _too_long(status: int, request_id: str, retry_after: str) -> Answer | NoAnswer:
    """Only a 200 and a 404 need their body: a 429 behind a gateway's large page still says to wait."""
    if status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
        return Answer(status, b"", request_id, retry_after)
    detail = f"an answer longer than {BODY_LIMIT // 1024} KiB"
    return NoAnswer(FailureReason.BAD_RESPONSE, detail, status, request_id)


def explain(error: Exception) -> tuple[FailureReason, str]:
    """The reason, and a detail in the library's and the system's own words; neither quotes what we sent."""
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error  # what aiohttp wrapped
    words = _words(cause)
    return _reason(error, cause), f"{type(error).__name__}: {words}" if words else type(error).__name__


def _reason(error: Exception, cause: BaseException) -> FailureReason:
    if isinstance(error, TimeoutError):
        return FailureReason.TIMEOUT
    if isinstance(cause, ssl.SSLError):
        return FailureReason.TLS
    if isinstance(error, _NO_WAY_THROUGH):
        return FailureReason.CONNECT
    return FailureReason.BAD_RESPONSE


def _words(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {cause.status}"
    if not isinstance(cause, OSError) or cause.errno is None or not cause.strerror:
        return ""
    if isinstance(cause, ssl.SSLError | socket.gaierror):
        return cause.strerror
    return os.strerror(cause.errno)  # asyncio's own words for it tell the address instead


def _request_id(text: str) -> str:
    return text if _REQUEST_ID.fullmatch(text) else ""
