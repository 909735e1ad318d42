"""Get Connection over HTTP: one question in, one observation out, whatever the network does.

Source of URL and headers: Get Connection of Wix External Calendar V2. No redirect is followed (the
credential must not travel), no cookie kept, no body read past 256 KiB, no compression asked for.
"""

import math
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from monitor import __version__
from monitor.clock import Clock
from monitor.config import ApiKeyCredential, ApiSettings, OAuthCredential
from monitor.core.classify import classify
from monitor.core.model import Answer, NoAnswer, Observation, PollFailed
from monitor.core.site import REFUSALS
from monitor.errors import OutdatedError, WithheldError
from monitor.wix.credentials import ApiKey, Credential, Headers, OAuth
from monitor.wix.network import (
    Connector,
    CutOffError,
    StaleConnection,
    begin_request,
    explain,
    only_once,
    read,
    was_kept,
)
from monitor.wix.pace import Pace

CONNECTION_PATH: Final = "/bookings/v2/external-calendars/connections/"
TOKEN_PATH: Final = "/oauth2/token"  # noqa: S105  a path, not a secret

_TURNS: Final = 3
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
        self._base = URL(settings.base_url)
        self._settings = settings
        self._clock = clock
        self._took = took
        self._watcher = watcher
        self._session: aiohttp.ClientSession | None = None
        self._former: list[tuple[float, aiohttp.ClientSession]] = []  # and until when they may be in use

    async def open(self) -> None:
        """Set up the session. Raises OSError or ssl.SSLError where `ca_file` cannot be used."""
        self._session = self._new_session(self._settings)

    async def adapt(self, settings: ApiSettings) -> None:
        """Go on with other settings; requests under way end by the former ones. Raises as `open` does."""
        if settings == self._settings:
            return
        session = self._new_session(settings)
        await self._close_former(self._clock.monotonic())
        if self._session is not None:
            ends = self._clock.monotonic() + self._settings.timeout.total_seconds() + 1
            self._former.append((ends, self._session))
        self._session, self._settings = session, settings
        self._base = URL(settings.base_url)

    def _new_session(self, settings: ApiSettings) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=settings.ca_file)
        return aiohttp.ClientSession(
            connector=Connector(limit=0, ssl=context, keepalive_timeout=_KEEP_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=settings.timeout.total_seconds(), ceil_threshold=math.inf),
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"wix-calendar-monitor/{__version__}",
            },
            auto_decompress=False,
            proxy=_proxy(settings),
            middlewares=(only_once,),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._close_former(math.inf)
        if self._session is not None:
            await self._session.close()

    async def _close_former(self, now: float) -> None:
        ended = [session for ends, session in self._former if ends <= now]
        self._former = [each for each in self._former if each[0] > now]
        for session in ended:
            await session.close()

    async def send(
        self, method: str, path: str, headers: Headers, body: Mapping[str, str] | None = None
    ) -> Answer | NoAnswer:
        """One request, its whole answer or why there is none. Never raises for what a network does."""
        began = self._clock.monotonic()
        url = self._base.with_path(self._base.raw_path.rstrip("/") + path, encoded=True)
        answer = await self._send(method, url, headers, body)
        seconds = self._clock.monotonic() - began
        self._took(seconds)
        if self._watcher is not None:
            self._watcher(Exchange(method, str(url), headers, answer, seconds))
        return answer

    async def _send(
        self, method: str, url: URL, headers: Headers, body: Mapping[str, str] | None
    ) -> Answer | NoAnswer:
        assert self._session is not None, "open() comes first"  # noqa: S101
        begin_request()
        try:
            async with self._session.request(
                method, url, headers=headers, json=body, allow_redirects=False
            ) as response:
                return await read(response)
        except CutOffError as error:
            told = explain(error.cause)
            return StaleConnection(*told) if was_kept() else NoAnswer(*told)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            return NoAnswer(*explain(error))


def _proxy(settings: ApiSettings) -> str | None:
    """The configured proxy or the environment's; aiohttp's `trust_env` would obey `~/.netrc` as well."""
    url = URL(settings.base_url)
    if not settings.proxy_from_environment or proxy_bypass(url.host or ""):
        return settings.proxy_url
    found = getproxies().get(url.scheme)
    return f"http://{found}" if found and "://" not in found else found


def _nothing() -> None:
    """The retry of a poll that has started already."""


