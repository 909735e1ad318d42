"""From the file to frozen settings: shape, paths, secrets, checks across it, and every problem at once."""

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from monitor.config.checks import (
    SiteDraft,
    check_connections,
    check_plan,
    check_sites,
    check_slots,
    make_room,
    parts_of,
)
from monitor.config.database import is_database
from monitor.config.document import Loc
from monitor.config.gather import Gatherer
from monitor.config.listed import Listed, Written
from monitor.config.memory import Memory, Reading, read_monitor
from monitor.config.model import MonitorFile, Polling, Site, Store
from monitor.config.resolve import Resolver, Secrets
from monitor.config.sentences import path_of
from monitor.config.settings import (
    ApiSettings,
    FeedSettings,
    GivenSecret,
    SecretSource,
    Settings,
    SiteSettings,
    StoreSettings,
)
from monitor.config.share import divided, share
from monitor.config.watching import Sources
from monitor.core.model import Connection, Policy, Status
from monitor.core.shards import ALONE, Shard, Unit
from monitor.errors import ConfigError, Problem

SHARD: Final = "WIX_CALENDAR_MONITOR_SHARD"
TOTAL_SHARDS: Final = "WIX_CALENDAR_MONITOR_TOTAL_SHARDS"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that can be used, what is doubtful about them, and the files they came from.

    They are those of the `shard`; where there is none, as with PostgreSQL, of everything.
    """

    file: Path
    settings: Settings
    warnings: tuple[Problem, ...]
    sources: Sources
    shard: Shard | None
    again: Callable[[], "Loaded"] = field(repr=False)
    """Read it anew, in the same way."""


def load(
    path: Path,
    *,
    environ: Mapping[str, str],
    secrets: Secrets = Secrets.REQUIRED,
    shard: Shard | None = ALONE,
) -> Loaded:
    """Read, resolve and check the whole configuration, and take what the shard watches of it.

    Without a shard, and with PostgreSQL, it is everything, and what the slots of one process carry is not
    looked at. Raises ConfigError with every problem, warnings too, in file order.
    """
    return _again(path, environ, secrets, shard, Memory())


def load_each(
    path: Path, total: int, *, environ: Mapping[str, str], secrets: Secrets = Secrets.REQUIRED
) -> list[Loaded]:
    """Load it as each of so many shards would. Raises ConfigError with every problem of any."""
    memory = Memory()
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    for ordinal in range(total):
        try:
            loaded.append(_again(path, environ, secrets, Shard(ordinal, total), memory))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(tuple(dict.fromkeys(problems)))
    return loaded


@contextmanager
def _no_collections() -> Iterator[None]:
    """No search for cycles meanwhile: there are none, and each search is a stall of the whole process."""
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()


def _again(
    path: Path, environ: Mapping[str, str], secrets: Secrets, shard: Shard | None, memory: Memory
) -> Loaded:
    with _no_collections():
        return _load(path, environ, secrets, shard, memory)


def _load(
    path: Path, environ: Mapping[str, str], secrets: Secrets, shard: Shard | None, memory: Memory
) -> Loaded:
    sources = Sources(path)
    reading = read_monitor(path, memory)
    problems = reading.draft.problems
    if reading.draft.model is None:
        raise ConfigError(tuple(problems))
    resolver = Resolver(reading.draft.source, _variables(environ, shard), problems, secrets)
    loading = _Loading(reading, reading.draft.model, resolver, sources, memory, shard)
    settings = loading.settings()
    ordered = _in_file_order(path, problems)
    if any(problem.severity == "error" for problem in ordered):
        raise ConfigError(ordered)
    loading.remember()
    again = partial(_again, path, environ, secrets, shard, memory)
    return Loaded(path, settings, ordered, sources, loading.shard, again)


def _variables(environ: Mapping[str, str], shard: Shard | None) -> Mapping[str, str]:
    """The environment, in which the shard stands in any case, so that its store can be named by it."""
    if shard is None:
        return {SHARD: "0", TOTAL_SHARDS: "1", **environ}
    return {**environ, SHARD: str(shard.ordinal), TOTAL_SHARDS: str(shard.total)}


def _in_file_order(path: Path, problems: Sequence[Problem]) -> tuple[Problem, ...]:
    ranks = {str(path): 0}
    for problem in problems:
        ranks.setdefault(problem.file, len(ranks))
    return tuple(sorted(problems, key=lambda problem: (ranks[problem.file], problem.line)))


class _Loading:
    """One load; problems are added to the list that it was given."""

    def __init__(
        self,
        reading: Reading,
        model: MonitorFile,
        resolver: Resolver,
        sources: Sources,
        memory: Memory,
        shard: Shard | None,
    ) -> None:
        self._source = reading.draft.source
        self._problems = reading.draft.problems
        self._model = model
        self._inline = reading.inline
        self._resolver = resolver
        self._memory = memory
        self.shard = shard
        self._gatherer = Gatherer(self._source, resolver, self._problems, sources, memory)
        self._made: dict[str, tuple[object, SiteSettings]] = {}  # with all that each site comes from

    def settings(self) -> Settings:
        api, store = self._api(), self._store()
        drafts = self._with_room(self._drafts(self._feeds_folder(store)), api)
        self._gatherer.forget_what_went()  # even if this is refused: refusals must not pile up
        whole = not self._problems or all(each.severity == "warning" for each in self._problems)
        self._problems += check_sites(self._source, drafts)
        self._problems += check_connections(drafts)
        if whole:  # a plan without the broken entries would be another plan
            self._problems += check_plan(self._source, drafts, api.max_in_flight)
        if whole and self.shard is not None:
            self._problems += check_slots(self._source, drafts, api.max_in_flight, self.shard)
        watched = [draft for draft in drafts if draft.mine]
        everything = Settings(api, tuple(map(self._site, watched)), store)
        return share(everything, [Unit(each.site.name, part) for each in watched for part in each.mine])

    def remember(self) -> None:
        """Let the next reading find what this one has made."""
        self._memory.finished = self._made

    def _with_room(self, drafts: list[SiteDraft], api: ApiSettings) -> list[SiteDraft]:
        return drafts if self.shard is None else make_room(drafts, api.max_in_flight)

    def _mine(self, site: Site) -> tuple[int, ...]:
        """The parts of the site that are watched here."""
        parts = range(site.parts)
        if self.shard is None:
            return tuple(parts)
        return tuple(part for part in parts if self.shard.owns(Unit(site.name, part)))

    def _site(self, draft: SiteDraft) -> SiteSettings:
        polling = self._model.polling
        lists = tuple(draft.lists())
        site = draft.site.model_copy(update={"connections": []}) if draft.site.connections else draft.site
        key = (site, polling, draft.interval, draft.in_force, draft.credential, draft.feeds, lists)
        known, made = self._memory.finished.get(draft.site.name, (None, None))
        made = made if made is not None and known == key else _site(draft, polling)
        self._made[draft.site.name] = key, made
        return made

    def _api(self) -> ApiSettings:
        api = self._model.api
        return ApiSettings(
            base_url=api.base_url,
            timeout=api.timeout,
            max_in_flight=api.max_in_flight,
            ca_file=self._resolver.ca_file(("api", "ca_file"), api.ca_file),
            proxy_url=api.proxy_url,
            proxy_from_environment=api.proxy_from_environment,
        )

    def _store(self) -> StoreSettings:
        store = self._model.store
        url, given = self._resolver.store_url(("store", "url"), store.url)
        self._check_store(store, url, given)
        self._leave_to_the_nodes(url)
        password: SecretSource | GivenSecret | None = GivenSecret(given) if given is not None else None
        if store.password_file is not None:
            password = self._resolver.password_file(("store",), store.password_file)
        return StoreSettings(url, store.history_retention, password, store.lease_ttl, store.on_engine_loss)

    def _check_store(self, store: Store, url: str, given: str | None) -> None:
        for key in ("password_file", "lease_ttl", "on_engine_loss"):
            if key in store.model_fields_set and not is_database(url):
                self._complain(("store", key), "is for PostgreSQL; leave it out with SQLite")
        if given is not None and store.password_file is not None:
            self._complain(("store", "password_file"), "is beside a password in store.url; keep one")

    def _leave_to_the_nodes(self, url: str) -> None:
        """Nodes that share a PostgreSQL divide the sites themselves: each has to know them all."""
        if not is_database(url):
            return
        if self.shard is not None and self.shard.several:
            told = "is PostgreSQL's, whose nodes divide the sites among themselves"
            self._complain(("store", "url"), f"{told}; leave out --shard and --total-shards")
        self.shard = None

    def _feeds_folder(self, store: StoreSettings) -> Path:
        """Where feeds are kept; said to be missing where it must be named and is not."""
        folder = self._model.store.feeds_directory
        if folder is not None:
            return self._resolver.path(("store", "feeds_directory"), folder) or Path(folder)
        if store.is_shared and any(site is not None and site.connection_feeds for site in self._model.sites):
            self._complain(("store",), "needs feeds_directory, as there are connection_feeds and no file")
        # Several may keep their stores in one folder, and two may follow one feed.
        shard = self.shard or ALONE
        return store.path.parent / (f"feeds-{shard.ordinal}" if shard.several else "feeds")

    def _complain(self, loc: Loc, told: str) -> None:
        self._problems.append(self._source.problem(loc, told))

    def _check_watches_something(self, loc: Loc, site: Site, inline: Listed) -> None:
        broken = f"{path_of(loc)}.connection"  # what is broken was taken out, and is told already
        if len(inline) or site.connections or site.connection_files or site.connection_feeds:
            return
        if not any(problem.path.startswith(broken) for problem in self._problems):
            told = "watches nothing; add connections, connection_files or connection_feeds"
            self._problems.append(self._source.problem(loc, told))

    def _feeds(self, loc: Loc, site: Site, folder: Path) -> Iterator[FeedSettings]:
        for number, feed in enumerate(site.connection_feeds):
            if feed is not None:
                token = self._resolver.bearer_token((*loc, "connection_feeds", number), feed)
                yield FeedSettings(feed.url, feed.interval, folder / f"{site.name}-{number}.json", token)

    def _drafts(self, feeds_folder: Path) -> list[SiteDraft]:
        drafts = []
        for number, site in enumerate(self._model.sites):
            if site is None:
                continue
            loc = ("sites", number)
            inline = Listed(self._source, (*loc, "connections"), self._inline[number])
            self._check_watches_something(loc, site, inline)
            mine = self._mine(site)
            from_files = self._gatherer.from_files(loc, site)
            feeds = tuple(self._feeds(loc, site, feeds_folder))
            if mine:  # who does not follow a feed has no list of it
                from_files += self._gatherer.from_feeds(loc, feeds, (inline, *from_files))
            draft = SiteDraft(
                loc=loc,
                site=site,
                credential=self._resolver.credential((*loc, "credential"), site.credential),
                interval=site.interval or self._model.polling.interval,
                inline=inline,
                from_files=from_files,
                parts=parts_of(site, (inline, *from_files)),
                mine=mine,
                feeds=feeds,
            )
            drafts.append(draft)
        return drafts


def _site(draft: SiteDraft, polling: Polling) -> SiteSettings:
    site = draft.site
    connections = _connections(draft, polling)
    return SiteSettings(
        name=site.name,
        credential=draft.credential,
        requests_per_minute=site.requests_per_minute,
        interval=draft.interval,
        interval_in_force=draft.in_force,
        breaker_failures=site.breaker_failures or polling.breaker_failures,
        maintenance_until=site.maintenance_until,
        connections=connections,
        feeds=draft.feeds,
        parts=divided(connections, site.requests_per_minute, site.parts),
    )


def _connections(draft: SiteDraft, polling: Polling) -> tuple[Connection, ...]:
    plain = _policy(draft, polling)
    policies: dict[frozenset[Status] | None, Policy] = {None: plain}
    connections = []
    for entry in draft.entries():
        if entry.expected not in policies:
            policies[entry.expected] = _policy(draft, polling, entry.expected)
        connections.append(_connection(draft.site, entry, policies[entry.expected]))
    return tuple(connections)


def _policy(draft: SiteDraft, polling: Polling, expected: frozenset[Status] | None = None) -> Policy:
    site = draft.site
    stale_after = site.stale_after or polling.stale_after
    confirmations = site.not_found_confirmations or polling.not_found_confirmations
    dead_interval = site.dead_interval or polling.dead_interval or draft.in_force
    return Policy(
        interval=draft.in_force,
        stale_window=stale_after * max(draft.interval, draft.in_force),
        unsettled_interval=site.unsettled_interval or polling.unsettled_interval,
        not_found_confirmations=confirmations,
        expected=expected,
        dead_every=max(math.ceil(dead_interval / draft.in_force), 1),
    )


def _connection(site: Site, entry: Written, policy: Policy) -> Connection:
    return Connection(
        site=site.name,
        id=entry.id,
        name=entry.name,
        policy=policy,
        team=(entry.team if entry.team is not None else site.team) or "",
        labels=entry.labels,
        maintenance_until=_later(entry.maintenance_until, site.maintenance_until),
    )


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    moments = [moment for moment in (one, other) if moment is not None]
    return max(moments, default=None)
