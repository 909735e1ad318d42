"""The pages for people: whole without a script, and every name escaped by the templates' own rule."""

import asyncio
import gzip
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlencode

import jinja2
import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from monitor.core.shards import Shard
from monitor.errors import StoreUnreadableError
from monitor.view.facts import Facts
from monitor.view.index import Index, Place
from monitor.view.look import ConnectionView, SiteView, look_at, look_at_site
from monitor.view.verdict import blindness, judge
from monitor.view.wanted import Wanted
from monitor.web.answers import kept, wants_gzip
from monitor.web.api import UNREADABLE
from monitor.web.asking import FILTERS, STATUSES, Asked, BadParameterError, cursor
from monitor.web.documents import connection_path, runbook_path, site_path
from monitor.web.elsewhere import Elsewhere, elsewhere
from monitor.web.hints import poll_command, series_of
from monitor.web.listening import link_of
from monitor.web.outlook import Outlook
from monitor.web.past import Past
from monitor.web.runbooks import inline, runbook
from monitor.web.timeline import COLUMNS, WINDOWS, draw, spans_of
from monitor.web.words import kind_of, moment_of, span_of, status_of, who_of

SIZE: Final = 50
"""Connections of a page."""

POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page may do: nothing but with what this server itself serves."""

HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Vary": "Accept-Encoding",
}

_STATIC: Final = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_CHANGES: Final = 25
_LONGEST_LIFE: Final = 2000  # chapters that a timeline is made of
_SITES_OFFERED: Final = 200
_RENDERED: Final = 64  # pages that are kept for as long as the look that they show
_WIDTH: Final = 1000


@cache
def _environment() -> jinja2.Environment:
    """The templates, compiled: once a process, and before anything is polled."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(str(files("monitor.web") / "templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "moment": moment_of,
        "span": span_of,
        "who": who_of,
        "kind": kind_of,
        "status": status_of,
        "runbook": runbook_path,
        "path": lambda view: connection_path(view.site, view.name),
        "site_path": site_path,
        "site_kind": _site_kind,
        "inline": inline,
        "link": lambda node: link_of(node.urls),
    }
    for name in made.list_templates():
        made.get_template(name)
    return made


