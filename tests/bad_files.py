"""Folders of bad files, one per rule, with its exact messages beside it in `<name>.expected`."""

from collections.abc import Sequence
from pathlib import Path

from monitor.errors import Problem


def assert_exactly_told(name: str, problems: Sequence[Problem]) -> None:
    """What was found in a file of the present folder is what stands beside it, line by line."""
    told = [str(problem) for problem in problems]
    assert told == Path(name).with_suffix(".expected").read_text().splitlines()
    assert told


def assert_complete(folder: Path) -> None:
    """Every bad file has its messages, and every message its file."""
    files = {path.stem for path in folder.glob("*.yml")}
    assert files == {path.stem for path in folder.glob("*.expected")}
    assert files
