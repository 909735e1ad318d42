"""What a network does to a request, as answers: read whole or cut, and every error as a failure reason."""

import ssl
from types import SimpleNamespace
from typing import Final

import aiohttp

from monitor.core.model import Answer, FailureReason, NoAnswer

BODY_LIMIT: Final = 256 * 1024
"""Bytes of an answer that we read; a connection has about two thousand."""

_CLOSED_UNDER_US: Final = (
    aiohttp.ClientOSError,
    aiohttp.ClientConnectionResetError,
    aiohttp.ServerDisconnectedError,
)


class StaleConnection(NoAnswer, frozen=True, gc=False):
    """A connection kept from earlier was closed under the request: Wix may have closed it as we wrote."""


class Way:
    """What one request learns of its connection on the way."""

    reused = False


class CutOffError(aiohttp.ClientConnectionError):
    """The connection was closed or reset before an answer."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


async def only_once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a cut-off GET again by itself, which would break the budget unseen."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except _CLOSED_UNDER_US as error:
        raise CutOffError(error) from error


def watch_reuse() -> aiohttp.TraceConfig:
    """Mark the `Way` of each request that goes over a kept connection."""

    async def reused(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.reused = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(reused)
    return trace


async def read(response: aiohttp.ClientResponse) -> Answer | NoAnswer:
    """The whole answer, or how far it came."""
    request_id = _printable(response.headers.get("x-wix-request-id", ""))
    body = bytearray()
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > BODY_LIMIT:
                response.close()
                detail = f"an answer longer than {BODY_LIMIT // 1024} KiB"
                return NoAnswer(FailureReason.BAD_RESPONSE, detail, response.status, request_id)
    except (aiohttp.ClientError, OSError) as error:
        return NoAnswer(*explain(error), response.status, request_id)
    return Answer(response.status, bytes(body), request_id, response.headers.get("Retry-After", "")[:100])


def explain(error: Exception) -> tuple[FailureReason, str]:
    """The reason, and a detail in the library's and the system's own words; neither quotes what we sent."""
    return _reason(error), _detail(error)


def _reason(error: Exception) -> FailureReason:
    if isinstance(error, TimeoutError):
        return FailureReason.TIMEOUT
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return FailureReason.TLS
    if isinstance(error, OSError | aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
        return FailureReason.CONNECT
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return FailureReason.CONNECT
    return FailureReason.BAD_RESPONSE


def _detail(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(getattr(error.certificate_error, "verify_message", "") or "certificate refused")
    words = getattr(error, "strerror", None)
    return f"{type(error).__name__}: {words}" if isinstance(words, str) else type(error).__name__


def _printable(text: str) -> str:
    return text[:100] if text.isascii() and text.isprintable() else ""
