"""Who we are to Wix: an API key, or an access token that OAuth client credentials earn.

The token goes into `Authorization` raw, as Wix's documentation has it. A secret's file is read anew once it
has changed, so that a rotated one takes effect by itself; one that cannot be read then is looked at again.
Sources: "Create Access Token" and "REST API Authentication" of the Wix API documentation.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol

import msgspec

from monitor.clock import Clock
from monitor.config import ApiKeyCredential, OAuthCredential, SecretSource
from monitor.core.classify import classify_refusal
from monitor.core.model import Answer, FailureReason, NoAnswer, PollFailed
from monitor.core.wire import WireToken, read_token

Headers = Mapping[str, str]


class SecretHeaders(dict[str, str]):
    """Headers that let a request in; their values are in no repr, which ends up in logs and tracebacks."""

    def __repr__(self) -> str:
        return f"SecretHeaders({', '.join(self)})"


Form = Callable[[], Mapping[str, str]]
"""Makes what asks for a token, when its turn has come: the secret may be rotated while it waits for that."""

AskToken = Callable[[Form], Awaitable[Answer | NoAnswer]]

_SHORTEST_MARGIN: Final = timedelta(seconds=75)  # a poll may wait a minute for its budget, token in hand
_LONGEST_MARGIN: Final = timedelta(minutes=10)
_MARGIN_PART: Final = 0.1
_TRUSTED_FOR: Final = timedelta(seconds=30)
"""A token that a 401 earned is not replaced for this long: a storm of 401s is no storm of renewals."""

_RETRY_AFTER: Final = timedelta(seconds=30)
"""After a renewal has failed, the old token is used for this long before the next is tried."""


class Credential(Protocol):
    """What a request needs to be let in."""

    async def headers(self) -> Headers | PollFailed:
        """The headers to send now, or why there are none."""

    def holds(self, headers: Headers) -> bool:
        """Whether these are still the headers to send."""

    def renew(self, used: Headers) -> None:
        """The headers `used` were refused: have better ones next time, if there are any."""

    def forget(self) -> None:
        """Drop what could be wrong about it: the breaker's trial after a refusal starts afresh."""

    def take_new_secret(self) -> bool:
        """Whether the secret's file has changed since the last time; it is used from now on then."""

    async def close(self) -> None:
        """End what is under way."""


class _Secret:
    """A secret where it is kept."""

    def __init__(self, source: SecretSource) -> None:
        self._source = source
        self._version = source.version()
        self._text = ""

    def read(self) -> str | PollFailed:
        """The secret as it is now."""
        try:
            self._text = self._source.read()
        except (OSError, ValueError) as error:
            return PollFailed(FailureReason.UNAUTHORIZED, str(error), refused=True)
        return self._text

    def newest(self) -> str:
        """The secret as it is now; as it was read last while it cannot be read."""
        self.read()
        return self._text

    def has_changed(self) -> bool:
        """Whether there is another file since the last time, and it can be read: not while it is written."""
        version = self._source.version()
        if version in (None, self._version) or isinstance(self.read(), PollFailed):
            return False
        self._version = version
        return True


class ApiKey:
    """A site-level API key: sent raw, with the site's id."""

    def __init__(self, settings: ApiKeyCredential, hide: Callable[[str], None]) -> None:
        self._site_id = settings.site_id
        self._secret = _Secret(settings.api_key)
        self._hide = hide
        self._headers: Headers | PollFailed | None = None

    async def headers(self) -> Headers | PollFailed:
        """The key's headers; the file is read when they are first wanted."""
        if self._headers is None or isinstance(self._headers, PollFailed):
            self._headers = self._read()
        return self._headers

    def holds(self, headers: Headers) -> bool:
        """Whether the key is still this one."""
        return headers is self._headers

    def renew(self, used: Headers) -> None:
        """Read the file again: it may hold a new key by now."""
        if used is self._headers:
            self._headers = None

    def forget(self) -> None:
        """Read the file again at the next use."""
        self._headers = None

    def take_new_secret(self) -> bool:
        """Whether there is a new key; it is read at the next use."""
        if not self._secret.has_changed():
            return False
        self._headers = None
        return True

    async def close(self) -> None:
        """Nothing is ever under way."""

    def _read(self) -> Headers | PollFailed:
        key = self._secret.read()
        if isinstance(key, PollFailed):
            return key
        self._hide(key)
        return SecretHeaders({"Authorization": key, "wix-site-id": self._site_id})