class Html:
    """The routes of the pages and of what they are made with."""

    def __init__(self, outlook: Outlook, past: Past, config_file: str, shard: Shard) -> None:
        self._outlook = outlook
        self._past = past
        self._config_file = config_file
        self._shard = str(shard) if shard.several else ""
        self._whose = f" for {self._shard}" if shard.several else ""
        self._templates = _environment()
        self._static = {name: (files("monitor.web") / "static" / name).read_bytes() for name in _STATIC}
        self._rendered: dict[str, asyncio.Future[tuple[bytes, bytes]]] = {}
        self._rendered_of = 0

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        return [
            web.get("/", self._fleet),
            web.get("/connections/{site}/{name}", self._connection),
            web.get("/sites", self._sites),
            web.get("/sites/{site}", self._site),
            web.get("/runbooks/{alert}", self._runbook),
            web.get("/static/{name}", self._file),
        ]

    @web.middleware
    async def refusals(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What a page cannot show, as a page."""
        try:
            return await handler(request)
        except BadParameterError as error:
            return await self._told(request, HTTPStatus.BAD_REQUEST, f"This cannot be shown: {error}.")

    async def _fleet(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.query, (*FILTERS, "after", "before"), strict=False)
        wanted, after, before = asked.wanted(), asked.place("after"), asked.place("before")
        index = await self._outlook.index()
        if self._rendered_of != mark_of(index.facts):
            self._rendered_of, self._rendered = mark_of(index.facts), {}
        rendering = self._rendered.get(request.path_qs)
        if rendering is None:
            if len(self._rendered) >= _RENDERED:  # made for this client only, and no more once it has gone
                return _html(request, *await self._fleet_page(wanted, after, before))
            rendering = asyncio.ensure_future(self._fleet_page(wanted, after, before))  # noqa: TID251  held here
            self._rendered[request.path_qs] = rendering
        return _html(request, *await asyncio.shield(rendering))

    async def _fleet_page(
        self, wanted: Wanted, after: Place | None, before: Place | None
    ) -> tuple[bytes, bytes]:
        """The page, plain and compressed."""
        found = await self._outlook.page(wanted, SIZE, after=after, before=before)
        index = found.index
        page = await self._render(
            "fleet.html",
            index.facts,
            here="fleet",
            verdict=judge(index),
            tally=index.tally,
            down=len(index.down),
            statuses=_by_kind(index),
            share=_share(index),
            sites=list(index.sites)[:_SITES_OFFERED],
            all_statuses=STATUSES,
            wanted=wanted,
            narrowed=not wanted.asks_for_all,
            found=found,
            size=SIZE,
            next=_turned(wanted, "after", found.after),
            previous=_turned(wanted, "before", found.until),
        )
        return page, _squeezed(page)

    async def _connection(self, request: web.Request) -> web.StreamResponse:
        facts = self._outlook.facts()
        site = request.match_info["site"]
        found = await self._outlook.find(facts, site, request.match_info["name"])
        if found is None:
            return await self._missing(
                request, "calendar", await elsewhere(self._past, facts, site, connection=True)
            )
        view = look_at(found[1], found[0], facts)
        page = await self._render(
            "connection.html",
            facts,
            here="connection",
            view=view,
            series=series_of(view),
            command=poll_command(view, self._config_file),
            columns=COLUMNS,
            **await self._history(view, facts),
        )
        return _html(request, page)

    async def _history(self, view: ConnectionView, facts: Facts) -> Mapping[str, Any]:
        now = facts.wall(facts.now)
        begin = now - max(length for _, length, _, _ in WINDOWS)
        try:
            chapters = await self._past.life(view.site, view.id, begin, _LONGEST_LIFE)
        except StoreUnreadableError:
            return {"unreadable": UNREADABLE}
        known_until = view.last_success if view.stale and view.last_success is not None else now
        asked = urlencode({"site": view.site, "connection": view.name}, errors="replace")
        return {
            "unreadable": None,
            "timelines": draw(spans_of(chapters, known_until, now), now),
            "changes": chapters[:_CHANGES],
            "more": f"/api/v1/transitions?{asked}" if len(chapters) > _CHANGES else None,
        }

    async def _sites(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(request.query, ("from",), strict=False)
        index = await self._outlook.index()
        begin = asked.number("from")
        ranked = sorted(index.facts.sites.values(), key=lambda site: (site.state.outage is None, site.name))
        shown = [(look_at_site(each, index.facts), index.sites[each.name]) for each in ranked[begin:][:SIZE]]
        more = begin + SIZE < len(ranked)
        page = await self._render(
            "sites.html",
            index.facts,
            here="sites",
            sites=shown,
            before=begin if shown else 0,
            total=len(ranked),
            size=SIZE,
            next=f"/sites?from={begin + SIZE}" if more else None,
        )
        return _html(request, page)

    async def _site(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["site"]
        found = await self._outlook.page(Wanted(site=name), SIZE)
        site = found.index.facts.sites.get(name)
        if site is None:
            return await self._missing(request, "site", await elsewhere(self._past, found.index.facts, name))
        view = look_at_site(site, found.index.facts)
        page = await self._render(
            "site.html",
            found.index.facts,
            here="site",
            site=view,
            failed=sum(view.failures.values()),
            found=found,
            size=SIZE,
            next=_turned(Wanted(site=name), "after", found.after),
        )
        return _html(request, page)

    async def _runbook(self, request: web.Request) -> web.StreamResponse:
        alert = request.match_info["alert"]
        blocks = runbook(alert)
        if blocks is None:
            return await self._told(request, HTTPStatus.NOT_FOUND, "There is no such runbook.")
        page = await self._render(
            "text.html", self._outlook.facts(), here="runbook", title=alert, lines=blocks
        )
        return _html(request, page)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in _STATIC:
            raise web.HTTPNotFound
        return kept(request, self._static[name], _STATIC[name])

    async def _missing(self, request: web.Request, what: str, where: Elsewhere | None) -> web.Response:
        """What is not watched here, and links to the same page of those that watch it."""
        if where is None:
            told = f"No such {what} is configured{self._whose}."
            return await self._told(request, HTTPStatus.NOT_FOUND, told)
        told = f"This node watches no such {what}; {where.told}."
        urls = ((each.name, link_of(each.urls)) for each in where.nodes)
        links = [(name, url + request.rel_url.raw_path) for name, url in urls if url is not None]
        return await self._told(request, HTTPStatus.NOT_FOUND, told, links)

    async def _told(
        self, request: web.Request, status: HTTPStatus, told: str, links: Sequence[tuple[str, str]] = ()
    ) -> web.Response:
        page = await self._render(
            "text.html", self._outlook.facts(), here="told", title=status.phrase, told=told, links=links
        )
        response = _html(request, page)
        response.set_status(status)
        return response

    async def _render(self, template: str, facts: Facts, **shown: Any) -> bytes:
        """A page, made bit by bit: polls have their turn in between."""
        made = self._templates.get_template(template)
        bits = made.generate(
            now=facts.wall(facts.now),
            seen=mark_of(facts),
            shard=self._shard,
            node=facts.node,
            blind=blindness(facts),
            watched=len(facts.sites),
            **shown,
        )
        return "".join(await self._outlook.turns.all(bits)).encode("utf-8", "replace")


def mark_of(facts: Facts) -> int:
    """When a page's facts are of, in milliseconds: what has changed since is newer."""
    return int(facts.wall(facts.now).timestamp() * 1000)


def _html(request: web.Request, plain: bytes, squeezed: bytes | None = None) -> web.Response:
    response = web.Response(body=plain, content_type="text/html", charset="utf-8", headers=HEADERS)
    if wants_gzip(request):
        response.body = _squeezed(plain) if squeezed is None else squeezed
        response.headers["Content-Encoding"] = "gzip"
    return response


def _squeezed(page: bytes) -> bytes:
    return gzip.compress(page, 6, mtime=0)


def _by_kind(index: Index) -> list[tuple[str, int]]:
    """Each status there is and how often, what is wrong first."""
    order = ("bad", "unknown", "well")
    return sorted(index.tally.statuses.items(), key=lambda each: (order.index(kind_of(each[0])), -each[1]))


def _share(index: Index) -> list[Mapping[str, object]]:
    """The parts of the fleet as a bar: what is there at all is seen."""
    tally = index.tally
    rest = tally.connections - tally.healthy - tally.unhealthy
    parts = [("bad", tally.unhealthy), ("unknown", rest), ("well", tally.healthy)]
    widths = [max(count * _WIDTH // tally.connections, 4) if count else 0 for _, count in parts]
    widths[2] += (_WIDTH - sum(widths)) if widths[2] else 0
    lefts = [0, widths[0], widths[0] + widths[1]]
    shown = zip(parts, lefts, widths, strict=True)
    return [{"kind": kind, "left": left, "width": width} for (kind, _), left, width in shown if width]


def _turned(wanted: Wanted, way: str, place: Place | None) -> str | None:
    """The address of another page of the same list."""
    if place is None:
        return None
    given = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}
    plain = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
    return "/?" + urlencode({**plain, way: cursor(place)}, errors="replace")


def _site_kind(site: SiteView) -> str:
    if site.up is None or (site.up and site.wait_until is not None):
        return "unknown"
    return "well" if site.up else "bad"