def _always() -> bool:
    """A request that nothing outdates."""
    return True


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
        self._hide = hide
        self._on_renewed = on_renewed
        self._settings = credential
        self._credential = self._take(credential)
        self._former: list[Credential] = []

    def _take(self, credential: ApiKeyCredential | OAuthCredential) -> Credential:
        if isinstance(credential, OAuthCredential):
            failed = self.pace.failed
            return OAuth(credential, self._ask_token, self._clock, self._hide, self._on_renewed, failed)
        return ApiKey(credential, self._hide)

    def use(self, credential: ApiKeyCredential | OAuthCredential) -> None:
        """Go on with this credential; polls that wait for a token of the former one still get it."""
        if credential == self._settings:
            return
        self._former.append(self._credential)
        self._settings, self._credential = credential, self._take(credential)
        self.pace.credential_replaced()

    async def get_connection(
        self, connection_id: str, *, on_started: Callable[[], None], trial: bool = False
    ) -> Observation:
        """Poll one connection; `on_started` is called once, when its request is let go.

        Raises WithheldError where the pace does not let it go: nothing was asked then.
        """
        self.pace.check(trial=trial)
        outage = self.pace.state.outage
        if trial and outage is not None and outage.reason in REFUSALS:
            self._credential.forget()
        used, observation = await self._ask(connection_id, on_started, trial=trial)
        refused = isinstance(observation, PollFailed) and observation.http_status == HTTPStatus.UNAUTHORIZED
        if used is None or not refused:
            return observation
        self._credential.renew(used)
        try:
            self.pace.check(trial=trial)
            _, again = await self._ask(connection_id, _nothing, trial=trial)
        except WithheldError:  # asked to wait in between: the 401 stands
            return observation
        return again

    def take_new_secret(self) -> bool:
        """Whether the secret was replaced since the last time; from now on the new one is used."""
        if not self._credential.take_new_secret():
            return False
        self.pace.credential_replaced()
        return True

    async def close(self) -> None:
        """End what the credential, and former ones, have under way."""
        for credential in (*self._former, self._credential):
            await credential.close()

    async def _ask(
        self, connection_id: str, on_started: Callable[[], None], *, trial: bool
    ) -> tuple[Headers | None, Observation]:
        """One answer and the headers that earned it; None where the credential gave none."""
        for turn in range(_TURNS):
            headers = await self._credential.headers()
            if isinstance(headers, PollFailed):
                return None, headers
            last = turn == _TURNS - 1  # a token that ends sooner than its turn comes is sent all the same
            fit = _always if last else partial(self._credential.holds, headers)
            with suppress(OutdatedError):
                return headers, await self._get(connection_id, headers, on_started, fit, trial=trial)
        raise AssertionError("the last one is always fit")

    async def _get(
        self,
        connection_id: str,
        headers: Headers,
        on_started: Callable[[], None],
        fit: Callable[[], bool],
        *,
        trial: bool,
    ) -> Observation:
        path = CONNECTION_PATH + _segment(connection_id)
        answer = await self._send("GET", path, headers, on_started=on_started, trial=trial, fit=fit)
        observation = classify(answer, connection_id, self._clock.wall(self._clock.now()))
        if isinstance(observation, PollFailed):
            self.pace.failed(observation.reason)
        return observation

    async def _ask_token(self, form: Mapping[str, str]) -> Answer | NoAnswer:
        return await self._send("POST", TOKEN_PATH, {}, form, on_started=_nothing, trial=True)

    async def _send(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: Mapping[str, str] | None = None,
        *,
        on_started: Callable[[], None],
        trial: bool,
        fit: Callable[[], bool] = _always,
    ) -> Answer | NoAnswer:
        """Ask at our pace; once more where a connection kept from earlier turns out to be closed."""
        async with self.pace.request(trial=trial, fit=fit):
            on_started()
            answer = await self._api.send(method, path, headers, body)
            if isinstance(answer, NoAnswer) or answer.http_status != HTTPStatus.OK:
                self.pace.doubt()
        if isinstance(answer, StaleConnection):
            with suppress(WithheldError):
                async with self.pace.request(trial=trial):
                    self.pace.failed(answer.reason)
                    return await self._api.send(method, path, headers, body)
        return answer


def _segment(connection_id: str) -> str:
    """One path segment, whatever the id; a `.` or `..` left as it is would be a step in the path."""
    dots = connection_id in (".", "..")
    return connection_id.replace(".", "%2E") if dots else quote(connection_id, safe="")
