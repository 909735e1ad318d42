"""Get Connection over HTTP: one question in, one observation out, whatever the network does.

Source of URL and headers: Get Connection of Wix External Calendar V2. No redirect is followed (the
credential must not travel), no cookie kept, no body read past 256 KiB, no compression asked for.
"""

import math
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import quote

import aiohttp
from yarl import URL

from monitor import __version__
from monitor.clock import Clock
from monitor.config import ApiKeyCredential, ApiSettings, OAuthCredential
from monitor.core.classify import classify
from monitor.core.model import Answer, FailureReason, NoAnswer, Observation, PollFailed
from monitor.errors import WithheldError
from monitor.wix.credentials import ApiKey, Credential, Headers, OAuth
from monitor.wix.pace import Pace

BODY_LIMIT: Final = 256 * 1024
"""Bytes of an answer that we read; a connection has about two thousand."""

CONNECTION_PATH: Final = "/bookings/v2/external-calendars/connections/"
TOKEN_PATH: Final = "/oauth2/token"  # noqa: S105  a path, not a secret

_REFUSED: Final = (FailureReason.UNAUTHORIZED, FailureReason.FORBIDDEN, FailureReason.PREMIUM_REQUIRED)
_KEEP_ALIVE: Final = 90.0  # seconds: above the usual interval, so that a lone connection's socket survives it


class Exchange(NamedTuple):
    """One request and what came back, for `poll` to show; `headers` and `answer` hold secrets unredacted."""

    method: str
    url: str
    headers: Headers
    answer: Answer | NoAnswer
    seconds: float


Watcher = Callable[[Exchange], None]


class Api:
    """The HTTP session that all sites share, and what is timed about it."""

    def __init__(
        self,
        settings: ApiSettings,
        clock: Clock,
        took: Callable[[float], None],
        watcher: Watcher | None = None,
    ) -> None:
        self.base_url = settings.base_url.rstrip("/")
        self._settings = settings
        self._clock = clock
        self._took = took
        self._watcher = watcher
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Set up the session. Raises OSError or ssl.SSLError where `ca_file` cannot be used."""
        context = ssl.create_default_context(cafile=self._settings.ca_file)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context, keepalive_timeout=_KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=self._settings.timeout.total_seconds(), ceil_threshold=math.inf
            ),
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"wix-calendar-monitor/{__version__}",
            },
            auto_decompress=False,
            trust_env=self._settings.proxy_from_environment,
            proxy=self._settings.proxy_url,
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self, method: str, path: str, headers: Headers, body: Mapping[str, str] | None = None
    ) -> Answer | NoAnswer:
        """One request, its whole answer or why there is none. Never raises for what a network does."""
        began = self._clock.monotonic()
        answer = await self._send(method, URL(self.base_url + path, encoded=True), headers, body)
        seconds = self._clock.monotonic() - began
        self._took(seconds)
        if self._watcher is not None:
            self._watcher(Exchange(method, self.base_url + path, headers, answer, seconds))
        return answer

    async def _send(
        self, method: str, url: URL, headers: Headers, body: Mapping[str, str] | None
    ) -> Answer | NoAnswer:
        assert self._session is not None, "open() comes first"  # noqa: S101
        try:
            async with self._session.request(
                method, url, headers=headers, json=body, allow_redirects=False
            ) as response:
                return await _read(response)
        except (aiohttp.ClientError, OSError) as error:
            return _explain(error)


class WixClient:
    """One site's way to Wix: its credential and its pace over the shared session."""

    def __init__(
        self,
        api: Api,
        pace: Pace,
        clock: Clock,
        credential: ApiKeyCredential | OAuthCredential,
        hide: Callable[[str], None],
        on_renewed: Callable[[], None],
    ) -> None:
        self._api = api
        self.pace = pace
        self._clock = clock
        self._credential: Credential = (
            OAuth(credential, self._ask_token, clock, hide, on_renewed, pace.failed)
            if isinstance(credential, OAuthCredential)
            else ApiKey(credential, hide)
        )

    async def get_connection(
        self, connection_id: str, *, on_started: Callable[[], None], trial: bool = False
    ) -> Observation:
        """Poll one connection; `on_started` is called once, when its request is let go.

        Raises WithheldError where the pace does not let it go: nothing was asked then.
        """
        outage = self.pace.state.outage
        if trial and outage is not None and outage.reason in _REFUSED:
            await self._credential.forget()
        headers = await self._credential.headers()
        if isinstance(headers, PollFailed):
            return headers
        path = CONNECTION_PATH + quote(connection_id, safe="")
        observation = await self._get(path, connection_id, headers, on_started, trial=trial)
        if not isinstance(observation, PollFailed) or observation.http_status != HTTPStatus.UNAUTHORIZED:
            return observation
        await self._credential.renew(headers)
        try:
            headers = await self._credential.headers()
            if isinstance(headers, PollFailed):
                return headers
            return await self._get(path, connection_id, headers, _nothing, trial=trial)
        except WithheldError:  # asked to wait in between: the 401 stands
            return observation

    async def close(self) -> None:
        """End what the credential has under way."""
        await self._credential.close()

    async def _get(
        self,
        path: str,
        connection_id: str,
        headers: Headers,
        on_started: Callable[[], None],
        *,
        trial: bool,
    ) -> Observation:
        async with self.pace.request(trial=trial):
            on_started()
            answer = await self._api.send("GET", path, headers)
        observation = classify(answer, connection_id, self._clock.wall(self._clock.now()))
        if isinstance(observation, PollFailed):
            self.pace.failed(observation.reason)
        return observation

    async def _ask_token(self, form: Mapping[str, str]) -> Answer | NoAnswer:
        async with self.pace.request(trial=True):
            return await self._api.send("POST", TOKEN_PATH, {}, form)


async def _read(response: aiohttp.ClientResponse) -> Answer | NoAnswer:
    request_id = _printable(response.headers.get("x-wix-request-id", ""))
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            response.close()
            detail = f"an answer longer than {BODY_LIMIT // 1024} KiB"
            return NoAnswer(FailureReason.BAD_RESPONSE, detail, response.status, request_id)
    return Answer(response.status, bytes(body), request_id, response.headers.get("Retry-After", "")[:100])


def _explain(error: Exception) -> NoAnswer:
    return NoAnswer(_reason(error), _detail(error))


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
    """In the library's and the system's own words; neither quotes what we sent."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(getattr(error.certificate_error, "verify_message", "") or "certificate refused")
    words = getattr(error, "strerror", None)
    return f"{type(error).__name__}: {words}" if isinstance(words, str) else type(error).__name__


def _printable(text: str) -> str:
    return text[:100] if text.isascii() and text.isprintable() else ""


def _nothing() -> None:
    """The retry of a poll that has started already."""
