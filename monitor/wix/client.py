"""Get Connection over HTTP: one question in, one observation out, whatever the network does.

Source of URL and headers: Get Connection of Wix External Calendar V2. No redirect is followed (the
credential must not travel), no cookie kept, no body read past 256 KiB, no compression asked for.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Final, NamedTuple
from urllib.parse import quote

from monitor.clock import Clock
from monitor.config import ApiKeyCredential, ApiSettings, OAuthCredential
from monitor.core.classify import classify
from monitor.core.model import Answer, NoAnswer, Observation, PollFailed
from monitor.core.site import REFUSALS
from monitor.errors import OutdatedError, WithheldError
from monitor.wix.credentials import ApiKey, Credential, Form, Headers, OAuth
from monitor.wix.network import StaleConnection, Ways
from monitor.wix.pace import Pace

CONNECTION_PATH: Final = "/bookings/v2/external-calendars/connections/"
TOKEN_PATH: Final = "/oauth2/token"  # noqa: S105  a path, not a secret

_TURNS: Final = 3


class Exchange(NamedTuple):
    """One request and what came back, for `poll` to show; `headers` and `answer` hold secrets unredacted."""

    method: str
    url: str
    headers: Headers
    answer: Answer | NoAnswer
    seconds: float


Watcher = Callable[[Exchange], None]


def _always() -> bool:
    """A request that nothing outdates."""
    return True


class Api:
    """The way to Wix that all sites share, and what is timed about it."""

    def __init__(
        self,
        settings: ApiSettings,
        clock: Clock,
        took: Callable[[float], None],
        watcher: Watcher | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._took = took
        self._watcher = watcher
        self._ways: Ways | None = None
        self._former: list[tuple[float, Ways]] = []  # and until when they may be in use

    async def open(self) -> None:
        """Set it up. Raises OSError or ssl.SSLError where `ca_file` cannot be used."""
        self._ways = Ways(self._settings)

    async def adapt(self, settings: ApiSettings) -> None:
        """Go on with other settings; requests under way end by the former ones. Raises as `open` does."""
        if settings == self._settings:
            return
        ways = Ways(settings)
        await self._close_former(self._clock.monotonic())
        if self._ways is not None:
            ends = self._clock.monotonic() + self._settings.timeout.total_seconds() + 1
            self._former.append((ends, self._ways))
        self._ways, self._settings = ways, settings

    async def close(self) -> None:
        """Close every connection."""
        await self._close_former(math.inf)
        if self._ways is not None:
            await self._ways.close()

    async def _close_former(self, now: float) -> None:
        ended = [ways for ends, ways in self._former if ends <= now]
        self._former = [each for each in self._former if each[0] > now]
        for ways in ended:
            await ways.close()

    async def send(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: Mapping[str, str] | None = None,
        may_go: Callable[[], bool] = _always,
    ) -> Answer | NoAnswer:
        """One request, its whole answer or why there is none. Never raises for what a network does.

        Raises WithheldError where it may not go any more once there is a connection.
        """
        assert self._ways is not None, "open() comes first"  # noqa: S101
        url = self._settings.base_url.rstrip("/") + path
        began = self._clock.monotonic()
        answer = await self._ways.ask(method, path, headers, body, may_go)
        seconds = self._clock.monotonic() - began
        self._took(seconds)
        if self._watcher is not None:
            self._watcher(Exchange(method, url, headers, answer, seconds))
        return answer


Body = Callable[[], Mapping[str, str] | None]
"""Makes a request's body when its turn has come."""


def _nothing() -> None:
    """The retry of a poll that has started already; the body of a request that has none."""


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
        if used is None or not self._is_refused(used, observation):
            return observation
        self._credential.renew(used)
        try:
            self.pace.check(trial=trial)
            _, again = await self._ask(connection_id, _nothing, trial=trial)
        except WithheldError:  # asked to wait in between: the refusal stands
            return observation
        return again

    def _permitted(self) -> bool:
        return self.pace.permit.holds

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
        path = CONNECTION_PATH + _segment(connection_id)
        for turn in range(_TURNS):
            headers = await self._credential.headers()
            if isinstance(headers, PollFailed):
                return None, headers
            last = turn == _TURNS - 1  # a token that ends sooner than its turn comes is sent all the same
            fit = _always if last else partial(self._credential.holds, headers)
            try:
                answer = await self._send("GET", path, headers, on_started=on_started, trial=trial, fit=fit)
            except OutdatedError:
                continue
            return headers, self._observed(answer, connection_id)
        raise AssertionError("the last one is always fit")

    def _is_refused(self, used: Headers, observation: Observation) -> bool:
        """Whether others may be let in: a 403 is the last word on these where they still hold."""
        if not isinstance(observation, PollFailed) or observation.reason not in REFUSALS:
            return False
        return observation.http_status == HTTPStatus.UNAUTHORIZED or not self._credential.holds(used)

    def _observed(self, answer: Answer | NoAnswer, connection_id: str) -> Observation:
        observation = classify(answer, connection_id, self._clock.wall(self._clock.now()))
        if isinstance(observation, PollFailed):
            self.pace.failed(observation.reason)
        return observation

    async def _ask_token(self, form: Form) -> Answer | NoAnswer:
        return await self._send("POST", TOKEN_PATH, {}, form, on_started=_nothing, trial=True)

    async def _send(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: Body = _nothing,
        *,
        on_started: Callable[[], None],
        trial: bool,
        fit: Callable[[], bool] = _always,
    ) -> Answer | NoAnswer:
        """Ask at our pace; once more where a connection kept from earlier turns out to be closed."""
        held = await self.pace.enter(trial=trial, fit=fit)
        try:
            on_started()
            answer = await self._api.send(method, path, headers, body(), self._permitted)
            if isinstance(answer, NoAnswer) or answer.http_status != HTTPStatus.OK:
                self.pace.doubt()
        finally:
            self.pace.leave(held)
        if isinstance(answer, StaleConnection):
            with suppress(WithheldError):
                return await self._send_again(method, path, headers, body, answer, trial=trial)
        return answer

    async def _send_again(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: Body,
        failed: StaleConnection,
        *,
        trial: bool,
    ) -> Answer | NoAnswer:
        held = await self.pace.enter(trial=trial)
        try:
            self.pace.failed(failed.reason)
            return await self._api.send(method, path, headers, body(), self._permitted)
        finally:
            self.pace.leave(held)


def _segment(connection_id: str) -> str:
    """One path segment, whatever the id; a `.` or `..` left as it is would be a step in the path."""
    dots = connection_id in (".", "..")
    return connection_id.replace(".", "%2E") if dots else quote(connection_id, safe="")
