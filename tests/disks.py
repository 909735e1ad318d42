"""Real disks that are small or may not be written; they need root, as mounting does."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

_BLOCK: Final = bytes(4096)


class Disk:
    """A mounted tmpfs and the ballast that fills it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leave no room at all."""
        with self._ballast.open("ab", buffering=0) as ballast:
            room = os.statvfs(self.path).f_bavail + 1
            for _ in range(room):
                try:
                    ballast.write(_BLOCK)
                except OSError:
                    return
        raise AssertionError("the disk takes more than it has room for")

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink()


@contextmanager
def disk(path: Path, options: str) -> Iterator[Disk]:
    """A tmpfs of its own at a new folder; skipped without root, a failure with CI=true."""
    if os.geteuid() != 0:
        complain = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        complain("mounting a disk needs root")
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
