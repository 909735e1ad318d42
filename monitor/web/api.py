"""`/api/v1`: what is known, for programs. Its description is served beside it, and tests hold it to that."""

from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from monitor.core.shards import Shard
from monitor.errors import StoreUnreadableError
from monitor.store.reading import Chapter, Wanted
from monitor.view.facts import Facts
from monitor.view.look import look_at, look_at_site
from monitor.web.answers import JSON, document, kept, problem
from monitor.web.asking import FILTERS, Asked, BadParameterError, cursor
from monitor.web.documents import (
    connection_document,
    connection_whole,
    fleet_document,
    site_document,
)
from monitor.web.elsewhere import Elsewhere, elsewhere
from monitor.web.hints import poll_command, series_of
from monitor.web.outlook import Outlook
from monitor.web.past import Past

API: Final = "/api/v1"

UNREADABLE: Final = "the store cannot be read now; the command `history`, on the monitor's machine, says why"
"""What is told where the past cannot be."""

_USUAL: Final = 100
_MOST: Final = 500
_RETRY: Final = {"Retry-After": "5"}


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals of the API as problem details."""
    if not request.path.startswith("/api/"):
        return await handler(request)
    try:
        return await handler(request)
    except BadParameterError as error:
        return problem(HTTPStatus.BAD_REQUEST, str(error), parameter=error.name)
    except StoreUnreadableError:  # its words name a path, which is the operator's business
        unreadable = problem(HTTPStatus.SERVICE_UNAVAILABLE, UNREADABLE)
        unreadable.headers.update(_RETRY)
        return unreadable
    except web.HTTPException as refusal:
        told = problem(HTTPStatus(refusal.status), refusal.text or refusal.reason)
        told.headers.update({name: refusal.headers[name] for name in ("Allow",) if name in refusal.headers})
        return told


class Api:
    """The routes below /api/v1."""

    def __init__(self, outlook: Outlook, past: Past, config_file: str, shard: Shard) -> None:
        self._outlook = outlook
        self._past = past
        self._config_file = config_file
        self._shard = shard
        self._whose = f" for {shard}" if shard.several else ""
        self._description = (files("monitor.web") / "openapi.json").read_bytes()

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.get(f"{API}/openapi.json", self._openapi),
            web.get(f"{API}/fleet", self._fleet),
            web.get(f"{API}/connections", self._connections),
            web.get(f"{API}/connections/{{site}}/{{name}}", self._connection),
            web.get(f"{API}/sites", self._sites),
            web.get(f"{API}/sites/{{site}}", self._site),
            web.get(f"{API}/transitions", self._transitions),
        ]

    async def _openapi(self, request: web.Request) -> web.Response:
        return kept(request, self._description, JSON)

    async def _fleet(self, request: web.Request) -> web.Response:
        Asked(request.query, ())
        return document(request, fleet_document(await self._outlook.index(), self._shard))

    async def _connections(self, request: web.Request) -> web.Response:
        asked = Asked(request.query, (*FILTERS, "limit", "cursor"))
        wanted, limit, after = asked.wanted(), asked.limit(_USUAL, _MOST), asked.place("cursor")
        found = await self._outlook.page(wanted, limit, after=after)
        body = {
            "connections": await self._outlook.turns.all(map(connection_document, found.connections)),
            "total": found.total,
            "next": cursor(found.after),
        }
        return document(request, body)

    async def _connection(self, request: web.Request) -> web.Response:
        Asked(request.query, ())
        site, name = request.match_info["site"], request.match_info["name"]
        facts = self._outlook.facts()
        found = await self._outlook.find(facts, site, name)
        if found is None:
            return self._missing("connection", await elsewhere(self._past, facts, site, connection=True))
        view = look_at(found[1], found[0], facts)
        return document(
            request, connection_whole(view, series_of(view), poll_command(view, self._config_file))
        )

    async def _sites(self, request: web.Request) -> web.Response:
        asked = Asked(request.query, ("limit", "cursor"))
        limit, after = asked.limit(_USUAL, _MOST), asked.name("cursor")
        index = await self._outlook.index()
        names = sorted(index.sites)
        rest = [name for name in names if after is None or name > after]
        shown = rest[:limit]
        facts = index.facts
        body = {
            "sites": [
                site_document(look_at_site(facts.sites[name], facts), index.sites[name]) for name in shown
            ],
            "total": len(names),
            "next": cursor((shown[-1],)) if len(rest) > limit else None,
        }
        return document(request, body)

    async def _site(self, request: web.Request) -> web.Response:
        Asked(request.query, ())
        index = await self._outlook.index()
        site = index.facts.sites.get(request.match_info["site"])
        if site is None:
            return self._missing("site", await elsewhere(self._past, index.facts, request.match_info["site"]))
        return document(request, site_document(look_at_site(site, index.facts), index.sites[site.name]))

    def _missing(self, what: str, where: Elsewhere | None) -> web.Response:
        told = f"no such {what} is configured{self._whose}"
        if where is not None:
            told = f"this node watches no such {what}; {where.told}"
        return problem(HTTPStatus.NOT_FOUND, told)

    async def _transitions(self, request: web.Request) -> web.Response:
        asked = Asked(request.query, ("since", "site", "connection", "limit", "cursor"))
        facts = self._outlook.facts()
        site, connection = asked.text("site"), asked.text("connection")
        if connection is not None and site is None:
            raise BadParameterError("connection", "is a name within a site: give site as well")
        limit = asked.limit(_USUAL, _MOST)
        since = asked.moment("since", facts.wall(facts.now))
        wanted = Wanted(site=site, connection=connection, since=since)
        found = await self._past.changes(wanted, limit + 1, asked.instant("cursor"))
        told = ended((chapter for _, chapter in found[:limit]), facts)
        body = {
            "transitions": [each.document() for each in told],
            "next": cursor(found[limit - 1][0]) if len(found) > limit else None,
        }
        return document(request, body)


def ended(chapters: Iterable[Chapter], facts: Facts) -> list[Chapter]:
    """The chapters, of which those of connections that are watched no more last no more."""
    watched: dict[str, set[str]] = {}
    told = []
    for each in chapters:
        if each.until is None and each.kept_at is not None:
            if each.site not in watched:
                site = facts.sites.get(each.site)
                watched[each.site] = (
                    {its.connection.id for its in site.watched} if site is not None else set()
                )
            if each.connection_id not in watched[each.site]:
                told.append(replace(each, until=max(each.kept_at, each.since)))
                continue
        told.append(each)
    return told
