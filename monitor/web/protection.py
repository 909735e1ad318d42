"""Who may ask, and how safely: the web configuration in force, taken anew whenever its files change."""

import asyncio
import stat
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from monitor.config import SecretSource
from monitor.config.document import Loc
from monitor.config.source import Source, parse_partly
from monitor.errors import ConfigError, Problem
from monitor.web.file import Headers, WebFile
from monitor.web.tls import Tls, files_of, make_tls

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the files; what has changed is taken at the look after it came to rest."""


@dataclass(frozen=True, slots=True)
class Protection:
    """What one reading of the file asks for; nothing of it without a file."""

    tls: Tls | None = None
    users: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


class _Reading(NamedTuple):
    protection: Protection
    problems: tuple[Problem, ...]
    files: tuple[Path, ...]

    @property
    def usable(self) -> bool:
        return all(problem.severity == "warning" for problem in self.problems)


Told = Callable[[tuple[Problem, ...]], None]
"""Told of each change of the files: what is wrong with it, nothing where it is in force now."""


class WebConfig:
    """The web configuration of a file. Raises ConfigError with every problem where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: tuple[Path, ...] = (path,)
        self._taken = self._seen = self._versions()
        reading = self._take()
        if not reading.usable:
            raise ConfigError(reading.problems)
        self.warnings = reading.problems
        self.current = reading.protection
        # A thread of its own: a disk that hangs delays no poll and no scrape.
        self._thread = ThreadPoolExecutor(1, "web-config")

    async def watch(self, told: Told) -> None:
        """Look at the files again and again until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            problems = await self.look()
            if problems is not None:
                told(problems)

    async def look(self) -> tuple[Problem, ...] | None:
        """Take what has changed and come to rest; its errors (then the old goes on), None if nothing has."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look)

    def close(self) -> None:
        """Look no further."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> tuple[Problem, ...] | None:
        before, self._seen = self._seen, self._versions()
        if self._seen == self._taken or self._seen != before:
            return None
        reading = self._take()
        problems = tuple(each for each in reading.problems if each.severity == "error")
        if not problems and (reading.protection.tls is None) != (self.current.tls is None):
            told = "was added or removed; restart for that"
            problems = (Problem(str(self._path), 0, "tls_server_config", told),)
        if not problems:
            self.current = reading.protection
        return problems

    def _take(self) -> _Reading:
        """Read the file. Its files are looked at before they are read, so that no change can be missed."""
        while True:
            self._taken = self._versions()
            reading = _read(self._path)
            if reading.files == self._files:
                return reading
            self._files = reading.files

    def _versions(self) -> tuple[Hashable, ...]:
        return tuple((file, SecretSource(file=file).version()) for file in self._files)


def _read(path: Path) -> _Reading:
    draft = parse_partly(path, WebFile)
    if draft.model is None:
        return _Reading(Protection(), tuple(draft.problems), (path,))
    its, problems = draft.model, draft.problems
    tls, files = _tls(its, draft.source, problems)
    for loc, file in _secret_files(its, path):
        if _is_open_to_all(file):
            told = f"{file} can be read by every user; run chmod o-r on it"
            problems.append(draft.source.problem(loc, told, "warning"))
    users = {name.encode(): hashed.encode() for name, hashed in (its.basic_auth_users or {}).items()}
    protection = Protection(tls, users, _headers(its.http_server_config.headers))
    return _Reading(protection, tuple(sorted(problems, key=lambda each: each.line)), (path, *files))


def _tls(its: WebFile, source: Source, problems: list[Problem]) -> tuple[Tls | None, tuple[Path, ...]]:
    server = its.tls_server_config
    if server is None:
        return None, ()

    def complain(loc: Loc, message: str) -> None:
        problems.append(source.problem(("tls_server_config", *loc), message))

    folder = source.path.parent
    return make_tls(server, folder, complain), files_of(server, folder)


def _secret_files(its: WebFile, path: Path) -> list[tuple[Loc, Path]]:
    found: list[tuple[Loc, Path]] = []
    if its.tls_server_config is not None:
        found.append((("tls_server_config", "key_file"), path.parent / its.tls_server_config.key_file))
    return [*found, (("basic_auth_users",), path)] if its.basic_auth_users else found


def _is_open_to_all(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:  # told already
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def _headers(headers: Headers) -> Mapping[str, str]:
    return {name: value for name, value in headers.model_dump(by_alias=True).items() if value}
