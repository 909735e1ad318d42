"""What a configuration was read from, so that a change of it can be seen."""

import glob
import os
from collections.abc import Hashable
from pathlib import Path

from monitor.config.settings import file_version


class Sources:
    """The files that were read, as they were just before; and where others may appear.

    `file` is the configuration itself, which may be watched or not.
    """

    def __init__(self, file: Path) -> None:
        self._file = glob.escape(str(file))
        self._file_seen = _versions(self._file)
        self._patterns: list[str] = []
        self._seen: dict[str, Hashable] = {}

    def look(self, pattern: str) -> list[Path]:
        """The files that a glob matches now, in the order of their names."""
        self._patterns.append(pattern)
        versions = _versions(pattern)
        self._seen.update(versions)
        return [Path(name) for name in versions]

    def now(self, *, file: bool) -> dict[str, Hashable]:
        """Which files there are now, and their versions; with the configuration itself or without."""
        patterns = [self._file, *self._patterns] if file else self._patterns
        return {name: version for each in patterns for name, version in _versions(each).items()}

    def seen(self, *, file: bool) -> dict[str, Hashable]:
        """Which files there were, and their versions."""
        return self._file_seen | self._seen if file else dict(self._seen)


def _versions(pattern: str) -> dict[str, Hashable]:
    """What a glob matches but for folders, be it a file that can be read or not: reading it tells."""
    # glob.glob keeps `${NAME}` values that were escaped apart from wildcards, which Path.glob cannot.
    names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    # os.path's does not raise where one may not look.
    return {name: file_version(Path(name)) for name in names if not os.path.isdir(name)}  # noqa: PTH112


def unreachable(pattern: str) -> str | None:
    """Why what a glob matches cannot be known: glob takes a folder that cannot be read for an empty one."""
    folder = Path(pattern)
    while glob.has_magic(str(folder)):
        folder = folder.parent
    try:
        if folder == Path(pattern):
            folder.stat()
        else:
            next(folder.iterdir(), None)
    except OSError as error:
        return f"{folder} cannot be read ({error.strerror})"
    return None
