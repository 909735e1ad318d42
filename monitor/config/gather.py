"""The connections of a site, from the file itself and from the files that it names."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from monitor.config.document import EMPTY, Loc
from monitor.config.model import ConnectionFile, Entry, EntryOrHole, Site
from monitor.config.resolve import Resolver
from monitor.config.source import Source, parse_partly
from monitor.config.watching import Sources
from monitor.errors import Problem

_LONGEST_OWN_NAME: Final = 64
_KEPT: Final = 12


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

    def __init__(self, source: Source, resolver: Resolver, problems: list[Problem]) -> None:
        self._source = source
        self._resolver = resolver
        self._problems = problems
        self._read: dict[Path, tuple[Source, list[Entry | None]]] = {}
        self.sources = Sources()

    def inline(self, loc: Loc, site: Site) -> list[Item]:
        """The connections in the file itself."""
        return list(_items(self._source, (*loc, "connections"), site.connections))

    def from_files(self, loc: Loc, site: Site) -> list[Item]:
        """The connections in the files that the site names, in the order of those names."""
        files: dict[Path, Path] = {}
        for number, text in enumerate(site.connection_files):
            for file in self._matches((*loc, "connection_files", number), text):
                files.setdefault(file.resolve(), file)
        return [item for real, file in files.items() for item in self._items_of(real, file)]

    def _matches(self, loc: Loc, text: str) -> list[Path]:
        pattern = self._resolver.pattern(loc, text)
        if pattern is None:
            return []
        files = self.sources.look(pattern)
        if not files:
            told = "matches no file; add one, or remove this entry"
            self._problems.append(self._source.problem(loc, told, "warning"))
        return files

    def _items_of(self, real: Path, file: Path) -> Iterator[Item]:
        if real not in self._read:
            self._read[real] = self._read_file(file)
        source, entries = self._read[real]
        return _items(source, (), entries)

    def _read_file(self, file: Path) -> tuple[Source, list[Entry | None]]:
        draft = parse_partly(file, ConnectionFile)
        if [problem.message for problem in draft.problems] == [EMPTY]:
            self._problems.append(replace(draft.problems[0], severity="warning"))
            return draft.source, []
        self._problems.extend(draft.problems)
        entries = draft.model.root if draft.model is not None else []
        if not entries and not draft.problems:
            self._problems.append(draft.source.problem((), "has no connections in it", "warning"))
        return draft.source, entries


def _items(source: Source, loc: Loc, entries: list[EntryOrHole]) -> Iterator[Item]:
    for number, entry in enumerate(entries):
        if entry is not None:
            yield Item(source, (*loc, number), entry, entry.name or default_name(entry.id))
