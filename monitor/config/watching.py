"""What a configuration was read from, so that a change of it can be seen."""

import glob
from collections.abc import Hashable
from pathlib import Path

from monitor.config.settings import file_version


class Sources:
    """The files that were read, as they were just before; and where others may appear."""

    def __init__(self) -> None:
        self._patterns: list[str] = []
        self._seen: dict[str, Hashable] = {}

    def look(self, pattern: str) -> list[Path]:
        """The files that a glob matches now, in the order of their names."""
        self._patterns.append(pattern)
        versions = _versions(pattern)
        self._seen.update(versions)
        return [Path(name) for name in versions]

    def now(self) -> dict[str, Hashable]:
        """Which files there are now, and their versions."""
        return {name: version for each in self._patterns for name, version in _versions(each).items()}

    @property
    def seen(self) -> dict[str, Hashable]:
        """Which files there were, and their versions."""
        return dict(self._seen)


def _versions(pattern: str) -> dict[str, Hashable]:
    # glob.glob keeps `${NAME}` values that were escaped apart from wildcards, which Path.glob cannot.
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
    return {str(path): file_version(path) for path in found if path.is_file()}