class _Token(NamedTuple):
    headers: Headers
    renew_at: datetime
    ends_at: datetime


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
        self._secret = _Secret(settings.client_secret)
        self._ask = ask
        self._clock = clock
        self._hide = hide
        self._on_renewed = on_renewed
        self._on_failed = on_failed
        self._sent = ""  # the secret of the last request
        self._untried = False  # whether another was taken since
        self._token: _Token | None = None
        self._replaced_at: datetime | None = None
        self._renewal: asyncio.Task[_Token | PollFailed] | None = None

    async def headers(self) -> Headers | PollFailed:
        """The token's header; renews it first where its end is near.

        Where that fails the old token serves on while it lasts, unless the credential is refused, or the
        whole site is told to wait.
        """
        if self._token is not None and self._clock.now() < self._token.renew_at:
            return self._token.headers
        first = self._renewal is None
        if self._renewal is None:
            self._renewal = asyncio.get_running_loop().create_task(self._renew(), name="token renewal")
            self._renewal.add_done_callback(self._renewed)
        got = await asyncio.shield(self._renewal)
        if not isinstance(got, PollFailed):
            return got.headers
        told_to_wait = got.reason is FailureReason.RATE_LIMITED
        if self._token is not None and self._clock.now() < self._token.ends_at and not told_to_wait:
            return self._token.headers
        return got if first else msgspec.structs.replace(got, shared=True)

    def holds(self, headers: Headers) -> bool:
        """Whether the token is still this one, and has not ended."""
        token = self._token
        return token is not None and token.headers is headers and self._clock.now() < token.ends_at

    def renew(self, used: Headers) -> None:
        """Drop the refused token, unless another poll has replaced it, or a refusal earned it just now."""
        if self._token is None or self._token.headers is not used:
            return
        now = self._clock.now()
        if self._replaced_at is not None and now - self._replaced_at < _TRUSTED_FOR:
            return
        self._replaced_at = now
        self._token = None

    def forget(self) -> None:
        """Ask for a new token at the next use."""
        self._token = None

    def take_new_secret(self) -> bool:
        """Whether there is a new secret; a token is asked for with it at once, so that a wrong one shows."""
        if not self._secret.has_changed():
            return False
        self._token = None
        self._untried = self._secret.newest() != self._sent
        return True

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
            due = self._clock.now() if self._untried else got.renew_at
            self._token = got._replace(renew_at=due)
            self._on_renewed()
        elif got.refused:
            self._token = None
        elif self._token is not None:
            next_try = self._clock.now() + _RETRY_AFTER
            self._token = self._token._replace(renew_at=min(next_try, self._token.ends_at))

    async def _renew(self) -> _Token | PollFailed:
        """A token; a refusal stands only where the secret that was refused is still the one in its place."""
        secret = self._secret.read()
        if isinstance(secret, PollFailed):
            return secret
        got = await self._ask_once()
        while isinstance(got, PollFailed) and got.refused and self._secret.newest() != self._sent:
            got = await self._ask_once()
        return got

    async def _ask_once(self) -> _Token | PollFailed:
        got = self._read(await self._ask(self._form))
        if isinstance(got, PollFailed):
            self._on_failed(got.reason)
        return got

    def _form(self) -> Mapping[str, str]:
        self._sent = self._secret.newest()
        self._untried = False
        self._hide(self._sent)
        form = {
            "grant_type": "client_credentials",
            "client_id": self._settings.client_id,
            "client_secret": self._sent,
        }
        if self._settings.instance_id is not None:
            form["instance_id"] = self._settings.instance_id
        return form

    def _read(self, answer: Answer | NoAnswer) -> _Token | PollFailed:
        if isinstance(answer, NoAnswer):
            return PollFailed(answer.reason, f"token: {answer.detail}", answer.http_status, answer.request_id)
        if answer.http_status != HTTPStatus.OK:
            return classify_refusal(answer, self._clock.wall(self._clock.now()))
        token = read_token(answer.body)
        if token is None:
            return PollFailed(
                FailureReason.BAD_RESPONSE, "token: no token in the answer", HTTPStatus.OK, answer.request_id
            )
        self._hide(token.access_token)
        return self._keep(token)

    def _keep(self, token: WireToken) -> _Token:
        life = timedelta(seconds=token.expires_in)
        margin = min(max(life * _MARGIN_PART, _SHORTEST_MARGIN), _LONGEST_MARGIN, life / 2)
        ends_at = self._clock.now() + life
        headers = SecretHeaders({"Authorization": token.access_token})
        return _Token(headers, renew_at=ends_at - margin, ends_at=ends_at)
