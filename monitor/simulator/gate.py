"""Who is asking: API keys, client credentials and the tokens given for them.

Strict where Wix is known to be, and where it is unclear: the raw token in `Authorization`, `Bearer` before
OAuth tokens at most, `wix-site-id` with API keys only. A key that is missing or wrong is a 403 with an
empty envelope, a token that has ended a 401.
Sources: "REST API Authentication", "About API Keys" and "Create Access Token" of the Wix documentation.
"""

import json
import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

from aiohttp import web

from monitor.simulator.answers import envelope, token_document, token_refusal
from monitor.simulator.scenario import Scenario, Site

TOKENS_KEPT: Final = 10_000
"""Tokens remembered at a time; beyond, the oldest is as good as revoked."""

_TOKEN_MARK: Final = "OauthNG.JWS."  # noqa: S105  the public beginning of every Wix access token
_SITE_HEADER: Final = "wix-site-id"


class Caller(NamedTuple):
    """Whose request it is, and what turns it down if anything does."""

    site: Site | None
    refusal: web.Response | None = None

    @property
    def site_name(self) -> str:
        """The site's name, empty where the credentials belong to none."""
        return self.site.name if self.site is not None else ""


class _Refused(Exception):  # noqa: N818  a turn in one function, never seen outside
    def __init__(self, status: int, error: str, description: str, site: Site | None = None) -> None:
        self.status, self.error, self.description, self.site = status, error, description, site


class Gate:
    """Knows the credentials of a scenario and the tokens given so far."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._tokens: dict[str, tuple[Site, timedelta]] = {}

    def caller(self, headers: Mapping[str, str], elapsed: timedelta) -> Caller:
        """Tell whose API request this is by its headers."""
        given = headers.get("Authorization", "")
        token = given.removeprefix("Bearer ")
        if token.startswith(_TOKEN_MARK):
            return self._token_bearer(token, elapsed, by_key=_SITE_HEADER in headers)
        for site in self._scenario.sites:
            if (site.api_key, site.site_id) == (given, headers.get(_SITE_HEADER)):
                return Caller(site)
        return Caller(None, envelope(403))

    def client(self, content_type: str, body: bytes) -> Caller:
        """Tell whose token request this is by its body."""
        try:
            return Caller(self._authenticate(_token_request(content_type, body)))
        except _Refused as no:
            shape = self._scenario.token_error_shape
            return Caller(no.site, token_refusal(no.status, no.error, no.description, shape))

    def grant(self, site: Site, elapsed: timedelta) -> dict[str, Any]:
        """Give a new token; those given before stay valid."""
        token = _TOKEN_MARK + secrets.token_urlsafe(48)
        lifetime = self._scenario.token_lifetime
        self._tokens[token] = (site, elapsed + lifetime)
        while len(self._tokens) > TOKENS_KEPT:
            del self._tokens[next(iter(self._tokens))]
        return token_document(token, lifetime.total_seconds())

    def revoke(self, site_name: str | None = None) -> int:
        """End the tokens of a site, or all; how many."""
        ended = [token for token, (site, _) in self._tokens.items() if site_name in (None, site.name)]
        for token in ended:
            self._tokens[token] = (self._tokens[token][0], timedelta.min)
        return len(ended)

    def _token_bearer(self, token: str, elapsed: timedelta, *, by_key: bool) -> Caller:
        site, ends = self._tokens.get(token, (None, timedelta.min))
        if elapsed >= ends:
            return Caller(site, envelope(401, message="The access token is invalid or has expired."))
        if by_key:  # seen by others: a token carries its site, and a second one confuses the identity
            return Caller(site, envelope(403, "UNAUTHORIZED", "No Metasite Context in identity."))
        return Caller(site)

    def _authenticate(self, request: Mapping[str, Any]) -> Site:
        clients = [
            (site, site.oauth)
            for site in self._scenario.sites
            if site.oauth is not None and site.oauth.client_id == request["client_id"]
        ]
        trusted = [pair for pair in clients if pair[1].client_secret == request["client_secret"]]
        if not trusted:
            known = clients[0][0] if clients else None
            raise _Refused(401, "invalid_client", "Unknown client or wrong secret.", known)
        for site, oauth in trusted:
            if oauth.instance_id == request.get("instance_id"):
                return site
        raise _Refused(400, "invalid_grant", "The app is not installed as this instance.", trusted[0][0])


def _token_request(content_type: str, body: bytes) -> Mapping[str, Any]:
    if content_type != "application/json":
        raise _Refused(400, "invalid_request", "The body must be application/json.")
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise _Refused(400, "invalid_request", "The body is not JSON.") from None
    if not isinstance(request, dict):
        raise _Refused(400, "invalid_request", "The body is not an object.")
    for field in ("grant_type", "client_id", "client_secret"):
        if not isinstance(request.get(field), str):
            raise _Refused(400, "invalid_request", f"{field} is missing.")
    if request["grant_type"] != "client_credentials":
        raise _Refused(400, "unsupported_grant_type", "Only client_credentials is served.")
    return request
