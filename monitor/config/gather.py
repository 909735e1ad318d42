"""The connections of a site, from the file itself and from the files that it names."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from monitor.config.document import EMPTY, Loc
from monitor.config.model import ConnectionFile, Entry, Group, Site
from monitor.config.resolve import Resolver
from monitor.config.settings import FeedSettings
from monitor.config.source import Source, parse, parse_partly
from monitor.config.watching import Sources, unreachable
from monitor.errors import Problem

_Entries = tuple[Loc, list[tuple[int, Entry]]]

_LONGEST_OWN_NAME: Final = 64
_KEPT: Final = 12
_TOLD: Final = 3  # problems of a list that is refused


class Item(NamedTuple):
    """One connection as written, and where."""

    source: Source
    loc: Loc
    entry: Entry
    name: str

    def problem(self, key: str, message: str) -> Problem:
        """An error at a key of this connection."""
        return self.source.problem((*self.loc, key), message)

    def place(self) -> str:
        """`file:line` of the connection."""
        return f"{self.source.path}:{self.source.line(self.loc)}"


def default_name(connection_id: str) -> str:
    """The name of a connection that was given none: its id where that is short, else a digest of it."""
    if len(connection_id) <= _LONGEST_OWN_NAME:
        return connection_id
    digest = blake2b(connection_id.encode(), digest_size=4).hexdigest()
    return f"{connection_id[:_KEPT]}-{digest}"


class Gatherer:
    """Gathers connections; a connection file is read once, however many sites name it."""

    def __init__(self, source: Source, resolver: Resolver, problems: list[Problem], sources: Sources) -> None:
        self._source = source
        self._resolver = resolver
        self._problems = problems
        self._read: dict[Path, tuple[Source, list[_Entries]]] = {}
        self._sources = sources

    def inline(self, loc: Loc, site: Site) -> list[Item]:
        """The connections in the file itself."""
        written = [(number, each) for number, each in enumerate(site.connections) if each is not None]
        return list(_items(self._source, (*loc, "connections"), written))

    def from_files(self, loc: Loc, site: Site) -> list[Item]:
        """The connections in the files that the site names, in the order of those names."""
        files: dict[Path, Path] = {}
        for number, text in enumerate(site.connection_files):
            for file in self._matches((*loc, "connection_files", number), text):
                files.setdefault(file.resolve(), file)
        return [item for real, file in files.items() for item in self._items_of(real, file)]

    def from_feeds(self, loc: Loc, feeds: Sequence[FeedSettings], others: Sequence[Item]) -> list[Item]:
        """The connections that the site's feeds served last, as they are kept on disk.

        What is wrong with them is a warning, and left out: no list of somebody else's may stop a start.
        """
        told = len(self._problems)
        items = [item for number, feed in enumerate(feeds) for item in self._last_of(loc, number, feed)]
        kept = list(self._not_twice(items, others))
        self._problems[told:] = [replace(each, severity="warning") for each in self._problems[told:]]
        return kept

    def _last_of(self, loc: Loc, number: int, feed: FeedSettings) -> Iterator[Item]:
        files = self._sources.look(glob.escape(str(feed.copy)))
        if not files:
            told = "has served no list yet; its connections are not known"
            self._problems.append(self._source.problem((*loc, "connection_feeds", number), told))
        return (item for file in files for item in self._items_of(file.resolve(), file))

    def _not_twice(self, items: Sequence[Item], others: Sequence[Item]) -> Iterator[Item]:
        ids = {each.entry.id for each in others}
        names = {each.name for each in others}
        for item in items:
            if item.entry.id in ids or item.name in names:
                self._problems.append(item.problem("id", "stands twice in its site; this one is left out"))
                continue
            ids.add(item.entry.id)
            names.add(item.name)
            yield item

    def _matches(self, loc: Loc, text: str) -> list[Path]:
        pattern = self._resolver.pattern(loc, text)
        if pattern is None:
            return []
        files = self._sources.look(pattern)
        if not files and (why := unreachable(pattern)) is not None:
            told = f"{why}; mend that, or remove this entry"
            self._problems.append(self._source.problem(loc, told))
        elif not files:
            told = "matches no file; add one, or remove this entry"
            self._problems.append(self._source.problem(loc, told, "warning"))
        return files

    def _items_of(self, real: Path, file: Path) -> Iterator[Item]:
        if real not in self._read:
            self._read[real] = self._read_file(file)
        source, lists = self._read[real]
        return (item for loc, entries in lists for item in _items(source, loc, entries))

    def _read_file(self, file: Path) -> tuple[Source, list[_Entries]]:
        draft = parse_partly(file, ConnectionFile)
        if [problem.message for problem in draft.problems] == [EMPTY]:
            self._problems.append(replace(draft.problems[0], severity="warning"))
            return draft.source, []
        self._problems.extend(draft.problems)
        lists = list(_lists(draft.model.root if draft.model is not None else []))
        if not any(entries for _, entries in lists) and not draft.problems:
            self._problems.append(draft.source.problem((), "has no connections in it", "warning"))
        return draft.source, lists


def _lists(written: Sequence[Entry | Group | None]) -> Iterator[_Entries]:
    """Each entry and each group's as a list of its own, and where it begins."""
    for number, each in enumerate(written):
        if isinstance(each, Group):
            yield (number, "targets"), list(enumerate(each.entries()))
        elif each is not None:
            yield (), [(number, each)]


def _items(source: Source, loc: Loc, entries: Iterable[tuple[int, Entry]]) -> Iterator[Item]:
    for number, entry in entries:
        yield Item(source, (*loc, number), entry, entry.name or default_name(entry.id))


def check_connections_text(path: Path, text: str) -> list[str]:
    """What is wrong with a list of connections that is to stand in a file: the first few problems."""
    _, problems = parse(path, ConnectionFile, text=text)
    return [
        f"line {each.line}: {each.path}: {each.message}" if each.path else f"line {each.line}: {each.message}"
        for each in problems[:_TOLD]
    ]
