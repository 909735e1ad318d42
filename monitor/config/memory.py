"""What the last reading of a configuration made of each part, so that the next repeats only what differs.

All is kept with the text that it was made of, and is used for just that text: no time of a file and no digest
has to be trusted. It is for one thread at a time.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from yaml.reader import Reader

from monitor.config.document import EMPTY, read_alone
from monitor.config.listed import Listed, Run, runs_of
from monitor.config.model import ConnectionFile, MonitorFile, Site
from monitor.config.pieces import LISTED, cut
from monitor.config.settings import SiteSettings
from monitor.config.source import Draft, Source, parse_partly, read_text
from monitor.errors import Problem

_LONE_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")  # what json takes of it, YAML may not


class SiteRead(NamedTuple):
    """A site without its own connections, and those."""

    site: Site
    runs: tuple[Run, ...]


class FileRead(NamedTuple):
    """A file of connections, and what is wrong with it."""

    listed: Listed
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class Memory:
    """What is remembered: sites by their text, files by their path, finished sites by their name."""

    sites: dict[str, SiteRead] = field(default_factory=dict)
    files: dict[Path, FileRead] = field(default_factory=dict)
    finished: dict[str, tuple[object, SiteSettings]] = field(default_factory=dict)


class Reading(NamedTuple):
    """The configuration's own file, and the connections in it of each of its sites."""

    draft: Draft[MonitorFile]
    inline: Sequence[tuple[Run, ...]]


def read_monitor(path: Path, memory: Memory) -> Reading:
    """Read the configuration's own file, as far as it goes."""
    text = read_text(path)
    if isinstance(text, str) and (made := _in_pieces(path, text, memory)) is not None:
        return made
    draft = parse_partly(path, MonitorFile, text=text)
    sites = draft.model.sites if draft.model is not None else []
    return Reading(draft, [runs_of(site.connections) if site is not None else () for site in sites])


def _in_pieces(path: Path, text: str, memory: Memory) -> Reading | None:
    """The same of a file in which nothing is wrong, read anew only where it is another; else None."""
    pieces = cut(text)
    around = pieces.around() if pieces is not None else None
    if pieces is None or around is None:
        return None
    try:
        read = {entry: memory.sites.get(entry) or _site_of(entry) for entry in pieces.entries}
        reads = [read[entry] for entry in pieces.entries]
        model = MonitorFile.model_validate({**around, LISTED: [each.site for each in reads]})
    except ValidationError:
        return None
    memory.sites = read
    return Reading(Draft(Source(path, "", pieces), model, []), [each.runs for each in reads])


def _site_of(entry: str) -> SiteRead:
    """The site that an entry of the list is. Raises ValidationError."""
    match read_alone(entry):
        case [value]:
            site = Site.model_validate(value)
        case other:
            site = Site.model_validate(other)
    return SiteRead(site.model_copy(update={"connections": []}), runs_of(site.connections))


def read_connections(path: Path, memory: Memory) -> FileRead:
    """Read a file of connections, as far as it goes."""
    text = read_text(path)
    if isinstance(text, Problem):
        return FileRead(Listed(Source(path, ""), (), ()), (text,))
    known = memory.files.get(path)
    if known is None or known.listed.source.text != text:
        known = memory.files[path] = _connections_in(path, text)
    return known


def _connections_in(path: Path, text: str) -> FileRead:
    source, problems = Source(path, text), list[Problem]()
    model = _from_json(text)
    if model is None:
        draft = parse_partly(path, ConnectionFile, text=text)
        source, model, problems = draft.source, draft.model, draft.problems
    listed = Listed(source, (), runs_of(model.root if model is not None else ()))
    if [problem.message for problem in problems] == [EMPTY]:
        problems = [replace(problems[0], severity="warning")]
    elif not len(listed) and not problems:
        problems = [source.problem((), "has no connections in it", "warning")]
    return FileRead(listed, tuple(problems))


def _from_json(text: str) -> ConnectionFile | None:
    """A list that nothing is wrong with, much faster than YAML reads it; None: let YAML tell what is."""
    if not text.startswith("[") or _LONE_HALF.search(text) or Reader.NON_PRINTABLE.search(text):
        return None
    try:
        return ConnectionFile.model_validate(json.loads(text, object_pairs_hook=_each_key_once))
    except (ValueError, RecursionError):  # ValidationError is a ValueError
        return None


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError
    return made
