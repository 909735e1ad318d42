"""The connections of a site, from the file itself and from the files that it names."""

import glob
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from monitor.config.document import Loc
from monitor.config.listed import Listed, Run
from monitor.config.memory import FileRead, Memory, read_connections
from monitor.config.model import ConnectionFile, Site
from monitor.config.resolve import Resolver
from monitor.config.settings import FeedSettings
from monitor.config.source import Source, parse
from monitor.config.watching import Sources, unreachable
from monitor.errors import Problem

_TOLD: Final = 3  # problems of a list that is refused


class Gatherer:
    """Gathers connections; a connection file is read once, however many sites name it."""

    def __init__(
        self, source: Source, resolver: Resolver, problems: list[Problem], sources: Sources, memory: Memory
    ) -> None:
        self._source = source
        self._resolver = resolver
        self._problems = problems
        self._read: dict[Path, FileRead] = {}
        self._sources = sources
        self._memory = memory

    def from_files(self, loc: Loc, site: Site) -> tuple[Listed, ...]:
        """The connections in the files that the site names, in the order of those names."""
        files: dict[Path, Path] = {}
        for number, text in enumerate(site.connection_files):
            for file in self._matches((*loc, "connection_files", number), text):
                files.setdefault(file.resolve(), file)
        return tuple(self._connections_of(real, file) for real, file in files.items())

    def forget_what_went(self) -> None:
        """Let the memory keep the files of this reading only; one that could not be read was none."""
        named = {each.listed.source.path for each in self._read.values()}
        self._memory.files = {path: each for path, each in self._memory.files.items() if path in named}

    def from_feeds(
        self, loc: Loc, feeds: Sequence[FeedSettings], others: Sequence[Listed]
    ) -> tuple[Listed, ...]:
        """The connections that the site's feeds served last, as they are kept on disk.

        What is wrong with them is a warning, and left out: no list of somebody else's may stop a start.
        """
        told = len(self._problems)
        lists = [each for number, feed in enumerate(feeds) for each in self._last_of(loc, number, feed)]
        kept = tuple(self._not_twice(lists, others))
        self._problems[told:] = [replace(each, severity="warning") for each in self._problems[told:]]
        return kept

    def _last_of(self, loc: Loc, number: int, feed: FeedSettings) -> list[Listed]:
        files = self._sources.look(glob.escape(str(feed.copy)))
        if not files:
            told = "has served no list yet; its connections are not known"
            self._problems.append(self._source.problem((*loc, "connection_feeds", number), told))
        return [self._connections_of(file.resolve(), file) for file in files]

    def _not_twice(self, lists: Sequence[Listed], others: Sequence[Listed]) -> Iterator[Listed]:
        if not lists:
            return
        ids = {entry.id for each in others for entry in each.entries()}
        names = {entry.name for each in others for entry in each.entries()}
        for listed in lists:
            kept = []
            for item in listed.items():
                if item.entry.id in ids or item.entry.name in names:
                    told = "stands twice in its site; this one is left out"
                    self._problems.append(item.problem("id", told))
                    continue
                ids.add(item.entry.id)
                names.add(item.entry.name)
                kept.append(Run(item.loc[:-1], int(item.loc[-1]), (item.entry,)))
            yield listed if len(kept) == len(listed) else Listed(listed.source, (), tuple(kept))

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

    def _connections_of(self, real: Path, file: Path) -> Listed:
        if real not in self._read:
            self._read[real] = made = read_connections(file, self._memory)
            self._problems.extend(made.problems)
        return self._read[real].listed


def check_connections_text(path: Path, text: str) -> list[str]:
    """What is wrong with a list of connections that is to stand in a file: the first few problems."""
    _, problems = parse(path, ConnectionFile, text=text)
    return [
        f"line {each.line}: {each.path}: {each.message}" if each.path else f"line {each.line}: {each.message}"
        for each in problems[:_TOLD]
    ]
