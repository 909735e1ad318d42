"""Who we are to Wix: an API key, or an access token that OAuth client credentials earn.

The token goes into `Authorization` raw, as Wix's documentation has it. A secret is read from its file anew
whenever a token is asked for or a key is refused, so that a rotated file takes effect by itself.
Sources: "Create Access Token" and "REST API Authentication" of the Wix API documentation.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol

from monitor.clock import Clock
from monitor.config import ApiKeyCredential, OAuthCredential, SecretSource
from monitor.core.classify import classify_refusal
from monitor.core.model import Answer, FailureReason, NoAnswer, PollFailed
from monitor.core.wire import WireToken, read_token, read_token_error

Headers = Mapping[str, str]


class SecretHeaders(dict[str, str]):
    """Headers that let a request in; their values are in no repr, which ends up in logs and tracebacks."""

    def __repr__(self) -> str:
        return f"SecretHeaders({', '.join(self)})"


AskToken = Callable[[Mapping[str, str]], Awaitable[Answer | NoAnswer]]

_LONGEST_MARGIN: Final = timedelta(minutes=10)
_MARGIN_PART: Final = 0.1
_TRUSTED_FOR: Final = timedelta(seconds=30)
"""A token that a 401 earned is not replaced for this long: a storm of 401s is no storm of renewals."""

_REFUSALS: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class Credential(Protocol):
    """What a request needs to be let in."""

    async def headers(self) -> Headers | PollFailed:
        """The headers to send now, or why there are none."""

    async def renew(self, used: Headers) -> None:
        """The headers `used` were refused: have better ones next time, if there are any."""

    async def forget(self) -> None:
        """Drop what could be wrong about it: the breaker's trial after a refusal starts afresh."""

    async def close(self) -> None:
        """End what is under way."""


class ApiKey:
    """A site-level API key: sent raw, with the site's id."""

    def __init__(self, settings: ApiKeyCredential, hide: Callable[[str], None]) -> None:
        self._settings = settings
        self._hide = hide
        self._headers: Headers | PollFailed | None = None

    async def headers(self) -> Headers | PollFailed:
        """The key's headers; the file is read when they are first wanted."""
        if self._headers is None or isinstance(self._headers, PollFailed):
            self._headers = self._read()
        return self._headers

    async def renew(self, used: Headers) -> None:
        """Read the file again: it may hold a new key by now."""
        if used is self._headers:
            self._headers = None

    async def forget(self) -> None:
        """Read the file again at the next use."""
        self._headers = None

    async def close(self) -> None:
        """Nothing is ever under way."""

    def _read(self) -> Headers | PollFailed:
        key = _read_secret(self._settings.api_key)
        if isinstance(key, PollFailed):
            return key
        self._hide(key)
        return SecretHeaders({"Authorization": key, "wix-site-id": self._settings.site_id})


class _Token(NamedTuple):
    headers: Headers
    renew_at: datetime


class OAuth:
    """Client credentials: one token at a time, one renewal in flight however many polls wait for it."""

    def __init__(
        self,
        settings: OAuthCredential,
        ask: AskToken,
        clock: Clock,
        hide: Callable[[str], None],
        on_renewed: Callable[[], None],
        on_failed: Callable[[FailureReason], None],
    ) -> None:
        self._settings = settings
        self._ask = ask
        self._clock = clock
        self._hide = hide
        self._on_renewed = on_renewed
        self._on_failed = on_failed
        self._token: _Token | None = None
        self._replaced_at: datetime | None = None
        self._renewal: asyncio.Task[_Token | PollFailed] | None = None

    async def headers(self) -> Headers | PollFailed:
        """The token's header; renews it first where its end is near."""
        if self._token is not None and self._clock.now() < self._token.renew_at:
            return self._token.headers
        if self._renewal is None:
            self._renewal = asyncio.get_running_loop().create_task(self._renew(), name="token renewal")
            self._renewal.add_done_callback(self._renewed)
        got = await asyncio.shield(self._renewal)
        return got if isinstance(got, PollFailed) else got.headers

    async def renew(self, used: Headers) -> None:
        """Drop the refused token, unless another poll has replaced it, or a refusal earned it just now."""
        if self._token is None or self._token.headers is not used:
            return
        now = self._clock.now()
        if self._replaced_at is not None and now - self._replaced_at < _TRUSTED_FOR:
            return
        self._replaced_at = now
        self._token = None

    async def forget(self) -> None:
        """Ask for a new token at the next use."""
        self._token = None

    async def close(self) -> None:
        """End a renewal under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    def _renewed(self, renewal: asyncio.Task[_Token | PollFailed]) -> None:
        self._renewal = None
        if renewal.cancelled() or renewal.exception() is not None:
            return
        got = renewal.result()
        if not isinstance(got, PollFailed):
            self._token = got
            self._on_renewed()

    async def _renew(self) -> _Token | PollFailed:
        secret = _read_secret(self._settings.client_secret)
        if isinstance(secret, PollFailed):
            return secret
        self._hide(secret)
        form = {
            "grant_type": "client_credentials",
            "client_id": self._settings.client_id,
            "client_secret": secret,
        }
        if self._settings.instance_id is not None:
            form["instance_id"] = self._settings.instance_id
        got = self._read(await self._ask(form))
        if isinstance(got, PollFailed):
            self._on_failed(got.reason)
        return got

    def _read(self, answer: Answer | NoAnswer) -> _Token | PollFailed:
        if isinstance(answer, NoAnswer):
            return PollFailed(answer.reason, f"token: {answer.detail}", answer.http_status, answer.request_id)
        if answer.http_status != HTTPStatus.OK:
            return _read_refusal(answer, self._clock)
        token = read_token(answer.body)
        if token is None:
            return PollFailed(
                FailureReason.BAD_RESPONSE, "token: no token in the answer", HTTPStatus.OK, answer.request_id
            )
        self._hide(token.access_token)
        return self._keep(token)

    def _keep(self, token: WireToken) -> _Token:
        life = timedelta(seconds=token.expires_in)
        return _Token(
            headers=SecretHeaders({"Authorization": token.access_token}),
            renew_at=self._clock.now() + life - min(life * _MARGIN_PART, _LONGEST_MARGIN),
        )


def _read_refusal(answer: Answer, clock: Clock) -> PollFailed:
    """Why the token endpoint gave none: 400, 401 and 403 say that the credential itself is refused."""
    failed = classify_refusal(answer, clock.wall(clock.now()))
    code = read_token_error(answer.body)
    refused = answer.http_status in _REFUSALS
    return PollFailed(
        FailureReason.UNAUTHORIZED if refused else failed.reason,
        f"token: {code or ('refused' if refused else 'none given')}",
        answer.http_status,
        answer.request_id,
        failed.retry_after,
        refused,
    )


def _read_secret(source: SecretSource) -> str | PollFailed:
    try:
        return source.read()
    except (OSError, ValueError) as error:
        return PollFailed(FailureReason.UNAUTHORIZED, str(error), refused=True)
