"""What a network does to a request, as answers: read whole or cut, and every error as a failure reason."""

import os
import socket
import ssl
from contextvars import ContextVar
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from monitor.core.model import Answer, FailureReason, NoAnswer

BODY_LIMIT: Final = 256 * 1024
"""Bytes of an answer that we read; a connection has about two thousand."""


_NO_WAY_THROUGH: Final = (
    OSError,
    UnicodeError,  # a host that can be no name
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    aiohttp.ClientHttpProxyError,
)


class StaleConnection(NoAnswer, frozen=True, gc=False):
    """A connection kept from earlier was closed under the request: Wix may have closed it as we wrote."""


class CutOffError(aiohttp.ClientConnectionError):
    """No connection, or it was closed or reset before an answer."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


async def only_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a cut-off GET again by itself, which would break the budget unseen."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise CutOffError(error) from error


_is_fresh: Final = ContextVar("_is_fresh", default=False)


class Connector(aiohttp.TCPConnector):
    """Remembers, for the task that asked, whether a connection was made for its request."""

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  theirs
    ) -> ResponseHandler:
        _is_fresh.set(True)
        return await super()._create_connection(req, traces, timeout)


def begin_request() -> None:
    """Whatever connection comes now was kept from earlier, unless one is made."""
    _is_fresh.set(False)


def was_kept() -> bool:
    """Whether this task's request went over a connection kept from earlier."""
    return not _is_fresh.get()


def _too_long(status: int, request_id: str, retry_after: str) -> Answer | NoAnswer:
    """Only a 200 and a 404 need their body: a 429 behind a gateway's large page still says to wait."""
    if status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
        return Answer(status, b"", request_id, retry_after)
    detail = f"an answer longer than {BODY_LIMIT // 1024} KiB"
    return NoAnswer(FailureReason.BAD_RESPONSE, detail, status, request_id)


async def read(response: aiohttp.ClientResponse) -> Answer | NoAnswer:
    """The whole answer, or how far it came."""
    request_id = _printable(response.headers.get("x-wix-request-id", ""))
    retry_after = response.headers.get("Retry-After", "")[:100]
    try:
        body = await _body(response)
    except (aiohttp.ClientError, OSError) as error:
        return NoAnswer(*explain(error), response.status, request_id)
    if body is None:
        return _too_long(response.status, request_id, retry_after)
    return Answer(response.status, body, request_id, retry_after)


async def _body(response: aiohttp.ClientResponse) -> bytes | None:
    """None where it is too long; one whose length is told is not read then."""
    length = response.content_length
    if length is not None:
        return await response.read() if length <= BODY_LIMIT else None
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            return None
    return bytes(body)


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


def _printable(text: str) -> str:
    return text[:100] if text.isascii() and text.isprintable() else ""
